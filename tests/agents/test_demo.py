"""`rlhf demo` on a budget of seconds: every stage runs, and the result is what the policies on the disk give."""

import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM

from agents import cli, demo
from agents.demo import Evaluation, bash_quoted
from text_envs.tasks import support_reply


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(demo, "HELD_OUT", 8)
    monkeypatch.setattr(demo, "DEMONSTRATIONS", 64)
    monkeypatch.setattr(demo, "PPO", demo.PPO | dict(n_episodes=8, batch_size=4))
    arguments = ["--out", str(out), "--sft-steps", "2", "--total-timesteps", "900", "--threads", "1"]
    assert cli.main(["demo", *arguments]) == 0
    monkeypatch.undo()
    return out


def test_the_result_names_what_the_bars_ask_for(run):
    result = json.loads((run / "result.json").read_text())
    assert set(result["gold_score"]) == {"sft", "ppo"}
    assert 0 <= result["gold_score"]["sft"] <= 1 and 0 <= result["gold_score"]["ppo"] <= 1
    assert set(result["components"]["ppo"]) == {*support_reply.WEIGHTS, "fluent"}
    assert np.isfinite(result["kl"]) and result["seconds"] > 0


def test_the_run_folder_is_complete(run):
    files = "config.yaml metrics.jsonl samples.jsonl tensorboard checkpoints sft policy result.json"
    assert {path.name for path in run.iterdir()} == set(files.split())
    tuned, trained = (AutoModelForCausalLM.from_pretrained(run / name) for name in ("sft", "policy"))
    assert not np.array_equal(tuned.lm_head.weight.detach(), trained.lm_head.weight.detach())


def test_held_out_customers_are_the_same_each_time_and_not_trained_on():
    customers = demo.held_out_customers()
    assert customers == demo.held_out_customers() and len(customers) == demo.HELD_OUT
    trained = {row["prompt"] for row in support_reply.prompts("train")}
    assert not trained & {row["prompt"] for row in customers}


def test_the_tables_show_both_replies_and_both_scores(capsys):
    def evaluation(reply, score):
        completion = SimpleNamespace(prompt="Customer: My lamp broke.\nReply:", response=reply)
        return Evaluation([completion], np.array([score]), {"polite": score})

    demo.show(Console(width=100), evaluation(" go away", 0.125), evaluation(" sorry [b]", 0.875))
    shown = capsys.readouterr().out
    for word in ("My lamp broke.", "go away", "sorry [b]", "[0.12]", "[0.88]", "0.125", "0.875", "polite"):
        assert word in shown
    assert "Customer:" not in shown


def test_the_command_to_copy_is_what_bash_reads_back():
    text = 'Customer: I\'d like\n"this" \\ $HOME\nReply:'
    echoed = subprocess.run(
        ["bash", "-c", f"printf %s {bash_quoted(text)}"], capture_output=True, text=True, check=True
    )
    assert echoed.stdout == text
