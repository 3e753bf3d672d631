"""What the reproductions of papers decide by: fits of known curves, criteria on numbers made by hand, one run end to end."""

import json
import math
import tarfile
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.bench.statistics import Estimate
from benchmarks.science import (
    closed_form,
    credit,
    gae_lambda,
    kl_controller,
    over_optimisation,
    parity,
    warm_start,
)
from benchmarks.science.__main__ import main
from benchmarks.science.claims import HELD, REFUTED, UNDECIDED, above, all_hold, by_seed, compared, last
from benchmarks.science.fits import Fit, fit
from benchmarks.science.proxies import comparisons
from benchmarks.science.report import summary
from benchmarks.science.running import (
    EXPERIMENTS,
    OutOfTime,
    failures,
    is_done,
    module_of,
    perform,
    plan,
    until,
)
from reward_models import Completion


def runs_of(results):
    """Runs as they are read, of {condition: {seed: result}}."""
    return [
        {"settings": {"condition": condition, "seed": seed}, "result": result}
        for condition, found in results.items()
        for seed, result in found.items()
    ]


def verdicts(module, results):
    return [claim.verdict for claim in module.claims(runs_of(results))]


# --- fits ----------------------------------------------------------------------------------------------------------


@given(st.floats(0.1, 5), st.floats(0.05, 2))
def test_fits_find_the_coefficients_that_made_the_curve(alpha, beta):
    d = np.linspace(0.5, 4, 12)
    best = fit("best_of_n", d, d * (alpha - beta * d))
    assert (best.alpha, best.beta, best.r2) == pytest.approx((alpha, beta, 1))
    rl = fit("rl", d, d * (alpha - beta * np.log(d)))
    assert (rl.alpha, rl.beta, rl.r2) == pytest.approx((alpha, beta, 1))


@pytest.mark.parametrize("form", ["best_of_n", "rl"])
def test_no_distance_earns_more_than_the_peak(form):
    curve = Fit(form, alpha=2.0, beta=0.5, r2=1.0)
    assert curve.peak == pytest.approx({"best_of_n": 2.0, "rl": math.exp(3)}[form])
    assert curve(np.array([curve.peak]))[0] > curve(np.array([0.9, 1.1]) * curve.peak).max()


def test_a_curve_without_penalty_never_turns():
    assert Fit("rl", alpha=1.0, beta=0.0, r2=1.0).peak == math.inf


def test_a_fit_needs_three_points_away_from_the_start():
    with pytest.raises(ValueError, match="2 points with d > 0"):
        fit("rl", [0.0, 1.0, 2.0], [0.0, 1.0, 1.0])


# --- criteria --------------------------------------------------------------------------------------------------------


def test_a_claim_holds_where_its_whole_interval_does():
    assert above(Estimate(1.0, 0.1, 2.0)) == HELD
    assert above(Estimate(1.0, -0.1, 2.0)) == UNDECIDED
    assert above(Estimate(-1.0, -2.0, -0.1)) == REFUTED
    assert above(Estimate(1.0, 0.1, 2.0), threshold=0.5) == UNDECIDED


def test_all_must_hold_and_none_says_nothing():
    assert [all_hold(values) for values in ([True, True], [True, False], [])] == [HELD, REFUTED, UNDECIDED]


def test_seeds_are_compared_with_themselves():
    ours, theirs = {0: 1.1, 1: 5.2, 2: 9.0}, {0: 1.0, 1: 5.0}
    claim = compared(
        "ours is better", "score", ours, theirs
    )  # differences 0.1 and 0.2; seed 2 has no partner
    assert (claim.verdict, claim.found) == (HELD, "difference +0.150 (+0.100 to +0.200), 2 seeds")
    assert compared("theirs is better", "score", theirs, ours).verdict == REFUTED
    assert compared("one seed", "score", {0: 1.0}, {0: 0.0}).verdict == UNDECIDED


def test_the_last_quarter_of_a_curve():
    assert last([0, 0, 0, 0, 0, 0, 1, 3]) == 2
    assert last([7.0]) == 7


def test_the_closed_form_of_a_bandit():
    # Equal arms, rewards 0 and beta * log 3: the second becomes three times as likely.
    assert closed_form.optimum(
        np.array([0.5, 0.5]), np.array([0.0, 0.2 * math.log(3)]), 0.2
    ) == pytest.approx([0.25, 0.75])
    assert closed_form.total_variation(np.array([0.5, 0.5]), np.array([0.25, 0.75])) == 0.25


