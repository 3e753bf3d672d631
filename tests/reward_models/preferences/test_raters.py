"""A simulated rater has the taste of its judge and exactly the noise that it is told to have."""

import itertools
import json

import numpy as np
import pytest

from reward_models.preferences.entries import Assignment, FeedbackError
from reward_models.preferences.raters import SimulatedRater

pytest.importorskip("sqlalchemy")

from reward_models.preferences.store import FeedbackStore, Sample

MANY = 2000


def judge(completions):
    """The response is its score."""
    return [float(completion.response) for completion in completions]


def shown(*responses, kind="comparison", prompt="p", item=1):
    return Assignment(item, item, 1, kind, prompt, tuple(map(str, responses)), {}, expires=0.0)


def choices(rater, left, right):
    answers = [rater.answer(shown(left, right, prompt=str(i)))["choice"] for i in range(MANY)]
    return {choice: answers.count(choice) / MANY for choice in ("left", "right", "tie")}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("left", "right", "temperature", "bias", "flip"),
    [(1, 0, 1, 0, 0), (0, 1, 2, 0, 0), (1, 0, 0.5, 0.7, 0), (0, 0.5, 1, -0.4, 0), (1, 0, 1, 0, 0.2)],
)
def test_the_left_one_wins_as_often_as_bradley_terry_say(left, right, temperature, bias, flip):
    p = sigmoid((left - right) / temperature + bias)
    expected = p * (1 - flip) + (1 - p) * flip
    share = choices(SimulatedRater(judge, temperature, flip, position_bias=bias), left, right)["left"]
    assert share == pytest.approx(expected, abs=4 * np.sqrt(0.25 / MANY))


def test_without_noise_the_better_one_always_wins():
    rater = SimulatedRater(judge, temperature=0)
    assert rater.answer(shown(2, 1)) == {"choice": "left"}
    assert rater.answer(shown(1, 2)) == {"choice": "right"}
    assert rater.answer(shown(1, 1)) == {"choice": "tie"}
    assert rater.answer(shown(1, 3, 2, kind="ranking")) == {"ranks": [3, 1, 2]}
    assert rater.answer(shown(1.5, kind="rating")) == {"score": 1.5}


def test_close_scores_are_a_tie_whatever_the_noise():
    rater = SimulatedRater(judge, temperature=0, tie_band=0.5)
    assert rater.answer(shown(1, 1.5)) == {"choice": "tie"}
    assert rater.answer(shown(1, 1.6)) == {"choice": "right"}
    assert rater.answer(shown(1, 3, 1.5, 2.8, kind="ranking")) == {"ranks": [2, 1, 2, 1]}
    assert choices(SimulatedRater(judge, temperature=5, tie_band=0.5), 1, 1.5)["tie"] == 1.0


def test_a_flip_of_one_turns_every_choice():
    assert SimulatedRater(judge, temperature=0, flip=1.0).answer(shown(2, 1)) == {"choice": "right"}


def test_rankings_are_plackett_luces():
    """The probability of an order is the product of softmaxes over those not yet placed (Plackett 1975)."""
    scores = np.array([0.0, 0.5, 1.2])
    rater = SimulatedRater(judge)
    counts = dict.fromkeys(itertools.permutations(range(3)), 0)
    for i in range(MANY):
        ranks = rater.answer(shown(*scores, kind="ranking", prompt=str(i)))["ranks"]
        counts[tuple(np.argsort(ranks).tolist())] += 1
    for order, count in counts.items():
        strengths = np.exp(scores[list(order)])
        expected = np.prod([strengths[i] / strengths[i:].sum() for i in range(3)])
        assert count / MANY == pytest.approx(expected, abs=4 * np.sqrt(0.25 / MANY))


def test_ratings_are_the_score_with_the_same_noise():
    rater = SimulatedRater(judge, temperature=0.5)
    scores = [rater.answer(shown(2, kind="rating", prompt=str(i)))["score"] for i in range(MANY)]
    assert np.mean(scores) == pytest.approx(2.0, abs=0.05)
    assert np.std(scores) == pytest.approx(0.5 * np.pi / np.sqrt(6), abs=0.04)  # Gumbel's


def test_what_is_drawn_follows_from_seed_name_and_content():
    def answers(rater, turned=False):
        found = []
        for i in range(200):
            pair = (0.0, 0.5)[::-1] if turned else (0.0, 0.5)
            choice = rater.answer(shown(*pair, prompt=str(i), item=i + 1000 * turned))["choice"]
            found.append(pair[("left", "right").index(choice)])
        return found

    first = answers(SimulatedRater(judge))
    assert answers(SimulatedRater(judge)) == first
    assert answers(SimulatedRater(judge), turned=True) == first, "the order shown changes no preference"
    assert answers(SimulatedRater(judge, seed=1)) != first
    assert answers(SimulatedRater(judge, name="other")) != first


