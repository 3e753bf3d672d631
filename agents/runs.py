"""The run folder: everything a training run leaves behind, each file under its one name.

config.yaml      the arguments; `rlhf ppo --config config.yaml` repeats the run, with --resume it goes on with it
metrics.jsonl    one JSON object per update
samples.jsonl    one JSON object per sampled prompt and response
tensorboard/     the same as TensorBoard events
checkpoints/     zips that `TextPPO.load` continues from
policy/          the trained policy, a plain Hugging Face folder
result.json      what came out, written once, at the end

report.html is the loop's (`rlhf loop`, `rlhf demo`), which lays such a folder into each of its rounds.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TextIO

import numpy as np
import torch
import yaml
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat, filter_excluded_keys

from agents import processes
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
    "doctor.json",
)
# Settings that a run may go on with otherwise: they change nothing that it learns.
_FREE = {"out", "overwrite", "resume", "device", "threads", "tensorboard", "checkpoint_every"}
# What a write leaves behind that was killed (`reward_models.files.replacing`).
_LITTER = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def check_can_be_folder(path: Path) -> None:
    """Raise NotADirectoryError where a file stands in the way of a run's folder."""
    there = next(step for step in (path, *path.parents) if step.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{there} is a file: the run needs a folder. Name another one.")


def make_folder(path: Path) -> None:
    """Make a run's folder; OSError, which names it, where that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"The folder {path} cannot be made: {error.strerror}. Name another one.") from error


class RunFolder:
    """The files of one run.

    Args:
        path: the folder. It must be new or empty, so that no earlier run is lost by accident.
        overwrite: a run that lies there already is removed by `start`: the files named above, nothing else.
        resume: a run that lies there already is gone on with.

    Attributes:
        resumes: there is a checkpoint to go on from, and it is asked for.

    Raises:
        FileExistsError: the folder has files in it, and neither `overwrite` nor, with a run in it, `resume` is true.
        NotADirectoryError: the path is a file.
        ValueError: both are true.
    """

    def __init__(self, path: str | os.PathLike[str], overwrite: bool = False, resume: bool = False):
        self.path = Path(path)
        if overwrite and resume:
            raise ValueError("--overwrite begins anew and --resume goes on: say one of them.")
        check_can_be_folder(self.path)
        has_run = resume and self.config.is_file()
        if (
            self.path.is_dir()
            and not overwrite
            and not has_run
            and any(map(self._counts, self.path.iterdir()))
        ):
            raise FileExistsError(
                f"The folder {self.path} is not empty, and holds no run to go on with. Name another folder."
                if resume
                else f"The folder {self.path} is not empty: its run would be lost. "
                "Name another folder, or say --overwrite."
            )
        self._has_run = has_run
        self.resumes = has_run and self.last_checkpoint.is_file()

    @staticmethod
    def _counts(path: Path) -> bool:
        return not _LITTER.fullmatch(path.name)

    def check(self, config: str) -> None:
        """Make sure that a run which is gone on with has the settings that it began with.

        Raises:
            ValueError: naming those that differ.
        """
        if not self._has_run:
            return
        old, new = (yaml.safe_load(text) or {} for text in (self.config.read_text(), config))
        changes = [
            f"{name} was {json.dumps(old.get(name))} and is {json.dumps(new.get(name))}"
            for name in dict.fromkeys([*old, *new])
            if name not in _FREE and old.get(name) != new.get(name)
        ]
        if changes:
            raise ValueError(
                f"The run in {self.path} began with other settings: {'; '.join(changes)}. Go on with those "
                f"(--config {self.config} --resume), or name another folder."
            )

    def start(self, config: str) -> None:
        """Make the folder and write config.yaml, without an earlier run's files; where it resumes, these stay.

        Of several processes the first does it, once all have looked at what was there.
        """
        processes.wait()
        if processes.is_first():
            self._start(config)
        processes.wait()

    def _start(self, config: str) -> None:
        for folder in (self.path, self.checkpoints):
            for path in folder.glob(".*.tmp"):
                if not self._counts(path):
                    path.unlink()
        if self.resumes:
            self.result.unlink(missing_ok=True)
            return
        for name in _OURS:
            target = self.path / name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        make_folder(self.path)
        with replacing(self.config) as file:
            file.write(config.encode())

    def is_finished(self) -> bool:
        """Whether the run came to its own end, and all its files are written."""
        return self.result.is_file() and json.loads(self.result.read_text()).get("stopped_by") is None

    config = property(lambda self: self.path / "config.yaml")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    samples = property(lambda self: self.path / "samples.jsonl")
    tensorboard = property(lambda self: self.path / "tensorboard")
    checkpoints = property(lambda self: self.path / "checkpoints")
    last_checkpoint = property(lambda self: self.checkpoints / "last.zip")
    policy = property(lambda self: self.path / "policy")
    result = property(lambda self: self.path / "result.json")

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json, whole or not at all, in the first process; NaN and infinities become null.

        Raises:
            TypeError: a value that JSON cannot hold.
        """
        if not processes.is_first():
            return
        text = json.dumps(plain(result), indent=2, allow_nan=False) + "\n"
        with replacing(self.result) as file:
            file.write(text.encode())

    def logger(self, *more: KVWriter, tensorboard: bool = True, step: int = 0) -> Logger:
        """A Stable-Baselines3 logger that writes metrics.jsonl, TensorBoard events and what else is given; of several
        processes the first one's alone writes.

        Args:
            step: where the run goes on; TensorBoard then hides the events after it, which are to come once more.
        """
        if not processes.is_first():
            return Logger(str(self.path), [])
        formats: list[KVWriter] = [MetricsWriter(self.metrics), *more]
        if tensorboard:
            board = TensorBoardOutputFormat(str(self.tensorboard))
            if step:
                board.writer.close()
                board.writer = type(board.writer)(str(self.tensorboard), purge_step=step + 1)
            formats.append(board)
        return Logger(str(self.path), formats)


class MetricsWriter(KVWriter):
    """Appends one JSON object per dump of Stable-Baselines3's logger to a file, each line flushed at once.

    Every line has `num_timesteps`, `n_updates` and `wall_time` (seconds since the writer was made, after those of the file's
    last line), then each logged number under its own name; NaN and infinities are null. What is not a number is left out.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.log_file = Path(path)
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115  closed by close()
        self.start = time.perf_counter()
        self.earlier: float | None = (
            None  # not before the first line is written: until then the file may be cut
        )

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        logged = filter_excluded_keys(key_values, key_excluded, "json")
        numbers = {key: number(value) for key, value in logged.items()}
        if self.earlier is None:
            self.earlier = last_wall_time(self.log_file)
        row = {
            "num_timesteps": step,
            "n_updates": numbers.get("train/n_updates"),
            "wall_time": round(self.earlier + time.perf_counter() - self.start, 3),
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
        begin: tokens that were generated already.
        seconds: least time between two lines; the first line and the last one always come.
        file: where to write; None is standard error.
    """

    shown: ClassVar = {"objective/scores": "score", "objective/kl": "KL", "rollout/ep_len_mean": "length"}

    def __init__(
        self, total_timesteps: int, begin: int = 0, seconds: float = 2.0, file: TextIO | None = None
    ):
        self.total, self.begin, self.seconds, self.file = total_timesteps, begin, seconds, file or sys.stderr
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
        parts = [
            f"update {values.get('time/iterations', self.count):>4}",
            f"{done:>4.0%} of {self.total:,} tokens",
        ]
        parts += [f"{name} {values[key]:z.2f}" for key, name in self.shown.items() if key in values]
        speed = (step - self.begin) / max(elapsed, 1e-9)
        left = (self.total - step) / speed if speed else math.nan
        parts.append(f"{speed:,.0f} tokens/s")
        parts.append(f"{clock(elapsed)} + {clock(left)} to go" if done < 1 else clock(elapsed))
        return "   ".join(parts)


def last_wall_time(metrics: str | os.PathLike[str]) -> float:
    """Seconds, by the last whole line of a metrics.jsonl; 0 where there is none."""
    with open(metrics, "rb") as file:
        lines = file.read().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    return float(json.loads(whole[-1])["wall_time"]) if whole else 0.0


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
