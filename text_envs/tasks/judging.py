"""What the judges of tasks share: scores made of named components, and a measure of fluency."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from reward_models import Completion


class Judge:
    """The gold score of a response, 0 to 1: the weighted mean of its components, times its guards.

    A subclass says `components`. One that `weights` does not name is a guard: a factor, so that a response which fails it
    scores nothing, however it does elsewhere.

    Attributes:
        weights: what each component counts for; they add up to 1.
    """

    weights: ClassVar[Mapping[str, float]]

    def components(self, completion: Completion) -> dict[str, float]:
        """Each component and guard by its name, 0 to 1."""
        raise NotImplementedError

    def gold(self, components: Mapping[str, float]) -> float:
        """The gold score of a response with these components."""
        mean = sum(weight * components[name] for name, weight in self.weights.items())
        return mean * math.prod(value for name, value in components.items() if name not in self.weights)

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        return [self.gold(self.components(completion)) for completion in completions]


class Language:
    """The word sequences of some texts, by which a new text is more or less fluent.

    Args:
        texts: what people or a grammar write.
        orders: the lengths n of the word n-grams that are compared.
        usual: the share of known n-grams that a good new text has: 1 in the language of a grammar, all of whose n-grams are
            known; less in that of a file.
    """

    def __init__(self, texts: Iterable[str], orders: Sequence[int] = (1, 2, 3), usual: float = 1.0):
        self.usual = usual
        self.known: dict[int, set[tuple[str, ...]]] = {n: set() for n in orders}
        for text in texts:
            sentences = split_sentences(normal(text))
            for n, known in self.known.items():
                known.update(ngrams(sentences, n))

    def fluency(self, text: str) -> float:
        """Share of known n-grams, to the fifth; times that of distinct sentences or 6-grams, squared. 0 for an empty text."""
        sentences = split_sentences(normal(text))
        if not sentences:
            return 0.0
        shares = [
            np.mean([gram in known for gram in ngrams(sentences, n)]) for n, known in self.known.items()
        ]
        return min(float(np.mean(shares)) / self.usual, 1.0) ** 5 * distinct(sentences) ** 2


def normal(text: str) -> str:
    """Lower case, single spaces."""
    return " ".join(text.lower().split())


def split_sentences(text: str) -> list[str]:
    return [sentence for sentence in re.split(r"(?<=[.!?])\s*", text) if sentence]


def ngrams(sentences: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    """The word n-grams of each sentence; its edges count as words, and so do punctuation marks and <placeholders>."""
    for sentence in sentences:
        words = ["^", *re.findall(r"<\w+>|[\w']+|[^\w\s]", sentence), "$"]
        yield from zip(*(words[i:] for i in range(n)))


def distinct(sentences: Sequence[str]) -> float:
    """The share of distinct sentences, or of distinct 6-grams of words where that is less."""
    sixes = list(ngrams(sentences, 6))
    return min(len(set(items)) / len(items) for items in (sentences, sixes) if items)


def word_count(text: str) -> int:
    return len(re.findall(r"[\w']+", text))


def ended(completion: Completion) -> float:
    """1 where the response ended by itself, on a full stop, exclamation or question mark."""
    closed = completion.response.rstrip().endswith((".", "!", "?"))
    return float(closed and completion.finish_reason != "length")


def ramp(x: float, zero: float, one: float) -> float:
    """0 at ``zero``, 1 at ``one``, straight between them and flat beyond."""
    return min(max((x - zero) / (one - zero), 0.0), 1.0)
