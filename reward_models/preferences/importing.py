"""The part of FeedbackStore that takes in what was said elsewhere: a record becomes an item and one vote on it."""

from __future__ import annotations

import hashlib
import itertools
import logging
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward_models.completion import excerpt
from reward_models.preferences import answers, requesting, store_raters
from reward_models.preferences.database import Part
from reward_models.preferences.entries import FeedbackError, Sample
from reward_models.preferences.rankings import PLACES, rankings_of
from reward_models.preferences.records import Comparison, Demonstration, Origin, Ranking, Rating, Record
from reward_models.preferences.rows import kind_of
from reward_models.preferences.schema import assignments, canonical, item_samples, items, sa, votes

logger = logging.getLogger("reward_models")

SIDES = ("left", "right")


class Imports(Part):
    """What was said elsewhere."""

    def add_records(self, records: Iterable[Record], *, rater: str = "import") -> int:
        """Store records, with their prompts and samples, as items and votes on them; the same records again add nothing.

        A vote is its record's rater's. Of those that name none it is `rater`'s, and where that one has rated the item,
        "import 2"'s, and so on. It grows the item's overlap where there is no room. Pairs that were made of a ranking enter
        as that ranking. The order of the answers, in the store and as if shown, is drawn: in files the better one often
        stands first, which would count as a bias of raters. Margins and weights are not kept.

        Args:
            records: demonstrations, ratings, comparisons, rankings.
            rater: who said what names no rater.

        Returns:
            How many votes were added. Where a named rater has a vote on the item, it is left as it is.

        Raises:
            FeedbackError: a record that no rater could have given, such as a blank demonstration; nothing is stored then.
        """
        return self.database.write(_add_records, _whole(list(records)), rater, self.clock())

    def add_gold_records(self, records: Iterable[Record], *, overlap: int = 2) -> list[int]:
        """Ask for what these records are about; they are the right answers, on which raters' quality is measured.

        Args:
            records: comparisons, rankings or ratings. Who said them is not kept.
            overlap: how many raters see each.

        Returns:
            Ids of the items.

        Raises:
            FeedbackError: a record that is no right answer, such as a demonstration or a skip; nothing is stored then.
        """
        requesting.check_overlap(overlap, None)
        return self.database.write(_add_gold, _whole(list(records)), overlap, self.clock())


def check(record: Record) -> None:
    """Whether a rater could have given a record.

    Raises:
        FeedbackError: no, and why.
    """
    _as_said(record)


def check_gold(record: Record) -> None:
    """Whether a record can be a right answer.

    Raises:
        FeedbackError: no, and why.
    """
    said = _as_said(record)
    requesting.check_gold(said.kind, said.answer)


@dataclass(frozen=True, slots=True)
class _Said:
    """A record as the store has it; the answer is about the samples in this order."""

    kind: str
    prompt: str
    columns: Mapping[str, Any]
    samples: tuple[Sample, ...]
    answer: Mapping[str, Any]
    rater: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Vote:
    """A vote to be added; the answer is about the responses in stored order."""

    item: int
    rater: int
    key: str
    kind: str
    answer: Mapping[str, Any]
    reason: str


def _whole(records: Sequence[Record]) -> list[Record]:
    """The records, with rankings in place of the pairs that were made of them."""
    pairs = [record for record in records if isinstance(record, Comparison) and PLACES in record.columns]
    others = [
        record for record in records if not (isinstance(record, Comparison) and PLACES in record.columns)
    ]
    lost = sum(
        isinstance(record, Comparison | Ranking)
        and (record.weight != 1.0 or getattr(record, "margin", None) is not None)
        for record in records
    )
    if lost:
        logger.warning("%d records have a margin or a weight, which a feedback store does not keep.", lost)
    return [*others, *rankings_of(pairs)]


