"""What `rlhf loop` does."""

import sys
from pathlib import Path

from jsonargparse import Namespace

from agents.commands import set_up
from agents.loop_report import make_report
from agents.options.loop import settings_from
from agents.rlhf import Loop
from agents.stages import Stopped


def loop(options: Namespace, config: str) -> int:
    """`rlhf loop`: returns the exit status. The options are laid over those of a run that the folder holds."""
    settings, untouched = settings_from(options), settings_from(Namespace())
    set_up(options)
    run = Loop(None if settings == untouched else settings, options.out, options.redo)
    try:
        run.run()
    except Stopped:
        return stopped(run)
    print(f"The report is {run.folder / 'report.html'}.")
    return 0


def report(options: Namespace, config: str) -> int:
    """`rlhf report`: returns the exit status."""
    print(make_report(Path(options.folder)))
    return 0


def stopped(run: Loop) -> int:
    """Say how a run that was stopped goes on; returns the exit status."""
    number = run.stopped.number
    reason = f"stopped by {number.name}" if number else "stopped before all votes were in"
    print(
        f"rlhf: {reason}; finished stages and votes are kept. Go on: rlhf loop --out {run.folder}",
        file=sys.stderr,
    )
    return 128 + number if number else 1
