"""Linear layers as functions, for decoding: of the weights as they are, or of copies that suit few rows on a CPU."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.pytorch_utils import Conv1D

Linear = Callable[[Tensor], Tensor]


def linear(layer: Any, gelu: bool = False, to_float32: bool = False) -> Linear:
    """``layer(x)``, an ``nn.Linear`` or ``Conv1D``, for ``x`` of shape [tokens, in]; with ``gelu`` tanh GELU of it.

    It is of the layer's own weights, and not of views of them, whose casts autocast would not keep.
    """
    weight, bias = layer.weight, layer.bias
    if isinstance(layer, Conv1D):
        product = partial(torch.addmm, bias, mat2=weight)
    else:
        product = partial(F.linear, weight=weight, bias=bias)
    return (lambda x: F.gelu(product(x), approximate="tanh")) if gelu else product


def packed_linear(layer: Any, gelu: bool = False, to_float32: bool = False, n_rows: int = 32) -> Linear:
    """The same in bfloat16, from a copy of the weights that is good until they change.

    The copy is cast, and laid out for oneDNN's products, once for many steps: a product of few rows takes less time
    than looking its weight's cast up and laying it out. torch.compile does so through the same two operators.

    Args:
        to_float32: for a result that is used in float32.
        n_rows: for how many rows the layout is best; any number is right.
    """
    weight = layer.weight.detach().to(torch.bfloat16)
    weight = (weight.mT if isinstance(layer, Conv1D) else weight).contiguous()  # shape [out, in]
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, n_rows)
    bias = None if layer.bias is None else layer.bias.detach().to(torch.bfloat16)
    behind, kind = ("gelu", "tanh") if gelu else ("none", "")
    product = torch.ops.mkldnn._linear_pointwise.default
    if to_float32:
        return lambda x: product(x.to(torch.bfloat16), packed, bias, behind, [], kind).float()
    return lambda x: product(x.to(torch.bfloat16), packed, bias, behind, [], kind)


def can_pack() -> bool:
    """Whether this CPU and this torch have what ``packed_linear`` needs."""
    operators = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, o) for o in operators):
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
