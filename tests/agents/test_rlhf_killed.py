"""A run of the loop that is killed with SIGKILL in each of its stages ends as the run that never was."""

import random
import subprocess
import sys
import time

import pytest

from agents.ledger import fingerprint
from agents.rlhf import Loop
from reward_models.preferences.store import FeedbackStore
from tests.agents.looping import small_settings, write_inputs
from tests.agents.test_resume import WALL_TIMES

STARTED = "started: "
SCRIPT = f"""
import sys
from pathlib import Path
from rich.console import Console
from agents.rlhf import Loop
from tests.agents.looping import small_settings

class Says(Loop):
    def _stage(self, name, *args):
        print("{STARTED}" + name, flush=True)
        return super()._stage(name, *args)

Says(small_settings(Path(sys.argv[1])), sys.argv[2], console=Console(file=sys.stderr)).run()
"""


def killed_in(stage, inputs, out, delay):
    """Start the run, or go on with it, and kill it so many seconds after the stage began. Whether it was in time."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(inputs), str(out)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:  # fmt: skip
        for line in process.stdout:
            if line.strip() == STARTED + stage:
                time.sleep(delay)
                process.kill()
                break
        return process.wait() == -9


def test_a_run_killed_in_every_stage_ends_as_one_that_never_was(tmp_path):
    inputs, whole, out = write_inputs(tmp_path), tmp_path / "whole", tmp_path / "killed"
    Loop(small_settings(inputs), whole).run()
    delays = random.Random(time.time_ns())
    stages = ["sft", *(f"round-1/{stage}" for stage in ("sample", "compare", "reward", "ppo", "evaluate"))]
    in_time, votes = 0, 0
    for stage in stages:
        in_time += killed_in(stage, inputs, out, delays.uniform(0.0, 0.2))
        if (out / "feedback.db").exists():
            with FeedbackStore(out / "feedback.db") as store:
                assert store.progress().votes >= votes  # none that was there is lost
                votes = store.progress().votes
    assert in_time >= 4
    Loop(small_settings(inputs), out).run()

    for folder in ("sft", "round-1/reward/member-0", "round-1/ppo/policy"):
        assert fingerprint(out / folder, weights_only=True) == fingerprint(whole / folder, weights_only=True)
    for file in ("round-1/compare/comparisons.jsonl", "round-1/evaluate/samples.jsonl"):
        assert (out / file).read_bytes() == (whole / file).read_bytes()
    metrics = [(folder / "round-1/ppo/metrics.jsonl").read_text() for folder in (out, whole)]
    assert WALL_TIMES.sub("", metrics[0]) == WALL_TIMES.sub("", metrics[1])
    with FeedbackStore(out / "feedback.db") as store:
        items = [vote.item for vote in store.votes(current=True)]
        assert len(items) == len(set(items)) == votes == store.progress().votes


@pytest.mark.slow
def test_twelve_more_kills(tmp_path):
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        test_a_run_killed_in_every_stage_ends_as_one_that_never_was(folder)
