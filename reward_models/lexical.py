"""Rewards that look at the words: sentiment, overlap with a reference, repetition."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reward_models.completion import Completion, RewardError, references_of
from reward_models.rules import UNITS, Unit, pieces
from reward_models.sentiment_words import INTENSIFIERS, NEGATIONS, VALENCE

_WORDS = re.compile(r"[^\W_]+(?:'[^\W_]+)*|<3|[:;]['-]?[()d/](?!\w)")
_SUFFIXES = [
    *(("ies", "y"), ("ied", "y"), ("ily", "y"), ("iest", "y"), ("ier", "y"), ("iness", "y")),
    *((suffix, end) for suffix in ("s", "es", "ed", "ing", "ly", "er", "est", "ness") for end in ("", "e")),
]


class Sentiment:
    """How positive the response sounds, by a lexicon of our own. Range (-1, 1), 0 without a word of the lexicon.

    The valences of the words (-3 to 3) are added up: an intensifier right before a word moves it by 0.3 away from
    or towards 0; a negation in the three words before it multiplies it by -0.74; what comes before the last "but"
    counts half, what comes after it one and a half. The sum x is normalised as x / sqrt(x^2 + 15). These rules
    are VADER's (Hutto and Gilbert, 2014), the words are not. More words of one kind always score more: as a reward
    for long, use it with a length limit or a KL penalty.

    Args:
        words: further words, or other valences, by word.
    """

    def __init__(self, words: dict[str, float] | None = None) -> None:
        self._valence = VALENCE | {word.lower(): float(value) for word, value in (words or {}).items()}

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        return [self.polarity(completion.response) for completion in completions]

    def polarity(self, text: str) -> float:
        """The sentiment of one text, in (-1, 1)."""
        words = _WORDS.findall(text.lower().replace("’", "'"))
        but = max((index for index, word in enumerate(words) if word == "but"), default=None)
        total = 0.0
        for index, word in enumerate(words):
            valence = self._in_context(self._of(word), words[max(0, index - 3) : index])
            if but is not None:
                valence *= 0.5 if index < but else 1.5
            total += valence
        return total / math.sqrt(total * total + 15.0)

    def _of(self, word: str) -> float:
        """The valence of a word or, where the lexicon lacks it, of its stem; 0.0 for a word unknown to it."""
        if word in INTENSIFIERS or word in NEGATIONS:
            return self._valence.get(word, 0.0)
        return next((self._valence[form] for form in _forms(word) if form in self._valence), 0.0)

    @staticmethod
    def _in_context(valence: float, before: list[str]) -> float:
        """The valence of a word after the three words before it."""
        if not valence or not before:
            return valence
        valence = math.copysign(abs(valence) + INTENSIFIERS.get(before[-1], 0.0), valence)
        negated = any(word in NEGATIONS or word.endswith("n't") for word in before)
        return -0.74 * valence if negated else valence


def _forms(word: str) -> Iterator[str]:
    """The word, then what may be its stem: loved, love; happily, happy; stunned, stun."""
    yield word
    word = word.removesuffix("'s")
    for suffix, ending in _SUFFIXES:
        stem = word.removesuffix(suffix)
        if len(stem) >= 3 and stem != word:
            yield stem + ending
            if stem[-1] == stem[-2]:
                yield stem[:-1]


class Vader:
    """The compound score of vaderSentiment (Hutto and Gilbert, 2014). Range [-1, 1]. Needs the extra `sentiment`.

    Args:
        max_characters: only so much of a response is read: its time is quadratic in the number of emoji.
    """

    def __init__(self, max_characters: int = 2000) -> None:
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
        except ImportError as error:
            raise RewardError(
                f"vader: {error}. Install it with: pip install 'text-envs[sentiment]'; or use \"sentiment\"."
            ) from error
        self.max_characters = max_characters
        self._analyzer: Any = SentimentIntensityAnalyzer()

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        texts = [completion.response[: self.max_characters] for completion in completions]
        return [self._analyzer.polarity_scores(text)["compound"] for text in texts]


@dataclass(frozen=True)
class RougeL:
    """ROUGE-L F1 (Lin, 2004): longest common subsequence of words with the prompt's reference. Range [0, 1].

    F1 = 2PR / (P + R), P = lcs / words of the response, R = lcs / words of the reference; 0 if either has none.
    Words are runs of letters and digits, lower case, not stemmed.

    Args:
        column: the dataset field that holds the reference, or a list of references, of which the best counts.
    """

    column: str = "reference"

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        return [self._best(completion) for completion in completions]

    def _best(self, completion: Completion) -> float:
        references = references_of(completion, self.column, "rouge_l")
        return max((rouge_l(completion.response, reference) for reference in references), default=0.0)


def rouge_l(response: str, reference: str) -> float:
    """ROUGE-L F1 of two texts, in [0, 1]."""
    a, b = (re.findall(r"[^\W_]+", text.lower()) for text in (response, reference))
    return 2 * longest_common_subsequence(a, b) / (len(a) + len(b)) if a and b else 0.0


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence; one machine word does 64 cells of the table (Hyyrö, 2004)."""
    positions: dict[str, int] = {}
    for index, word in enumerate(a):
        positions[word] = positions.get(word, 0) | 1 << index
    every = (1 << len(a)) - 1
    row = every  # bit i is 0 where the length grows at a[i]
    for word in b:
        matches = row & positions.get(word, 0)
        row = ((row + matches) | (row - matches)) & every
    return len(a) - row.bit_count()


@dataclass(frozen=True)
class DistinctN:
    """Distinct n-grams / n-grams of the response (Li et al., 2016). Range [0, 1]; 0 with fewer than n units.

    Args:
        n: length of the n-grams.
        unit: "words" (split at white space), "characters" or "tokens" (of `response_ids`).
    """

    n: int = 2
    unit: Unit = "words"

    def __post_init__(self) -> None:
        _check_ngrams("distinct_n", self.n, self.unit)

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        shares = (distinct_share(pieces(completion, self.unit), self.n) for completion in completions)
        return [0.0 if share is None else share for share in shares]


@dataclass(frozen=True)
class Repetition:
    """A penalty: minus the share of n-grams that occurred before in the response. Range (-1, 0]; 0 = no repetition.

    It is distinct-n less 1, and 0 for a response with fewer than n units.

    Args:
        n: length of the n-grams.
        unit: "words" (split at white space), "characters" or "tokens" (of `response_ids`).
    """

    n: int = 2
    unit: Unit = "words"

    def __post_init__(self) -> None:
        _check_ngrams("repetition", self.n, self.unit)

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        shares = (distinct_share(pieces(completion, self.unit), self.n) for completion in completions)
        return [0.0 if share is None else share - 1.0 for share in shares]


def distinct_share(units: Sequence[object], n: int) -> float | None:
    """Distinct n-grams / n-grams, in (0, 1]; None where there is no n-gram."""
    ngrams = [tuple(units[start : start + n]) for start in range(len(units) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def _check_ngrams(name: str, n: int, unit: str) -> None:
    if n < 1 or unit not in UNITS:
        raise RewardError(f"{name}: n is {n}, unit is {unit!r}. Give n >= 1 and one of {', '.join(UNITS)}.")
