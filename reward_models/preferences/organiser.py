"""The organiser's page: how far it is, how far raters agree, what sways them; guidelines, personal links, downloads."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Depends, Form, Request
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, RedirectResponse, Response

from reward_models.preferences.agreement import summary
from reward_models.preferences.entries import NotFound, RaterAccess
from reward_models.preferences.formats import Format
from reward_models.preferences.rendering import page
from reward_models.preferences.sessions import from_our_page, organiser, settings_of, tidy_name

router = APIRouter(include_in_schema=False, prefix="/organiser", dependencies=[Depends(organiser)])
Ours = [Depends(from_our_page)]

MAX_GUIDELINES = 50_000  # characters
Exported = Literal["comparisons", "rankings", "demonstrations", "ratings", "records"]

# What the coefficients are called, and what they are out of.
_COEFFICIENTS = {
    "raw_agreement": ("Raw agreement", "two raters of one item say the same"),
    "cohen_kappa": ("Cohen's kappa", "beyond chance, mean over pairs of raters"),
    "fleiss_kappa": ("Fleiss' kappa", "beyond chance, all raters together"),
    "krippendorff_alpha": ("Krippendorff's alpha", "beyond chance, whoever rated what"),
}


@dataclass(frozen=True)
class Figure:
    """One number with its interval, as text and as places on an axis of length 100.

    Attributes:
        name, note: what it is.
        value, interval: as text; "" where it is not defined.
        at, low, high: 0 to 100 on the axis.
        mark: the place of the reference line, nothing beyond chance or no bias; None where there is none.
    """

    name: str
    note: str
    value: str = ""
    interval: str = ""
    at: float = 0.0
    low: float = 0.0
    high: float = 0.0
    mark: float | None = None


@router.get("")
def overview(request: Request) -> Response:
    """Everything at a glance."""
    return _overview(request)


@router.post("/guidelines", dependencies=Ours)
def write_guidelines(
    request: Request, text: Annotated[str, Form(max_length=MAX_GUIDELINES)] = ""
) -> Response:
    """What raters are told; they see it from their next page on."""
    settings_of(request).store.guidelines = text.replace("\r\n", "\n")
    return RedirectResponse("/organiser", 303)


@router.post("/links", dependencies=Ours)
def make_link(request: Request, name: Annotated[str, Form(max_length=1000)] = "") -> Response:
    """A personal link for a new rater; for one that is known, another in place of the old."""
    settings = settings_of(request)
    if not settings.public_url:
        raise NotFound(
            "On this machine a name is enough. Personal links are made where the server has a public address."
        )
    name = tidy_name(name)
    known = {rater.name for rater in settings.store.raters()}
    access = settings.store.new_token(name) if name in known else settings.store.add_rater(name)
    return _overview(request, access)


@router.post("/export", dependencies=Ours)
def export(
    request: Request, kind: Annotated[Exported, Form()], format: Annotated[Format, Form()]
) -> Response:
    """A JSONL file; its sha256 is remembered in the database."""
    folder = tempfile.TemporaryDirectory()
    try:
        path = Path(folder.name) / f"{kind}-{format}.jsonl"
        settings_of(request).store.export(path, kind=kind, format=format)
    except BaseException:
        folder.cleanup()
        raise
    done = BackgroundTask(folder.cleanup)
    return FileResponse(path, media_type="application/jsonl", filename=path.name, background=done)


def _overview(request: Request, access: RaterAccess | None = None) -> Response:
    settings = settings_of(request)
    facts = summary(settings.store)
    return page(
        request,
        "organiser.html",
        facts=facts,
        by_kind=settings.store.progress().by_kind,
        agreements=_agreements(facts),
        biases=_biases(facts),
        guidelines=settings.store.guidelines,
        kinds=get_args(Exported),
        formats=get_args(Format),
        organisers={rater.name for rater in settings.store.raters() if rater.organiser},
        access=access,
        link=f"{settings.public_url}/join/{access.token}" if access else "",
    )


def _agreements(facts: dict[str, Any]) -> dict[str, tuple[int, list[Figure]]]:
    """Of each kind that was voted on: how many items raters share, and the coefficients."""
    found = {}
    for kind in ("comparisons", "rankings", "ratings"):
        of_kind = facts.get(kind)
        if of_kind:
            figures = [
                _figure(*words, of_kind[name], is_share=True)
                if name == "raw_agreement"
                else _figure(*words, of_kind[name], is_share=False, mark=0.0)
                for name, words in _COEFFICIENTS.items()
                if name in of_kind
            ]
            found[kind] = (of_kind["items_shared"], figures)
    return found


def _biases(facts: dict[str, Any]) -> list[Figure]:
    position, length = facts["position_bias"], facts["length_bias"]
    return [
        _figure("Left answer wins", _verdict(position, "left", "right"), position, is_share=True, mark=0.5),
        _figure("Longer answer wins", _verdict(length, "longer", "shorter"), length, is_share=True, mark=0.5),
    ]


def _verdict(estimate: dict[str, Any], more: str, less: str) -> str:
    if estimate["low"] is None:
        return "not enough votes yet"
    if estimate["low"] > 0.5:
        return f"leans to the {more} answer"
    if estimate["high"] < 0.5:
        return f"leans to the {less} answer"
    return "no lean to be seen"


def _figure(
    name: str, note: str, estimate: dict[str, Any], *, is_share: bool, mark: float | None = None
) -> Figure:
    """Shares on an axis from 0 to 1, coefficients on one from -1 to 1."""
    value, low, high = (estimate[part] for part in ("value", "low", "high"))

    def words(number: float) -> str:
        return f"{100 * number:.0f} %" if is_share else f"{number:z.2f}".replace("-", "−")

    def place(number: float) -> float:
        return round(100 * max(0.0, min(1.0, number if is_share else (number + 1) / 2)), 1)

    if value is None:
        return Figure(name, note)
    at, line = place(value), None if mark is None else place(mark)
    if low is None:
        return Figure(name, note, words(value), "", at, at, at, line)
    return Figure(
        name, note, words(value), f"{words(low)} to {words(high)}", at, place(low), place(high), line
    )
