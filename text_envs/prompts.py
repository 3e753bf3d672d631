"""PromptSource: prompts from a list, JSONL, a Hugging Face dataset or a generator; seeded, resumable."""

from __future__ import annotations

import functools
import inspect
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from reward_models.files import read_rows
from text_envs.encoding import PromptEncoder, PromptError, TooLong
from text_envs.tokens import IntArray

logger = logging.getLogger("text_envs")

CHUNK = 1024  # rows encoded at a time: bounds memory, and keeps the fast path of batched tokenizers
DRAWN_AHEAD = 16  # a call of a random generator costs as much as sixteen numbers
MOST_DROPPED_IN_A_ROW = 10_000  # an endless stream that yields nothing usable is an error, not a hang


class Prompt(NamedTuple):
    """What an episode starts from: the text the policy sees, ids (int64 ``[length]``), the other fields."""

    text: str
    ids: IntArray
    columns: Mapping[str, Any]


@functools.cache
def say_once(message: str) -> None:
    """Log a warning the first time it is said in this process."""
    logger.warning(message)


class PromptSource:
    """Prompts, encoded and checked once, that every sub-environment draws from.

    Args:
        prompts: a list of strings or dicts; a path to ``.jsonl``, ``.jsonl.gz``, ``.txt`` or ``.txt.gz``
            (blank lines are skipped); a ``datasets.Dataset``; a generator function of no argument, read once
            like a list; or a generator function ``f(rng)`` of one argument, a ``numpy.random.Generator``: an
            endless stream, one per sub-environment.
        tokenizer: a Hugging Face tokenizer.
        prompt_field: the field that holds the prompt; the other fields become ``Completion.columns``.
        max_prompt_tokens: longest prompt in tokens; None: as long as the longest (endless streams must say).
        prompts_too_long: see `text_envs.encoding.PromptEncoder`. How many were dropped or truncated is logged
            once. The text of a truncated prompt is what was kept: the text the policy saw.
        vocab_size: ids at or above it are an error.

    Raises:
        PromptError: for a row, named, that is not a prompt; when no prompt is left.
    """

    def __init__(
        self,
        prompts: Any,
        tokenizer: Any,
        prompt_field: str = "prompt",
        max_prompt_tokens: int | None = None,
        prompts_too_long: TooLong = "truncate_left",
        vocab_size: int | None = None,
    ):
        self.tokenizer = tokenizer
        self.prompt_field = prompt_field
        self.encoder = PromptEncoder(tokenizer, max_prompt_tokens, prompts_too_long, vocab_size)
        self.endless: Callable[[np.random.Generator], Iterator[Any]] | None = None
        self._rows: Sequence[Any] = []
        self._name, self._lines = "prompts", list[int]()  # of a file: its name, the line of each row
        self._kept, self._ids, self._cut = list[int](), list[IntArray](), list[bool]()
        self._open(prompts)
        if self.endless is None:
            self._encode()
        elif max_prompt_tokens is None:
            raise ValueError(
                "max_prompt_tokens is not given, and how long the prompts of an endless generator function "
                "get cannot be known. Give max_prompt_tokens."
            )
        self.max_prompt_tokens: int = max_prompt_tokens or max(map(len, self._ids))
        self.encoder.limit = self.max_prompt_tokens  # also of prompts that come later, by `read`

    def __len__(self) -> int:
        """How many prompts there are to draw from; 0 for an endless stream."""
        return len(self._ids)

    def __getitem__(self, index: int) -> Prompt:
        row = self._rows[self._kept[index]]  # checked at construction
        columns = {} if isinstance(row, str) else dict(row)
        text = row if isinstance(row, str) else columns.pop(self.prompt_field)
        return self._prompt(text, self._ids[index], self._cut[index], columns)

    def __deepcopy__(self, memo: dict[int, Any]) -> PromptSource:
        return self  # nothing in it changes after construction

    def read(self, row: str | Mapping[str, Any], where: str = "options['prompt']") -> Prompt:
        """A prompt that is not of the source, under the same rules.

        Raises:
            PromptError: if it is no prompt, or too long where ``prompts_too_long`` is ``"drop"`` or
                ``"error"``.
        """
        prompt = self.read_or_drop(row, where)
        if prompt is None:
            raise PromptError(
                f"{where} is longer than max_prompt_tokens={self.max_prompt_tokens}, and "
                "prompts_too_long='drop' cannot drop a prompt that was asked for. Shorten it, or use "
                "'truncate_left'."
            )
        return prompt

    def read_or_drop(self, row: str | Mapping[str, Any], where: str) -> Prompt | None:
        """As `read`; None for a prompt that is to be dropped."""
        text, columns = self._split(row, where)
        ((ids, cut),) = self.encoder.encode([text], [where])
        if cut or ids is None:
            say_once(
                f"Prompts that come longer than max_prompt_tokens={self.encoder.limit} are "
                f"{'dropped' if ids is None else 'truncated'} (prompts_too_long={self.encoder.too_long!r})."
            )
        return None if ids is None else self._prompt(text, ids, cut, columns)

    def _prompt(self, text: str, ids: IntArray, cut: bool, columns: Mapping[str, Any]) -> Prompt:
        return Prompt(self.tokenizer.decode(ids, skip_special_tokens=True) if cut else text, ids, columns)

    def _open(self, prompts: Any) -> None:
        if isinstance(prompts, (str, os.PathLike)):
            self._name = os.fspath(prompts)
            self._rows, self._lines = read_rows(prompts, (".jsonl", ".txt"), PromptError)
        elif callable(prompts):
            if any(p.default is p.empty for p in inspect.signature(prompts).parameters.values()):
                self.endless = prompts
                return
            self._rows = list(_generated(prompts()))
        elif hasattr(prompts, "column_names") and hasattr(prompts, "__len__"):  # a Dataset, left on disk
            if self.prompt_field not in prompts.column_names:
                raise PromptError(
                    f"The dataset has no column {self.prompt_field!r}, only {prompts.column_names}. Set "
                    "prompt_field (and choose a split, where these are splits)."
                )
            self._rows = prompts
        elif isinstance(prompts, Sequence):
            self._rows = list(prompts)
        else:
            raise TypeError(
                f"prompts is a {type(prompts).__name__}. Give a list of strings or dicts, a .jsonl or .txt "
                "path, a datasets.Dataset or a generator function."
            )
        if len(self._rows) == 0:
            raise PromptError(f"{self._name} holds no prompts. Give at least one.")

    def _where(self, row: int) -> str:
        return f"{self._name}, line {self._lines[row]}," if self._lines else f"{self._name}[{row}]"

    def _split(self, row: Any, where: str) -> tuple[str, dict[str, Any]]:
        """The prompt's text and the other fields."""
        if isinstance(row, str):
            return row, {}
        if not isinstance(row, Mapping):
            raise PromptError(
                f"{where} is a {type(row).__name__}. A prompt is a string, or a dict that holds one."
            )
        if self.prompt_field not in row:
            raise PromptError(
                f"{where} has no field {self.prompt_field!r}, only {list(row)}. Set prompt_field."
            )
        columns = dict(row)
        text = columns.pop(self.prompt_field)
        if not isinstance(text, str):
            raise PromptError(
                f"{where} holds a {type(text).__name__} in {self.prompt_field!r}. A prompt is a string; of a "
                "conversation, the text that its chat template makes."
            )
        return text, columns

    def _encode(self) -> None:
        for start in range(0, len(self._rows), CHUNK):
            indices = range(start, min(start + CHUNK, len(self._rows)))
            where = [self._where(i) for i in indices]
            texts = [self._split(self._rows[i], place)[0] for i, place in zip(indices, where)]
            for i, (ids, cut) in zip(indices, self.encoder.encode(texts, where)):
                if ids is not None:
                    self._kept.append(i)
                    self._ids.append(ids)
                    self._cut.append(cut)
        limit, total = self.encoder.limit, len(self._rows)
        if not self._kept:
            raise PromptError(
                f"All {total} prompts of {self._name} are longer than max_prompt_tokens={limit} and were "
                "dropped. Raise max_prompt_tokens, or use prompts_too_long='truncate_left'."
            )
        for count, what in ((total - len(self._kept), "dropped"), (sum(self._cut), "truncated")):
            if count:
                say_once(
                    f"{count} of {total} prompts of {self._name} are longer than max_prompt_tokens={limit} "
                    f"and were {what} (prompts_too_long={self.encoder.too_long!r})."
                )


