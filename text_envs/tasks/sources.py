"""Where tasks get their prompts from: which of them a split holds, and users' own files, read with their lines."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from reward_models.files import read_rows
from text_envs.encoding import PromptError
from text_envs.trained_tokenizer import trained_tokenizer

T = TypeVar("T")
File = str | os.PathLike[str]

SPLITS = ("train", "held_out")
FILE_NEW_TOKENS = 64
"""How long a response to a prompt of a user's file may get, where the user does not say."""


def in_split(key: str, split: str) -> bool:
    """Whether what is told apart by ``key`` belongs to a split: one in five to "held_out", always the same ones.

    Raises:
        ValueError: for a split that is not one of `SPLITS`.
    """
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}. Choose one of: {', '.join(SPLITS)}.")
    return (zlib.crc32(key.encode()) % 5 == 0) == (split == "held_out")


def choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def read_answers(
    file: File,
    asked: Sequence[str],
    answered: Sequence[str],
    sound: Callable[[str], object] = str,
    needs: str = "",
) -> dict[str, list[str]]:
    """What is asked in a ``.jsonl[.gz]`` file, with all answers to it: several rows may ask the same.

    Args:
        asked, answered: the names that the two fields may have; the first one that a row has counts. Each is a string, or a
            list of strings: words that are asked for, several answers.
        sound: what is asked must have: it gives something true of it. needs: this, in words.

    Raises:
        PromptError: a row without these fields, with an empty one or an unsound one, by file and line; a file without rows.
    """
    rows, lines = read_rows(file, (".jsonl",), PromptError)
    answers: dict[str, list[str]] = {}
    for row, line in zip(rows, lines):
        place = f"{os.fspath(file)}, line {line},"
        texts = _texts(row, answered, place)
        question = " ".join(_texts(row, asked, place))
        if not sound(question):
            raise PromptError(
                f"{place} asks {question!r:.60}, which has no {needs}. Give it some, or remove the row."
            )
        answers.setdefault(question, []).extend(texts)
    return _not_empty(answers, file)


def read_texts(file: File, names: Sequence[str]) -> list[str]:
    """The texts of a ``.jsonl[.gz]`` or ``.txt[.gz]`` file, each once. Arguments and errors as of `read_answers`."""
    rows, lines = read_rows(file, (".jsonl", ".txt"), PromptError)
    texts: dict[str, None] = {}
    for row, line in zip(rows, lines):
        place = f"{os.fspath(file)}, line {line},"
        texts.update(dict.fromkeys([row] if isinstance(row, str) else _texts(row, names, place)))
    return list(_not_empty(texts, file))


def _texts(row: Any, names: Sequence[str], place: str) -> list[str]:
    """The strings of the first field of ``names`` that the row has."""
    if not isinstance(row, Mapping):
        raise PromptError(f"{place} is a {type(row).__name__}. A row is an object with named fields.")
    name = next((name for name in names if name in row), None)
    if name is None:
        raise PromptError(
            f"{place} has none of the fields {', '.join(names)}, only {', '.join(row) or 'none'}. Rename one of them."
        )
    texts = [row[name]] if isinstance(row[name], str) else row[name]
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
        raise PromptError(
            f"{place} holds {row[name]!r:.60} in {name!r}. Give a string that is not blank, or a list of such strings."
        )
    return [text.strip() for text in texts]


def _not_empty(found: dict[str, T], file: File) -> dict[str, T]:
    if not found:
        raise PromptError(f"{os.fspath(file)} holds no rows. Give a file with at least one.")
    return found


# -- of rows with the columns prompt and references: what a user's file becomes


def texts_of(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """All references."""
    return (text for row in rows for text in row["references"])


def demonstrated(rows: Sequence[dict[str, Any]], n: int, seed: int) -> list[dict[str, Any]]:
    """``n`` of the rows, drawn with replacement, each with the column response: one of its references after a space."""
    rng = np.random.default_rng(seed)
    drawn = [choose(rng, rows) for _ in range(n)]
    return [{**row, "response": " " + choose(rng, row["references"])} for row in drawn]


def tokenizer_for(rows: Sequence[Mapping[str, Any]], vocab_size: int) -> Any:
    """A tokenizer trained on prompts and responses, or on references."""
    texts = (
        [row["prompt"] + row["response"]]
        if "response" in row
        else [row["prompt"], *(f" {t}" for t in row["references"])]
        for row in rows
    )
    return trained_tokenizer((text for group in texts for text in group), vocab_size)


def with_defaults(
    given: Mapping[str, Any],
    file: File | None,
    prompts: Callable[[], Any],
    tokenizer: Callable[[], Any],
    judge: Callable[[], Any],
    **limits: int,
) -> dict[str, Any]:
    """The arguments of a `TextGenerationEnv`: those given, and for the others what the task makes, where it is needed.

    Args:
        given: what the user says.
        file: the user's file, if any.
        prompts, tokenizer, judge: make the defaults.
        limits: max_prompt_tokens and max_new_tokens of the grammar; prompts may be as long as they are where these come from
            a file, or are encoded by another tokenizer.
    """
    arguments = dict(given)
    if file is not None:
        limits = {"max_new_tokens": FILE_NEW_TOKENS}
    elif "tokenizer" in given:
        limits.pop("max_prompt_tokens")
    for name, default in {"prompts": prompts, "tokenizer": tokenizer, "reward_model": judge}.items():
        if name not in given:
            arguments[name] = default()
    return {**limits, **arguments}


def given_path(env: str, argument: str, value: File | None, what: str) -> str:
    """A path that the user must give.

    Raises:
        ValueError: where it is not given, or nothing is there.
    """
    if value is None:
        raise ValueError(
            f"{argument} is not given: {env} comes without files of its own. Give {argument}=..., {what}."
        )
    if not os.path.exists(value):
        raise ValueError(f"{argument}={os.fspath(value)!r} of {env} does not exist. Give {what}.")
    return os.fspath(value)
