"""What one small rollout shows of a set-up: the laws at the start of training, and how replies end."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from transformers import AutoConfig

from agents.checks import SelfCheckWarning
from agents.commands import no_score
from agents.doctor_findings import Finding, ok, problem, warning
from agents.doctor_run import dropout_rates
from agents.doctor_training import BFLOAT16_TOLERANCE, FLOAT32_TOLERANCE, RATIO_TOLERANCE
from agents.episodes import EpisodeBuffer
from agents.generation import complete, policy_for
from agents.lora import adds_nothing
from agents.on_policy import OnPolicyTextAlgorithm
from text_envs.task import TextTask

SURPRISED = 5.0  # standard errors; by chance once in two million set-ups
NEVER_ENDS, SELDOM_ENDS = 0.05, 0.5
NEWTON_STEPS = 4
ENOUGH_INFORMATION = (
    10.0  # squared nats; below it the policy has so little choice that one rare token would decide
)
BY_CHANCE = (
    1 / 4
)  # of the replies that are given more time: so many end where a model writes its EOS now and then, as any token
MORE_TIME, TRIED = 16, 8  # a model that does not end is given so many times the tokens, on so many prompts


@dataclass
class Probe:
    """One rollout of an algorithm that has not learned yet, and its first minibatch as the update would see it.

    Attributes:
        buffer: the rollout.
        initial_approx_kl: of the first minibatch before any step; 0 by law. NaN: the loss does not tell.
        between_passes: largest difference between two forward passes over it in training mode, nats; dropout makes it.
        surprise: how much likelier the sampled tokens are than those of the distribution that is trained, in standard errors.
        sampled_temperature: the likeliest temperature of sampling, relative to that distribution's.
    """

    buffer: EpisodeBuffer
    initial_approx_kl: float
    between_passes: float
    surprise: float
    sampled_temperature: float


@torch.no_grad()
def probe(ppo: OnPolicyTextAlgorithm) -> Probe:
    """Roll out once; nothing is trained. The algorithm's prompts and random numbers go on by one rollout."""
    if not hasattr(ppo, "_logger"):
        ppo.set_logger(Logger(None, []))
    _, callback = ppo._setup_learn(1)
    assert ppo.env is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SelfCheckWarning)  # these findings are told by the checks below
        ppo.collect_rollouts(ppo.env, callback, ppo.rollout_buffer, ppo.n_episodes)
    surprise, temperature = _surprise(ppo)
    ppo.policy.set_training_mode(True)
    minibatch = next(
        ppo.rollout_buffer.minibatches(
            ppo.batch_size, ppo.micro_batch_size, max_tokens=ppo.max_tokens_per_batch
        )
    )
    passes = [
        torch.cat([ppo.policy.evaluate_sequences(part.sequences)[1] for part in minibatch]) for _ in range(2)
    ]
    told = [ppo.loss(part)[1].get("approx_kl", torch.nan) for part in minibatch]
    ppo.policy.set_training_mode(False)
    return Probe(
        ppo.rollout_buffer,
        float(sum(told)),
        float((passes[0] - passes[1]).abs().max()),
        surprise,
        temperature,
    )


def _surprise(ppo: OnPolicyTextAlgorithm) -> tuple[float, float]:
    """The score test of "the tokens were sampled at the temperature that is trained", and the likeliest temperature.

    The log-likelihood is concave in b = 1 / temperature: from b = 1, the trained one, Newton's steps find its maximum.
    """
    gradient, information = _slope(ppo, 1.0)
    if information < ENOUGH_INFORMATION:
        return 0.0, 1.0
    surprise, b = gradient / information**0.5, 1.0
    if abs(surprise) > SURPRISED:
        for _ in range(NEWTON_STEPS):
            b = max(b + gradient / max(information, 1e-12), 0.1)
            gradient, information = _slope(ppo, b)
    return surprise, 1 / b


