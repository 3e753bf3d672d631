"""`text_envs/Arithmetic-v0`: sums, or the questions of a file, answered by a number that can be verified."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from reward_models import Completion
from reward_models.completion import column_of
from reward_models.files import read_rows
from text_envs.encoding import PromptError
from text_envs.env import TextGenerationEnv
from text_envs.tasks.sources import File, choose, in_split
from text_envs.trained_tokenizer import trained_tokenizer

PROMPTS = {"train": 4000, "held_out": 1000}
DRAWN = 40_000  # pairs of numbers, of which a split's are taken
QUALITY_SHARES = {"right": 0.6, "no_carry": 0.2, "slip": 0.2}
MARK = "####"
"""What stands before the answer where working comes first, as in GSM8K."""
NUMBER = re.compile(r"-?\$?(\d[\d,]*)(\.\d+)?\.?")
FILE_NEW_TOKENS = 256


@dataclass(frozen=True)
class AnswerJudge:
    """1 for a response that gives the prompt's number, in its column "answer"; else 0, or some of it.

    The number stands after the last "####"; in a response without it, the response is the number and nothing else.

    Args:
        partial_credit: a wrong number is worth half the share of its digits that are right, counted from the last one.
    """

    partial_credit: bool = False

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        return [
            self.score(completion.response, str(column_of(completion, "answer", "Arithmetic")))
            for completion in completions
        ]

    def score(self, response: str, answer: str) -> float:
        """The score of one response. Raises ValueError for an ``answer`` that is no number."""
        given, wanted = number_of(response), number_of(answer)
        if wanted is None:
            raise ValueError(f"The answer {answer!r} is no number. Give every prompt a number as answer.")
        if given is None:
            return 0.0
        if given == wanted:
            return 1.0
        return 0.5 * share_of_digits(f"{given:f}", f"{wanted:f}") if self.partial_credit else 0.0


def number_of(text: str) -> Decimal | None:
    """The number after the last "####", or that the text is; None where there is another thing, or nothing."""
    text = text.rpartition(MARK)[2].strip()
    found = NUMBER.fullmatch(text)
    return Decimal(re.sub(r"[$,]", "", text).removesuffix(".")) if found else None


def share_of_digits(given: str, wanted: str) -> float:
    """The share of positions, counted from the last, at which two numbers have the same digit."""
    return sum(a == b for a, b in zip(given[::-1], wanted[::-1])) / max(len(given), len(wanted))


# -- sums


def row(a: int, b: int) -> dict[str, Any]:
    """A sum as a prompt. Responses begin with a space: no token straddles the two."""
    return {"prompt": f"{a} + {b} =", "answer": str(a + b)}


@functools.cache
def sums(split: str, digits: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Pairs of numbers with so many digits, none twice; where a + b is in a split, b + a is in it too."""
    low, high = digits
    if not 1 <= low <= high <= 15:
        raise ValueError(f"digits={digits} is no range. Give the least and the most digits, from 1 to 15.")
    rng = np.random.default_rng(0)
    least = 0 if low == 1 else 10 ** (low - 1)
    drawn = rng.integers(least, 10**high, size=(DRAWN, 2)).tolist()
    pairs = dict.fromkeys((a, b) for a, b in drawn if in_split(f"{min(a, b)} + {max(a, b)}", split))
    return tuple(pairs)[: PROMPTS[split]]


def prompts(
    split: str = "train", digits: Sequence[int] = (1, 2), file: File | None = None
) -> list[dict[str, Any]]:
    """The prompts of a split: dicts of prompt and answer, and of a file's rows response too.

    Raises:
        ValueError: for a split or a range that there is not.
        PromptError: a row of the file that cannot be used.
    """
    if file is not None:
        return [found for found in read_questions(file) if in_split(found["prompt"], split)]
    return [row(a, b) for a, b in sums(split, range_of(digits))]


def demonstrations(
    split: str = "train",
    n: int = 10_000,
    seed: int = 0,
    digits: Sequence[int] = (1, 2),
    chain: bool = True,
    file: File | None = None,
) -> list[dict[str, Any]]:
    """``n`` prompts of a split, drawn with replacement, with answers of mixed quality (`QUALITY_SHARES`); those of a file,
    with its own.

    Qualities: right; no_carry, which adds each column by itself; slip, where a column is out by one.

    Returns:
        Dicts of prompt, response (with its leading space), answer and, of sums, quality.
    """
    rng = np.random.default_rng(seed)
    if file is not None:
        rows = prompts(split, file=file)
        return [choose(rng, rows) for _ in range(n)]
    pairs = sums(split, range_of(digits))
    qualities = rng.choice(list(QUALITY_SHARES), size=n, p=list(QUALITY_SHARES.values()))
    return [
        {**row(a, b), "response": " " + write(rng, a, b, quality, chain), "quality": quality}
        for quality, (a, b) in ((str(quality), choose(rng, pairs)) for quality in qualities)
    ]


def write(rng: np.random.Generator, a: int, b: int, quality: str, chain: bool) -> str:
    """The sum of two numbers, after its working where ``chain``: 17 + 48 is "7+8=15, 1+4+1=6 #### 65"."""
    slip = int(rng.integers(len(str(max(a, b))))) if quality == "slip" else -1
    steps, total, carry, place = [], 0, 0, 1
    for column, (x, y) in enumerate(columns(a, b)):
        found = x + y + carry
        if column == slip:
            found += 1 if found == 0 else int(rng.choice([-1, 1]))
        steps.append(f"{x}+{y}{f'+{carry}' if carry else ''}={found}")
        total, carry, place = total + found % 10 * place, found // 10, place * 10
        if quality == "no_carry":
            carry = 0
    total += carry * place
    return f"{', '.join(steps)} {MARK} {total}" if chain else str(total)


