"""Forward passes that are written out equal the modules that they stand for, and stand aside where they would not."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from agents.attention import _by_products
from agents.caches import choose_cache
from agents.linear import can_pack, linear, packed_linear
from agents.lm import LanguageModel, kept_casts
from agents.memory import recompute_layers
from agents.quick_slots import QuickSlots
from agents.sampling import choose
from agents.slots import Slots
from reward_models.last_layer import hidden_at
from tests.agents.helpers import small_lm

ROWS, LENGTH = np.arange(3), 10
IDS = np.arange(3 * LENGTH).reshape(3, LENGTH) % 12
needs_packing = pytest.mark.skipif(not can_pack(), reason="this CPU has no products in bfloat16")


@torch.no_grad()
def decoded(slots, start=(4, 1, 6), steps: int = 3):
    """Hidden states and logits of the last of ``steps`` tokens behind prefixes of different lengths."""
    with slots.lm.autocast():
        for step in range(steps):
            hidden = slots.last_hidden(IDS, np.array(start) + step, ROWS)
        return hidden, slots.logits(hidden)


def make(architecture: str = "gpt2", dtype: str = "float32", **settings) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(small_lm(architecture, **settings), 12, dtype=dtype)


def is_written_out(slots: QuickSlots) -> bool:
    decoded(slots)
    return slots.written_out[0] is not None


@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(scale_attn_by_inverse_layer_idx=True),
        dict(scale_attn_weights=False),
        dict(n_inner=40),
        dict(activation_function="gelu_pytorch_tanh"),
    ],
)
def test_variants_of_gpt2_are_written_out_right(settings):
    lm = make("gpt2", **settings)
    slots = QuickSlots(lm, 3, LENGTH)
    torch.testing.assert_close(decoded(slots), decoded(Slots(lm, 3, LENGTH)), atol=2e-5, rtol=0)
    assert is_written_out(slots)


@pytest.mark.parametrize(
    "architecture, settings",
    [
        ("gpt2", dict(activation_function="relu")),
        ("gpt2", dict(reorder_and_upcast_attn=True)),
        ("llama", dict(hidden_act="gelu")),
    ],
)
def test_variants_that_are_not_written_out_keep_their_modules(architecture, settings):
    assert choose_cache(make(architecture, **settings), LENGTH) is Slots


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_rows_of_one_length_are_written_as_rows_of_several(architecture):
    lm = make(architecture)
    even, uneven = QuickSlots(lm, 3, LENGTH), QuickSlots(lm, 3, LENGTH)
    hidden, _ = decoded(even, start=(4, 4, 4))
    decoded(uneven, start=(3, 3, 4), steps=2)  # rows 0 and 1 end at 4, row 2 at 5
    other = uneven.last_hidden(IDS, np.array([5, 5, 6]), ROWS)
    other = uneven.last_hidden(IDS, np.array([6, 6, 7]), ROWS)
    torch.testing.assert_close(hidden[:2], other[:2], atol=2e-5, rtol=0)


@needs_packing
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_packed_weights_equal_autocast_up_to_rounding(architecture):
    lm = make(architecture, "bfloat16")
    slots = QuickSlots(lm, 3, LENGTH)
    (quick, quick_logits), (_, logits) = decoded(slots), decoded(Slots(lm, 3, LENGTH))
    lm.dtype_name = "float32"
    exact, exact_logits = decoded(Slots(lm, 3, LENGTH))
    # Not further from float32 than autocast is, up to a factor of two.
    assert (quick_logits - exact_logits).abs().mean() < 2 * (logits - exact_logits).abs().mean()
    assert 0 < (quick - exact).abs().max() < 0.1
    assert slots.written_out[0] is not None and quick.dtype == quick_logits.dtype == torch.float32


@needs_packing
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gelu", [True, False])
@pytest.mark.parametrize("n_rows", [1, 5, 64])
def test_a_packed_layer_is_the_layer_in_bfloat16(bias, gelu, n_rows):
    torch.manual_seed(n_rows)
    layer, x = nn.Linear(24, 40, bias=bias), torch.randn(n_rows, 24)
    expected = F.linear(x, layer.weight, layer.bias)
    if gelu:
        expected = F.gelu(expected, approximate="tanh")
    packed = packed_linear(layer, gelu)(x)
    assert (
        packed.dtype == torch.bfloat16
        and packed_linear(layer, gelu, to_float32=True)(x).dtype == torch.float32
    )
    torch.testing.assert_close(packed.float(), expected, atol=0.03, rtol=0.02)
    torch.testing.assert_close(linear(layer, gelu)(x), expected)


def test_conv1d_stores_its_weight_the_other_way_round():
    layer, x = Conv1D(40, 24), torch.randn(3, 24)
    torch.testing.assert_close(linear(layer)(x), layer(x))
    if can_pack():
        torch.testing.assert_close(packed_linear(layer, to_float32=True)(x), layer(x), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("layer", [nn.Linear(24, 40), Conv1D(40, 24)], ids=["Linear", "Conv1D"])
def test_autocast_keeps_the_cast_of_a_layers_weight(layer):
    """A view of the weight would be cast anew at every step of decoding."""
    function, x = linear(layer), torch.randn(3, 24)
    with torch.no_grad(), kept_casts(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = function(x)
        layer.weight.add_(1)  # which only a new cast would see
        assert before.dtype == torch.bfloat16 and torch.equal(function(x), before)


@pytest.mark.parametrize("groups", [1, 3])
def test_attention_of_one_query_is_that_of_torch(groups):
    query, key, value = (torch.randn(2, 4, n, 8) for n in (groups, 7, 7))
    bias = torch.zeros(2, 1, 1, 7)
    bias[0, :, :, 5:] = torch.finfo(torch.float32).min
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=0.3)
    torch.testing.assert_close(_by_products(query, key, value, bias, scale=0.3), expected)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_anothers_hook_is_called_and_heard(architecture):
    """As those who steer activations put them in."""
    lm = make(architecture)
    before, _ = decoded(QuickSlots(lm, 3, LENGTH))
    norm = lm.trunk.ln_f if architecture == "gpt2" else lm.trunk.norm
    hook = norm.register_forward_hook(lambda module, args, output: output + 1)
    slots = QuickSlots(lm, 3, LENGTH)
    torch.testing.assert_close(decoded(slots)[0], before + 1, atol=2e-5, rtol=0)
    assert not is_written_out(slots)
    hook.remove()
    assert is_written_out(QuickSlots(lm, 3, LENGTH))


def test_a_replaced_method_or_module_is_called():
    lm = make("gpt2")
    lm.trunk.h[0].mlp.forward = lambda x: 0 * x
    assert choose_cache(lm, LENGTH) is Slots
    lm = make("gpt2")

    class Mine(nn.LayerNorm):
        pass

    lm.trunk.ln_f = Mine(32)
    assert choose_cache(lm, LENGTH) is Slots


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=needs_packing)])
def test_a_row_that_starts_anew_is_encoded_with_the_weights_of_now(dtype):
    lm = make("gpt2", dtype)
    slots = QuickSlots(lm, 3, LENGTH)
    decoded(slots)
    with torch.no_grad():
        lm.trunk.h[0].mlp.c_fc.weight.mul_(-1)
        lm.model.lm_head.weight.mul_(2)
    old, new = decoded(slots), decoded(QuickSlots(lm, 3, LENGTH))
    assert torch.equal(old[0], new[0]) and torch.equal(old[1], new[1])


def test_gradient_checkpointing_and_the_last_layers_own_hooks_do_not_stand_in_the_way():
    lm = make("gpt2")
    recompute_layers(lm.model)
    with torch.no_grad():  # puts hooks into the last layer
        hidden_at(lm.trunk, torch.randn(64, 32, 32), torch.arange(64), torch.full((64,), 20))
    assert lm.trunk.h[-1]._forward_pre_hooks
    assert is_written_out(QuickSlots(lm, 3, LENGTH))


def test_an_adapter_is_called():
    pytest.importorskip("peft")
    from agents.lora import put_adapter

    model = small_lm("llama")
    put_adapter(model, dict(r=2))
    assert choose_cache(LanguageModel(model, 12), LENGTH) is Slots


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("cache_class", [QuickSlots, Slots])
def test_all_tensors_of_a_pass_are_on_the_models_device(monkeypatch, architecture, cache_class):
    """Without a GPU: the "meta" device computes shapes alone, and as a GPU does it refuses tensors of another device."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)  # it does not know "meta"
    slots = cache_class(make(architecture).to("meta"), 3, LENGTH)
    for start in ((4, 1, 6), (4, 4, 4)):
        hidden, logits = decoded(slots, start)
        assert hidden.device.type == logits.device.type == "meta" and logits.shape == (3, 12)
        assert {tensor.device.type for tensor in choose(logits)} == {"meta"}
    monkeypatch.setattr(slots, "_tensor", torch.from_numpy)  # forgets the device
    with pytest.raises(RuntimeError, match="device"):
        decoded(slots, (7, 7, 7), steps=1)