def _slope(ppo: OnPolicyTextAlgorithm, b: float) -> tuple[float, float]:
    """First derivative of the sampled tokens' log-likelihood under softmax(b * logits) by b, and minus the second.

    They are sums over tokens of (logit - mean logit) and of the logits' variance, logits taken as log-probabilities.
    """
    gradient = information = 0.0
    ppo.policy.set_training_mode(False)
    buffer = ppo.rollout_buffer
    lm = ppo.policy.lm
    for indices in buffer.in_order_of_length(
        ppo.micro_batch_size or ppo.batch_size, ppo.max_tokens_per_batch
    ):
        batch = buffer.sequences(indices)
        with lm.autocast():
            all_logits = torch.log_softmax(lm.logits(lm.token_hidden(batch), batch.legal), dim=-1)
        chosen = all_logits.gather(1, batch.actions[:, None]).squeeze(1)
        weights = torch.softmax(b * all_logits, dim=-1)
        all_logits = all_logits.masked_fill(all_logits.isneginf(), 0.0)  # illegal ones, of weight 0
        means = (weights * all_logits).sum(dim=-1)
        gradient += float((chosen - means).sum())
        information += float(((weights * all_logits**2).sum(dim=-1) - means**2).sum())
    return gradient, information


def laws(ppo: OnPolicyTextAlgorithm, found: Probe) -> Iterator[Finding]:
    """Dropout, temperature, ratio and KL at the start."""
    yield dropout(ppo, found)
    yield temperature(ppo, found)
    if not np.isnan(found.initial_approx_kl):
        yield ratio(found)
    yield kl_at_the_start(ppo, found)


def dropout(ppo: OnPolicyTextAlgorithm, found: Probe) -> Finding:
    rates = dropout_rates(ppo.policy.lm.model.config.to_dict())
    named = ", ".join(f"{name} {rate:g}" for name, rate in rates.items()) or "no dropout in its config"
    if found.between_passes > 1e-4:
        return problem(
            "dropout",
            f"Two forward passes of the update over the same replies differ by up to {found.between_passes:.2g} nats "
            f"({named}).",
            "Dropout acts while the policy is trained: keep the model in eval mode, as LanguageModel.train does.",
        )
    if rates:
        return ok(
            "dropout",
            f"The model's config names {named}; it is off in rollouts and in updates, as it must be.",
        )
    return ok("dropout", "There is none.")


def temperature(ppo: OnPolicyTextAlgorithm, found: Probe) -> Finding:
    buffer, trained = found.buffer, ppo.policy.lm.temperature
    error = float(np.abs(buffer.sampled_log_probs - buffer.log_probs).mean())
    float32 = ppo.policy.lm.dtype == torch.float32
    seen = f"{error:.2g} nats per token between sampling and a full forward pass"
    if abs(found.surprise) > SURPRISED:
        return problem(
            "temperature",
            f"The tokens were sampled as if at temperature {trained * found.sampled_temperature:.2g}, the policy is trained "
            f"at {trained:g} ({abs(found.surprise):.0f} standard errors; {seen}).",
            "Sample at the temperature that the loss uses, without top-k, top-p or min_new_tokens.",
        )
    if error > (FLOAT32_TOLERANCE if float32 else BFLOAT16_TOLERANCE):
        return problem(
            "log-probabilities",
            f"The rollout's log-probabilities are not those of the update: {seen}.",
            "The two see other positions, masks, weights or precision: check the cache and the attention mask of the model.",
        )
    return ok("temperature", f"Sampled and trained at {trained:g}; {seen}.")


def ratio(found: Probe) -> Finding:
    seen = f"Before the first step approx_kl is {found.initial_approx_kl:.2g}."
    rounding = float(np.abs(found.buffer.sampled_log_probs - found.buffer.log_probs).mean()) ** 2
    if abs(found.initial_approx_kl) > max(RATIO_TOLERANCE, min(rounding, 1e-2)):
        return problem(
            "ratio at the start",
            f"The ratio should be 1. {seen}",
            "The loss computes other log-probabilities than the rollout recorded: a temperature, a mask, or other weights?",
        )
    return ok("ratio at the start", f"The ratio is 1. {seen}")


def kl_at_the_start(ppo: OnPolicyTextAlgorithm, found: Probe) -> Finding:
    difference = found.buffer.log_probs - found.buffer.ref_log_probs
    per_reply = float(found.buffer.sum_per_episode(difference).mean())
    if ppo.reference_model is None and ppo._n_updates == 0 and adds_nothing(ppo.policy.lm.model):
        if float(np.abs(difference).mean()) > ppo.reference_tolerance:
            return problem(
                "KL at the start",
                f"The policy is its own reference, yet the KL is {per_reply:.2g} nats per reply, up to "
                f"{np.abs(difference).max():.2g} a token.",
                "The reference computes otherwise: another temperature, precision, or dropout in one of the two.",
            )
        return ok("KL at the start", "0: the policy begins as its reference.")
    if per_reply > 10:
        return warning(
            "KL at the start",
            f"The policy begins {per_reply:.1f} nats per reply from its reference.",
            "The penalty will first pull it back: is the reference the model that the policy was trained from?",
        )
    return ok("KL at the start", f"{per_reply:.2g} nats per reply from another reference model.")


