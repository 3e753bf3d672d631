"""Records say what they are, and refuse what they cannot be."""

import math

import pytest

from reward_models.preferences import Comparison, Origin, Ranking, Rating
from reward_models.preferences.records import RecordError


@pytest.mark.parametrize(
    ("choice", "preference", "chosen", "rejected"),
    [
        ("left", 1.0, "a", "b"),
        ("right", 0.0, "b", "a"),
        ("tie", 0.5, None, None),
        ("both_bad", 0.5, None, None),
        ("skip", None, None, None),
    ],
)
def test_a_choice_decides_what_is_preferred(choice, preference, chosen, rejected):
    comparison = Comparison("p", ("a", "b"), choice)
    assert (comparison.preference, comparison.chosen, comparison.rejected) == (preference, chosen, rejected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Comparison("p", ("a", "b"), "first"), "Choose one of left, right"),
        (lambda: Comparison("p", ("a",), "left"), "1 responses"),
        (lambda: Comparison("p", ("a", "b"), "left", weight=-1.0), "weight is -1.0"),
        (lambda: Comparison("p", ("a", "b"), "left", weight=math.nan), "weight is nan"),
        (lambda: Comparison("p", ("a", "b"), "left", margin=math.inf), "margin is inf"),
        (lambda: Ranking("p", ("a",), (1,)), "at least two responses"),
        (lambda: Ranking("p", ("a", "b"), (1,)), "one rank for each"),
        (lambda: Ranking("p", ("a", "b"), (0, 1)), "rank is 0"),
        (lambda: Ranking("p", ("a", "b"), (True, 2)), "rank is True"),
        (lambda: Ranking("p", ("a", "b"), (1, 2), origins=(Origin(),)), "has 1 origins"),
        (lambda: Rating("p", "a", math.nan), "score is nan"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(RecordError, match=message):
        make()


def test_an_origin_survives_json():
    origin = Origin("ab12", {"temperature": 0.7}, 3)
    assert Origin.from_json(origin.to_json()) == origin
    assert Origin.from_json(None) == Origin()


def test_a_ranking_without_origins_has_unknown_ones():
    assert Ranking("p", ("a", "b"), (1, 2)).origins == (Origin(), Origin())


def test_rankings_that_differ_in_anything_are_different_groups():
    ranking = Ranking("p", ("a", "b"), (1, 2))
    others = [
        Ranking("q", ("a", "b"), (1, 2)),
        Ranking("p", ("b", "a"), (1, 2)),
        Ranking("p", ("a", "b"), (1, 1)),
        Ranking("p", ("a", "b"), (1, 2), rater="ann"),
        Ranking("p", ("a", "b"), (1, 2), origins=(Origin("x"), Origin("y"))),
        Ranking("p", ("a", "b"), (1, 2), columns={"topic": "z"}),
    ]
    assert len({ranking.group, *(other.group for other in others)}) == 7
    assert ranking.group == Ranking("p", ("a", "b"), (1, 2)).group
