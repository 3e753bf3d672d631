"""What `rlhf loop` does."""

import shutil
import sys
from pathlib import Path

from jsonargparse import Namespace

from agents import processes
from agents.commands import set_up
from agents.loop_report import make_report
from agents.options.loop import settings_from
from agents.rlhf import Loop
from agents.stages import Stopped


def loop(options: Namespace, config: str) -> int:
    """`rlhf loop`: returns the exit status. The options are laid over those of a run that the folder holds."""
    settings, untouched = settings_from(options), settings_from(Namespace())
    run = Loop(None if settings == untouched else settings, options.out, options.redo)
    set_up(options)
    try:
        run.run()
    except Stopped:
        return stopped(run)
    if processes.is_first():
        print(f"The report is {run.folder / 'report.html'}.")
    return 0


def report(options: Namespace, config: str) -> int:
    """`rlhf report`: returns the exit status."""
    print(make_report(Path(options.folder)))
    return 0


def stopped(run: Loop, again: str | None = None) -> int:
    """Say how a run that was stopped goes on, with `rlhf loop` or as `again` says; returns the exit status."""
    number = run.stopped.number
    reason = f"stopped by {number.name}" if number else "stopped before all votes were in"
    again = again or f"{program()} loop --out {run.folder}"
    if processes.is_first():
        print(f"rlhf: {reason}; finished stages and votes are kept. Go on: {again}", file=sys.stderr)
    return 128 + number if number else 1


def program() -> str:
    """How this program is called here: `rlhf`, or its path where that is not on PATH."""
    if shutil.which("rlhf"):
        return "rlhf"
    return sys.argv[0] if Path(sys.argv[0]).stem == "rlhf" else "python -m agents.cli"
