"""The runs of a folder, and the numbers that tables and figures show of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from agents.bench.algorithms import BASELINES, known
from agents.bench.records import read_run
from agents.bench.statistics import normalised

LABELS = {
    "random": "random tokens",
    "start": "start (no RL)",
    "best_of_4": "best of 4 (no RL)",
    "best_of_16": "best of 16 (no RL)",
}


@dataclass(frozen=True)
class Result:
    """One run that is finished: its first line, its updates, its last line."""

    head: dict[str, Any]
    updates: list[dict[str, Any]]
    final: dict[str, Any]

    task = property(lambda self: self.head["settings"]["task"])
    algorithm = property(lambda self: self.head["settings"]["algorithm"])
    tier = property(lambda self: self.head["settings"]["tier"])
    seed = property(lambda self: self.head["settings"]["seed"])

    @cached_property
    def score(self) -> float:
        """Mean over the held-out prompts."""
        return float(np.mean(self.final["scores"]))

    @property
    def kl(self) -> float | None:
        """Nats per answer from the start, mean over the held-out prompts."""
        return _mean(self.final["kl"])

    @property
    def length(self) -> float | None:
        """Tokens per answer, mean over the held-out prompts."""
        return _mean(self.final["lengths"])

    @property
    def family(self) -> str:
        """ "baseline", "text" (a language model learned) or "stock"."""
        if self.algorithm in BASELINES:
            return "baseline"
        return "stock" if self.final["kl"] is None else "text"

    def curve(self, *names: str) -> list[np.ndarray]:
        """Quantities of the updates that have all of them, each of shape [updates]."""
        rows = [row for row in self.updates if all(row.get(name) is not None for name in names)]
        return [np.array([row[name] for row in rows], dtype=np.float64) for name in names]


class Results:
    """All runs of a folder of results.

    Attributes:
        runs: those that are finished. failed: names of those that an error ended.
    """

    def __init__(self, runs: Sequence[Result], failed: Sequence[str] = ()):
        self.runs, self.failed = sorted(runs, key=lambda run: run.seed), list(failed)

    @classmethod
    def read(cls, folder: Path) -> Results:
        """The finished runs of a folder; those for tuning only where there are no others.

        Raises:
            ValueError: there are none, or a file is damaged.
        """
        runs = [Result(*read_run(path)) for path in sorted((folder / "runs").glob("*/*/*.jsonl"))]
        if not runs:
            raise ValueError(f"There are no runs in {folder}: give the --out of `rlhf bench run`.")
        tested = [run for run in runs if not run.head["settings"].get("tuning")]
        failed = [
            f"{path.parents[1].name}, {path.parent.name}, seed {path.stem}"
            for path in sorted((folder / "runs").glob("*/*/*.error"))
        ]
        return cls(tested or runs, failed)

    @property
    def tiers(self) -> list[str]:
        """In order: the probe tasks first."""
        return sorted({run.tier for run in self.runs}, key=lambda tier: (tier != "probe", tier))

    def tasks(self, tier: str | None = None) -> list[str]:
        """Of one tier, or all; in the order of tiers, by name."""
        found = {(run.tier, run.task) for run in self.runs}
        return [task for of in self.tiers if tier in (of, None) for t, task in sorted(found) if t == of]

    def algorithms(self, task: str | None = None) -> list[str]:
        """Of one task, or all; baselines first, then as the library lists them, then others."""
        order = {name: index for index, name in enumerate(known())}
        found = {run.algorithm for run in self.runs if task in (run.task, None)}
        return sorted(found, key=lambda name: (order.get(name, len(order)), name))

    def of(self, task: str, algorithm: str) -> list[Result]:
        """The runs of an algorithm on a task, by seed."""
        return [run for run in self.runs if (run.task, run.algorithm) == (task, algorithm)]

    def scores(self, task: str, algorithm: str) -> np.ndarray:
        """Mean held-out score of each seed, shape [seeds]."""
        return np.array([run.score for run in self.of(task, algorithm)])

    def optimum(self, task: str) -> float:
        """The best mean score there can be: the task's, or 1."""
        given = [run.final["optimum"] for run in self.runs if run.task == task]
        return max((float(optimum) for optimum in given if optimum is not None), default=1.0)

    def start(self, task: str) -> float | None:
        """Mean score of the start over its seeds; None if it was not run."""
        scores = self.scores(task, "start")
        return float(scores.mean()) if len(scores) else None

    def normalised(self, task: str, algorithm: str) -> np.ndarray:
        """`scores` where 0 is the start and 1 the optimum, shape [seeds]."""
        return normalised(self.scores(task, algorithm), self.start(task) or 0.0, self.optimum(task))

    def comparable(self, tier: str) -> list[str]:
        """The tasks of a tier on which scores can be normalised."""
        return [
            task
            for task in self.tasks(tier)
            if (start := self.start(task)) is not None and start < self.optimum(task)
        ]

    def complete(self, tier: str) -> list[str]:
        """The algorithms that ran on all comparable tasks of a tier, best first by normalised mean."""
        tasks = self.comparable(tier)
        names = [name for name in self.algorithms() if tasks and all(self.of(task, name) for task in tasks)]
        return sorted(names, key=lambda name: -np.concatenate(self.matrix(tier, name)).mean())

    def matrix(self, tier: str, algorithm: str) -> list[np.ndarray]:
        """Normalised scores on the comparable tasks of a tier, each of shape [seeds]."""
        return [self.normalised(task, algorithm) for task in self.comparable(tier)]

    def family(self, algorithm: str) -> str:
        """Of an algorithm, by any of its runs."""
        return next(run.family for run in self.runs if run.algorithm == algorithm)


def label(algorithm: str) -> str:
    """An algorithm's name for people."""
    return LABELS.get(algorithm, algorithm)


def _mean(values: Sequence[float] | None) -> float | None:
    return None if values is None else float(np.mean(values))
