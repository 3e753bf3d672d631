"""Runs of the experiments: which, in which order, side by side, and each in a file of its own."""

from __future__ import annotations

import json
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from agents.bench.records import commit, machine, versions
from reward_models.files import write_json

# Those that cost least come first, so that a limit cuts the dearest.
EXPERIMENTS = (
    "closed_form",
    "kl_controller",
    "credit",
    "gae_lambda",
    "warm_start",
    "parity",
    "over_optimisation",
)

Settings = dict[
    str, Any
]  # JSON values: "experiment", "condition", "seed", and what the experiment says of the condition


class OutOfTime(BaseException):
    """The limit came in the middle of a run; it leaves no file."""


def module_of(experiment: str) -> Any:
    """The module of an experiment."""
    return import_module(f"benchmarks.science.{experiment}")


def plan(experiments: Sequence[str], seeds: int, quick: bool) -> list[Settings]:
    """The settings of all runs in the order in which they are begun: an experiment's `conditions`, all seeds of each stage
    before the next, every seed through the whole stage before another."""
    planned = []
    for experiment in experiments:
        conditions = module_of(experiment).conditions(quick)
        stages = sorted({condition.get("stage", 0) for condition in conditions})
        planned += [
            {"experiment": experiment, "seed": seed, **condition}
            for stage in stages
            for seed in range(seeds)
            for condition in conditions
            if condition.get("stage", 0) == stage
        ]
    return planned


def path_of(settings: Settings, out: Path) -> Path:
    """The file of a run."""
    name = settings["condition"].replace(" ", "_").replace("%", "")
    return out / "runs" / settings["experiment"] / f"{name}-{settings['seed']}.json"


def is_done(settings: Settings, out: Path) -> bool:
    """Whether the run's file is there, with the same settings."""
    path = path_of(settings, out)
    return path.is_file() and json.loads(path.read_text())["settings"] == settings


def perform(settings: Settings, out: Path, deadline: float) -> float | None:
    """Do one run and write its file; an error that it raises is written beside, and does not end the others.

    Args:
        deadline: seconds since the epoch; the run is given up then.

    Returns:
        Seconds; None where the time did not suffice, or the run failed.
    """
    import torch

    torch.set_num_threads(1)
    started, path = time.time(), path_of(settings, out)
    path.parent.mkdir(parents=True, exist_ok=True)
    failed = path.with_suffix(".error")
    try:
        with until(deadline):
            result = module_of(settings["experiment"]).perform(settings, out / "runs" / "cache")
    except OutOfTime:
        return None
    except Exception:
        failed.write_text(traceback.format_exc())
        return None
    failed.unlink(missing_ok=True)
    seconds = time.time() - started
    about = {"seconds": round(seconds, 1), "versions": versions(), "machine": machine(), "commit": commit()}
    write_json(path, {"settings": settings, "result": result, **about})
    return seconds


@contextmanager
def until(deadline: float) -> Iterator[None]:
    """Raise `OutOfTime` in the block at the deadline, seconds since the epoch; in a process's main thread, on Unix."""
    left = deadline - time.time()
    if left <= 0:
        raise OutOfTime
    if left == float("inf"):
        yield
        return
    before = signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, left)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _give_up(*_: Any) -> None:
    raise OutOfTime


def run_all(planned: Sequence[Settings], out: Path, workers: int, limit: float | None) -> None:
    """Do what is not done yet, `workers` at a time, for `limit` seconds at most."""
    from joblib import Parallel, delayed

    todo = [settings for settings in planned if not is_done(settings, out)]
    print(f"{len(planned) - len(todo)} runs are there, {len(todo)} to do.", flush=True)
    deadline = float("inf") if limit is None else time.time() + limit
    parallel = Parallel(n_jobs=workers, batch_size=1, pre_dispatch="all", return_as="generator")
    finished = parallel(delayed(perform)(settings, out, deadline) for settings in todo)
    for settings, seconds in zip(todo, finished):
        name = f"{settings['experiment']}, {settings['condition']}, seed {settings['seed']}"
        print(f"{name}: {'not finished' if seconds is None else f'{seconds:.0f} s'}", flush=True)


def failures(out: Path) -> list[Path]:
    """The tracebacks of runs that failed."""
    return sorted((out / "runs").glob("*/*.error"))


def read_runs(experiment: str, out: Path) -> list[dict[str, Any]]:
    """What was written of an experiment, by condition and seed."""
    files = sorted((out / "runs" / experiment).glob("*.json"))
    return [json.loads(path.read_text()) for path in files]
