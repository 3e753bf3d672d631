"""Training whose every update leaves a line of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger

from agents.on_policy import OnPolicyTextAlgorithm
from reward_models import RewardModel, score

NAMES = {
    "score": "objective/scores",
    "kl": "objective/kl",
    "coef": "objective/kl_coef",
    "gold": "objective/gold",
    "std": "objective/std_of_a_prompt",
    "clipped": "train/clip_fraction",
    "gradient": "train/grad_norm",
    "ended": "rollout/eos_rate",
    "length": "rollout/ep_len_mean",
}

Curve = dict[str, list[float]]


class CurveWriter(KVWriter):
    """Collects `NAMES` from Stable-Baselines3's logger, and "tokens", one number of each for an update."""

    def __init__(self) -> None:
        self.curve: Curve = {"tokens": []}

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.curve["tokens"].append(step)
        for short, name in NAMES.items():
            if name in key_values:
                self.curve.setdefault(short, []).append(float(f"{float(key_values[name]):.4g}"))

    def close(self) -> None:
        """Nothing is held."""


class Watch(BaseCallback):
    """Has the gold judge look at every rollout, and measures how much the scores of one prompt's answers differ."""

    model: OnPolicyTextAlgorithm  # type: ignore[assignment]

    def __init__(self, gold: RewardModel | None):
        super().__init__()
        self.gold = gold

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        if self.model.samples_per_prompt > 1:
            scores = np.array([episode.score for episode in buffer.episodes])
            groups = [scores[buffer.groups == group] for group in np.unique(buffer.groups)]
            self.logger.record("objective/std_of_a_prompt", float(np.mean([group.std() for group in groups])))
        if self.gold is not None:
            judged = score(self.gold, [episode.completion for episode in buffer.episodes])
            self.logger.record("objective/gold", float(np.mean(judged)))


def learn(model: OnPolicyTextAlgorithm, tokens: int, gold: RewardModel | None = None) -> Curve:
    """Train for at least `tokens` tokens.

    Returns:
        A list for each of `NAMES` that was logged, and "tokens", with one number for each update, as its rollout was.
    """
    writer = CurveWriter()
    model.set_logger(Logger(None, [writer]))
    model.learn(tokens, Watch(gold))
    return writer.curve
