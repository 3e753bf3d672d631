"""Functions written for TRL's trainers serve unchanged."""

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor

import pytest

from reward_models import Completion, RewardError, make, score
from reward_models.trl_style import is_trl_style

ROWS = [
    Completion("1+1=", "2", (5,), (6, 7), columns={"answer": "2", "level": 1}),
    Completion("1+2=", "4", (5,), (8,), columns={"answer": "3", "level": 2}),
]


def expecting(received, **wanted):
    assert received == wanted
    return [0.0, 1.0]


def everything(prompts, completions, completion_ids, **columns):
    return expecting(
        dict(prompts=prompts, completions=completions, ids=completion_ids, **columns),
        prompts=["1+1=", "1+2="],
        completions=["2", "4"],
        ids=[[6, 7], [8]],
        answer=["2", "3"],
        level=[1, 2],
    )


def texts_and_columns(completions, **columns):
    return expecting(
        dict(texts=completions, **columns),
        texts=["2", "4"],
        prompts=["1+1=", "1+2="],
        completion_ids=[[6, 7], [8]],
        answer=["2", "3"],
        level=[1, 2],
    )


def one_column(completions, answer):
    return expecting(dict(texts=completions, answer=answer), texts=["2", "4"], answer=["2", "3"])


def ids_only(completion_ids, **kwargs):
    return expecting(dict(ids=completion_ids), ids=[[6, 7], [8]])


def optional_column(prompts, completions, hint=None, trainer_state="not given"):
    return expecting(dict(hint=hint, state=trainer_state), hint=None, state=None)


async def awaited(prompts, completions, **kwargs):
    return [0.0, 1.0]


class WithState:
    def __call__(self, prompts, completions, level, **kwargs):
        return expecting(dict(level=level), level=[1, 2])


@pytest.mark.parametrize(
    "function",
    [everything, texts_and_columns, one_column, ids_only, optional_column, awaited, WithState()],
    ids=lambda function: getattr(function, "__name__", "object"),
)
def test_function_receives_what_it_accepts(function):
    assert score(make(function), ROWS).tolist() == [0.0, 1.0]


def test_an_async_function_is_awaited_where_an_event_loop_runs_already():
    async def notebook_cell():
        return score(make(awaited), ROWS).tolist()

    with ThreadPoolExecutor() as thread:  # in which no other test has left a loop
        assert thread.submit(asyncio.run, notebook_cell()).result() == [0.0, 1.0]


def test_bound_arguments_are_not_overwritten_by_columns():
    def reward(prompts, completions, level, **kwargs):
        return [float(level)] * len(prompts)

    assert score(make(reward, level=9), ROWS).tolist() == [9.0, 9.0]
    assert score(make(functools.partial(reward, level=8)), ROWS).tolist() == [8.0, 8.0]


def test_row_without_the_column_gets_none():
    rows = [ROWS[0], Completion("p", "r")]
    assert score(make(lambda completions, answer: [float(a is None) for a in answer]), rows).tolist() == [
        0.0,
        1.0,
    ]


def test_missing_column_and_errors_are_named():
    with pytest.raises(RewardError, match=r"one_column requires answer, .* has the columns \[\]"):
        score(make(one_column), [Completion("p", "r")])
    with pytest.raises(RewardError, match=r"picky raised ValueError: .* completion 1 of 2"):

        def picky(prompts, completions, **kwargs):
            return [1.0 if text == "2" else float("four") for text in completions]

        score(make(picky), ROWS)


def test_functions_of_completions_alone_are_not_trl_style():
    assert not is_trl_style(lambda completions: [])
    assert not is_trl_style(lambda completions, scale=1.0: [])
    assert not is_trl_style(lambda batch, **options: [])
    assert not is_trl_style(max)
