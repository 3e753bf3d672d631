"""The tables of a feedback store, the same in SQLite and in PostgreSQL."""

from __future__ import annotations

import json
from typing import Any

try:
    import sqlalchemy as sa
except ImportError as error:
    raise ImportError(
        "The feedback store needs SQLAlchemy. Install it with: pip install 'text-envs[feedback]'"
    ) from error

VERSION = 2

_ESCAPED = "\x01"


class AnyText(sa.types.TypeDecorator[str]):
    """Text of any characters. NUL, which PostgreSQL refuses, and lone surrogates, which UTF-8 cannot say, are stored
    as a JSON string after a mark."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        if value is None or (value.isascii() and "\0" not in value and not value.startswith(_ESCAPED)):
            return value
        if "\0" in value or value.startswith(_ESCAPED) or _has_surrogate(value):
            return _ESCAPED + json.dumps(value)
        return value

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> str | None:
        if value is not None and value.startswith(_ESCAPED):
            return str(json.loads(value[len(_ESCAPED) :]))
        return value


class Json(sa.types.TypeDecorator[Any]):
    """A JSON value, written canonically, in ASCII; NULL for None."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        return None if value is None else canonical(value)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:
        return None if value is None else json.loads(value)


def canonical(value: Any) -> str:
    """`value` as JSON, the same text for equal values. Raises ValueError or TypeError for NaN and what JSON cannot hold."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


metadata = sa.MetaData()


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.Integer, primary_key=True)


def _reference(name: str, target: str, **options: Any) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, sa.ForeignKey(f"{target}.id"), nullable=False, **options)


meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("value", AnyText, nullable=False),
)

prompts = sa.Table(
    "prompts",
    metadata,
    _id(),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),  # of the text and the columns
    sa.Column("text_hash", sa.String(64), nullable=False, index=True),
    sa.Column("text", AnyText, nullable=False),
    sa.Column("columns", Json, nullable=False),
)

samples = sa.Table(
    "samples",
    metadata,
    _id(),
    sa.Column(
        "hash", sa.String(64), nullable=False, unique=True
    ),  # of the prompt, the response and the origin
    _reference("prompt", "prompts", index=True),
    sa.Column("response", AnyText, nullable=False),
    sa.Column("origin", Json, nullable=False),
)

items = sa.Table(
    "items",
    metadata,
    _id(),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),  # of the kind, the prompt and the samples
    sa.Column("kind", sa.String(20), nullable=False),
    _reference("prompt", "prompts"),
    sa.Column("overlap", sa.Integer, nullable=False),
    # Current votes and leases that have not been given back. The database itself refuses one too many.
    sa.Column("taken", sa.Integer, nullable=False),
    sa.Column("gold", Json),
    sa.Column("created", sa.Double, nullable=False),
    sa.CheckConstraint("taken >= 0 AND taken <= overlap", name="never_over_assigned"),
)
_with_room = items.c.taken < items.c.overlap
sa.Index("items_with_room", items.c.id, sqlite_where=_with_room, postgresql_where=_with_room)

item_samples = sa.Table(
    "item_samples",
    metadata,
    _reference("item", "items", primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True),
    _reference("sample", "samples"),
)

raters = sa.Table(
    "raters",
    metadata,
    _id(),
    sa.Column("name", AnyText, nullable=False, unique=True),
    sa.Column("token_hash", sa.String(64), unique=True),
    sa.Column("organiser", sa.Boolean, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
)

# "open": in the rater's hands. "voted". "expired" and "released": its place is free, the row keeps order and draft.
assignments = sa.Table(
    "assignments",
    metadata,
    _id(),
    _reference("item", "items"),
    _reference("rater", "raters"),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("shown", Json, nullable=False),
    sa.Column("opened", sa.Double, nullable=False),
    sa.Column("expires", sa.Double, nullable=False),
    sa.Column("draft", AnyText, nullable=False),
    sa.UniqueConstraint("item", "rater", name="never_twice_to_one_rater"),
)
_open = assignments.c.state == "open"
sa.Index("assignments_open", assignments.c.expires, sqlite_where=_open, postgresql_where=_open)
sa.Index("assignments_of_rater", assignments.c.rater, assignments.c.state, assignments.c.item)
sa.Index("assignments_last", assignments.c.rater, assignments.c.item)

votes = sa.Table(
    "votes",
    metadata,
    _id(),
    sa.Column("key", AnyText, nullable=False, unique=True),
    _reference("assignment", "assignments", index=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("answer", Json, nullable=False),
    sa.Column("reason", AnyText, nullable=False),
    sa.Column("seconds", sa.Double),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("supersedes", sa.Integer, sa.ForeignKey("votes.id"), unique=True),
)

exports = sa.Table(
    "exports",
    metadata,
    _id(),
    sa.Column("path", AnyText, nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("format", sa.String(20), nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("last_vote", sa.Integer),  # id of the last vote there was; NULL before version 2
)
