"""The run folder: everything a training run leaves behind, each file under its one name.

config.yaml      the arguments; `rlhf ppo --config config.yaml` repeats the run
metrics.jsonl    one JSON object per update
samples.jsonl    one JSON object per sampled prompt and response
tensorboard/     the same as TensorBoard events
checkpoints/     zips that `TextPPO.load` continues from
policy/          the trained policy, a plain Hugging Face folder
result.json      what came out, written once, at the end
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TextIO

import numpy as np
import torch
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat, filter_excluded_keys

from reward_models.files import replacing

_OURS = (
    "config.yaml",
    "metrics.jsonl",
    "samples.jsonl",
    "tensorboard",
    "checkpoints",
    "sft",
    "policy",
    "result.json",
)


class RunFolder:
    """The files of one run.

    Args:
        path: the folder. It must be new or empty, so that no earlier run is lost by accident.
        overwrite: a run that lies there already is removed by `start`: the files named above, nothing else.

    Raises:
        FileExistsError: the folder has files in it and `overwrite` is false.
        NotADirectoryError: the path is a file.
    """

    def __init__(self, path: str | os.PathLike[str], overwrite: bool = False):
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"{self.path} is a file: the run needs a folder. Name another one.")
        if self.path.is_dir() and any(self.path.iterdir()) and not overwrite:
            raise FileExistsError(
                f"The folder {self.path} is not empty: its run would be lost. "
                "Name another folder, or say --overwrite."
            )

    def start(self, config: str) -> None:
        """Make the folder, without an earlier run's files, and write config.yaml."""
        for name in _OURS:
            target = self.path / name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        with replacing(self.config) as file:
            file.write(config.encode())

    config = property(lambda self: self.path / "config.yaml")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    samples = property(lambda self: self.path / "samples.jsonl")
    tensorboard = property(lambda self: self.path / "tensorboard")
    checkpoints = property(lambda self: self.path / "checkpoints")
    last_checkpoint = property(lambda self: self.checkpoints / "last.zip")
    policy = property(lambda self: self.path / "policy")
    result = property(lambda self: self.path / "result.json")

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json, whole or not at all; NaN and infinities become null.

        Raises:
            TypeError: a value that JSON cannot hold.
        """
        text = json.dumps(plain(result), indent=2, allow_nan=False) + "\n"
        with replacing(self.result) as file:
            file.write(text.encode())

    def logger(self, *more: KVWriter, tensorboard: bool = True) -> Logger:
        """A Stable-Baselines3 logger that writes metrics.jsonl, TensorBoard events and what else is given."""
        formats: list[KVWriter] = [MetricsWriter(self.metrics), *more]
        if tensorboard:
            formats.append(TensorBoardOutputFormat(str(self.tensorboard)))
        return Logger(str(self.path), formats)


class MetricsWriter(KVWriter):
    """Appends one JSON object per dump of Stable-Baselines3's logger to a file, each line flushed at once.

    Every line has `num_timesteps`, `n_updates` and `wall_time` (seconds since the writer was made), then each
    logged number under its own name; NaN and infinities are null. What is not a number is left out.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115  closed by close()
        self.start = time.perf_counter()

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        logged = filter_excluded_keys(key_values, key_excluded, "json")
        numbers = {key: number(value) for key, value in logged.items()}
        row = {
            "num_timesteps": step,
            "n_updates": numbers.get("train/n_updates"),
            "wall_time": round(time.perf_counter() - self.start, 3),
            **{key: value for key, value in numbers.items() if value is not None},
        }
        self.file.write(json.dumps(plain(row), allow_nan=False) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class Progress(KVWriter):
    """Says how training goes: one short line per dump of the logger, at most one in `seconds`.

    Args:
        total_timesteps: tokens that `learn` was asked for; the share done and the time left follow from it.
        seconds: least time between two lines; the first line and the last one always come.
        file: where to write; None is standard error.
    """

    shown: ClassVar = {"objective/scores": "score", "objective/kl": "KL", "rollout/ep_len_mean": "length"}

    def __init__(self, total_timesteps: int, seconds: float = 2.0, file: TextIO | None = None):
        self.total, self.seconds, self.file = total_timesteps, seconds, file or sys.stderr
        self.start = time.perf_counter()
        self.said = -math.inf
        self.pending: str | None = None
        self.count = 0

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        now = time.perf_counter()
        self.count += 1
        self.pending = self._line(key_values, step, now - self.start)
        if now - self.said >= self.seconds or step >= self.total:
            self.said = now
            self.close()

    def close(self) -> None:
        """Say the last line, if it has not been said."""
        if self.pending is not None:
            print(self.pending, file=self.file, flush=True)
            self.pending = None

    def _line(self, values: Mapping[str, Any], step: int, elapsed: float) -> str:
        done = min(step / self.total, 1.0) if self.total else 1.0
        parts = [f"update {self.count:>4}", f"{done:>4.0%} of {self.total:,} tokens"]
        parts += [f"{name} {values[key]:z.2f}" for key, name in self.shown.items() if key in values]
        left = elapsed * (1 - done) / done if done else math.nan
        parts.append(f"{step / max(elapsed, 1e-9):,.0f} tokens/s")
        parts.append(f"{clock(elapsed)} + {clock(left)} to go" if done < 1 else clock(elapsed))
        return "   ".join(parts)


def number(value: Any) -> float | int | None:
    """The value as a Python number; None if it is not one."""
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)) and math.prod(value.shape) == 1:
        value = value.item()
    return value if isinstance(value, (int, float)) else None


def plain(value: Any) -> Any:
    """`value` with numpy scalars as Python's and NaN and infinities as None, all the way down."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
