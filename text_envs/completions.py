"""Completions that are made of their episode's tokens when they are first read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from reward_models import Completion
from text_envs.tokens import IntArray

if TYPE_CHECKING:
    from text_envs.prompts import Prompt
    from text_envs.task import TextTask

FinishReason = Literal["eos", "stop", "length"]
FINISH_REASONS: tuple[FinishReason, ...] = ("length", "length", "stop", "eos")  # of 1, 2, 3; 0: not finished
LENGTH, STOP, EOS = 1, 2, 3  # where more than one holds, the highest
FIELDS = ("prompt", "response", "prompt_ids", "response_ids", "finish_reason", "columns")


class EndedEpisodes:
    """The k episodes that ended on one step; each field of their completions by a method of its name.

    Args:
        task: decodes, and knows where a stop string cuts the text.
        prompts: k.
        ids: int64 ``[k, L]``, prompt and response; a copy, for the environment goes on.
        starts, ends: where each response begins and ends in its row.
        finish: k of LENGTH, STOP, EOS.
    """

    def __init__(
        self,
        task: TextTask,
        prompts: Sequence[Prompt],
        ids: IntArray,
        starts: Sequence[int],
        ends: Sequence[int],
        finish: Sequence[int],
    ):
        self.task, self.prompts, self.ids = task, prompts, ids
        self.starts, self.ends, self.finish = starts, ends, finish
        self._texts: list[str] | None = None

    def completions(self) -> list[Completion]:
        return [LazyCompletion(self, i) for i in range(len(self.prompts))]

    def prompt(self, i: int) -> str:
        return self.prompts[i].text

    def columns(self, i: int) -> Mapping[str, Any]:
        return self.prompts[i].columns

    def prompt_ids(self, i: int) -> tuple[int, ...]:
        return tuple(self.ids[i, : self.starts[i]].tolist())

    def response_ids(self, i: int) -> tuple[int, ...]:
        return tuple(self.ids[i, self.starts[i] : self.ends[i]].tolist())

    def finish_reason(self, i: int) -> FinishReason:
        return FINISH_REASONS[self.finish[i]]

    def response(self, i: int) -> str:
        """All texts are decoded, in one call, when the first of them is read."""
        if self._texts is None:
            self._texts = self.task.decode([self.response_ids(j) for j in range(len(self.prompts))])
        return self.task.before_stop(self._texts[i]) if self.finish[i] == STOP else self._texts[i]


class LazyCompletion(Completion):
    """A `reward_models.Completion` whose fields are worked out when they are read.

    Decoding costs more than all the rest of an environment's step, and a reward that looks at ids never asks for it.
    It equals the plain `Completion` of the same fields, and becomes one when it is pickled or copied.
    """

    __slots__ = ("_episodes", "_index")

    def __init__(self, episodes: EndedEpisodes, index: int):
        put(self, "_episodes", episodes)
        put(self, "_index", index)

    def __getattr__(self, name: str) -> Any:
        # Called for a slot that is not set: a field until it is read.
        if name not in FIELDS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = getattr(self._episodes, name)(self._index)
        put(self, name, value)
        return value

    def plain(self) -> Completion:
        """The same as a plain `Completion`."""
        return Completion(**{name: getattr(self, name) for name in FIELDS})

    def __reduce__(self) -> tuple[Any, ...]:
        return _same, (self.plain(),)

    def __eq__(self, other: object) -> bool:
        return self.plain() == (other.plain() if isinstance(other, LazyCompletion) else other)

    def __hash__(self) -> int:
        return hash(self.plain())


put = object.__setattr__  # the dataclass is frozen


def _same(completion: Completion) -> Completion:
    return completion
