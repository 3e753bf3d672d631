"""`rlhf feedback serve`: the rating page, and its JSON API for programs that rate."""

from __future__ import annotations

import errno
import gc
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

from jsonargparse import Namespace

from reward_models.preferences import server as pages  # first: it says what is not installed
from reward_models.preferences.security import LOOPBACK, origin_of
from reward_models.preferences.store import FeedbackStore

ORGANISER = "organiser"
BACKLOG = 2048  # connections that may wait to be accepted


def serve(options: Namespace, config: str) -> int:
    """`rlhf feedback serve`: returns the exit status, 0 when Ctrl-C ended it, 143 when SIGTERM did."""
    import uvicorn

    if options.public:
        origin_of(options.public)
        if options.rater:
            raise ValueError("--rater is for this machine alone: with --public, raters have personal links.")
    elif options.host not in LOOPBACK:
        raise ValueError(
            f"--host {options.host} lets other machines in. Say so with --public and the address that raters open, such as "
            f"--public http://{socket.gethostname()}:{options.port}: they then need personal links."
        )
    with FeedbackStore(options.db) as store, listen(options.host, options.port) as listener:
        columns = [options.columns] if isinstance(options.columns, str) else options.columns
        app = pages.create_app(store, public_url=options.public, rater=options.rater, columns=columns)
        server = uvicorn.Server(
            uvicorn.Config(app, access_log=False, log_level="warning", server_header=False, lifespan="off")
        )
        gc.collect()
        gc.freeze()  # all that was imported stays: looking it through again stops every rater for 200 ms, every other second
        terminated: list[int] = []

        def terminate(
            number: int, frame: object
        ) -> None:  # uvicorn hands the signal on when it has shut down
            terminated.append(number)
            raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            signal.signal(signal.SIGTERM, terminate)
            _announce(store, options.public, listener)
            server.run(sockets=[listener])
        print("Stopped; every answer is in the database.", file=sys.stderr)
    return 128 + signal.SIGTERM if terminated else 0


def listen(host: str, port: int) -> socket.socket:
    """A socket at that address; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Its protocol is named because asyncio switches Nagle's delay off for sockets that name it: 80 ms a request.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        return listener
    except OSError as error:
        listener.close()
        advice = (
            "Another program has it: choose another port, or 0 for a free one."
            if error.errno == errno.EADDRINUSE
            else "Choose another --host or --port."
        )
        raise OSError(f"Nothing can be served at {host}:{port}: {error.strerror}. {advice}") from error


def _announce(store: FeedbackStore, public_url: str | None, listener: socket.socket) -> None:
    if public_url:
        url = origin_of(public_url)
        lines = [
            f"Organiser's page: {url}/join/{organiser_token(store)}",
            "The link is for you alone; it changes at every start. There you make the raters' links.",
        ]
    else:
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        lines = [f"Rating page:      {url}/", f"Organiser's page: {url}/organiser"]
    database = "New database:    " if store.database.is_new else "Database:        "
    _say([*lines, f"{database} {store.database.where}   (Ctrl-C ends the server)"])


def _say(lines: Sequence[str]) -> None:
    print("\n".join(lines), flush=True)


def organiser_token(store: FeedbackStore) -> str:
    """A new token for the organiser, who is added at the first start."""
    names = {rater.name: rater.organiser for rater in store.raters()}
    for name, is_organiser in names.items():
        if is_organiser:
            return store.new_token(name).token
    name = ORGANISER
    while name in names:  # somebody rates under that name
        name += "_"
    return store.add_rater(name, organiser=True).token
