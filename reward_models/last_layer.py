"""Hidden states where they are read: a decoder's last layer need not compute the others.

Nothing stands above the last layer that would look at its rows. Of a prompt's tokens it needs the keys and values, to which
the response attends; the rest of attention and the MLP are needed for the rows that are read alone. The fewer layers and the
longer the prompts, the larger the part of all products that this saves, in backward too.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

# The layer is called twice where that saves so large a share of its rows, and so many products (rows times the square of the
# width): on a core of Zen 1 the second call costs half a million of them, forward and backward.
WORTHWHILE_SHARE = 0.25
WORTHWHILE_PRODUCTS = 2**20
LARGEST_MASK = 2**24  # numbers; the whole layer needs none
TRIED_LENGTH = 8  # tokens
_can_be_parted: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # by layer, once it was tried


def hidden_at(trunk: Any, embedded: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Last hidden states of right-padded sequences, shape [tokens, hidden_size], at these places.

    They equal ``trunk(inputs_embeds=embedded).last_hidden_state[rows, columns]`` up to rounding. They are computed so where
    little would be saved, and by models whose last layer cannot be called on some rows alone.

    Args:
        trunk: a transformers decoder: ``base_model`` of a causal LM or a sequence classifier.
        embedded: shape [sequences, length, hidden_size].
        rows, columns: int64, shape [tokens], no place twice.
    """
    layer = _last_layer(trunk, embedded) if _is_worthwhile(rows, *embedded.shape) else None
    if layer is None:
        return _at(_whole(trunk, embedded), rows, columns)
    with _parted(layer, _Parts.of(rows, columns, *embedded.shape[:2])):
        return _at(_whole(trunk, embedded), rows, columns)


def attention_window(config: PreTrainedConfig) -> int | None:
    """How many tokens back a token sees, where the model limits it."""
    text = config.get_text_config()
    if not getattr(text, "use_sliding_window", True):
        return None
    names = ("sliding_window", "window_size", "attention_chunk_size")
    return min((limit for name in names if (limit := getattr(text, name, None))), default=None)


def has_foreign_hooks(trunk: nn.Module) -> bool:
    """Whether anyone but this file has put forward hooks into the modules."""
    hooks = (
        hook
        for module in trunk.modules()
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    )
    return any(hook not in (_before_layer, _after_layer) for hook in hooks)


