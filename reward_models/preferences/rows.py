"""One row of a file as a record, whichever of the shapes it has, and a record as a row of a chosen shape.

| fields of the row | record |
| --- | --- |
| `type`, `columns` and the record's own fields | any; the only shape that loses nothing (`full_row`) |
| `prompt`, `completions`, `ranks` | Ranking |
| `prompt`, `chosen`, `rejected`, or the last two with the prompt in both | Comparison, chosen left; `tie: true` a tie |
| `prompt`, `completion` or `response`, and a number in `score`, `reward`, `rating` or `label` | Rating |
| `text` and such a number | Rating of a text without a prompt |
| `prompt`, `completion` or `response` | Demonstration |

Each text may be a list of messages instead (see `conversational`). `rater`, `reason`, `group`, `weight` and `margin` are read
into the record that has them; all other fields become its columns. A field that is null counts as missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from reward_models.preferences import conversational
from reward_models.preferences.conversational import KEPT
from reward_models.preferences.rankings import turned
from reward_models.preferences.records import (
    Comparison,
    Demonstration,
    Origin,
    Ranking,
    Rating,
    Record,
    RecordError,
)

KINDS: dict[str, type[Record]] = {
    "demonstration": Demonstration,
    "rating": Rating,
    "comparison": Comparison,
    "ranking": Ranking,
}
SCORE_FIELDS = ("score", "reward", "rating", "label")
Row = dict[str, Any]


def kind_of(record: Record) -> str:
    """ "demonstration", "rating", "comparison" or "ranking"."""
    return next(kind for kind, cls in KINDS.items() if isinstance(record, cls))


# --- reading ---------------------------------------------------------------------------------------------------


def record_of(row: Any, kind: str = "auto", score_field: str | None = None) -> Record:
    """The record that a row holds.

    Args:
        kind: what it must be, or "auto". Where it must be a demonstration, a number beside it is no score.
        score_field: holds a rating's number, or a list of numbers whose mean it is; None: the first of `SCORE_FIELDS` there.

    Raises:
        RecordError: it holds none, or one of another kind.
    """
    if not isinstance(row, Mapping):
        raise RecordError(
            f"is {_what(row)}, not an object with fields. Give each row its own, such as prompt, chosen and rejected."
        )
    fields = {name: value for name, value in row.items() if value is not None}
    if "columns" in fields and isinstance(fields.get("type"), str) and fields["type"] in KINDS:
        record = _full(fields)
    elif "completions" in fields and "ranks" in fields:
        record = _ranking(fields)
    elif "chosen" in fields and "rejected" in fields:
        record = _comparison(fields)
    else:
        record = _answer(fields, kind, score_field)
    if kind not in ("auto", kind_of(record)):
        raise RecordError(
            f"holds a {kind_of(record)} where a {kind} is asked for. Leave it out, or read it as such."
        )
    return record


def _full(fields: Row) -> Record:
    cls = KINDS[fields.pop("type")]
    if unknown := set(fields) - set(cls.__dataclass_fields__):
        raise RecordError(
            f"has the fields {sorted(unknown)}, which a {cls.__name__} has not. Move them into columns."
        )
    for name in {"prompt", "response", "rater", "reason", "group"} & set(fields):
        fields[name] = _text(fields[name], name)
    for name in {"score", "weight", "margin"} & set(fields):
        _number(fields[name], name)
    try:
        for name in {"columns", "origin", "origins"} & set(fields):
            value = fields[name]
            fields[name] = json.loads(value) if isinstance(value, str) else value  # see `packed` below
        fields["columns"] = dict(fields["columns"])
        if "responses" in fields:
            fields["responses"] = _texts(fields["responses"], "responses")
        if "ranks" in fields:
            fields["ranks"] = tuple(fields["ranks"])
        if "origin" in fields:
            fields["origin"] = Origin.from_json(fields["origin"])
        if "origins" in fields:
            fields["origins"] = tuple(map(Origin.from_json, fields["origins"]))
        return cls(**fields)
    except RecordError:
        raise
    except (TypeError, ValueError, AttributeError) as error:  # a field is missing, or is of another type
        raise RecordError(f"is no {cls.__name__}: {error}.") from error


def _ranking(fields: Row) -> Ranking:
    completions, ranks = fields.pop("completions"), fields.pop("ranks")
    if (
        not isinstance(completions, Sequence)
        or isinstance(completions, str)
        or not isinstance(ranks, Sequence)
    ):
        raise RecordError("has completions or ranks that are no lists. Give one rank for each completion.")
    prompt, replies, kept = _dialogue(fields.pop("prompt", None), completions, "completions")
    known = _known(fields, "rater", "reason", "weight")
    return Ranking(prompt, tuple(replies), tuple(ranks), **known, columns={**fields, **kept})


def _comparison(fields: Row) -> Comparison:
    prompt, chosen, rejected = fields.pop("prompt", None), fields.pop("chosen"), fields.pop("rejected")
    if _is_conversation(chosen) and _is_conversation(rejected) and not _is_conversation(prompt):
        prompt, chosen, rejected = conversational.split_conversations(
            conversational.messages_of(chosen, "chosen"), conversational.messages_of(rejected, "rejected")
        )
    elif prompt is None:
        prompt, chosen, rejected = conversational.split_texts(
            _text(chosen, "chosen"), _text(rejected, "rejected")
        )
    prompt, (left, right), kept = _dialogue(prompt, [chosen, rejected], "chosen and rejected")
    known = _known(fields, "rater", "reason", "group", "weight", "margin")
    if "rank_chosen" in fields and "rank_rejected" in fields:
        known.setdefault(
            "group", hashlib.sha256(prompt.encode()).hexdigest()[:16]
        )  # the ranking of this prompt
    choice = "tie" if fields.get("tie") is True else "left"
    return Comparison(prompt, (left, right), choice, **known, columns={**fields, **kept})  # type: ignore[arg-type]


def _answer(fields: Row, kind: str, score_field: str | None) -> Demonstration | Rating:
    """A prompt's one response: a rating where there is a number to it, else a demonstration."""
    scored = None if kind == "demonstration" else _score(fields, score_field)
    name = next((name for name in ("completion", "response", "text") if name in fields), None)
    if name is None or (name == "text" and scored is None) or (name != "text" and "prompt" not in fields):
        raise RecordError(
            f"has the fields {sorted(fields)}, which are no record. Give prompt with completion (or response); "
            "prompt, chosen and rejected; prompt, completions and ranks; or a response with a score."
        )
    if kind == "rating" and scored is None:
        raise RecordError(
            f"has no number in {score_field or ', '.join(SCORE_FIELDS)}, only the fields {sorted(fields)}. "
            "Name the rating's field (score_field, --score-field)."
        )
    prompt = fields.pop("prompt", "") if name == "text" else fields.pop("prompt")
    prompt, (response,), kept = _dialogue(prompt, [fields.pop(name)], name)
    if scored is None:
        return Demonstration(prompt, response, **_known(fields, "rater"), columns={**fields, **kept})
    field, score = scored
    if field == "score":
        fields.pop(field)
    return Rating(prompt, response, score, **_known(fields, "rater", "reason"), columns={**fields, **kept})


