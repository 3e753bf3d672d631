"""Rewards that check a rule: length, keywords, a regular expression, the exact answer, valid JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from regex import compile as compile_regex
from regex import error as RegexError

from reward_models.completion import Completion, RewardError, excerpt, references_of, where

Unit = Literal["words", "characters", "tokens"]
UNITS = ("words", "characters", "tokens")


@dataclass(frozen=True)
class LengthTarget:
    """How near the response comes to a length. Range [0, 1].

    1 at `target`, falling linearly to 0 at a distance of `spread`: max(0, 1 - |length - target| / spread).

    Args:
        target: the wanted length, at least 0.
        unit: "words" (split at white space), "characters" or "tokens" (of `response_ids`, EOS included).
        spread: distance at which the score reaches 0; by default `target`, so that an empty response gets 0.
    """

    target: int
    unit: Unit = "words"
    spread: float | None = None

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise RewardError(f"length: unit is {self.unit!r}. Choose one of {', '.join(UNITS)}.")
        if not self.target >= 0 or (self.spread is not None and not self.spread > 0):
            raise RewardError(
                f"length: target {self.target}, spread {self.spread}. Give target >= 0 and spread > 0."
            )

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        spread = self.spread or self.target or 1
        return [max(0.0, 1.0 - abs(len(pieces(c, self.unit)) - self.target) / spread) for c in completions]


@dataclass(frozen=True)
class Keywords:
    """Share of `words` that occur in the response, less the share of `forbidden` that occur.

    Range [0, 1]; [-1, 1] with `forbidden`. Words and phrases match whole, not inside other words.

    Args:
        words: what should occur. May be empty if `forbidden` is not.
        forbidden: what should not.
        case_sensitive: whether upper and lower case differ.
    """

    words: Sequence[str] = ()
    forbidden: Sequence[str] = ()
    case_sensitive: bool = False

    def __post_init__(self) -> None:
        for name in ("words", "forbidden"):
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(word, str) and word.strip() for word in value):
                raise RewardError(f"keywords: {name} is {excerpt(value)}. Give a list of words or phrases.")
        if not self.words and not self.forbidden:
            raise RewardError(
                'keywords: there are no words to look for. Give words=["..."] or forbidden=["..."].'
            )

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        return [self._share(self.words, c) - self._share(self.forbidden, c) for c in completions]

    def _share(self, words: Sequence[str], completion: Completion) -> float:
        text = self._plain(completion.response)
        return sum(_occurs(self._plain(word), text) for word in words) / max(len(words), 1)

    def _plain(self, text: str) -> str:
        text = " ".join(text.split())
        return text if self.case_sensitive else text.casefold()


def _occurs(word: str, text: str) -> bool:
    """Whether `word` stands in `text` with no letter, digit or underscore right before or after it."""

    def joins(character: str) -> bool:
        return character.isalnum() or character == "_"

    start = text.find(word)
    while start >= 0:
        end = start + len(word)
        glued_before = start > 0 and joins(text[start - 1]) and joins(word[0])
        glued_after = end < len(text) and joins(text[end]) and joins(word[-1])
        if not glued_before and not glued_after:
            return True
        start = text.find(word, start + 1)
    return False


class Pattern:
    """1.0 where a regular expression matches the response, else 0.0. Range {0, 1}, and `on_timeout`.

    Args:
        regex: in the syntax of the `regex` package (a superset of `re`); flags inline: "(?i)yes".
        full: the whole response must match, not some part of it.
        timeout: seconds per response. Some patterns need exponential time on some texts: a policy finds them.
        on_timeout: the score of a response on which time ran out; None raises RewardError.
    """

    def __init__(
        self, regex: str, full: bool = False, timeout: float = 1.0, on_timeout: float | None = None
    ) -> None:
        self.regex, self.full, self.timeout, self.on_timeout = regex, full, timeout, on_timeout
        self._compiled = _compiled(regex, "pattern")
        if not timeout > 0:
            raise RewardError(f"pattern: timeout is {timeout}. Give seconds, more than 0.")

    def __repr__(self) -> str:
        return f"Pattern({self.regex!r})"

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        matcher = self._compiled.fullmatch if self.full else self._compiled.search
        scores = []
        for index, completion in enumerate(completions):
            try:
                scores.append(float(matcher(completion.response, timeout=self.timeout) is not None))
            except TimeoutError as error:
                if self.on_timeout is None:
                    raise RewardError(
                        f"pattern: {self.regex!r} ran longer than {self.timeout} s on "
                        f"{where(completion, index, len(completions))}. Write it without nested repetition, "
                        f"or give on_timeout=0.0."
                    ) from error
                scores.append(float(self.on_timeout))
        return scores


class ExactAnswer:
    """1.0 where the response equals the answer in the prompt's column `column`, else 0.0. Range {0, 1}.

    Case, white space around and between words, and a closing full stop do not count; numbers compare as
    numbers (1,000 = 1000.0). A list of answers means any of them.

    Args:
        column: the dataset field that holds the answer: a string, a number or a list of these.
        extract: a regular expression that finds the answer in a longer response: the first group, or the
            whole, of its last match; a response without a match scores 0. Where it matches the reference, it is
            applied there too. "####\\s*(.+)" reads GSM8K's answers.
        timeout: seconds per text for `extract`; a text on which it runs out counts as one without a match.
    """

    def __init__(self, column: str = "answer", extract: str | None = None, timeout: float = 1.0) -> None:
        self.column, self.extract, self.timeout = column, extract, timeout
        self._compiled = None if extract is None else _compiled(extract, "exact_answer")

    def __repr__(self) -> str:
        return f"ExactAnswer({self.column!r})"

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        return [float(self._is_right(completion)) for completion in completions]

    def _is_right(self, completion: Completion) -> bool:
        answers = references_of(completion, self.column, "exact_answer")
        given = self._find(completion.response)
        return given is not None and any(
            _same(given, reference if (found := self._find(reference)) is None else found)
            for reference in answers
        )

    def _find(self, text: str) -> str | None:
        if self._compiled is None:
            return text
        last = None
        try:
            for match in self._compiled.finditer(text, timeout=self.timeout):
                last = match
        except TimeoutError:
            return None
        if last is None:
            return None
        return (last.group(1) if self._compiled.groups else last.group()) or ""


def _same(a: str, b: str) -> bool:
    a, b = (" ".join(text.split()).casefold().removesuffix(".").rstrip() for text in (a, b))
    if a == b:
        return True
    try:
        return float(a.replace(",", "")) == float(b.replace(",", ""))
    except ValueError:
        return False


@dataclass(frozen=True)
class ValidJSON:
    """1.0 where the response is one JSON value (RFC 8259: no NaN, no text around it), else 0.0. Range {0, 1}.

    Args:
        keys: if any, the value must be an object that has all these keys.
    """

    keys: Sequence[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.keys, str):
            raise RewardError(f"json: keys is {self.keys!r}. Give a list of names.")

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        return [float(self._is_valid(completion.response)) for completion in completions]

    def _is_valid(self, text: str) -> bool:
        try:
            # Numbers stay text: Python refuses to convert integers of more than 4,300 digits.
            value = json.loads(text, parse_constant=_refuse, parse_int=str, parse_float=str)
        except (ValueError, RecursionError):
            return False
        return not self.keys or (isinstance(value, dict) and all(key in value for key in self.keys))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _compiled(expression: str, asked_by: str) -> Any:
    try:
        return compile_regex(expression)
    except (RegexError, TypeError) as error:
        raise RewardError(
            f"{asked_by}: {expression!r} is not a regular expression: {error}. Mend it; escape \\ in JSON."
        ) from error


def pieces(completion: Completion, unit: Unit) -> Sequence[object]:
    """The response in words, characters or token ids."""
    if unit == "words":
        return completion.response.split()
    return completion.response if unit == "characters" else completion.response_ids
