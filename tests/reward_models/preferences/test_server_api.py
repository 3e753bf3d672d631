"""The JSON API: the store's promises over HTTP, and nothing said before the vote that could sway it."""

import json
import os
import stat

import pytest

from reward_models.preferences.store import FeedbackStore, Sample
from tests.reward_models.preferences.serving import ANSWERS, PUBLIC, browser, fill


@pytest.fixture
def store(quick_path):
    with FeedbackStore(quick_path / "feedback.db") as store:
        yield fill(store)


@pytest.fixture
def ann(store):
    return browser(store, "Ann")


def post(client, path, **body):
    return client.post(f"/api/{path}", json=body)


def test_a_vote_is_about_the_answers_as_shown(store, ann):
    store.request_comparisons(overlap=1)
    given = post(ann, "assign").json()
    assert given["kind"] == "comparison" and set(given["responses"]) < set(ANSWERS)
    vote = post(
        ann, "vote", assignment=given["id"], answer={"choice": "right"}, key="k", reason="kind", seconds=2.5
    )
    assert vote.json()["repeated"] is False
    (record,) = store.comparisons()
    assert (record.chosen, record.rater, record.reason) == (given["responses"][1], "Ann", "kind")


def test_the_same_key_counts_once(store, ann):
    store.request_comparisons(overlap=1)
    given = post(ann, "assign").json()
    body = {"assignment": given["id"], "answer": {"choice": "tie"}, "key": "k"}
    first, again = post(ann, "vote", **body), post(ann, "vote", **body)
    assert (first.json()["id"], first.json()["repeated"]) == (again.json()["id"], False)
    assert again.json()["repeated"] is True
    assert post(ann, "vote", **body | {"answer": {"choice": "left"}}).status_code == 409
    assert len(store.votes()) == 1


def test_the_open_assignment_is_given_again_until_it_is_released(store, ann):
    store.request_comparisons(overlap=1)
    first = post(ann, "assign").json()
    assert post(ann, "assign").json()["id"] == first["id"]
    assert post(ann, "release", assignment=first["id"]).status_code == 200
    assert post(ann, "assign").json()["id"] != first["id"]


def test_undo_gives_the_item_back(store, ann):
    store.request_comparisons(overlap=1)
    given = post(ann, "assign").json()
    post(ann, "vote", assignment=given["id"], answer={"choice": "left"}, key="k")
    assert post(ann, "undo", key="u").json()["id"] == given["id"]
    assert store.comparisons() == []
    assert post(ann, "undo", key="u").json()["id"] == given["id"], "sent again, it undoes nothing more"
    assert post(ann, "undo", key="u2").json() is None


def test_a_draft_comes_back_with_its_assignment(store, ann):
    store.request_demonstrations()
    given = post(ann, "assign").json()
    post(ann, "draft", assignment=given["id"], text="Dear customer,")
    assert post(ann, "assign").json()["draft"] == "Dear customer,"


@pytest.mark.parametrize(
    "request_items, answer",
    [
        (FeedbackStore.request_rankings, {"ranks": [2, 1, None]}),
        (FeedbackStore.request_ratings, {"score": 4}),
        (FeedbackStore.request_demonstrations, {"response": "A new lid comes tomorrow."}),
    ],
)
def test_every_kind_is_answered(store, ann, request_items, answer):
    request_items(store, **({"k": 3} if "ranks" in answer else {}))
    given = post(ann, "assign").json()
    assert post(ann, "vote", assignment=given["id"], answer=answer, key="k").status_code == 200
    assert len(store.records()) == 1


def test_only_the_kinds_that_are_wanted(store, ann):
    store.request_comparisons(overlap=1)
    store.request_demonstrations()
    assert post(ann, "assign", kinds=["demonstration"]).json()["kind"] == "demonstration"
    assert post(ann, "assign", kinds=["rating"]).json() is None
    assert post(ann, "assign", kinds=["opinion"]).status_code == 422


