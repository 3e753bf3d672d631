"""What `rlhf feedback stats` does: progress, agreement, biases and raters as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agents.feedback_commands import existing_store
from reward_models.preferences import agreement
from reward_models.preferences.glyphs import plain

DONE = (("votes", "votes_needed"), ("items_done", "items"))
COEFFICIENTS = {
    "raw_agreement": "agreement",
    "cohen_kappa": "Cohen",
    "fleiss_kappa": "Fleiss",
    "krippendorff_alpha": "Krippendorff",
}


def stats(options: Namespace, config: str) -> int:
    """`rlhf feedback stats`: returns the exit status."""
    with existing_store(options.db) as store:
        summary = agreement.summary(store)
    if options.json:
        print(json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    console = Console()
    votes, items = (f"{summary[done]} of {summary[all_]}" for done, all_ in DONE)
    console.print(f"{votes} votes, {items} items done", _collection(summary), sep="\n")
    console.print("What else decides", _biases(summary), "Raters", _raters(summary), sep="\n")
    return 0


def _collection(summary: Mapping[str, Any]) -> Table:
    kinds = [kind for kind in ("comparisons", "rankings", "ratings", "demonstrations") if kind in summary]
    table = _table(["", *(kind.replace("demonstrations", "written") for kind in kinds)])
    for name, heading in (
        ("votes", "votes"),
        ("skips", "skips"),
        ("items_shared", "items shared"),
    ):
        table.add_row(heading, *(str(summary[kind].get(name, "")) for kind in kinds))
    for name, heading in COEFFICIENTS.items():
        cells = [_estimate(summary[kind][name]) if name in summary[kind] else "" for kind in kinds]
        if any(cells):
            table.add_row(heading, *cells)
    return table


def _biases(summary: Mapping[str, Any]) -> Table:
    table = _table(["", "share", "votes"])
    table.add_row(
        "the answer on the left wins", _estimate(summary["position_bias"]), str(summary["position_bias"]["n"])
    )
    table.add_row(
        "the longer answer wins", _estimate(summary["length_bias"]), str(summary["length_bias"]["n"])
    )
    seconds = summary["seconds"]
    if seconds["n"]:
        middle = f"{seconds['median']:.1f} ({seconds['p10']:.1f}–{seconds['p90']:.1f})"
        table.add_row("seconds per vote, median (10 to 90 %)", middle, str(seconds["n"]))
    return table


def _raters(summary: Mapping[str, Any]) -> Table:
    table = _table(["", "votes", "skips", "undone", "seconds", "gold right", "agrees", "left wins"])
    for row in summary["raters"]:
        seconds, gold = row["seconds_median"], row["gold_accuracy"]
        table.add_row(
            Text(plain(row["name"])),
            *(str(row[name]) for name in ("votes", "skips", "undone")),
            "" if seconds is None else f"{seconds:.1f}",
            "" if gold is None else f"{gold:.2f}",
            *(_share(row[name]) for name in ("agreement", "position_bias")),
        )
    return table


def _table(headings: Sequence[str]) -> Table:
    table = Table()
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    return table


def _estimate(estimate: Mapping[str, Any]) -> str:
    """A value and its 95 % interval; empty where it is not defined."""
    interval = "" if estimate["low"] is None else f" ({estimate['low']:.2f}–{estimate['high']:.2f})"
    return f"{_share(estimate)}{interval}"


def _share(estimate: Mapping[str, Any]) -> str:
    return "" if estimate["value"] is None else f"{estimate['value']:.2f}"
