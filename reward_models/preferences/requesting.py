"""Puts prompts, samples and items into the store, each once. Each function runs within one write transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from reward_models.completion import excerpt
from reward_models.preferences import answers
from reward_models.preferences.entries import FeedbackError, Item, NotFound, Sample
from reward_models.preferences.pairing import Pool
from reward_models.preferences.schema import canonical, item_samples, items, prompts, sa, samples

CHUNK = 500  # rows per statement: SQLite's builds limit the number of parameters


def add_prompts(connection: sa.Connection, new: Sequence[tuple[str, Mapping[str, Any]]]) -> list[int]:
    """Ids of (text, columns). A text without columns means the first prompt of that text, whatever its columns."""
    hashes = {text: _hash(text) for text, _ in new}
    first: dict[str, int] = {}
    known: dict[str, int] = {}
    for chunk in _chunks(list(hashes.values())):
        rows = connection.execute(
            sa.select(prompts.c.id, prompts.c.hash, prompts.c.text_hash)
            .where(prompts.c.text_hash.in_(chunk))
            .order_by(prompts.c.id)
        )
        for found in rows:
            first.setdefault(found.text_hash, found.id)
            known[found.hash] = found.id
    missing: dict[str, dict[str, Any]] = {}
    wanted = []
    for text, columns in new:
        text_hash = hashes[text]
        key = _hash(text, columns)
        wanted.append((text_hash, key, bool(columns)))
        if key not in known and (columns or text_hash not in first):
            missing.setdefault(
                key, {"hash": key, "text_hash": text_hash, "text": text, "columns": dict(columns)}
            )
    known.update(_insert(connection, prompts, missing))
    for key, row in missing.items():
        first.setdefault(row["text_hash"], known[key])
    return [known[key] if exact else first[text_hash] for text_hash, key, exact in wanted]


def add_samples(connection: sa.Connection, new: Sequence[Sample]) -> list[int]:
    """Ids of the samples; one with the same prompt, response and origin is the same sample."""
    prompt_ids = add_prompts(connection, [(sample.prompt, sample.columns) for sample in new])
    keys = []
    rows: dict[str, dict[str, Any]] = {}
    for prompt, sample in zip(prompt_ids, new):
        origin = sample.origin.to_json()
        keys.append(_hash(prompt, sample.response, origin))
        rows[keys[-1]] = {"hash": keys[-1], "prompt": prompt, "response": sample.response, "origin": origin}
    known = _known(connection, samples, keys)
    known.update(_insert(connection, samples, {key: row for key, row in rows.items() if key not in known}))
    return [known[key] for key in keys]


def add_items(
    connection: sa.Connection, kind: str, new: Sequence[tuple[int, Sequence[int]]], overlap: int, now: float
) -> list[int]:
    """Ids of items (prompt, samples in stored order). What was requested before is the same item: its overlap may grow."""
    keys = [_hash(kind, prompt, sorted(chosen)) for prompt, chosen in new]
    known = _known(connection, items, keys)
    for chunk in _chunks(list(known.values())):
        connection.execute(
            sa.update(items).where(items.c.id.in_(chunk), items.c.overlap < overlap).values(overlap=overlap)
        )
    missing: dict[str, dict[str, Any]] = {}
    places = []
    for key, (prompt, chosen) in zip(keys, new):
        if key in known or key in missing:
            continue
        missing[key] = {
            "hash": key,
            "kind": kind,
            "prompt": prompt,
            "overlap": overlap,
            "taken": 0,
            "created": now,
        }
        places += [(key, place, sample) for place, sample in enumerate(chosen)]
    known.update(_insert(connection, items, missing))
    if places:
        connection.execute(
            sa.insert(item_samples),
            [{"item": known[key], "place": place, "sample": sample} for key, place, sample in places],
        )
    return [known[key] for key in keys]


def pool(
    connection: sa.Connection, prompt_ids: Collection[int] | None, sample_ids: Collection[int] | None
) -> tuple[Pool, dict[int, int]]:
    """The answers of each prompt, all or the named ones, and the prompt of each sample.

    Raises:
        NotFound: a named prompt or sample that does not exist.
    """
    _check_ids(connection, prompts, prompt_ids)
    _check_ids(connection, samples, sample_ids)
    rows = connection.execute(
        sa.select(samples.c.id, samples.c.prompt, samples.c.response, prompts.c.text)
        .join(prompts, prompts.c.id == samples.c.prompt)
        .order_by(samples.c.prompt, samples.c.id)
    )
    chosen_prompts = None if prompt_ids is None else set(prompt_ids)
    chosen_samples = None if sample_ids is None else set(sample_ids)
    found: dict[int, tuple[str, list[tuple[int, str]]]] = {}
    prompt_of = {}
    for row in rows:
        if (chosen_prompts is None or row.prompt in chosen_prompts) and (
            chosen_samples is None or row.id in chosen_samples
        ):
            found.setdefault(row.prompt, (row.text, []))[1].append((row.id, row.response))
            prompt_of[row.id] = row.prompt
    return list(found.values()), prompt_of


def prompt_ids(connection: sa.Connection, chosen: Collection[int] | None) -> list[int]:
    """The named prompts, or all."""
    _check_ids(connection, prompts, chosen)
    if chosen is not None:
        return list(dict.fromkeys(chosen))
    return list(connection.scalars(sa.select(prompts.c.id).order_by(prompts.c.id)))


def add_gold(connection: sa.Connection, item: int, answer: Mapping[str, Any]) -> None:
    """Record an item's right answer, in stored order."""
    kind = connection.scalar(sa.select(items.c.kind).where(items.c.id == item))
    if kind is None:
        raise NotFound(
            f"There is no item {item}. request_comparisons() and its like return the ids of items."
        )
    n_responses = connection.scalar(
        sa.select(sa.func.count()).select_from(item_samples).where(item_samples.c.item == item)
    )
    check_gold(kind, answer)
    gold = answers.check(kind, answer, n_responses or 0)
    connection.execute(sa.update(items).where(items.c.id == item).values(gold=gold))


