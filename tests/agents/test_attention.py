"""Attention written out equals the definition, and torch's own."""

import copy
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

from agents.attention import attend
from agents.lm import LanguageModel
from tests.agents.helpers import small_lm


def attended(function, tensors, of_output):
    """Output and gradients of query, key and value."""
    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    output = function(*tensors)
    return [output.detach(), *torch.autograd.grad(output, tensors, of_output)]


def random_tensors(n, heads, groups, n_queries, n_keys, head_dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    of_output = torch.randn(n, n_queries, heads * groups, head_dim, generator=generator)
    query = torch.randn(n, heads * groups, n_queries, head_dim, generator=generator)
    key, value = torch.randn(2, n, heads, n_keys, head_dim, generator=generator)
    return (query, key, value), of_output


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 3), heads=st.integers(1, 3), groups=st.integers(1, 3), n_queries=st.integers(1, 6),
    more_keys=st.integers(0, 4), head_dim=st.integers(1, 5), scaling=st.none() | st.floats(0.1, 2.0),
    masked=st.sampled_from(["causal", "bool", "added"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_it_is_sdpa(n, heads, groups, n_queries, more_keys, head_dim, scaling, masked, seed):
    """With a mask of either kind, or none; heads that share a key."""
    n_keys = n_queries + (0 if masked == "causal" else more_keys)
    tensors, of_output = random_tensors(n, heads, groups, n_queries, n_keys, head_dim, seed)
    sees = torch.rand(n, 1, n_queries, n_keys, generator=torch.Generator().manual_seed(seed)) < 0.5
    sees[..., 0] = True
    mask = {"causal": None, "bool": sees, "added": torch.zeros(sees.shape).masked_fill(~sees, -1e9)}[masked]
    module = SimpleNamespace(num_key_value_groups=groups)

    def sdpa(query, key, value):
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
        ).transpose(1, 2)

    found = attended(lambda *qkv: attend(module, *qkv, mask, scaling)[0], tensors, of_output)
    for one, other in zip(found, attended(sdpa, tensors, of_output), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


def test_by_hand():
    """One head of width 1: logits 0 and ln 3, so weights 1/4 and 3/4; the first query sees the first key alone."""
    query, key = torch.ones(1, 1, 2, 1), torch.tensor([1.0, 3.0]).log().view(1, 1, 2, 1)
    value = torch.tensor([8.0, 4.0]).view(1, 1, 2, 1)
    output, _ = attend(torch.nn.Identity(), query, key, value, None)
    assert output.flatten().tolist() == pytest.approx([8.0, 5.0])


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_model_in_bfloat16_errs_no_more_than_with_transformers_eager(kind):
    torch.manual_seed(0)
    ids, model = torch.randint(12, (3, 9)), small_lm(kind)
    errors, exact = [], LanguageModel(copy.deepcopy(model), 12, dtype="float32").hidden(ids)
    for chosen in ("sdpa", "eager"):  # the first is what is written out
        other = copy.deepcopy(model)
        other.set_attn_implementation(chosen)
        lm = LanguageModel(other, 12, dtype="bfloat16")
        assert lm.attention_written_out == (chosen == "sdpa")
        with lm.autocast():
            errors.append(float((lm.hidden(ids) - exact).detach().abs().mean()))
    ours, eager = errors
    assert 0 < ours < 1.2 * eager < 0.05


def test_padding_masks_of_transformers_are_heeded():
    """Left padding, as in ``generate``: the padded prompt's last hidden state is the bare prompt's."""
    torch.manual_seed(0)
    model = LanguageModel(
        small_lm("llama"), 12, dtype="bfloat16"
    ).model  # weights and products in float32 here
    assert model.config._attn_implementation == "written_out"
    ids = torch.randint(12, (1, 5))
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], dim=1)
    mask = (torch.arange(8) >= 3).long()[None]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    bare = model(input_ids=ids).logits[:, -1]
    filled = model(input_ids=padded, attention_mask=mask, position_ids=positions).logits[:, -1]
    torch.testing.assert_close(filled, bare, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["softcap", "position_bias"])
def test_what_would_be_left_out_is_refused(name):
    tensors, _ = random_tensors(1, 1, 1, 2, 2, 2)
    with pytest.raises(ValueError, match=f'with {name} cannot be written out.*attn_implementation="eager"'):
        attend(torch.nn.Identity(), *tensors, None, **{name: 50.0})
