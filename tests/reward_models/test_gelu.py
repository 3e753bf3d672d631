"""The quick GELU is the tanh approximation: against its definition in float64, and in a model of transformers."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from transformers import AutoModelForCausalLM, GPT2Config

from reward_models import gelu as module
from reward_models.gelu import TanhGELU, use_quick_gelu


def by_definition(x):
    """Hendrycks & Gimpel 2016, section 2."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def with_gradient(function, x, of_y):
    x = x.detach().requires_grad_()
    y = function(x)
    return y.detach(), torch.autograd.grad(y, x, of_y.to(y.dtype))[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    at_once=st.integers(1, 50),
    seed=st.integers(0, 999),
)
def test_it_and_its_gradient_are_those_of_the_definition(dtype, shape, at_once, seed):
    """In bfloat16 up to its rounding, 2^-9 of the value; a gradient is rounded twice."""
    generator = torch.Generator().manual_seed(seed)
    x, of_y = (3 * torch.randn(2, *shape, generator=generator)).to(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "NUMBERS_PER_THREAD", at_once)
        y, gradient = with_gradient(TanhGELU(), x, of_y)
        with torch.no_grad():
            same = TanhGELU()(x)
    wanted, wanted_gradient = with_gradient(by_definition, x.double(), of_y.double())
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    assert y.dtype == gradient.dtype == dtype
    torch.testing.assert_close(y.double(), wanted, atol=1e-5, rtol=tolerance)
    torch.testing.assert_close(same.double(), wanted, atol=1e-5, rtol=tolerance)
    torch.testing.assert_close(gradient.double(), wanted_gradient, atol=tolerance, rtol=tolerance)


def test_by_hand():
    """gelu(1) = 0.841192; its slope at 0 is 1/2; far to the left both are 0, far to the right x and 1."""
    y, slope = with_gradient(TanhGELU(), torch.tensor([1.0, 0.0, -50.0, 50.0]), torch.ones(4))
    assert y.tolist() == pytest.approx([0.841192, 0, 0, 50], abs=1e-6)
    assert slope[1:].tolist() == pytest.approx([0.5, 0, 1], abs=1e-6)


def test_only_the_derivative_is_kept_for_backward():
    kept, x = [], torch.randn(40, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        TanhGELU()(x)
    _, slope = with_gradient(by_definition, x.double(), torch.ones(40))
    assert len(kept) == 1
    torch.testing.assert_close(kept[0].double(), slope, atol=1e-5, rtol=1e-5)


def test_a_model_of_transformers_says_the_same_with_it():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=11, n_embd=8, n_layer=2, n_head=2)).eval()
    ids = torch.arange(10)[None]
    before = model(ids).logits
    use_quick_gelu(model)
    assert sum(isinstance(layer, TanhGELU) for layer in model.modules()) == 2
    torch.testing.assert_close(model(ids).logits, before, atol=1e-5, rtol=1e-5)
