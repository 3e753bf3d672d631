"""Pages from the templates beside this file: escaped, with the nonce and the token that the browser asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from reward_models.preferences.glyphs import shown
from reward_models.preferences.sessions import COOKIE, csrf_token, new_session, set_session, settings_of

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters["shown"] = shown


class Page(HTMLResponse):
    """HTML. What UTF-8 cannot say, such as half a surrogate pair in a text field, becomes a question mark."""

    def render(self, content: Any) -> bytes:
        return str(content).encode("utf-8", "replace")


def page(request: Request, template: str, status: int = 200, session: str = "", **context: Any) -> Page:
    """A page, or a part of one. Browsers that have no session yet get one.

    Args:
        template: its file.
        session: a new value for the cookie; "" keeps the browser's.
        context: what the template names, beside `nonce`, `csrf` and `is_public`.
    """
    settings = settings_of(request)
    current = session or request.cookies.get(COOKIE) or new_session()
    html = TEMPLATES.get_template(template).render(
        nonce=request.state.nonce, csrf=csrf_token(current), is_public=bool(settings.public_url), **context
    )
    response = Page(html, status)
    if 'method="post"' in html:  # under no-referrer a form's POST says "Origin: null", as a stranger's might
        response.headers["Referrer-Policy"] = "same-origin"
    if current != request.cookies.get(COOKIE):
        set_session(response, current, settings)
    return response


def error_page(request: Request, status: int, detail: str) -> Page:
    """What is wrong, in a sentence or two, and the way back."""
    titles = {401: "Who is rating?", 403: "Not for this page", 404: "Nothing here", 413: "Too long"}
    title = titles.get(status, "That did not work")
    return page(request, "error.html", status, title=title, detail=detail, signed_out=status == 401)
