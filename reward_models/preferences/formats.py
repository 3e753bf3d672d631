"""Files of preferences: read whatever shape they have, write the shape that is asked for.

`rows` lists the shapes, `conversational` says how a conversation becomes text, `rankings` how a ranking becomes pairs.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from reward_models.files import read_rows, replacing
from reward_models.preferences.rankings import pairs_of, ranking_of, rankings_of
from reward_models.preferences.records import (
    Comparison,
    Demonstration,
    Ranking,
    Record,
    RecordError,
)
from reward_models.preferences.rows import Row, dialogue_row, full_row, kind_of, plain_row, record_of

__all__ = ["Export", "Loaded", "pairs_of", "ranking_of", "rankings_of", "read", "to_dataset", "write"]

logger = logging.getLogger("reward_models")

Kind = Literal["auto", "demonstrations", "ratings", "comparisons", "rankings"]
Format = Literal["trl", "conversational", "ranked", "hh", "full"]
SHOWN = 5  # problems that one error message shows


class Loaded(NamedTuple):
    """What a file holds, and what is wrong with the rows that were left out, each with its place."""

    records: list[Record]
    problems: list[str]


@dataclass(frozen=True, slots=True)
class Export:
    """A file that was written: where, how many rows, the sha256 of its bytes; how many records its format has no row for."""

    path: Path
    rows: int
    sha256: str
    left_out: int = 0


def read(
    source: Any,
    *,
    kind: Kind = "auto",
    on_error: Literal["raise", "drop"] = "raise",
    score_field: str | None = None,
    check: Callable[[Record], object] = lambda record: None,
) -> Loaded:
    """Read preferences.

    Args:
        source: the path of a ``.jsonl`` or ``.jsonl.gz`` file, a list of dicts, or a ``datasets.Dataset``.
        kind: what every row must be. "auto": whatever each one is. A response with a number beside it is a rating in
            "auto", and a demonstration where demonstrations are asked for.
        on_error: "raise": a row that is no such record refuses the whole. "drop": it is left out and listed.
        score_field: the field of a rating's number; None: score, reward, rating or label.
        check: raises a ValueError about a record that is not wanted, such as `importing.check`: a bad row then.

    Returns:
        The records in the order of the rows, and one sentence for each row left out: file and line, what, how to mend.

    Raises:
        RecordError: the bad rows, if ``on_error`` is "raise"; no such file.
    """
    _check(kind, Kind, "kind")
    _check(on_error, Literal["raise", "drop"], "on_error")
    problems: list[str] = []
    rows, where = _rows(source, problems)
    records = []
    for index, row in enumerate(rows):
        try:
            record = record_of(row, kind.removesuffix("s"), score_field)
            check(record)
            records.append(record)
        except ValueError as error:
            problems.append(placed(where(index), error))
    if problems and on_error == "raise":
        raise RecordError(listed(problems))
    return Loaded(records, problems)


def placed(place: str, error: Exception) -> str:
    """A reason with its place before it, of which the reason says something, or which stands for itself."""
    return f"{place} {error}" if str(error)[0].islower() else f"{place.rstrip(',')}: {error}"


def listed(problems: Sequence[str]) -> str:
    """One problem; or several, and how many."""
    if len(problems) == 1:
        return problems[0]
    more = [f"... and {len(problems) - SHOWN} more."] if len(problems) > SHOWN else []
    return "\n  ".join([f"{len(problems)} rows cannot be read:", *problems[:SHOWN], *more])


def write(path: str | os.PathLike[str], records: Iterable[Record], format: Format = "trl") -> Export:
    """Write records as JSONL, gzipped where the name ends in ``.gz``; the same records give the same bytes.

    Args:
        path: ends in ``.jsonl`` or ``.jsonl.gz``.
        records: of one kind, but for "full".
        format: "trl": prompt and chosen/rejected, or completion; rankings become their pairs. "conversational": the same
            with messages. "ranked": prompt, completions, ranks; pairs of rankings become rankings. "hh": hh-rlhf's full
            dialogues. "full": everything, of any kind. All but "full" leave out origins, and, where a pair needs a winner,
            comparisons that prefer neither answer; they are counted in the result.

    Raises:
        RecordError: records that have no such form. Nothing is written then.
    """
    path = Path(path)
    if Path(path.stem if path.suffix == ".gz" else path.name).suffix != ".jsonl":
        raise RecordError(f"{path} ends in neither .jsonl nor .jsonl.gz. Name it so.")
    rows, left_out = _rows_of(list(records), format)
    content = b"".join(_line(row, index) for index, row in enumerate(rows))
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    with replacing(path) as file:
        file.write(content)
    return Export(path, len(rows), hashlib.sha256(content).hexdigest(), left_out)


def to_dataset(records: Iterable[Record], format: Format = "trl") -> Any:
    """The rows that `write` would write, as a ``datasets.Dataset``; `read` takes it back.

    In "full", what has no fixed fields (columns, origins) is JSON in a string, because a table's columns have types.

    Raises:
        RecordError: records that have no such form; columns that hold values of several types.
        ImportError: the package `datasets` is missing.
    """
    try:
        import datasets
        import pyarrow  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("to_dataset needs the package datasets: pip install datasets") from error
    rows = (
        [full_row(record, packed=True) for record in records]
        if format == "full"
        else _rows_of(list(records), format)[0]
    )
    names = dict.fromkeys(
        name for row in rows for name in row
    )  # from_list takes the first row's for all there are
    try:
        return datasets.Dataset.from_list([{name: row.get(name) for name in names} for row in rows])
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
        raise RecordError(
            f"The columns are no table: {error}. Give each one type, or use format='full'."
        ) from error


def _rows(source: Any, problems: list[str]) -> tuple[Iterable[Any], Callable[[int], str]]:
    """The rows of a source, and how to name row i. Lines that cannot be read are listed in `problems`."""
    if isinstance(source, str | os.PathLike):
        rows, lines = read_rows(source, (".jsonl",), RecordError, problems)
        return rows, lambda index: f"{os.fspath(source)}, line {lines[index]},"
    if isinstance(source, dict) or not hasattr(source, "__iter__"):
        hint = " Choose a split of it." if hasattr(source, "keys") else ""
        raise RecordError(
            f"Preferences are a {type(source).__name__}. Give a .jsonl path, a list of dicts or a datasets.Dataset.{hint}"
        )
    return source, lambda index: f"Row {index}"


def _rows_of(records: list[Record], format: Format) -> tuple[list[Row], int]:
    """The rows that a format makes of the records, and how many records it leaves out."""
    _check(format, Format, "format")
    if format == "full":
        return [full_row(record) for record in records], 0
    if format == "ranked":
        alone = [record for record in records if not isinstance(record, Comparison)]
        records = [*alone, *rankings_of(record for record in records if isinstance(record, Comparison))]
        _only(records, Ranking, format)
        rows = [plain_row(record) for record in records]
    else:
        records = [
            pair
            for record in records
            for pair in (pairs_of(record) if isinstance(record, Ranking) else [record])
        ]
        cls = Comparison if format == "hh" else type(records[0]) if records else Demonstration
        _only(records, cls, format)
        if format == "hh":
            rows = [dialogue_row(record) for record in records]
        else:
            rows = [plain_row(record, format == "conversational") for record in _even_margins(records)]
    kept = [row for row in rows if row is not None]
    return kept, len(rows) - len(kept)


def _even_margins(records: list[Record]) -> list[Record]:
    """TRL's trainer takes a margin from every pair or from none."""
    margins = [isinstance(record, Comparison) and record.margin is not None for record in records]
    if all(margins) or not any(margins):
        return records
    logger.warning(
        "%d of %d pairs have a margin, so none is written; format 'full' keeps them.",
        sum(margins),
        len(margins),
    )
    return [replace(record, margin=None) if isinstance(record, Comparison) else record for record in records]


def _only(records: list[Record], cls: type, format: str) -> None:
    for record in records:
        if not isinstance(record, cls):
            kinds = sorted({kind_of(record) for record in records})
            raise RecordError(
                f"The format {format!r} cannot hold {' and '.join(f'{kind}s' for kind in kinds)} in one file. "
                "Write one kind at a time, or use 'full'."
            )


def _line(row: Row, index: int) -> bytes:
    try:
        return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise RecordError(
            f"Record {index} cannot be JSON: {error}. Give columns of texts, finite numbers, lists and dicts."
        ) from error


def _check(value: str, choices: Any, name: str) -> None:
    if value not in get_args(choices):
        raise RecordError(f"{name} is {value!r}. Choose one of {', '.join(get_args(choices))}.")