def _score(fields: Row, score_field: str | None) -> tuple[str, float] | None:
    """The field that holds the rating's number, and the number."""
    for name in (score_field,) if score_field else SCORE_FIELDS:
        value: Any = fields.get(name)
        numbers: list[Any] = value if isinstance(value, list) and score_field else [value]
        if numbers and all(isinstance(number, int | float) for number in numbers):
            return name, sum(_float(number, name) for number in numbers) / len(numbers)
    return None


def _dialogue(prompt: Any, replies: Sequence[Any], name: str) -> tuple[str, list[str], Row]:
    """The texts of a prompt and its replies, and, where they are conversations, the column that keeps their messages."""
    if not _is_conversation(prompt) and not any(map(_is_conversation, replies)):
        return _text(prompt, "prompt"), list(_texts(replies, name)), {}
    asked = conversational.messages_of(prompt, "prompt")
    answers = [conversational.messages_of(reply, name) for reply in replies]
    texts = list(_texts(map(conversational.reply_text, answers), name))
    kept = {KEPT: {"prompt": asked, "replies": answers}}
    return _text(conversational.prompt_text(asked), "prompt"), texts, kept


def _known(fields: Row, *names: str) -> Row:
    """Take the fields of these names out of `fields`, each as what the record holds."""
    known: Row = {}
    for name in names:
        if name in fields:
            value = fields.pop(name)
            known[name] = _number(value, name) if name in ("weight", "margin") else _text(value, name)
    return known


