"""`rlhf ppo --resume`, killed by SIGKILL again and again, leaves what a run leaves that was let alone: to the bit."""

import subprocess
import sys
from pathlib import Path

import pytest


def kill(*options: str) -> str:
    """Run the benchmark in a process of its own, from which it can fork before there are threads; what it prints."""
    command = [sys.executable, "-m", "benchmarks.resume", *options]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_twenty_kills_at_random_moments_and_some_at_labelled_points():
    printed = kill("--kills", "20", "--points", "5", "--tokens", "1000", "--no-signals")
    assert "20 kills" in printed and "0 differences" in printed


@pytest.mark.slow
def test_two_hundred_kills_and_every_labelled_point_and_sigterm_in_every_phase():
    assert "200 kills" in kill()
