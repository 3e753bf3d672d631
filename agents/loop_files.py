"""What a run of the loop left in its folder: the policies, their answers, the records of the stages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.ledger import RECORD
from agents.stages import interval

LAST_REWARD = "last_reward.json"  # stage -> score of each of its replies by the last round's reward model


@dataclass
class Policy:
    """One policy of the run and its answers to the held-out prompts.

    Attributes:
        name: "SFT", "Round 1", ...
        stage: the stage that evaluated it.
        result: what `Evaluation.summary` said; the last reward model's mean, "last_reward", is among its scores.
        samples: one dict per held-out prompt: prompt, response, kl, gold, reward and last_reward scores.
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
    """The policies whose evaluation is done, in order.

    The last reward model judges all of them once the run is over: only its means, where an earlier version ran.
    """
    means = read_json(run / "result.json").get("last_reward", {})
    judged = read_json(run / LAST_REWARD)
    folders = [run / "sft-evaluate", *(folder / "evaluate" for folder in rounds_of(run))]
    found = []
    for index, folder in enumerate(folders):
        if (folder / RECORD).is_file():
            name = "SFT" if index == 0 else f"Round {folder.parent.name.removeprefix('round-')}"
            of_stage = str(folder.relative_to(run))
            result, samples = stage(folder)["result"], read_jsonl(folder / "samples.jsonl")
            if len(judged.get(of_stage, ())) == len(samples):
                for row, score in zip(samples, judged[of_stage]):
                    row["last_reward"] = score
                result["scores"]["last_reward"] = interval(np.array(judged[of_stage]))
            elif of_stage in means:
                result["scores"]["last_reward"] = {"mean": means[of_stage]}
            found.append(Policy(name, of_stage, result, samples))
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
