"""Who gets which item: leases that never exceed an item's overlap. Each function runs within one write transaction."""

from __future__ import annotations

import hashlib
import random
from functools import lru_cache
from typing import Any

from reward_models.preferences.entries import Assignment, Conflict, FeedbackError, NotFound
from reward_models.preferences.schema import assignments, item_samples, items, prompts, raters, sa, samples

# Statements stand at the module's level, built once: building one costs more than SQLite takes to run it.


def assign(
    connection: sa.Connection, rater: int, kinds: frozenset[str], lease: float, now: float
) -> Assignment | None:
    """The rater's open item again, else one they left unfinished, else the next with room that they have not rated.

    Args:
        kinds: only these; empty for all.
        lease: seconds.
        now: unix seconds.
    """
    expire(connection, now)
    mine = connection.execute(_unfinished(kinds), {"rater": rater}).first()
    if mine is not None and mine.state == "open":
        connection.execute(_CHANGE, {"assignment": mine.id, "expires": now + lease})
        return _assignment(connection, mine, rater, mine.id, mine.shown, now + lease)
    row = mine or _next(connection, rater, kinds)
    if row is None:
        return None
    take(connection, row.item, 1)
    lease_of = {"opened": now, "expires": now + lease, "state": "open"}
    if row.id is not None:  # theirs before, and given back
        connection.execute(_CHANGE, {"assignment": row.id, **lease_of})
        return _assignment(connection, row, rater, row.id, row.shown, now + lease)
    responses = connection.scalars(_RESPONSES, {"item": row.item}).all()
    shown = _shuffled(row.item, rater, len(responses))
    new = {"item": row.item, "rater": rater, "shown": shown, "draft": "", **lease_of}
    assignment = connection.execute(_NEW, new).scalar_one()
    return _assignment(connection, row, rater, assignment, shown, now + lease, responses)


def expire(connection: sa.Connection, now: float) -> None:
    """Give back the places of leases that have run out."""
    for assignment, item in connection.execute(_LATE, {"now": now}).all():
        connection.execute(_CHANGE, {"assignment": assignment, "state": "expired"})
        take(connection, item, -1)


def release(connection: sa.Connection, assignment: int, rater: int | None) -> None:
    """Give an item back unrated. Does nothing where it is not in the rater's hands."""
    row = find(connection, assignment, rater)
    if row.state == "open":
        connection.execute(_CHANGE, {"assignment": assignment, "state": "released"})
        take(connection, row.item, -1)


def save_draft(connection: sa.Connection, assignment: int, text: str, rater: int | None) -> None:
    """Keep a text that is not finished yet."""
    if not isinstance(text, str):
        raise FeedbackError(f"A draft is a text, not {type(text).__name__}.")
    if find(connection, assignment, rater).state == "voted":
        raise Conflict(
            f"Assignment {assignment} has been answered: its draft is closed. Undo the vote first."
        )
    connection.execute(_CHANGE, {"assignment": assignment, "draft": text})


def find(connection: sa.Connection, assignment: int, rater: int | None) -> sa.Row[Any]:
    """The assignment's row with its item's kind, overlap and taken.

    Raises:
        NotFound: there is none, or it is not this rater's.
    """
    return found(connection.execute(FIND, {"assignment": assignment}).first(), assignment, rater)


def found(row: Any, assignment: int, rater: int | None) -> sa.Row[Any]:
    """`row`, if it is one of this rater.

    Raises:
        NotFound: it is not.
    """
    if row is None or rater not in (None, row.rater):
        raise NotFound(
            f"There is no assignment {assignment}{'' if rater is None else ' of this rater'}. Ask for one with assign()."
        )
    return row


def load(connection: sa.Connection, assignment: int) -> Assignment:
    """The assignment as its rater sees it."""
    row = connection.execute(_LOAD, {"assignment": assignment}).one()
    return _assignment(connection, row, row.rater, row.id, row.shown, row.expires)


def take(connection: sa.Connection, item: int, places: int) -> None:
    """Count `places` more of the item's overlap as taken; the table's own check refuses one too many."""
    connection.execute(_TAKE, {"item_id": item, "places": places})


def _next(connection: sa.Connection, rater: int, kinds: frozenset[str]) -> Any:
    """The first item with room after the rater's last one, else from the start: what they rated is not read over again."""
    row = connection.execute(_room(kinds, after_last=True), {"rater": rater}).first()
    if row is None:
        row = connection.execute(_room(kinds, after_last=False), {"rater": rater}).first()
    known = connection.scalar(sa.select(_KNOWN), {"rater": rater}) if row is None else row.known
    if known is None:
        raise NotFound(f"There is no rater {rater}. Add one with add_rater(name) or rater(name).")
    return row


