"""The benchmark's own arithmetic, on samples one can check by eye, and each of its contenders on a tiny setting."""

import io
import json
from collections import namedtuple
from dataclasses import replace

import pytest
import torch

from benchmarks.throughput.contender import Rounds, busy_seconds
from benchmarks.throughput.measure import Measured
from benchmarks.throughput.report import bar_rows, contender_rows
from benchmarks.throughput.setting import EOS, Setting, make_model, make_prompts, make_tokenizer
from benchmarks.throughput.tables import TABLES, Bar

TINY = Setting(
    layers=1, hidden=16, heads=2, vocabulary=64, prompt=3, response=4, episodes=4, epochs=2, minibatch=2, slots=2,
    ragged_episodes=5, mean_length=3, limit=8, num_envs=3,
)  # fmt: skip
MACHINE = {"bf16_in_hardware": False}


def sample(seconds, others=0.0, peak=100.0):
    return {"per_unit": seconds, "wall": 1.0, "cpu": 1.0, "others": others, "peak_mb": peak, "facts": {}}


def test_ratio_is_the_median_of_the_ratios_of_undisturbed_rounds():
    rounds = [
        {"vector": sample(1.0), "dummy": sample(10.0)},
        {"vector": sample(1.0), "dummy": sample(30.0)},
        {"vector": sample(2.0), "dummy": sample(40.0)},
        {"vector": sample(1.0), "dummy": sample(900.0, others=1.5)},  # a neighbour was busy
    ]
    ratio = Measured("env", rounds, {}).ratio(Bar("vector", "dummy", 15.0))
    assert (ratio.value, ratio.lowest, ratio.highest, ratio.n_rounds) == (20.0, 10.0, 30.0, 3)
    assert ratio.passes


def test_when_every_round_was_disturbed_the_verdict_says_so():
    measured = Measured("env", [{"vector": sample(1.0, others=1.0), "dummy": sample(50.0)}], {})
    ((_, ratio, bar, verdict),) = bar_rows(measured, MACHINE)[2]
    assert (ratio, bar, verdict) == ("50.00 (50.00 to 50.00)", "at least 40.0", "pass, every round disturbed")


def test_memory_is_a_ratio_of_peaks_and_lower_is_better():
    rounds = [
        {"ours-fp32": sample(1, peak=600), "rloo-fp32": sample(1, peak=900)},
        {"ours-fp32": sample(1, peak=700), "rloo-fp32": sample(1, peak=1000)},
    ]
    measured = Measured("iteration", rounds, {})
    assert measured.ratio(Bar("ours-fp32", "rloo-fp32", 0.75, "memory")).value == 0.7
    assert measured.ratio(Bar("ours-fp32", "rloo-fp32", 0.75, "memory")).passes
    assert not measured.ratio(Bar("ours-fp32", "rloo-fp32", 0.65, "memory")).passes


def test_a_skipped_contender_is_listed_with_its_reason_and_has_no_ratio():
    measured = Measured("env", [{"vector": sample(1.0)}], {"dummy": "not installed"})
    assert contender_rows(measured)[2][1][-1] == "not installed"
    assert bar_rows(measured, MACHINE)[2] == []


def test_prompts_are_as_long_as_the_setting_says():
    encoded = make_tokenizer(TINY)(make_prompts(TINY, 20))["input_ids"]
    assert {len(ids) for ids in encoded} == {3}


def test_every_step_of_the_ragged_model_ends_an_episode_with_the_same_probability():
    setting = Setting(layers=1)
    ids = torch.randint(2, setting.vocabulary, (8, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ends = make_model(setting, ends_early=True)(ids).logits.softmax(-1)[..., EOS]
    assert ends.mean().item() == pytest.approx(1 / 24, rel=0.05)
    assert ends.std().item() < 0.1 / 24


def test_only_the_cores_that_the_process_may_use_count_as_disturbance(monkeypatch):
    core = namedtuple("core", "user idle iowait")
    cores = [core(3.0, 90.0, 1.0), core(5.0, 90.0, 1.0), core(70.0, 1.0, 0.0)]
    monkeypatch.setattr("psutil.cpu_times", lambda percpu: cores)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert busy_seconds() == 3.0 + 5.0


def run_twice(table, name, setting=TINY, **changes):
    contender = replace(TABLES[table].contenders[name])
    if not contender.is_installed:
        pytest.skip(f"{contender.needs} is not installed")
    reports = io.StringIO()
    rounds = Rounds(io.StringIO("run\nrun\nstop\n"), reports)
    contender.load()(setting, rounds, **contender.kwargs | changes)
    ready, first, second = map(json.loads, reports.getvalue().splitlines())
    assert ready == {"ready": True}
    assert first["per_unit"] > 0 and second["per_unit"] > 0
    return second["facts"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_iteration_of_ours_computes_in_the_dtype_it_is_named_for(dtype):
    facts = run_twice("iteration", "ours-fp32", dtype=dtype)
    assert {facts[f"dtype in {phase}"] for phase in ("update", "decoding", "scoring")} == {dtype}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_iteration_of_trl_computes_in_the_dtype_it_is_named_for(dtype):
    pytest.importorskip("trl")
    facts = run_twice("iteration", "rloo-fp32", dtype=dtype)
    assert {facts[f"dtype in {phase}"] for phase in ("update", "decoding", "scoring")} == {dtype}


def test_iteration_of_sb3_is_scaled_up_from_one_epoch():
    assert run_twice("iteration", "sb3-64", n_episodes=2, batch_size=4)["measured"].endswith("2 x one epoch")


@pytest.mark.parametrize("name", ["slots-fp32", "generate-fp32"])
def test_even_rollouts_have_the_length_of_the_setting(name):
    assert run_twice("rollout", name)["mean length"] == 4.0


@pytest.mark.parametrize("name", ["slots-ragged-fp32", "generate-ragged-fp32"])
def test_ragged_rollouts_end_before_the_limit(name):
    assert 1.0 <= run_twice("rollout", name)["mean length"] < 8.0


@pytest.mark.parametrize("name", ["vector", "dummy"])
def test_environments_step(name):
    run_twice("env", name)
