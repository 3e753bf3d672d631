"""The two tasks: their demonstrations, split by prompt, and what is asked of a response."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reward_models.coverage import concept_coverage, slot_coverage
from reward_models.preferences.formats import read
from reward_models.preferences.records import Demonstration
from reward_models.preferences.splits import split

DATA = Path(os.environ.get("TEXT_ENVS_DATA") or Path(__file__).parents[3] / "shared" / "data") / "demos"


@dataclass(frozen=True)
class Task:
    """Demonstrations, and how a response is measured.

    Attributes:
        name, title: of the task; where its demonstrations come from.
        coverage: (prompt, response) -> share of what the prompt asks for, 0 to 1; and what it counts.
        steps: of fine-tuning, so that it takes some minutes on one thread.
    """

    name: str
    title: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    coverage: Callable[[str, str], float]
    counted: str
    steps: int

    def demonstrations(self) -> tuple[list[Demonstration], list[Demonstration]]:
        """Those to learn from, and those of other prompts. Where there is no file of its own for them, 15 % of the prompts.

        Raises:
            FileNotFoundError: the data is not there.
        """
        if not (DATA / self.train[0]).is_file():
            raise FileNotFoundError(
                f"{DATA / self.train[0]} is missing. Set TEXT_ENVS_DATA to the data folder."
            )
        train = _read(self.train)
        if not self.test:
            return split(train, 0.15, seed=0)
        known = {demonstration.prompt for demonstration in train}
        return train, [d for d in _read(self.test) if d.prompt not in known]


def _read(files: tuple[str, ...]) -> list[Demonstration]:
    records = [record for file in files for record in read(DATA / file, kind="demonstrations").records]
    return [record for record in records if isinstance(record, Demonstration)]


TASKS = {
    "e2e_nlg": Task(
        name="e2e_nlg",
        title="a restaurant's data to a sentence (E2E NLG, Novikova et al. 2017)",
        train=("e2e_nlg/dev.jsonl.gz", "e2e_nlg/test.jsonl.gz"),
        test=(),
        coverage=slot_coverage,
        counted="slots",
        steps=800,
    ),
    "commongen": Task(
        name="commongen",
        title="a few concepts to a sentence (CommonGen, Lin et al. 2020)",
        train=("commongen/train.jsonl.gz",),
        test=("commongen/dev.jsonl.gz", "commongen/test.jsonl.gz"),
        coverage=concept_coverage,
        counted="concepts",
        steps=2400,
    ),
}
