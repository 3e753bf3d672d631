"""The part of FeedbackStore that knows who rates: names, and the tokens of personal links."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from reward_models.completion import excerpt
from reward_models.preferences.database import Part
from reward_models.preferences.entries import Conflict, FeedbackError, NotFound, Rater, RaterAccess
from reward_models.preferences.schema import raters, sa


class Raters(Part):
    """Who is asked."""

    def add_rater(self, name: str, *, organiser: bool = False) -> RaterAccess:
        """Add a rater with a token for their personal link. The token is shown this once; the store keeps its sha256.

        Raises:
            Conflict: the name is taken. `new_token` gives that rater another token.
        """
        check_name(name)
        token = secrets.token_urlsafe(24)
        return RaterAccess(
            self.database.write(_add, name, _hash(token), organiser, self.clock()), name, token
        )

    def new_token(self, name: str) -> RaterAccess:
        """Give a rater another token; the old one no longer opens anything.

        Raises:
            NotFound: there is no rater of that name.
        """
        token = secrets.token_urlsafe(24)
        return RaterAccess(self.database.write(_change_token, name, _hash(token)), name, token)

    def rater_of(self, token: str) -> Rater | None:
        """Whose token this is; None where it is nobody's."""
        with self.database.read() as connection:
            return _rater(connection.execute(_BY_TOKEN, {"token": _hash(token)}).first())

    def rater(self, name: str) -> Rater:
        """The rater of that name, added without a token if there is none: for use on one's own machine."""
        check_name(name)
        with self.database.read() as connection:
            known = _rater(connection.execute(_BY_NAME, {"rater": name}).first())
        return known or self.database.write(find_or_add, name, self.clock())

    def raters(self) -> list[Rater]:
        with self.database.read() as connection:
            rows = connection.execute(sa.select(raters).order_by(raters.c.id))
            return [Rater(row.id, row.name, row.organiser) for row in rows]


_BY_TOKEN = sa.select(raters).where(raters.c.token_hash == sa.bindparam("token"))
_BY_NAME = sa.select(raters).where(raters.c.name == sa.bindparam("rater"))


def _rater(row: sa.Row[Any] | None) -> Rater | None:
    return None if row is None else Rater(row.id, row.name, row.organiser)


def find_or_add(connection: sa.Connection, name: str, now: float) -> Rater:
    known = _rater(connection.execute(_BY_NAME, {"rater": name}).first())
    return known or Rater(_insert(connection, name, None, False, now), name)


def _add(connection: sa.Connection, name: str, token_hash: str, organiser: bool, now: float) -> int:
    if connection.execute(_BY_NAME, {"rater": name}).first() is not None:
        raise Conflict(f"There is a rater {name!r} already. Choose another name, or give them a new token.")
    return _insert(connection, name, token_hash, organiser, now)


def _change_token(connection: sa.Connection, name: str, token_hash: str) -> int:
    row = connection.execute(_BY_NAME, {"rater": name}).first()
    if row is None:
        raise NotFound(f"There is no rater {name!r}. Add one with add_rater(name).")
    connection.execute(sa.update(raters).where(raters.c.id == row.id).values(token_hash=token_hash))
    return int(row.id)


def _insert(connection: sa.Connection, name: str, token_hash: str | None, organiser: bool, now: float) -> int:
    new = {"name": name, "token_hash": token_hash, "organiser": organiser, "created": now}
    return connection.execute(sa.insert(raters).returning(raters.c.id), new).scalar_one()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def check_name(name: str) -> None:
    if not isinstance(name, str) or not name.strip() or len(name) > 100:
        raise FeedbackError(f"A rater cannot be called {excerpt(name)}. Give a name of 1 to 100 characters.")
