"""Reward models made of reward models. Parts may be whatever `make` takes, nested dicts of JSON values included."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reward_models.completion import Completion, RewardError, RewardModel, excerpt, score
from reward_models.registration import make


class WeightedSum:
    """Sum of weight times score. Range: that of the parts, scaled and added.

    Each part is validated by itself, so that an error names the part and the completion.

    Args:
        rewards: reward models, or what `make` takes: `["length", ...]`, `[{"name": "length", "target": 20}, ...]`.
        weights: one finite number each; 1.0 each by default.
    """

    def __init__(self, rewards: Sequence[Any], weights: Sequence[float] | None = None) -> None:
        if isinstance(rewards, str | Mapping) or not len(rewards):
            raise RewardError(f"weighted_sum: rewards is {excerpt(rewards)}. Give a list of reward models.")
        weights = [1.0] * len(rewards) if weights is None else list(weights)
        if len(weights) != len(rewards) or not all(map(math.isfinite, weights)):
            raise RewardError(
                f"weighted_sum: weights {weights} for {len(rewards)} rewards. Give one finite number for each."
            )
        self.rewards = [make(reward) for reward in rewards]
        self.weights = [float(weight) for weight in weights]

    def __repr__(self) -> str:
        return f"WeightedSum({self.rewards}, {self.weights})"

    def __call__(self, completions: Sequence[Completion]) -> np.ndarray:
        """Scores, float64, shape [n]."""
        parts = [weight * score(reward, completions) for weight, reward in zip(self.weights, self.rewards)]
        return np.sum(parts, axis=0)

    @property
    def counts(self) -> dict[str, int]:
        """What the guarded parts counted, added up."""
        return counts_of(*self.rewards)


class Clip:
    """The scores of another reward model, kept within limits. Range [low, high].

    Args:
        reward: a reward model, or what `make` takes.
        low: no score is below it; None for no limit.
        high: no score is above it; None for no limit.
    """

    def __init__(self, reward: Any, low: float | None = None, high: float | None = None) -> None:
        self.low = -math.inf if low is None else float(low)
        self.high = math.inf if high is None else float(high)
        if not self.low < self.high:
            raise RewardError(f"clip: low {low}, high {high}. Give low < high.")
        self.reward = make(reward)

    def __repr__(self) -> str:
        return f"Clip({self.reward!r}, {self.low}, {self.high})"

    def __call__(self, completions: Sequence[Completion]) -> np.ndarray:
        """Scores, float64, shape [n]."""
        return np.clip(score(self.reward, completions), self.low, self.high)

    @property
    def counts(self) -> dict[str, int]:
        """What the guarded part counted."""
        return counts_of(self.reward)


def counts_of(*rewards: RewardModel) -> dict[str, int]:
    """The `counts` of the reward models that have them (see `Guarded`), added up; empty where none has."""
    total: Counter[str] = Counter()
    for reward in rewards:
        total.update(getattr(reward, "counts", {}))
    return dict(total)
