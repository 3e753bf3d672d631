"""One case, in a process of its own: how far the memory rises, how long it computes, and how far its gradients are off."""

import json
import resource
import subprocess
import sys
import time
from typing import Any

import psutil
import torch
from torch import Tensor

from benchmarks.memory.cases import CASES


def measure(name: str, threads: int) -> dict[str, Any]:
    """The row of a case."""
    command = [sys.executable, "-m", "benchmarks.memory", "--measure", name, "--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_here(name: str) -> dict[str, Any]:
    """The same in this process, which must be fresh: the operating system tells the highest memory of its whole life.

    Returns:
        peak_bytes: the most that was resident while the step ran, less what was resident before it.
        seconds: of computing time, that the step took.
        difference: from the plain case's gradients, the largest one; None for a plain case.
        relative_difference: the largest one by the largest gradient of the same tensor.
    """
    case = CASES[name]
    step = case.prepare()
    before, started = psutil.Process().memory_info().rss, time.process_time()
    gradients = step()
    seconds, peak = time.process_time() - started, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = {
        "case": name, "table": case.table, "plain": case.plain, "at_most": case.at_most,
        "peak_bytes": peak - before, "seconds": round(seconds, 2), "difference": None, "relative_difference": None,
    }  # fmt: skip
    if case.plain is not None and gradients:
        row |= differences(gradients, CASES[case.plain].prepare()())
    return row


def differences(gradients: dict[str, Tensor], plain: dict[str, Tensor]) -> dict[str, float]:
    """How far gradients are from others of the same names, at most."""
    if gradients.keys() != plain.keys():
        raise ValueError(f"Other tensors have gradients: {sorted(gradients.keys() ^ plain.keys())}.")
    off = {name: float((gradients[name] - plain[name]).abs().max()) for name in plain}
    scales = {name: float(plain[name].abs().max()) or torch.finfo(torch.float32).tiny for name in plain}
    return {
        "difference": max(off.values()),
        "relative_difference": max(off[name] / scales[name] for name in plain),
    }