def test_the_optimum_holds_where_every_seed_is_near():
    near, far = ({"distance": d, "distance_at_the_start": 0.4} for d in (0.009, 0.011))
    results = {"beta 0.2": {0: near, 1: near}, "beta 0.4": {0: near, 1: far}}
    assert verdicts(closed_form, results) == [HELD, REFUTED, UNDECIDED]


def test_the_controller_overshoots_and_settles():
    def curve(*kl):
        return {0: {"curve": {"kl": list(kl)}}}

    over_and_back = [0.5] * 5 + [6.0] * 7 + [4.2] * 4  # nats; the target is 4
    results = {
        "adaptive, from below": curve(*over_and_back),
        "adaptive, from above": curve(*[0.5] * 12, *[3.5] * 4),
        "fixed": curve(*[9.0] * 16),
    }
    assert verdicts(kl_controller, results) == [HELD, REFUTED, HELD, HELD]


def test_lambda_is_compared_with_1_and_the_clip_with_5_percent():
    def seeds(score, clipped):
        return {seed: {"curve": {"score": [score], "clipped": [clipped]}} for seed in range(3)}

    results = {
        "lambda 0": seeds(0.3, 0.01), "lambda 0.5": seeds(0.9, 0.01), "lambda 0.95": seeds(0.5, 0.06),
        "lambda 1": seeds(0.6, 0.01),
    }  # fmt: skip
    assert verdicts(gae_lambda, results) == [HELD, REFUTED, HELD, HELD, HELD, REFUTED, HELD]


def test_credit_is_compared_at_each_length_and_in_its_growth():
    def seeds(score):
        return {seed: {"curve": {"score": [score]}} for seed in range(3)}

    results = {f"per response, {length} tokens": seeds(0.4) for length in (8, 32, 128)}
    results |= {f"per token, {n} tokens": seeds(s) for n, s in ((8, 0.5), (32, 0.3), (128, 0.9))}
    assert verdicts(credit, results) == [HELD, REFUTED, HELD, HELD]


def test_warm_starts_are_compared_with_none():
    def seeds(gain, std):
        return {
            seed: {"curve": {"score": [0.1, 0.1 + gain], "std": [std], "gradient": [10 * std]}}
            for seed in range(3)
        }

    results = {
        "no fine-tuning": seeds(0, 0),
        "60 steps": seeds(0.1, 0.1),
        "fully fine-tuned": seeds(0.3, 0.2),
    }
    assert verdicts(warm_start, results) == [HELD, HELD, HELD, HELD]


def gold_curves(*golds):
    return {
        seed: {"d": np.arange(len(gold)), "gold": np.array(gold, float), "score": np.arange(len(gold)) / 10}
        for seed, gold in enumerate(golds)
    }


def test_two_ways_are_alike_within_two_deviations_of_the_exact_ones_seeds():
    def found(arms):
        return verdicts(
            parity,
            {
                f"Reverse, {arm}": {seed: {"curve": {"score": [s, s]}} for seed, s in enumerate(s)}
                for arm, s in arms.items()
            },
        )[: len(arms) - 1]

    exact = {parity.EXACT: (0.50, 0.52, 0.54)}  # a standard deviation of 0.02
    assert found(exact | {"float32": (0.53, 0.55, 0.57)}) == [HELD]
    assert found(exact | {"float32": (0.55, 0.57, 0.59)}) == [REFUTED]
    assert found(exact | {"float32": (0.50, 0.55, 0.60)}) == [UNDECIDED]  # differences of 0 to 0.06


def test_the_exact_way_computes_what_the_fast_way_computes(tmp_path):
    settings = {"task": "Reverse", "seed": 0, **parity.TASKS["Reverse"], "n_episodes": 32, "batch_size": 16}
    settings |= {"tokens": 250}
    exact, fast = (
        parity.perform(settings | {"arm": arm}, tmp_path)["curve"] for arm in (parity.EXACT, "float32")
    )
    assert len(exact["score"]) == 3
    for name in ("score", "kl", "gradient"):
        assert exact[name] == pytest.approx(fast[name], abs=2e-4), name


def test_the_fall_of_gold_is_measured_from_where_other_seeds_peak():
    falls, rises = over_optimisation.drops(
        gold_curves([0, 0, 0, 3, 3, 3, 0, 0, 0], [0, 0, 0, 2, 2, 2, 1, 1, 1])
    )
    assert falls == pytest.approx({0: 3, 1: 1})
    assert rises == pytest.approx({0: 0.3, 1: 0.3})  # from the window around place 4 to that around place 7


