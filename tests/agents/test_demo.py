"""`rlhf demo` on a budget of seconds: every stage runs, and the result is what the policies on the disk give."""

import json
import subprocess

import numpy as np
import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM

from agents import cli, demo, loop_command
from agents.demo import agreements, bash_quoted, score_table, settings_of, show_replies
from agents.loop_files import Policy, policies_of
from text_envs.tasks import support_reply


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")

    def small(options):
        settings = settings_of(options)
        settings.samples.prompts = settings.evaluation.prompts = 40
        settings.ppo.n_episodes, settings.reward.epochs = 8, 1
        return settings

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(demo, "settings_of", small)
    arguments = ["--out", str(out), "--sft-steps", "2", "--total-timesteps", "400", "--threads", "1"]
    assert cli.main(["demo", *arguments]) == 0
    monkeypatch.undo()
    return out


def test_the_result_names_what_the_bars_ask_for(run):
    result = json.loads((run / "result.json").read_text())
    assert set(result["gold_score"]) == {"sft", "round_1", "round_2", "ppo"}
    assert all(0 <= score <= 1 for score in result["gold_score"].values())
    assert result["gold_score"]["ppo"] == result["gold_score"]["round_2"]
    assert np.isfinite(result["kl"]) and 0 <= result["win_rate"] <= 1 and result["seconds"] > 0
    for number in (1, 2):  # the reward model's agreement with the gold judge is shown per round
        assert 0 <= result["stages"][f"round-{number}/reward"]["agreement_with_gold"]["share"] <= 1


def test_the_policies_differ_and_are_plain_folders(run):
    folders = [run / "sft", *(run / f"round-{number}/ppo/policy" for number in (1, 2))]
    weights = [AutoModelForCausalLM.from_pretrained(folder).lm_head.weight.detach() for folder in folders]
    assert not np.array_equal(weights[0], weights[1]) and not np.array_equal(weights[1], weights[2])


def test_a_demo_that_is_called_again_reads_what_is_done(run, capsys):
    assert [policy.name for policy in policies_of(run)] == ["SFT", "Round 1", "Round 2"]


def test_to_be_quick_the_shipped_model_is_taken_and_one_round_made():
    parser_defaults = dict(
        rater="simulated", votes=None, port=8000, seed=0, threads=1, device="cpu", sft_steps=9
    )
    options = type("Options", (), parser_defaults | dict(quick=True, total_timesteps=None))
    settings = settings_of(options)
    assert settings.rounds == 1 and settings.demos is None and settings.model == str(support_reply.FOLDER)


def test_the_tables_show_all_replies_and_scores(capsys):
    def policy(name, stage, reply, score):
        sample = {"prompt": "Customer: My lamp broke.\nReply:", "response": reply, "gold": score}
        interval = {"mean": score, "low": 0.0, "high": 1.0}
        result = {
            "scores": {"gold": interval},
            "components": {"polite": score},
            "win_rate": {} if name == "SFT" else {"sft": interval},
            "kl": {"mean": 1.5},
            "length": {"mean": 9.0},
        }
        return Policy(name, stage, result, [sample] * 3)

    policies = [
        policy("SFT", "sft-evaluate", " go away", 0.125),
        policy("Round 1", "round-1/evaluate", " sorry [b]", 0.875),
    ]
    console = Console(width=100)
    show_replies(console, policies)
    agreed = agreements({"round-1/reward": {"agreement_with_gold": {"share": 0.64, "pairs": 50}}})
    console.print(score_table(policies, {"sft-evaluate": -1.25, "round-1/evaluate": 0.75}, agreed))
    shown = capsys.readouterr().out
    for word in (
        "My lamp broke.",
        "go away",
        "sorry [b]",
        "[0.12]",
        "[0.88]",
        "0.125",
        "0.875",
        "polite",
        "-1.25",
        "0.75",
        "64%",
        "gold score of each reply in brackets",
    ):
        assert word in " ".join(shown.split())
    assert "Customer:" not in shown


@pytest.mark.parametrize(
    "on_path, called, told",
    [
        ("/bin/rlhf", "/bin/rlhf", "rlhf"),
        (None, ".venv/bin/rlhf", ".venv/bin/rlhf"),
        (None, "agents/cli.py", "python -m agents.cli"),
    ],
)
def test_a_command_to_copy_names_a_program_that_is_found(monkeypatch, on_path, called, told):
    monkeypatch.setattr("shutil.which", lambda name: on_path)
    monkeypatch.setattr("sys.argv", [called])
    assert loop_command.program() == told


def test_the_command_to_copy_is_what_bash_reads_back():
    text = 'Customer: I\'d like\n"this" \\ $HOME\nReply:'
    echoed = subprocess.run(
        ["bash", "-c", f"printf %s {bash_quoted(text)}"], capture_output=True, text=True, check=True
    )
    assert echoed.stdout == text