def check_gold(kind: str, answer: Mapping[str, Any]) -> None:
    """
    Raises:
        FeedbackError: an item of this kind has no right answer, or this one says nothing.
    """
    if kind == "demonstration":
        raise FeedbackError(
            "A demonstration has no one right answer. Choose a comparison, ranking or rating."
        )
    if answers.is_skip(kind, answer):
        raise FeedbackError(
            f"{excerpt(answer)} says nothing. A gold answer is one that a careful rater gives."
        )


def load_items(connection: sa.Connection) -> list[Item]:
    """All items with their responses in stored order."""
    responses: dict[int, list[str]] = {}
    shown = connection.execute(
        sa.select(item_samples.c.item, samples.c.response)
        .select_from(item_samples.join(samples))
        .order_by(item_samples.c.item, item_samples.c.place)
    )
    for item, response in shown:
        responses.setdefault(item, []).append(response)
    rows = connection.execute(
        sa.select(items, prompts.c.text, prompts.c.columns)
        .select_from(items.join(prompts))
        .order_by(items.c.id)
    )
    return [
        Item(row.id, row.kind, row.text, tuple(responses.get(row.id, ())), row.columns, row.overlap, row.gold)
        for row in rows
    ]


def check_overlap(overlap: Any, n: Any) -> None:
    for name, value in {"overlap": overlap, **({} if n is None else {"n": n})}.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
            raise FeedbackError(f"{name} is {excerpt(value)}. Give a whole number from 1.")


def as_prompt(prompt: str | Mapping[str, Any], what: str) -> tuple[str, Mapping[str, Any]]:
    """(text, columns) of a prompt given as a text, or as a dataset row whose field "prompt" is the text.

    Raises:
        FeedbackError: neither, about `what`.
    """
    row = {"prompt": prompt} if isinstance(prompt, str) else prompt
    text = row.get("prompt") if isinstance(row, Mapping) else None
    if not isinstance(text, str):
        raise FeedbackError(
            f'{what[0].upper()}{what[1:]} is {excerpt(prompt)}. Give a text, or a mapping whose "prompt" is a text.'
        )
    columns = {name: value for name, value in row.items() if name != "prompt"}
    check_json(columns, f"The columns of {what}")
    return text, columns


def check_sample(sample: Sample, what: str) -> None:
    if not isinstance(sample.prompt, str) or not isinstance(sample.response, str):
        texts = f"the prompt {excerpt(sample.prompt)} and the response {excerpt(sample.response)}"
        raise FeedbackError(f"{what[0].upper()}{what[1:]} has {texts}. Give two texts.")
    check_json(dict(sample.columns), f"The columns of {what}")
    check_json(sample.origin.to_json(), f"The origin of {what}")


def check_json(value: Any, what: str) -> None:
    try:
        canonical(value)
    except (TypeError, ValueError) as error:
        raise FeedbackError(
            f"{what} cannot be kept: {error}. Give JSON values; null instead of NaN."
        ) from error


def _hash(*parts: Any) -> str:
    """sha256 of the parts' canonical JSON, which is ASCII whatever they hold."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


def _known(connection: sa.Connection, table: sa.Table, hashes: Iterable[str]) -> dict[str, int]:
    """hash -> id of the rows that exist."""
    known: dict[str, int] = {}
    for chunk in _chunks(list(dict.fromkeys(hashes))):
        rows = connection.execute(sa.select(table.c.hash, table.c.id).where(table.c.hash.in_(chunk)))
        known.update((row.hash, row.id) for row in rows)
    return known


def _insert(
    connection: sa.Connection, table: sa.Table, rows: Mapping[str, Mapping[str, Any]]
) -> dict[str, int]:
    """Insert rows, given by their hash, in order; returns hash -> id."""
    if not rows:
        return {}
    returning = sa.insert(table).returning(table.c.id, sort_by_parameter_order=True)
    return dict(zip(rows, connection.scalars(returning, list(rows.values()))))


def _check_ids(connection: sa.Connection, table: sa.Table, ids: Collection[int] | None) -> None:
    if ids is None:
        return
    found: set[int] = set()
    for chunk in _chunks(list(ids)):
        found.update(connection.scalars(sa.select(table.c.id).where(table.c.id.in_(chunk))))
    missing = [i for i in ids if i not in found]
    if missing:
        raise NotFound(f"There are no {table.name} with the ids {excerpt(missing)}.")


def _chunks(values: list[Any]) -> Iterable[list[Any]]:
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))
