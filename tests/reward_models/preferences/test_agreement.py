"""Coefficients equal published examples and another's code; intervals are as wide as they should be; a collection adds up."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_models.preferences import Comparison, Demonstration, Ranking
from reward_models.preferences.agreement import (
    agreement,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    length_bias,
    raw_agreement,
)
from reward_models.preferences.coefficients import (
    alpha_of_labels,
    bootstrap,
    counts_of,
    estimate,
    label_sums,
    share,
)

# Fleiss 1971's form, as Wikipedia gives it: 14 raters put 10 subjects into 5 categories; kappa 0.210.
FLEISS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip

# Krippendorff's example, as Wikipedia gives it: 3 coders, 15 units; alpha 0.691 for labels, 0.811 for numbers.
KRIPPENDORFF = [
    [None, None, None, None, None, 3, 4, 1, 2, 1, 1, 3, 3, None, 3],
    [1, None, 2, 1, 3, 3, 4, 3, None, None, None, None, None, None, None],
    [None, None, 2, 1, 3, 4, 4, None, 2, 1, 1, 3, 3, None, 4],
]
UNITS = [[label for label in unit if label is not None] for unit in zip(*KRIPPENDORFF)]


def test_cohens_kappa_by_hand():
    """Wikipedia: two readers say yes to 20 and no to 15 of 50 together; observed 0.7, expected 0.5, kappa 0.4."""
    a = ["yes"] * 25 + ["no"] * 25
    b = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(a, b) == pytest.approx(0.4)
    assert cohen_kappa([*a, None, "no"], [*b, "yes", None]) == pytest.approx(0.4)


def test_fleiss_kappa_as_published():
    assert fleiss_kappa(FLEISS) == pytest.approx(0.210, abs=0.0005)


def test_krippendorffs_alpha_as_published():
    assert krippendorff_alpha(UNITS) == pytest.approx(0.691358, abs=1e-6)
    assert krippendorff_alpha(UNITS, "interval") == pytest.approx(0.810845, abs=1e-6)


def test_raw_agreement_by_hand():
    """Three raters of one item, two alike: 1 pair of 3 agrees. Two of another, alike: 1 of 1."""
    assert raw_agreement([[2, 1], [0, 2]]) == pytest.approx(2 / 4)


@pytest.mark.parametrize(
    ("a", "b", "kappa"), [("xyxy", "xyxy", 1.0), ("xyxy", "yxyx", -1.0), ("xxyy", "xyxy", 0.0)]
)
def test_the_ends_of_the_scale(a, b, kappa):
    assert cohen_kappa(a, b) == pytest.approx(kappa)
    assert fleiss_kappa(counts_of(list(zip(a, b)))) == pytest.approx(kappa)


def test_what_nobody_can_know_is_nan():
    assert math.isnan(cohen_kappa("xxx", "xxx")), "one label only: agreement by chance is perfect, too"
    assert math.isnan(fleiss_kappa([[2, 0], [2, 0]]))
    assert math.isnan(krippendorff_alpha([["x", "x"], ["x", "x"]]))
    assert math.isnan(krippendorff_alpha([[0.1, 0.1], [0.1, 0.1, 0.1]], "interval"))
    assert math.isnan(krippendorff_alpha([["x"], ["y"]])), "nobody shares an item"
    assert math.isnan(krippendorff_alpha([])) and math.isnan(cohen_kappa([], []))
    assert math.isnan(raw_agreement([[1, 0]]))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="One rater labelled 1 items, the other 2"):
        cohen_kappa("x", "xy")
    with pytest.raises(ValueError, match="level is 'ordinal'"):
        krippendorff_alpha([], "ordinal")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=1, max_size=8))
def test_alpha_is_that_of_the_package_krippendorff(units):
    package = pytest.importorskip("krippendorff")
    shared = [unit for unit in units if len(unit) > 1]
    if len({label for unit in shared for label in unit}) < 2:
        assert math.isnan(krippendorff_alpha(units))
        return
    data = [[unit[rater] if rater < len(unit) else np.nan for unit in units] for rater in range(4)]
    for level in ("nominal", "interval"):
        theirs = package.alpha(data, level_of_measurement=level)
        assert krippendorff_alpha(units, level) == pytest.approx(theirs, abs=1e-9)


def test_a_bootstrap_interval_is_that_of_drawing_items_again():
    """The vectorised resamples give what computing alpha anew on each resample gives."""
    units = [["x", "x"], ["x", "y"], ["y", "y"], ["y", "y"], ["x", "x"], ["y", "x"]] * 5
    rng = np.random.default_rng(1)
    again = [krippendorff_alpha([units[i] for i in rng.integers(30, size=30)]) for _ in range(1000)]
    found = estimate(label_sums(counts_of(units)), alpha_of_labels)
    assert found.value == pytest.approx(krippendorff_alpha(units)) and found.n == 30
    assert (found.low, found.high) == pytest.approx(np.quantile(again, [0.025, 0.975]), abs=0.06)
    assert estimate(label_sums(counts_of(units)), alpha_of_labels) == found, "seeded"


def test_an_interval_of_means_has_the_width_of_the_normal_one():
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap(lambda weights: weights @ values / 400, 400)
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.1)
    assert all(map(math.isnan, bootstrap(lambda weights: weights.sum(axis=1), 0)))


def test_a_share_has_wilsons_interval():
    assert share(0, 10) == pytest.approx((0.0, 0.0, 0.2775, 10), abs=1e-4)
    assert share(8, 10) == pytest.approx((0.8, 0.4902, 0.9433, 10), abs=1e-4)
    assert share(0, 0).to_json() == {"value": None, "low": None, "high": None, "n": 0}


def test_length_bias_counts_pairs_with_a_winner_and_two_lengths():
    records = [
        Comparison("p", ("long", "s"), "left"),
        Comparison("p", ("long", "s"), "right"),
        Comparison("p", ("s", "long"), "right"),
        Comparison("p", ("even", "same"), "left"),
        Comparison("p", ("long", "s"), "tie"),
        Comparison("p", ("long", "s"), "skip"),
        Ranking("p", ("s", "long", "longer"), (1, 1, 2)),
        Demonstration("p", "a"),
    ]
    assert length_bias(records)[::3] == (2 / 5, 5)


def test_agreement_of_three_raters_by_hand():
    """Two items by a, b and c; one by a alone, which does not count. Kappas of pairs: ab 1, ac 0, bc 0."""
    said = {
        (1, None): {1: "left", 2: "left", 3: "left"},
        (2, None): {1: "right", 2: "right", 3: "left"},
        (3, None): {1: "right"},
    }
    found = agreement(said)
    assert found["items_shared"] == 2
    assert found["raw_agreement"]["value"] == pytest.approx(4 / 6)
    assert found["cohen_kappa"]["value"] == pytest.approx((1 + 0 + 0) / 3)
    assert found["fleiss_kappa"]["value"] == pytest.approx(fleiss_kappa([[3, 0], [1, 2]]))
    assert found["krippendorff_alpha"]["value"] == pytest.approx(krippendorff_alpha(["lll", "rrl"]))
    json.dumps(found, allow_nan=False)


def test_sides_are_arbitrary():
    """Two raters agree on three items of four. Wherever the better answers stand, chance gives 1/2 and kappa is 1/2."""
    opposite = {"left": "right", "right": "left"}
    ann, bob = ["left", "left", "left", "left"], ["left", "left", "left", "right"]
    turned = [0, 1, 0, 1]
    for turn in ([0] * 4, turned):
        said = {
            (i, None): {1: opposite[a] if turn[i] else a, 2: opposite[b] if turn[i] else b}
            for i, (a, b) in enumerate(zip(ann, bob))
        }
        found = agreement(said, opposite)
        assert found["raw_agreement"]["value"] == 3 / 4
        assert found["cohen_kappa"]["value"] == found["fleiss_kappa"]["value"] == pytest.approx(1 / 2)
        # observed disagreement 2/8 over an expected one of 2 x 4 x 4 / (8 x 7)
        assert found["krippendorff_alpha"]["value"] == pytest.approx(1 - (2 / 8) / (4 / 7))
    assert cohen_kappa(ann, bob) == 0.0, "taken as labels, all on one side, they say nothing"


def test_the_pairs_of_one_ranking_are_drawn_together():
    """Ten rankings of which the raters agree wholly on half: the interval is that of ten items, not of thirty."""
    said = {(i, pair): {1: "x", 2: "x" if i % 2 else "y"} for i in range(10) for pair in range(3)}
    together = agreement(said)["raw_agreement"]
    alone = agreement({(i, None): labels for i, labels in enumerate(said.values())})["raw_agreement"]
    assert together["value"] == alone["value"] == 0.5 and (together["n"], alone["n"]) == (10, 30)
    assert together["high"] - together["low"] > 1.5 * (alone["high"] - alone["low"])


# --- of a store ------------------------------------------------------------------------------------------------


def test_a_collection_is_summed_up(tmp_path):
    pytest.importorskip("sqlalchemy")
    from reward_models.preferences.agreement import summary
    from reward_models.preferences.store import FeedbackStore, Sample

    with FeedbackStore(tmp_path / "feedback.db") as store:
        assert json.dumps(summary(store), allow_nan=False), "nothing yet is a summary, too"
        store.add_samples(Sample(f"p{i}", text) for i in range(4) for text in ("good", "bad"))
        items = store.request_comparisons(overlap=2)
        store.add_gold(items[0], {"choice": "left"})
        gold = store.items()[0].responses[0]
        for name, right in (("ann", [True] * 4), ("bob", [True, True, True, False])):
            rater = store.rater(name)
            for n, good in enumerate(right):
                assignment = store.assign(rater.id)
                place = assignment.responses.index("good" if good else "bad")
                choice = {"choice": ("left", "right")[place]}
                store.vote(assignment.id, choice, key=f"{name}{n}", seconds=n + 1.0)
        shown_left = sum(vote.answer["choice"] == "left" for vote in store.votes())
        found = summary(store)

    assert (found["votes"], found["votes_needed"], found["items_done"]) == (8, 8, 4)
    assert found["comparisons"]["votes"] == 8 and found["comparisons"]["skips"] == 0
    assert found["comparisons"]["raw_agreement"]["value"] == 3 / 4
    assert found["comparisons"]["cohen_kappa"]["value"] == pytest.approx((3 / 4 - 1 / 2) / (1 - 1 / 2))
    assert found["position_bias"]["value"] == shown_left / 8
    assert found["length_bias"]["value"] == 7 / 8
    assert found["seconds"] == {"p10": 1.0, "median": 2.5, "p90": 4.0, "n": 8}
    ann, bob = found["raters"]
    assert (ann["name"], ann["votes"], ann["seconds_median"]) == ("ann", 4, 2.5)
    assert ann["gold_accuracy"] == (1.0 if gold == "good" else 0.0)
    assert ann["agreement"]["value"] == bob["agreement"]["value"] == 3 / 4
    json.dumps(found, allow_nan=False)


def longer(completions):
    return [len(completion.response) for completion in completions]


def test_every_kind_is_summed_up(tmp_path):
    pytest.importorskip("sqlalchemy")
    from reward_models.preferences.agreement import summary
    from reward_models.preferences.raters import SimulatedRater
    from reward_models.preferences.store import FeedbackStore, Sample

    with FeedbackStore(tmp_path / "feedback.db") as store:
        store.add_samples(Sample(f"p{i}", "abcde"[: j + 1]) for i in range(3) for j in range(3))
        store.request_comparisons(overlap=2)
        store.request_rankings(k=3, overlap=2)
        store.request_ratings(overlap=2)
        store.request_demonstrations()
        for name in "ab":
            SimulatedRater(longer, 0.0, name=name, writer=lambda prompt, columns: "w").rate(store)
        found = summary(store)
    for kind in ("comparisons", "rankings"):
        assert found[kind]["raw_agreement"]["value"] == 1.0 and found[kind]["items_shared"] == 3
    assert found["ratings"]["krippendorff_alpha"]["value"] == 1.0
    assert found["demonstrations"] == {"votes": 3, "skips": 0}
    assert found["length_bias"]["value"] == 1.0 and found["length_bias"]["n"] == 2 * (3 + 9)
    assert found["seconds"] == {"p10": None, "median": None, "p90": None, "n": 0}
