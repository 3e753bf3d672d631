"""Several processes that learn as one, by accelerate: who they are, and what they tell one another.

`accelerate launch` starts them. A process that was started alone is the first of one: it sums and gathers what it has itself,
waits for nobody, and nothing else in this package asks how many there are.

All processes must call the functions that exchange something the same number of times, in the same order.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import (
    broadcast,
    broadcast_object_list,
    gather,
    gather_object,
    parse_flag_from_env,
    reduce,
)
from numpy.typing import ArrayLike
from torch import nn
from torch.distributed.tensor import DTensor

P = ParamSpec("P")
R = TypeVar("R")


class ProcessLost(ConnectionError):
    """Another process of the run has ended, and this one cannot go on without it."""


@contextmanager
def explained() -> Iterator[None]:
    """Raise `ProcessLost` where torch says in words of its own that another process is gone."""
    try:
        yield
    except RuntimeError as error:
        if not _is_about_others(error):
            raise
        raise ProcessLost(
            f"Another process of this run has ended, and process {rank()} of {count()} cannot go on without it. What it said "
            "stands above, on its own machine; where it said nothing, it was killed (out of memory, perhaps). Start all "
            "processes again, rlhf ppo and rlhf sft with --resume: they go on from the last checkpoint. "
            f"torch said: {str(error).splitlines()[0]}"
        ) from error


def _is_about_others(error: RuntimeError) -> bool:
    kind = getattr(torch.distributed, "DistError", ())
    return isinstance(error, kind) or any(word in str(error) for word in ("gloo", "NCCL", "nccl"))


def _exchange(function: Callable[P, R]) -> Callable[P, R]:
    """Say it plainly where another process is gone."""

    @functools.wraps(function)
    def exchange(*args: P.args, **kwargs: P.kwargs) -> R:
        with explained():
            return function(*args, **kwargs)

    return exchange


# --- who they are --------------------------------------------------------------------------------------------------


@functools.cache
def _by_cpu() -> bool:
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def _state() -> PartialState:
    state = PartialState(cpu=_by_cpu())
    if state.num_processes == 1 < int(os.environ.get("WORLD_SIZE", 1)):
        raise RuntimeError(
            f"This is one of {os.environ['WORLD_SIZE']} processes, and accelerate cannot connect them: on this machine's "
            "device. Start them with `accelerate launch`, or with ACCELERATE_USE_CPU=true for CPUs."
        )
    return state


def count() -> int:
    """How many processes there are."""
    return int(_state().num_processes)


def rank() -> int:
    """The number of this process, from 0."""
    return int(_state().process_index)


def is_first() -> bool:
    """Whether this is the process that writes: logs, checkpoints, results."""
    return rank() == 0


def check_device(device: torch.device) -> None:
    """Raise ValueError for a device on which this process cannot exchange tensors with others."""
    if count() > 1 and device.type != _state().device.type:
        raise ValueError(
            f"device is {device}, and accelerate connects the processes by {_state().device.type}. Choose that, or set "
            "ACCELERATE_USE_CPU=true to train on CPUs."
        )


def share(n: int, what: str, where: str) -> int:
    """How many of ``n`` fall to each process.

    Raises:
        ValueError: they cannot be shared evenly.
    """
    if n % count():
        raise ValueError(
            f"{what} is {n}: in {where}, in {count()} processes. Each plays as many as the others: make it a multiple of "
            f"{count()}, or start another number of processes."
        )
    return n // count()


# --- what they tell one another ------------------------------------------------------------------------------------


@_exchange
def wait() -> None:
    """Go on when all processes have come here."""
    _state().wait_for_everyone()


@_exchange
def total(values: ArrayLike) -> np.ndarray:
    """Sums over all processes, float64, each element for itself; the shape is that of ``values``."""
    return _reduced(np.asarray(values, dtype=np.float64), "sum")


@_exchange
def largest(value: int) -> int:
    """The largest value of all processes."""
    return int(_reduced(np.asarray(value), "max"))


def anywhere(condition: bool) -> bool:
    """Whether the condition holds in any process."""
    return bool(largest(int(condition)))


@_exchange
def together(rows: np.ndarray) -> np.ndarray:
    """The rows of all processes, one process after another; each has as many, shape [rows of one, ...]."""
    if count() == 1:
        return rows
    return gather(torch.from_numpy(np.ascontiguousarray(rows)).to(_state().device)).cpu().numpy()


@_exchange
def of_all(thing: R) -> list[R]:
    """What each process has, in the order of their numbers: anything that can be pickled."""
    return [thing] if count() == 1 else gather_object([thing])


@_exchange
def of_first(thing: R) -> R:
    """What the first process has."""
    return broadcast_object_list([thing])[0]


def mean(values: ArrayLike) -> float:
    """Over the values of all processes, however many each has; NaN if none has any."""
    own = np.asarray(values, dtype=np.float64)
    number, sum_ = total([own.size, own.sum()])
    return float(sum_ / number) if number else float("nan")


def variance(values: ArrayLike, ddof: int = 0) -> float:
    """Over the values of all processes, around the mean of all; NaN if there are no more than ``ddof``."""
    own = np.asarray(values, dtype=np.float64)
    number, squares = total([own.size, ((own - mean(own)) ** 2).sum()])
    return float(squares / (number - ddof)) if number > ddof else float("nan")


def _reduced(values: np.ndarray, how: str) -> np.ndarray:
    if count() == 1:
        return values
    return reduce(torch.from_numpy(values).to(_state().device), how).cpu().numpy()


# --- weights and gradients -----------------------------------------------------------------------------------------


@_exchange
def share_weights(module: nn.Module) -> None:
    """Let every process begin with the first one's weights and buffers."""
    if count() > 1:
        broadcast([tensor.data for tensor in (*module.parameters(), *module.buffers())])


@_exchange
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Let every process have the sum of all gradients, scaled down to a norm of ``max_norm`` where it is larger.

    Returns:
        The norm before. Parts of FSDP's were summed as they came.
    """
    parameters = list(parameters)
    for parameter in parameters:
        if count() > 1 and parameter.grad is not None and not isinstance(parameter, DTensor):
            parameter.grad = reduce(parameter.grad, "sum")
    norm = nn.utils.clip_grad_norm_(parameters, max_norm)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
