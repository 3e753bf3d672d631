"""Completions that decode their text when it is first read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from reward_models import Completion

PLAIN_FIELDS = ("prompt", "prompt_ids", "response_ids", "finish_reason", "columns")


class ResponseTexts:
    """The texts of episodes that ended on one step: all decoded, in one call, when the first of them is read."""

    def __init__(
        self, decode: Callable[[Sequence[Sequence[int]]], list[str]], responses: Sequence[Sequence[int]]
    ):
        self._decode, self._responses = decode, responses
        self._texts: list[str] | None = None

    def __getitem__(self, index: int) -> str:
        if self._texts is None:
            self._texts, self._responses = self._decode(self._responses), []
        return self._texts[index]


class LazyCompletion(Completion):
    """A `reward_models.Completion` without its text yet.

    Decoding costs more than all the rest of an environment's step, and a reward that looks at ids never asks for it.
    It equals the plain `Completion` of the same fields, and becomes one when it is pickled or copied.
    """

    __slots__ = ("_cut", "_index", "_texts")

    def __init__(
        self,
        prompt: str,
        prompt_ids: tuple[int, ...],
        response_ids: tuple[int, ...],
        finish_reason: Literal["eos", "stop", "length"],
        columns: Mapping[str, Any],
        texts: ResponseTexts,
        index: int,
        cut: Callable[[str], str] | None,
    ):
        put = object.__setattr__  # the dataclass is frozen
        put(self, "prompt", prompt)
        put(self, "prompt_ids", prompt_ids)
        put(self, "response_ids", response_ids)
        put(self, "finish_reason", finish_reason)
        put(self, "columns", columns)
        put(self, "_texts", texts)
        put(self, "_index", index)
        put(self, "_cut", cut)

    def __getattr__(self, name: str) -> Any:
        # Called for a slot that is not set: `response` until it is read.
        if name != "response":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        text = self._texts[self._index]
        object.__setattr__(self, "response", text if self._cut is None else self._cut(text))
        return self.response

    def plain(self) -> Completion:
        """The same as a plain `Completion`."""
        return Completion(response=self.response, **{name: getattr(self, name) for name in PLAIN_FIELDS})

    def __reduce__(self) -> tuple[Any, ...]:
        return _same, (self.plain(),)

    def __eq__(self, other: object) -> bool:
        return self.plain() == (other.plain() if isinstance(other, LazyCompletion) else other)

    def __hash__(self) -> int:
        return hash(self.plain())


def _same(completion: Completion) -> Completion:
    return completion
