"""What the report of a run makes of what the stages left."""

import numpy as np
import pytest

from agents.learning_stages import thinned
from agents.loop_files import Policy
from agents.loop_report import subtitle_of
from agents.loop_report_policies import facts_of, judge_of, label_side
from agents.loop_report_stages import measures, pooled
from agents.settings import FeedbackSettings, LoopSettings


def test_a_long_curve_is_kept_as_means():
    assert thinned([4.0, 2.0, 1.0, 3.0], most=2) == [3.0, 2.0]
    assert thinned([4.0, 2.0]) == [4.0, 2.0]
    assert thinned([]) == []


def bin_of(confidence, accuracy, n):
    return {"confidence": confidence, "accuracy": accuracy, "n": n}


def test_bins_of_few_votes_are_pooled():
    bins = [bin_of(0.55, 0.5, 10), bin_of(0.65, 1.0, 10), bin_of(0.95, 0.9, 20)]
    assert pooled(bins, most=2) == [(pytest.approx(0.6), 0.75, 20), (pytest.approx(0.95), 0.9, 20)]


def test_a_rest_of_few_votes_joins_its_neighbour():
    assert pooled([bin_of(0.5, 1.0, 31), bin_of(1.0, 0.0, 9)], most=2) == [(0.6125, 0.775, 40)]


def test_a_label_stands_away_from_the_next_point():
    kl = np.array([0.0, 3.1, 2.9])  # fine-tuned, round 1, round 2
    assert [label_side(kl, place) for place in range(3)] == [-1, 1, -1]


def policy(name, **scores):
    kl = {"mean": 1.0, "low": 0.9, "high": 1.1}
    result = {"scores": scores, "win_rate": {}, "kl": kl}
    return Policy(name, name, result, [])


def test_without_a_gold_judge_the_last_reward_model_compares_all_policies():
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6}
    sft = policy("SFT", last_reward=interval)
    after = policy("Round 1", reward=interval, last_reward={"mean": 0.9, "low": 0.8, "high": 1.0})
    assert judge_of([sft, after]) == "last_reward"
    facts = facts_of([sft, after], {})
    assert facts["Reward score, SFT"] == ("0.50", "0.40 to 0.60")
    assert facts["Reward score, round 1"] == ("0.90", "0.80 to 1.00")


def test_raters_are_described_in_words():
    def share(value, low=None, high=None):
        return {"value": value, "low": low, "high": high, "n": 9}

    unknown = share(None)
    coefficients = dict.fromkeys(("cohen_kappa", "fleiss_kappa", "krippendorff_alpha"), unknown)
    kind = {
        "votes": 9,
        "skips": 0,
        "items_shared": 4,
        "raw_agreement": share(0.75, 0.3, 0.9),
        "choices": {"tie": 2},
    }
    found = {
        "position_bias": share(0.5, 0.2, 0.8),
        "length_bias": unknown,
        "seconds": {"p10": None, "median": None, "p90": None, "n": 0},
    }
    assert [row[:2] for row in measures(found, [kind | coefficients])] == [
        ("Two raters agree", "75% (30% to 90%)"),
        ("Ties", "2"),
        ("The answer on the left won", "50% (20% to 80%)"),
    ]


def test_the_subtitle_says_what_was_learned_from():
    simulated = LoopSettings(env="text_envs/SupportReply-v0", rounds=2)
    assert subtitle_of(simulated.to_json()) == "text_envs/SupportReply-v0, 2 rounds, simulated raters, seed 0"
    given = LoopSettings(prompts="p.txt", preferences="people.jsonl", feedback=FeedbackSettings(votes=0))
    assert subtitle_of(given.to_json()) == "p.txt, 2 rounds, given preferences, seed 0"
