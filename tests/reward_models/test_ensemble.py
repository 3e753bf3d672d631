"""Ensembles: how members are combined, and how much they disagree."""

import numpy as np
import pytest

from reward_models import Completion, RewardError, make, score
from reward_models.ensemble import Ensemble


def length(completions):
    return [len(c.response) for c in completions]


def twice_the_length(completions):
    return [2.0 * len(c.response) for c in completions]


COMPLETIONS = [Completion("p", "ab"), Completion("p", "abcd")]


@pytest.mark.parametrize(
    "combine, expected",
    [
        ("mean", [3.0, 6.0]),  # of 2 and 4, of 4 and 8
        ("min", [2.0, 4.0]),
        (
            "mean_minus_variance",
            [3.0 - 0.5 * 1.0, 6.0 - 0.5 * 4.0],
        ),  # variances ((2 - 3)^2 + (4 - 3)^2) / 2 = 1, and 4
    ],
)
def test_members_are_combined(combine, expected):
    ensemble = make("ensemble", models=[length, twice_the_length], combine=combine, variance_coef=0.5)
    assert score(ensemble, COMPLETIONS).tolist() == expected


def test_disagreement_is_about_differences_not_about_levels():
    def shifted(completions):
        return [100.0 + len(c.response) for c in completions]

    assert Ensemble([length, shifted]).disagreement("p", ["ab", "abcd"]).tolist() == [[0, 0], [0, 0]]
    # The difference of the pair is -2 by one member, -4 by the other: standard deviation 1.
    found = Ensemble([length, twice_the_length]).disagreement("p", ["ab", "abcd"])
    assert np.allclose(found, [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(models=[length]), "two or more"),
        (dict(models="length"), "two or more"),
        (dict(models=[length, length], combine="median"), "combine is 'median'"),
        (dict(models=[length, length], variance_coef=-1), "variance_coef is -1"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments, message):
    with pytest.raises(RewardError, match=message):
        Ensemble(**arguments)


def test_unit_of_score_is_the_mean_of_the_members():
    class Calibrated:
        std = 3.0

        def __call__(self, completions):
            return [0.0] * len(completions)

    assert Ensemble([Calibrated(), length]).std == 2.0
