"""The KV cache of the rollout against full forward passes."""

import warnings

import numpy as np
import pytest
import torch

from agents.quick_slots import QuickSlots
from agents.slots import LeftPaddedBatch, Slots
from tests.agents.helpers import letters_policy, small_lm

ROTARY = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64)
FAMILIES = {
    "gpt2": {},
    "llama": {},
    "qwen2": ROTARY | dict(intermediate_size=48, num_key_value_heads=2),
    "qwen3": ROTARY | dict(intermediate_size=48, num_key_value_heads=2, head_dim=8),
    "mistral": ROTARY | dict(intermediate_size=48, num_key_value_heads=2, sliding_window=None),
    "gemma2": ROTARY | dict(intermediate_size=48, num_key_value_heads=2, head_dim=8),
    "gpt_neox": ROTARY | dict(intermediate_size=48),
    "opt": ROTARY | dict(ffn_dim=48, word_embed_proj_dim=32),
    "phi": ROTARY | dict(intermediate_size=48),
}
WRITTEN_OUT = ("gpt2", "llama", "qwen2", "qwen3", "mistral")


def family_policy(name: str, **settings):
    torch.manual_seed(0)
    if name in ("gpt2", "llama"):
        return letters_policy(small_lm(name, **settings), length=24)
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        name,
        vocab_size=12,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        **(FAMILIES[name] | settings),
    )
    config.initializer_range = 0.2
    return letters_policy(AutoModelForCausalLM.from_config(config), length=24)


def worst_difference(policy, cache_class, steps: int = 18) -> float:
    """Drive 5 rows that start, rest, go on and are reset at random; compare each step with a full forward pass."""
    rng = np.random.default_rng(1)
    cache = cache_class(policy.lm, 5, 24)
    ids, lengths = rng.integers(12, size=(5, 24)), np.array([1, 4, 2, 6, 3])
    worst = 0.0
    with torch.no_grad():
        for _ in range(steps):
            rows = np.sort(rng.permutation(5)[: rng.integers(1, 6)])
            hidden = cache.last_hidden(ids, lengths, rows)
            full = policy.lm.hidden(torch.from_numpy(ids))[rows, lengths[rows] - 1]
            worst = max(worst, (hidden - full).abs().max().item())
            lengths[rows] += 1
            reset = rows[(rng.random(len(rows)) < 0.2) | (lengths[rows] > 22)]
            ids[reset], lengths[reset] = (
                rng.integers(12, size=(len(reset), 24)),
                rng.integers(1, 7, len(reset)),
            )
    return worst


@pytest.mark.parametrize("family", FAMILIES)
def test_slots_equal_a_full_forward_pass(family):
    policy = family_policy(family)
    assert policy.cache_class is (QuickSlots if family in WRITTEN_OUT else Slots)
    for cache_class in {policy.cache_class, Slots}:
        assert worst_difference(policy, cache_class) < 2e-5


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_fallback_equals_a_full_forward_pass(family):
    assert worst_difference(family_policy(family), LeftPaddedBatch) < 2e-5


def test_sliding_windows_fall_back_and_say_so():
    with pytest.warns(UserWarning, match="MistralForCausalLM cannot decode in slots"):
        policy = family_policy("mistral", sliding_window=8)
    assert policy.cache_class is LeftPaddedBatch
    assert worst_difference(policy, LeftPaddedBatch) < 2e-5


def test_a_window_longer_than_the_episodes_needs_no_fallback():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert family_policy("mistral", sliding_window=100).cache_class is QuickSlots


def test_a_row_costs_one_token_per_step_and_only_a_reset_row_is_encoded_anew():
    policy = letters_policy(small_lm(), length=24)
    slots = Slots(policy.lm, 3, 24)
    sizes = []
    original = policy.lm.hidden
    policy.lm.hidden = lambda ids, **kwargs: (sizes.append(tuple(ids.shape)), original(ids, **kwargs))[1]
    ids, lengths, rows = np.arange(72).reshape(3, 24) % 12, np.array([4, 2, 3]), np.arange(3)
    with torch.no_grad():
        slots.last_hidden(ids, lengths, rows)
        slots.last_hidden(ids, lengths + 1, rows)
        ids[1, 0] += 1  # row 1 starts anew, with 5 tokens
        slots.last_hidden(ids, np.array([6, 5, 5]), rows)
    assert sizes == [(3, 4), (3, 1), (2, 1), (1, 5)]
