"""One command, all figures: ``python -m benchmarks.feedback --help``."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.feedback import postgres
from benchmarks.feedback.report import describe, passed, table, write
from benchmarks.feedback.trial import OVERLAP, killed, undisturbed

THINK = 1.0
"""Seconds that a rater thinks in the third trial: still several times faster than people read."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feedback", description=__doc__)
    parser.add_argument(
        "--postgres", default="auto", metavar="URL",
        help="of an empty database; auto: start Debian's server; none: SQLite alone",
    )  # fmt: skip
    parser.add_argument("--votes", type=int, default=10_000)
    parser.add_argument("--raters", type=int, default=32)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="where results.json and results.md go"
    )
    args = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="text-envs-feedback-") as folder:
        results["SQLite"] = measure(SQLite(Path(folder)), args, Path(folder))
        if args.postgres != "none":
            try:
                with (
                    contextlib.nullcontext(args.postgres)
                    if args.postgres != "auto"
                    else postgres.server() as url
                ):
                    results["PostgreSQL"] = measure(PostgreSQL(url), args, Path(folder))
            except postgres.Unavailable as why:
                print(f"Without PostgreSQL: {why}", file=sys.stderr)
    machine = describe() | {"raters": args.raters, "overlap": OVERLAP}
    print(table(results))
    write(results, machine, args.out)
    print(f"Written: {args.out / 'results.md'}, {args.out / 'results.json'}")
    return 0 if passed(results) else 1


class SQLite:
    """Empty files."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.count = 0

    @contextlib.contextmanager
    def empty(self) -> Iterator[str]:
        self.count += 1
        yield str(self.folder / f"feedback {self.count}.db")


class PostgreSQL:
    """Empty schemas."""

    def __init__(self, url: str):
        self.url = url

    def empty(self) -> contextlib.AbstractContextManager[str]:
        return postgres.empty(self.url)


def measure(databases: Any, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The three trials, each on an empty database."""
    log = folder / "server.log"
    calm = max(args.votes // 2, args.raters * 10)
    with databases.empty() as db:
        busy = undisturbed(db, calm, args.raters, log)
        print(f"{type(databases).__name__}, without a pause: {busy}", flush=True)
    with databases.empty() as db:
        paced = undisturbed(db, args.raters * 30, args.raters, log, THINK)
        print(f"{type(databases).__name__}, {THINK:g} s between votes: {paced}", flush=True)
    with databases.empty() as db:
        crash = killed(db, args.votes, args.raters, args.kills, log)
        print(f"{type(databases).__name__}, killed: {crash}", flush=True)
    return {"busy": busy, "paced": paced, "killed": crash}


if __name__ == "__main__":
    sys.exit(main())