def _assignment(
    connection: sa.Connection,
    row: Any,
    rater: int,
    assignment: int,
    shown: list[int],
    expires: float,
    responses: Any = None,
) -> Assignment:
    """From a row of `_SEEN`; `responses` in stored order, read if they are not at hand."""
    if responses is None:
        responses = connection.scalars(_RESPONSES, {"item": row.item}).all()
    return Assignment(
        id=assignment,
        item=row.item,
        rater=rater,
        kind=row.kind,
        prompt=row.text,
        responses=tuple(responses[place] for place in shown),
        columns=row.columns,
        expires=expires,
        draft=row.draft or "",
    )


def _shuffled(item: int, rater: int, n_responses: int) -> list[int]:
    """Places in random order. It follows from item and rater alone, so that a run with the same seed shows the same."""
    seed = int.from_bytes(hashlib.sha256(f"{item}:{rater}".encode()).digest()[:8])
    return random.Random(seed).sample(range(n_responses), n_responses)


_SEEN = (
    items.c.id.label("item"),
    items.c.kind,
    prompts.c.text,
    prompts.c.columns,
    assignments.c.id,
    assignments.c.rater,
    assignments.c.state,
    assignments.c.shown,
    assignments.c.expires,
    assignments.c.draft,
)
_RATER = sa.bindparam("rater", type_=sa.Integer)
_ASSIGNMENT = sa.bindparam("assignment", type_=sa.Integer)
_HAS_ROOM = items.c.taken < items.c.overlap
_LOAD = (
    sa.select(*_SEEN)
    .select_from(assignments.join(items).join(prompts))
    .where(assignments.c.id == _ASSIGNMENT)
)
FIND = (
    sa.select(assignments, items.c.kind, items.c.overlap, items.c.taken)
    .select_from(assignments.join(items))
    .where(assignments.c.id == _ASSIGNMENT)
)
_RESPONSES = (
    sa.select(samples.c.response)
    .select_from(item_samples.join(samples))
    .where(item_samples.c.item == sa.bindparam("item"))
    .order_by(item_samples.c.place)
)
_LAST = sa.select(sa.func.max(assignments.c.item)).where(assignments.c.rater == _RATER).scalar_subquery()
_KNOWN = sa.select(raters.c.id).where(raters.c.id == _RATER).scalar_subquery().label("known")
_LATE = sa.select(assignments.c.id, assignments.c.item).where(
    assignments.c.state == sa.literal_column("'open'"), assignments.c.expires <= sa.bindparam("now")
)
_CHANGE = sa.update(assignments).where(assignments.c.id == _ASSIGNMENT)
_NEW = sa.insert(assignments).returning(assignments.c.id)
_TAKE = (
    sa.update(items)
    .where(items.c.id == sa.bindparam("item_id"))
    .values(taken=items.c.taken + sa.bindparam("places"))
)


def _of(kinds: frozenset[str]) -> sa.ColumnElement[bool]:
    return sa.or_(*(items.c.kind == kind for kind in sorted(kinds))) if kinds else sa.true()


@lru_cache
def _unfinished(kinds: frozenset[str]) -> sa.Select[Any]:
    """What the rater has in hand or let expire: first what an undo has just given back, of several the one rated first."""
    state = assignments.c.state
    return (
        sa.select(*_SEEN)
        .select_from(assignments.join(items).join(prompts))
        .where(
            assignments.c.rater == _RATER,
            state.in_(("open", "expired")),
            (state == "open") | _HAS_ROOM,
            _of(kinds),
        )
        .order_by(state.desc(), assignments.c.opened.desc(), assignments.c.id)
        .limit(1)
    )


@lru_cache
def _room(kinds: frozenset[str], after_last: bool) -> sa.Select[Any]:
    """The first item with room that the rater neither holds nor has rated, what they had of it, and whether they are known.

    Args:
        after_last: of the items after the last one that the rater had; else of all.
    """
    mine = (assignments.c.item == items.c.id) & (assignments.c.rater == _RATER)
    return (
        sa.select(*_SEEN, _KNOWN)
        .select_from(items.join(prompts).outerjoin(assignments, mine))
        .where(
            _HAS_ROOM,
            items.c.id > sa.func.coalesce(_LAST, 0) if after_last else sa.true(),
            assignments.c.id.is_(None) | (assignments.c.state == "released"),
            _of(kinds),
        )
        .order_by(items.c.id)
        .limit(1)
    )
