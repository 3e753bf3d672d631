"""What is fast learns what is slow and plain: PPO as it is, against the same PPO on the plainest computation of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.utils import LinearSchedule
from torch import Tensor

import text_envs  # noqa: F401  registers the ids
from agents import CausalLMPolicy, TextPPO
from agents.lm import LanguageModel, SequenceBatch
from agents.losses import entropy
from benchmarks.science.claims import HELD, REFUTED, UNDECIDED, Claim, by_seed, difference, text
from benchmarks.science.figures import draw_seeds, legend
from benchmarks.science.training import learn
from reward_models.report import PALETTE, new_figure

TITLE = "The fast path learns what the slow and exact one learns"
PAPER = "No paper's claim: what the ratios of `benchmarks/throughput` need, to be worth anything"
EXACT = "exact"  # float32, no cache, whole logits, a pass of its own for each of policy and values
ARMS = {
    EXACT: {},
    "float32": {"dtype": "float32"},
    "float32, separate value model": {"dtype": "float32", "value_model": "separate"},
    "bfloat16": {"dtype": "bfloat16"},
}
TASKS: dict[str, dict[str, Any]] = {
    "Reverse": {
        "tokens": 15_000, "n_episodes": 256, "batch_size": 128, "n_epochs": 2, "learning_rate": 3e-3, "kl_coef": 0.05,
        "ent_coef": 0.1,
    },
    "SupportReply": {
        "tokens": 6_000, "n_episodes": 32, "batch_size": 16, "n_epochs": 4, "learning_rate": 5e-4, "kl_coef": 0.05,
    },
}  # fmt: skip


class Uncached:
    """Stands where a rollout keeps its cache, and keeps none: each token costs a pass over all that stands before it."""

    def __init__(self, lm: LanguageModel, n_rows: int, max_length: int):
        self.lm, self.ids = lm, np.zeros((n_rows, max_length), dtype=np.int64)

    def last_hidden(self, ids: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> Tensor:
        """As `agents.slots.Slots.last_hidden`."""
        prefixes = torch.from_numpy(ids[rows, : lengths[rows].max()])
        return self.lm.hidden(prefixes)[torch.arange(len(rows)), torch.from_numpy(lengths[rows] - 1)].float()

    def logits(self, hidden: Tensor, legal: Tensor | None = None) -> Tensor:
        """As `agents.slots.Slots.logits`."""
        return self.lm.logits(hidden, legal)


class ExactLanguageModel(LanguageModel):
    """All layers compute all rows, and the output layer too; in the reference as well, which is a copy."""

    def token_log_probs(
        self, batch: SequenceBatch, entropies: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Logits of all positions by the model's own forward pass; hidden states by another one."""
        logits = self.model(input_ids=batch.ids, use_cache=False).logits.float()[batch.rows, batch.columns]
        log_probs = logits.log_softmax(-1).gather(-1, batch.actions[:, None]).squeeze(-1)
        hidden = self.trunk(input_ids=batch.ids, use_cache=False).last_hidden_state[batch.rows, batch.columns]
        return log_probs, entropy(logits) if entropies else None, hidden


class ExactPolicy(CausalLMPolicy):
    """The same distribution and values, computed as one would write it down."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, dtype="float32", **kwargs)
        self.lm.__class__ = ExactLanguageModel
        self.cache_class = Uncached  # type: ignore[assignment]


def conditions(quick: bool) -> list[dict[str, Any]]:
    """Each task in each way."""
    return [
        {"condition": f"{task}, {arm}", "task": task, "arm": arm, **settings, **({"tokens": 200} if quick else {})}
        for task, settings in TASKS.items()
        for arm in ARMS
        if not quick or arm in (EXACT, "float32")
    ]  # fmt: skip


def perform(settings: dict[str, Any], cache: Path) -> dict[str, Any]:
    """The curve of one seed on one task in one way."""
    names = ("n_episodes", "batch_size", "n_epochs", "kl_coef", "ent_coef", "seed")
    model = TextPPO(
        ExactPolicy if settings["arm"] == EXACT else CausalLMPolicy,
        gym.make(f"text_envs/{settings['task']}-v0"),
        LinearSchedule(settings["learning_rate"], 0.0, 1.0),
        policy_kwargs=dict(ARMS[settings["arm"]]),
        device="cpu",
        **{name: settings[name] for name in names if name in settings},
    )
    return {"curve": learn(model, settings["tokens"])}


def scores(runs: list[dict[str, Any]], task: str, arm: str) -> dict[int, float]:
    """By seed, the mean score of all answers in training: that of the whole learning curve, over tokens."""
    found = by_seed(runs, f"{task}, {arm}")
    return {seed: float(np.mean(result["curve"]["score"])) for seed, result in found.items()}


def claims(runs: list[dict[str, Any]]) -> list[Claim]:
    """Each way's mean score is the exact one's, within the noise of seeds."""
    return [alike(runs, task, arm) for task in TASKS for arm in ARMS if arm != EXACT]


def alike(runs: list[dict[str, Any]], task: str, arm: str) -> Claim:
    """That the difference is small against how far the exact way's seeds lie apart."""
    says = f"{task}: {arm} learns as the exact way does."
    criterion = (
        "the 95 % interval of the mean paired difference in the learning curve's mean score lies within two standard "
        "deviations of the exact way's seeds"
    )
    exact = scores(runs, task, EXACT)
    estimate = difference(scores(runs, task, arm), exact)
    if estimate is None:
        return Claim(says, criterion, "fewer than two seeds are there", UNDECIDED)
    noise = 2 * float(np.std(list(exact.values()), ddof=1))
    inside = -noise < estimate.low and estimate.high < noise
    outside = estimate.low > noise or estimate.high < -noise
    return Claim(
        says,
        criterion,
        f"difference {text(estimate, 4)}, two standard deviations {noise:.4f}, {len(exact)} seeds",
        HELD if inside else REFUTED if outside else UNDECIDED,
    )


def figure(runs: list[dict[str, Any]]) -> Any:
    """Learning curves over tokens, one panel for each task."""
    with new_figure(9.6, 3.6, columns=len(TASKS)) as (made, axes):
        for plot, task in zip(axes, TASKS):
            for arm, colour in zip(ARMS, PALETTE):
                curves = [result["curve"] for result in by_seed(runs, f"{task}, {arm}").values()]
                draw_seeds(plot, [c["tokens"] for c in curves], [c["score"] for c in curves], colour, arm)
            plot.set_title(task)
            plot.set_xlabel("tokens")
            legend(plot, loc="lower right")
        axes[0].set_ylabel("score")
        return made
