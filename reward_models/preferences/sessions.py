"""Who is asking: a rater with a personal link, or on one's own machine a name; and the token that every form carries."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from reward_models.preferences.entries import FeedbackError, Rater
from reward_models.preferences.store import FeedbackStore

COOKIE = "text_envs_rating"
MAX_NAME = 100
_YEAR = 365 * 24 * 3600

bearer = HTTPBearer(
    auto_error=False, description="A rater's token; where raters go by name, the name, percent-encoded."
)


class SignedOut(FeedbackError):
    """Nobody knows who is asking."""

    status = 401


class Forbidden(FeedbackError):
    """Known, but not allowed."""

    status = 403


@dataclass(frozen=True)
class Settings:
    """What the server was started with.

    Attributes:
        store: where everything lies.
        public_url: the address by which raters reach the server; None for this machine alone, where a name is enough.
        rater: on this machine, who rates when nobody has typed a name; "" asks for one.
        columns: the prompt's other fields that raters see; all others stay in the store.
    """

    store: FeedbackStore
    public_url: str | None = None
    rater: str = ""
    columns: tuple[str, ...] = ()

    @cached_property
    def known(self) -> dict[str, Rater]:
        """On this machine: who has asked, by name or token. Remembered, because to add a rater is to write."""
        return {}


def settings_of(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def rater_or_none(
    request: Request, authorization: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
) -> Rater | None:
    """Who is asking: by the Authorization header, else by the cookie, else the rater the server was started for."""
    settings = settings_of(request)
    claim = unquote(authorization.credentials) if authorization else _claim(request)
    if settings.public_url:
        return await run_in_threadpool(settings.store.rater_of, claim) if claim else None
    name = tidy_name(claim or settings.rater)
    if name and name not in settings.known:
        settings.known[name] = await run_in_threadpool(_on_this_machine, settings.store, name)
    return settings.known.get(name)


def _on_this_machine(store: FeedbackStore, name: str) -> Rater:
    return store.rater_of(name) or store.rater(name)


async def rater_in_charge(rater: Annotated[Rater | None, Depends(rater_or_none)]) -> Rater:
    """Who is asking.

    Raises:
        SignedOut: nobody is.
    """
    if rater is None:
        raise SignedOut("Who is rating? Open the rating page, or your personal link, once more.")
    return rater


async def organiser(request: Request, rater: Annotated[Rater | None, Depends(rater_or_none)]) -> None:
    """Lets the organiser through: on one's own machine everybody, elsewhere who has the organiser's link.

    Raises:
        SignedOut, Forbidden: it is somebody else.
    """
    if settings_of(request).public_url and not (rater and rater.organiser):
        problem = SignedOut if rater is None else Forbidden
        raise problem(
            "This page is the organiser's. Open the organiser's link that was printed at the start."
        )


async def from_our_page(
    request: Request, authorization: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
) -> None:
    """Lets a POST through that carries the token of its session: in X-CSRF-Token, or in the form's field `csrf`. One that
    names its rater in the Authorization header needs none: no page of another site can send that.

    Raises:
        Forbidden: the token is missing or another session's.
    """
    if authorization is not None:
        return
    given = request.headers.get("x-csrf-token")
    is_form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    if given is None and is_form:
        given = str((await request.form()).get("csrf", ""))
    session = request.cookies.get(COOKIE, "")
    if not session or not hmac.compare_digest(csrf_token(session).encode(), (given or "").encode()):
        raise Forbidden(
            "The page is from an earlier session. Reload it and try again; cookies must be allowed."
        )


def csrf_token(session: str) -> str:
    """Follows from the cookie, which other sites cannot read; so it outlives a restart of the server, as the cookie does."""
    return hmac.new(session.encode(), b"csrf", hashlib.sha256).hexdigest()


def new_session(claim: str = "") -> str:
    """A cookie's value: something that cannot be guessed, and who its bearer claims to be, a token or a name."""
    return f"{secrets.token_urlsafe(16)}.{quote(claim, safe='')}"


def set_session(response: Response, session: str, settings: Settings) -> None:
    secure = (settings.public_url or "").startswith("https:")
    response.set_cookie(COOKIE, session, max_age=_YEAR, httponly=True, samesite="strict", secure=secure)


def tidy_name(name: str) -> str:
    """One line of at most `MAX_NAME` characters."""
    return " ".join(name.split())[:MAX_NAME].strip()


def _claim(request: Request) -> str:
    return unquote(request.cookies.get(COOKIE, "").partition(".")[2])


Asking = Annotated[Rater, Depends(rater_in_charge)]
"""A route's parameter of this type is the rater who asks."""
