"""HTTPClient: the store's methods through a server that may be late, die, and come back."""

import socket
import threading
import time
from dataclasses import replace

import pytest

from reward_models.preferences.client import HTTPClient
from reward_models.preferences.raters import SimulatedRater
from reward_models.preferences.store import Conflict, FeedbackError, FeedbackStore, NotFound
from tests.reward_models.preferences.serving import fill, served


@pytest.fixture
def store(quick_path):
    with FeedbackStore(quick_path / "feedback.db") as store:
        yield fill(store)


def length(completions):
    return [float(len(completion.response)) for completion in completions]


def test_it_does_what_the_store_does(store):
    store.request_comparisons(overlap=1)
    store.request_demonstrations()
    with served(store) as url, HTTPClient(url, "Zoë / 1") as client:
        zoe = client.rater()
        assert zoe == store.rater("Zoë / 1")
        given = client.assign(zoe.id, kinds=["comparison"])
        again = store.assign(zoe.id, kinds=["comparison"])
        assert given == replace(again, expires=given.expires, columns={})
        vote = client.vote(given.id, {"choice": "left"}, key="k", reason="why", seconds=1.5)
        assert vote == store.votes()[0]
        assert client.vote(given.id, {"choice": "left"}, key="k", reason="why", seconds=1.5).repeated
        assert client.undo(key="u").id == given.id
        client.release(given.id)
        writing = client.assign(kinds=["demonstration"])
        client.save_draft(writing.id, "Dear")
        assert client.assign(kinds=["demonstration"]).draft == "Dear"
        assert client.progress().votes_needed == store.progress().votes_needed
        assert [row["name"] for row in client.progress().by_rater] == ["Zoë / 1"]


def test_refusals_are_the_stores_errors(store):
    store.request_comparisons(overlap=1)
    with served(store) as url, HTTPClient(url, "Ann") as client:
        given = client.assign()
        with pytest.raises(NotFound, match="no assignment 999"):
            client.vote(999, {"choice": "left"}, key="k")
        with pytest.raises(FeedbackError, match="no answer to a comparison"):
            client.vote(given.id, {"choice": "up"}, key="k")
        client.vote(given.id, {"choice": "left"}, key="k")
        with pytest.raises(Conflict):
            client.vote(given.id, {"choice": "left"}, key="another")
        with pytest.raises(FeedbackError, match="rates as 'Ann', not as 'Bob'"):
            client.rater("Bob")


def test_in_public_it_needs_a_token(store):
    with served(store, public_url="http://rate.example.org") as url:
        token = store.add_rater("Kim").token
        assert HTTPClient(url, token).rater().name == "Kim"
        with pytest.raises(FeedbackError, match="personal link"):
            HTTPClient(url, "Kim").rater()


def test_a_simulated_rater_works_over_it_as_on_the_store(store, quick_path):
    store.request_comparisons(overlap=1)
    store.request_rankings(k=3)
    rater = SimulatedRater(length, temperature=5.0, flip=0.15, seed=3, name="judge")
    with served(store) as url, HTTPClient(url, "judge") as client:
        assert rater.rate(client) == 6
    with FeedbackStore(quick_path / "other.db") as other:
        fill(other).request_comparisons(overlap=1)
        other.request_rankings(k=3)
        assert rater.rate(other) == 6
        assert [vote.answer for vote in other.votes()] == [vote.answer for vote in store.votes()]


def test_a_vote_outlives_the_server_that_took_it(store):
    """The first server stores the vote and dies before it answers; the client sends it again to the second."""
    store.request_comparisons(overlap=1)
    with served(store) as url, HTTPClient(url, "Ann") as client:
        given = client.assign()
    port = int(url.rpartition(":")[2])
    dying = threading.Thread(target=take_and_hang_up, args=(port, store, given.id))
    dying.start()
    client = HTTPClient(url, "Ann", retry_for=30)
    back = threading.Thread(target=come_back, args=(store, port, dying, done := threading.Event()))
    back.start()
    vote = client.vote(given.id, {"choice": "left"}, key="k")
    done.set()
    back.join()
    assert vote.repeated and [row.key for row in store.votes()] == ["k"]


def take_and_hang_up(port, store, assignment):
    with socket.create_server(("127.0.0.1", port)) as server:
        connection, _ = server.accept()
        connection.recv(65536)
        store.vote(assignment, {"choice": "left"}, key="k")
        connection.close()


def come_back(store, port, after, done):
    after.join()
    time.sleep(0.2)
    with served(store, port):
        done.wait(30)


def test_it_gives_up_in_the_end():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionError, match=r"could not be reached for 0\.2 seconds.*rlhf feedback serve"):
        HTTPClient(f"http://127.0.0.1:{port}", "Ann", retry_for=0.2).assign()
    with pytest.raises(FeedbackError, match="no web address"):
        HTTPClient("127.0.0.1:8000", "Ann")