def test_noise_alone_is_no_turnover():
    rng = np.random.default_rng(0)
    falls = [
        np.mean(list(over_optimisation.drops(gold_curves(*rng.normal(size=(5, 16))))[0].values()))
        for _ in range(200)
    ]
    assert abs(np.mean(falls)) < 0.05  # a seed's own maximum would stand about 1 above its end


def test_gold_gains_are_in_deviations_of_the_start():
    results = {
        "replies": {0: {"gold": 0.5, "std": 0.2}},
        "ppo, x": {
            0: {"curve": {"tokens": [1, 2], "kl": [0.0, 4.0], "gold": [0.5, 0.7], "score": [0.1, 1.1]}}
        },
    }
    (curve,) = over_optimisation.curves(runs_of(results), "ppo, x").values()
    assert curve["d"].tolist() == [0, 2]
    assert curve["gold"] == pytest.approx([0, 1])
    assert curve["score"] == pytest.approx([0, 1])


def test_flips_turn_so_many_votes_round():
    good, bad = (
        "I am sorry that your kettle arrived broken. We will replace it.",
        "No.",
    )
    columns = {"product": "kettle", "problem": "broken", "mood": "calm"}
    pairs = [Completion(f"{i}", text, columns=columns) for i in range(400) for text in (good, bad)]
    share = np.mean([vote.choice == "left" for vote in comparisons(pairs, 0.25, seed=0)])
    assert all(vote.choice == "left" for vote in comparisons(pairs[:40], 0.0, seed=0))
    assert share == pytest.approx(0.75, abs=0.07)  # three standard errors of 400


def test_a_summary_names_what_did_not_hold():
    near, far = ({"distance": d, "distance_at_the_start": 0.4} for d in (0.009, 0.011))
    claims = closed_form.claims(runs_of({"beta 0.2": {0: near}, "beta 0.4": {0: far}}))
    assert summary(claims).startswith("It held in part: of 3 claims 1 held, 1 did not, 1 are undecided.")
    assert "What did not hold: With beta = 0.4" in summary(claims)


# --- the way ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_report_bears_that_runs_are_missing(experiment):
    module = module_of(experiment)
    assert all(claim.verdict == UNDECIDED for claim in module.claims([]))
    assert module.figure([]) is not None


def test_stages_come_one_after_another_and_seeds_are_finished_one_by_one():
    planned = plan(["closed_form", "over_optimisation"], seeds=2, quick=True)
    places = [(s["experiment"] != "closed_form", s.get("stage", 0), s["seed"]) for s in planned]
    assert places == sorted(places)
    names = [(s["experiment"], s["condition"], s["seed"]) for s in planned]
    assert len(set(names)) == len(names)


def test_a_run_is_given_up_at_the_deadline():
    with pytest.raises(OutOfTime), until(time.time() + 0.05):
        time.sleep(5)
    with pytest.raises(OutOfTime), until(time.time() - 1):
        pass


def test_a_run_that_fails_says_why_and_lets_the_others_run(tmp_path, monkeypatch):
    def fail(settings, cache):
        raise RuntimeError("no bandit")

    monkeypatch.setattr(closed_form, "perform", fail)
    (settings, *_) = plan(["closed_form"], seeds=1, quick=True)
    assert perform(settings, tmp_path, math.inf) is None
    (found,) = failures(tmp_path)
    assert "no bandit" in found.read_text()
    assert not is_done(settings, tmp_path)


def test_the_whole_way(tmp_path, capsys):
    out, packed = tmp_path / "results", tmp_path / "results.tgz"
    command = ["closed_form", "--quick", "--seeds", "1", "--out", str(out)]
    main([*command, "--archive", str(packed)])
    runs = json.loads((out / "closed_form.json").read_text())
    assert len(runs) == 3
    assert set(by_seed(runs, "beta 0.4")) == {0}
    report = (out / "results.md").read_text()
    assert "| **did not hold** |" in report  # three rollouts are too few
    assert "<svg" in (out / "closed_form.svg").read_text()
    with tarfile.open(packed) as tar:
        assert {"science/results.md", "science/runs/closed_form/beta_0.4-0.json"} <= set(tar.getnames())
    main(command)
    assert "3 runs are there, 0 to do." in capsys.readouterr().out
    assert (out / "results.md").read_text() == report
