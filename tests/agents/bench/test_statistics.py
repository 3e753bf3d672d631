"""The statistics against numbers worked out by hand, and the bootstrap against what an interval promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.bench.statistics import (
    Estimate,
    band,
    improvement,
    improvement_interval,
    interval,
    iqm,
    mean,
    normalised,
    on_grid,
    profile,
    profile_interval,
    score_at_kl,
)

SCORES = st.lists(st.integers(0, 4), min_size=1, max_size=6).map(lambda values: [np.array(values) / 4])


@pytest.mark.parametrize(
    "values, expected",
    [
        ([0, 1, 2, 9], 1.5),  # a quarter at each end is left out
        ([0, 1, 2, 3, 100], 2),  # of five, one at each end
        ([1, 2, 6], 3),  # of three, none
        ([7], 7),
    ],
)
def test_interquartile_mean(values, expected):
    assert iqm(np.array(values)) == expected


def test_constant_scores_have_an_interval_of_width_zero():
    scores = [np.full(5, 0.25), np.full(3, 0.25)]
    assert interval(scores, iqm) == interval(scores, mean) == Estimate(0.25, 0.25, 0.25)


def test_tasks_are_strata():
    """Seeds are drawn within a task: two constant tasks leave nothing to chance, though their scores differ."""
    assert interval([np.zeros(5), np.ones(5)], mean) == Estimate(0.5, 0.5, 0.5)


def test_two_seeds_are_resampled_as_binomial():
    """Of [0, 1], means 0, 1/2, 1 come with chances 1/4, 1/2, 1/4: the 2.5 % and 97.5 % quantiles are 0 and 1."""
    assert interval([np.array([0.0, 1.0])], mean) == Estimate(0.5, 0.0, 1.0)


def test_the_same_scores_give_the_same_interval():
    scores = [np.random.default_rng(0).random(20)]
    assert interval(scores) == interval(scores) != interval(scores, seed=1)


def test_no_scores_are_an_error():
    with pytest.raises(ValueError, match="one run of each"):
        interval([np.array([])])


def test_the_interval_of_a_mean_holds_the_truth_as_often_as_it_says():
    """95 % by percentiles of 20 normal values covers a little less: 92 to 94 %."""
    rng = np.random.default_rng(0)
    found = [interval([rng.normal(size=20)], mean, seed=i, n=400) for i in range(400)]
    assert 0.89 <= np.mean([e.low <= 0 <= e.high for e in found]) <= 0.97


def test_performance_profile():
    scores = [np.array([0.2, 0.8]), np.array([0.5, 0.5, 1.0, 1.0])]
    thresholds = np.array([0.0, 0.2, 0.5, 1.0])
    assert profile(scores, thresholds).tolist() == [1, 0.75, 0.5, 0]  # above, not at


def test_bounds_of_a_profile_hold_it():
    scores, thresholds = [np.linspace(0, 1, 9)], np.linspace(0, 1, 5)
    low, high = profile_interval(scores, thresholds)
    assert (low <= profile(scores, thresholds)).all() and (profile(scores, thresholds) <= high).all()


@pytest.mark.parametrize(
    "x, y, expected",
    [
        ([2, 3], [0, 1], 1),
        ([0, 1], [2, 3], 0),
        ([1, 2], [1, 2], 0.5),
        ([1], [0, 1, 2], 0.5),  # a win, a tie, a loss
        ([1, 3], [2], 0.5),
        ([1, 3], [0, 2], 0.75),
    ],
)
def test_probability_of_improvement(x, y, expected):
    assert improvement([np.array(x)], [np.array(y)]) == expected


def test_every_task_counts_the_same_in_a_probability_of_improvement():
    assert improvement([np.ones(9), np.zeros(1)], [np.zeros(9), np.ones(1)]) == 0.5


@given(SCORES, SCORES)
def test_what_one_wins_the_other_loses(x, y):
    assert improvement(x, y) == pytest.approx(1 - improvement(y, x))
    assert improvement(x, x) == pytest.approx(0.5)


@given(SCORES, SCORES)
def test_a_probability_of_improvement_lies_in_its_interval_within_0_and_1(x, y):
    found = improvement_interval(x, y, n=200)
    assert 0 <= found.low <= found.high <= 1
    assert found.value == improvement(x, y)


def test_clear_winners_have_an_interval_of_width_zero():
    assert improvement_interval([np.array([2, 3, 4])], [np.array([0, 1])]) == Estimate(1, 1, 1)


def test_normalised_scores():
    scores = np.array([0.25, 0.625, 1.0, 0.0])
    assert normalised(scores, start=0.25, optimum=1.0).tolist() == pytest.approx([0, 0.5, 1, -1 / 3])
    with pytest.raises(ValueError, match="nothing lies between"):
        normalised(np.array([1.0]), start=1.0, optimum=1.0)


def test_curves_meet_where_all_were_measured():
    x, y = [np.array([0.0, 4.0]), np.array([2.0, 6.0])], [np.array([0.0, 4.0]), np.array([0.0, 4.0])]
    grid, curves = on_grid(x, y, points=3)
    assert grid.tolist() == [2, 3, 4]
    assert curves.tolist() == [[2, 3, 4], [0, 1, 2]]
    middle, low, high = band(curves)
    assert middle.tolist() == [1, 2, 3]
    assert low.tolist() == [0, 1, 2] and high.tolist() == [2, 3, 4]


@pytest.mark.parametrize("target, expected", [(0, 0.1), (2, 0.3), (6, 0.55), (8, 0.6), (9, None)])
def test_score_at_a_kl_is_that_of_the_first_time(target, expected):
    kl, score = np.array([0.0, 4.0, 8.0, 3.0, 8.5]), np.array([0.1, 0.5, 0.6, 0.0, 0.9])
    if target == 9:
        assert score_at_kl(kl, score, target) is expected
    else:
        assert score_at_kl(kl, score, target) == pytest.approx(expected)