def _add_records(connection: sa.Connection, records: Sequence[Record], unknown: str, now: float) -> int:
    said = _all_said(records)
    said_of, samples_of = _add_items(connection, said, 0, now)
    stored, there = _stored_samples(connection, said_of), _keys_there(connection, said_of)
    raters: dict[str, int] = {}
    used: set[tuple[int, int]] = set()  # (item, rater) of the records before this one
    new: list[_Vote] = []
    for record, item, samples in zip(said, said_of, samples_of):
        answer = _about_places(record.answer, _places(samples, stored.get(item, [])))
        for name in _names(record.rater, unknown):
            if name not in raters:
                store_raters.check_name(name)
                raters[name] = store_raters.find_or_add(connection, name, now).id
            key = (
                "import-"
                + hashlib.sha256(canonical([item, name, answer, record.reason]).encode()).hexdigest()[:32]
            )
            mine = (item, raters[name])
            if mine in used:
                continue
            used.add(mine)
            if mine not in there:
                new.append(_Vote(*mine, key, record.kind, answer, record.reason))
            elif not record.rater and key not in there[mine]:
                continue
            break
    _insert(connection, new, now)
    return len(new)


def _add_gold(connection: sa.Connection, records: Sequence[Record], overlap: int, now: float) -> list[int]:
    said = _all_said(records)
    found, samples_of = _add_items(connection, said, overlap, now)
    stored = _stored_samples(connection, found)
    for record, item, samples in zip(said, found, samples_of):
        answer = _about_places(record.answer, _places(samples, stored.get(item, [])))
        requesting.add_gold(connection, item, answer)
    return found


def _names(rater: str, unknown: str) -> Iterable[str]:
    """Who may cast a record's vote, one after the other."""
    return [rater] if rater else itertools.chain([unknown], (f"{unknown} {n}" for n in itertools.count(2)))


def _all_said(records: Sequence[Record]) -> list[_Said]:
    """
    Raises:
        FeedbackError: no rater could have given one of the answers; with the record's index.
    """
    said = []
    for index, record in enumerate(records):
        try:
            said.append(_as_said(record))
        except FeedbackError as error:
            raise FeedbackError(f"Record {index}, on the prompt {excerpt(record.prompt)}: {error}") from error
    return said


def _as_said(record: Record) -> _Said:
    """
    Raises:
        FeedbackError: no rater could have given this answer.
    """
    responses: Sequence[tuple[str, Origin]] = []
    answer: dict[str, Any]
    if isinstance(record, Demonstration):
        answer = {"response": record.response}
    elif isinstance(record, Rating):
        responses, answer = [(record.response, record.origin)], {"score": record.score}
    else:
        responses = list(zip(record.responses, record.origins))
        answer = (
            {"choice": record.choice} if isinstance(record, Comparison) else {"ranks": list(record.ranks)}
        )
    columns, kind = dict(record.columns), kind_of(record)
    samples = tuple(Sample(record.prompt, response, origin, columns) for response, origin in responses)
    requesting.check_json(columns, "The columns")
    for _, origin in responses:
        requesting.check_json(origin.to_json(), "The origin")
    if record.rater:
        store_raters.check_name(record.rater)
    answer = answers.check(kind, answer, len(samples))
    return _Said(kind, record.prompt, columns, samples, answer, record.rater, getattr(record, "reason", ""))


def _add_items(
    connection: sa.Connection, said: Sequence[_Said], overlap: int, now: float
) -> tuple[list[int], list[list[int]]]:
    """The item and the samples of each record."""
    prompts = requesting.add_prompts(connection, [(record.prompt, record.columns) for record in said])
    flat = iter(requesting.add_samples(connection, [sample for record in said for sample in record.samples]))
    samples = [[next(flat) for _ in record.samples] for record in said]
    found = [0] * len(said)
    for kind in {record.kind for record in said}:
        of_kind = [i for i, record in enumerate(said) if record.kind == kind]
        new = [(prompts[i], _shuffled(sorted(samples[i]), prompts[i])) for i in of_kind]
        for i, item in zip(of_kind, requesting.add_items(connection, kind, new, overlap, now)):
            found[i] = item
    return found, samples


