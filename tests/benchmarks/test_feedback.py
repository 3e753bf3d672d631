"""The crash test of the feedback store in small: the real server over HTTP, killed while raters rate."""

import json

import pytest

from benchmarks.feedback import postgres
from benchmarks.feedback.audit import audit
from benchmarks.feedback.report import passed, table, write
from benchmarks.feedback.trial import killed, undisturbed
from reward_models.preferences.schema import items, sa, votes
from reward_models.preferences.store import FeedbackStore, Sample

NOTHING_WRONG = {"lost": 0, "doubled": 0, "over_assigned": 0}


def crash(db, folder):
    found = killed(db, n_votes=300, n_raters=8, n_kills=3, log=folder / "log")
    assert {name: found[name] for name in NOTHING_WRONG} == NOTHING_WRONG
    assert (found["votes_that_count"], found["kills"]) == (300, 3)
    assert found["votes_acknowledged"] == 300 + found["undos_acknowledged"]


def test_raters_lose_nothing_when_the_server_is_killed_on_sqlite(tmp_path):
    crash(str(tmp_path / "feedback.db"), tmp_path)


def test_raters_lose_nothing_when_the_server_is_killed_on_postgresql(tmp_path):
    try:
        with postgres.server(durable=False) as server, postgres.empty(server) as db:
            crash(db, tmp_path)
    except postgres.Unavailable as why:
        pytest.skip(f"no PostgreSQL: {why}")


def test_results_are_written_and_judged(tmp_path):
    busy = undisturbed(str(tmp_path / "feedback.db"), n_votes=20, n_raters=2, log=tmp_path / "log")
    results = {"SQLite": {"busy": busy}}
    assert passed(results)
    assert f"| SQLite | without a pause | {busy['votes_acknowledged']} | 0 | 0 | 0 |" in table(results)
    write(
        results,
        {"cpu": "a CPU", "cores": 2, "load_average": [0.5], "python": "3.11", "versions": {}}
        | {"raters": 2, "overlap": 2},
        tmp_path,
    )
    assert json.loads((tmp_path / "results.json").read_text())["results"] == results
    assert table(results) in (tmp_path / "results.md").read_text()
    assert not passed({"SQLite": {"busy": busy | {"lost": 1}}})
    assert not passed({"SQLite": {"busy": busy | {"votes_that_count": 19}}})


@pytest.mark.parametrize(
    "think, p99, judged, passes",
    [(1.0, 99.9, "pass", True), (1.0, 100.0, "fail", False), (0.0, 134.1, "fail", True)],
)
def test_every_row_is_held_to_the_bar_and_the_result_where_raters_pause(think, p99, judged, passes):
    trial = dict.fromkeys(("votes_asked_for", "votes_that_count", "votes_acknowledged"), 10) | NOTHING_WRONG
    trial |= {"think_seconds": think, "votes_per_second": 30.0, "p50_ms": 3.0, "p99_ms": p99}
    results = {"SQLite": {"trial": trial}}
    assert passed(results) == passes
    assert table(results).endswith(f"| {p99:.0f} ms | {judged} |")


class TestAudit:
    """Does it see what it is there to see? Rows are spoiled by hand, behind the store's back."""

    @pytest.fixture
    def store(self, tmp_path):
        with FeedbackStore(tmp_path / "feedback.db") as store:
            store.add_samples([Sample("p", "a"), Sample("p", "b")])
            store.request_comparisons(overlap=2)
            for name in ("Ann", "Bob"):
                task = store.assign(store.rater(name).id)
                store.vote(task.id, {"choice": "left"}, key=name)
            yield store

    def spoil(self, store, statement):
        with store.database.writers.begin() as connection:
            connection.execute(statement)

    acknowledged = {"Ann": {"choice": "left"}, "Bob": {"choice": "left"}}  # noqa: RUF012

    def test_nothing_wrong(self, store):
        assert audit(store, self.acknowledged) == NOTHING_WRONG

    def test_a_missing_vote_is_lost(self, store):
        self.spoil(store, sa.delete(votes).where(votes.c.key == "Ann"))
        assert audit(store, self.acknowledged) == NOTHING_WRONG | {"lost": 1}

    def test_another_answer_is_lost(self, store):
        self.spoil(store, sa.update(votes).where(votes.c.key == "Ann").values(answer={"choice": "tie"}))
        assert audit(store, self.acknowledged) == NOTHING_WRONG | {"lost": 1}

    def test_a_missing_undo_is_lost(self, store):
        assert audit(store, self.acknowledged, {"undo"}) == NOTHING_WRONG | {"lost": 1}

    def test_a_second_vote_of_one_rater_is_doubled_and_one_too_many(self, store):
        again = {
            "key": "again",
            "assignment": 1,
            "kind": "comparison",
            "answer": {"choice": "left"},
            "reason": "",
        }
        self.spoil(store, sa.insert(votes).values(**again, created=0.0))
        sent = self.acknowledged | {"again": {"choice": "left"}}
        assert audit(store, sent) == {"lost": 0, "doubled": 1, "over_assigned": 1}

    def test_a_vote_that_nobody_sent_is_doubled(self, store):
        assert audit(store, {"Ann": {"choice": "left"}}) == NOTHING_WRONG | {"doubled": 1}

    def test_more_votes_than_overlap_are_over_assigned(self, store):
        self.spoil(store, sa.update(items).values(overlap=1, taken=1))
        assert audit(store, self.acknowledged) == NOTHING_WRONG | {"over_assigned": 1}
