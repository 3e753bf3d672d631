"""The losses by hand: Bradley-Terry, Plackett-Luce, ties, smoothing, margins, centring."""

from itertools import pairwise, permutations
from math import exp, log

import pytest
import torch

from reward_models.preference_losses import (
    MOST_TIED,
    Contest,
    Contests,
    centring,
    contest_losses,
    pair_contests,
    ranking_contests,
)

SCORES = torch.tensor([2.0, 0.5, -1.0, 0.25])


def loss(contests, scores=SCORES, label_smoothing=0.0):
    return contest_losses(scores, Contests.of(contests), label_smoothing).sum().item()


def log_sigmoid(x):
    return -log(1 + exp(-x))


def plackett_luce(order, scores=SCORES):
    """-log P(order), best first, by the definition."""
    left = [exp(scores[place]) for place in order]
    return -sum(log(left[i] / sum(left[i:])) for i in range(len(left)))


def test_a_pair_is_bradley_terry():
    assert loss(pair_contests(0, 1, 1.0)) == pytest.approx(-log_sigmoid(1.5))
    assert loss(pair_contests(0, 1, 0.0)) == pytest.approx(-log_sigmoid(-1.5))


def test_a_tie_is_half_of_each():
    assert loss(pair_contests(0, 1, 0.5)) == pytest.approx(-(log_sigmoid(1.5) + log_sigmoid(-1.5)) / 2)


def test_a_margin_is_taken_off_the_difference_and_a_tie_has_none():
    assert loss(pair_contests(0, 1, 1.0, margin=0.7)) == pytest.approx(-log_sigmoid(1.5 - 0.7))
    assert loss(pair_contests(0, 1, 0.0, margin=0.7)) == pytest.approx(-log_sigmoid(-1.5 - 0.7))
    assert loss(pair_contests(0, 1, 0.5, margin=0.7)) == loss(pair_contests(0, 1, 0.5))


def test_weight_multiplies():
    assert loss(pair_contests(0, 1, 1.0, weight=3.0)) == pytest.approx(-3 * log_sigmoid(1.5))


def test_label_smoothing_is_the_chance_of_a_slip():
    d = 1.5 - 0.7
    expected = -0.9 * log_sigmoid(d) - 0.1 * log_sigmoid(-d)
    assert loss(pair_contests(0, 1, 1.0, margin=0.7), label_smoothing=0.1) == pytest.approx(expected)
    # Among three, each loser wins with half of it.
    three = loss([Contest(0, (1, 2))], label_smoothing=0.1)
    wins = [loss([Contest(w, tuple({0, 1, 2} - {w}))]) for w in range(3)]
    assert three == pytest.approx(0.9 * wins[0] + 0.05 * wins[1] + 0.05 * wins[2])


def test_a_ranking_is_plackett_luce_per_choice():
    assert loss(ranking_contests([2, 1, 4, 3])) == pytest.approx(plackett_luce([1, 0, 3, 2]) / 3)


def test_plackett_luce_of_two_is_bradley_terry():
    assert ranking_contests([1, 2]) == ranking_contests([1, 2], "pairs") == pair_contests(0, 1, 1.0)
    assert loss(ranking_contests([3, 3])) == pytest.approx(loss(pair_contests(0, 1, 0.5)))


@pytest.mark.parametrize("ranks", [[1, 1, 2, 3], [1, 2, 2, 2], [2, 1, 1, 2], [1, 1, 1, 1]])
def test_ties_are_the_mean_over_all_orders_that_agree(ranks):
    orders = [o for o in permutations(range(4)) if all(ranks[a] <= ranks[b] for a, b in pairwise(o))]
    expected = sum(map(plackett_luce, orders)) / len(orders) / 3
    assert loss(ranking_contests(ranks)) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["plackett_luce", "pairs"])
@pytest.mark.parametrize("ranks", [[1, 2, 3, 4], [1, 1, 3, 3], [1, None, 2, None], [5, 2, 2, None]])
def test_the_weights_of_a_ranking_add_up_to_one(kind, ranks):
    assert sum(contest.weight for contest in ranking_contests(ranks, kind)) == pytest.approx(1)


def test_pairs_of_a_ranking_are_averaged():
    pairs = [(0, 1, 1.0), (0, 2, 1.0), (1, 2, 0.5)]
    expected = sum(loss(pair_contests(*pair)) for pair in pairs) / 3
    assert loss(ranking_contests([1, 2, 2], "pairs")) == pytest.approx(expected)


def test_what_was_not_ranked_is_in_no_contest():
    assert ranking_contests([2, None, 1, None]) == [Contest(2, (0,))]
    assert ranking_contests([1, None, None]) == []


def test_too_many_ties_are_refused():
    with pytest.raises(ValueError, match=r"11 responses of one ranking share rank 1.*ranking_loss=\"pairs\""):
        ranking_contests([1] * (MOST_TIED + 1))
    assert len(ranking_contests([1] * (MOST_TIED + 1), "pairs")) == 2 * 55


def test_centring_of_a_pair_is_that_of_trl():
    scores, group = torch.tensor([2.0, 1.0, -4.0, 0.0]), torch.tensor([0, 0, 1, 1])
    chosen, rejected = scores[[0, 2]], scores[[1, 3]]
    assert centring(scores, group, 2).item() == ((chosen + rejected) ** 2).mean().item() == 12.5


def test_gradient_is_that_of_the_pairs_forwarded_one_by_one():
    """One forward pass per response and all its pairs, or each pair with copies of its own: the same gradient."""
    torch.manual_seed(0)
    features, weights = torch.randn(4, 3), torch.randn(3)
    shared, copied = weights.clone().requires_grad_(), weights.clone().requires_grad_()
    pairs = ranking_contests([1, 2, 3, 4], "pairs")
    contest_losses(features @ shared, Contests.of(pairs)).sum().backward()
    for pair in pairs:
        two = torch.stack([features[pair.winner], features[pair.losers[0]]])
        contest_losses(two @ copied, Contests.of([Contest(0, (1,), pair.weight)])).sum().backward()
    torch.testing.assert_close(shared.grad, copied.grad)
