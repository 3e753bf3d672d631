"""What `rlhf feedback import` does: files of prompts, answers and votes into a store."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from agents.feedback_commands import counted
from reward_models.files import read_rows
from reward_models.preferences import formats, importing, requesting, store_raters
from reward_models.preferences.records import Demonstration, Origin, Record, RecordError
from reward_models.preferences.rows import kind_of
from reward_models.preferences.store import FeedbackStore, Sample

SHOWN = 20  # rows left out that are listed
OVERLAP = {"comparisons": 2, "rankings": 1, "ratings": 1, "demonstrations": 1}
ANSWERS = {
    "completion",
    "completions",
    "response",
    "responses",
    "chosen",
    "rejected",
    "type",
}  # fields of rows


def import_files(options: Namespace, config: str) -> int:
    """`rlhf feedback import`: every file is read before anything is stored; returns the exit status."""
    if not options.files:
        raise ValueError("no file is named. Give one or more: rlhf feedback import prompts.txt pairs.jsonl")
    store_raters.check_name(options.rater)
    files = {file: _read(file, options) for file in options.files}
    if options.request:
        _check_request(options.request, files)
    with FeedbackStore(options.db) as store:
        prompts: list[int] = []
        samples: list[int] = []
        for file, found in files.items():
            prompts += store.add_prompts(found.prompts)
            samples += store.add_samples(found.samples)
            votes = store.add_records(found.records, rater=options.rater)
            store.add_gold_records(found.gold, overlap=options.overlap or OVERLAP["comparisons"])
            print(f"{file}: {found.describe(votes)}")
            _report(found)
        if options.request:
            print(_request(store, options, prompts, samples))
        elif prompts or samples:
            print(
                "Raters are asked for nothing yet: --request comparisons, rankings, ratings or demonstrations does."
            )
    return 0


@dataclass
class _Found:
    """What a file holds."""

    prompts: list[Any] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    records: Sequence[Record] = ()
    gold: Sequence[Record] = ()
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def describe(self, votes: int) -> str:
        kinds = Counter(kind_of(record) for record in self.records)
        counts = {"prompt": len(self.prompts), "sample": len(self.samples), **kinds}
        counts["gold comparison"] = len(self.gold)
        parts = [counted(n, kind) for kind, n in counts.items() if n]
        if self.records:
            parts.append(counted(votes, "new vote"))
        if self.problems:
            parts.append(f"{counted(len(self.problems), 'row')} left out")
        return ", ".join(parts)


def _read(file: str, options: Namespace) -> _Found:
    """What is in a file.

    Raises:
        RecordError: no such file; none with rows; rows that cannot be taken, unless they are to be left out.
    """
    kind = options.kind
    if Path(file.removesuffix(".gz")).suffix == ".txt":
        if kind not in ("auto", "prompts"):
            raise RecordError(f"{file} holds lines of text, which are prompts. Give {kind} as a .jsonl file.")
        found = _Found(prompts=read_rows(file, (".txt",), RecordError)[0])
    else:
        kind = _kind_of_rows(file) if kind == "auto" else kind
        found = _prompts(file, options.on_error) if kind == "prompts" else _answers(file, kind, options)
    if not (found.prompts or found.samples or found.records or found.gold):
        why = "".join(f"\n  left out: {problem}" for problem in found.problems[:SHOWN])
        raise RecordError(f"{file} holds no rows. Name another file.{why}")
    return found


def _answers(file: str, kind: str, options: Namespace) -> _Found:
    """The answers of a file, with or without what raters said of them."""
    reading: Any = {"samples": "demonstrations", "gold": "comparisons"}.get(kind, kind)
    check = {"samples": _check_sample, "gold": importing.check_gold}.get(kind, importing.check)
    records, problems = formats.read(
        file, kind=reading, on_error=options.on_error, score_field=options.score_field, check=check
    )
    if kind == "samples":
        return _Found(samples=_samples(records), problems=problems)
    if kind == "gold":
        return _Found(gold=records, problems=problems)
    return _Found(records=records, problems=problems)


def _kind_of_rows(file: str) -> str:
    """ "prompts", "samples", or "auto" for what raters said."""
    rows = [row for row in read_rows(file, (".jsonl",), RecordError, problems=[])[0] if isinstance(row, dict)]
    if rows and all("prompt" in row and not ANSWERS & set(row) for row in rows):
        return "prompts"
    return (
        "samples"
        if rows and all(isinstance(row.get("origin"), dict) and "type" not in row for row in rows)
        else "auto"
    )


def _prompts(file: str, on_error: str) -> _Found:
    found = _Found()
    rows, lines = read_rows(file, (".jsonl",), RecordError, found.problems)
    for row, line in zip(rows, lines):
        try:
            requesting.as_prompt(row, "the row")
            found.prompts.append(row)
        except ValueError as error:
            found.problems.append(formats.placed(f"{file}, line {line},", error))
    if found.problems and on_error == "raise":
        raise RecordError(formats.listed(found.problems))
    if answers := sorted(ANSWERS & {name for row in found.prompts for name in row}):
        found.notes.append(
            f"{', '.join(answers)} became columns of the prompts. Another --kind reads answers."
        )
    return found


def _check_sample(record: Record) -> None:
    requesting.check_sample(_sample(record, record.columns), "the sample")


def _sample(record: Record, columns: Mapping[str, Any]) -> Sample:
    """An answer to be rated; its column origin is where it came from."""
    assert isinstance(record, Demonstration)
    others = {name: value for name, value in columns.items() if name != "origin"}
    return Sample(record.prompt, record.response, Origin.from_json(record.columns.get("origin")), others)


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
        shared = {
            name: value
            for name, value in record.columns.items()
            if len(values[record.prompt][name]) == 1 and seen[record.prompt, name] == counts[record.prompt]
        }
        samples.append(_sample(record, shared))
    return samples


def _check_request(kind: str, files: Mapping[str, _Found]) -> None:
    """
    Raises:
        ValueError: the files hold nothing of which raters can be asked for this.
    """
    needed = "prompts" if kind == "demonstrations" else "samples"
    if not any(getattr(found, needed) or found.records for found in files.values()):
        verb = {"comparisons": "compare", "rankings": "rank", "ratings": "rate", "demonstrations": "answer"}[
            kind
        ]
        raise ValueError(f"the files hold no {needed} to {verb}. Name one with some, or leave out --request.")


def _request(store: FeedbackStore, options: Namespace, prompts: list[int], samples: list[int]) -> str:
    """Ask raters about what was imported, or about everything where that was votes alone. Returns what was asked."""
    kind = options.request
    overlap = options.overlap or OVERLAP[kind]
    if kind == "demonstrations":
        items = store.request_demonstrations(overlap=overlap, prompts=prompts or None)
    elif kind == "comparisons":
        items = store.request_comparisons(overlap=overlap, pairing=options.pairing, samples=samples or None)
    elif kind == "rankings":
        items = store.request_rankings(k=options.k, overlap=overlap, samples=samples or None)
    else:
        items = store.request_ratings(overlap=overlap, samples=samples or None)
    return f"Asked for {counted(len(items), kind.removesuffix('s'))}, each of {counted(overlap, 'rater')}."


def _report(found: _Found) -> None:
    problems = found.problems
    for note in found.notes:
        print(f"  note: {note}", file=sys.stderr)
    for problem in problems[:SHOWN]:
        print(f"  left out: {problem}", file=sys.stderr)
    if len(problems) > SHOWN:
        print(f"  ... and {len(problems) - SHOWN} more.", file=sys.stderr)
