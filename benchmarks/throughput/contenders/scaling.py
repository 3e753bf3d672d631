"""Whole iterations of TextPPO beside what the machine could do at best."""

import time

import torch

from agents.lm import compute_dtype
from benchmarks.throughput.contender import Rounds
from benchmarks.throughput.contenders import ours
from benchmarks.throughput.setting import Setting


def iteration(setting: Setting, rounds: Rounds, dtype: str = "auto") -> None:
    """As ``ours.iteration``; the facts also hold the operations per second that a large matrix product reaches."""
    rounds.facts["peak"] = peak_operations(compute_dtype(dtype, setting.device, setting.hidden))
    ours.iteration(setting, rounds, dtype)


def peak_operations(dtype: torch.dtype, size: int = 2048, repeats: int = 5) -> float:
    """Operations per second of a square product of ``size``: the fastest of ``repeats``."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)