# --- how replies end -----------------------------------------------------------------------------------------------


def end_of_replies(ppo: OnPolicyTextAlgorithm, found: Probe, task: TextTask) -> Finding:
    """How many replies ended by themselves; where none did, whether they would with more time."""
    completions = [episode.completion for episode in found.buffer.episodes if episode.completion is not None]
    ended = float(np.mean([one.finish_reason != "length" for one in completions]))
    seen = f"{ended:.0%} of {len(completions)} replies ended by themselves, in {task.max_new_tokens} tokens or fewer."
    if not task.eos_token_ids and not task.stop:
        return ok("end of replies", "Nothing ends a reply but its length.")
    if ended < NEVER_ENDS and not task.masks_actions:
        settings = {
            "stop": task.stop,
            "eos_token_id": task.eos_token_ids,
            "temperature": ppo.policy.lm.temperature,
        }
        prompts = [one.prompt for one in completions]
        tried = try_longer(ppo.policy.lm.model, task.tokenizer, prompts, task.max_new_tokens, settings)
        return never_ends(seen, task.max_new_tokens, tried)
    if ended < SELDOM_ENDS:
        return warning(
            "end of replies",
            seen,
            "Raise --max-new-tokens, or fine-tune on demonstrations as short as replies should be.",
        )
    return ok("end of replies", seen)


def never_ends(seen: str, limit: int, tried: tuple[int, int, int] | None) -> Finding:
    """Of a model none of whose replies ended within `limit` tokens; `tried` is what `try_longer` gave."""
    if tried is None:
        return warning(
            "end of replies",
            f"No reply ends by itself: {seen}",
            "Either the model has not learned to end, or replies are cut early: let it write more with `rlhf generate "
            "--max-new-tokens`, and check its demonstrations with `rlhf doctor --demos`.",
        )
    ended, n, given = tried
    if ended > n * BY_CHANCE:
        return warning(
            "end of replies",
            f"Every reply is cut at {limit} tokens; with {given} tokens {ended} of {n} end by themselves.",
            'Raise --max-new-tokens; or, if they are to be cut, say --eos-token-id "[]", and no penalty is paid for it.',
        )
    return problem(
        "end of replies",
        f"The model never ends a reply: {seen} With {given} tokens {ended or 'none'} of {n} did.",
        "It has not learned its EOS token: fine-tune it (`rlhf sft`) on demonstrations that end in one, and check them with "
        "`rlhf doctor --model MODEL --demos FILE`.",
    )


def try_longer(
    model: Any, tokenizer: Any, prompts: Sequence[str], limit: int, settings: Mapping[str, Any]
) -> tuple[int, int, int] | None:
    """Let a model answer with more tokens than `limit`.

    Args:
        model: a module or a folder. tokenizer: a tokenizer or a folder.
        settings: `stop`, `eos_token_id`, `temperature`, where they are not the defaults.

    Returns:
        How many replies ended by themselves, of how many, within how many tokens; None where it cannot be tried.
    """
    some = list(dict.fromkeys(prompts))[:TRIED]
    if not some or (isinstance(model, Path) and not (model / "config.json").is_file()):
        return None
    arguments: dict[str, Any] = {"stop": settings.get("stop"), "eos_token_id": settings.get("eos_token_id")}
    try:
        longest = TextTask(tokenizer, some, no_score, max_new_tokens=1, **arguments)
        config = model.config if isinstance(model, torch.nn.Module) else AutoConfig.from_pretrained(model)
        given = min(MORE_TIME * limit, positions(config) - longest.max_prompt_tokens)
        if given <= limit:
            return None
        task = TextTask(tokenizer, some, no_score, max_new_tokens=given, **arguments)
        policy = policy_for(
            task,
            model if isinstance(model, torch.nn.Module) else str(model),
            settings.get("temperature", 1.0),
        )
    except (
        ValueError,
        OSError,
    ):  # a policy that was cut short in writing, an environment of another tokenizer
        return None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        replies = complete(policy, task, (some * TRIED)[:TRIED])
    return sum(reply.finish_reason != "length" for reply in replies), len(replies), given


def positions(config: Any) -> int:
    """Tokens that a model of a transformers config has positions for."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 20)
