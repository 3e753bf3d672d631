"""Runs on tiny budgets: what their files hold, that they repeat, and what becomes of those that fail."""

import json
import sys

import numpy as np
import pytest
import yaml

from agents.bench.records import read_run
from agents.bench.suite import Run
from agents.bench.tasks import held_out_prompts, make_task
from agents.cli import main
from reward_models import Completion

OWN = "tests.agents.bench.own"
TINY = {"n_episodes": 8, "batch_size": 8, "n_epochs": 1, "n_envs": 8}
SUITE = {
    "evaluation": {"prompts": 6, "best_of_samples": 16},
    "arguments": {
        "text": TINY | {"learning_rate": 0.01},
        "stock": {"n_steps": 4, "batch_size": 16, "n_envs": 4},
        "DQN": {"n_steps": 1, "batch_size": 4, "buffer_size": 32, "learning_starts": 4},
    },
    "tasks": {
        "Bandit": {
            "tier": "probe", "env": "text_envs/Bandit-v0", "budget": 16, "seeds": 1,
            "algorithms": ["TextPPO", "PPO", "DQN", "MaskablePPO", "RecurrentPPO"],
        },
    },
    "other": {
        "tier": "own", "budget": 8, "seeds": 1, "algorithms": ["TextPPO"],
        "sft": {
            "max_steps": 30, "learning_rate": 0.02, "warmup_steps": 0, "batch_size": 4, "demonstrations": 8,
            "model": {"num_hidden_layers": 1},
        },
    },
}  # fmt: skip


@pytest.fixture
def bench(tmp_path):
    """A function that runs `rlhf bench run` on the tiny suite; returns the exit status."""
    suite = tmp_path / "suite.yaml"

    def bench(*options, out="out", suite_settings=SUITE):
        suite.write_text(yaml.safe_dump(suite_settings))
        return main(["bench", "run", "--suite", str(suite), "--out", str(tmp_path / out), *options])

    return bench


def files(folder):
    return {
        str(path.relative_to(folder / "runs")): path for path in sorted((folder / "runs").rglob("*.jsonl"))
    }


def test_a_file_tells_all_of_its_run(bench, tmp_path):
    assert bench() == 0
    assert set(files(tmp_path / "out")) == {
        f"Bandit/{name}/1000.jsonl"
        for name in (
            "random", "start", "best_of_4", "best_of_16", "TextPPO", "PPO", "DQN", "MaskablePPO", "RecurrentPPO",
        )
    }  # fmt: skip
    head, updates, final = read_run(files(tmp_path / "out")["Bandit/TextPPO/1000.jsonl"])
    assert head["settings"]["seed"] == 1000 and head["settings"]["arguments"]["n_episodes"] == 8
    assert head["versions"]["torch"] and head["machine"]["threads"] == 1 and len(head["hash"]) == 16
    assert [row["tokens"] for row in updates] == [8, 16]
    assert all(0 <= row["score"] <= 1 and row["seconds"] > 0 for row in updates)
    assert "train/policy_gradient_loss" in updates[0]["metrics"]
    assert len(final["scores"]) == len(final["kl"]) == 6
    assert final["lengths"] == [1] * 6 and final["tokens"] == 16 and final["optimum"] == 1
    assert final["peak_memory_mb"] > 50
    for name in ("PPO", "DQN"):
        _, updates, final = read_run(files(tmp_path / "out")[f"Bandit/{name}/1000.jsonl"])
        assert updates and updates[-1]["score"] is not None and final["kl"] is None
    settings = yaml.safe_load((tmp_path / "out" / "settings.yaml").read_text())
    assert settings["Bandit"]["algorithms"]["TextPPO"]["seeds"] == [1000]
    assert settings["Bandit"]["budget"] == 16


def test_the_same_seeds_give_the_same_scores(bench, tmp_path):
    assert bench(out="one") == bench(out="two") == 0
    for (name, one), two in zip(files(tmp_path / "one").items(), files(tmp_path / "two").values()):
        (_, updates, final), (_, again, final_again) = read_run(one), read_run(two)
        assert final["scores"] == final_again["scores"], name
        assert final["kl"] == final_again["kl"], name
        assert [row["score"] for row in updates] == [row["score"] for row in again], name


