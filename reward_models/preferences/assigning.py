"""Who gets which item: leases that never exceed an item's overlap. Each function runs within one write transaction."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from reward_models.preferences.entries import Assignment, Conflict, FeedbackError, NotFound
from reward_models.preferences.schema import assignments, item_samples, items, prompts, raters, samples


def assign(
    connection: sa.Connection, rater: int, kinds: Collection[str] | None, lease: float, now: float
) -> Assignment | None:
    """The rater's open item again, else one they left unfinished, else the next with room that they have not rated."""
    wanted = sa.true() if kinds is None else items.c.kind.in_(list(kinds))
    mine = connection.execute(
        sa.select(assignments.c.id, assignments.c.item, assignments.c.state)
        .join(items, items.c.id == assignments.c.item)
        .where(
            assignments.c.rater == rater,
            (assignments.c.state == "open")
            | ((assignments.c.state == "expired") & (items.c.taken < items.c.overlap)),
            wanted,
        )
        # What an undo has just given back comes first, and of several the one that was rated first.
        .order_by(assignments.c.state.desc(), assignments.c.opened.desc(), assignments.c.id)
        .limit(1)
    ).first()
    if mine is not None and mine.state == "open":  # still holds its place, even past its time
        connection.execute(
            sa.update(assignments).where(assignments.c.id == mine.id).values(expires=now + lease)
        )
        return load(connection, mine.id)
    expire(connection, now)
    if mine is not None:
        return _open(connection, mine.id, mine.item, lease, now)
    item = _next_item(connection, rater, wanted)
    if item is None:
        _check_rater(connection, rater)
        return None
    earlier = connection.scalar(
        sa.select(assignments.c.id).where(assignments.c.item == item, assignments.c.rater == rater)
    )
    if earlier is not None:
        return _open(connection, earlier, item, lease, now)
    _check_rater(connection, rater)
    n_responses = connection.scalar(
        sa.select(sa.func.count()).select_from(item_samples).where(item_samples.c.item == item)
    )
    new = connection.execute(
        sa.insert(assignments)
        .values(
            item=item,
            rater=rater,
            state="released",
            shown=_shuffled(item, rater, n_responses or 0),
            opened=now,
            expires=now,
            draft="",
        )
        .returning(assignments.c.id)
    ).scalar_one()
    return _open(connection, new, item, lease, now)


def expire(connection: sa.Connection, now: float) -> None:
    """Give back the places of leases that have run out."""
    late = connection.execute(
        sa.select(assignments.c.id, assignments.c.item).where(
            assignments.c.state == "open", assignments.c.expires <= now
        )
    ).all()
    for assignment, item in late:
        _set_state(connection, assignment, "expired")
        take(connection, item, -1)


def release(connection: sa.Connection, assignment: int, rater: int | None) -> None:
    """Give an item back unrated. Does nothing where it is not in the rater's hands."""
    row = find(connection, assignment, rater)
    if row.state == "open":
        _set_state(connection, assignment, "released")
        take(connection, row.item, -1)


def save_draft(connection: sa.Connection, assignment: int, text: str, rater: int | None) -> None:
    """Keep a text that is not finished yet."""
    if not isinstance(text, str):
        raise FeedbackError(f"A draft is a text, not {type(text).__name__}.")
    if find(connection, assignment, rater).state == "voted":
        raise Conflict(
            f"Assignment {assignment} has been answered: its draft is closed. Undo the vote first."
        )
    connection.execute(sa.update(assignments).where(assignments.c.id == assignment).values(draft=text))


def find(connection: sa.Connection, assignment: int, rater: int | None) -> sa.Row[Any]:
    """The assignment's row with its item's kind, overlap and taken.

    Raises:
        NotFound: there is none, or it is not this rater's.
    """
    row = connection.execute(
        sa.select(assignments, items.c.kind, items.c.overlap, items.c.taken)
        .join(items, items.c.id == assignments.c.item)
        .where(assignments.c.id == assignment)
    ).first()
    if row is None or rater not in (None, row.rater):
        raise NotFound(
            f"There is no assignment {assignment}{'' if rater is None else ' of this rater'}. Ask for one with assign()."
        )
    return row


def load(connection: sa.Connection, assignment: int) -> Assignment:
    """The assignment as its rater sees it."""
    row = connection.execute(
        sa.select(assignments, items.c.kind, prompts.c.text, prompts.c.columns)
        .join(items, items.c.id == assignments.c.item)
        .join(prompts, prompts.c.id == items.c.prompt)
        .where(assignments.c.id == assignment)
    ).one()
    responses = connection.scalars(
        sa.select(samples.c.response)
        .join(item_samples, item_samples.c.sample == samples.c.id)
        .where(item_samples.c.item == row.item)
        .order_by(item_samples.c.place)
    ).all()
    return Assignment(
        id=row.id,
        item=row.item,
        rater=row.rater,
        kind=row.kind,
        prompt=row.text,
        responses=tuple(responses[place] for place in row.shown),
        columns=row.columns,
        expires=row.expires,
        draft=row.draft,
    )


def take(connection: sa.Connection, item: int, places: int) -> None:
    """Count `places` more of the item's overlap as taken; the table's own check refuses one too many."""
    connection.execute(sa.update(items).where(items.c.id == item).values(taken=items.c.taken + places))


def _next_item(connection: sa.Connection, rater: int, wanted: sa.ColumnElement[bool]) -> int | None:
    """The first item with room after the rater's last one, else from the start: what they rated is not read over."""
    rated = sa.exists().where(
        assignments.c.item == items.c.id,
        assignments.c.rater == rater,
        assignments.c.state.in_(["open", "voted"]),
    )
    room = (
        sa.select(items.c.id)
        .where(items.c.taken < items.c.overlap, wanted, ~rated)
        .order_by(items.c.id)
        .limit(1)
    )
    last = connection.scalar(sa.select(sa.func.max(assignments.c.item)).where(assignments.c.rater == rater))
    if last is None:
        return connection.scalar(room)
    return connection.scalar(room.where(items.c.id > last)) or connection.scalar(
        room.where(items.c.id < last)
    )


def _open(connection: sa.Connection, assignment: int, item: int, lease: float, now: float) -> Assignment:
    take(connection, item, 1)
    connection.execute(
        sa.update(assignments)
        .where(assignments.c.id == assignment)
        .values(state="open", opened=now, expires=now + lease)
    )
    return load(connection, assignment)


def _set_state(connection: sa.Connection, assignment: int, state: str) -> None:
    connection.execute(sa.update(assignments).where(assignments.c.id == assignment).values(state=state))


def _shuffled(item: int, rater: int, n_responses: int) -> list[int]:
    """Places in random order. It follows from item and rater alone, so that a run with the same seed shows the same."""
    seed = int.from_bytes(hashlib.sha256(f"{item}:{rater}".encode()).digest()[:8])
    return random.Random(seed).sample(range(n_responses), n_responses)


def _check_rater(connection: sa.Connection, rater: int) -> None:
    if connection.scalar(sa.select(raters.c.id).where(raters.c.id == rater)) is None:
        raise NotFound(f"There is no rater {rater}. Add one with add_rater(name) or rater(name).")
