"""What has come of it: progress, and the records of the current votes. Each function runs within one read transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from reward_models.preferences import answers
from reward_models.preferences.entries import KINDS, Progress, as_stored
from reward_models.preferences.records import (
    Comparison,
    Demonstration,
    Origin,
    Ranking,
    Rating,
    Record,
)
from reward_models.preferences.schema import (
    assignments,
    item_samples,
    items,
    prompts,
    raters,
    sa,
    samples,
    votes,
)
from reward_models.preferences.voting import UNDO, current


def count(connection: sa.Connection, kind: str | None) -> int:
    """Current votes. An assignment is "voted" exactly while its vote is current."""
    query = sa.select(sa.func.count()).select_from(assignments).where(assignments.c.state == "voted")
    if kind is not None:
        query = query.join(items, items.c.id == assignments.c.item).where(items.c.kind == kind)
    return connection.scalar(query) or 0


def progress(connection: sa.Connection) -> Progress:
    return replace(totals(connection), by_rater=_by_rater(connection))


def totals(connection: sa.Connection) -> Progress:
    """Progress without a word about any rater."""
    voted = (
        sa.select(assignments.c.item, sa.func.count().label("votes"))
        .where(assignments.c.state == "voted")
        .group_by(assignments.c.item)
        .subquery()
    )
    n_votes = sa.func.coalesce(voted.c.votes, 0)
    rows = connection.execute(
        sa.select(
            items.c.kind,
            sa.func.count().label("items"),
            sa.func.sum(sa.case((n_votes >= items.c.overlap, 1), else_=0)).label("items_done"),
            sa.func.sum(n_votes).label("votes"),
            sa.func.sum(items.c.overlap).label("votes_needed"),
        )
        .join(voted, voted.c.item == items.c.id, isouter=True)
        .group_by(items.c.kind)
    )
    names = ("items", "items_done", "votes", "votes_needed")
    by_kind = {row.kind: {name: int(getattr(row, name)) for name in names} for row in rows}
    total = {name: sum(numbers[name] for numbers in by_kind.values()) for name in names}
    return Progress(
        **total,
        by_kind={kind: by_kind[kind] for kind in KINDS if kind in by_kind},
        by_rater=(),
    )


@dataclass
class _Work:
    """What one rater has done."""

    votes: int = 0
    skips: int = 0
    undone: int = 0

    def __post_init__(self) -> None:
        self.seconds: list[float] = []
        self.gold: list[float] = []


def _by_rater(connection: sa.Connection) -> tuple[Mapping[str, Any], ...]:
    work: dict[int, _Work] = {}
    rows = connection.execute(
        sa.select(
            assignments.c.rater,
            votes.c.kind,
            votes.c.answer,
            votes.c.seconds,
            assignments.c.shown,
            items.c.gold,
        )
        .join(assignments, assignments.c.id == votes.c.assignment)
        .join(items, items.c.id == assignments.c.item)
        .where(current())
    )
    for row in rows:
        mine = work.setdefault(row.rater, _Work())
        mine.votes += 1
        mine.skips += answers.is_skip(row.kind, row.answer)
        if row.seconds is not None:
            mine.seconds.append(row.seconds)
        if row.gold is not None:
            score = answers.gold_score(row.kind, as_stored(row.kind, row.answer, row.shown), row.gold)
            mine.gold += [] if score is None else [score]
    undone = connection.execute(
        sa.select(assignments.c.rater, sa.func.count().label("n"))
        .join(assignments, assignments.c.id == votes.c.assignment)
        .where(votes.c.kind == UNDO)
        .group_by(assignments.c.rater)
    )
    for row in undone:
        work.setdefault(row.rater, _Work()).undone = row.n
    nothing = _Work()
    found = []
    for rater in connection.execute(sa.select(raters.c.id, raters.c.name).order_by(raters.c.id)):
        mine = work.get(rater.id, nothing)
        found.append(
            {
                "rater": rater.id,
                "name": rater.name,
                "votes": mine.votes,
                "skips": mine.skips,
                "undone": mine.undone,
                "seconds_median": median(mine.seconds) if mine.seconds else None,
                "gold": len(mine.gold),
                "gold_accuracy": sum(mine.gold) / len(mine.gold) if mine.gold else None,
            }
        )
    return tuple(found)


def records(connection: sa.Connection, kind: str | None) -> list[Record]:
    """One record per current vote, in the order of the votes; of one kind or of all. Responses stand in stored order."""
    answers_of: dict[int, list[tuple[str, Origin]]] = {}
    wanted = sa.true() if kind is None else items.c.kind == kind
    rows = connection.execute(
        sa.select(item_samples.c.item, samples.c.response, samples.c.origin)
        .join(samples, samples.c.id == item_samples.c.sample)
        .join(items, items.c.id == item_samples.c.item)
        .where(wanted)
        .order_by(item_samples.c.item, item_samples.c.place)
    )
    for row in rows:
        answers_of.setdefault(row.item, []).append((row.response, Origin.from_json(row.origin)))
    cast = connection.execute(
        sa.select(
            votes, assignments.c.item, assignments.c.shown, prompts.c.text, prompts.c.columns, raters.c.name
        )
        .join(assignments, assignments.c.id == votes.c.assignment)
        .join(raters, raters.c.id == assignments.c.rater)
        .join(items, items.c.id == assignments.c.item)
        .join(prompts, prompts.c.id == items.c.prompt)
        .where(current(), wanted)
        .order_by(votes.c.id)
    )
    return [_record(row, answers_of.get(row.item, [])) for row in cast]


def _record(row: sa.Row[Any], answered: list[tuple[str, Origin]]) -> Record:
    """The record of one vote."""
    responses = tuple(response for response, _ in answered)
    origins = tuple(origin for _, origin in answered)
    answer = as_stored(row.kind, row.answer, row.shown)
    about: dict[str, Any] = {"prompt": row.text, "rater": row.name, "columns": row.columns}
    if row.kind == "demonstration":
        return Demonstration(response=answer["response"], **about)
    about["reason"] = row.reason
    if row.kind == "rating":
        return Rating(response=responses[0], score=answer["score"], origin=origins[0], **about)
    if row.kind == "ranking":
        return Ranking(responses=responses, ranks=tuple(answer["ranks"]), origins=origins, **about)
    left, right = responses
    return Comparison(
        responses=(left, right), choice=answer["choice"], origins=(origins[0], origins[1]), **about
    )
