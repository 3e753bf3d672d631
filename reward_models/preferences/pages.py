"""The rater's pages: who they are, what they are asked, and that nothing is left to do."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from reward_models.preferences.entries import NotFound, Rater
from reward_models.preferences.rendering import page
from reward_models.preferences.seen import seen_assignment, seen_progress
from reward_models.preferences.sessions import (
    COOKIE,
    Asking,
    SignedOut,
    from_our_page,
    new_session,
    rater_or_none,
    set_session,
    settings_of,
    tidy_name,
)

router = APIRouter(include_in_schema=False)

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@router.get("/")
def home(request: Request, rater: Annotated[Rater | None, Depends(rater_or_none)]) -> Response:
    """The rating page; without a rater, the question who it is."""
    settings = settings_of(request)
    if rater is not None:
        return page(request, "rate.html", rater=rater, guidelines=settings.store.guidelines)
    if settings.public_url:
        raise SignedOut(
            "This page knows its raters by personal links. Open yours; the organiser has it if it is lost."
        )
    return page(request, "name.html")


@router.post("/task", dependencies=[Depends(from_our_page)])
def task(request: Request, rater: Asking) -> Response:
    """What the rater is to do now, as the middle part of the rating page."""
    settings = settings_of(request)
    assignment = settings.store.assign(rater.id)
    progress = seen_progress(settings, rater)
    return page(
        request,
        "task.html",
        rater=rater,
        assignment=assignment and seen_assignment(assignment, settings),
        progress=progress,
        mine=progress.by_rater[0]["votes"],
        letters=LETTERS,
    )


@router.post("/name", dependencies=[Depends(from_our_page)])
def take_name(request: Request, name: Annotated[str, Form()] = "") -> Response:
    """On one's own machine a name is enough."""
    settings = settings_of(request)
    if settings.public_url:
        raise SignedOut("Names are not enough here. Open your personal link.")
    if not tidy_name(name):
        return page(request, "name.html", 400)
    response = RedirectResponse("/", 303)
    set_session(response, new_session(tidy_name(name)), settings)
    return response


@router.post("/leave", dependencies=[Depends(from_our_page)])
def leave(request: Request) -> Response:
    """Forget who rates in this browser."""
    response = RedirectResponse("/", 303)
    response.delete_cookie(COOKIE)
    return response


@router.get("/join/{token}")
def join(request: Request, token: str) -> Response:
    """A personal link. It answers with a page, not with a redirect: a strict cookie is not sent along on a way that began
    on another site, such as a mailbox; from this page's own link it is."""
    settings = settings_of(request)
    rater = settings.store.rater_of(token)
    if rater is None:
        raise NotFound(
            "This link opens nothing: it is incomplete, or another one has taken its place. Ask the organiser."
        )
    return page(
        request,
        "join.html",
        session=new_session(token if settings.public_url else rater.name),
        rater=rater,
        guidelines=settings.store.guidelines,
    )
