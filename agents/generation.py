"""Replies of a policy to given prompts, and how likely they are: for looking at a policy, not for training it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.utils import get_device

from agents.lm import LanguageModel, SequenceBatch
from agents.policy import CausalLMPolicy
from reward_models import Completion
from text_envs.episodes import TextEpisodes
from text_envs.task import TextTask


def policy_for(task: TextTask, model: Any, temperature: float = 1.0, device: str = "cpu") -> CausalLMPolicy:
    """A policy on a task's spaces, to be looked at and not trained.

    Args:
        model: folder, config or module, as of `CausalLMPolicy`.
        temperature: of the distribution that is sampled.
        device: "auto" takes CUDA where there is one.
    """
    policy = CausalLMPolicy(
        task.observation_space(), task.action_space(), lambda _: 0.0, model=model, temperature=temperature
    )
    return policy.to(get_device(device))


def complete(
    policy: CausalLMPolicy,
    task: TextTask,
    prompts: Sequence[str | Mapping[str, Any]],
    deterministic: bool = False,
    batch_size: int = 64,
) -> list[Completion]:
    """One reply to each prompt, by the rules of the task, in the order of the prompts.

    Args:
        policy: a policy on the task's spaces. It samples from torch's global generator.
        task: its prompts are not touched, its reward model is not asked.
        prompts: strings, or dicts with the task's prompt field; their other fields become columns.
        deterministic: take the likeliest token each time.
        batch_size: replies generated side by side.
    """
    completions: list[Completion] = []
    for start in range(0, len(prompts), batch_size):
        completions += _complete_batch(policy, task, prompts[start : start + batch_size], deterministic)
    return completions


def _complete_batch(
    policy: CausalLMPolicy, task: TextTask, prompts: Sequence[Any], deterministic: bool
) -> list[Completion]:
    episodes, slots = TextEpisodes(task, len(prompts)), policy.slots(len(prompts))
    episodes.reset(np.arange(len(prompts)), prompts)
    completions: dict[int, Completion] = {}
    while episodes.running.any():
        rows, tokens = np.flatnonzero(episodes.running), episodes.tokens
        legal = episodes.action_masks()[rows] if task.masks_actions else None
        legal = policy.legal_tokens(slots, tokens.input_ids, tokens.lengths, rows, legal)
        actions, _, _ = policy.act(slots, tokens.input_ids, tokens.lengths, rows, legal, deterministic)
        ended, texts = episodes.step(rows, actions.cpu().numpy())
        completions.update(zip(ended.tolist(), texts))
    return [completions[row] for row in range(len(prompts))]


@torch.no_grad()
def log_likelihoods(lm: LanguageModel, completions: Sequence[Completion], batch_size: int = 64) -> np.ndarray:
    """Log-probability in nats of each whole response given its prompt, float64, shape [completions].

    Two models' difference on one model's samples estimates the KL divergence between them, per reply (k1). Token masks
    are not applied: it is for tasks that allow every token.
    """
    sums = [
        _response_log_probs(lm, completions[start : start + batch_size])
        for start in range(0, len(completions), batch_size)
    ]
    return np.concatenate([np.zeros(0), *sums])


def _response_log_probs(lm: LanguageModel, completions: Sequence[Completion]) -> np.ndarray:
    sequences = [(*c.prompt_ids, *c.response_ids) for c in completions]
    ids = np.zeros((len(sequences), max(map(len, sequences))), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
    n_tokens = [len(c.response_ids) for c in completions]
    rows = np.repeat(np.arange(len(sequences)), n_tokens)
    columns = np.concatenate([np.arange(len(c.prompt_ids), len(s)) for c, s in zip(completions, sequences)])
    arrays = (ids, rows, columns - 1, ids[rows, columns])
    batch = SequenceBatch(*(torch.from_numpy(array).to(lm.device) for array in arrays))
    log_probs = lm.token_log_probs(batch)[0].cpu().numpy().astype(np.float64)
    return np.bincount(rows, weights=log_probs, minlength=len(sequences))
