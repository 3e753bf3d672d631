"""What `rlhf feedback rate` and `export` do."""

from __future__ import annotations

import sys
from pathlib import Path

from jsonargparse import Namespace

from reward_models.preferences.glyphs import plain
from reward_models.preferences.store import FeedbackStore
from reward_models.preferences.terminal import TerminalRater


def rate(options: Namespace, config: str) -> int:
    """`rlhf feedback rate`: returns the exit status."""
    with existing_store(options.db) as store:
        rater = TerminalRater(name=options.rater)
        if rater.name not in {known.name for known in store.raters()}:
            print(f"New rater: {plain(rater.name)}")
        rater.rate(store, options.n)
    return 0


def export(options: Namespace, config: str) -> int:
    """`rlhf feedback export`: returns the exit status."""
    if Path(options.out).exists() and not options.overwrite:
        raise FileExistsError(f"{options.out} is there already. Name another file, or say --overwrite.")
    with existing_store(options.db) as store:
        written = store.export(options.out, kind=options.kind, format=options.format)
    left_out = f" ({written.left_out} that prefer neither answer left out)" if written.left_out else ""
    print(f"{counted(written.rows, 'row')}{left_out} in {written.path}\nsha256 {written.sha256}")
    if not written.rows:
        print(f"There are no {options.kind} to export yet: the file is empty.", file=sys.stderr)
    return 0


def existing_store(db: str) -> FeedbackStore:
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


def counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