def test_what_is_done_is_skipped_and_what_is_damaged_is_done_again(bench, tmp_path, capfd):
    assert bench("--algorithms", "TextPPO") == 0
    before = {name: path.stat().st_mtime_ns for name, path in files(tmp_path / "out").items()}
    files(tmp_path / "out")["Bandit/start/1000.jsonl"].unlink()
    litter = tmp_path / "out" / "runs" / "Bandit" / "start" / ".1000.jsonl.0123abcd.tmp"
    litter.write_text("half a line")
    capfd.readouterr()
    assert bench("--algorithms", "TextPPO") == 0
    assert "5 runs, 4 of them done already" in capfd.readouterr().err
    after = {name: path.stat().st_mtime_ns for name, path in files(tmp_path / "out").items()}
    assert {name for name in after if after[name] != before[name]} == {"Bandit/start/1000.jsonl"}
    assert not litter.exists()


def test_a_changed_setting_is_said_and_done_again_only_on_demand(bench, tmp_path, capfd):
    assert bench("--algorithms", "TextPPO") == 0
    assert bench("--algorithms", "TextPPO", "--budget", "8") == 2
    assert "budget was 16 and is 8. Say --overwrite" in capfd.readouterr().err
    assert bench("--algorithms", "TextPPO", "--budget", "8", "--overwrite") == 0
    assert read_run(files(tmp_path / "out")["Bandit/TextPPO/1000.jsonl"])[2]["tokens"] == 8


def test_algorithms_and_environments_from_outside(bench, tmp_path):
    own = ["--algorithms", f"{OWN}:OwnPPO", f"{OWN}:OwnTextPPO", "--tasks", f"{OWN}:own/Shout-v0"]
    assert bench(*own) == 0
    folder = "tests.agents.bench.own_own_Shout-v0"
    stock, text = (
        read_run(files(tmp_path / "out")[f"{folder}/tests.agents.bench.own_{name}/1000.jsonl"])
        for name in ("OwnPPO", "OwnTextPPO")
    )
    assert stock[2]["kl"] is None and len(text[2]["kl"]) == 6
    assert stock[0]["settings"]["arguments"] == SUITE["arguments"]["stock"]
    assert (tmp_path / "out" / "starts" / folder / "config.json").is_file()


def test_a_task_with_demonstrations_and_no_model_starts_from_one_that_learned_them(bench, tmp_path):
    assert bench("--algorithms", "TextPPO", "--tasks", f"{OWN}:own/Shout-v0") == 0
    random, start, text = (
        np.mean(read_run(path)[2]["scores"])
        for name in ("random", "start", "TextPPO")
        for path in (tmp_path / "out" / "runs").glob(f"*/{name}/1000.jsonl")
    )
    assert start == text == 1.0 > random


def test_a_run_that_fails_ends_no_other(bench, tmp_path, capfd):
    assert bench("--algorithms", f"{OWN}:BrokenPPO", "PPO") == 1
    said = capfd.readouterr().err
    assert "1 of 6 runs failed" in said and "RuntimeError: the loss went off" in said
    folder = tmp_path / "out" / "runs" / "Bandit"
    assert [p.name for p in (folder / "tests.agents.bench.own_BrokenPPO").iterdir()] == ["1000.error"]
    assert (folder / "PPO" / "1000.jsonl").is_file()
    assert main(["bench", "report", str(tmp_path / "out")]) == 0
    assert "own_BrokenPPO, seed 1000" in (tmp_path / "out" / "LEADERBOARD.md").read_text()


def test_ctrl_c_leaves_what_is_done_and_nothing_half_done(bench, tmp_path, capfd):
    assert bench("--algorithms", f"{OWN}:InterruptedPPO") == 130
    assert "interrupted: 4 of 5 runs were done and are kept" in capfd.readouterr().err
    left = [path for path in (tmp_path / "out" / "runs").rglob("*") if path.is_file()]
    assert len(left) == 4 and all(path.suffix == ".jsonl" for path in left)


def test_without_learning_a_policy_answers_as_the_start_does(bench, tmp_path):
    still = SUITE | {"arguments": {"text": TINY | {"learning_rate": 0.0}}}
    assert bench("--algorithms", "TextPPO", suite_settings=still) == 0
    learned, start = (
        read_run(files(tmp_path / "out")[f"Bandit/{name}/1000.jsonl"])[2] for name in ("TextPPO", "start")
    )
    assert learned["scores"] == start["scores"]
    assert learned["kl"] == [0.0] * 6


