"""Who gets which item: leases that never exceed an item's overlap. Each function runs within one write transaction."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from reward_models.preferences.entries import Assignment, Conflict, FeedbackError, NotFound
from reward_models.preferences.schema import assignments, item_samples, items, prompts, raters, sa, samples

# Statements stand at the module's level, built once: building one costs more than SQLite takes to run it.


def assign(
    connection: sa.Connection, rater: int, kinds: frozenset[str], lease: float, now: float, sweep: bool
) -> Assignment | None:
    """The rater's open item again, else one they left unfinished, else the next with room that they have not rated.

    Args:
        kinds: only these; empty for all.
        lease: seconds.
        now: unix seconds.
        sweep: look for leases that have run out first, and not only where there is nothing else.
    """
    if sweep:
        expire(connection, now)
    seen = connection.execute(_unfinished(kinds), {"rater": rater}).all() or _next(connection, rater, kinds)
    if not seen and expire(connection, now):
        seen = _next(connection, rater, kinds)
    if not seen:
        return None
    row, lease_of = seen[0], {"opened": now, "expires": now + lease, "state": "open"}
    assignment, shown = row.id, row.shown
    if row.state == "open":
        connection.execute(_CHANGE, {"assignment": assignment, "expires": now + lease})
    else:
        take(connection, row.item, 1)
        if assignment is not None:  # theirs before, and given back
            connection.execute(_CHANGE, {"assignment": assignment, **lease_of})
        else:
            shown = _shuffled(row.item, rater, sum(part.response is not None for part in seen))
            new = {"item": row.item, "rater": rater, "shown": shown, "draft": "", **lease_of}
            assignment = connection.execute(_NEW, new).scalar_one()
    return _assignment(seen, rater, assignment, shown, now + lease)


def expire(connection: sa.Connection, now: float) -> int:
    """Give back the places of leases that have run out; returns how many."""
    late = connection.execute(_LATE, {"now": now}).all()
    for assignment, item in late:
        connection.execute(_CHANGE, {"assignment": assignment, "state": "expired"})
        take(connection, item, -1)
    return len(late)


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
    seen = connection.execute(_LOAD, {"assignment": assignment}).all()
    return _assignment(seen, seen[0].rater, assignment, seen[0].shown, seen[0].expires)


def take(connection: sa.Connection, item: int, places: int) -> None:
    """Count `places` more of the item's overlap as taken; the table's own check refuses one too many."""
    connection.execute(_TAKE, {"item_id": item, "places": places})


def _next(connection: sa.Connection, rater: int, kinds: frozenset[str]) -> Sequence[sa.Row[Any]]:
    """The first item with room after the rater's last one, else from the start: what they rated is not read over again."""
    seen = connection.execute(_room(kinds, after_last=True), {"rater": rater}).all()
    if not seen:
        seen = connection.execute(_room(kinds, after_last=False), {"rater": rater}).all()
    known = seen[0].known if seen else connection.scalar(sa.select(_KNOWN), {"rater": rater})
    if known is None:
        raise NotFound(f"There is no rater {rater}. Add one with add_rater(name) or rater(name).")
    return seen


def _assignment(
    seen: Sequence[sa.Row[Any]], rater: int, assignment: int, shown: Sequence[int], expires: float
) -> Assignment:
    """From the rows of `_with_responses`, one for each response, in stored order."""
    row = seen[0]
    return Assignment(
        id=assignment,
        item=row.item,
        rater=rater,
        kind=row.kind,
        prompt=row.text,
        responses=tuple(seen[place].response for place in shown),
        columns=row.columns,
        expires=expires,
        draft=row.draft or "",
    )


def _shuffled(item: int, rater: int, n_responses: int) -> list[int]:
    """Places in random order. It follows from item and rater alone, so that a run with the same seed shows the same."""
    seed = int.from_bytes(hashlib.sha256(f"{item}:{rater}".encode()).digest()[:8])
    return random.Random(seed).sample(range(n_responses), n_responses)


_RATER = sa.bindparam("rater", type_=sa.Integer)
_ASSIGNMENT = sa.bindparam("assignment", type_=sa.Integer)
_HAS_ROOM = items.c.taken < items.c.overlap
_HELD = (
    items.c.id.label("item"),
    items.c.kind,
    items.c.prompt,
    *(assignments.c[name] for name in ("id", "rater", "state", "shown", "expires", "draft")),
)


def _with_responses(held: sa.Select[Any]) -> sa.Select[Any]:
    """What `held` selects of one item, with the prompt, and a row for each response in stored order."""
    one = held.subquery()
    return (
        sa.select(one, prompts.c.text, prompts.c.columns, samples.c.response)
        .select_from(
            one.join(prompts, prompts.c.id == one.c.prompt)
            .outerjoin(item_samples, item_samples.c.item == one.c.item)
            .outerjoin(samples, samples.c.id == item_samples.c.sample)
        )
        .order_by(item_samples.c.place)
    )


_LOAD = _with_responses(
    sa.select(*_HELD).select_from(assignments.join(items)).where(assignments.c.id == _ASSIGNMENT)
)
FIND = (
    sa.select(assignments, items.c.kind, items.c.overlap, items.c.taken)
    .select_from(assignments.join(items))
    .where(assignments.c.id == _ASSIGNMENT)
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
    return _with_responses(
        sa.select(*_HELD)
        .select_from(assignments.join(items))
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
    return _with_responses(
        sa.select(*_HELD, _KNOWN)
        .select_from(items.outerjoin(assignments, mine))
        .where(
            _HAS_ROOM,
            items.c.id > sa.func.coalesce(_LAST, 0) if after_last else sa.true(),
            assignments.c.id.is_(None) | (assignments.c.state == "released"),
            _of(kinds),
        )
        .order_by(items.c.id)
        .limit(1)
    )