def _is_conversation(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _texts(values: Any, name: str) -> tuple[str, ...]:
    return tuple(_text(value, name) for value in values)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise RecordError(f"has {_what(value)} in {name}. Give a text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RecordError(f"has half a character in {name} ({error}). Remove it.") from error
    return value


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError(f"has {value!r} in {name}. Give a number.")
    return _float(value, name)


def _float(value: float, name: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise RecordError(f"has a number in {name} that is too large. Give one below 1e308.") from error


def _what(value: Any) -> str:
    """A value's type in plain words."""
    words = {type(None): "nothing", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    words |= {list: "a list", tuple: "a list", dict: "an object"}
    return words.get(type(value), f"a {type(value).__name__}")


# --- writing ---------------------------------------------------------------------------------------------------


def full_row(record: Record, packed: bool = False) -> Row:
    """All that a record holds. `packed`: what has no fixed fields is JSON in a string, for tables with typed columns."""

    def pack(value: Any) -> Any:
        return json.dumps(value, ensure_ascii=False) if packed else value

    row: Row = {"type": kind_of(record)}
    for name in type(record).__dataclass_fields__:
        value = getattr(record, name)
        if name == "columns":
            value = pack(dict(value))
        elif name == "origin":
            value = pack(value.to_json())
        elif name == "origins":
            value = pack([origin.to_json() for origin in value])
        row[name] = list(value) if isinstance(value, tuple) else value
    return row


def plain_row(record: Record, conversation: bool = False) -> Row | None:
    """A record in the shape that the table above gives it; None for a comparison that prefers neither.

    Args:
        conversation: messages in place of texts.

    Raises:
        RecordError: a column has the name of a field.
    """
    if isinstance(record, Comparison):
        if record.chosen is None:
            return None
        record = record if record.choice == "left" else turned(record)
    replies: Sequence[Any] = (
        [record.response] if isinstance(record, Demonstration | Rating) else record.responses
    )
    prompt: Any = record.prompt
    if conversation:
        prompt, replies = conversational.conversation(prompt, replies, record.columns.get(KEPT))
    row: Row = {"prompt": prompt}
    if isinstance(record, Comparison):
        row |= {"chosen": replies[0], "rejected": replies[1]}
    elif isinstance(record, Ranking):
        row |= {"completions": list(replies), "ranks": list(record.ranks)}
    else:
        row |= {"completion": replies[0]}
    defaults = {"rater": "", "reason": "", "group": "", "weight": 1.0, "margin": None}
    if isinstance(record, Rating):
        row["score"] = record.score
    for name in type(record).__dataclass_fields__:
        if name in defaults and getattr(record, name) != defaults[name]:
            row[name] = getattr(record, name)
    columns = {name: value for name, value in record.columns.items() if name != KEPT}
    if clash := set(row) & set(columns):
        raise RecordError(
            f"A record has the columns {sorted(clash)}, which are fields of the row. Rename them."
        )
    return row | columns


def dialogue_row(record: Record) -> Row | None:
    """A comparison as hh-rlhf's two full dialogues; None for one that prefers neither."""
    assert isinstance(record, Comparison)
    if record.chosen is None or record.rejected is None:
        return None
    return {
        "chosen": conversational.dialogue(record.prompt, record.chosen),
        "rejected": conversational.dialogue(record.prompt, record.rejected),
    }
