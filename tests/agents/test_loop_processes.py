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
import yaml
from accelerate import PartialState
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from agents import cli, processes
from agents.callbacks import SignalReceived
from agents.leading import Leader, follow
from agents.learning_stages import StopIf
from agents.ppo import TextPPO
from agents.rlhf import Guard, Loop
from agents.settings import EvaluationSettings, PPOSettings, SampleSettings
from tests.agents.forked import Forks
from tests.agents.helpers import letters_env, small_lm
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


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_of_two_processes_leaves_a_whole_run(of_two):
    folder, printed = of_two
    assert printed.count("1/7 sft: fine-tune") == 1 and printed.count("done in") == 7
    result = json.loads((folder / "result.json").read_text())
    assert list(result["stages"])[-1] == "round-1/evaluate" and len(result["stages"]) == 7
    metrics = rows(folder / "round-1/ppo/metrics.jsonl")
    assert [row["n_updates"] for row in metrics] == [1, 2] and metrics[-1]["num_timesteps"] >= 60
    before = load_file(folder / "sft/model.safetensors")
    policy = AutoModelForCausalLM.from_pretrained(folder / "round-1/ppo/policy").state_dict()
    assert not torch.equal(policy["model.norm.weight"], before["model.norm.weight"])


# --- what comes between ------------------------------------------------------------------------------------------------


def judge(completions):
    """As `likes_a`; it takes an hour, or fails, once there is the file that an environment variable names."""
    if Path(os.environ.get("SLOW_FROM", "nowhere")).exists():
        time.sleep(3600)
    if Path(os.environ.get("FAIL_FROM", "nowhere")).exists():
        raise ValueError("this judge cannot read")
    return likes_a(completions)


def rlhf_loop(config: str, out: str) -> int:
    """The command. The second process gets a signal as soon as there is the file that an environment variable names."""

    def send() -> None:
        while not Path(os.environ["SIGNAL_FROM"]).exists():
            time.sleep(0.05)
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))

    if processes.rank() == 1 and "SIGNAL" in os.environ:
        threading.Thread(target=send, daemon=True).start()
    return cli.main(["loop", "--config", config, "--out", out])


@pytest.fixture
def config(inputs, tmp_path):
    def write(**more) -> Path:
        settings = settings_of(inputs, judge=HERE[:-1] + ":judge", **more)
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings.to_json()))
        return tmp_path / "config.yaml"

    return write


def record(folder: Path) -> str:
    return (folder / "stage.json").read_text()


def test_a_signal_to_the_other_process_ends_both_and_one_alone_goes_on(
    forks, inputs, of_two, config, tmp_path
):
    """While the first process waits for a judge, as it would for people."""
    out, comparing = tmp_path / "run", tmp_path / "run/round-1/compare"
    fate = dict(SLOW_FROM=str(comparing), SIGNAL_FROM=str(comparing), SIGNAL=str(int(signal.SIGTERM)))
    statuses, printed = forks.statuses(HERE + "rlhf_loop", config(), out, **fate)
    assert statuses == [143, 143]
    assert printed.count("rlhf: stopped by SIGTERM; finished stages and votes are kept.") == 1
    sampled = record(out / "round-1/sample")
    assert not (comparing / "stage.json").exists()

    assert cli.main(["loop", "--config", str(config()), "--out", str(out)]) == 0
    assert record(out / "round-1/sample") == sampled
    assert files(out) == files(of_two[0])
    one, two = (load_file(folder / "sft/model.safetensors") for folder in (out, of_two[0]))
    assert all(torch.equal(one[name], two[name]) for name in one)  # both were learned in two processes


def test_a_judge_that_fails_ends_both_with_what_it_said(forks, config, tmp_path):
    began = time.monotonic()
    statuses, printed = forks.statuses(
        HERE + "rlhf_loop", config(demos=None, rounds=0), tmp_path / "run", FAIL_FROM=str(tmp_path)
    )
    assert statuses == [2, 1] and time.monotonic() - began < 60
    assert printed.count("error") == printed.count("this judge cannot read") == 1


def test_a_process_that_is_killed_while_it_waits_is_missed(forks, config, tmp_path):
    evaluating = tmp_path / "run/sft-evaluate"
    fate = dict(SLOW_FROM=str(evaluating), SIGNAL_FROM=str(evaluating), SIGNAL=str(int(signal.SIGKILL)))
    statuses, printed = forks.statuses(
        HERE + "rlhf_loop", config(demos=None, rounds=0), tmp_path / "run", **fate
    )
    assert statuses == [2, -signal.SIGKILL]
    assert printed.count("rlhf loop: error: Another process of this run has ended") == 1


def test_a_loop_under_fsdp2_is_stopped_where_both_learn_and_goes_on_data_parallel(forks, config, tmp_path):
    out = tmp_path / "run"
    ppo = PPOSettings(total_timesteps=150, n_episodes=8, batch_size=4, n_epochs=1, checkpoint_every=1)
    given = config(ppo=ppo)
    fate = dict(SIGNAL_FROM=str(out / "round-1/ppo/metrics.jsonl"), SIGNAL=str(int(signal.SIGTERM)))
    fsdp2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    statuses, printed = forks.statuses(HERE + "rlhf_loop", given, out, **fate, **fsdp2)
    assert statuses == [143, 143] and printed.count("rlhf: stopped by SIGTERM") == 1
    assert (out / "sft/stage.json").exists() and (out / "round-1/reward/stage.json").exists()
    assert not (out / "round-1/ppo/stage.json").exists()

    forks.run(HERE + "rlhf_loop", given, out)
    steps = [row["num_timesteps"] for row in rows(out / "round-1/ppo/metrics.jsonl")]
    assert steps == sorted(set(steps)) and len(steps) > 2 and steps[-1] >= 150
    AutoModelForCausalLM.from_pretrained(out / "round-1/ppo/policy")


def test_a_signal_that_came_just_before_ppo_began_stops_it():
    model = TextPPO(
        "CausalLMPolicy", letters_env(), n_episodes=4, device="cpu", policy_kwargs={"model": small_lm()}
    )
    model.learn(1000, [StopIf(lambda: True)])
    assert model.num_timesteps < 10 and model.stop_requested


def test_numbers_that_cannot_be_shared_are_refused_before_anything_is_done(forks, config, tmp_path):
    statuses, printed = forks.statuses(
        HERE + "rlhf_loop", config(ppo=PPOSettings(n_episodes=9)), tmp_path / "run"
    )
    assert statuses == [2, 2] and not (tmp_path / "run").exists()
    assert "ppo.n_episodes is 9: in the loop's settings, in 2 processes." in printed


# --- waiting ---------------------------------------------------------------------------------------------------------


def wait_longer_than_torch_does() -> None:
    PartialState(cpu=True, timeout=timedelta(seconds=1))
    received, called = SignalReceived(), []

    def work() -> str:
        time.sleep(1.5)
        leader.call(print, "once")
        time.sleep(1.5)
        return "all there is"

    if processes.is_first():
        leader = Leader(received, Guard(), lambda function, *arguments: called.append(arguments))
        assert leader.run(work) == "all there is"
    else:
        assert follow(received, lambda function, *arguments: called.append(arguments)) == "all there is"
    assert called == [("once",)]


def test_the_others_wait_for_longer_than_torch_does(forks):
    forks.run(HERE + "wait_longer_than_torch_does")