def columns(a: int, b: int) -> Iterator[tuple[int, int]]:
    """The digits of two numbers, units first."""
    while True:
        yield a % 10, b % 10
        a, b = a // 10, b // 10
        if not a and not b:
            return


def range_of(digits: Sequence[int]) -> tuple[int, int]:
    """Raises ValueError for what is not two integers."""
    if len(digits) != 2 or not all(isinstance(n, int) for n in digits):
        raise ValueError(f"digits={digits!r}: give two integers, the least and the most digits of a number.")
    return digits[0], digits[1]


# -- questions of a file


def read_questions(file: File) -> list[dict[str, Any]]:
    """The rows of a file in GSM8K's shape: dicts of prompt, answer (the number) and response (the working before it too).

    Raises:
        PromptError: a row, named by its line, without a question or an answer that ends in "#### number".
    """
    rows, lines = read_rows(file, (".jsonl",), PromptError)
    if not rows:
        raise PromptError(f"{os.fspath(file)} holds no questions. Give at least one.")
    return [question_of(row, f"{os.fspath(file)}, line {line},") for row, line in zip(rows, lines)]


def question_of(row: Any, place: str) -> dict[str, Any]:
    """A row of such a file; raises as `read_questions`."""
    fields = row if isinstance(row, dict) else {}
    question, answer = (
        fields.get(name, fields.get(other))
        for name, other in (("question", "prompt"), ("answer", "response"))
    )
    if not isinstance(question, str) or not isinstance(answer, str):
        raise PromptError(
            f"{place} has not the strings question and answer (or prompt and response), only {list(fields)}. "
            "Rename its fields."
        )
    number = number_of(answer) if MARK in answer else None
    if number is None:
        raise PromptError(
            f"{place} has the answer {answer[-40:]!r}, which does not end in a number after {MARK}. Write it as "
            f"'6 * 7 = 42 {MARK} 42'."
        )
    return {
        "prompt": f"{question.strip()}\nAnswer:",
        "response": f" {answer.strip()}",
        "answer": f"{number:f}",
    }


# -- the environment


@functools.cache
def tokenizer() -> Any:
    """A byte-level BPE trained on texts without their digits, so that each digit is a token of its own."""
    rows = demonstrations("train", 2000, chain=True)
    return trained_tokenizer((re.sub(r"\d", "", row["prompt"] + row["response"]) for row in rows), 264)


class ArithmeticEnv(TextGenerationEnv):
    """Add two numbers; or answer the questions of a file by a number.

    ## Description
    The answer is verified, not judged. The prompt is ``17 + 48 =`` and the response `` 7+8=15, 1+4+1=6 #### 65``, the
    working and then the answer, or `` 65`` alone. `demonstrations` are of mixed quality: some forget to carry, some slip.

    ## Action Space
    ``Discrete(264)``: the next token of a byte-level BPE trained in memory, for which each digit is a token.

    ## Observation Space
    As `TextGenerationEnv`; with L = 41 for the default sums, 17 without ``chain``.

    ## Rewards
    1 for the exact number, else 0, or what ``partial_credit`` gives: see `AnswerJudge`. The optimum is 1.

    ## Starting State
    A prompt of the split, drawn uniformly. `prompts` lists them, `demonstrations` answers them.

    ## Episode End
    At EOS, and after ``max_new_tokens`` tokens.

    ## Arguments
    * ``split="train"``: 4,000 sums, or as many as there are; or ``"held_out"``: 1,000 others, of other pairs of numbers.
    * ``digits=(1, 2)``: the least and the most digits of a number.
    * ``chain=True``: room for the working. Without it, give `demonstrations` the same. A policy may always leave it out.
    * ``partial_credit=False``: whether a wrong number is worth something for its right digits.
    * ``file=None``: a ``.jsonl[.gz]`` of GSM8K's shape instead of sums, ``{"question": ..., "answer": "... #### 42"}``; also
      ``prompt`` and ``response``. It is split by question, one in five held out. Give a ``tokenizer`` that suits it; the
      default one reads it byte by byte. ``max_new_tokens`` is then 256.
    * All of `TextGenerationEnv`. There is no default model: make one by `agents.sft.finetune` on `demonstrations`, with this
      environment's ``tokenizer``.

    ## Version History
    * v0: first version.
    """

    def __init__(
        self,
        split: str = "train",
        digits: Sequence[int] = (1, 2),
        chain: bool = True,
        partial_credit: bool = False,
        file: File | None = None,
        **kwargs: Any,
    ):
        most = range_of(digits)[1]
        limits = {
            "max_prompt_tokens": 2 * most + 6,  # of "17 + 48 ="
            "max_new_tokens": 11 * most + 9 if chain else most + 5,
        }
        if file is not None:
            limits = {"max_new_tokens": FILE_NEW_TOKENS}
        elif "tokenizer" in kwargs:
            limits.pop("max_prompt_tokens")
        defaults = {
            "tokenizer": kwargs["tokenizer"] if "tokenizer" in kwargs else tokenizer(),
            "prompts": kwargs["prompts"] if "prompts" in kwargs else prompts(split, digits, file),
            "reward_model": AnswerJudge(partial_credit),
        }
        super().__init__(**{**limits, **defaults, **kwargs})
        if "reward_model" not in kwargs:
            self.task.optimum = 1.0


make_vec = ArithmeticEnv.make_vec
