"""One JSON of all runs, one figure for each experiment, and results.md: every sentence about what held comes from numbers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.science.claims import HELD, REFUTED, UNDECIDED, Claim
from benchmarks.science.running import EXPERIMENTS, module_of, read_runs
from reward_models.files import replacing


def write(out: Path) -> None:
    """Report what is there: experiments without a run are left out."""
    parts = [
        "# What the papers say, reproduced small",
        "",
        "Made by `python -m benchmarks.science`; what held is decided by the criteria that stand beside it, from the runs",
        "that are there. Intervals are 95 % bootstrap intervals over seeds. Undecided: the interval holds the threshold,",
        "or runs are missing.",
    ]  # fmt: skip
    for experiment in EXPERIMENTS:
        runs = read_runs(experiment, out) or _kept(experiment, out)
        if runs:
            keep(runs, out / f"{experiment}.json")
            save(module_of(experiment).figure(runs), out / f"{experiment}.svg")
            parts += section(experiment, runs)
    with replacing(out / "results.md") as file:
        file.write(("\n".join(parts) + "\n").encode())


def _kept(experiment: str, out: Path) -> list[dict[str, Any]]:
    """The runs of an earlier report, whose files of single runs are gone."""
    path = out / f"{experiment}.json"
    return json.loads(path.read_text()) if path.is_file() else []


def keep(runs: list[dict[str, Any]], path: Path) -> None:
    """All runs as one JSON list, a run on each line."""
    with replacing(path) as file:
        file.write(("[\n" + ",\n".join(map(json.dumps, runs)) + "\n]\n").encode())


def save(figure: Any, path: Path) -> None:
    """A figure as SVG, the same bytes for the same numbers."""
    import matplotlib

    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "text-envs"}),
        replacing(path) as file,
    ):
        figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})


def section(experiment: str, runs: list[dict[str, Any]]) -> list[str]:
    """An experiment's part of results.md."""
    module = module_of(experiment)
    claims = module.claims(runs)
    lines = ["", f"## {module.TITLE}", "", f"{module.PAPER}. `python -m benchmarks.science {experiment}`", ""]
    lines += [f"{summary(claims)} {extent(runs)}", "", f"![{module.TITLE}]({experiment}.svg)", ""]
    lines += ["| claim | verdict | found | held when |", "| --- | --- | --- | --- |"]
    lines += [f"| {c.says} | **{c.verdict}** | {c.found} | {c.criterion} |" for c in claims]
    tables = getattr(module, "tables", None)
    return [*lines, *(["", *tables(runs)] if tables else [])]


def summary(claims: list[Claim]) -> str:
    """A sentence on how many claims held, and which did not."""
    count = Counter(claim.verdict for claim in claims)
    if count[HELD] == len(claims):
        return f"It held: all {len(claims)} claims." if len(claims) > 1 else "It held."
    whole = {0: "It did not hold", len(claims): "It held"}.get(count[HELD], "It held in part")
    if not count[HELD] and not count[REFUTED]:
        whole = "It is undecided"
    refuted = [claim.says.rstrip(".") for claim in claims if claim.verdict == REFUTED]
    text = f"{whole}: of {len(claims)} claims {count[HELD]} held, {count[REFUTED]} did not, {count[UNDECIDED]} are undecided."
    return text + (f" What did not hold: {'; '.join(refuted)}." if refuted else "")


def extent(runs: list[dict[str, Any]]) -> str:
    """How many runs of how many conditions and seeds, how long they took, and on what."""
    seeds = Counter(run["settings"]["condition"] for run in runs)
    fewest, most = min(seeds.values()), max(seeds.values())
    span = f"{most}" if fewest == most else f"{fewest} to {most}"
    seconds = sum(run["seconds"] for run in runs)
    versions = runs[0]["versions"]
    cpu = runs[0]["machine"]["cpu"]
    return (
        f"{len(runs)} runs: {len(seeds)} conditions, {span} seeds each; {seconds:.0f} s on one core each of {cpu}, torch "
        f"{versions['torch']}, Python {versions['python']}."
    )
