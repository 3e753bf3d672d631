"""HTTPClient: a feedback store as one rater sees it, over HTTP. Needs nothing beyond the standard library."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from reward_models.preferences.entries import (
    Assignment,
    Conflict,
    FeedbackError,
    LeaseExpired,
    NotFound,
    Progress,
    Rater,
    Vote,
)

_ERRORS: dict[int, type[FeedbackError]] = {
    error.status: error for error in (NotFound, Conflict, LeaseExpired)
}
_RETRIED = frozenset({429, 500, 502, 503, 504})


class HTTPClient:
    """Rates at a running `rlhf feedback serve`, with the methods of `FeedbackStore` that a rater needs.

    A request that meets no server, or one that is breaking down, is sent again until it is answered: with the same key,
    so that a vote counts once, whether or not it had arrived. One client is one rater's, in one thread; the connection is
    kept open between requests.

    Args:
        base_url: as the server printed it, such as http://127.0.0.1:8000.
        name_or_token: the rater's name where the server serves its own machine, else the token of their personal link.
        timeout: seconds to wait for each answer.
        retry_for: seconds after which a request that nobody answers is given up.

    Raises:
        FeedbackError: `base_url` is no http:// or https:// address. Methods raise what the store's raise, and
            ConnectionError when they give up.
    """

    def __init__(self, base_url: str, name_or_token: str, *, timeout: float = 30.0, retry_for: float = 120.0):
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FeedbackError(
                f"{base_url!r} is no web address. Give one such as http://127.0.0.1:8000, without a path."
            )
        secure = parts.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self.url = f"{parts.scheme}://{parts.netloc}"
        self.retry_for = retry_for
        self._connection = connect(parts.hostname, parts.port, timeout=timeout)
        self._headers = {
            "Authorization": f"Bearer {quote(name_or_token, safe='')}",
            "Content-Type": "application/json",
        }

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> HTTPClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def rater(self, name: str = "") -> Rater:
        """The rater that this client is.

        Raises:
            FeedbackError: it is not `name`, where a name is given.
        """
        rater = Rater(**self._ask("GET", "/api/rater"))
        if name not in ("", rater.name):
            raise FeedbackError(
                f"This client rates as {rater.name!r}, not as {name!r}. Make one for each rater."
            )
        return rater

    def assign(self, rater: int | None = None, *, kinds: Collection[str] | None = None) -> Assignment | None:
        """The rater's open item again, or the next one; None where there is nothing for them to do.

        Args:
            rater: this client's own, as the store's method has it; the server knows who asks.
            kinds: only these; None for all.
        """
        wanted = {"kinds": None if kinds is None else list(kinds)}
        return _assignment(self._ask("POST", "/api/assign", wanted))

    def release(self, assignment: int, *, rater: int | None = None) -> None:
        """Give an item back unrated."""
        self._ask("POST", "/api/release", {"assignment": assignment})

    def save_draft(self, assignment: int, text: str, *, rater: int | None = None) -> None:
        """Keep an unfinished text; the assignment carries it as `draft`."""
        self._ask("POST", "/api/draft", {"assignment": assignment, "text": text})

    def vote(
        self,
        assignment: int,
        answer: Mapping[str, Any],
        *,
        key: str,
        reason: str = "",
        seconds: float | None = None,
        rater: int | None = None,
    ) -> Vote:
        """Record an answer. When this returns, the vote is on the server's disk; see `FeedbackStore.vote`."""
        body = {
            "assignment": assignment,
            "answer": dict(answer),
            "key": key,
            "reason": reason,
            "seconds": seconds,
        }
        vote = self._ask("POST", "/api/vote", body)
        return Vote(**vote | {"shown": tuple(vote["shown"])})

    def undo(self, rater: int | None = None, *, key: str) -> Assignment | None:
        """Take back the rater's last vote; its item is in their hands again. None where they have no vote."""
        return _assignment(self._ask("POST", "/api/undo", {"key": key}))

    def progress(self) -> Progress:
        """How far the collection is. `by_rater` has this rater's own row alone."""
        progress = self._ask("GET", "/api/progress")
        return Progress(**progress | {"by_rater": tuple(progress["by_rater"])})

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        content = None if body is None else json.dumps(body)
        deadline, pause = time.monotonic() + self.retry_for, 0.05
        while True:
            try:
                status, answer = self._send(method, path, content)
                problem = f"it answered {status}"
            except (OSError, http.client.HTTPException) as error:
                status, answer = 0, b""
                problem = f"{type(error).__name__}: {error}"
            if status and status not in _RETRIED:
                return _read(status, answer)
            if time.monotonic() + pause > deadline:
                raise ConnectionError(
                    f"{self.url} could not be reached for {self.retry_for:g} seconds: {problem}. "
                    "Start `rlhf feedback serve`, or check the address."
                )
            time.sleep(pause * random.uniform(0.5, 1.0))  # so that many clients do not all come back at once
            pause = min(2 * pause, 2.0)

    def _send(self, method: str, path: str, content: str | None) -> tuple[int, bytes]:
        try:
            self._connection.request(method, path, content, self._headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except BaseException:
            self._connection.close()  # half a conversation cannot be gone on with; the next request opens another
            raise


def _read(status: int, answer: bytes) -> Any:
    """The JSON of a good answer.

    Raises:
        FeedbackError: the server refused; of the class that fits.
    """
    try:
        value = json.loads(answer)
    except ValueError:
        value = {"detail": answer.decode(errors="replace").strip() or "an answer that is no JSON"}
        status = status if status >= 400 else 400
    if status < 400:
        return value
    detail = value.get("detail", value) if isinstance(value, dict) else value
    raise _ERRORS.get(status, FeedbackError)(detail if isinstance(detail, str) else json.dumps(detail))


def _assignment(value: dict[str, Any] | None) -> Assignment | None:
    return None if value is None else Assignment(**value | {"responses": tuple(value["responses"])})
