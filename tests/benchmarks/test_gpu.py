"""The GPU benchmark's arithmetic, on rows one can check by eye, and two of its contenders on a tiny model on the CPU."""

import json
from pathlib import Path

import pytest

from benchmarks.throughput import gpu, gpu_report
from benchmarks.throughput.gpu_report import iteration_rows, markdown, missing, ratio, ratio_rows, tflops

GPU_JSON = Path(gpu.__file__).parent / "gpu.json"


def row(name="ppo-bf16", rounds=(3.0, 2.0, 4.0), tokens=1_000_000, **changes):
    return {
        "name": name, "size": "124M", "rounds": list(rounds), "tokens": tokens, "peak_gb": 1.5,
        "parts": {"evaluation": 0.5, "update": 1.0} if name.startswith("ppo") else {},
        "parameters": 5 * 10**8, "sequence_tokens": 1000, "epochs": 2,
    } | changes  # fmt: skip


def record(*rows):
    return {"rows": list(rows), "ceilings": {"bf16_tflops": 12.0, "fp32_tflops": 1.0}}


def test_rollout_is_what_evaluation_and_update_leave_of_the_median_iteration():
    (cells,) = iteration_rows(record(row()))
    whole, rollout, evaluation, update, us, us_update, tokens_per_second, peak = cells[1:]
    assert whole == "3.00 (2.00 to 4.00, 3)"
    assert (rollout, evaluation, update) == ("1.50", "0.50", "1.00")  # 3.0 - 0.5 - 1.0
    assert (us, us_update, tokens_per_second, peak) == ("3", "1", "666,667", "1.50")  # 1,000,000 / 1.5


def test_operations_are_two_per_parameter_and_token_forward_and_six_trained():
    # 2 * 5e8 * 1000 = 1e12: one forward pass is one tera-operation, an evaluation two, two epochs of training 2 * 3.
    assert tflops(row()) == pytest.approx({"rollout": 1 / 1.5, "evaluation": 2 / 0.5, "update": 6 / 1.0})


def test_share_of_the_ceiling_is_that_of_the_dtype():
    bf16, fp32 = gpu_report.tflops_rows(record(row(), row("ppo-fp32")))
    assert bf16[3:] == ["6.0 (50.0 %)", "12"]
    assert fp32[3:] == ["6.0 (600.0 %)", "1"]


def test_a_ratio_is_per_token_and_tells_of_the_most_unlike_rounds():
    ours, theirs = row(rounds=[1.0, 2.0, 4.0], tokens=10), row(rounds=[6.0, 8.0, 12.0], tokens=20)
    # per token 0.1, 0.2, 0.4 against 0.3, 0.4, 0.6
    assert ratio(ours, theirs) == pytest.approx((2.0, 0.75, 6.0))


def test_only_rows_of_one_run_and_size_are_compared():
    ours, theirs = row(rounds=[1.0], run=1), row("rloo-bf16", rounds=[2.0], run=1)
    assert [cells[1] for cells in ratio_rows(record(ours, theirs))] == ["2.00 (2.00 to 2.00)"]
    assert ratio_rows(record(ours, theirs | {"run": 2})) == []
    assert ratio_rows(record(ours, theirs | {"size": "0.5B"})) == []


def test_the_rollout_of_an_iteration_is_compared_with_generate():
    (cells,) = ratio_rows(record(row(), row("generate-bf16", rounds=[6.0])))
    assert cells[1] == "4.00"  # 6.0 to 1.5 seconds


def test_what_has_no_row_is_said_to_be_unmeasured():
    rows = [row(name) for name in gpu_report.CONTENDERS if name != "ppo-fp32"]
    assert missing(record(*rows), ["124M"]) == ["124M: TextPPO, fp32"]


def test_first_round_is_a_warm_up():
    rounds = gpu.OnDevice("cpu", n_rounds=2)
    assert [rounds.next() for _ in range(4)] == [True, True, True, False]
    assert len(rounds.walls) == 1 + 2


def test_a_quick_run_on_the_cpu_writes_rows_of_both_architectures(tmp_path):
    only = ["ppo-bf16", "slots-bf16-256", "generate-ragged-bf16"]
    sizes = ["124M", "0.5B"]
    gpu.main(["--quick", "--device", "cpu", "--sizes", *sizes, "--only", *only, "--out", str(tmp_path)])
    written = json.loads((tmp_path / "gpu.json").read_text())
    names = ["ppo-bf16", "generate-ragged-bf16", "slots-bf16-256"]
    assert [(r["size"], r["name"]) for r in written["rows"]] == [(s, n) for s in sizes for n in names]
    ppo, ragged, wide = written["rows"][3:]
    assert ppo["tokens"] == 4 * 4 and ppo["sequence_tokens"] == 4 * (3 + 4)
    assert ppo["facts"]["dtype in update"] == "bfloat16"
    assert 5 <= ragged["tokens"] < 5 * 8 and wide["tokens"] == 8 * 4
    assert 0 < sum(ppo["parts"].values()) < ppo["rounds"][0]
    assert (tmp_path / "gpu.md").read_text() == markdown(written)


def test_a_step_of_the_profile_takes_longer_than_the_gpu_is_busy():
    profile = gpu.profile(gpu.setting_of("124M", "profile", "cpu", quick=True))
    assert profile["step_ms"] > profile["gpu_ms"] == 0.0  # there is no GPU here


def test_the_committed_tables_are_those_of_the_committed_figures():
    assert GPU_JSON.with_suffix(".md").read_text() == markdown(json.loads(GPU_JSON.read_text()))
