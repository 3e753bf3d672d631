"""results.json, and the table that is made of it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reward_models.files import replacing, write_json

BAR_MS = 100.0
"""The bar for the 99th percentile of a vote. `passed` holds trials with a pause to it: without one, a queue is measured."""

WRONG = ("lost", "doubled", "over_assigned")


def describe() -> dict[str, Any]:
    """The machine that the figures belong to."""
    names = ("sqlalchemy", "fastapi", "uvicorn", "psycopg")
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
    }


def passed(results: dict[str, Any]) -> bool:
    """Nothing lost, doubled or over-assigned in any trial, every vote there; with a pause between votes, under the bar."""
    trials = [trial for system in results.values() for trial in system.values()]
    return all(
        trial["votes_that_count"] == trial["votes_asked_for"]
        and not any(trial[name] for name in WRONG)
        and (not trial.get("think_seconds") or is_quick(trial))
        for trial in trials
    )


def is_quick(trial: dict[str, Any]) -> bool:
    """Whether the 99th percentile is under the bar."""
    return bool(trial["p99_ms"] < BAR_MS)


def table(results: dict[str, Any]) -> str:
    """One row per database and trial, in Markdown."""
    head = [
        "database",
        "trial",
        "votes acknowledged",
        "lost",
        "doubled",
        "over-assigned",
        "votes/s",
        "p50",
        "p99",
        f"p99 under {BAR_MS:.0f} ms",
    ]
    rows = [head, ["---"] * len(head)]
    rows += [_row(system, trial) for system, trials in results.items() for trial in trials.values()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write(results: dict[str, Any], machine: dict[str, Any], folder: Path) -> None:
    """Write results.json, and results.md from it.

    Args:
        machine: what `describe` says; "raters" and "overlap" tell how many raters there were, and how many saw each pair.
    """
    write_json(folder / "results.json", {"machine": machine, "results": results})
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    text = f"""# Votes that count once, whatever happens

{table(results)}

Made by `python -m benchmarks.feedback`: {machine["raters"]} raters over HTTP at `rlhf feedback serve` on the same
machine, each a thread that asks for a comparison, votes, and takes 2 % of the votes back. Each pair goes to
{machine["overlap"]} raters. "Killed" is SIGKILL of the server at moments evenly spread over the votes; the raters' clients
send again, with the same key, what nobody confirmed.
Lost: confirmed to the client, not in the database. Doubled: there more often than once, or without having been sent.
Over-assigned: an item with more votes and live leases than its overlap. They are counted from the rows, by
`benchmarks/feedback/audit.py`, not by the store.

A vote's time is from sending to the confirmation, when it is synced to disk, as its rater sees it. Without a pause every
rater sends the next request at once, so that the time is that of a queue of all raters at a server that never rests. The bar
is a 99th percentile under {BAR_MS:.0f} ms; the last column says of each timed trial whether it keeps it. The command fails
where the trial with a pause does not, which is still several times faster than people read.

{machine["cpu"]}, {machine["cores"]} cores, which raters, server and database share; load average
{machine["load_average"][0]} at the end; Python {machine["python"]}, {versions}.
"""
    with replacing(folder / "results.md") as file:
        file.write(text.encode())


def _row(system: str, trial: dict[str, Any]) -> list[str]:
    speed = ["", "", "", ""]
    if "p99_ms" in trial:
        times = (f"{trial[name]:.0f} ms" for name in ("p50_ms", "p99_ms"))
        speed = [f"{trial['votes_per_second']:.0f}", *times, "pass" if is_quick(trial) else "fail"]
    acknowledged = f"{trial['votes_acknowledged']:,}"
    return [system, _name(trial), acknowledged, *(str(trial[name]) for name in WRONG), *speed]


def _name(trial: dict[str, Any]) -> str:
    if "kills" in trial:
        return f"killed {trial['kills']} times"
    return f"{trial['think_seconds']:g} s between votes" if trial["think_seconds"] else "without a pause"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
