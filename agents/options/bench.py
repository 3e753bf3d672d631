"""Options of `rlhf bench run` and `rlhf bench report`."""

from typing import Any

from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt

from agents.options.parser import add_flag, new_parser


def run_parser() -> ArgumentParser:
    """Run algorithms on tasks, seed by seed; what is done already is not done again."""
    parser = new_parser("bench run", run_parser.__doc__)
    add: Any = parser.add_argument
    add(
        "--suite",
        type=str,
        default="quick",
        help="quick (minutes), full (a night), or a YAML file like these",
    )
    add(
        "--algorithms",
        type=str,
        nargs="+",
        default=[],
        help="names, or module:attr of your own; default: those of the suite. The baselines always run",
    )
    add(
        "--tasks",
        type=str,
        nargs="+",
        default=[],
        help="names, or environment ids (module:id of your own); default: those of the suite",
    )
    add(
        "--seeds",
        type=PositiveInt | None,
        help="runs of each algorithm on each task; default: as the suite says",
    )
    add("--budget", type=PositiveInt | None, help="generated tokens of a run; default: as the suite says")
    add("--out", type=str, required=True, help="folder of results; runs that are there already are skipped")
    add_flag(parser, "--overwrite", "do runs again whose settings have changed")
    add_flag(
        parser,
        "--tuning",
        "for choosing settings: other seeds, and training prompts in place of held-out ones",
    )
    add("--workers", type=PositiveInt, default=1, help="runs side by side")
    add("--threads", type=PositiveInt, default=1, help="CPU threads of each; with 1, same seed, same scores")
    add(
        "--backend",
        type=str | None,
        help="of joblib: loky (the default), dask, ray, ...; a cluster is that of DASK_SCHEDULER_ADDRESS, RAY_ADDRESS",
    )
    add("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, ...")
    return parser


def report_parser() -> ArgumentParser:
    """Make LEADERBOARD.md and leaderboard.html of the runs in a folder."""
    parser = new_parser("bench report", report_parser.__doc__)
    parser.add_argument("folder", type=str, help="--out of `rlhf bench run`")
    return parser


COMMANDS = {
    "run": (run_parser, "agents.bench.command:run"),
    "report": (report_parser, "agents.bench.command:report"),
}
