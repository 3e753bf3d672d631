"""The part of FeedbackStore that says what came of it: progress, records, votes, exports."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import cast

from reward_models.preferences import formats, outcomes, voting
from reward_models.preferences.database import Part
from reward_models.preferences.entries import FeedbackError, Kind, Progress, Vote
from reward_models.preferences.formats import Export, Format
from reward_models.preferences.records import Comparison, Demonstration, Ranking, Rating, Record
from reward_models.preferences.schema import exports, sa, votes

_EXPORTED = {
    "comparisons": "comparison",
    "rankings": "ranking",
    "demonstrations": "demonstration",
    "ratings": "rating",
    "records": None,
}


class Outcomes(Part):
    """What raters answered."""

    def progress(self) -> Progress:
        with self.database.read() as connection:
            return outcomes.progress(connection)

    def comparisons(self) -> list[Comparison]:
        """Current votes on comparisons, oldest first."""
        return cast(list[Comparison], self._records("comparison"))

    def rankings(self) -> list[Ranking]:
        """Current votes on rankings, oldest first."""
        return cast(list[Ranking], self._records("ranking"))

    def demonstrations(self) -> list[Demonstration]:
        """Current demonstrations, oldest first."""
        return cast(list[Demonstration], self._records("demonstration"))

    def ratings(self) -> list[Rating]:
        """Current votes on ratings, oldest first."""
        return cast(list[Rating], self._records("rating"))

    def records(self) -> list[Record]:
        """All of these, oldest first."""
        return self._records(None)

    def _records(self, kind: str | None) -> list[Record]:
        with self.database.read() as connection:
            return outcomes.records(connection, kind)

    def votes(self, since: int = 0, *, current: bool = False) -> list[Vote]:
        """Rows of the table of votes with an id larger than `since`, oldest first.

        Args:
            since: id of the last vote seen; 0 for all.
            current: leave out undos and what they took back.
        """
        query = voting.select_votes().where(votes.c.id > since)
        with self.database.read() as connection:
            rows = connection.execute(query.where(voting.current()) if current else query)
            return [voting.to_vote(row) for row in rows]

    def export(
        self, path: str | os.PathLike[str], *, kind: str = "comparisons", format: Format = "trl"
    ) -> Export:
        """Write the records of one kind to a file, and keep its sha256 in the table of exports.

        Args:
            path: of a .jsonl or .jsonl.gz file, written whole or not at all.
            kind: "comparisons", "rankings", "demonstrations", "ratings" or "records" (all).
            format: see `formats.write`.

        Returns:
            path, rows, sha256.
        """
        if kind not in _EXPORTED:
            raise FeedbackError(
                f"There is nothing called {kind!r} to export. Choose one of {', '.join(_EXPORTED)}."
            )
        with self.database.read() as connection:
            last_vote = connection.scalar(sa.select(sa.func.max(votes.c.id)))
            records = outcomes.records(connection, _EXPORTED[kind])
        export = formats.write(path, records, format=format)
        self.database.write(
            sa.Connection.execute,
            sa.insert(exports),
            {
                "path": os.path.abspath(path),
                "kind": kind,
                "format": format,
                "rows": export.rows,
                "sha256": export.sha256,
                "created": self.clock(),
                "last_vote": last_vote,
            },
        )
        return export

    def wait(
        self,
        n: int,
        *,
        kind: Kind | None = None,
        timeout: float | None = None,
        poll: float = 0.5,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> int:
        """Wait until there are `n` current votes.

        Args:
            kind: only these; None for all.
            timeout: seconds at most; None for as long as it takes.
            poll: seconds between two looks.
            should_stop: asked at every look.

        Returns:
            The votes there are: fewer than `n` where time ran out or `should_stop` said so.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self.database.read() as connection:
                there = outcomes.count(connection, kind)
            late = deadline is not None and time.monotonic() >= deadline
            if there >= n or late or should_stop():
                return there
            time.sleep(poll if deadline is None else min(poll, max(0.0, deadline - time.monotonic())))
