"""FSDP2: each process keeps a part of a model's weights, of their gradients and of the optimiser's state.

`accelerate launch --use_fsdp --fsdp_version 2` asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.fsdp import FSDPModule


def settings() -> FullyShardedDataParallelPlugin:
    """What accelerate was told of FSDP2.

    Raises:
        ValueError: for FSDP 1.
    """
    plugin = FullyShardedDataParallelPlugin(
        auto_wrap_policy="transformer_based_wrap", cpu_offload=False, cpu_ram_efficient_loading=False
    )
    if plugin.fsdp_version != 2:
        raise ValueError(
            f"fsdp_version is {plugin.fsdp_version}: in accelerate's settings. Only FSDP2 is supported: "
            "accelerate launch --use_fsdp --fsdp_version 2."
        )
    return plugin


def load_in_each_process() -> None:
    """Let transformers load a model in each process. `accelerate launch` else has the others wait for the first one's
    weights, which come with the sharding: too late to look at the model before."""
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"


def units(module: nn.Module) -> list[FSDPModule]:
    """The parts of a module that are gathered as one."""
    return [unit for unit in module.modules() if isinstance(unit, FSDPModule)]


@contextmanager
def assembled(module: nn.Module) -> Iterator[None]:
    """While the block runs each process has the whole module, and may call it as often as it likes."""
    parts = units(module)
    resharding = settings().reshard_after_forward if parts else False
    for unit in parts:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in parts:
            unit.reshard()
            unit.set_reshard_after_forward(resharding and unit is not module, recurse=False)
