"""Accuracy, intervals, agreement, log-loss and calibration, on votes that can be counted by hand."""

from math import exp, log

import numpy as np
import pytest

from reward_models import Completion
from reward_models.baselines import BagOfWords, LongerWins, terms
from reward_models.evaluation import (
    Bin,
    Share,
    evaluate,
    rater_agreement,
    reliability_bins,
    spearman,
    wilson,
)
from reward_models.preferences import Comparison, Ranking, Rating
from reward_models.preferences.records import RecordError

SCORES = {"good": 2.0, "fine": 1.0, "bad": -1.0, "a longer bad one": -2.0}


def judge(completions):
    return [SCORES[completion.response] for completion in completions]


VOTES = [
    Comparison("p", ("good", "bad"), "left", "ann"),  # right, d = 3
    Comparison("p", ("good", "bad"), "left", "bob"),  # right
    Comparison("p", ("good", "bad"), "right", "cat"),  # wrong
    Comparison("q", ("a longer bad one", "fine"), "right", "ann"),  # right, d = 3
    Comparison("q", ("fine", "good"), "left", "ann", reason="shorter is better"),  # wrong, d = -1
    Comparison("q", ("fine", "bad"), "tie"),
    Comparison("q", ("fine", "bad"), "both_bad"),
    Comparison("q", ("fine", "bad"), "skip"),
]


def test_what_is_counted():
    found = evaluate(judge, VOTES)
    assert (found.votes, found.ties, found.unjudged, found.prompts) == (5, 2, 1, 2)
    assert found.accuracy.value == pytest.approx(3 / 5) and found.accuracy.n == 5
    assert found.accuracy.low < 0.6 < found.accuracy.high
    # good (4) is longer than bad (3): two of three; the 16 characters lost; good and fine are as long: half.
    assert found.longer_wins.value == pytest.approx(2.5 / 5)
    assert found.bag_of_words is None and found.shared_prompts == 0


def test_raters_agree_on_a_third_of_the_pairs_of_votes_and_the_ceiling_follows():
    found = evaluate(judge, VOTES)
    assert found.rater_agreement.value == pytest.approx(1 / 3)  # ann = bob, and neither is cat
    assert found.rater_agreement.n == 1
    assert found.ceiling == 0.5
    agreeing = rater_agreement(
        [Comparison("p", ("a", "b"), choice, rater) for choice, rater in (("left", "x"), ("left", "y"))]
        + [Comparison("q", ("b", "a"), choice, rater) for choice, rater in (("left", "x"), ("right", "y"))]
    )
    assert (agreeing.value, agreeing.n) == (0.5, 2)
    assert rater_agreement(VOTES[3:]) is None


def test_log_loss_is_that_of_bradley_terry():
    expected = np.mean([log(1 + exp(-d)) for d in (3, 3, -3, 3, -1)])
    assert evaluate(judge, VOTES).log_loss == pytest.approx(expected)


def test_reliability_and_ece():
    logits = np.array([3.0, 3.0, -3.0, 3.0, -1.0])
    sure, fair = 1 / (1 + exp(-3)), 1 / (1 + exp(-1))
    assert reliability_bins(logits) == [Bin(pytest.approx(fair), 0.0, 1), Bin(pytest.approx(sure), 0.75, 4)]
    assert evaluate(judge, VOTES).ece == pytest.approx((fair + 4 * (sure - 0.75)) / 5)


def test_worst_disagreement_comes_first_with_its_reason():
    first, second = evaluate(judge, VOTES).disagreements
    assert (first.chosen, first.rejected, first.chosen_score, first.rater) == ("bad", "good", -1.0, "cat")
    assert (second.prompt, second.reason) == ("q", "shorter is better")


def test_length_counts_where_raters_prefer_the_longer_and_the_shorter():
    found = evaluate(judge, VOTES)
    assert (found.accuracy_longer_preferred.value, found.accuracy_longer_preferred.n) == (1.0, 2)
    assert (found.accuracy_shorter_preferred.value, found.accuracy_shorter_preferred.n) == (0.5, 2)
    assert spearman(np.array([1, 2, 3, 4]), np.array([10, 20, 20, 40])) == pytest.approx(0.9487, abs=1e-4)
    assert np.isnan(spearman(np.array([1, 2]), np.array([3, 3])))


def test_a_ranking_counts_as_its_pairs():
    found = evaluate(
        judge, [Ranking("p", ("bad", "good", "fine"), (3, 1, 2)), Ranking("p", ("good", "bad"), (2, 2))]
    )
    assert (found.votes, found.ties, found.accuracy.value) == (3, 1, 1.0)


def test_json_has_no_nan():
    found = evaluate(lambda completions: [0.0] * len(completions), VOTES[:1]).to_json()
    assert found["length_correlation"] is None and found["accuracy"]["value"] == 0.5


def test_interval_is_wilsons_for_independent_votes_and_wider_for_votes_on_one_prompt():
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    hits = np.array([1, 1, 1, 1, 0, 0, 0, 0] * 5)
    alone = Share.of(hits, range(40))
    assert (alone.low, alone.high) == pytest.approx(wilson(0.5, 39.0), abs=1e-9)
    together = Share.of(hits, [i // 4 for i in range(40)])  # each prompt all right or all wrong: 10 votes
    assert (together.low, together.high) == pytest.approx(wilson(0.5, 9.0), abs=1e-9)


def test_interval_of_nothing_but_hits_is_that_of_the_prompts():
    share = Share.of(np.ones(20), [i // 2 for i in range(20)])
    assert (share.value, share.low, share.high) == pytest.approx((1.0, 0.7225, 1.0), abs=1e-4)


def test_nothing_to_measure_is_named():
    with pytest.raises(RecordError, match="None of the 1 comparisons has a winner"):
        evaluate(judge, VOTES[5:6])
    with pytest.raises(RecordError, match="A Rating prefers nothing"):
        evaluate(judge, [Rating("p", "good", 1.0)])


def words(rng, n):
    return " ".join(rng.choice(["red", "green", "blue", "grey"], n))


def test_bag_of_words_learns_a_word_and_a_pair_of_words():
    assert terms("No, no!") == ["no", ",", "no", "!", "no ,", ", no", "no !"]
    rng = np.random.default_rng(0)

    def value(text):
        return text.split().count("red") + 2 * text.count("green blue")

    pairs = [(words(rng, 5), words(rng, 5)) for _ in range(400)]
    records = [
        Comparison(str(i), pair, "left" if value(pair[0]) > value(pair[1]) else "right")
        for i, pair in enumerate(pairs)
        if value(pair[0]) != value(pair[1])
    ]
    found = evaluate(LongerWins(), records[200:], records[:200])
    assert found.bag_of_words.value > 0.9  # of 86 votes or so; chance is 0.5 ± 0.05
    weights = BagOfWords.fit(records[:200]).weights
    assert weights["red"] > 2 * abs(weights["grey"]) and weights["green blue"] > weights["red"] / 2


def test_bag_of_words_ignores_what_it_never_saw_and_needs_winners():
    bag = BagOfWords({"red": 2.0})
    assert bag([Completion("", "unseen"), Completion("", "Red red")]).tolist() == pytest.approx(
        [0.0, 2 * log(3)]
    )
    with pytest.raises(RecordError, match="needs comparisons with a winner"):
        BagOfWords.fit([Comparison("p", ("a", "b"), "tie")])


def test_shared_prompts_are_counted():
    assert evaluate(judge, VOTES, [Comparison("p", ("x y", "z"), "left")]).shared_prompts == 1
