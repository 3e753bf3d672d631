"""The rating page's JSON API, for its own script and for programs that rate: the store's methods, one rater at a time."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from reward_models.preferences.entries import Assignment, Kind
from reward_models.preferences.seen import seen_assignment, seen_progress
from reward_models.preferences.sessions import Asking, Settings, from_our_page, settings_of

MAX_TEXT = 100_000  # characters of an answer, a draft, a reason

Id = Annotated[int, Field(ge=1, le=2**31 - 1)]
Key = Annotated[
    str, Field(min_length=1, max_length=200, description="Made by the client, new for every vote: a UUID.")
]
Text = Annotated[str, Field(max_length=MAX_TEXT)]


class Ascii(JSONResponse):
    """JSON in ASCII, so that what UTF-8 cannot say, such as half a surrogate pair that a model sampled, gets through."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class Body(BaseModel):
    """What a client sends: the fields named here and no others."""

    model_config = ConfigDict(extra="forbid")


class Wanted(Body):
    kinds: list[Kind] | None = Field(None, description="Kinds of items to be given; null for any.")


class Answer(Body):
    assignment: Id
    answer: dict[str, Any] = Field(
        description='About the responses as shown. Comparison {"choice": "left" | "right" | "tie" | "both_bad" | "skip"}; '
        'ranking {"ranks": [1, 2, 2, null]}; demonstration {"response": "..."}; rating {"score": 4}.',
        examples=[{"choice": "left"}, {"ranks": [1, 2, 2, None]}, {"response": "Good day!"}, {"score": 4}],
    )
    key: Key
    reason: Text = ""
    seconds: float | None = Field(None, ge=0, le=1e8, allow_inf_nan=False)


class Undo(Body):
    key: Key


class Draft(Body):
    assignment: Id
    text: Text


class Named(Body):
    assignment: Id


class RaterOut(BaseModel):
    id: int
    name: str
    organiser: bool


class AssignmentOut(BaseModel):
    id: int
    item: int
    rater: int
    kind: Kind
    prompt: str
    responses: list[str] = Field(description="In the order that this rater is shown.")
    columns: dict[str, Any] = Field(description="Fields of the prompt that raters may see.")
    expires: float = Field(description="Unix seconds.")
    draft: str


class VoteOut(BaseModel):
    id: int
    key: str
    item: int
    rater: int
    assignment: int
    kind: str
    answer: dict[str, Any]
    shown: list[int] = Field(
        description="shown[i] is the place in the item of the response shown at place i."
    )
    reason: str
    seconds: float | None
    created: float
    supersedes: int | None
    repeated: bool = Field(description="The key was known: this vote had been stored before.")


class ProgressOut(BaseModel):
    items: int
    items_done: int
    votes: int
    votes_needed: int
    by_kind: dict[str, dict[str, int]]
    by_rater: list[dict[str, Any]] = Field(description="The rater who asks, alone: rater, name, votes.")


class Problem(BaseModel):
    detail: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The answer does not fit the item, or the body is no JSON"},
    401: {"model": Problem, "description": "Nobody knows who is asking"},
    403: {"model": Problem, "description": "From another site, or without the page's token"},
    404: {"model": Problem, "description": "There is no such thing of this rater"},
    409: {"model": Problem, "description": "The key, or the assignment, has another vote already"},
    410: {"model": Problem, "description": "The lease has run out, and others have taken the place"},
    413: {"description": "The body is too long"},
}

router = APIRouter(prefix="/api", responses=_PROBLEMS, default_response_class=Ascii)
Ours = [Depends(from_our_page)]


@router.get("/rater", response_model=RaterOut)
def rater(rater: Asking) -> Ascii:
    """Who is asking."""
    return Ascii(asdict(rater))


@router.post("/assign", response_model=AssignmentOut | None, dependencies=Ours)
def assign(request: Request, wanted: Wanted, rater: Asking) -> Ascii:
    """The rater's open assignment, its lease renewed, or the next one; null where nothing is left to do."""
    settings = settings_of(request)
    return _assignment(settings.store.assign(rater.id, kinds=wanted.kinds), settings)


@router.post("/vote", response_model=VoteOut, dependencies=Ours)
def vote(request: Request, body: Answer, rater: Asking) -> Ascii:
    """Record an answer. Sent again with the same key it changes nothing and returns the vote of the first time."""
    vote = settings_of(request).store.vote(
        body.assignment,
        body.answer,
        key=body.key,
        reason=body.reason,
        seconds=body.seconds,
        rater=rater.id,
    )
    return Ascii(asdict(vote))


@router.post("/undo", response_model=AssignmentOut | None, dependencies=Ours)
def undo(request: Request, body: Undo, rater: Asking) -> Ascii:
    """Take back the rater's last vote: its assignment is open again. Null where there is none."""
    settings = settings_of(request)
    return _assignment(settings.store.undo(rater.id, key=body.key), settings)


@router.post("/draft", response_model=None, dependencies=Ours)
def draft(request: Request, body: Draft, rater: Asking) -> Ascii:
    """Keep an unfinished answer with its assignment."""
    settings_of(request).store.save_draft(body.assignment, body.text, rater=rater.id)
    return Ascii(None)


@router.post("/release", response_model=None, dependencies=Ours)
def release(request: Request, body: Named, rater: Asking) -> Ascii:
    """Give an assignment back unanswered, to whoever asks next."""
    settings_of(request).store.release(body.assignment, rater=rater.id)
    return Ascii(None)


@router.get("/progress", response_model=ProgressOut)
def progress(request: Request, rater: Asking) -> Ascii:
    """How far the collection is, and how much of it is the rater's own."""
    return Ascii(asdict(seen_progress(settings_of(request), rater)))


def _assignment(assignment: Assignment | None, settings: Settings) -> Ascii:
    return Ascii(None if assignment is None else asdict(seen_assignment(assignment, settings)))
