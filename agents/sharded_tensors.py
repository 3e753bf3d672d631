"""Tensors of which each process has a part: put together, and taken apart again."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from agents import processes


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Named tensors put together from what the processes have of each: in the first process, on the CPU. What is not
    sharded stays as it is."""
    return {
        name: _whole(tensor) if isinstance(tensor, DTensor) else tensor for name, tensor in tensors.items()
    }


def _whole(tensor: DTensor) -> Tensor:
    full = tensor.full_tensor()
    return full.cpu() if processes.is_first() else full.new_empty(0)


def part(tensor: Tensor, like: Tensor) -> Tensor:
    """What this process keeps of a tensor that is sharded as ``like`` is; all of it, where that is not."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