def test_nothing_before_the_vote_tells_where_an_answer_comes_from(store, ann):
    store.request_comparisons(overlap=1)
    store.request_rankings(k=3)
    store.request_ratings()
    store.request_demonstrations()
    bodies = [
        ann.get("/").text,
        ann.get("/api/progress").text,
        ann.get("/api/rater").text,
        ann.get("/openapi.json").text,
    ]
    for kind in ("comparison", "ranking", "rating", "demonstration"):
        given = post(ann, "assign", kinds=[kind])
        bodies += [given.text, ann.post("/task", json={}).text]
        assert given.json()["kind"] == kind and given.json()["columns"] == {}
        post(ann, "release", assignment=given.json()["id"])
    for body in bodies:
        assert "secret" not in body and "0.75" not in body


def test_raters_see_the_columns_that_the_organiser_names(store):
    store.request_comparisons(overlap=1)
    ann = browser(store, "Ann", columns=["source", "missing"])
    assert post(ann, "assign").json()["columns"] == {"source": "secret-source"}
    assert "secret-source" in ann.post("/task", json={}).text


def test_progress_is_the_collections_and_the_raters_own(store, ann):
    store.request_comparisons(overlap=2)
    bob = browser(store, "Bob")
    given = post(bob, "assign").json()
    post(bob, "vote", assignment=given["id"], answer={"choice": "left"}, key="k")
    progress = ann.get("/api/progress").json()
    assert (progress["votes"], progress["votes_needed"], progress["items"], progress["items_done"]) == (
        1,
        6,
        3,
        0,
    )
    assert [(row["name"], row["votes"]) for row in progress["by_rater"]] == [("Ann", 0)]


def test_another_raters_assignment_is_not_there(store, ann):
    store.request_comparisons(overlap=1)
    given = post(ann, "assign").json()
    bob = browser(store, "Bob")
    for path, body in [
        ("vote", {"answer": {"choice": "left"}, "key": "k"}),
        ("draft", {"text": "x"}),
        ("release", {}),
    ]:
        assert post(bob, path, assignment=given["id"], **body).status_code == 404


@pytest.mark.parametrize(
    "body, status",
    [
        ({"answer": {"choice": "up"}, "key": "k"}, 400),
        ({"answer": {"choice": "left"}, "key": ""}, 422),
        ({"answer": {"choice": "left"}, "key": "k", "seconds": -1}, 422),
        ({"answer": {"choice": "left"}, "key": "k", "model": "x"}, 422),
        ({"answer": [], "key": "k"}, 422),
        ({"answer": {"choice": "left"}, "key": "k", "reason": "\ud800"}, 422),
    ],
)
def test_a_bad_vote_is_refused_without_an_echo(store, ann, body, status):
    store.request_comparisons(overlap=1)
    given = post(ann, "assign").json()
    content = json.dumps(body | {"assignment": given["id"]})
    answer = ann.post("/api/vote", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert '"input"' not in answer.text
    assert store.votes() == []


def test_texts_that_utf8_cannot_say_get_through(store, ann):
    store.add_samples([Sample("half \ud83d", "a\0"), Sample("half \ud83d", "b\udc00")])
    store.request_comparisons(overlap=1, prompts=store.add_prompts(["half \ud83d"]))
    given = post(ann, "assign")
    assert given.json()["prompt"] == "half \ud83d"
    page = ann.post("/task", json={})
    assert page.status_code == 200 and 'title="U+D83D' in page.text


def test_programs_name_their_rater_in_a_header(store):
    here = browser(store)
    assert here.get("/api/rater").status_code == 401
    named = here.get("/api/rater", headers={"Authorization": "Bearer J%C3%B8rn"})
    assert named.json()["name"] == "Jørn"
    access = store.add_rater("Kim")
    assert here.get("/api/rater", headers={"Authorization": f"Bearer {access.token}"}).json()["name"] == "Kim"


def test_in_public_only_a_token_opens(store):
    there = browser(store, public_url=PUBLIC)
    access = store.add_rater("Kim")
    assert there.get("/api/rater", headers={"Authorization": "Bearer Kim"}).status_code == 401
    assert (
        there.get("/api/rater", headers={"Authorization": f"Bearer {access.token}"}).json()["name"] == "Kim"
    )


def test_the_database_is_its_owners_alone(store):
    assert stat.S_IMODE(os.stat(store.database.where).st_mode) == 0o600
