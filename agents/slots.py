"""The KV cache of a rollout: each sub-environment owns one slot, and rows at different positions decode together.

A step gives every row its one new token; a row that was reset is filled again, alone. No token is spent on finished
episodes and no prefix is encoded twice. Which rows continue and which are new is read off the token ids themselves, so
a caller cannot get it wrong: a row whose ids do not extend what its slot holds is simply encoded anew.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from agents.lm import LanguageModel

WIDTH_STEP = 16  # tokens


@dataclass
class Pass:
    """Where the present forward pass writes, told to all layers of the cache.

    Attributes:
        n_slots, max_length: size of the cache.
        slots: int64, shape [rows]; or the first ones, as a slice.
        positions: int64, shape [rows], of the one new token, or one number for all; None where whole prefixes are written
            from position 0.
        width: how far the rows may look back.
        dtype: of keys and values; None: as they come.
    """

    n_slots: int
    max_length: int
    slots: Tensor | slice = field(default_factory=lambda: slice(0, 0))
    positions: Tensor | int | None = None
    width: int = 0
    dtype: torch.dtype | None = None


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, shape [slots, heads, max_length, head_dim]."""

    is_sliding = False
    supports_early_init = False

    def __init__(self, current: Pass):
        super().__init__()
        self.current = current

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        n_slots, heads, max_length = self.current.n_slots, key_states.shape[1], self.current.max_length
        dtype = self.current.dtype or key_states.dtype
        self.keys = key_states.new_zeros(n_slots, heads, max_length, key_states.shape[-1], dtype=dtype)
        self.values = value_states.new_zeros(n_slots, heads, max_length, value_states.shape[-1], dtype=dtype)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        slot, position = self.current.slots, self.current.positions
        if position is None:  # new rows: they attend to themselves alone
            length = key_states.shape[2]
            self.keys[slot, :, :length] = key_states.to(self.keys.dtype)
            self.values[slot, :, :length] = value_states.to(self.values.dtype)
            return key_states, value_states
        self.keys[slot, :, position] = key_states[:, :, 0].to(self.keys.dtype)
        self.values[slot, :, position] = value_states[:, :, 0].to(self.values.dtype)
        n_active, width = len(key_states), self.current.width
        return self.keys[:n_active, :, :width], self.values[:n_active, :, :width]

    def swap(self, here: Tensor, there: Tensor, width: int) -> None:
        """Let the slots ``here`` hold what those ``there`` hold up to ``width``, and the other way round."""
        if self.is_initialized:
            assert self.keys is not None and self.values is not None
            for held in (self.keys[:, :, :width], self.values[:, :, :width]):
                held[here], held[there] = held[there], held[here]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return self.current.max_length


