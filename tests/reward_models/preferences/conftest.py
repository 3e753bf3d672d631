"""Feedback stores to test with: SQLite always, PostgreSQL where a server can be had (see benchmarks/feedback/postgres.py)."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from benchmarks.feedback import postgres
from reward_models.preferences.store import FeedbackStore, Sample


@pytest.fixture(scope="session")
def postgres_server():
    try:
        with postgres.server(durable=False) as url:
            yield url
    except postgres.Unavailable as why:
        pytest.skip(f"no PostgreSQL: {why}")


@pytest.fixture
def quick_path():
    """A folder in memory where there is one: syncing each commit to a disk takes most of a test's time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request):
    """The URL of an empty database, in each of the two systems."""
    if request.param == "sqlite":
        yield f"sqlite:///{request.getfixturevalue('quick_path') / 'feedback.db'}"
        return
    with postgres.empty(request.getfixturevalue("postgres_server")) as url:
        yield url


class Clock:
    """Unix seconds that stand still until somebody moves them."""

    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(store_url, clock):
    with FeedbackStore(store_url, clock=clock) as store:
        yield store


@pytest.fixture
def pairs():
    """pairs(n): samples for n comparisons, the answers of prompt i being "good i" and "bad i"."""
    return lambda n: [Sample(f"prompt {i}", f"{word} {i}") for i in range(n) for word in ("good", "bad")]


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium, which asks nothing of the network by itself."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium to look at the pages with: apt-get install chromium")
    switches = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=[f"--{switch}" for switch in [*switches.split(), "disable-sync"]]
        )
        yield browser
        browser.close()
