"""Counts what must be zero, from the rows themselves: nothing here trusts the store's own counters or conditions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from reward_models.preferences.schema import assignments, items, sa, votes
from reward_models.preferences.store import FeedbackStore


def audit(
    store: FeedbackStore,
    acknowledged: Mapping[str, Mapping[str, Any]],
    undone: Collection[str] = (),
    now: float | None = None,
) -> dict[str, int]:
    """How many votes and items are wrong.

    Args:
        store: to be looked at.
        acknowledged: key -> answer of every vote whose arrival the store has confirmed.
        undone: keys of every undo that it has confirmed.
        now: unix seconds; leases that end later are live. None for the store's own clock.

    Returns:
        lost: acknowledged keys without a row, or whose row says something else. doubled: rows beyond the first of a key,
        current votes of one rater on one item beyond the first, and rows that nobody sent. over_assigned: items with more
        current votes and live leases than their overlap.
    """
    now = store.clock() if now is None else now
    with store.database.read() as connection:
        rows = connection.execute(
            sa.select(votes, assignments.c.item, assignments.c.rater).join(
                assignments, assignments.c.id == votes.c.assignment
            )
        ).all()
        leases = connection.execute(
            sa.select(assignments.c.item).where(assignments.c.state == "open", assignments.c.expires > now)
        ).all()
        overlap = {row.id: row.overlap for row in connection.execute(sa.select(items.c.id, items.c.overlap))}
    answers = {row.key: row.answer for row in rows}
    lost = sum(answers.get(key) != answer for key, answer in acknowledged.items())
    lost += len(set(undone) - set(answers))
    superseded = {row.supersedes for row in rows}
    current = [row for row in rows if row.kind != "undo" and row.id not in superseded]
    per_key = Counter(row.key for row in rows)
    per_rater = Counter((row.item, row.rater) for row in current)
    doubled = sum((per_key - Counter(set(per_key))).values()) + sum(
        (per_rater - Counter(set(per_rater))).values()
    )
    doubled += len(set(answers) - set(acknowledged) - set(undone))
    places = Counter(row.item for row in current) + Counter(row.item for row in leases)
    over_assigned = sum(places[item] > overlap[item] for item in places)
    return {"lost": lost, "doubled": doubled, "over_assigned": over_assigned}
