"""Runs a child of this process until it is killed. The parent has imported everything, so that a start is cheap."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from benchmarks.resume.points import LAST_POINTS, PHASES, POINTS, PhaseBoard
from benchmarks.resume.training import go_on, silence


class Victim:
    """A process that trains in a folder."""

    def __init__(self, folder: Path, seed: int, tokens: int, prepare: Callable[[], None]):
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                silence(error_file(folder))
                prepare()
                status = go_on(folder, seed, tokens)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)

    def wait(self, seconds: float = 600.0) -> int | None:
        """Its exit status (minus a signal's number); None if it still runs after so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.002)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


def error_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.error")


def fail(folder: Path, status: int | None) -> NoReturn:
    """End this program: the child did something else than to train or to be killed."""
    error = error_file(folder)
    sys.exit(f"The run in {folder} ended with status {status}. {error.read_text() if error.exists() else ''}")


def run_to_the_end(folder: Path, seed: int, tokens: int) -> float:
    """Train, and leave it alone; seconds."""
    started = time.monotonic()
    status = Victim(folder, seed, tokens, lambda: None).wait()
    if status != 0:
        fail(folder, status)
    return time.monotonic() - started


def kill_by_chance(
    folder: Path, seed: int, tokens: int, seconds: float, board: PhaseBoard, loaded: bool
) -> tuple[bool, str]:
    """Go on with a run for so many seconds, after it was loaded or after its start, then SIGKILL.

    Returns:
        Whether it was killed before its end; in which phase.
    """
    board.clear()
    victim = Victim(folder, seed, tokens, board.watch)
    status = None
    while loaded and status is None and board.phase() == PHASES[0]:
        status = victim.wait(0.0)
        time.sleep(0.002)
    status = victim.wait(seconds) if status is None else status
    phase = board.phase()
    if status is None:
        victim.send(signal.SIGKILL)
        status = victim.wait()
    if status not in (0, -signal.SIGKILL):
        fail(folder, status)
    return status != 0, phase


def kill_at(folder: Path, seed: int, tokens: int, label: str, n: int) -> bool:
    """Go on with a run until the n-th passing of a labelled point; whether it came to that before its end."""
    point = (POINTS | LAST_POINTS)[label]
    status = Victim(folder, seed, tokens, lambda: point.arm(n)).wait()
    if status not in (0, -signal.SIGKILL):
        fail(folder, status)
    return status != 0
