"""Advantages, losses, KL estimators and the KL controller against numbers one can check by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.advantages import gae, whiten
from agents.episodes import split_by_length
from agents.kl import KLController
from agents.losses import clipped_surrogate, entropy, kl_estimate, value_loss


def test_clipped_surrogate_takes_the_worse_of_the_two():
    """Ratios 1.5 and 0.5 with epsilon 0.2: min(1.5, 1.2) x 1 and min(0.5 x -1, 0.8 x -1)."""
    ratios, advantages = torch.tensor([1.5, 0.5]), torch.tensor([1.0, -1.0])
    loss = clipped_surrogate(ratios.log(), torch.zeros(2), advantages, clip_range=0.2)
    assert loss.item() == pytest.approx(-(1.2 - 0.8))


def test_value_loss_limits_the_step_as_stable_baselines3_does():
    """Value 1.0 from 0.0 with limit 0.2 counts as 0.2: (2 - 0.2)^2; without a limit (2 - 1)^2."""
    values, old, returns = torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([2.0])
    assert value_loss(values, old, returns, 0.2).item() == pytest.approx(1.8**2)
    assert value_loss(values, old, returns, None).item() == pytest.approx(1.0)


def test_entropy_is_that_of_the_legal_tokens_and_its_gradient_is_finite():
    """Two equally likely tokens beside an illegal one: ln 2, the most there is, so no logit would raise it."""
    logits = torch.tensor([[1.0, 1.0, -torch.inf]], requires_grad=True)
    nats = entropy(logits)
    (gradient,) = torch.autograd.grad(nats.sum(), logits)
    assert nats.item() == pytest.approx(np.log(2))
    assert gradient.tolist() == [[pytest.approx(0, abs=1e-7)] * 3]


def test_kl_estimators_by_hand():
    """policy 0.5, reference 0.25: r = 0.5; k1 = ln 2, k2 = (ln 2)^2 / 2, k3 = 0.5 - 1 + ln 2."""
    log_probs, ref = np.log([0.5]), np.log([0.25])
    assert kl_estimate(log_probs, ref, "k1")[0] == pytest.approx(np.log(2))
    assert kl_estimate(log_probs, ref, "k2")[0] == pytest.approx(np.log(2) ** 2 / 2)
    assert kl_estimate(log_probs, ref, "k3")[0] == pytest.approx(np.log(2) - 0.5)
    torch_value = kl_estimate(torch.tensor(log_probs), torch.tensor(ref), "k3")
    assert torch_value.item() == pytest.approx(np.log(2) - 0.5)


@given(st.lists(st.floats(0.05, 1.0), min_size=2, max_size=6), st.data())
def test_k1_and_k3_are_unbiased(weights, data):
    policy = np.array(weights) / np.sum(weights)
    other = data.draw(st.lists(st.floats(0.05, 1.0), min_size=len(policy), max_size=len(policy)))
    reference = np.array(other) / np.sum(other)
    exact = np.sum(policy * np.log(policy / reference))
    for estimator in ("k1", "k3"):
        mean = np.sum(policy * kl_estimate(np.log(policy), np.log(reference), estimator))
        assert mean == pytest.approx(exact, abs=1e-9)
    assert (kl_estimate(np.log(policy), np.log(reference), "k3") >= -1e-12).all()


@given(
    st.lists(
        st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=7),
        min_size=1,
        max_size=4,
    ),
    st.floats(0.5, 1.0),
    st.floats(0.0, 1.0),
)
def test_gae_of_a_batch_is_gae_of_each_episode(episodes, gamma, gae_lambda):
    width = max(map(len, episodes))
    mask = np.arange(width) < np.array([len(episode) for episode in episodes])[:, None]
    rewards, values = np.zeros(mask.shape), np.zeros(mask.shape)
    rewards[mask], values[mask] = np.array([pair for episode in episodes for pair in episode]).T
    values[~mask] = 99.0  # padding must not matter
    advantages, returns = gae(rewards, values, mask, gamma, gae_lambda)
    for row, episode in enumerate(episodes):
        r, v = np.array(episode).T
        deltas = r + gamma * np.append(v[1:], 0.0) - v
        expected = [
            sum((gamma * gae_lambda) ** k * deltas[t + k] for k in range(len(r) - t)) for t in range(len(r))
        ]
        np.testing.assert_allclose(advantages[row, : len(r)], expected, atol=1e-9)
        np.testing.assert_allclose(returns[row, : len(r)], expected + v, atol=1e-9)
    assert (advantages[~mask] == 0).all() and (returns[~mask] == 0).all()


def test_gae_with_lambda_one_is_the_return_minus_the_value():
    advantages, _ = gae(
        np.array([[1.0, 2.0, 3.0]]), np.array([[0.5, 0.5, 0.5]]), np.ones((1, 3), bool), 1.0, 1.0
    )
    np.testing.assert_allclose(advantages, [[5.5, 4.5, 2.5]])


def test_whitening():
    np.testing.assert_allclose(whiten(np.array([1.0, 2.0, 3.0])), [-1.0, 0.0, 1.0], atol=1e-6)
    assert whiten(np.array([7.0])).tolist() == [7.0]


def test_a_fixed_coefficient_stays():
    controller = KLController(0.05)
    controller.update(kl=100.0, n_episodes=64)
    assert controller.coef == 0.05


@pytest.mark.parametrize(
    "kl, factor", [(6.0, 1.0), (12.0, 1 + 0.2 * 64 / 10_000), (5.4, 1 - 0.1 * 64 / 10_000)]
)
def test_the_adaptive_coefficient_follows_ziegler(kl, factor):
    """Target 6 nats, horizon 10,000 episodes: the relative error is clipped to 0.2."""
    controller = KLController(0.1, target=6.0, horizon=10_000)
    controller.update(kl, n_episodes=64)
    assert controller.coef == pytest.approx(0.1 * factor)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=40), st.one_of(st.none(), st.integers(1, 8)))
def test_micro_batches_hold_each_episode_once_and_similar_lengths(lengths, limit):
    array = np.array(lengths)
    groups = split_by_length(array, limit)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    for group in groups:
        assert limit is None or len(group) <= limit
        assert array[group].min() >= 0.6 * array[group].max()
