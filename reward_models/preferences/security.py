"""What stands before every request to the rating page: who may ask, from where, how much; and the headers of every answer."""

from __future__ import annotations

import ipaddress
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = (
    2 * 1024 * 1024
)  # bytes; an answer of 100,000 characters fits in any script, written as JSON in any way
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

# Scripts and styles only from our own files, and only where our own page names them; nothing else is loaded, framed or sent.
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types page"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """ASGI middleware: refuses what no honest browser or client would send, and makes every answer safe to show.

    - Host: only names of this server, so that a web page that rebinds its own name to 127.0.0.1 gets nothing.
    - Peer: without `public_url`, only this machine, whatever address the server was bound to.
    - Origin and Sec-Fetch-Site: a POST comes from our own pages, or from a program that sends neither.
    - Body: at most `MAX_BODY` bytes, counted as they come.

    Args:
        app: what is guarded. It finds the nonce for its `<script>` and `<link>` in `request.state.nonce`.
        public_url: the address by which raters reach the server; None for this machine alone.
    """

    def __init__(self, app: ASGIApp, public_url: str | None = None):
        self.app = app
        self.origin = origin_of(public_url) if public_url else None
        public = urlsplit(public_url).hostname if public_url else None
        self.hosts = LOOPBACK | {public} if public else LOOPBACK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        nonce = secrets.token_urlsafe(16)
        scope.setdefault("state", {})["nonce"] = nonce
        send = _with_headers(send, nonce, scope["path"].startswith("/static/"))
        if refusal := self._refusal(scope):
            return await refusal(scope, receive, send)
        body = await _read(Headers(scope=scope), receive)
        if body is None:
            refusal = PlainTextResponse(f"The request is longer than {MAX_BODY:,} bytes.", status_code=413)
            return await refusal(scope, receive, send)
        await self.app(scope, _again(body, receive), send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _name(host) not in self.hosts:
            return PlainTextResponse(
                "This server does not go by that name. Open the address that it printed when it started.", 400
            )
        if self.origin is None and not _is_loopback(scope.get("client")):
            return PlainTextResponse("This server answers its own machine only.", 403)
        if scope["method"] not in _SAFE_METHODS:
            origins = {self.origin, f"http://{host}"} if self.origin else {f"http://{host}"}
            foreign = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
            if foreign or ("origin" in headers and headers["origin"].lower() not in origins):
                return PlainTextResponse("The request comes from another site.", 403)
        return None


def origin_of(url: str) -> str:
    """Scheme, host and port of a web address, as browsers send them in Origin.

    Raises:
        ValueError: it is no http:// or https:// address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"{url!r} is no web address. Give the one that raters open, such as http://192.168.1.5:8000."
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, default) else "")


def _name(host: str) -> str:
    """The host header without its port, in lower case; "" where it cannot be read."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(client: tuple[str, int] | None) -> bool:
    if client is None:  # a Unix socket
        return True
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or (mapped is not None and mapped.is_loopback)


async def _read(headers: Headers, receive: Receive) -> bytes | None:
    """The whole body; None as soon as it is too long."""
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY:
        return None
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":  # the client has gone
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, then whatever comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _with_headers(send: Send, nonce: str, is_static: bool) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers["Content-Security-Policy"] = _POLICY.format(nonce=nonce)
            headers["Cache-Control"] = "no-cache" if is_static else "no-store"
        await send(message)

    return guarded
