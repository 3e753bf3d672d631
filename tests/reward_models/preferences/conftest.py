"""Feedback stores to test with: SQLite always, PostgreSQL where a server can be had (see benchmarks/feedback/postgres.py)."""

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


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request, tmp_path):
    """The URL of an empty database, in each of the two systems."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'feedback.db'}"
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
