"""Who competes, and how a contender is told to run its next round."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TextIO

import psutil
import torch

from benchmarks.throughput.other_python import OtherPython
from benchmarks.throughput.setting import Setting


@dataclass(frozen=True)
class Contender:
    """One row of a table.

    Attributes:
        function: "module:function", called as ``function(setting, rounds, **kwargs)`` in a process of its own; it prepares
            itself, then runs one round whenever ``rounds.next()`` returns True.
        label: what the table calls it.
        changes: of the setting, for it alone.
        needs: a package without which it is skipped.
        python: another Python that runs it, without which it is skipped.
    """

    function: str
    label: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    needs: str | None = None
    python: OtherPython | None = None

    @property
    def is_installed(self) -> bool:
        if self.python is not None:
            return self.python.find() is not None
        return self.needs is None or find_spec(self.needs) is not None

    @property
    def notice(self) -> str:
        """What to do where it is not installed."""
        if self.python is not None:
            return self.python.notice
        return f"{self.needs} is not installed: pip install 'text-envs[bench]'"

    @property
    def is_bf16(self) -> bool:
        return self.kwargs.get("dtype") == "bfloat16"

    def load(self) -> Callable[..., None]:
        module, name = self.function.split(":")
        return getattr(import_module(f"benchmarks.throughput.contenders.{module}"), name)


class Rounds:
    """The contender's side of the pipe to the parent process.

    ``next`` reports the round that has just run and waits for the order to run another. What happens between two calls is
    what is measured, divided by ``units`` (episodes, or tokens) that the contender says one round does.

    Attributes:
        units: of work in the last round.
        seconds: of the last round, where a contender measures itself (a scaled-down one); None: the wall clock.
        facts: said once in the results, such as the dtype that really came out of a layer.
        after_warm_up: called once, when the first round has been reported.
    """

    def __init__(self, orders: TextIO, reports: TextIO, units: float = 1.0):
        self.orders, self.reports = orders, reports
        self.units = units
        self.seconds: float | None = None
        self.facts: dict[str, Any] = {}
        self.after_warm_up: Callable[[], None] | None = None
        self._started: tuple[float, float, float] | None = None

    def next(self) -> bool:
        """Report the last round, if any; wait; True if another one is to run, False if it is over."""
        if self._started is not None:
            self._report(self._started)
            self.end_warm_up()
        else:
            self._send({"ready": True})
        if self.orders.readline().strip() != "run":
            return False
        self._started = time.perf_counter(), own_seconds(), busy_seconds()
        return True

    def end_warm_up(self) -> None:
        if self.after_warm_up is not None:
            self.after_warm_up()
            self.after_warm_up = None

    def _report(self, started: tuple[float, float, float]) -> None:
        wall, cpu, busy = (
            now - then for now, then in zip((time.perf_counter(), own_seconds(), busy_seconds()), started)
        )
        self._send(
            {
                "per_unit": (self.seconds or wall) / self.units,
                "wall": wall,
                "cpu": cpu,
                "others": max(0.0, busy - cpu) / wall,
                "peak_mb": peak_megabytes(),
                "facts": self.facts,
            }
        )

    def _send(self, message: dict[str, Any]) -> None:
        print(json.dumps(message), file=self.reports, flush=True)


def own_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def usable_cores() -> list[int]:
    """The numbers of the cores that this process may run on: all, unless it was pinned, by ``taskset`` say."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(psutil.cpu_count() or 1))


def busy_seconds() -> float:
    """Seconds that the usable cores together have been busy with anything, a hypervisor's theft included, since the start."""
    times = psutil.cpu_times(percpu=True)
    return sum(
        sum(core) - core.idle - getattr(core, "iowait", 0.0) - getattr(core, "guest", 0.0)
        for core in (times[number] for number in usable_cores())
    )


def peak_megabytes() -> float:
    """The most memory that this process has held, in MB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3 / 1.024)


def watch_dtype(model: torch.nn.Module, facts: dict[str, Any], what: str) -> None:
    """Note under ``facts[what]`` which dtypes really come out of the model's linear layers in training and in decoding."""

    def note(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> None:
        phase = "update" if torch.is_grad_enabled() else "decoding" if output.shape[-2] == 1 else "scoring"
        facts[f"{what} in {phase}"] = str(output.dtype).removeprefix("torch.")

    first = next(m for name, m in model.named_modules() if name.endswith(("mlp.c_fc", "mlp.up_proj")))
    first.register_forward_hook(note)


def run(contender: Contender, setting: Setting, threads: int, orders: TextIO, reports: TextIO) -> None:
    """What a contender's process does."""
    torch.set_num_threads(threads)
    contender.load()(replace(setting, **contender.changes), Rounds(orders, reports), **contender.kwargs)
