"""The benchmark's own arithmetic, on samples one can check by eye, and each of its contenders on a tiny setting."""

import io
import json
from collections import namedtuple
from dataclasses import replace

import pytest
import torch

from benchmarks.throughput.contender import Contender, Rounds, busy_seconds
from benchmarks.throughput.measure import NEEDS_BF16, Measured, measure
from benchmarks.throughput.other_python import TRL_1_12
from benchmarks.throughput.report import bar_rows, contender_rows, figure
from benchmarks.throughput.scaling import operations, scaling_rows
from benchmarks.throughput.setting import EOS, Setting, make_model, make_prompts, make_tokenizer
from benchmarks.throughput.table import Bar
from benchmarks.throughput.tables import TABLES
from benchmarks.throughput.worker import Worker

TINY = Setting(
    layers=1, hidden=16, heads=2, vocabulary=64, prompt=3, response=4, episodes=4, epochs=2, minibatch=2, slots=2,
    ragged_episodes=5, mean_length=3, limit=8, num_envs=3,
)  # fmt: skip


def sample(seconds, others=0.0, peak=100.0):
    return {"per_unit": seconds, "wall": 1.0, "cpu": 1.0, "others": others, "peak_mb": peak, "facts": {}}


def test_ratio_is_the_median_of_the_ratios_of_undisturbed_rounds():
    rounds = [
        {"vector": sample(1.0), "dummy": sample(10.0)},
        {"vector": sample(1.0), "dummy": sample(30.0)},
        {"vector": sample(2.0), "dummy": sample(40.0)},
        {"vector": sample(1.0), "dummy": sample(900.0, others=1.5)},  # a neighbour was busy
    ]
    ratio = Measured("env", rounds, {}).ratio(Bar("vector", "dummy", 15.0, "loop"))
    assert (ratio.value, ratio.lowest, ratio.highest, ratio.n_rounds) == (20.0, 10.0, 30.0, 3)
    assert ratio.passes


def test_when_every_round_was_disturbed_the_verdict_says_so():
    measured = Measured("env", [{"vector": sample(1.0, others=1.0), "dummy": sample(50.0)}], {})
    ((_, ratio, bar, verdict, lever),) = bar_rows(measured)[2]
    assert (ratio, bar, verdict) == ("50.00 (50.00 to 50.00)", "at least 60.0", "fail, every round disturbed")
    assert lever == "loop"


def test_memory_is_a_ratio_of_peaks_and_lower_is_better():
    rounds = [
        {"ours-fp32": sample(1, peak=600), "rloo-fp32": sample(1, peak=900)},
        {"ours-fp32": sample(1, peak=700), "rloo-fp32": sample(1, peak=1000)},
    ]
    measured = Measured("iteration", rounds, {})
    assert measured.ratio(Bar("ours-fp32", "rloo-fp32", 0.75, "loop", "memory")).value == 0.7
    assert measured.ratio(Bar("ours-fp32", "rloo-fp32", 0.75, "loop", "memory")).passes
    assert not measured.ratio(Bar("ours-fp32", "rloo-fp32", 0.65, "loop", "memory")).passes


def test_time_is_ours_by_theirs_and_lower_is_better():
    measured = Measured("import", [{"import-text-envs": sample(0.2), "import-torch": sample(1.0)}], {})
    ratio = measured.ratio(Bar("import-text-envs", "import-torch", 0.25, "loop", "time"))
    assert (ratio.value, ratio.passes) == (0.2, True)


def test_seconds_are_shown_in_the_unit_of_the_table():
    shown = [figure(0.004, unit) for unit in ("tokens/s", "ms per episode", "µs per response token")]
    assert shown == ["250", "4.0", "4,000.0"]


def test_a_skipped_contender_and_its_bars_are_listed_with_the_reason():
    measured = Measured("env", [{"vector": sample(1.0)}], {"dummy": "not installed"})
    assert contender_rows(measured)[2][1][-1] == "not installed"
    ((_, ratio, bar, verdict, _),) = bar_rows(measured)[2]
    assert (ratio, bar, verdict) == ("-", "at least 60.0", "not installed")


def test_a_bar_whose_contender_was_not_asked_for_is_not_listed():
    assert bar_rows(Measured("env", [{"vector": sample(1.0)}], {}))[2] == []


