"""PromptSource: prompts from a list, a file, a Hugging Face dataset or a generator; encoded, seeded, resumable."""

from __future__ import annotations

import functools
import gzip
import inspect
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from text_envs.tokens import IntArray

logger = logging.getLogger("text_envs")

TooLong = Literal["truncate_left", "truncate_right", "drop", "error"]
CHUNK = 1024  # rows tokenized at a time: bounds memory, and keeps the fast path of batched tokenizers
MOST_DROPPED_IN_A_ROW = 10_000  # an endless stream that yields nothing usable is an error, not a hang


class Prompt(NamedTuple):
    """What an episode starts from: the text the policy sees, its ids (int64 ``[length]``), the row's other fields."""

    text: str
    ids: IntArray
    columns: Mapping[str, Any]


class PromptError(ValueError):
    """A prompt that cannot be used. The message names its row, or its file and line, and how to mend it."""


@functools.cache
def say_once(message: str) -> None:
    """Log a warning the first time it is said in this process."""
    logger.warning(message)


class PromptSource:
    """Prompts, tokenized and checked once, that every sub-environment draws from.

    Each prompt is encoded with the tokenizer's leading special tokens (BOS, where it has one); the text of a special
    token inside a prompt, such as ``</s>``, is plain text. An empty prompt becomes ``[bos]``.

    Args:
        prompts: a list of strings or dicts; a path to ``.jsonl``, ``.jsonl.gz``, ``.txt`` or ``.txt.gz`` (blank lines are
            skipped); a ``datasets.Dataset``; a generator function of no argument, read once like a list; or a
            generator function ``f(rng)`` of one argument, a ``numpy.random.Generator``: an endless stream, one per
            sub-environment.
        tokenizer: a Hugging Face tokenizer.
        prompt_field: the field that holds the prompt; the other fields become ``Completion.columns``.
        max_prompt_tokens: longest prompt in tokens; None: as long as the longest (endless streams must say).
        prompts_too_long: ``"truncate_left"`` keeps the end, as transformers' ``truncation_side="left"``,
            ``"truncate_right"`` keeps the opening; both keep a leading BOS. ``"drop"`` leaves the prompt out, ``"error"``
            raises. What was dropped or truncated is logged once, with counts. The prompt text of a truncated
            prompt is what was kept: the text the policy saw.
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
        if prompts_too_long not in get_args(TooLong):
            raise ValueError(
                f"prompts_too_long={prompts_too_long!r} is not known. Use one of {', '.join(get_args(TooLong))}."
            )
        self.tokenizer = tokenizer
        self.prompt_field = prompt_field
        self.prompts_too_long = prompts_too_long
        self.vocab_size = vocab_size
        self.prefix = leading_special_ids(tokenizer)
        self.endless: Callable[[np.random.Generator], Iterator[Any]] | None = None
        self._rows: Sequence[Any] = []
        self._lines: Sequence[int] | None = None  # of a file: the line on which each row stands
        self._name = "prompts"
        if max_prompt_tokens is not None and max_prompt_tokens <= len(self.prefix):
            raise ValueError(
                f"max_prompt_tokens={max_prompt_tokens} leaves no room for a prompt after the tokenizer's leading "
                f"special tokens {self.prefix}. Give at least {len(self.prefix) + 1}."
            )
        self._limit = max_prompt_tokens
        self._open(prompts)
        if self.endless is None:
            self._encode_all()
        elif max_prompt_tokens is None:
            raise ValueError(
                "max_prompt_tokens is not given, and the longest prompt of an endless generator function cannot be "
                "known. Give max_prompt_tokens."
            )
        self.max_prompt_tokens: int = max_prompt_tokens or max(map(len, self._ids))

    def __len__(self) -> int:
        """How many prompts there are to draw from; 0 for an endless stream."""
        return 0 if self.endless else len(self._ids)

    def __getitem__(self, index: int) -> Prompt:
        row = int(self._kept[index])
        text, columns = self._split(self._rows[row], row)
        return self._prompt(text, self._ids[index], bool(self._cut[index]), columns)

    def __deepcopy__(self, memo: dict[int, Any]) -> PromptSource:
        return self  # nothing in it changes after construction

    def read(self, row: str | Mapping[str, Any], where: str = "options['prompt']") -> Prompt:
        """One prompt that is not of the source, such as ``options["prompt"]``, under the same rules.

        Raises:
            PromptError: if it is no prompt, or too long where ``prompts_too_long`` is ``"drop"`` or ``"error"``.
        """
        prompt = self._read(row, where)
        if prompt is None:
            raise PromptError(
                f"{where} has more than max_prompt_tokens={self._limit} tokens, and prompts_too_long='drop' cannot drop "
                "a prompt that was asked for. Shorten it, or use 'truncate_left'."
            )
        return prompt

    # -- reading rows ------------------------------------------------------------------------------------------------

    def _open(self, prompts: Any) -> None:
        if isinstance(prompts, (str, os.PathLike)):
            self._name = os.fspath(prompts)
            self._rows, self._lines = read_rows(Path(prompts))
        elif callable(prompts):
            required = [p for p in inspect.signature(prompts).parameters.values() if p.default is p.empty]
            if len(required) == 1:
                self.endless = prompts
            else:
                self._rows = list(prompts())
        elif hasattr(prompts, "column_names") and hasattr(
            prompts, "__len__"
        ):  # a datasets.Dataset, left on disk
            if self.prompt_field not in prompts.column_names:
                raise PromptError(
                    f"The dataset has no column {self.prompt_field!r}, only {list(prompts.column_names)}. Set prompt_field "
                    "(and choose a split, if these are splits)."
                )
            self._rows = prompts
        elif isinstance(prompts, Sequence):
            self._rows = list(prompts)
        else:
            raise TypeError(
                f"prompts is a {type(prompts).__name__}. Give a list of strings or dicts, a .jsonl or .txt path, a "
                "datasets.Dataset or a generator function."
            )
        if self.endless is None and len(self._rows) == 0:
            raise PromptError(f"{self._name} holds no prompts. Give at least one.")

    def _where(self, row: int) -> str:
        return f"{self._name}, line {self._lines[row]}," if self._lines else f"{self._name}[{row}]"

    def _split(self, row: Any, index: int | str) -> tuple[str, dict[str, Any]]:
        """The prompt's text and the other fields."""
        if isinstance(row, str):
            return row, {}
        where = index if isinstance(index, str) else self._where(index)
        if not isinstance(row, Mapping):
            raise PromptError(
                f"{where} is a {type(row).__name__}. A prompt is a string, or a dict with a string in it."
            )
        if self.prompt_field not in row:
            raise PromptError(
                f"{where} has no field {self.prompt_field!r}, only {list(row)}. Set prompt_field."
            )
        text = row[self.prompt_field]
        if not isinstance(text, str):
            raise PromptError(
                f"{where} holds a {type(text).__name__} in {self.prompt_field!r}. A prompt is a string; apply the chat "
                "template of a conversation first."
            )
        return text, {key: value for key, value in row.items() if key != self.prompt_field}

    # -- encoding ----------------------------------------------------------------------------------------------------

    def _encode_all(self) -> None:
        kept, encoded, cut = [], [], []
        for start in range(0, len(self._rows), CHUNK):
            indices = range(start, min(start + CHUNK, len(self._rows)))
            texts = [self._split(self._rows[i], i)[0] for i in indices]
            for i, ids in zip(indices, self._encode(texts, [self._where(i) for i in indices])):
                fitted = self._fit(ids, lambda i=i: self._where(i))
                if fitted is not None:
                    kept.append(i)
                    encoded.append(fitted)
                    cut.append(len(fitted) < len(ids))
        if not kept:
            raise PromptError(
                f"All {len(self._rows)} prompts of {self._name} are longer than max_prompt_tokens={self._limit} and were "
                "dropped. Raise max_prompt_tokens, or use prompts_too_long='truncate_left'."
            )
        self._kept, self._cut, self._ids = np.array(kept), np.array(cut), encoded
        for count, what in ((len(self._rows) - len(kept), "dropped"), (sum(cut), "truncated")):
            if count:
                say_once(
                    f"{count} of {len(self._rows)} prompts of {self._name} are longer than {self._limit} tokens and were "
                    f"{what} (prompts_too_long={self.prompts_too_long!r})."
                )

    def _encode(self, texts: Sequence[str], where: Sequence[str]) -> list[IntArray]:
        for text, place in zip(texts, where):
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise PromptError(
                    f"{place} has a lone surrogate, {text[error.start]!r}, at character {error.start}: it is not valid "
                    "Unicode. Repair the text, e.g. text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')."
                ) from None
        encoded = self.tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
        arrays = [np.array(self.prefix + list(ids), dtype=np.int64) for ids in encoded]
        return [self._checked(ids, place) for ids, place in zip(arrays, where)]

    def _checked(self, ids: IntArray, where: str) -> IntArray:
        if len(ids) == 0:
            bos = self.tokenizer.bos_token_id
            if bos is None:
                raise PromptError(
                    f"{where} has no tokens, and the tokenizer has no BOS token to start from. Leave empty prompts out, "
                    "or set tokenizer.bos_token."
                )
            ids = np.array([bos], dtype=np.int64)
        if self.vocab_size is not None and ids.max() >= self.vocab_size:
            raise PromptError(
                f"{where} holds the token {ids.max()}, outside vocab_size={self.vocab_size}. Is it the model's tokenizer? "
                "vocab_size must be at least the number of its tokens."
            )
        return ids

    def _fit(self, ids: IntArray, where: Callable[[], str]) -> IntArray | None:
        """The ids shortened to the limit; None where the prompt is to be dropped."""
        if self._limit is None or len(ids) <= self._limit:
            return ids
        if self.prompts_too_long == "drop":
            return None
        if self.prompts_too_long == "error":
            raise PromptError(
                f"{where()} has {len(ids)} tokens, more than max_prompt_tokens={self._limit}. Raise it, or choose what "
                "becomes of long prompts with prompts_too_long='truncate_left', 'truncate_right' or 'drop'."
            )
        if self.prompts_too_long == "truncate_right":
            return ids[: self._limit].copy()
        head = len(self.prefix)
        return np.concatenate([ids[:head], ids[len(ids) - self._limit + head :]])

    def _read(self, row: Any, where: str) -> Prompt | None:
        text, columns = self._split(row, where)
        (ids,) = self._encode([text], [where])
        fitted = self._fit(ids, lambda: where)
        if fitted is None:
            say_once(f"Prompts of {where.split(' ')[0]} longer than {self._limit} tokens are dropped.")
            return None
        return self._prompt(text, fitted, len(fitted) < len(ids), columns)

    def _prompt(self, text: str, ids: IntArray, cut: bool, columns: Mapping[str, Any]) -> Prompt:
        return Prompt(self.tokenizer.decode(ids, skip_special_tokens=True) if cut else text, ids, columns)