def test_demonstrations_need_a_writer():
    with pytest.raises(FeedbackError, match="Give it a writer"):
        SimulatedRater(judge).answer(shown(kind="demonstration"))
    rater = SimulatedRater(judge, writer=lambda prompt, columns: f"{prompt}!")
    assert rater.answer(shown(kind="demonstration")) == {"response": "p!"}


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"flip": 1.5}, {"tie_band": -0.1}, {"temperature": float("nan")}]
)
def test_arguments_have_ranges(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
        SimulatedRater(judge, **wrong)


# --- on a store ------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path / "feedback.db") as store:
        store.add_samples(Sample(f"p{i}", str(j)) for i in range(8) for j in range(3))
        store.request_comparisons(overlap=1, n=16)
        store.request_rankings(k=3)
        store.request_ratings(n=4)
        store.request_demonstrations()
        yield store


def said(store):
    return [(vote.kind, json.dumps(vote.stored)) for vote in store.votes(current=True)]


def test_it_rates_all_that_it_can_in_few_calls_of_the_judge(store):
    sizes = []

    def counting(completions):
        sizes.append(len(completions))
        return judge(completions)

    assert SimulatedRater(counting, temperature=0).rate(store) == 16 + 8 + 4
    assert sum(sizes) == 16 * 2 + 8 * 3 + 4 and len(sizes) == 1
    assert all(float(record.chosen) > float(record.rejected) for record in store.comparisons())
    assert all(
        record.ranks == tuple(3 - int(response) for response in record.responses)
        for record in store.rankings()
    )
    assert store.progress().by_kind["demonstration"]["votes"] == 0
    assert SimulatedRater(judge, writer=lambda prompt, columns: "w").rate(store) == 8


def test_a_run_that_stops_and_goes_on_says_what_one_run_says(tmp_path):
    def collect(name, *portions):
        with FeedbackStore(tmp_path / name) as store:
            store.add_samples(Sample(f"p{i}", str(j)) for i in range(20) for j in range(2))
            store.request_comparisons(overlap=1)
            counts = [SimulatedRater(judge, flip=0.2).rate(store, n) for n in portions]
            return counts, said(store)

    counts, whole = collect("whole.db", None)
    assert counts == [20]
    counts, parts = collect("parts.db", 3, 5, None)
    assert counts == [3, 5, 12]
    assert parts == whole


@pytest.mark.parametrize("stored", [False, True])
def test_a_run_that_is_killed_around_a_vote_goes_on_as_if_nothing_had_been(tmp_path, stored):
    """Killed every third vote, before it reaches the store or after it did."""

    class Killed(BaseException):
        pass

    def filled(name):
        store = FeedbackStore(tmp_path / name)
        store.add_samples(Sample(f"p{i}", str(j)) for i in range(10) for j in range(2))
        store.request_comparisons(overlap=1)
        return store

    class Desk:
        def __init__(self, store):
            self.rater, self.assign, self.store, self.left = store.rater, store.assign, store, 3

        def vote(self, *args, **kwargs):
            self.left -= 1
            vote = None if self.left == 0 and not stored else self.store.vote(*args, **kwargs)
            if self.left == 0:
                raise Killed
            return vote

    with filled("whole.db") as whole, filled("killed.db") as killed:
        SimulatedRater(judge, flip=0.2).rate(whole)
        kills = 0
        while len(killed.votes()) < 10:
            try:
                SimulatedRater(judge, flip=0.2).rate(Desk(killed))
            except Killed:
                kills += 1
        assert kills >= 3 and said(killed) == said(whole)
        assert [vote.key for vote in killed.votes()] == [vote.key for vote in whole.votes()]


def test_a_vote_that_was_taken_back_is_cast_again(store):
    rater = SimulatedRater(judge)
    assert rater.rate(store, 2) == 2
    store.undo(store.rater("simulated").id, key="undo")
    assert SimulatedRater(judge).rate(store, 1) == 1
    assert len(store.votes(current=True)) == 2


def test_raters_share_the_items_of_an_overlap(store):
    store.request_comparisons(n=16, overlap=3)
    assert [SimulatedRater(judge, name=name).rate(store) for name in "abcd"] == [28, 16, 16, 0]


def test_it_rates_where_items_cannot_be_seen_ahead(store):
    """As over HTTP, where a rater sees one item at a time."""

    class Desk:
        rater, assign, vote = store.rater, store.assign, store.vote

    assert SimulatedRater(judge).rate(Desk()) == 28


def test_it_rates_over_http_as_it_rates_on_the_store(tmp_path):
    """Same seed, same name, same items: the same votes, though one rater sees items ahead and the other one at a time."""
    pytest.importorskip("fastapi")
    from reward_models.preferences.client import HTTPClient
    from tests.reward_models.preferences.serving import served

    def filled(name):
        store = FeedbackStore(tmp_path / name)
        store.add_samples(Sample(f"p{i}", str(j)) for i in range(10) for j in range(3))
        store.request_comparisons(overlap=1)
        store.request_rankings(k=3)
        return store

    with filled("here.db") as here, filled("there.db") as there, served(there) as address:
        assert SimulatedRater(judge, flip=0.2, name="sim").rate(here) == 20
        with HTTPClient(address, "sim") as client:
            rater = SimulatedRater(judge, flip=0.2, name="sim")
            assert [rater.rate(client, 7), rater.rate(client)] == [7, 13]
        assert said(there) == said(here)
        assert [vote.key for vote in there.votes()] == [vote.key for vote in here.votes()]
