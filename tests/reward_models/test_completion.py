"""`score` gives n finite numbers, or an error that names the completion."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reward_models import Completion, RewardError, score
from reward_models.completion import in_short

THREE = [Completion(f"prompt {i}", f"response {i}", (1, i), (2, i)) for i in range(3)]


def returning(value):
    return lambda completions: value


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_numbers_in_any_container_come_back_as_float64(values):
    as_is = np.array(values)
    containers = [
        values,
        tuple(values),
        as_is,
        list(as_is),
        iter(values),
        torch.tensor(values, dtype=torch.float64),
    ]
    for container in [*containers, [torch.tensor(v, dtype=torch.float64) for v in values]]:
        result = score(returning(container), THREE)
        assert result.dtype == np.float64
        np.testing.assert_array_equal(result, as_is)


def test_integers_booleans_and_low_precision_tensors_count():
    assert score(returning([1, True, np.bool_(False)]), THREE).tolist() == [1.0, 1.0, 0.0]
    assert score(returning(np.array([True, False, True])), THREE).tolist() == [1.0, 0.0, 1.0]
    tensor = torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16, requires_grad=True)
    assert score(returning(tensor), THREE).tolist() == [1.0, 2.0, 3.0]


def test_no_completions_no_call():
    assert score(returning(None), []).shape == (0,)


@pytest.mark.parametrize(
    "bad", [None, math.nan, math.inf, -math.inf, "1.0", [1.0], 1j, 10**400, torch.tensor(math.nan)]
)
def test_a_score_that_is_no_finite_number_names_its_completion(bad):
    with pytest.raises(RewardError) as raised:
        score(returning([0.0, bad, 0.0]), THREE)
    message = str(raised.value)
    assert "completion 1 of 3 (prompt 'prompt 1', response 'response 1')" in message
    assert "finite number is needed" in message


@pytest.mark.parametrize("scores", [[], [1.0], [1.0] * 4, np.zeros(1), torch.zeros(2)])
def test_wrong_length_is_never_broadcast(scores):
    with pytest.raises(
        RewardError, match=rf"returned {len(scores)} scores for 3 completions.*prompt 'prompt 0'"
    ):
        score(returning(scores), THREE)


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        (1.0, "returned 1.0 for 3"),
        (None, "returned None for 3"),
        ("abc", "returned 'abc' for 3"),
        ({0: 1.0, 1: 1.0, 2: 1.0}, "returned {0: 1.0, "),
        (np.zeros((3, 1)), r"an array of shape \(3, 1\) for 3"),
        (torch.zeros(3, 2), r"an array of shape \(3, 2\) for 3"),
        (np.float64(1.0), r"an array of shape \(\) for 3"),
    ],
)
def test_what_is_no_row_of_numbers_is_an_error(scores, says):
    with pytest.raises(RewardError, match=says):
        score(returning(scores), THREE)


def test_exception_names_the_completion_that_causes_it():
    def reward(completions):
        return [1 / (int(completion.response[-1]) - 2) for completion in completions]

    with pytest.raises(
        RewardError, match=r"reward raised ZeroDivisionError: .* completion 2 of 3 .*prompt 2"
    ) as raised:
        score(reward, THREE)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_exception_of_the_batch_alone_says_so():
    def reward(completions):
        if len(completions) > 1:
            raise MemoryError("too many")
        return [0.0]

    with pytest.raises(RewardError, match=r"too many, on a batch of 3, .* no single completion"):
        score(reward, THREE)


def test_search_for_the_culprit_is_bounded():
    calls = []

    def reward(completions):
        calls.append(len(completions))
        if len(completions) > 1:
            raise RuntimeError
        return [0.0]

    with pytest.raises(RewardError):
        score(reward, THREE * 1000)
    assert calls == [3000] + [1] * 256


def test_interrupt_is_not_an_error_of_the_reward():
    def reward(completions):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(reward, THREE)


@pytest.mark.parametrize("completions", [THREE[:1], THREE])
def test_a_reward_that_exits_is_one_that_fails(completions):
    def reward(completions):
        raise SystemExit(0)

    with pytest.raises(RewardError, match="reward raised SystemExit: 0, on completion 0"):
        score(reward, completions)


def test_another_library_s_error_in_one_line():
    assert in_short(ValueError("Unknown T5.\nChoose one of:\nA, B")) == "Unknown T5"
    assert in_short(KeyError("model")) == "KeyError: 'model'"
    assert (
        in_short(RuntimeError("Wrong field:\n    x is no int\nmore"))
        == "RuntimeError: Wrong field: x is no int"
    )
    assert in_short(OSError()) == "OSError"


def test_excerpts_are_short_and_printable():
    with pytest.raises(RewardError) as raised:
        score(returning([None]), [Completion("x" * 1_000_000, "\ud800\x00\u202e")])
    assert len(str(raised.value)) < 500
    str(raised.value).encode("utf-8")


def test_completion_is_immutable_comparable_and_picklable():
    completion = Completion("p", "r", (1,), (2, 3), "stop", {"answer": 4})
    assert pickle.loads(pickle.dumps(completion)) == completion
    assert len({completion, completion}) == 1
    with pytest.raises(AttributeError):
        completion.response = "other"
