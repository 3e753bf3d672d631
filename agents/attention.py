"""Attention written out, for bfloat16 on a CPU, where the backward of torch's SDPA takes several times as long as products.

It is softmax(q k^T * scaling + bias) v (Vaswani et al. 2017, "Attention Is All You Need", eq. 1), as transformers' "eager"
one, but scaling and bias are part of the first product, and nothing of shape [queries, keys] is kept but the softmax.
``attend_once`` is for a step of decoding, in which each sequence has one query.
"""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import sdpa_mask

WRITTEN_OUT = "written_out"  # its name among transformers' attention implementations


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """As transformers' attention functions, without dropout.

    Args:
        module: the attention layer; ``num_key_value_groups`` queries share a key where it has them.
        query: shape [sequences, heads, queries, head_dim]; key, value: [sequences, heads or fewer, keys, head_dim].
        attention_mask: shape [sequences, 1, queries, keys], true where a query sees a key, or what is added to the logits;
            None: each query sees the keys up to its own.

    Returns:
        shape [sequences, queries, heads, head_dim], and None for the weights.

    Raises:
        ValueError: for a soft cap or a bias by position, which SDPA does not know either.
    """
    unknown = [name for name in ("softcap", "position_bias") if others.get(name) is not None]
    if unknown:
        raise ValueError(
            f"Attention with {unknown[0]} cannot be written out: in {type(module).__name__}, in bfloat16 on a CPU. Load the "
            'model with attn_implementation="eager".'
        )
    kind = value.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
    # Rotary positions make float32 of queries and keys.
    query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
    groups = getattr(module, "num_key_value_groups", 1)
    bias = _bias(attention_mask, query, key.shape[2])
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    attended = _Attention.apply(query, repeat_kv(key, groups), repeat_kv(value, groups), bias, scaling)
    return attended.transpose(1, 2), None


def attend_once(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, scaling: float) -> Tensor:
    """Attention of one query in each row, without a backward; shape [rows, heads * head_dim].

    Args:
        query: shape [rows, heads, head_dim].
        keys, values: shape [rows, heads or fewer, width, head_dim]; several queries may share a key.
        bias: added to the logits, shape [rows, 1, 1, width].
    """
    rows, heads, _, head_dim = keys.shape
    # Queries that share a key are several queries of one head.
    queries = query.to(keys.dtype).reshape(rows, heads, -1, head_dim)
    # A CPU's kernel of SDPA takes several times as long as the products, for which one query is little work.
    attend = _by_products if keys.device.type == "cpu" else F.scaled_dot_product_attention
    return attend(queries, keys, values, bias, scale=scaling).reshape(rows, -1)


def _by_products(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
    """As ``F.scaled_dot_product_attention``."""
    bias = bias.expand(*query.shape[:3], key.shape[2])
    q, k, v, bias = (tensor.flatten(0, 1) for tensor in (query, key, value, bias))
    weights = torch.softmax(torch.baddbmm(bias, q, k.mT, alpha=scale), dim=-1)
    return torch.bmm(weights, v).view(query.shape)


def _bias(mask: Tensor | None, query: Tensor, n_keys: int) -> Tensor:
    """What is added to the logits, of a shape that expands to [sequences * heads, queries, keys]."""
    n_sequences, heads, n_queries, _ = query.shape
    if mask is None:
        return _causal(n_queries, n_keys, query.dtype, query.device)
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)
    return mask.to(query.dtype).expand(n_sequences, heads, n_queries, n_keys).flatten(0, 1)


@lru_cache(maxsize=8)
def _causal(n_queries: int, n_keys: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    lowest = torch.full((1, n_queries, n_keys), torch.finfo(dtype).min, dtype=dtype, device=device)
    return lowest.triu_(1 + n_keys - n_queries)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scaling: float) -> Tensor:
        q, k, v = (tensor.flatten(0, 1) for tensor in (query, key, value))
        p = torch.softmax(torch.baddbmm(bias, q, k.mT, alpha=scaling), dim=-1).to(v.dtype)
        ctx.save_for_backward(q, k, v, p)
        ctx.scaling, ctx.heads = scaling, query.shape[:2]
        return torch.bmm(p, v).unflatten(0, query.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_attended: Tensor) -> Any:
        q, k, v, p = ctx.saved_tensors
        gradient = of_attended.flatten(0, 1)
        of_logits = torch._softmax_backward_data(torch.bmm(gradient, v.mT), p, -1, p.dtype)
        of_query = torch.baddbmm(q, of_logits, k, beta=0, alpha=ctx.scaling)
        of_key = torch.baddbmm(k, of_logits.mT, q, beta=0, alpha=ctx.scaling)
        of_value = torch.bmm(p.mT, gradient)
        return *(tensor.unflatten(0, ctx.heads) for tensor in (of_query, of_key, of_value)), None, None


AttentionInterface.register(WRITTEN_OUT, attend)
AttentionMaskInterface.register(WRITTEN_OUT, sdpa_mask)
