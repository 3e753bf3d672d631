"""What is measured: each case prepares its tensors, and gives a function that computes gradients from them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config

from agents import memory
from agents.episodes import Episode, EpisodeBuffer
from agents.lm import LanguageModel
from agents.losses import clipped_surrogate, value_loss
from agents.policy import CausalLMPolicy

Step = Callable[[], dict[str, Tensor]]
"""What is measured; it returns the gradients by name."""


@dataclass(frozen=True)
class Case:
    """One row of a table.

    ``prepare`` makes the tensors that are there before, always the same ones, and gives the step that is measured.
    ``plain`` names the case whose gradients it must give, and whose memory its own is a share of.
    """

    table: str
    prepare: Callable[[], Step]
    plain: str | None = None
    at_most: float | None = None


# --- log-probabilities: output layer, softmax, and their gradients ---------------------------------------------------

TOKENS, HIDDEN, VOCABULARY = 4096, 768, 50_257
AT_ONCE = 2**62


def log_probs_step(chunked: bool, entropies: bool = False, grad: bool = True) -> Step:
    """Forward and backward from hidden states to log-probabilities, GPT-2's output layer between them."""
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=HIDDEN, n_layer=1, n_head=12, n_positions=8)
    torch.manual_seed(0)
    model = LanguageModel(AutoModelForCausalLM.from_config(config), VOCABULARY, dtype="float32")
    output = model.model.get_output_embeddings().weight
    hidden = torch.randn(TOKENS, HIDDEN).requires_grad_()
    actions = torch.randint(VOCABULARY, (TOKENS,))
    weights = torch.randn(TOKENS)  # the tokens' advantages, say

    def step(rows: int = TOKENS) -> dict[str, Tensor]:
        at_once = memory.LOGITS_AT_ONCE if chunked else AT_ONCE
        with patch.object(memory, "LOGITS_AT_ONCE", at_once), torch.set_grad_enabled(grad):
            log_probs, nats = model.log_probs(hidden[:rows], actions[:rows], entropies=entropies)
            if not grad:
                return {}
            loss = (weights[:rows] * log_probs).mean()
            if nats is not None:
                loss = loss - 0.01 * nats.mean()
            gradients = torch.autograd.grad(loss, [hidden, output])
        return dict(zip(("hidden states", "output layer"), gradients))

    step(8)  # what libraries set up once is there
    return step


# --- a training step: PPO's loss on a minibatch of episodes ----------------------------------------------------------

EPISODES, PROMPT, RESPONSE = 8, 128, (128, 384)
SMALL = GPT2Config(
    vocab_size=8192, n_embd=384, n_layer=6, n_head=6, n_positions=512, bos_token_id=0, eos_token_id=0
)


def training_step(max_tokens: int | None = None, **policy_kwargs: Any) -> Step:
    """Forward and backward of PPO's loss on 8 episodes of 256 to 512 tokens, by a GPT-2 of 6 layers of 384."""
    torch.manual_seed(0)
    length, vocabulary = SMALL.n_positions, SMALL.vocab_size
    observations = spaces.Dict(
        input_ids=spaces.Box(0, vocabulary - 1, (length,), np.int64),
        attention_mask=spaces.MultiBinary(length),
    )
    policy = CausalLMPolicy(
        observations,
        spaces.Discrete(vocabulary),
        lambda _: 1e-5,
        model=AutoModelForCausalLM.from_config(SMALL),
        dtype="float32",
        **policy_kwargs,
    )
    buffer = made_up_episodes(length, vocabulary)

    def step(episodes: int = EPISODES) -> dict[str, Tensor]:
        policy.optimizer.zero_grad()
        order = range(episodes)
        for batch in next(buffer.minibatches(EPISODES, order=order, max_tokens=max_tokens)):
            values, log_probs, _ = policy.evaluate_sequences(batch.sequences)
            loss = clipped_surrogate(log_probs, log_probs.detach(), batch.advantages, 0.2)
            loss = loss + 0.1 * value_loss(values, batch.old_values, batch.returns, None)
            (loss / batch.n_tokens).backward()
        return {
            name: parameter.grad
            for name, parameter in policy.named_parameters()
            if parameter.grad is not None
        }

    step(1)
    policy.optimizer.zero_grad()
    return step


def made_up_episodes(length: int, vocabulary: int) -> EpisodeBuffer:
    """Episodes of random tokens, advantages and returns."""
    random = np.random.default_rng(0)
    buffer = EpisodeBuffer(1, length, vocabulary)
    for n in np.linspace(*RESPONSE, EPISODES, dtype=int):
        ids = random.integers(vocabulary, size=PROMPT + n)
        zeros = np.zeros(n, dtype=np.float32)
        buffer.episodes.append(Episode(ids, np.arange(PROMPT, PROMPT + n), zeros, zeros))
    buffer.close()
    for name in ("advantages", "returns"):
        setattr(buffer, name, random.standard_normal(len(buffer.actions)).astype(np.float32))
    return buffer


# --- the tables ------------------------------------------------------------------------------------------------------

LOG_PROBS = (
    f"Log-probabilities: forward and backward from hidden states [{TOKENS:,}, {HIDDEN}] through GPT-2's output layer "
    f"[{VOCABULARY:,}, {HIDDEN}] to the log-probabilities of {TOKENS:,} tokens, float32. Hidden states and layer are there "
    "before; their gradients (167 MB) belong to the peak."
)
TRAINING = (
    f"A training step: forward and backward of PPO's loss on {EPISODES} episodes of {PROMPT + RESPONSE[0]} to "
    f"{PROMPT + RESPONSE[1]} tokens, prompts of {PROMPT}, by a GPT-2 of {SMALL.n_layer} layers of {SMALL.n_embd}, vocabulary "
    f"{SMALL.vocab_size:,}, and a value head, float32. The model is there before; its gradients belong to the peak."
)

CASES = {
    "plain": Case(LOG_PROBS, partial(log_probs_step, chunked=False)),
    "in chunks": Case(LOG_PROBS, partial(log_probs_step, chunked=True), plain="plain", at_most=0.35),
    "plain, entropies, no gradients": Case(LOG_PROBS, partial(log_probs_step, False, True, grad=False)),
    "in chunks, entropies, no gradients": Case(
        LOG_PROBS,
        partial(log_probs_step, True, True, grad=False),
        plain="plain, entropies, no gradients",
    ),
    "as it is": Case(TRAINING, training_step),
    "gradient_checkpointing": Case(
        TRAINING, partial(training_step, gradient_checkpointing=True), plain="as it is"
    ),
    "max_tokens_per_batch=1024": Case(TRAINING, partial(training_step, max_tokens=1024), plain="as it is"),
    "both": Case(
        TRAINING, partial(training_step, max_tokens=1024, gradient_checkpointing=True), plain="as it is"
    ),
}