def _stored_samples(connection: sa.Connection, of_items: Sequence[int]) -> dict[int, list[int]]:
    """The samples of each item, in stored order."""
    table, found = item_samples.c, dict[int, list[int]]()
    for chunk in _chunks(of_items):
        query = (
            sa.select(table.item, table.sample).where(table.item.in_(chunk)).order_by(table.item, table.place)
        )
        for row in connection.execute(query):
            found.setdefault(row.item, []).append(row.sample)
    return found


def _keys_there(connection: sa.Connection, of_items: Sequence[int]) -> dict[tuple[int, int], set[str]]:
    """(item, rater) -> the keys of the votes of everybody who has, or had, one of the items."""
    found: dict[tuple[int, int], set[str]] = {}
    for chunk in _chunks(of_items):
        query = (
            sa.select(assignments.c.item, assignments.c.rater, votes.c.key)
            .select_from(assignments.outerjoin(votes))
            .where(assignments.c.item.in_(chunk))
        )
        for row in connection.execute(query):
            found.setdefault((row.item, row.rater), set()).add(row.key)
    return found


def _places(samples: Sequence[int], stored: Sequence[int]) -> list[int]:
    """Where in stored order each of a record's samples stands."""
    places: list[int] = []
    for sample in samples:
        places.append(next(i for i, other in enumerate(stored) if other == sample and i not in places))
    return places


def _about_places(answer: Mapping[str, Any], places: Sequence[int]) -> dict[str, Any]:
    """An answer about responses that stand at these places, as one about the places from the first on.

    `places[i]` is the place of the response that the answer speaks of as its i-th.
    """
    if answer.get("choice") in SIDES:
        return {"choice": SIDES[places[SIDES.index(answer["choice"])]]}
    if "ranks" in answer:
        return {"ranks": [rank for _, rank in sorted(zip(places, answer["ranks"]), key=lambda pair: pair[0])]}
    return dict(answer)


def _insert(connection: sa.Connection, new: Sequence[_Vote], now: float) -> None:
    if not new:
        return
    for item, n in Counter(vote.item for vote in new).items():
        taken = items.c.taken + n
        overlap = sa.case((items.c.overlap < taken, taken), else_=items.c.overlap)
        connection.execute(sa.update(items).where(items.c.id == item).values(taken=taken, overlap=overlap))
    rows, cast = [], []
    for vote in new:
        n_responses = (
            len(vote.answer.get("ranks", SIDES))
            if vote.kind in ("comparison", "ranking")
            else vote.kind == "rating"
        )
        shown = _shuffled(range(n_responses), vote.item, vote.rater)
        rows.append(
            {
                "item": vote.item,
                "rater": vote.rater,
                "state": "voted",
                "shown": shown,
                "opened": now,
                "expires": now,
                "draft": "",
            }
        )
        seen = {place: i for i, place in enumerate(shown)}
        answer = _about_places(vote.answer, [seen[place] for place in range(n_responses)])
        cast.append(
            {"key": vote.key, "kind": vote.kind, "answer": answer, "reason": vote.reason, "created": now}
        )
    returning = sa.insert(assignments).returning(assignments.c.id, sort_by_parameter_order=True)
    ids = connection.scalars(returning, rows).all()
    connection.execute(sa.insert(votes), [{**row, "assignment": i} for row, i in zip(cast, ids)])


def _shuffled(values: Iterable[int], *seed: int) -> list[int]:
    """In an order that follows from the seed alone."""
    values = list(values)
    return random.Random(str(seed)).sample(values, len(values))


def _chunks(of_items: Sequence[int]) -> Iterator[list[int]]:
    ids = sorted(set(of_items))
    return (ids[start : start + requesting.CHUNK] for start in range(0, len(ids), requesting.CHUNK))
