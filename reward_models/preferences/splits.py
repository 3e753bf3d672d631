"""Training and held-out parts by prompt: all that was said of one prompt stands on one side.

Two pairs of one prompt share texts, so a split by pair tells how well a model remembers, not how well it judges.
Prompts that differ only in case, white space or Unicode form count as one.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Protocol, TypeVar

from reward_models.preferences.records import RecordError


class _Prompted(Protocol):
    @property
    def prompt(self) -> str: ...


R = TypeVar("R", bound=_Prompted)


def split(records: Sequence[R], held_out: float = 0.1, seed: int = 0) -> tuple[list[R], list[R]]:
    """Training and held-out records, each in the order given.

    A prompt's side depends on the prompt and the seed alone, so that it stays there when records are reordered or added; the
    held-out share is therefore `held_out` only on average. Of two prompts or more, each side gets at least one.

    Raises:
        RecordError: a share that is not between 0 and 1; records of a single prompt, which cannot be split.
    """
    if not 0 < held_out < 1:
        raise RecordError(f"held_out is {held_out}. Give a share between 0 and 1.")
    places = _places(records, seed)
    if len(places) < 2:
        raise RecordError(
            f"{len(records)} records of {len(places)} prompts cannot be split by prompt. Give two prompts."
        )
    outside = {prompt for prompt, place in places.items() if place < held_out}
    outside = outside or {min(places, key=places.__getitem__)}
    if len(outside) == len(places):
        outside.remove(max(places, key=places.__getitem__))
    return _parted(records, outside)


def folds(records: Sequence[R], k: int = 5, seed: int = 0) -> list[tuple[list[R], list[R]]]:
    """K pairs of training and test records: each record is in one test part, and the parts are as even as prompts allow.

    The order of the records changes nothing. Prompts go to the smallest part so far, those with most records first.

    Raises:
        RecordError: fewer than two folds, or fewer prompts than folds.
    """
    places = _places(records, seed)
    if not 2 <= k <= len(places):
        raise RecordError(
            f"k is {k}, and there are {len(places)} prompts. Give from 2 to as many folds as prompts."
        )
    counts = Counter(map(_key, records))
    parts: list[set[str]] = [set() for _ in range(k)]
    sizes = [0] * k
    for prompt in sorted(places, key=lambda prompt: (-counts[prompt], places[prompt])):
        smallest = sizes.index(min(sizes))
        parts[smallest].add(prompt)
        sizes[smallest] += counts[prompt]
    return [_parted(records, part) for part in parts]


def _parted(records: Sequence[R], outside: set[str]) -> tuple[list[R], list[R]]:
    keys = [_key(record) for record in records]
    return (
        [record for record, key in zip(records, keys) if key not in outside],
        [record for record, key in zip(records, keys) if key in outside],
    )


def _places(records: Sequence[R], seed: int) -> dict[str, float]:
    """Each prompt's place in [0, 1), uniform over prompts."""
    return {
        key: int.from_bytes(hashlib.sha256(f"{seed}\n{key}".encode()).digest()[:8], "big") / 2**64
        for key in map(_key, records)
    }


def _key(record: _Prompted) -> str:
    return " ".join(unicodedata.normalize("NFKC", record.prompt).casefold().split())
