"""The file of a run: JSON lines. The first says what was run and where, then one for each update, the last what came out.

{"record": "run", "settings": {...}, "hash": "...", "versions": {...}, "commit": "...", "machine": {...}, ...}
{"record": "update", "tokens": 2048, "seconds": 1.7, "score": 0.41, "kl": 0.8, "length": 7.2, "metrics": {...}}
{"record": "final", "scores": [...], "kl": [...], "lengths": [...], "tokens": 20480, "seconds": 17.1, "peak_memory_mb": 512}

The file appears under its name when the run is finished, and not before.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import numpy as np
from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

from agents.bench.suite import Run
from agents.runs import number, plain

FORMAT = 1
PACKAGES = (
    "text-envs", "torch", "transformers", "stable-baselines3", "sb3-contrib", "gymnasium", "numpy", "scipy", "joblib",
)  # fmt: skip
# What stands in an update's line under a short name, from this library's log or Stable-Baselines3's.
SHORT = {
    "score": ("objective/scores", "rollout/ep_rew_mean"),
    "kl": ("objective/kl",),
    "length": ("rollout/ep_len_mean",),
}
LEFT_OUT = ("time/", "train/n_updates", *(name for names in SHORT.values() for name in names))


class Record:
    """Writes the lines of one run.

    Args:
        file: a binary file that becomes the run's when it is complete.
    """

    def __init__(self, file: IO[bytes]):
        self.file = file

    def begin(self, run: Run, threads: int, device: str) -> None:
        """The first line."""
        self._write(
            "run",
            format=FORMAT,
            hash=run.hash,
            settings=asdict(run),
            versions=versions(),
            commit=commit(),
            machine={**machine(), "threads": threads, "device": device},
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def update(self, **values: Any) -> None:
        """A line for an update."""
        self._write("update", **values)

    def end(self, **values: Any) -> None:
        """The last line."""
        self._write("final", **values)

    def _write(self, kind: str, **values: Any) -> None:
        self.file.write(
            json.dumps({"record": kind, **_rounded(plain(values))}, allow_nan=False).encode() + b"\n"
        )
        self.file.flush()


class UpdateWriter(KVWriter):
    """Writes a line for each dump of Stable-Baselines3's logger.

    `seconds` counts from the making of this writer.
    """

    def __init__(self, record: Record):
        self.record, self.start = record, time.perf_counter()

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        logged = {
            key: number(value)
            for key, value in filter_excluded_keys(key_values, key_excluded, "json").items()
        }
        short = {
            name: next((logged[key] for key in keys if logged.get(key) is not None), None)
            for name, keys in SHORT.items()
        }
        metrics = {k: v for k, v in logged.items() if v is not None and not k.startswith(LEFT_OUT)}
        self.record.update(tokens=step, seconds=time.perf_counter() - self.start, **short, metrics=metrics)

    def close(self) -> None:
        """Nothing is held."""


def read_run(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """The first line, the updates, and the last line of a run.

    Raises:
        ValueError: it is no complete file of a run.
    """
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        if lines[0]["record"] != "run" or lines[-1]["record"] != "final":
            raise ValueError("its first or last line is not that of a run")
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(
            f"{path} is no complete run: {error}. Remove it, and run the benchmark again."
        ) from error
    return lines[0], lines[1:-1], lines[-1]


def first_line(path: Path) -> dict[str, Any]:
    """What a run's file says about what was run; empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.loads(file.readline())
    except (OSError, ValueError):
        return {}


def versions() -> dict[str, str | None]:
    """Of Python and the packages that the numbers depend on; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def commit() -> str | None:
    """The commit of this package's source, "+" after it where something is changed; None outside a git checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        sha, changes = (
            subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
            ).stdout
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return sha.strip() + ("+" if changes else "")


def machine() -> dict[str, Any]:
    """The processor, its cores and its system."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
    }


def forget_peak() -> None:
    """Let `peak_memory_mb` count from now on, where the system can (Linux); elsewhere it is that of the whole process."""
    import torch

    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_mb() -> float:
    """The most memory that this process held, in MB."""
    try:
        (line,) = (s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    except (OSError, ValueError):
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def gpu_memory_mb() -> float | None:
    """The most memory that torch held on the GPU, in MB; None without one."""
    import torch

    return torch.cuda.max_memory_allocated() / (1 << 20) if torch.cuda.is_available() else None


def _rounded(value: Any) -> Any:
    """Floats with 6 significant digits, all the way down: more would only make the files longer."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) and np.isfinite(value) else value
