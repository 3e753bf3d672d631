"""Log-probabilities and entropies against their definitions, worked out in float64."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from agents import token_log_probs as module
from agents.token_log_probs import token_log_probs


def by_definition(logits, actions):
    """log softmax, and -sum p log p over the tokens that can be chosen."""
    log_p = torch.log_softmax(logits.double(), dim=-1)
    nats = -(log_p.exp() * log_p.masked_fill(log_p.isneginf(), 0.0)).sum(dim=-1)
    return log_p[torch.arange(len(actions)), actions], nats


def random_case(n_tokens, vocab_size, seed=0, dtype=torch.float32, forbidden=0.0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n_tokens, vocab_size, generator=generator)
    actions = torch.randint(vocab_size, (n_tokens,), generator=generator)
    cannot = torch.rand(n_tokens, vocab_size, generator=generator) < forbidden
    cannot[torch.arange(n_tokens), actions] = False
    return logits.masked_fill(cannot, -torch.inf).to(dtype).requires_grad_(), actions


def test_by_hand():
    """softmax of log(1, 2, 5) is 1/8, 2/8, 5/8."""
    logits = torch.tensor([[1.0, 2.0, 5.0]]).log()
    log_probs, nats = token_log_probs(logits, torch.tensor([2]), entropies=True)
    assert log_probs.tolist() == pytest.approx([-0.470004])  # log(5/8)
    assert nats.tolist() == pytest.approx([0.900256])


@pytest.mark.parametrize("forbidden", [0.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=25, deadline=None)
@given(
    n_tokens=st.integers(0, 30),
    vocab_size=st.integers(1, 40),
    at_once=st.integers(1, 200),
    seed=st.integers(0, 999),
)
def test_they_and_their_gradients_are_those_of_the_definition(
    forbidden, dtype, n_tokens, vocab_size, at_once, seed
):
    """Any number of rows at once; bfloat16 logits are exact numbers, only their gradient is rounded to bfloat16."""
    logits, actions = random_case(n_tokens, vocab_size, seed, dtype, forbidden)
    exact = logits.detach().double().requires_grad_()
    weights = torch.randn(2, n_tokens, generator=torch.Generator().manual_seed(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LOGITS_PER_THREAD", at_once)
        found = token_log_probs(logits, actions, entropies=True)
        (gradient,) = torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, found)), logits)
    wanted = by_definition(exact, actions)
    (wanted_gradient,) = torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, wanted)), exact)
    for one, other in zip(found, wanted):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-5)
    assert gradient.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(gradient.double(), wanted_gradient, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("of", [0, 1])
def test_either_alone_has_its_gradient(of):
    logits, actions = random_case(7, 11)
    exact = logits.detach().double().requires_grad_()
    (gradient,) = torch.autograd.grad(token_log_probs(logits, actions, entropies=True)[of].sum(), logits)
    (wanted,) = torch.autograd.grad(by_definition(exact, actions)[of].sum(), exact)
    torch.testing.assert_close(gradient.double(), wanted, atol=1e-6, rtol=1e-5)


def test_entropies_that_are_not_asked_for_are_none():
    logits, actions = random_case(3, 5)
    assert token_log_probs(logits, actions)[1] is None


def test_a_token_that_cannot_be_chosen_has_probability_zero():
    logits = torch.tensor([[0.0, -torch.inf, 0.0]], requires_grad=True)
    log_probs, _ = token_log_probs(logits, torch.tensor([1]))
    assert log_probs.tolist() == [-torch.inf]


def test_what_is_kept_for_backward_is_the_logits_themselves():
    """No copy of them in float32, and no softmax."""
    kept, (logits, actions) = [], random_case(50, 20, dtype=torch.bfloat16)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        token_log_probs(logits, actions)
    wide = [tensor for tensor in kept if tensor.shape == (50, 20)]
    assert [tensor.data_ptr() for tensor in wide] == [logits.data_ptr()]
