"""What a run of the loop left in its folder: the policies, their answers, the records of the stages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.ledger import RECORD


@dataclass
class Policy:
    """One policy of the run and its answers to the held-out prompts.

    Attributes:
        name: "SFT", "Round 1", ...
        stage: the stage that evaluated it.
        result: what `Evaluation.summary` said.
        samples: one dict per held-out prompt: prompt, response, kl, gold and reward scores.
    """

    name: str
    stage: str
    result: dict[str, Any]
    samples: list[dict[str, Any]]

    def values(self, key: str) -> np.ndarray:
        """A number of every sample, shape [prompts]."""
        return np.array([row[key] for row in self.samples], dtype=np.float64)

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(row["response_ids"]) for row in self.samples], dtype=np.float64)


def policies_of(run: Path) -> list[Policy]:
    """The policies whose evaluation is done, in order."""
    folders = [run / "sft-evaluate", *(folder / "evaluate" for folder in rounds_of(run))]
    found = []
    for index, folder in enumerate(folders):
        if (folder / RECORD).is_file():
            name = "SFT" if index == 0 else f"Round {folder.parent.name.removeprefix('round-')}"
            found.append(
                Policy(
                    name,
                    str(folder.relative_to(run)),
                    stage(folder)["result"],
                    read_jsonl(folder / "samples.jsonl"),
                )
            )
    return found


def rounds_of(run: Path) -> list[Path]:
    """The folders of the rounds, in order."""
    return sorted(run.glob("round-*"), key=lambda folder: int(folder.name.removeprefix("round-")))


def stage(folder: Path) -> dict[str, Any]:
    """The stage.json of a stage's folder."""
    return json.loads((folder / RECORD).read_text())


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file; {} where there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}