@pytest.mark.parametrize(
    "options, words",
    [
        (["--algorithms", "Nonsense"], "There is no algorithm 'Nonsense'"),
        (["--tasks", "Nonsense"], "There is no task 'Nonsense'"),
        (["--backend", "threading"], "threads would share one generator of random numbers"),
    ],
)
def test_mistakes_are_said(bench, capfd, options, words):
    assert bench(*options) == 2
    assert words in capfd.readouterr().err


def test_the_extra_is_asked_for(monkeypatch, capfd):
    monkeypatch.setattr("agents.bench.command.find_spec", lambda name: None if name == "joblib" else name)
    assert main(["bench", "run", "--out", "nowhere"]) == 2
    assert 'rlhf bench needs joblib: pip install "text-envs[leaderboard]"' in capfd.readouterr().err


@pytest.mark.slow
def test_workers_give_the_same_scores(bench, tmp_path):
    assert bench("--algorithms", "TextPPO", "PPO", out="one") == 0
    assert bench("--algorithms", "TextPPO", "PPO", "--workers", "2", out="two") == 0
    for name, path in files(tmp_path / "one").items():
        assert (
            json.loads(path.read_text().splitlines()[-1])["scores"]
            == read_run(files(tmp_path / "two")[name])[2]["scores"]
        )


def test_a_dask_cluster_gives_the_same_scores(bench, tmp_path):
    distributed = pytest.importorskip("distributed")
    some = "--algorithms", "TextPPO", "PPO"
    assert bench(*some, out="here") == 0
    cluster = {"n_workers": 1, "dashboard_address": None}
    with distributed.Client(**cluster, threads_per_worker=1):
        assert bench(*some, "--backend", "dask", out="there") == 0
    for name, path in files(tmp_path / "here").items():
        assert read_run(path)[2]["scores"] == read_run(files(tmp_path / "there")[name])[2]["scores"]


def test_threads_of_a_dask_cluster_are_refused(bench, capfd):
    distributed = pytest.importorskip("distributed")
    with distributed.Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None):
        assert bench("--backend", "dask") == 2
    assert "a worker has 2 threads" in capfd.readouterr().err


def test_a_cluster_that_is_not_installed_is_asked_for(bench, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.util.joblib", None)
    assert bench("--backend", "ray") == 2
    assert "--backend ray needs ray.util.joblib: pip install ray" in capfd.readouterr().err


# What is judged


def run_of(env, **settings):
    return Run(task="t", algorithm="start", seed=0, tier="t", env=env, budget=1, target="", **settings)


def test_held_out_prompts_are_the_same_always_and_all_different_while_there_are_enough():
    task = make_task(run_of("text_envs/Copy-v0"))
    prompts = held_out_prompts(task, 27)
    assert len({row["prompt"] for row in prompts}) == 27  # all words of three letters
    assert held_out_prompts(task, 27) == prompts
    assert sorted(row["prompt"] for row in held_out_prompts(task, 54)) == sorted(
        2 * [row["prompt"] for row in prompts]
    )


def test_a_task_is_judged_on_its_held_out_split_and_tuned_on_the_other():
    own = f"{OWN}:own/Shout-v0"
    assert held_out_prompts(make_task(run_of(own)), 1) == [{"prompt": "c"}]
    assert held_out_prompts(make_task(run_of(own, tuning=True)), 1) == [{"prompt": "b"}]


def test_the_kl_of_a_task_with_legal_tokens_is_over_these():
    from agents.bench.evaluation import RandomPolicy, _log_probs, answer, judged
    from tests.agents.helpers import letters_env, letters_policy

    task = letters_env(allowed_tokens=["a", "b"], max_new_tokens=1).unwrapped.task
    lm = letters_policy(length=task.max_length).lm
    both = [Completion("a", text, (0,), (token,), "length") for token, text in enumerate("ab")]
    assert np.exp(_log_probs(lm, task, both)).sum() == pytest.approx(1, abs=1e-6)
    answers = answer(RandomPolicy(task.action_space(), 0), task, ["a"] * 40)
    assert {completion.response for completion in answers} == {"a", "b"}
    assert set(judged(task, answers)) == {0.0, 1.0}
