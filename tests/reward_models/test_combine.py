"""Sums and limits of rewards, with each part validated by itself."""

import pytest

from reward_models import Completion, RewardError, make, score

TWO = [Completion("p", "abc"), Completion("p", "a")]


def length(completions):
    return [float(len(completion.response)) for completion in completions]


def ones(completions):
    return [1.0] * len(completions)


def test_weighted_sum():
    assert score(make("weighted_sum", rewards=[length, ones], weights=[2, -0.5]), TWO).tolist() == [5.5, 1.5]
    assert score(make("weighted_sum", rewards=[length, ones]), TWO).tolist() == [4.0, 2.0]


def test_clip():
    assert score(make("clip", reward=length, low=2), TWO).tolist() == [3.0, 2.0]
    assert score(make("clip", reward=length, high=1.5), TWO).tolist() == [1.5, 1.0]
    nested = {"name": "weighted_sum", "rewards": [{"name": "length", "target": 1}], "weights": [4]}
    assert score(make("clip", reward=nested, low=0, high=3), TWO).tolist() == [3.0, 3.0]


def test_error_names_the_part():
    def short(completions):
        return [0.0]

    with pytest.raises(RewardError, match="short returned 1 scores for 2 completions"):
        score(make("weighted_sum", rewards=[length, {"name": "clip", "reward": short, "low": 0}]), TWO)


@pytest.mark.parametrize(
    ("spec", "kwargs", "says"),
    [
        ("weighted_sum", dict(rewards=[]), "Give a list of reward models"),
        ("weighted_sum", dict(rewards="length"), "rewards is 'length'"),
        ("weighted_sum", dict(rewards=["json"], weights=[1, 2]), "2.* for 1 rewards"),
        ("weighted_sum", dict(rewards=["json"], weights=[float("nan")]), "one finite number for each"),
        ("weighted_sum", dict(rewards=["jsom"]), "Did you mean 'json'"),
        ("clip", dict(reward="json", low=1, high=1), "low < high"),
    ],
)
def test_mistakes_are_named(spec, kwargs, says):
    with pytest.raises(RewardError, match=says):
        make(spec, **kwargs)