class PromptStream:
    """The prompts that one sub-environment draws, one after the other, from its own random generator.

    ``state()`` is made of JSON values, and ``set_state`` continues from it exactly: a finite source needs the
    generator's state alone, an endless one is replayed from the seed it was started with.
    """

    def __init__(self, source: PromptSource, rng: np.random.Generator):
        self.source, self.rng = source, rng
        self.drawn = self.drawn_before = 0  # after, and before, the last draw
        self.index: int | None = None  # what the last draw from a finite source drew
        self._ahead = list[int]()  # what the next ones will, the nearest last
        self.seed = int(rng.integers(2**63)) if source.endless else None
        self._rows: Iterator[Any] | None = None

    def draw(self) -> Prompt:
        """The next prompt: a uniform draw from a finite source.

        Raises:
            PromptError: if an endless stream ends, or yields something that is no prompt.
        """
        self.drawn_before = self.drawn
        if self.source.endless is None:
            if not self._ahead:  # the same numbers as one by one, at a tenth of the time
                self._ahead = self.rng.integers(len(self.source), size=DRAWN_AHEAD)[::-1].tolist()
            self.index = self._ahead.pop()
            self.drawn += 1
            return self.source[self.index]
        for _ in range(MOST_DROPPED_IN_A_ROW):
            where = f"Prompt {self.drawn} of the generator function"
            prompt = self.source.read_or_drop(self._next_row(), where)
            if prompt is not None:
                return prompt
        raise PromptError(
            f"The generator function's last {MOST_DROPPED_IN_A_ROW} prompts were all longer than "
            "max_prompt_tokens and were dropped. Raise max_prompt_tokens."
        )

    def _next_row(self) -> Any:
        assert self.source.endless is not None
        if self._rows is None:  # at the start, and after set_state or unpickling: replay what was drawn
            self._rows = iter(_generated(self.source.endless(np.random.default_rng(self.seed))))
            for _ in range(self.drawn):
                next(self._rows, None)
        try:
            row = next(self._rows)
        except StopIteration:
            raise PromptError(
                f"The generator function f(rng) ended after {self.drawn} prompts. Let it yield without end, "
                "or give it no argument: then it is read once, like a list."
            ) from None
        self.drawn += 1
        return row

    def state(self, again: bool = False) -> dict[str, Any]:
        """Where the stream stands, as JSON values; ``again``: so that it draws its last prompt once more."""
        last = [self.index] if again and self.index is not None else []
        return {
            "rng": self.rng.bit_generator.state,
            "ahead": last + self._ahead[::-1],
            "seed": self.seed,
            "drawn": self.drawn_before if again else self.drawn,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state()``, also of another process."""
        self.rng.bit_generator.state = state["rng"]
        self.seed, self.drawn, self._rows = state["seed"], state["drawn"], None
        self.drawn_before, self.index = self.drawn, None
        # Older checkpoints have none, and there may be fewer prompts by now.
        self._ahead = [i for i in reversed(state.get("ahead", ())) if i in range(len(self.source))]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None}  # a running generator can be neither pickled nor copied


def _generated(rows: Any) -> Iterable[Any]:
    """What a generator function gave, if it can be drawn from."""
    if not isinstance(rows, Iterable):
        raise PromptError(
            f"The generator function of the prompts returned {rows!r:.60}. Let it yield prompts, or return a list of them."
        )
    return rows
