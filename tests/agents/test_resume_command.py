"""`rlhf ppo --resume`: what it goes on with, what it refuses, and what it leaves alone."""

import json
import sys

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents import cli
from agents.ppo import TextPPO
from tests.agents.helpers import LETTERS, small_lm
from tests.agents.test_resume import WALL_TIMES
from text_envs.letters import letter_tokenizer

REWARD = """
import pathlib
def score(completions):
    broken = pathlib.Path(__file__).with_name("broken_after")
    if broken.exists():
        left = int(broken.read_text())
        if left == 0:
            raise ValueError("the reward is broken")
        broken.write_text(str(left - 1))
    return [float(completion.response.count("a")) for completion in completions]
"""


@pytest.fixture
def reward(tmp_path, monkeypatch):
    """A reward model that breaks after so many batches, until it is mended; beside it a model of letters and prompts."""
    (tmp_path / "breaking_reward.py").write_text(REWARD)
    monkeypatch.delitem(sys.modules, "breaking_reward", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    torch.manual_seed(0)
    model = small_lm()
    model.generation_config.eos_token_id = LETTERS.index("l")
    model.save_pretrained(tmp_path / "model")
    letter_tokenizer(LETTERS).save_pretrained(tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("ab\nc\ndef\n")
    return tmp_path / "broken_after"


def ppo(out, *more) -> int:
    settings = "--n-episodes 8 --batch-size 4 --n-epochs 1 --threads 1 --samples-every 2 --device cpu --tensorboard false"
    files = ["--model", out.parent / "model", "--prompts", out.parent / "prompts.txt"]
    arguments = [
        *files,
        "--reward",
        "breaking_reward:score",
        "--max-new-tokens",
        "8",
        "--total-timesteps",
        "400",
        *settings.split(),
    ]
    try:
        return cli.main(["ppo", *map(str, arguments), "--out", str(out), *more])
    except SystemExit as exit:
        return exit.code


def left_behind(out):
    result = json.loads((out / "result.json").read_text())
    assert result.pop("seconds") > 0
    return {
        "metrics": WALL_TIMES.sub("", (out / "metrics.jsonl").read_text()),
        "samples": (out / "samples.jsonl").read_text(),
        "policy": (out / "policy" / "model.safetensors").read_bytes(),
        "result": result,
    }


@pytest.mark.parametrize("every", ["1", "3", "0"])
def test_a_run_that_broke_goes_on(tmp_path, reward, capsys, every):
    assert ppo(tmp_path / "whole") == 0
    for batches in (4, 2):
        reward.write_text(str(batches))
        assert ppo(tmp_path / "run", "--resume", "--checkpoint-every", every) == 2
        assert "the reward is broken" in capsys.readouterr().err
    reward.unlink()
    assert ppo(tmp_path / "run", "--resume", "--checkpoint-every", every) == 0
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "whole")


def test_its_configuration_file_is_enough(tmp_path, reward):
    reward.write_text("4")
    assert ppo(tmp_path / "run") == 2
    reward.unlink()
    assert cli.main(["ppo", "--config", str(tmp_path / "run" / "config.yaml"), "--resume"]) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["num_timesteps"] >= 400


def test_a_finished_run_is_left_as_it_is(tmp_path, reward, capsys):
    assert ppo(tmp_path / "run") == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    capsys.readouterr()
    assert ppo(tmp_path / "run", "--resume") == 0
    assert capsys.readouterr().out == f"The run in {tmp_path / 'run'} is finished; nothing is left to do.\n"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_a_run_that_ended_before_its_files_were_written_is_completed(tmp_path, reward):
    assert ppo(tmp_path / "run") == 0
    before = left_behind(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "policy" / "model.safetensors").unlink()
    assert ppo(tmp_path / "run", "--resume") == 0
    assert left_behind(tmp_path / "run") == before


def test_other_settings_are_named(tmp_path, reward, capsys):
    reward.write_text("3")
    assert ppo(tmp_path / "run") == 2
    capsys.readouterr()
    assert ppo(tmp_path / "run", "--resume", "--kl-coef", "0.5", "--seed", "9") == 2
    error = capsys.readouterr().err
    assert "kl_coef was 0.05 and is 0.5; seed was 0 and is 9." in error
    assert f"--config {tmp_path / 'run' / 'config.yaml'} --resume" in error


def test_a_folder_may_be_moved_and_saving_be_rarer(tmp_path, reward):
    assert ppo(tmp_path / "whole") == 0
    reward.write_text("5")
    assert ppo(tmp_path / "run", "--checkpoint-every", "1") == 2
    reward.unlink()
    (tmp_path / "run").rename(tmp_path / "moved")
    assert ppo(tmp_path / "moved", "--resume", "--checkpoint-every", "2") == 0
    assert left_behind(tmp_path / "moved") == left_behind(tmp_path / "whole")


@pytest.mark.parametrize(
    "more, says",
    [(("--resume", "--overwrite"), "say one of them"), (("--resume",), "holds no run to go on with")],
)
def test_what_is_no_run_is_not_touched(tmp_path, reward, capsys, more, says):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    assert ppo(tmp_path / "run", *more) == 2
    assert says in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_leftovers_of_killed_writes_are_removed_and_nothing_else(tmp_path, reward):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".config.yaml.0123abcd.tmp").write_text("hal")
    reward.write_text("3")
    assert ppo(out, "--resume") == 2  # a folder that holds nothing but such leftovers is as good as empty
    (out / "checkpoints" / ".last.zip.89abcdef.tmp").write_bytes(b"half a checkpoint")
    (out / "notes.tmp").write_text("mine")
    reward.unlink()
    assert ppo(out, "--resume") == 0
    assert not list(out.rglob(".*.tmp")) and (out / "notes.tmp").read_text() == "mine"


def test_tensorboard_shows_each_step_once(tmp_path, reward):
    reward.write_text("5")
    assert ppo(tmp_path / "run", "--checkpoint-every", "2", "--tensorboard", "true") == 2
    cut = TextPPO.load(tmp_path / "run" / "checkpoints" / "last.zip").num_timesteps
    reward.unlink()
    assert ppo(tmp_path / "run", "--resume", "--tensorboard", "true") == 0
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    steps = [event.step for event in events.Scalars("objective/scores")]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [row["num_timesteps"] for row in rows] and cut in steps


def test_wall_times_add_up(tmp_path, reward):
    reward.write_text("5")
    assert ppo(tmp_path / "run", "--checkpoint-every", "1") == 2
    reward.unlink()
    assert ppo(tmp_path / "run", "--resume") == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    times = [row["wall_time"] for row in rows]
    assert times == sorted(times)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["seconds"] >= times[-1]


def test_its_settings_are_those_of_the_run(tmp_path, reward):
    assert ppo(tmp_path / "run", "--resume") == 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["total_timesteps"] == 400
