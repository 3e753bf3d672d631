"""What `rlhf feedback rate`, `import`, `export` and `stats` do."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reward_models.files import read_rows
from reward_models.preferences import agreement, formats
from reward_models.preferences.glyphs import plain
from reward_models.preferences.records import Demonstration, Origin, Record, RecordError
from reward_models.preferences.rows import kind_of
from reward_models.preferences.store import FeedbackStore, Sample
from reward_models.preferences.terminal import TerminalRater

SHOWN = 20  # rows left out that are listed


def rate(options: Namespace, config: str) -> int:
    """`rlhf feedback rate`: returns the exit status."""
    with _existing(options.db) as store:
        TerminalRater(name=options.rater).rate(store, options.n)
    return 0


def import_files(options: Namespace, config: str) -> int:
    """`rlhf feedback import`: every file is read before anything is stored; returns the exit status."""
    if not options.files:
        raise ValueError("no file is named. Give one or more: rlhf feedback import prompts.txt pairs.jsonl")
    files = {file: _read(file, options) for file in options.files}
    with FeedbackStore(options.db) as store:
        prompts: list[int] = []
        samples: list[int] = []
        for file, found in files.items():
            prompts += store.add_prompts(found.prompts)
            samples += store.add_samples(found.samples)
            votes = store.add_records(found.records, rater=options.rater)
            print(f"{file}: {found.describe(votes)}")
            _report(found.problems)
        if options.request:
            print(_request(store, options, prompts, samples))
        elif prompts or samples:
            print(
                "Raters are asked for nothing yet: --request comparisons, rankings, ratings or demonstrations does."
            )
    return 0


def export(options: Namespace, config: str) -> int:
    """`rlhf feedback export`: returns the exit status."""
    with _existing(options.db) as store:
        written = store.export(options.out, kind=options.kind, format=options.format)
    left_out = f" ({written.left_out} that prefer neither answer left out)" if written.left_out else ""
    print(f"{written.rows} rows{left_out} in {written.path}\nsha256 {written.sha256}")
    return 0


def stats(options: Namespace, config: str) -> int:
    """`rlhf feedback stats`: returns the exit status."""
    with _existing(options.db) as store:
        summary = agreement.summary(store)
    if options.json:
        print(json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    console = Console()
    for table in (_collection(summary), _biases(summary), _raters(summary)):
        console.print(table)
    return 0


def _existing(db: str) -> FeedbackStore:
    """The store that is there; a mistyped path does not make another one.

    Raises:
        ValueError: there is no such file.
    """
    path = db.removeprefix("sqlite:///")
    if "://" not in path and not Path(path).expanduser().is_file():
        raise ValueError(
            f"There is no feedback database at {path}. Name it with --db; `rlhf feedback import` makes one."
        )
    return FeedbackStore(db)


# --- import ----------------------------------------------------------------------------------------------------


@dataclass
class _Found:
    """What a file holds."""

    prompts: list[Any] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    records: Sequence[Record] = ()
    problems: list[str] = field(default_factory=list)

    def describe(self, votes: int) -> str:
        kinds = Counter(kind_of(record) for record in self.records)
        counts = {"prompt": len(self.prompts), "sample": len(self.samples), **kinds}
        parts = [f"{n} {kind}{'' if n == 1 else 's'}" for kind, n in counts.items() if n] or ["no rows"]
        if self.records:
            parts.append(f"{votes} new vote{'' if votes == 1 else 's'}")
        if self.problems:
            parts.append(f"{len(self.problems)} rows left out")
        return ", ".join(parts)


def _read(file: str, options: Namespace) -> _Found:
    """What is in a file.

    Raises:
        RecordError: no such file; rows that cannot be read, unless they are to be left out.
    """
    kind = options.kind
    if Path(file.removesuffix(".gz")).suffix == ".txt":
        if kind not in ("auto", "prompts"):
            raise RecordError(f"{file} holds lines of text, which are prompts. Give {kind} as a .jsonl file.")
        return _Found(prompts=read_rows(file, (".txt",), RecordError)[0])
    kind = _kind_of_rows(file) if kind == "auto" else kind
    reading: Any = "demonstrations" if kind == "samples" else kind
    if kind == "prompts":
        return _prompts(file, options.on_error)
    loaded = formats.read(
        file,
        kind=reading,
        on_error=options.on_error,
        score_field=options.score_field,
    )
    if kind == "samples":
        return _Found(samples=_samples(loaded.records), problems=loaded.problems)
    return _Found(records=loaded.records, problems=loaded.problems)


def _kind_of_rows(file: str) -> str:
    """ "prompts", "samples", or "auto" for what raters said."""
    rows = [row for row in read_rows(file, (".jsonl",), RecordError, problems=[])[0] if isinstance(row, dict)]
    answers = {"completion", "completions", "response", "responses", "chosen", "rejected", "type"}
    if rows and all("prompt" in row and not answers & set(row) for row in rows):
        return "prompts"
    return (
        "samples"
        if rows and all(isinstance(row.get("origin"), dict) and "type" not in row for row in rows)
        else "auto"
    )


def _prompts(file: str, on_error: str) -> _Found:
    problems: list[str] = []
    rows, lines = read_rows(file, (".jsonl",), RecordError, problems)
    good = []
    for row, line in zip(rows, lines):
        if isinstance(row, dict) and isinstance(row.get("prompt"), str):
            good.append(row)
        else:
            problems.append(f"{file}, line {line}, has no text in prompt. Give each row one.")
    if problems and on_error == "raise":
        raise RecordError("\n".join(problems[: formats.SHOWN]))
    return _Found(prompts=good, problems=problems)


def _samples(demonstrations: Sequence[Record]) -> list[Sample]:
    """Answers to be rated. A field in which the answers to one prompt differ belongs to the answer, not to the prompt, and is
    left out: it would make a prompt of its own of each."""
    values: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    counts = Counter(record.prompt for record in demonstrations)
    for record in demonstrations:
        for name, value in record.columns.items():
            values[record.prompt][name].add(json.dumps(value, sort_keys=True))
    seen = Counter((record.prompt, name) for record in demonstrations for name in record.columns)
    samples = []
    for record in demonstrations:
        assert isinstance(record, Demonstration)
        shared = {
            name: value
            for name, value in record.columns.items()
            if len(values[record.prompt][name]) == 1 and seen[record.prompt, name] == counts[record.prompt]
        }
        shared.pop("origin", None)
        origin = record.columns.get("origin")
        samples.append(
            Sample(
                record.prompt,
                record.response,
                Origin.from_json(origin if isinstance(origin, Mapping) else None),
                shared,
            )
        )
    return samples


def _request(store: FeedbackStore, options: Namespace, prompts: list[int], samples: list[int]) -> str:
    """Ask raters about what was imported, or about everything where that was votes alone. Returns what was asked."""
    kind, overlap = options.request, options.overlap
    if kind == "demonstrations":
        items = store.request_demonstrations(overlap=overlap, prompts=prompts or None)
    elif kind == "comparisons":
        items = store.request_comparisons(overlap=overlap, samples=samples or None)
    elif kind == "rankings":
        items = store.request_rankings(k=options.k, overlap=overlap, samples=samples or None)
    else:
        items = store.request_ratings(overlap=overlap, samples=samples or None)
    return f"Asked for {len(items)} {kind}, each of {overlap} rater{'' if overlap == 1 else 's'}."


def _report(problems: Sequence[str]) -> None:
    for problem in problems[:SHOWN]:
        print(f"  left out: {problem}", file=sys.stderr)
    if len(problems) > SHOWN:
        print(f"  ... and {len(problems) - SHOWN} more.", file=sys.stderr)


# --- stats -----------------------------------------------------------------------------------------------------


COEFFICIENTS = {
    "raw_agreement": "agreement",
    "cohen_kappa": "Cohen",
    "fleiss_kappa": "Fleiss",
    "krippendorff_alpha": "Krippendorff",
}


def _collection(summary: Mapping[str, Any]) -> Table:
    kinds = [kind for kind in ("comparisons", "rankings", "ratings", "demonstrations") if kind in summary]
    table = _table(
        f"{summary['votes']} of {summary['votes_needed']} votes, {summary['items_done']} of {summary['items']} items done",
        ["", *(kind.replace("demonstrations", "written") for kind in kinds)],
    )
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
    table = _table("What else decides", ["", "share", "votes"])
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
    table = _table(
        "Raters",
        ["", "votes", "skips", "undone", "seconds", "gold right", "agrees", "left wins"],
    )
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


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    return table


def _estimate(estimate: Mapping[str, Any]) -> str:
    """A value and its 95 % interval; empty where it is not defined."""
    interval = "" if estimate["low"] is None else f" ({estimate['low']:.2f}–{estimate['high']:.2f})"
    return f"{_share(estimate)}{interval}"


def _share(estimate: Mapping[str, Any]) -> str:
    return "" if estimate["value"] is None else f"{estimate['value']:.2f}"
