"""How a model answers the held-out prompts: the same prompts and the same sampling for all, temperature 1 without cuts."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from agents.generation import complete, log_likelihoods
from agents.lm import LanguageModel, SequenceBatch
from agents.policy import CausalLMPolicy
from reward_models import Completion, score
from text_envs.episodes import TextEpisodes
from text_envs.task import TextTask

BATCH = 64


@dataclass(frozen=True)
class Answers:
    """Of one answer to each held-out prompt, float64, each of shape [prompts].

    Attributes:
        scores: of the task's own reward.
        kl: from the model at the start, nats per answer (k1, one sample); None where there is no such model.
        lengths: tokens that the policy chose; None for best-of-n, which has no single answer.
    """

    scores: np.ndarray
    kl: np.ndarray | None
    lengths: np.ndarray | None


class RandomPolicy:
    """Every legal token is as likely as any other."""

    def __init__(self, action_space: spaces.Discrete, seed: int):
        self.n, self.rng = int(action_space.n), np.random.default_rng(seed)

    def predict(
        self,
        observation: dict[str, np.ndarray],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """A token for each row of the observation."""
        shape = (len(observation["input_ids"]), self.n)
        legal = np.ones(shape, dtype=bool) if action_masks is None else action_masks
        return np.where(legal, self.rng.random(shape), -1.0).argmax(axis=1), None


def answer(
    model: Any, task: TextTask, prompts: Sequence[Any], deterministic: bool = False
) -> list[Completion]:
    """One answer to each prompt.

    Args:
        model: a `CausalLMPolicy`, or anything with Stable-Baselines3's `predict`.
        deterministic: the best token each time: for value-based algorithms, whose policy is that.
    """
    policy = getattr(model, "policy", model)
    if isinstance(policy, CausalLMPolicy):
        return complete(policy, task, prompts, deterministic, BATCH)
    return [
        completion
        for start in range(0, len(prompts), BATCH)
        for completion in _by_predict(model, task, prompts[start : start + BATCH], deterministic)
    ]


def _by_predict(model: Any, task: TextTask, prompts: Sequence[Any], deterministic: bool) -> list[Completion]:
    episodes, state, starts = TextEpisodes(task, len(prompts)), None, np.ones(len(prompts), dtype=bool)
    episodes.reset(episodes.all_rows, prompts)
    takes_masks = task.masks_actions and "action_masks" in inspect.signature(model.predict).parameters
    completions: dict[int, Completion] = {}
    while episodes.running.any():
        masks = {"action_masks": episodes.action_masks()} if takes_masks else {}
        actions, state = model.predict(
            episodes.tokens.observation(),
            state=state,
            episode_start=starts,
            deterministic=deterministic,
            **masks,
        )
        starts = np.zeros(len(prompts), dtype=bool)
        running = np.flatnonzero(episodes.running)
        ended, texts = episodes.step(running, np.asarray(actions)[running])
        completions.update(zip(ended.tolist(), texts))
    return [completions[row] for row in range(len(prompts))]


def judged(task: TextTask, completions: Sequence[Completion]) -> np.ndarray:
    """Scores of the task's reward model, float64, shape [completions]."""
    return score(task.reward_model, completions)


def lengths(completions: Sequence[Completion]) -> np.ndarray:
    """Tokens of each answer, float64, shape [completions]."""
    return np.array([len(completion.response_ids) for completion in completions], dtype=np.float64)


def kl_to(
    start: LanguageModel, own: LanguageModel, task: TextTask, completions: Sequence[Completion]
) -> np.ndarray:
    """log-probability under `own` less that under `start`, of whole answers sampled from `own`, in nats, shape [completions].

    Where the task allows some tokens only, both distributions are over these.
    """
    return _log_probs(own, task, completions) - _log_probs(start, task, completions)


def _log_probs(lm: LanguageModel, task: TextTask, completions: Sequence[Completion]) -> np.ndarray:
    if not task.masks_actions:
        return log_likelihoods(lm, completions, BATCH)
    batches = [completions[start : start + BATCH] for start in range(0, len(completions), BATCH)]
    return np.concatenate(
        [
            log_likelihoods(_Masked(lm, _legal(task, batch)), batch, BATCH)  # type: ignore[arg-type]
            for batch in batches
        ]
    )


@dataclass
class _Masked:
    """A language model over the legal tokens of one batch."""

    lm: LanguageModel
    legal: np.ndarray

    @property
    def device(self) -> torch.device:
        return self.lm.device

    def token_log_probs(self, batch: SequenceBatch) -> Any:
        legal = torch.from_numpy(self.legal).to(self.device)
        return self.lm.token_log_probs(replace(batch, legal=legal))


def _legal(task: TextTask, completions: Sequence[Completion]) -> np.ndarray:
    """Which tokens were allowed where each response token was chosen, bool, shape [tokens, V]: the episodes played again."""
    episodes = TextEpisodes(task, len(completions))
    field = task.prompts.prompt_field
    episodes.reset(episodes.all_rows, [{field: c.prompt, **c.columns} for c in completions])
    masks: list[list[np.ndarray]] = [[] for _ in completions]
    step = 0
    while episodes.running.any():
        rows = np.flatnonzero(episodes.running)
        legal = episodes.action_masks()
        for row in rows:
            masks[row].append(legal[row].copy())
        episodes.step(rows, np.array([completions[row].response_ids[step] for row in rows.tolist()]))
        step += 1
    return np.array([mask for of_row in masks for mask in of_row])
