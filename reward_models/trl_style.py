"""Reward functions written for TRL's trainers, `f(prompts, completions, **columns)`, as reward models."""

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reward_models.completion import Completion, RewardError, excerpt, name_of

# What TRL's trainers hand over beside the dataset's columns, and an environment cannot know.
TRAINER_ARGUMENTS = ("trainer_state", "log_extra", "log_metric", "environments")


def is_trl_style(function: Any) -> bool:
    """Whether a callable has TRL's signature.

    It names `prompts` or `completion_ids`, or takes `completions` together with `**columns`, or cannot be
    called with completions alone because it requires further arguments.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    names = {parameter.name for parameter in parameters}
    if {"prompts", "completion_ids"} & names:
        return True
    if "completions" not in names:
        return False
    takes_columns = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    required = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    return takes_columns or len(required) > 1


class TRLReward:
    """Calls a TRL-style function with texts.

    It gets `prompts`, `completions` (the response texts) and `completion_ids`, and each dataset column as a
    list, None where a row lacks it; only what it accepts, unless it takes `**columns`. Coroutines are awaited.
    A trainer's arguments (`trainer_state`, `log_extra`, `log_metric`, `environments`) are None if it names them.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = name_of(function)
        parameters = inspect.signature(function).parameters.values()
        bound = set(function.keywords) if isinstance(function, functools.partial) else set()
        self._named = {
            parameter.name
            for parameter in parameters
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        } - bound
        self._required = {p.name for p in parameters if p.name in self._named and p.default is p.empty}
        self._bound = bound
        self._takes_columns = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)

    def __repr__(self) -> str:
        return f"TRLReward({self.name})"

    def __call__(self, completions: Sequence[Completion]) -> Any:
        """Scores as the function returns them. Raises RewardError where a column it requires is missing."""
        arguments: dict[str, Any] = dict.fromkeys(self._named.intersection(TRAINER_ARGUMENTS))
        columns = {name for completion in completions for name in completion.columns} - self._bound
        if not self._takes_columns:
            columns &= self._named
        arguments |= {name: [c.columns.get(name) for c in completions] for name in sorted(columns)}
        texts = {
            "prompts": [completion.prompt for completion in completions],
            "completions": [completion.response for completion in completions],
            "completion_ids": [list(completion.response_ids) for completion in completions],
        }
        arguments |= {k: v for k, v in texts.items() if self._takes_columns or k in self._named}
        missing = sorted(self._required - set(arguments))
        if missing:
            raise RewardError(
                f"Reward function {self.name} requires {', '.join(missing)}, and the prompt "
                f"{excerpt(completions[0].prompt)} has the columns {sorted(completions[0].columns)}. "
                f"Add the field to the prompts, or give the argument a default or a value."
            )
        result = self.function(**arguments)
        return _awaited(result) if inspect.iscoroutine(result) else result


def _awaited(result: Coroutine[Any, Any, Any]) -> Any:
    """A coroutine's value, in a thread of its own: a notebook's has an event loop running already."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, result).result()
