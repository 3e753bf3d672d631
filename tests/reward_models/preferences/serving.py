"""A rating page to test: in process, or on a port of this machine that a browser can open."""

import contextlib
import re
import threading

import uvicorn
from starlette.testclient import TestClient

from agents.feedback_serve import listen
from reward_models.preferences.records import Origin
from reward_models.preferences.server import create_app
from reward_models.preferences.store import FeedbackStore, Sample

PUBLIC = "https://rate.example.org"
HERE = ("127.0.0.1", 50000)

KETTLE = "My kettle came with a cracked lid."
ANSWERS = ("I am sorry. A new lid is on its way.", "Kettles crack.", "Could you send a photo of it?")


def fill(store: FeedbackStore, n: int = 3) -> FeedbackStore:
    """`n` prompts with three answers each, of models whose names nobody may see."""
    store.add_samples(
        Sample(
            f"{KETTLE} ({i})", answer, Origin(f"secret-model-{k}"), {"score": 0.75, "source": "secret-source"}
        )
        for i in range(n)
        for k, answer in enumerate(ANSWERS)
    )
    return store


def browser(store: FeedbackStore, name: str = "", peer: tuple[str, int] = HERE, **options) -> TestClient:
    """A browser on this machine, or with `public_url` anywhere; with a name it has said who rates."""
    url = options.get("public_url") or "http://127.0.0.1:8000"
    client = TestClient(create_app(store, **options), base_url=url, client=peer)
    if name:
        client.post("/name", data={"name": name, "csrf": token(client)})
        client.headers["X-CSRF-Token"] = token(client)
    return client


def token(client: TestClient, path: str = "/") -> str:
    """The token that the page's forms and its script send along."""
    return re.search(r'(?:data-csrf|name="csrf" value)="(\w+)"', client.get(path).text)[1]


@contextlib.contextmanager
def served(store: FeedbackStore, port: int = 0, **options):
    """The page on a port of this machine. Yields its address."""
    listener = listen("127.0.0.1", port)
    server = uvicorn.Server(
        uvicorn.Config(create_app(store, **options), access_log=False, log_level="error", lifespan="off")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        listener.close()
