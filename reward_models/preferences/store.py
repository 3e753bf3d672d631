"""FeedbackStore: what is asked of raters and what they answered, in SQLite or PostgreSQL, safe against crashes and crowds."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from reward_models.completion import excerpt
from reward_models.preferences import assigning, voting
from reward_models.preferences.database import Database, checked_id
from reward_models.preferences.entries import (
    KINDS,
    Assignment,
    Conflict,
    FeedbackError,
    Item,
    Kind,
    LeaseExpired,
    NotFound,
    Progress,
    Rater,
    RaterAccess,
    Sample,
    Vote,
)
from reward_models.preferences.importing import Imports
from reward_models.preferences.schema import meta, sa
from reward_models.preferences.store_items import Items
from reward_models.preferences.store_outcomes import Outcomes
from reward_models.preferences.store_raters import Raters

__all__ = [
    "KINDS",
    "Assignment",
    "Conflict",
    "FeedbackError",
    "FeedbackStore",
    "Item",
    "Kind",
    "LeaseExpired",
    "NotFound",
    "Progress",
    "Rater",
    "RaterAccess",
    "Sample",
    "Vote",
]

LEASE = 600.0
"""Seconds that a rater has for one item before its place is given to others. Ten minutes: a demonstration takes that long."""

SWEEP_SECONDS = 1.0
"""Between two searches for leases that ran out; so long may one hold its place beyond its time."""


class FeedbackStore(Items, Raters, Imports, Outcomes):
    """Prompts, samples, items to rate, raters, and their votes.

    Three promises hold in any number of threads and processes, and when one of them is killed:

    - a vote that `vote` returned is stored, once, however often the client sends it again with its key;
    - an item never has more votes and leases together than its overlap;
    - a rater rates an item at most once.

    Votes are only ever added. Taking one back adds a row that supersedes it.

    Args:
        url: a path (SQLite, made if it is missing, readable by its owner alone) or a URL: sqlite:///feedback.db,
            postgresql://user:password@host/database.
        clock: unix seconds; leases run by it.

    Raises:
        FeedbackError: the database cannot be opened, is not a feedback store, or is of a newer version.

    Example:
        >>> store = FeedbackStore("feedback.db")
        >>> store.add_samples([Sample("2 + 2 =", "4"), Sample("2 + 2 =", "five")])
        >>> store.request_comparisons()
        >>> ann = store.rater("Ann")
        >>> assignment = store.assign(ann.id)
        >>> store.vote(assignment.id, {"choice": "left"}, key=str(uuid.uuid4()))
        >>> store.comparisons()
    """

    def __init__(
        self, url: str | os.PathLike[str] = "feedback.db", *, clock: Callable[[], float] = time.time
    ):
        self.database = Database(url)
        self.clock = clock
        self.swept = -math.inf

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> FeedbackStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def assign(
        self, rater: int, *, kinds: Collection[str] | None = None, lease: float = LEASE
    ) -> Assignment | None:
        """Hand one item to a rater; None where there is nothing for them to do.

        An item that they hold already is given again, its lease renewed; then one whose lease they let run out, with its
        draft; then the next one with room that they have not rated.

        Args:
            rater: id.
            kinds: only these; None for all.
            lease: seconds until its place may be given to others.
        """
        rater = checked_id(rater, "rater")
        unknown = set(kinds or ()) - set(KINDS)
        if unknown or not 0 <= lease <= 1e9:
            what = f"There is no kind {sorted(unknown)}" if unknown else f"The lease is {lease} seconds"
            raise FeedbackError(f"{what}. Kinds are {', '.join(KINDS)}; a lease is 0 seconds or more.")
        now = self.clock()
        sweep = abs(now - self.swept) >= SWEEP_SECONDS
        if sweep:
            self.swept = now
        return self.database.write(assigning.assign, rater, frozenset(kinds or ()), lease, now, sweep)

    def release(self, assignment: int, *, rater: int | None = None) -> None:
        """Give an item back unrated; others may have it at once, the same rater after all others.

        Args:
            assignment: id.
            rater: whose it must be; None where the caller has seen to that.
        """
        self.database.write(assigning.release, checked_id(assignment, "assignment"), rater)

    def save_draft(self, assignment: int, text: str, *, rater: int | None = None) -> None:
        """Keep an unfinished text; the assignment carries it as `draft`."""
        self.database.write(assigning.save_draft, checked_id(assignment, "assignment"), text, rater)

    def vote(
        self,
        assignment: int,
        answer: Mapping[str, Any],
        *,
        key: str,
        reason: str = "",
        seconds: float | None = None,
        rater: int | None = None,
    ) -> Vote:
        """Record an answer. When this returns, the vote is on disk.

        Args:
            assignment: id.
            answer: about the responses in the order shown. Comparison: {"choice": "left" | "right" | "tie" | "both_bad" |
                "skip"}; ranking: {"ranks": [1, 2, 2, None]}; demonstration: {"response": "..."}; rating: {"score": 4}.
            key: made by the client for this vote. Sent again with the same content, it gives the same vote, `repeated`.
            reason: the rater's own words.
            seconds: that the rater took.
            rater: whose assignment it must be; None where the caller has seen to that.

        Raises:
            FeedbackError: the answer is not of the kind's shape.
            NotFound: no such assignment, or another rater's.
            Conflict: the key was used for something else, or the assignment has its vote.
            LeaseExpired: the lease ran out and the item is full. As long as it has room, a late vote counts.
        """
        return self.database.write(
            voting.vote,
            checked_id(assignment, "assignment"),
            answer,
            key=key,
            reason=reason,
            seconds=seconds,
            rater=rater,
            now=self.clock(),
        )

    def undo(self, rater: int, *, key: str, lease: float = LEASE) -> Assignment | None:
        """Take back the rater's last vote and put its item into their hands again; None where they have no vote.

        Args:
            rater: id.
            key: made by the client for this undo, as for a vote.
            lease: seconds.
        """
        rater = checked_id(rater, "rater")
        return self.database.write(voting.undo, rater, key=key, lease=lease, now=self.clock())

    @property
    def guidelines(self) -> str:
        """What the organiser tells raters; "" before they have written anything."""
        return self.get_meta("guidelines") or ""

    @guidelines.setter
    def guidelines(self, text: str) -> None:
        self.set_meta("guidelines", text)

    def get_meta(self, key: str, default: str | None = None) -> str | None:
        """A text that was kept under a name."""
        with self.database.read() as connection:
            value = connection.scalar(sa.select(meta.c.value).where(meta.c.key == key))
        return default if value is None else value

    def set_meta(self, key: str, value: str) -> None:
        """Keep a text under a name, at most 200 characters long; "version" is the store's own."""
        if key == "version" or not 1 <= len(key) <= 200 or not key.isprintable():
            raise FeedbackError(
                f"{excerpt(key)} cannot be the name of a note. Choose another of 1 to 200 printable characters."
            )
        self.database.write(_set_meta, key, value)


def _set_meta(connection: sa.Connection, key: str, value: str) -> None:
    changed = connection.execute(sa.update(meta).where(meta.c.key == key).values(value=value))
    if not changed.rowcount:
        connection.execute(sa.insert(meta).values(key=key, value=value))