def test_without_bf16_in_hardware_contenders_in_bf16_are_not_run(monkeypatch):
    monkeypatch.setattr("benchmarks.throughput.measure.bf16_in_hardware", lambda: False)
    measured = measure("update", ["update-bf16", "trl-way-bf16"], 1, 1, lambda line: None)
    assert measured.rounds == [] and set(measured.skipped.values()) == {NEEDS_BF16}
    assert [row[3] for row in bar_rows(measured)[2]] == [NEEDS_BF16, NEEDS_BF16]


def test_without_its_python_a_contender_is_skipped_with_the_command_that_makes_it(monkeypatch):
    monkeypatch.setenv("TRL_PPO_PYTHON", "/no/such/python")
    contender = Contender("trl_ppo:iteration", "TRL PPO", python=TRL_1_12)
    assert not contender.is_installed
    assert contender.notice == "no .venv-trl112: make trl112, or TRL_PPO_PYTHON=/path/to/python"


def test_an_episode_needs_two_operations_per_parameter_and_token_forward_and_six_trained():
    # 80 tokens x 1e6 parameters x (generated 2 + evaluated twice 4 + trained on in 4 epochs 24)
    assert operations(Setting(), 1_000_000) == 80 * 1e6 * 30


def test_costs_that_are_linear_in_the_length_lie_on_the_fit():
    facts = {"parameters": 1_000_000, "peak": 1e12, "dtype in update": "float32"}
    rounds = [{f"prompt-{n}": sample(0.001 * (10 + n)) | {"facts": facts} for n in (16, 64, 128)}]
    _, columns, rows = scaling_rows(Measured("prompts", rounds, {}), TABLES["prompts"])
    assert columns[-1] == "fit: 10.0 + 1.000 x (measured)"
    assert [row[-1] for row in rows] == ["26.0 (100%)", "74.0 (100%)", "138.0 (100%)"]
    # 16 + 48 tokens x 1e6 x 30 = 1.92e9 operations in 26 ms, of 1e12 a second
    assert rows[0][2:4] == ["1.9", "7% of 1,000 GFLOP/s"]


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


@pytest.mark.parametrize("name", ["sb3-64", "rl4lms"])
def test_iterations_of_token_samples_are_scaled_up_from_one_epoch(name):
    assert run_twice("iteration", name, n_episodes=2, batch_size=4)["measured"].endswith("2 x one epoch")


@pytest.mark.parametrize("name", ["update-fp32", "update-separate-fp32", "trl-way-fp32"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_updates_compute_in_the_dtype_they_are_named_for(name, dtype):
    assert run_twice("update", name, dtype=dtype)["dtype in update"] == dtype


@pytest.mark.parametrize("name", ["evaluate-fp32", "evaluate-sb3"])
def test_evaluations_run(name):
    run_twice("evaluate", name)


def test_text_envs_is_imported_without_torch():
    assert run_twice("import", "import-text-envs", repeats=1) == {"imports torch": "no"}


def test_the_scaling_tables_know_the_peak_of_the_machine():
    facts = run_twice("sizes", "parameters-1M")
    assert facts["peak"] > 1e9 and facts["parameters"] == make_model(TINY).num_parameters()


@pytest.mark.slow
@pytest.mark.parametrize("name, dtype", [("trl-ppo-fp32", "float32"), ("trl-ppo-bf16", "bfloat16")])
def test_the_ppo_trainer_runs_in_a_python_of_its_own(name, dtype):
    if not TABLES["iteration"].contenders[name].is_installed:
        pytest.skip(TRL_1_12.notice)
    worker = Worker("iteration", name, 1, TINY)
    report = worker.round()
    worker.close()
    assert report["per_unit"] > 0
    assert report["facts"]["dtype in update"] == report["facts"]["value dtype in update"] == dtype


@pytest.mark.parametrize("name", ["slots-fp32", "generate-fp32"])
def test_even_rollouts_have_the_length_of_the_setting(name):
    assert run_twice("rollout", name)["mean length"] == 4.0


@pytest.mark.parametrize("name", ["slots-ragged-fp32", "generate-ragged-fp32"])
def test_ragged_rollouts_end_before_the_limit(name):
    assert 1.0 <= run_twice("rollout", name)["mean length"] < 8.0


@pytest.mark.parametrize("name", ["vector", "dummy"])
def test_environments_step(name):
    run_twice("env", name)
