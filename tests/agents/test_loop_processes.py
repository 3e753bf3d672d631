"""The loop in two processes: one leads, both learn, and what they leave is one process's run."""

import json
import os
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from agents import cli, processes
from agents.callbacks import SignalReceived
from agents.leading import Leader, follow
from agents.rlhf import Guard, Loop
from agents.settings import EvaluationSettings, PPOSettings, SampleSettings
from tests.agents.forked import Forks
from tests.agents.looping import likes_a, small_settings, write_inputs

HERE = "tests.agents.test_loop_processes."


@pytest.fixture(scope="module")
def forks():
    with Forks() as forks:
        yield forks


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def settings_of(inputs, **more):
    small = dict(
        samples=SampleSettings(prompts=12),
        ppo=PPOSettings(total_timesteps=60, n_episodes=8, batch_size=4, n_epochs=1, checkpoint_every=1),
        evaluation=EvaluationSettings(prompts=4),
    )
    return small_settings(Path(inputs), **(small | more))


def run_whole(inputs: str, out: str) -> None:
    Loop(settings_of(inputs), out).run()


@pytest.fixture(scope="module")
def of_two(forks, inputs, tmp_path_factory):
    """The folder of a whole run in two processes, and what they printed."""
    folder = tmp_path_factory.mktemp("two")
    return folder, forks.run(HERE + "run_whole", inputs, folder)


def files(run: Path) -> set[str]:
    """Where they are; TensorBoard gives its own names of their own."""
    found = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    return {name for name in found if "tfevents" not in name and not name.startswith("feedback.db-")}


def test_a_run_of_two_processes_leaves_a_whole_run(of_two):
    folder, printed = of_two
    assert printed.count("1/7 sft: fine-tune") == 1 and printed.count("done in") == 7
    result = json.loads((folder / "result.json").read_text())
    assert list(result["stages"])[-1] == "round-1/evaluate" and len(result["stages"]) == 7
    rows = [json.loads(line) for line in (folder / "round-1/ppo/metrics.jsonl").read_text().splitlines()]
    assert [row["n_updates"] for row in rows] == [1, 2] and rows[-1]["num_timesteps"] >= 60
    before = load_file(folder / "sft/model.safetensors")
    policy = AutoModelForCausalLM.from_pretrained(folder / "round-1/ppo/policy").state_dict()
    assert not torch.equal(policy["model.norm.weight"], before["model.norm.weight"])


# --- signals ---------------------------------------------------------------------------------------------------------


def asks(folder: Path) -> bool:
    return (folder / "round-1/compare").exists()


def judge_slowly(completions):
    time.sleep(60)
    return likes_a(completions)


def run_with_a_signal(inputs: str, out: str, number: str) -> int:
    """`rlhf loop`, whose second process gets a signal once the first one has people asked."""
    if processes.rank() == 1:

        def send() -> None:
            while not (Path(out) / "round-1/compare").exists():
                time.sleep(0.05)
            os.kill(os.getpid(), int(number))

        threading.Thread(target=send, daemon=True).start()
    return cli.main(["loop", "--config", f"{inputs}/asking.yaml", "--out", out])
