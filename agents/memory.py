"""Ways for a larger model to fit: logits in chunks, layers computed anew in backward, weights in half the bytes, freed memory
given back."""

import ctypes
from collections.abc import Callable
from functools import lru_cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

# Up to so many logits (256 MiB, of which backward holds three times as much) they are computed at once: computing them anew
# in backward is a third pass of the output layer, a third more of its time. It also leaves small models' numbers as they are.
LOGITS_AT_ONCE = 2**26
# Beyond, so many at a time (64 MiB): fewer hardly lower the peak, most of which is then the output layer's own gradient.
LOGITS_PER_CHUNK = 2**24


def in_chunks(
    function: Callable[..., tuple[Tensor | None, ...]], n_rows: int, *tensors: Tensor | None
) -> tuple[Tensor | None, ...]:
    """``function(*tensors)``, computed ``n_rows`` rows at a time.

    Of what it computes on the way only one chunk lives at a time: backward computes each chunk anew. Gradients of weights
    that all chunks share are added up as they come, in the dtype in which they come.

    Args:
        function: of each row by itself, without randomness; it returns tensors of shape [rows, ...], or None.
        tensors: of shape [rows, ...], or None.
    """
    rows = next(len(tensor) for tensor in tensors if tensor is not None)
    n_chunks = -(-rows // n_rows)
    columns = [[None] * n_chunks if tensor is None else tensor.split(n_rows) for tensor in tensors]
    results = [
        checkpoint(function, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in zip(*columns)
    ]
    return tuple(None if parts[0] is None else torch.cat(parts) for parts in zip(*results))


def of_logits(
    function: Callable[..., tuple[Tensor | None, ...]], vocab_size: int, *tensors: Tensor | None
) -> tuple[Tensor | None, ...]:
    """``function(*tensors)``, in which each row becomes ``vocab_size`` logits: beyond ``LOGITS_AT_ONCE`` in chunks."""
    assert tensors[0] is not None
    if len(tensors[0]) * vocab_size <= LOGITS_AT_ONCE:
        return function(*tensors)
    return in_chunks(function, max(1, LOGITS_PER_CHUNK // vocab_size), *tensors)


def recompute_layers(model: nn.Module) -> None:
    """Gradient checkpointing: each layer keeps what it was given, and computes all else anew in backward (Chen et al. 2016,
    "Training Deep Nets with Sublinear Memory Cost"). About a third more time, a fraction of the memory.

    transformers' own ``gradient_checkpointing_enable`` works in training mode only, where dropout would be on. This is
    the same for its layers in eval mode. Where no gradient is asked for, as in rollouts, nothing changes.

    Raises:
        ValueError: if the model's layers are not transformers' ``GradientCheckpointingLayer``.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"gradient_checkpointing is True, but the layers of {type(model).__name__} cannot be computed anew: in "
            "CausalLMPolicy. Leave it False, or choose a model of transformers' own, such as GPT-2, Llama, Qwen or OPT."
        )
    for layer in layers:
        layer.forward = MethodType(_forward_recomputed, layer)  # type: ignore[method-assign]  # a method, so that a copied layer runs its own


def recomputes(layer: nn.Module) -> bool:
    """Whether ``recompute_layers`` has had this layer."""
    return getattr(layer.__dict__.get("forward"), "__func__", None) is _forward_recomputed


def _forward_recomputed(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = type(layer).forward
    if not torch.is_grad_enabled():
        return forward(layer, *args, **kwargs)
    return checkpoint(forward, layer, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def give_back_freed() -> None:
    """Give freed memory back to the system, where the C library is glibc, which keeps it.

    Rollout and update in turn want blocks of other sizes; else a process holds room for both at once.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@lru_cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return None


def round_to_bfloat16(model: nn.Module) -> None:
    """Round the weights to bfloat16, in place: half the bytes of float32.

    Buffers stay as they are: the frequencies of rotary positions do not bear the rounding.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