class Slots:
    """A cache of ``n_rows`` slots of ``max_length`` tokens for one model whose weights do not change meanwhile.

    Rows in use are kept in the front slots, so that a step works on views of the cache, never on copies.
    """

    def __init__(self, lm: LanguageModel, n_rows: int, max_length: int):
        self.lm, self.device = lm, lm.device
        self.ids = np.zeros((n_rows, max_length), dtype=np.int64)
        self.lengths = np.zeros(n_rows, dtype=np.int64)  # tokens that each row's slot holds
        self.slot_of = np.arange(n_rows)
        self.row_of = np.arange(n_rows)
        n_layers = lm.model.config.get_text_config().num_hidden_layers
        self.current = Pass(n_rows, max_length)
        self.layers = [SlotLayer(self.current) for _ in range(n_layers)]
        self.cache = Cache(layers=list(self.layers))

    def last_hidden(self, ids: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> Tensor:
        """Hidden state of the last token of each of ``rows``, shape [rows, hidden_size].

        Args:
            ids: int64, shape [n_rows, max_length], right-padded.
            lengths: int64, shape [n_rows].
            rows: int64, shape [rows], which rows of the two to work on; the others keep their slots.
        """
        continues = continues_prefix(self.ids, self.lengths, ids, lengths)[rows]
        old, new = np.flatnonzero(continues), np.flatnonzero(~continues)
        parts = [
            encode(ids, lengths, rows[chosen]).float()
            for encode, chosen in ((self._decode, old), (self._prefill, new))
            if len(chosen)
        ]
        self.ids[rows] = ids[rows]
        self.lengths[rows] = lengths[rows]
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts)[self._tensor(np.argsort(np.concatenate([old, new])))]

    def logits(self, hidden: Tensor, legal: Tensor | None = None) -> Tensor:
        """As ``LanguageModel.logits``, of what ``last_hidden`` gave."""
        return self.lm.logits(hidden, legal)

    def _prefill(self, ids: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> Tensor:
        width = int(lengths[rows].max())
        self.current.slots, self.current.positions = self._tensor(self.slot_of[rows]), None
        return self._prefixes(self._tensor(ids[rows, :width]), self._tensor(lengths[rows] - 1))

    def _prefixes(self, ids: Tensor, ends: Tensor) -> Tensor:
        """Hidden states, shape [rows, hidden_size], at the columns ``ends`` of prefixes, int64, shape [rows, width]."""
        with self.lm.without_backward():
            hidden = self.lm.hidden(ids, past_key_values=self.cache, use_cache=True)
        return hidden[torch.arange(len(ids), device=hidden.device), ends]

    def _decode(self, ids: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> Tensor:
        self._move_to_front(rows)
        order = self.row_of[: len(rows)]
        last = lengths[order] - 1
        position = self._tensor(last)
        # In bfloat16 a CPU's kernels are compiled for each shape, and a GPU's want masks of aligned width: a few widths serve
        # all, what is too wide is masked.
        is_any_width = self.device.type == "cpu" and self._attention_dtype == torch.float32
        step = 1 if is_any_width else WIDTH_STEP
        width = min(-(-int(lengths[order].max()) // step) * step, self.current.max_length)
        self.current.width = width
        if (last == last[0]).all():  # a slice is written faster than an index
            self.current.slots, self.current.positions = slice(0, len(rows)), int(last[0])
        else:
            self.current.slots, self.current.positions = torch.arange(len(rows), device=self.device), position
        hidden = self._one_token(self._tensor(ids[order, last]), position, width)
        return hidden[self._tensor(self.slot_of[rows])]

    @property
    def _attention_dtype(self) -> torch.dtype:
        casts = torch.is_autocast_enabled(self.device.type)
        return self.current.dtype or (self.lm.dtype if casts else torch.float32)

    def _one_token(self, ids: Tensor, positions: Tensor, width: int) -> Tensor:
        """Hidden states, shape [rows, hidden_size], of the tokens ``ids`` at ``positions``, int64, shape [rows]."""
        with self.lm.without_backward():
            hidden = self.lm.hidden(
                ids[:, None],
                position_ids=positions[:, None],
                attention_mask=self._mask(positions, width),
                past_key_values=self.cache,
                use_cache=True,
            )
        return hidden[:, 0]

    def _mask(self, positions: Tensor, width: int) -> Tensor:
        """What is added to the logits of attention, shape [rows, 1, 1, width], so that a row sees tokens up to its own."""
        dtype = self._attention_dtype
        future = torch.arange(width, device=self.device) > positions[:, None]
        mask = torch.zeros(future.shape, dtype=dtype, device=self.device)
        return mask.masked_fill_(future, torch.finfo(dtype).min)[:, None, None]

    def _move_to_front(self, rows: np.ndarray) -> None:
        slots = self.slot_of[rows]
        outside = slots[slots >= len(rows)]
        if len(outside) == 0:
            return
        front = np.arange(len(rows))
        free = front[~np.isin(front, slots)]
        moved_in, moved_out = self.row_of[outside], self.row_of[free]
        width = int(self.lengths[np.concatenate([moved_in, moved_out])].max())
        for layer in self.layers:
            layer.swap(self._tensor(free), self._tensor(outside), width)
        self.row_of[free], self.row_of[outside] = moved_in, moved_out
        self.slot_of[moved_in], self.slot_of[moved_out] = free, outside

    def _tensor(self, array: np.ndarray) -> Tensor:
        # Not blocking: a GPU need not have finished its work before it is given more.
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, non_blocking=True)


class LeftPaddedBatch:
    """The same interface on transformers' own cache, for models whose attention the slots cannot serve.

    All rows decode in lock-step behind left padding; a row that starts anew makes the whole batch be encoded again.
    """

    def __init__(self, lm: LanguageModel, n_rows: int, max_length: int):
        self.lm = lm
        self.ids = np.zeros((n_rows, max_length), dtype=np.int64)
        self.lengths = np.zeros(n_rows, dtype=np.int64)
        self.rows = np.zeros(0, dtype=np.int64)
        self.cache = DynamicCache(config=lm.model.config)
        self.mask = torch.zeros(0, 0, dtype=torch.long)

    def last_hidden(self, ids: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> Tensor:
        """As ``Slots.last_hidden``."""
        continues = np.isin(rows, self.rows) & continues_prefix(self.ids, self.lengths, ids, lengths)[rows]
        kept = [int(np.flatnonzero(self.rows == row)[0]) for row in rows[continues]]
        selects = all(hasattr(layer, "batch_select_indices") for layer in self.cache.layers)
        if continues.all() and (selects or len(kept) == len(self.rows)):
            if kept != list(range(len(self.rows))):
                index = torch.tensor(kept, device=self.lm.device)
                self.cache.batch_select_indices(index)
                self.mask = self.mask[index]
            tokens = torch.from_numpy(ids[rows, lengths[rows] - 1])[:, None].to(self.lm.device)
        else:
            width = int(lengths[rows].max())
            tokens = torch.zeros(len(rows), width, dtype=torch.long)
            self.mask = torch.zeros(len(rows), 0, dtype=torch.long, device=self.lm.device)
            self.cache = DynamicCache(config=self.lm.model.config)
            for i, row in enumerate(rows):
                tokens[i, width - lengths[row] :] = torch.from_numpy(ids[row, : lengths[row]])
            tokens = tokens.to(self.lm.device)
        hidden = self._forward(tokens, lengths[rows])
        self.rows, self.ids[rows], self.lengths[rows] = rows, ids[rows], lengths[rows]
        return hidden

    def logits(self, hidden: Tensor, legal: Tensor | None = None) -> Tensor:
        """As ``Slots.logits``."""
        return self.lm.logits(hidden, legal)

    def _forward(self, tokens: Tensor, lengths: np.ndarray) -> Tensor:
        width = tokens.shape[1]
        positions = torch.from_numpy(lengths)[:, None] - width + torch.arange(width)
        positions = positions.to(self.lm.device)
        self.mask = torch.cat([self.mask, (positions >= 0).long()], dim=1)
        hidden = self.lm.hidden(
            tokens,
            position_ids=positions.clamp(min=0),
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
        )
        return hidden[:, -1].float()


def continues_prefix(
    old: np.ndarray, old_lengths: np.ndarray, new: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Which rows of ``new`` are those of ``old`` plus one token; bool, shape [n_rows]."""
    inside = np.arange(old.shape[1]) < old_lengths[:, None]
    same = ((old == new) | ~inside).all(axis=1)
    return same & (lengths == old_lengths + 1) & (old_lengths > 0)
