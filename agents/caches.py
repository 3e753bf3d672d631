"""Which KV cache serves a model: tried, not believed."""

import warnings

import numpy as np
import torch

from agents.lm import LanguageModel
from agents.quick_slots import QuickSlots
from agents.slots import LeftPaddedBatch, Slots
from reward_models.last_layer import attention_window


@torch.no_grad()
def choose_cache(lm: LanguageModel, max_length: int) -> type[Slots] | type[LeftPaddedBatch]:
    """``QuickSlots`` where they serve, or ``Slots``, if decoding in them equals a full forward pass on this model, else the
    fallback, said aloud."""
    window = attention_window(lm.model.config)
    slides = window is not None and window < max_length
    for cache_class in (QuickSlots, Slots):
        serves = not slides and (cache_class is Slots or QuickSlots.serves(lm))
        if serves and _equals_forward(cache_class, lm, min(max_length, 12)):
            return cache_class
    warnings.warn(
        f"{type(lm.model).__name__} cannot decode in slots (sliding windows or another kind of cache): rollouts use "
        "left-padded batches with transformers' own cache, which is right but slower.",
        stacklevel=2,
    )
    return LeftPaddedBatch


def _equals_forward(cache_class: type[Slots], lm: LanguageModel, length: int) -> bool:
    if length < 4:
        return True  # a prompt and its answer in three tokens: next to nothing to decode
    try:
        ids = np.random.default_rng(0).integers(lm.vocab_size, size=(3, length))
        slots, rows = cache_class(lm, 3, length), np.arange(3)
        full = lm.hidden(torch.from_numpy(ids).to(lm.device)).float()
        for step in range(3):
            lengths = np.array([length - 3, 1, length // 2]) + step
            hidden = slots.last_hidden(ids, lengths, rows)
            if not torch.allclose(hidden, full[rows, lengths - 1], atol=1e-3, rtol=1e-3):
                return False
        return True
    except Exception:  # whatever a foreign architecture raises when it meets an unknown cache
        return False
