"""What a rater may answer to each kind of item, and how right an answer is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from reward_models.completion import excerpt
from reward_models.preferences.entries import FeedbackError
from reward_models.preferences.records import CHOICES

_SHAPES = {
    "comparison": '{"choice": ' + " | ".join(f'"{choice}"' for choice in CHOICES) + "}",
    "ranking": '{"ranks": [1, 2, 2, null]}, one whole number from 1, the best, or null for each response',
    "demonstration": '{"response": "..."} with some text in it',
    "rating": '{"score": 4}, a finite number',
}


def check(kind: str, answer: Any, n_responses: int) -> dict[str, Any]:
    """The answer as it is stored, and nothing beside it.

    Args:
        kind: of the item.
        answer: what the rater said.
        n_responses: that the item shows.

    Raises:
        FeedbackError: it is not of the shape that `kind` asks for.
    """
    value = _value(kind, answer, n_responses)
    if value is None:
        raise FeedbackError(
            f"{excerpt(answer)} is no answer to a {kind} of {n_responses} responses. Give {_SHAPES[kind]}."
            if kind == "ranking"
            else f"{excerpt(answer)} is no answer to a {kind}. Give {_SHAPES[kind]}."
        )
    return value


def _value(kind: str, answer: Any, n_responses: int) -> dict[str, Any] | None:
    if not isinstance(answer, Mapping) or len(answer) != 1:
        return None
    (name, value), *_ = answer.items()
    match kind, name:
        case "comparison", "choice" if isinstance(value, str) and value in CHOICES:
            return {"choice": value}
        case "ranking", "ranks" if isinstance(value, Sequence) and not isinstance(value, str):
            if len(value) == n_responses and all(_is_rank(rank) for rank in value):
                return {"ranks": list(value)}
        case "demonstration", "response" if isinstance(value, str) and value.strip():
            return {"response": value}
        case "rating", "score" if isinstance(value, int | float) and not isinstance(value, bool):
            if abs(value) < 1e300 and math.isfinite(value):
                return {"score": value}
    return None


def _is_rank(rank: Any) -> bool:
    return rank is None or (isinstance(rank, int) and not isinstance(rank, bool) and 1 <= rank <= 1_000_000)


def is_skip(kind: str, answer: Mapping[str, Any]) -> bool:
    """Whether the rater gave no judgement."""
    return (kind == "comparison" and answer["choice"] == "skip") or (
        kind == "ranking" and all(rank is None for rank in answer["ranks"])
    )


def gold_score(kind: str, answer: Mapping[str, Any], gold: Mapping[str, Any]) -> float | None:
    """How right an answer is, 0 to 1; None for a skip. Both in stored order.

    Comparisons and ratings are right or wrong; a ranking counts the share of its pairs that stand as in the gold ranking,
    among the pairs that both rank.
    """
    if is_skip(kind, answer):
        return None
    if kind != "ranking":
        return float(answer == gold)
    pairs = [
        (_order(answer["ranks"], i, j), _order(gold["ranks"], i, j))
        for i, j in combinations(range(len(gold["ranks"])), 2)
    ]
    known = [(given, right) for given, right in pairs if given is not None and right is not None]
    return sum(given == right for given, right in known) / len(known) if known else None


def _order(ranks: Sequence[int | None], i: int, j: int) -> int | None:
    """-1 where i is better than j, 1 where it is worse, 0 for a tie; None where either has no rank."""
    first, second = ranks[i], ranks[j]
    return None if first is None or second is None else (first > second) - (first < second)
