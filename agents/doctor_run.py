"""A run folder of PPO as the doctor reads it: metrics.jsonl, samples.jsonl, config.yaml; and what its state is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from agents.doctor_findings import Finding, ok, problem, warning
from reward_models.files import read_rows


@dataclass
class Run:
    """A run folder of PPO as read, and the quarters in which it is looked at.

    Attributes:
        rows: one dict for each update. samples: one for each sampled reply.
        config: the settings that are known; see `agents.options.training.ppo_parser`.
        dropout: rates above 0 in the policy's config.json, by name; None where there is no policy.
    """

    folder: Path
    rows: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    config: dict[str, Any]
    dropout: dict[str, float] | None = None

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read what is there; a last line that was cut short is left out.

        Raises:
            ValueError: config.yaml or a JSON file is damaged.
        """
        policy = folder / "policy" / "config.json"
        return cls(
            folder,
            _rows(folder / "metrics.jsonl"),
            _rows(folder / "samples.jsonl"),
            settings_of(folder),
            dropout_rates(read_json(policy)) if policy.is_file() else None,
        )

    def series(self, name: str) -> np.ndarray:
        """A number for each update, float64; NaN where it is missing or was not finite."""
        return np.array(
            [np.nan if (value := row.get(name)) is None else value for row in self.rows], dtype=float
        )

    def has(self, *names: str) -> bool:
        """Whether each of these was logged, and was finite at least once."""
        return all(np.isfinite(self.series(name)).any() for name in names)

    @cached_property
    def quarter(self) -> int:
        return max(1, len(self.rows) // 4)

    def first(self, name: str) -> float:
        """Mean over the first quarter of the updates; NaN where there is none."""
        return mean(self.series(name)[: self.quarter])

    def last(self, name: str) -> float:
        """Mean over the last quarter of the updates; NaN where there is none."""
        return mean(self.series(name)[-self.quarter :])

    def change(self, name: str) -> tuple[float, float]:
        """Last quarter minus first, and that in standard errors, from how much updates differ within a quarter."""
        values = self.series(name)
        first, last = values[: self.quarter], values[-self.quarter :]
        error = np.sqrt((np.var(first) + np.var(last)) / max(self.quarter - 1, 1))
        difference = float(np.mean(last) - np.mean(first))
        return difference, difference / float(max(error, 1e-12))


def state(run: Run) -> Finding:
    """Whether the run is over."""
    result, stage = run.folder / "result.json", run.folder / "stage.json"
    seen = f"{len(run.rows)} updates"
    if run.rows:
        seen += f", {run.rows[-1].get('num_timesteps', 0):,} tokens"
    stopped = read_json(result).get("stopped_by")
    if not run.rows:
        return warning("run", "No update was finished yet.", "Come back when metrics.jsonl has rows.")
    if stopped or not (result.is_file() or stage.is_file()):
        why = f"stopped by {stopped}" if stopped else "no result.json yet"
        return ok("run", f"{seen}; not finished ({why}).")
    return ok("run", f"{seen}; finished.")


def numbers(run: Run) -> Finding:
    """NaN and infinities, which metrics.jsonl holds as null. Explained variance is none where all returns are equal."""
    bad = {
        name: i + 1
        for i, row in reversed(list(enumerate(run.rows)))
        for name, value in row.items()
        if value is None and name != "train/explained_variance"
    }
    if not bad:
        return ok("numbers", "All logged numbers are finite.")
    name = min(bad, key=lambda name: bad[name])
    return problem(
        "numbers",
        f"{name} was not finite in update {bad[name]}; so were {len(bad) - 1} other quantities.",
        "Lower --learning-rate and look for a reward that is infinite; go on from a checkpoint before that update.",
    )


def settings_of(folder: Path) -> dict[str, Any]:
    """The settings of a PPO run: of its config.yaml; of a stage of the loop, those of its stage.json."""
    config, stage = folder / "config.yaml", folder / "stage.json"
    try:
        settings = (yaml.safe_load(config.read_text()) if config.is_file() else None) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{config} cannot be read: {' '.join(str(error).split())}. Restore it from a copy."
        ) from error
    if not isinstance(settings, dict):
        raise ValueError(f"{config} holds a {type(settings).__name__}, no settings. Restore it from a copy.")
    made_from = read_json(stage).get("made_from")
    if made_from is not None:
        same = made_from.get("reference") == made_from.get("policy")
        settings = settings | made_from.get("ppo", {}) | {"reference_model": None if same else "another"}
    return settings


def dropout_rates(config: dict[str, Any]) -> dict[str, float]:
    """The dropouts above 0 that a transformers config names: {"attn_pdrop": 0.1, ...}."""
    return {
        name: float(value)
        for name, value in config.items()
        if ("dropout" in name or name.endswith("pdrop"))
        and isinstance(value, float | int)
        and value > 0
        and not name.startswith(("summary", "classifier"))  # of heads that a causal LM does not have
    }


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds; empty where there is no file.

    Raises:
        ValueError: it holds something else than a dict.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}. Restore it from a copy.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, not an object. Restore it from a copy.")
    return value


def mean(values: np.ndarray) -> float:
    """The mean of what is finite; NaN where nothing is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows = read_rows(path, problems=[])[0]
    return [row for row in rows if isinstance(row, dict)]
