"""Forward passes of a rollout, written out for GPT-2 and for Llama and its kin.

transformers' modules serve any input and every option. For one token of each of a few sequences most of their time goes by
between the products. Here a pass is the products, the norms, and the attention that a cache provides; and the last layer is
computed for the tokens whose hidden states are wanted.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Model, LlamaModel, MistralModel, Qwen2Model, Qwen3Model
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from agents.linear import Linear
from agents.memory import recomputes
from reward_models.last_layer import has_foreign_hooks

WRITTEN_BY = ("torch.nn.modules.", "transformers.", "reward_models.gelu")
TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")


class Attention(Protocol):
    """What a cache does for a pass: it takes in the tokens' keys and values, and lets them attend to what stands before."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Query, key and value have shape [tokens, heads, head_dim]: of the query perhaps only the wanted tokens, of the
        others perhaps fewer heads. The result has shape [tokens of query, heads * head_dim]."""


class GPT2Decoder:
    """Tokens through a GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3)."""

    def __init__(self, trunk: Any, linear: Callable[..., Linear]):
        self.trunk = trunk
        self.layers = [
            (
                _layer_norm(block.ln_1),
                block.attn,
                linear(block.attn.c_attn, to_float32=True),
                linear(block.attn.c_proj),
                _layer_norm(block.ln_2),
                linear(block.mlp.c_fc, gelu=True),
                linear(block.mlp.c_proj),
            )
            for block in trunk.h
        ]
        self.last_norm = _layer_norm(trunk.ln_f)

    @staticmethod
    def serves(trunk: Any) -> bool:
        config = trunk.config
        return (
            type(trunk) is GPT2Model
            and config.activation_function in TANH_GELU
            and not config.reorder_and_upcast_attn
        )

    def __call__(
        self, ids: Tensor, positions: Tensor, attend: Attention, wanted: Tensor | None = None
    ) -> Tensor:
        """Last hidden states, shape [tokens, hidden_size], or of the wanted tokens alone.

        Args:
            ids, positions: int64, shape [tokens]; of any rows, and where they stand in them.
            attend: attention of the cache that holds what stands before.
            wanted: int64, which of the tokens; None: all.
        """
        n_layers = len(self.layers)
        h = F.embedding(ids, self.trunk.wte.weight) + F.embedding(positions, self.trunk.wpe.weight)
        for number, (norm_1, attention, to_qkv, projection, norm_2, up, down) in enumerate(self.layers):
            query, key, value = to_qkv(norm_1(h)).view(len(h), 3, attention.num_heads, -1).unbind(1)
            if number == n_layers - 1 and wanted is not None:
                h, query = h[wanted], query[wanted]
            h = h + projection(attend(number, query, key, value, attention.scaling))
            h = h + down(up(norm_2(h)))
        return self.last_norm(h)


class LlamaDecoder:
    """Tokens through a Llama (Touvron et al. 2023, "LLaMA", section 2.2), Mistral, Qwen2 or Qwen3."""

    def __init__(self, trunk: Any, linear: Callable[..., Linear]):
        self.trunk = trunk
        self.layers = [
            (
                layer,
                [linear(getattr(layer.self_attn, f"{name}_proj"), to_float32=name != "o") for name in "qkvo"],
                [linear(getattr(layer.mlp, f"{name}_proj")) for name in ("gate", "up", "down")],
            )
            for layer in trunk.layers
        ]

    @staticmethod
    def serves(trunk: Any) -> bool:
        return (
            type(trunk) in (LlamaModel, MistralModel, Qwen2Model, Qwen3Model)
            and trunk.config.hidden_act == "silu"
        )

    def __call__(
        self, ids: Tensor, positions: Tensor, attend: Attention, wanted: Tensor | None = None
    ) -> Tensor:
        """As ``GPT2Decoder``'s."""
        n_layers = len(self.layers)
        h = F.embedding(ids, self.trunk.embed_tokens.weight)
        cos, sin = (t.squeeze(1) for t in self.trunk.rotary_emb(h, positions[:, None]))
        for number, (layer, (to_q, to_k, to_v, projection), (gate, up, down)) in enumerate(self.layers):
            attention = layer.self_attn
            x = _rms_norm(layer.input_layernorm, h)
            query, key, value = (part(x).view(len(h), -1, attention.head_dim) for part in (to_q, to_k, to_v))
            if hasattr(attention, "q_norm"):  # Qwen3
                query, key = _rms_norm(attention.q_norm, query), _rms_norm(attention.k_norm, key)
            query, key = apply_rotary_pos_emb(query, key, cos, sin)
            if number == n_layers - 1 and wanted is not None:
                h, query = h[wanted], query[wanted]
            h = h + projection(attend(number, query, key, value, attention.scaling))
            x = _rms_norm(layer.post_attention_layernorm, h)
            h = h + down(F.silu(gate(x)) * up(x))
        return _rms_norm(self.trunk.norm, h)


Decoder = GPT2Decoder | LlamaDecoder


def decoder_of(trunk: Any, linear: Callable[..., Linear]) -> Decoder | None:
    """The written-out form of a trunk, or None: for another architecture, or modules that are not just as transformers
    wrote them.

    Args:
        trunk: ``base_model`` of a causal LM.
        linear: from a module ``nn.Linear`` or ``Conv1D`` (and ``gelu=True`` for tanh GELU behind it) to the function that
            computes it.
    """
    kind = next((kind for kind in (GPT2Decoder, LlamaDecoder) if kind.serves(trunk)), None)
    return kind(trunk, linear) if kind is not None and _is_plain(trunk) else None


def _is_plain(trunk: nn.Module) -> bool:
    """No adapters, no one else's hooks or methods, no tensors spread over processes: nothing that only the modules know."""
    return (
        all(type(module).__module__.startswith(WRITTEN_BY) for module in trunk.modules())
        and not any("forward" in module.__dict__ and not recomputes(module) for module in trunk.modules())
        and all(type(parameter.data) is Tensor for parameter in trunk.parameters())
        and not has_foreign_hooks(trunk)
    )


def _layer_norm(norm: nn.LayerNorm) -> Linear:
    return partial(
        F.layer_norm, normalized_shape=norm.normalized_shape, weight=norm.weight, bias=norm.bias, eps=norm.eps
    )


def _rms_norm(norm: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x.float(), norm.weight.shape, norm.weight, norm.variance_epsilon)
