"""State as a checkpoint can hold it, JSON and named tensors: modules, optimisers, nested containers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from agents import sharded_tensors
from agents.lora import names_of_base


class CheckpointError(ValueError):
    """A checkpoint that cannot be trusted or does not fit. Nothing of it was executed or loaded."""


def pack_module(module: nn.Module) -> dict[str, torch.Tensor]:
    """The module's state by name; of names that share one tensor (tied weights) only the first is kept.

    What lies below an adapter is left out: it never changes.
    """
    state = _own_state(module)
    return sharded_tensors.whole({group[0]: state[group[0]] for group in _ties(state)})


def unpack_module(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load what `pack_module` gave into a module of the same architecture. Ties stay tied. All or nothing.

    Raises:
        CheckpointError: a name is missing or unknown, a shape differs, or weights tied here differ there.
    """
    state = _own_state(module)
    groups = _ties(state)
    unknown = sorted(set(tensors) - set(state))
    missing = sorted(group[0] for group in groups if not any(name in tensors for name in group))
    if unknown or missing:
        listed = "; ".join(
            f"{what}: {', '.join(names[:5])}"
            for what, names in (("missing", missing), ("unknown", unknown))
            if names
        )
        raise CheckpointError(
            f"The checkpoint's weights are not those of this {type(module).__name__}: {listed}. "
            "Build the same model as when it was saved."
        )
    chosen = {}
    for group in groups:
        given = [name for name in group if name in tensors]
        source = tensors[given[0]]
        for name in given:
            _check_fit(name, tensors[name], state[name], source)
        chosen[group[0]] = source
    with torch.no_grad():
        for name, source in chosen.items():
            state[name].copy_(sharded_tensors.part(source, state[name]))


def _own_state(module: nn.Module) -> dict[str, torch.Tensor]:
    base = names_of_base(module)
    return {name: tensor for name, tensor in module.state_dict().items() if name not in base}


def _check_fit(name: str, tensor: torch.Tensor, target: torch.Tensor, twin: torch.Tensor) -> None:
    if tensor.shape != target.shape:
        raise CheckpointError(
            f"Weight {name} has shape {tuple(tensor.shape)} in the checkpoint and {tuple(target.shape)} in "
            "this model. Build the same model as when it was saved."
        )
    if tensor is not twin and not torch.equal(tensor, twin):
        raise CheckpointError(
            f"Weight {name} is tied to another one in this model, but the checkpoint has different values "
            "for the two. Build the model without tied weights, as when it was saved."
        )


def _ties(state: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Names grouped by the memory they share, in order. Empty tensors have no memory and are never tied."""
    groups: dict[Any, list[str]] = {}
    for name, tensor in state.items():
        here = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        memory = (here.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        groups.setdefault(memory if here.numel() else name, []).append(name)
    return list(groups.values())


def pack_optimizer(optimizer: Optimizer) -> tuple[Any, dict[str, torch.Tensor]]:
    """The optimiser's `state_dict` as (JSON value, tensors)."""
    return pack_tree(optimizer.state_dict())


def unpack_optimizer(optimizer: Optimizer, value: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load what `pack_optimizer` gave.

    Raises:
        CheckpointError: it belongs to an optimiser of other parameters.
    """
    state = unpack_tree(value, tensors)
    try:
        groups = [len(group["params"]) for group in state["param_groups"]]
        shapes_fit = all(
            tensor.shape in (parameter.shape, torch.Size([]))
            for parameter, entry in _parameters_with_state(optimizer, state)
            for tensor in entry.values()
            if isinstance(tensor, torch.Tensor)
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"The checkpoint's optimiser state is not one ({error!r}). Take another one."
        ) from error
    if groups != [len(group["params"]) for group in optimizer.param_groups] or not shapes_fit:
        raise CheckpointError(
            "The checkpoint's optimiser state belongs to other parameters than this model's. "
            "Build the same model as when it was saved."
        )
    for parameter, entry in _parameters_with_state(optimizer, state):
        for name, tensor in entry.items():
            if isinstance(tensor, torch.Tensor) and tensor.shape == parameter.shape:
                entry[name] = sharded_tensors.part(tensor, parameter)
    optimizer.load_state_dict(state)


def _parameters_with_state(optimizer: Optimizer, state: Any) -> Iterator[tuple[torch.Tensor, dict]]:
    for ours, theirs in zip(optimizer.param_groups, state["param_groups"]):
        for parameter, index in zip(ours["params"], theirs["params"]):
            yield parameter, state["state"].get(index, {})


def pack_tree(value: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Nested dicts (any plain keys), lists, tuples, plain values and tensors as (JSON, tensors), exactly.

    JSON has no tuple, no integer key and no tensor: these become {"tuple": [...]},
    {"dict": [[key, value], ...]} and {"tensor": name}.
    """
    tensors: dict[str, torch.Tensor] = {}

    def pack(node: Any, name: str) -> Any:
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        if isinstance(node, torch.Tensor):
            unique = name if name and name not in tensors else f"{name}~{len(tensors)}"
            tensors[unique] = node
            return {"tensor": unique}
        prefix = f"{name}." if name else ""
        if isinstance(node, Mapping):
            return {"dict": [[pack(key, ""), pack(item, f"{prefix}{key}")] for key, item in node.items()]}
        if isinstance(node, (list, tuple)):
            items = [pack(item, f"{prefix}{index}") for index, item in enumerate(node)]
            return items if isinstance(node, list) else {"tuple": items}
        raise ValueError(
            f"{name or 'The value'} is a {type(node).__name__}, which a checkpoint cannot hold. Leave it out."
        )

    return pack(value, ""), sharded_tensors.whole(tensors)


def unpack_tree(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The inverse of `pack_tree`.

    Raises:
        CheckpointError: `value` is not what `pack_tree` gives, or a tensor is missing.
    """

    def unpack(node: Any) -> Any:
        if isinstance(node, list):
            return [unpack(item) for item in node]
        if not isinstance(node, dict):
            return node
        if set(node) == {"tensor"}:
            return tensors[node["tensor"]]
        if set(node) == {"tuple"}:
            return tuple(unpack(item) for item in node["tuple"])
        return {unpack(key): unpack(item) for key, item in node["dict"]}

    try:
        return unpack(value)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"The checkpoint's state cannot be put together again ({error!r}). Take another one."
        ) from error
