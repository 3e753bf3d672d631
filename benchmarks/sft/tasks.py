"""The two tasks: their demonstrations, split by prompt, and what is asked of a response."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reward_models.coverage import concept_coverage, slot_coverage
from reward_models.preferences.formats import read
from reward_models.preferences.records import Demonstration
from reward_models.preferences.splits import split

DATA = Path(os.environ.get("TEXT_ENVS_DATA") or Path(__file__).parents[3] / "shared" / "data") / "demos"

# Words that no one would give as a concept.
FUNCTION_WORDS = {
    "and", "are", "for", "from", "has", "her", "his", "into", "its", "one", "out", "over", "she", "some", "that", "the",
    "their", "there", "they", "this", "two", "was", "were", "while", "with",
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """Demonstrations, and how a response is measured.

    Attributes:
        name, title: of the task; where its demonstrations come from.
        coverage: (prompt, response) -> share of what the prompt asks for, 0 to 1; and what it counts.
        steps: of fine-tuning.
        template: how a prompt is put to the model.
        vocabulary: tokens of the BPE that is made.
        model, learning: what differs from the settings in measure.py.
        asked_again: so many times more is each response of the training part learned, asked for by some of its own words.
    """

    name: str
    title: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    coverage: Callable[[str, str], float]
    counted: str
    steps: int
    template: str = "{}"
    vocabulary: int = 2048
    model: Mapping[str, Any] = field(default_factory=dict)
    learning: Mapping[str, Any] = field(default_factory=dict)
    asked_again: int = 0

    def demonstrations(self) -> tuple[list[Demonstration], list[Demonstration]]:
        """Those to learn from, and those of other prompts. Where there is no file of its own for them, 15 % of the prompts.

        Raises:
            FileNotFoundError: the data is not there.
        """
        if not (DATA / self.train[0]).is_file():
            raise FileNotFoundError(
                f"{DATA / self.train[0]} is missing. Set TEXT_ENVS_DATA to the data folder."
            )
        train = self._read(self.train)
        if not self.test:
            return split(train, 0.15, seed=0)
        known = {demonstration.prompt for demonstration in train}
        return train, [d for d in self._read(self.test) if d.prompt not in known]

    def drawn(
        self, train: Sequence[Demonstration], held_out: Sequence[Demonstration], seed: int
    ) -> list[Demonstration]:
        """Each response `asked_again` times, by two to five of its own words at random: no prompt can be known by heart.
        What is held out is not asked."""
        rng, more = random.Random(seed), []
        unknown = {frozenset(d.prompt.split()) for d in held_out}
        for demonstration in list(train) * self.asked_again:
            words = re.findall(r"[a-z]{3,}", demonstration.response.lower())
            content = [word for word in dict.fromkeys(words) if word not in FUNCTION_WORDS]
            if len(content) >= 2:
                chosen = rng.sample(content, min(len(content), rng.randint(2, 5)))
                prompt = self.template.format(" ".join(chosen))
                if frozenset(prompt.split()) not in unknown:
                    more.append(replace(demonstration, prompt=prompt))
        return more

    def _read(self, files: Sequence[str]) -> list[Demonstration]:
        records = [record for file in files for record in read(DATA / file, kind="demonstrations").records]
        found = [record for record in records if isinstance(record, Demonstration)]
        return [replace(d, prompt=self.template.format(d.prompt)) for d in found]


def covered_concepts(prompt: str, response: str) -> float:
    """`concept_coverage` of the concepts in commongen's template."""
    return concept_coverage(prompt.removesuffix(" ="), response)


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
        coverage=covered_concepts,
        counted="concepts",
        steps=5000,
        # Copying is what is hard here: a space before every word, and a mark after the last, make a concept the same token
        # in prompt and response; larger weights, and prompts that never come again, make attending to it worth learning.
        template=" {} =",
        vocabulary=4096,
        model=dict(
            hidden_size=128,
            intermediate_size=384,
            num_attention_heads=4,
            num_key_value_heads=4,
            initializer_range=0.06,
        ),
        learning=dict(batch_size=48, learning_rate=4e-3),
        asked_again=10,
    ),
}
