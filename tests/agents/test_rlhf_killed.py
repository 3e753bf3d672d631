"""A run of the loop that is killed with SIGKILL in each of its stages ends as the run that never was."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from agents.ledger import fingerprint
from agents.rlhf import Loop
from reward_models.preferences.store import FeedbackStore
from tests.agents.forked import Forks
from tests.agents.looping import small_settings, write_inputs
from tests.agents.test_resume import WALL_TIMES


class KilledInAStage(Loop):
    """A run that gets SIGKILL from outside so many seconds after one of its stages began."""

    def _stage(self, name, *arguments):
        if name == self.stage:
            victim = os.getpid()
            if os.fork() == 0:
                time.sleep(self.delay)
                if os.getppid() == victim:  # it may have ended by itself
                    os.kill(victim, signal.SIGKILL)
                os._exit(0)
        return super()._stage(name, *arguments)


def run(inputs, out):
    """Run, or go on, undisturbed; in a process like the killed ones, which fine-tune as one of several do."""
    Loop(small_settings(Path(inputs)), out).run()


def run_to_be_killed(inputs, out, stage, delay):
    """Start the run, or go on with it."""
    run = KilledInAStage(small_settings(Path(inputs)), out)
    run.stage, run.delay = stage, float(delay)
    run.run()


@pytest.fixture(scope="module")
def forks():
    with Forks() as forks:
        yield forks


def test_a_run_killed_in_every_stage_ends_as_one_that_never_was(forks, tmp_path):
    inputs, whole, out = write_inputs(tmp_path), tmp_path / "whole", tmp_path / "killed"
    forks.run(__name__ + ".run", inputs, whole, n=1)
    delays = random.Random(time.time_ns())
    stages = ["sft", *(f"round-1/{stage}" for stage in ("sample", "compare", "reward", "ppo", "evaluate"))]
    in_time, votes = 0, 0
    for stage in stages:
        order = (__name__ + ".run_to_be_killed", inputs, out, stage, delays.uniform(0.0, 0.2))
        statuses, printed = forks.statuses(*order, n=1)
        assert statuses in ([0], [-signal.SIGKILL]), printed
        in_time += statuses == [-signal.SIGKILL]
        if (out / "feedback.db").exists():
            with FeedbackStore(out / "feedback.db") as store:
                assert store.progress().votes >= votes  # none that was there is lost
                votes = store.progress().votes
    assert in_time >= 4
    forks.run(__name__ + ".run", inputs, out, n=1)

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
def test_twelve_more_kills(forks, tmp_path):
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        test_a_run_killed_in_every_stage_ends_as_one_that_never_was(forks, folder)
