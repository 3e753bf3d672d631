"""The rating page and its JSON API: one FastAPI application for any ASGI server; `rlhf feedback serve` starts one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

try:
    import jinja2  # noqa: F401
    import python_multipart  # noqa: F401
    import uvicorn  # noqa: F401
    from fastapi import FastAPI, Request
except ImportError as error:
    raise ImportError(
        f"The rating page needs {error.name}. Install all that it needs with: pip install 'text-envs[feedback]'"
    ) from error

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from reward_models.preferences import api, organiser, pages
from reward_models.preferences.entries import FeedbackError, Unavailable
from reward_models.preferences.records import RecordError
from reward_models.preferences.rendering import error_page
from reward_models.preferences.security import Guard, origin_of
from reward_models.preferences.sessions import Settings
from reward_models.preferences.store import FeedbackStore

logger = logging.getLogger("reward_models")

STATIC = Path(__file__).parent / "static"


def create_app(
    store: FeedbackStore,
    *,
    public_url: str | None = None,
    rater: str = "",
    columns: Sequence[str] = (),
) -> FastAPI:
    """The application.

    Args:
        store: what is asked and answered; its guidelines are the page's.
        public_url: the address by which raters reach the server, such as https://rate.example.org. They then need personal
            links, `{public_url}/join/{token}`, and so does the organiser. None serves this machine alone: a name is enough.
        rater: on this machine, who rates when nobody has typed a name.
        columns: which of the prompt's other fields raters see, such as a reference answer. All others stay in the store,
            because they may tell which model wrote what.

    Raises:
        ValueError: `public_url` is no http:// or https:// address.
    """
    url = origin_of(public_url) if public_url else None
    app = FastAPI(
        title="Preferences",
        description="What people prefer: hands out items to rate and takes answers to them.",
        docs_url=None,  # these two load scripts from other sites
        redoc_url=None,
        middleware=[Middleware(Guard, public_url=url)],
    )
    app.state.settings = Settings(store, url, rater, tuple(columns))
    app.include_router(api.router)
    app.include_router(organiser.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(FeedbackError, _refused)
    app.add_exception_handler(Unavailable, _unavailable)
    app.add_exception_handler(RecordError, _no_record)
    app.add_exception_handler(HTTPException, _not_served)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(Exception, _broken)
    return app


def _refused(request: Request, error: Any) -> Response:
    return _problem(request, error.status, str(error))


def _unavailable(request: Request, error: Any) -> Response:
    """Which database and why is for the log, not for raters; their pages try again."""
    logger.error("%s", error)
    return _problem(request, error.status, "The database does not answer. Try again.")


def _no_record(request: Request, error: Any) -> Response:
    return _problem(request, 400, str(error))


def _not_served(request: Request, error: Any) -> Response:
    words = {404: "There is no such page.", 405: "This address does not take that kind of request."}
    return _problem(
        request, error.status_code, words.get(error.status_code, error.detail), headers=error.headers
    )


def _not_understood(request: Request, error: Any) -> Response:
    """Where the request is wrong and how; without what it contained, which may be anything."""
    return _problem(
        request, 422, [{name: problem[name] for name in ("loc", "msg", "type")} for problem in error.errors()]
    )


def _broken(request: Request, error: Exception) -> Response:
    """Our own mistake. The server's log has it; it is answered outside the guard, so with the headers here."""
    return PlainTextResponse(
        "The server made a mistake. Try again.",
        500,
        {
            "Content-Security-Policy": "default-src 'none'",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        },
    )


def _problem(request: Request, status: int, detail: Any, headers: Any = None) -> Response:
    if request.url.path.startswith("/api/"):
        return api.Ascii({"detail": detail}, status_code=status, headers=headers)
    if not isinstance(detail, str):
        detail = "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in detail)
    response = error_page(request, status, detail)
    response.headers.update(headers or {})
    return response