def _at(states: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``states[rows, columns]``, whose backward is many times as fast on a CPU as that of an index for each dimension."""
    return states.flatten(0, 1).index_select(0, rows * states.shape[1] + columns)


def _is_worthwhile(rows: Tensor, n_sequences: int, length: int, width: int) -> bool:
    most_read = int(rows.bincount(minlength=1).max())
    saved = length - most_read
    return (
        saved >= WORTHWHILE_SHARE * length
        and n_sequences * saved * width**2 >= WORTHWHILE_PRODUCTS
        and n_sequences * most_read * length <= LARGEST_MASK
    )


def _whole(trunk: Any, embedded: Tensor) -> Tensor:
    return trunk(inputs_embeds=embedded, use_cache=False).last_hidden_state


@dataclass
class _Parts:
    """The rows of each sequence that are read, and those before the last of them that are only attended to.

    Attributes:
        read, others: columns, int64, shape [sequences, most], filled up at the end.
        is_read: bool, like ``read``; false for the filling.
        sees: bool, shape [sequences, 1, read, others + read]; which keys each query attends to.
    """

    read: Tensor
    others: Tensor
    is_read: Tensor
    sees: Tensor

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor, n_sequences: int, length: int) -> _Parts:
        reads = torch.zeros(n_sequences, length, dtype=torch.bool, device=rows.device)
        reads[rows, columns] = True
        place = torch.arange(length, device=rows.device)
        before = ~reads & (place < (reads * place).amax(1, keepdim=True))
        most_read, most_before = torch.stack([reads.sum(1), before.sum(1)]).amax(1).tolist()
        read, is_read = _columns_of(reads, most_read)
        others, is_other = _columns_of(before, most_before)
        keys, is_key = torch.cat([others, read], dim=1), torch.cat([is_other, is_read], dim=1)
        sees = (keys[:, None] <= read[:, :, None]) & is_key[:, None]
        # The filling sees itself: a softmax over nothing would be NaN.
        sees[:, :, most_before:] |= torch.eye(most_read, dtype=torch.bool, device=rows.device)
        return cls(read, others, is_read, sees[:, None])

    def bias(self, dtype: torch.dtype) -> Tensor:
        """What is added to the attention's logits, shape [sequences, 1, read, others + read]."""
        bias = torch.zeros(self.sees.shape, dtype=dtype, device=self.sees.device)
        return bias.masked_fill_(~self.sees, torch.finfo(dtype).min)


def _columns_of(chosen: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The columns that are true in each row of ``chosen``, in order, and which of them are no filling."""
    columns = (~chosen).sort(dim=1, stable=True).indices[:, :most]
    return columns, torch.arange(most, device=chosen.device) < chosen.sum(1, keepdim=True)


class _KeysKnown(Exception):
    """Raised inside a layer that has computed what was wanted of it."""


class _KeysOfOthers(Cache):
    """Takes keys and values of the first rows that the layer is given, and shows them to those of the next call."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.others: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if self.others is None:
            self.others = key_states, value_states
            raise _KeysKnown
        keys, values = self.others
        return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)


class _Now(threading.local):
    """What this thread wants of which layer; other threads may use the same one meanwhile."""

    layer: nn.Module | None = None
    parts: _Parts
    shape: torch.Size


_now = _Now()


@contextmanager
def _parted(layer: nn.Module, parts: _Parts) -> Iterator[None]:
    """While this lasts, the layer computes only what is read; its output is 0 elsewhere."""
    _now.layer, _now.parts = layer, parts
    try:
        yield
    finally:
        _now.layer = None


def _before_layer(layer: nn.Module, args: Any, kwargs: Any) -> Any:
    """Forward pre-hook: the keys and values of the rows that are not read, and the arguments for those that are."""
    if _now.layer is not layer:
        return None
    signature = inspect.signature(type(layer).forward)
    given = signature.bind(layer, *args, **kwargs).arguments
    given |= given.pop("kwargs", {})
    del given["self"]
    _now.shape = given["hidden_states"].shape
    cache = "layer_past" if "layer_past" in signature.parameters else "past_key_values"
    given |= {cache: _KeysOfOthers(), "attention_mask": None}
    try:
        type(layer).forward(layer, **_only(given, _now.parts.others))
    except _KeysKnown:
        given["attention_mask"] = _now.parts.bias(_dtype_of_products(given["hidden_states"]))
    return (), _only(given, _now.parts.read)


def _after_layer(layer: nn.Module, args: Any, output: Any) -> Any:
    """Forward hook: what was read, back in its places."""
    if _now.layer is not layer:
        return None
    read, *rest = output if isinstance(output, tuple) else (output,)
    sequences, ordinals = torch.where(_now.parts.is_read)
    columns = _now.parts.read[sequences, ordinals]
    whole = read.new_zeros(_now.shape).flatten(0, 1)
    whole = whole.index_copy(0, sequences * _now.shape[1] + columns, _at(read, sequences, ordinals)).view(
        _now.shape
    )
    return (whole, *rest) if isinstance(output, tuple) else whole


def _only(given: dict[str, Any], columns: Tensor) -> dict[str, Any]:
    """A layer's arguments for these columns, shape [sequences, columns], of each sequence alone."""
    n, length = given["hidden_states"].shape[:2]
    places = (torch.arange(n, device=columns.device)[:, None] * length + columns).reshape(-1)

    def pick(tensor: Tensor) -> Tensor:
        if len(tensor) != n:  # the same for all sequences
            return tensor[0][columns]
        return tensor.flatten(0, 1).index_select(0, places).view(*columns.shape, *tensor.shape[2:])

    picked: dict[str, Any] = {"hidden_states": pick(given["hidden_states"])}
    if given.get("position_ids") is not None:
        picked["position_ids"] = pick(given["position_ids"])
    if given.get("position_embeddings") is not None:
        picked["position_embeddings"] = tuple(pick(tensor) for tensor in given["position_embeddings"])
    return given | picked


def _dtype_of_products(hidden: Tensor) -> torch.dtype:
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _last_layer(trunk: Any, embedded: Tensor) -> nn.Module | None:
    """The trunk's last layer, if it can be called on some rows alone."""
    layers = [module for module in trunk.modules() if isinstance(module, GradientCheckpointingLayer)]
    window, length = attention_window(trunk.config), embedded.shape[1]
    # By the length, not by what was known before: a run that goes on computes what it would have computed.
    if not layers or length < TRIED_LENGTH or (window is not None and window < length):
        return None
    layer = layers[-1]
    if layer.gradient_checkpointing and layer.training:  # it will be called again in backward
        return None
    if layer not in _can_be_parted:
        if _before_layer not in layer._forward_pre_hooks.values():  # a copied layer has them
            layer.register_forward_pre_hook(_before_layer, with_kwargs=True)
            layer.register_forward_hook(_after_layer)
        _can_be_parted[layer] = _parts_equal_whole(trunk, layer, embedded[:2, :TRIED_LENGTH].detach())
    return layer if _can_be_parted[layer] else None


@torch.no_grad()
def _parts_equal_whole(trunk: Any, layer: nn.Module, embedded: Tensor) -> bool:
    """Tried on few rows, the last of one sequence and the fourth of the other, in the dtype of the weights."""
    training, kind = trunk.training, embedded.device.type
    trunk.eval()
    rows = torch.arange(len(embedded), device=embedded.device)
    columns = TRIED_LENGTH - 1 - 4 * rows
    parts = _Parts.of(rows, columns, *embedded.shape[:2])
    try:
        with torch.autocast(kind, enabled=False):
            whole = _whole(trunk, embedded)[rows, columns]
            with _parted(layer, parts):
                read = _whole(trunk, embedded)[rows, columns]
        tolerance = 1e-4 if torch.finfo(whole.dtype).bits >= 32 else 3e-2
        return torch.allclose(read, whole, atol=tolerance, rtol=tolerance)
    except Exception:  # whatever a foreign architecture raises
        return False
    finally:
        trunk.train(training)
