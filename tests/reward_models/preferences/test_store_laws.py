"""What no order of events may break, tried with events in random order against a model of a few lines."""

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from benchmarks.feedback import postgres
from benchmarks.feedback.audit import audit
from reward_models.preferences.store import Conflict, FeedbackStore, LeaseExpired, Sample

RATERS = 3
LEASE = 10.0
CHOICES = ("left", "right", "tie", "skip")


@dataclass
class Hand:
    """What the model knows of one assignment."""

    item: int
    rater: int
    state: str = "open"  # then voted or released; an open one whose time is over may have been expired
    expires: float = 0.0
    votes: list = field(
        default_factory=list
    )  # (key, choice, vote id) of those that count or counted, the last one last


class Store(RuleBasedStateMachine):
    """Raters take, keep, give back, rate, undo and send again; time passes; more is asked."""

    url = ""  # of an empty database; set by the tests below

    @initialize(overlap=st.integers(1, 3))
    def begin(self, overlap):
        self.now = 0.0
        self.store = FeedbackStore(self.url, clock=lambda: self.now)
        self.wipe()
        self.store.add_samples([Sample(f"p{i}", f"r{j}") for i in range(3) for j in range(2)])
        self.overlap = dict.fromkeys(self.store.request_comparisons(overlap=overlap), overlap)
        self.raters = [self.store.rater(f"rater {i}").id for i in range(RATERS)]
        self.hands: dict[int, Hand] = {}
        self.sent: list[tuple] = []  # every vote that was acknowledged: (assignment, choice, key, vote id)
        self.undone: list[tuple] = []  # (rater, key)
        self.events = 0

    def wipe(self):
        """Many runs share a database: a new one costs PostgreSQL half a second."""
        with self.store.database.writers.begin() as connection:
            for table in ("votes", "assignments", "item_samples", "items", "samples", "prompts", "raters"):
                connection.exec_driver_sql(f"DELETE FROM {table}")

    def key(self):
        self.events += 1
        return f"key {self.events}"

    def taken(self, item):
        """Votes and live leases."""
        hands = [hand for hand in self.hands.values() if hand.item == item]
        return sum(
            hand.state == "voted" or (hand.state == "open" and hand.expires > self.now) for hand in hands
        )

    @rule(rater=st.integers(0, RATERS - 1))
    def assign(self, rater):
        rater = self.raters[rater]
        given = self.store.assign(rater, lease=LEASE)
        if given is None:
            for item, overlap in self.overlap.items():
                mine = [hand for hand in self.hands.values() if (hand.item, hand.rater) == (item, rater)]
                assert self.taken(item) >= overlap or any(hand.state == "voted" for hand in mine)
            return
        hand = self.hands.setdefault(given.id, Hand(given.item, rater))
        assert (hand.item, hand.rater) == (given.item, rater)
        assert hand.state != "voted", "given twice"
        hand.state, hand.expires = "open", self.now + LEASE
        assert given.expires == hand.expires

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), choice=st.sampled_from(CHOICES))
    def vote(self, data, choice):
        number = data.draw(st.sampled_from(sorted(self.hands)))
        hand, key = self.hands[number], self.key()
        live = hand.state == "open" and hand.expires > self.now
        has_room = self.taken(hand.item) < self.overlap[hand.item]
        try:
            vote = self.store.vote(number, {"choice": choice}, key=key)
        except Conflict:
            assert hand.state == "voted"
        except LeaseExpired:
            assert not live and not has_room
        else:
            assert hand.state != "voted" and (live or has_room)
            hand.state = "voted"
            hand.votes.append((key, choice, vote.id))
            self.sent.append((number, choice, key, vote.id))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def send_again(self, data):
        number, choice, key, vote = data.draw(st.sampled_from(self.sent))
        again = self.store.vote(number, {"choice": choice}, key=key)
        assert (again.id, again.repeated) == (vote, True)

    @rule(rater=st.integers(0, RATERS - 1))
    def undo(self, rater):
        rater, key = self.raters[rater], self.key()
        given = self.store.undo(rater, key=key, lease=LEASE)
        votes = {
            hand.votes[-1][2]: number
            for number, hand in self.hands.items()
            if hand.rater == rater and hand.state == "voted"
        }
        if not votes:
            assert given is None
            return
        number = votes[max(votes)]
        assert given.id == number
        self.hands[number].state, self.hands[number].expires = "open", self.now + LEASE
        self.undone.append((rater, key))

    @precondition(lambda self: self.undone)
    @rule(data=st.data())
    def undo_again(self, data):
        rater, key = data.draw(st.sampled_from(self.undone))
        assert self.store.undo(rater, key=key).rater == rater

    @precondition(lambda self: self.hands)
    @rule(data=st.data())
    def release(self, data):
        number = data.draw(st.sampled_from(sorted(self.hands)))
        self.store.release(number)
        if self.hands[number].state == "open":
            self.hands[number].state = "released"

    @rule(seconds=st.sampled_from([1.0, 9.0, 11.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule(overlap=st.integers(1, 4))
    def ask_for_more(self, overlap):
        for item in self.store.request_comparisons(overlap=overlap):
            self.overlap[item] = max(self.overlap[item], overlap)

    @rule()
    def reopen(self):
        self.store.close()
        self.store = FeedbackStore(self.url, clock=lambda: self.now)

    @invariant()
    def every_acknowledged_vote_is_there_once_and_no_item_has_too_many(self):
        acknowledged = {key: {"choice": choice} for _, choice, key, _ in self.sent}
        undone = {key for _, key in self.undone}
        assert audit(self.store, acknowledged, undone, self.now) == {
            "lost": 0,
            "doubled": 0,
            "over_assigned": 0,
        }
        current = {vote.key: vote.answer["choice"] for vote in self.store.votes(current=True)}
        assert current == {
            hand.votes[-1][0]: hand.votes[-1][1] for hand in self.hands.values() if hand.state == "voted"
        }
        assert self.store.progress().votes == len(self.store.records()) == len(current)

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()


def run(url, examples):
    machine = type("Machine", (Store,), {"url": url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_random_events_on_sqlite(tmp_path):
    run(tmp_path / "feedback.db", examples=15)


def test_random_events_on_postgresql(postgres_server):
    with postgres.empty(postgres_server) as url:
        run(url, examples=8)


@pytest.mark.slow
def test_many_random_events_on_sqlite(tmp_path):
    run(tmp_path / "feedback.db", examples=1000)
