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
from tests.reward_models.preferences.conftest import Clock

RATERS = 4
LEASE = 10.0

raters = st.integers(0, RATERS - 1)
choices = st.sampled_from(["left", "right", "tie", "skip"])


@dataclass
class Hand:
    """What the model knows of one assignment."""

    item: int
    rater: int
    state: str = "open"  # then voted or released; one that is open and late may have been given to another
    expires: float = 0.0
    votes: list = field(default_factory=list)  # (vote id, key, choice), the last one last


class Crowd(RuleBasedStateMachine):
    """Raters take, rate, undo, give back and send again; time passes; more is asked of them."""

    store: FeedbackStore  # empty; set by `try_events`
    clock: Clock

    @initialize(overlap=st.integers(1, 2))
    def begin(self, overlap):
        self.store.add_samples([Sample(f"p{i}", f"r{j}") for i in range(2) for j in range(2)])
        self.overlap = dict.fromkeys(self.store.request_comparisons(overlap=overlap), overlap)
        self.raters = [self.store.rater(f"rater {i}").id for i in range(RATERS)]
        self.hands: dict[int, Hand] = {}
        self.acknowledged: dict[str, dict] = {}
        self.undone: set[str] = set()
        self.keys = 0
        self.assign(0)

    def key(self):
        self.keys += 1
        return f"key {self.keys}"

    def is_live(self, hand):
        return hand.state == "open" and hand.expires > self.clock.now

    def has_room(self, item):
        hands = [hand for hand in self.hands.values() if hand.item == item]
        return sum(hand.state == "voted" or self.is_live(hand) for hand in hands) < self.overlap[item]

    def assign(self, rater):
        given = self.store.assign(self.raters[rater], lease=LEASE)
        if given is None:
            done = {
                h.item for h in self.hands.values() if h.rater == self.raters[rater] and h.state == "voted"
            }
            assert not any(self.has_room(item) for item in self.overlap if item not in done)
            return None
        hand = self.hands.setdefault(given.id, Hand(given.item, given.rater))
        assert (hand.item, hand.rater) == (given.item, self.raters[rater])
        assert hand.state != "voted", "given although it was rated"
        hand.state, hand.expires = "open", self.clock.now + LEASE
        assert given.expires == hand.expires
        return given.id

    def send(self, number, choice, times):
        hand, key = self.hands[number], self.key()
        vote = self.store.vote(number, {"choice": choice}, key=key)
        assert hand.state != "voted" and (self.is_live(hand) or self.has_room(hand.item))
        hand.state = "voted"
        hand.votes.append((vote.id, key, choice))
        self.acknowledged[key] = {"choice": choice}
        for _ in range(times - 1):
            again = self.store.vote(number, {"choice": choice}, key=key)
            assert (again.id, again.repeated) == (vote.id, True)

    @rule(rater=raters)
    def take(self, rater):
        self.assign(rater)

    @rule(rater=raters, choice=choices, times=st.integers(1, 2))
    def rate(self, rater, choice, times):
        number = self.assign(rater)
        if number is not None:
            self.send(number, choice, times)

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), choice=choices)
    def vote_on_what_was_given_some_time(self, data, choice):
        number = data.draw(st.sampled_from(sorted(self.hands)))
        hand = self.hands[number]
        try:
            self.send(number, choice, 1)
        except Conflict:
            assert hand.state == "voted"
        except LeaseExpired:
            assert not self.is_live(hand) and not self.has_room(hand.item)

    @rule(rater=raters, times=st.integers(1, 2))
    def undo(self, rater, times):
        key = self.key()
        mine = {
            hand.votes[-1]: number
            for number, hand in self.hands.items()
            if hand.rater == self.raters[rater] and hand.state == "voted"
        }
        if not mine:
            assert self.store.undo(self.raters[rater], key=key) is None
            return
        number = mine[max(mine)]
        for _ in range(times):
            assert self.store.undo(self.raters[rater], key=key, lease=LEASE).id == number
        self.hands[number].state, self.hands[number].expires = "open", self.clock.now + LEASE
        self.undone.add(key)

    @precondition(lambda self: self.hands)
    @rule(data=st.data())
    def release(self, data):
        number = data.draw(st.sampled_from(sorted(self.hands)))
        self.store.release(number)
        if self.hands[number].state == "open":
            self.hands[number].state = "released"

    @rule(seconds=st.sampled_from([4.0, LEASE]))
    def wait(self, seconds):
        self.clock.now += seconds

    @precondition(lambda self: self.keys > 15)  # places are scarce before
    @rule()
    def ask_for_more(self):
        self.overlap.update(dict.fromkeys(self.store.request_comparisons(overlap=2), 2))

    @invariant()
    def nothing_is_lost_or_doubled_and_no_item_has_too_many(self):
        found = audit(self.store, self.acknowledged, self.undone)
        assert found == {"lost": 0, "doubled": 0, "over_assigned": 0}

    def teardown(self):
        current = {vote.key: vote.answer["choice"] for vote in self.store.votes(current=True)}
        votes = [hand.votes[-1] for hand in self.hands.values() if hand.state == "voted"]
        assert current == {key: choice for _, key, choice in votes}
        assert self.store.progress().votes == len(self.store.records()) == len(current)
        with self.store.database.writers.begin() as connection:
            for table in ("votes", "assignments", "item_samples", "items", "samples", "prompts", "raters"):
                connection.exec_driver_sql(f"DELETE FROM {table}")


def try_events(url, runs):
    clock = Clock()
    with FeedbackStore(url, clock=clock) as store:
        run_state_machine_as_test(
            type("Crowd", (Crowd,), {"store": store, "clock": clock}),
            settings=settings(
                max_examples=runs,
                stateful_step_count=50,
                deadline=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            ),
        )


def test_random_events_on_sqlite(quick_path):
    try_events(quick_path / "feedback.db", runs=50)


def test_random_events_on_postgresql(postgres_server):
    with postgres.empty(postgres_server) as url:
        try_events(url, runs=20)


@pytest.mark.slow
def test_many_random_events_on_sqlite(quick_path):
    try_events(quick_path / "feedback.db", runs=500)
