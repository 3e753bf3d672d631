"""Existing preferences enter a store as votes, once, and come out as what they were."""

from dataclasses import replace

import pytest

pytest.importorskip("sqlalchemy")

from reward_models.preferences import Comparison, Demonstration, Origin, Ranking, Rating
from reward_models.preferences.agreement import position_bias
from reward_models.preferences.formats import pairs_of, read
from reward_models.preferences.store import FeedbackError, FeedbackStore, Sample

RANKING = Ranking("p", ("a", "b", "c"), (2, None, 1), "ann", "why", (Origin("x"), Origin("y"), Origin("z")))
RECORDS = [
    Demonstration("q", "a", "ann", {"id": 1}),
    Rating("p", "a", 0.5, "ann", "because", Origin("ab12", {"temperature": 1.0}, 3)),
    Comparison("p", ("a", "b"), "left", "ann", origins=(Origin("x"), Origin("y"))),
    Comparison("p", ("a", "b"), "right", "bob", origins=(Origin("x"), Origin("y"))),
    Comparison("p", ("a", "c"), "both_bad", "ann", "neither"),
    Comparison("p", ("same", "same"), "left", "ann"),
    RANKING,
]


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path / "feedback.db") as store:
        yield store


def meaning(record):
    """A record without the order of its responses."""
    if isinstance(record, Comparison):
        both = sorted(zip(record.responses, map(str, record.origins)))
        return replace(record, responses=("", ""), choice="skip", origins=(Origin(), Origin())), [
            record.chosen, record.rejected, record.preference if record.chosen is None else None, both,
        ]  # fmt: skip
    if isinstance(record, Ranking):
        each = sorted(zip(record.responses, map(str, record.ranks), map(str, record.origins)))
        return (record.prompt, record.rater, record.reason, record.columns), each
    return record


def test_records_come_out_as_what_they_were_and_enter_once(store):
    assert store.add_records(RECORDS) == 7
    assert store.add_records(RECORDS) == 0
    found = store.records()
    assert len(found) == 7
    for record in RECORDS:
        assert any(meaning(record) == meaning(other) for other in found), record
    progress = store.progress()
    assert (progress.items, progress.items_done, progress.votes, progress.votes_needed) == (6, 6, 7, 7)


def test_what_nobody_signed_is_the_imports_one_vote_each(store):
    twice = [Comparison("p", ("a", "b"), "left"), Comparison("p", ("b", "a"), "left")]
    demonstrations = [Demonstration("p", text) for text in ("one", "two", "one")]
    assert store.add_records(twice + demonstrations) == 5
    assert store.add_records(demonstrations + twice) == 0
    assert sorted(record.rater for record in store.records()) == [
        "import", "import", "import 2", "import 2", "import 3",
    ]  # fmt: skip
    assert sorted(record.chosen for record in store.comparisons()) == ["a", "b"]
    assert sorted(record.response for record in store.demonstrations()) == ["one", "one", "two"]
    assert store.add_records([Demonstration("p", "four")], rater="file") == 1


def test_pairs_of_a_ranking_enter_as_the_ranking(store):
    assert store.add_records(pairs_of(RANKING)) == 1
    assert [meaning(record) for record in store.records()] == [meaning(RANKING)]


def test_imported_votes_and_raters_share_items(store):
    store.add_samples([Sample("p", "a"), Sample("p", "b")])
    (item,) = store.request_comparisons(overlap=2)
    ann = store.rater("ann")
    assignment = store.assign(ann.id)
    assert (
        store.add_records([Comparison("p", ("b", "a"), "left"), Comparison("p", ("b", "a"), "left", "ann")])
        == 1
    )
    assert store.items()[0].overlap == 2, "there was room for one"
    store.vote(assignment.id, {"choice": "tie"}, key="k")
    assert store.assign(store.rater("bob").id) is None
    store.add_records([Comparison("p", ("b", "a"), "right", "cid")])
    assert store.items()[0].overlap == 3, "an imported vote makes its own room"
    assert [record.chosen for record in store.comparisons()] == ["b", None, "a"]
    assert {vote.item for vote in store.votes()} == {item}


def test_a_record_that_no_rater_could_give_stores_nothing(store):
    with pytest.raises(FeedbackError, match=r"Record 1, on the prompt 'q': ' ' is no answer|Record 1, .*'q'"):
        store.add_records([Demonstration("p", "a"), Demonstration("q", " ")])
    assert store.records() == [] and store.progress().items == 0


def test_what_a_store_does_not_keep_is_said(store, caplog):
    store.add_records([Comparison("p", ("a", "b"), "left", margin=1.0), Comparison("q", ("a", "b"), "left")])
    assert "1 records have a margin or a weight" in caplog.text


def test_a_real_file_shows_no_bias_of_position(store, data):
    records = read(data / "preferences/pandalm_human/test.jsonl.gz").records
    assert store.add_records(records) == len(records)
    assert store.add_records(records) == 0
    bias = position_bias(store.votes())
    assert bias.low < 0.5 < bias.high
    found = store.comparisons()
    assert sorted(str(record.chosen) for record in found) == sorted(str(record.chosen) for record in records)
    assert 0.4 < sum(record.choice == "left" for record in found) / len(found) < 0.6
