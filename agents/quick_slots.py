"""Slots whose forward passes are written out, for the models that agents.decoders knows."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import repeat_kv

from agents.attention import attend_once
from agents.decoders import Decoder, decoder_of
from agents.linear import Linear, can_pack, linear, packed_linear
from agents.lm import LanguageModel
from agents.slots import Slots


class QuickSlots(Slots):
    """``Slots`` by ``agents.decoders``; a model whose modules are not as transformers wrote them is called as ever.

    On a CPU keys, values and attention are float32, in which products of one query are quickest there, and in bfloat16 the
    linear layers are packed. On a GPU all is as autocast has it.
    """

    def __init__(self, lm: LanguageModel, n_rows: int, max_length: int):
        super().__init__(lm, n_rows, max_length)
        self.on_cpu = self.device.type == "cpu"
        self.weights = list(lm.model.parameters())
        self.written_out: tuple[Decoder | None, Linear | None] = None, None
        self.made_for: tuple[bool, int] | None = None

    @staticmethod
    def serves(lm: LanguageModel) -> bool:
        """Whether there is anything written out for this model, in its dtype, here."""
        packs = lm.device.type == "cpu" and lm.dtype == torch.bfloat16
        return (can_pack() or not packs) and decoder_of(lm.trunk, linear) is not None

    def _prefixes(self, ids: Tensor, ends: Tensor) -> Tensor:
        decoder = self._decoder()
        if decoder is None:
            return super()._prefixes(ids, ends)
        n_rows, width = ids.shape
        positions = torch.arange(width, device=self.device).repeat(n_rows)
        wanted = torch.arange(n_rows, device=self.device) * width + ends
        with self._numerics():
            return decoder(
                ids.flatten(), positions, partial(self._attend_prefixes, self._mask(ends, width)), wanted
            )

    def _one_token(self, ids: Tensor, positions: Tensor, width: int) -> Tensor:
        decoder = self._decoder()
        if decoder is None:
            return super()._one_token(ids, positions, width)
        with self._numerics():
            return decoder(ids, positions, partial(self._attend_cache, self._mask(positions, width)))

    def logits(self, hidden: Tensor, legal: Tensor | None = None) -> Tensor:
        """As ``Slots.logits``."""
        return self.lm.logits(hidden, legal, self._written_out()[1])

    def _decoder(self) -> Decoder | None:
        return self._written_out()[0]

    def _written_out(self) -> tuple[Decoder | None, Linear | None]:
        """The trunk and the output layer, for these weights, with autocast or without; None for what is called as ever."""
        casts = torch.is_autocast_enabled(self.device.type)
        wanted = casts, sum(weight._version for weight in self.weights)
        if wanted != self.made_for:
            packs = self.on_cpu and casts
            self.current.dtype = self.lm.dtype if casts and not self.on_cpu else torch.float32
            layer = partial(packed_linear, n_rows=len(self.ids)) if packs else linear
            decoder = None if packs and not can_pack() else decoder_of(self.lm.trunk, layer)
            head = self.lm.model.get_output_embeddings()
            is_packed = packs and decoder is not None and type(head) is nn.Linear
            self.written_out = decoder, layer(head) if is_packed else None
            self.made_for = wanted
        return self.written_out

    def _numerics(self) -> AbstractContextManager:
        return torch.autocast("cpu", enabled=False) if self.on_cpu else nullcontext()

    def _attend_cache(
        self, mask: Tensor, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """One token in each row, to all that its slot holds."""
        keys, values = self.layers[layer].update(key[:, :, None], value[:, :, None])
        return attend_once(query, keys, values, mask, scaling)

    def _attend_prefixes(
        self, mask: Tensor, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """The tokens of new rows, or the last one in each, to those before in their row."""
        n_rows = len(mask)
        key, value = (tensor.unflatten(0, (n_rows, -1)).transpose(1, 2) for tensor in (key, value))
        self.layers[layer].update(key, value)
        if len(query) == n_rows:
            return attend_once(query, key, value, mask, scaling)
        query = query.unflatten(0, (n_rows, -1)).transpose(1, 2)
        key, value = (repeat_kv(tensor, query.shape[1] // key.shape[1]) for tensor in (key, value))
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
        return attended.transpose(1, 2).flatten(0, 1).flatten(1)