class PromptStream:
    """The prompts that one sub-environment draws, one after the other, from its own random generator.

    ``state()`` is made of JSON values and ``set_state`` continues from it exactly: a finite source needs the generator's
    state, an endless one is replayed from the seed it was started with.
    """

    def __init__(self, source: PromptSource, rng: np.random.Generator):
        self.source, self.rng = source, rng
        self.drawn = 0
        self.seed = int(rng.integers(2**63)) if source.endless else None
        self._rows: Iterator[Any] | None = None

    def draw(self) -> Prompt:
        """The next prompt.

        Raises:
            PromptError: if an endless stream ends, or yields something that is no prompt.
        """
        if self.source.endless is None:
            self.drawn += 1
            return self.source[int(self.rng.integers(len(self.source)))]
        for _ in range(MOST_DROPPED_IN_A_ROW):
            prompt = self.source._read(self._next_row(), f"prompt {self.drawn} of the generator function")
            if prompt is not None:
                return prompt
        raise PromptError(
            f"The generator function's last {MOST_DROPPED_IN_A_ROW} prompts were all longer than max_prompt_tokens and "
            "were dropped. Raise max_prompt_tokens."
        )

    def _next_row(self) -> Any:
        assert self.source.endless is not None
        if self._rows is None:  # at the start, and after set_state or unpickling: replay what was drawn
            self._rows = iter(self.source.endless(np.random.default_rng(self.seed)))
            for _ in range(self.drawn):
                next(self._rows, None)
        try:
            row = next(self._rows)
        except StopIteration:
            raise PromptError(
                f"The generator function f(rng) ended after {self.drawn} prompts. Let it yield without end, or give it "
                "no argument: then it is read once, like a list."
            ) from None
        self.drawn += 1
        return row

    def state(self) -> dict[str, Any]:
        """Where the stream stands, as JSON values."""
        return {"rng": self.rng.bit_generator.state, "seed": self.seed, "drawn": self.drawn}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state()``, also of another process."""
        self.rng.bit_generator.state = state["rng"]
        self.seed, self.drawn, self._rows = state["seed"], state["drawn"], None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None}  # a running generator can be neither pickled nor copied


def leading_special_ids(tokenizer: Any) -> list[int]:
    """The special tokens that the tokenizer puts before a text: ``[bos]``, or ``[]`` (GPT-2 puts none)."""
    encoding = tokenizer("a", return_special_tokens_mask=True)
    ids: list[int] = []
    for token, special in zip(encoding["input_ids"], encoding["special_tokens_mask"]):
        ends = token == tokenizer.eos_token_id and token != tokenizer.bos_token_id
        if not special or ends:
            break
        ids.append(token)
    return ids


def read_rows(path: Path) -> tuple[list[Any], list[int]]:
    """The rows of a ``.jsonl[.gz]`` or ``.txt[.gz]`` file, and the line on which each stands.

    Raises:
        PromptError: for a missing file, another suffix, or a line that is not JSON, with its number.
    """
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind not in (".jsonl", ".txt"):
        raise PromptError(
            f"{path} is not a .jsonl[.gz] or .txt[.gz] file. Give such a path, or a list of prompts."
        )
    if not path.is_file():
        raise PromptError(
            f"{path} does not exist. Give the path of a .jsonl[.gz] or .txt[.gz] file of prompts."
        )
    rows, lines = [], []
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if line.strip():
                    rows.append(json.loads(line) if kind == ".jsonl" else line)
                    lines.append(number)
            except ValueError as error:  # of json, and UnicodeDecodeError
                raise PromptError(
                    f"{path}, line {number}, cannot be read: {error}. Repair or remove the line."
                ) from None
    return rows, lines
