"""Votes: rows that are only ever added, each once. Each function runs within one write transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reward_models.completion import excerpt
from reward_models.preferences import answers, assigning
from reward_models.preferences.entries import Assignment, Conflict, FeedbackError, LeaseExpired, Vote
from reward_models.preferences.schema import assignments, items, sa, votes

MAX_KEY = 200
UNDO = "undo"


def vote(
    connection: sa.Connection,
    assignment: int,
    answer: Mapping[str, Any],
    *,
    key: str,
    reason: str,
    seconds: float | None,
    rater: int | None,
    now: float,
) -> Vote:
    """Record one answer; the same key again gives the vote that it gave the first time.

    A vote is taken after its lease ran out, too, as long as the item has room: the work is done, nobody is wronged.
    """
    check_key(key)
    _check_words(reason, seconds)
    both = connection.execute(_FIND_WITH_KEY, {"assignment": assignment, "key": key}).first()
    row = assigning.found(both, assignment, rater)
    answer = answers.check(row.kind, answer, len(row.shown))
    if row.vote is not None:
        if (row.of, row.vote_kind, row.answer, row.reason) != (assignment, row.kind, answer, reason):
            raise _other_content(key)
        return _vote(row, row.vote, key, row.kind, answer, row.created, reason, row.seconds, repeated=True)
    if row.state == "voted":
        raise Conflict(f"Assignment {assignment} has a vote already. Undo it first, or ask for another one.")
    if row.state != "open":  # late, and its place was given back
        assigning.expire(connection, now)
        if assigning.find(connection, assignment, rater).taken >= row.overlap:
            raise LeaseExpired(
                f"The lease of assignment {assignment} has run out, and others have taken its place since. "
                "Ask for another one."
            )
        assigning.take(connection, row.item, 1)
    connection.execute(_CHANGE, {"of": assignment, "state": "voted", "draft": ""})
    return _insert(connection, row, key, row.kind, answer, now, reason=reason, seconds=seconds)


def undo(connection: sa.Connection, rater: int, *, key: str, lease: float, now: float) -> Assignment | None:
    """Take back the rater's last vote by a row that supersedes it. Its item is theirs again, a demonstration as the draft."""
    check_key(key)
    stored = _with_key(connection, key)
    if stored is not None:
        if stored.kind != UNDO or stored.rater != rater:
            raise _other_content(key)
        return assigning.load(connection, stored.assignment)
    last = connection.execute(_LAST_OF, {"rater": rater}).first()
    if last is None:
        return None
    row = assigning.find(connection, last.assignment, rater)
    _insert(connection, row, key, UNDO, {}, now, supersedes=last.id)
    again = {"state": "open", "opened": now, "expires": now + lease, "draft": last.answer.get("response", "")}
    connection.execute(_CHANGE, {"of": last.assignment, **again})
    return assigning.load(connection, last.assignment)


def current() -> sa.ColumnElement[bool]:
    """Condition: the vote is neither an undo nor taken back by one."""
    later = votes.alias()
    return (votes.c.kind != UNDO) & ~sa.exists().where(later.c.supersedes == votes.c.id)


def select_votes() -> sa.Select[Any]:
    """All that `to_vote` needs, in the order of the votes."""
    return (
        sa.select(votes, assignments.c.item, assignments.c.rater, assignments.c.shown)
        .select_from(votes.join(assignments))
        .order_by(votes.c.id)
    )


def to_vote(row: sa.Row[Any], repeated: bool = False) -> Vote:
    return Vote(
        id=row.id,
        key=row.key,
        item=row.item,
        rater=row.rater,
        assignment=row.assignment,
        kind=row.kind,
        answer=row.answer,
        shown=tuple(row.shown),
        reason=row.reason,
        seconds=row.seconds,
        created=row.created,
        supersedes=row.supersedes,
        repeated=repeated,
    )


def check_key(key: Any) -> None:
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY:
        raise FeedbackError(
            f"The idempotency key is {excerpt(key)}. Give a text of 1 to {MAX_KEY} characters, new for every vote "
            "and the same when one vote is sent again; a UUID serves."
        )


def _check_words(reason: Any, seconds: Any) -> None:
    if not isinstance(reason, str):
        raise FeedbackError(f"The reason is {excerpt(reason)}. Give a text.")
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (is_number and 0 <= seconds < 1e9):
        raise FeedbackError(
            f"The time taken is {excerpt(seconds)}. Give seconds, 0 or more, or leave it out."
        )


def _with_key(connection: sa.Connection, key: str) -> Vote | None:
    row = connection.execute(_WITH_KEY, {"key": key}).first()
    return None if row is None else to_vote(row, repeated=True)


def _other_content(key: str) -> Conflict:
    return Conflict(
        f"The key {excerpt(key)} has been used for something else. Make a new key for every vote."
    )


def _insert(
    connection: sa.Connection,
    row: sa.Row[Any],
    key: str,
    kind: str,
    answer: Mapping[str, Any],
    now: float,
    *,
    reason: str = "",
    seconds: float | None = None,
    supersedes: int | None = None,
) -> Vote:
    """Add a row about an assignment, given as `assigning.find` gives it."""
    said = {"kind": kind, "answer": answer, "reason": reason, "seconds": seconds}
    new = {"key": key, "assignment": row.id, **said, "created": now, "supersedes": supersedes}
    vote = connection.execute(_NEW, new).scalar_one()
    return _vote(row, vote, key, kind, answer, now, reason, seconds, supersedes)


def _vote(
    row: sa.Row[Any],
    vote: int,
    key: str,
    kind: str,
    answer: Mapping[str, Any],
    created: float,
    reason: str,
    seconds: float | None,
    supersedes: int | None = None,
    repeated: bool = False,
) -> Vote:
    """A vote on an assignment, given as `assigning.find` gives it."""
    shown = tuple(row.shown)
    return Vote(
        vote,
        key,
        row.item,
        row.rater,
        row.id,
        kind,
        answer,
        shown,
        reason,
        seconds,
        created,
        supersedes,
        repeated,
    )


_FIND_WITH_KEY = (
    sa.select(
        *assigning.FIND.selected_columns,
        votes.c.id.label("vote"),
        votes.c.assignment.label("of"),
        votes.c.kind.label("vote_kind"),
        votes.c.answer,
        votes.c.reason,
        votes.c.seconds,
        votes.c.created,
    )
    .select_from(assignments.join(items).outerjoin(votes, votes.c.key == sa.bindparam("key")))
    .where(assignments.c.id == sa.bindparam("assignment"))
)
_WITH_KEY = select_votes().where(votes.c.key == sa.bindparam("key"))
_NEW = sa.insert(votes).returning(votes.c.id)
_CHANGE = sa.update(assignments).where(assignments.c.id == sa.bindparam("of"))
_LAST_OF = (
    sa.select(votes.c.id, votes.c.assignment, votes.c.answer)
    .select_from(votes.join(assignments))
    .where(assignments.c.rater == sa.bindparam("rater"), assignments.c.state == "voted", current())
    .order_by(votes.c.id.desc())
    .limit(1)
)
