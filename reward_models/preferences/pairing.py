"""Which answers are put beside one another: pure functions over the samples of each prompt."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from reward_models.completion import excerpt
from reward_models.preferences.entries import FeedbackError

PAIRINGS = ("random", "all", "uncertain")

RANDOM_SHARE = 0.2
"""Share of `pairing="uncertain"` that is drawn at random all the same: what a model is surely wrong about is never uncertain
to it, and a reward model's accuracy measured on uncertain pairs alone says nothing of the rest. Our own choice of number."""

Uncertainty = Callable[[str, list[str]], Any]
"""(prompt, K responses) -> how much judges disagree about each pair, larger for more: an array of shape [K, K], of which the
part above the diagonal is read, or of shape [K (K - 1) / 2] in the order of itertools.combinations."""

Pool = Sequence[tuple[str, Sequence[tuple[int, str]]]]
"""For each prompt its text and its answers (sample id, response), in the order of ids."""


def comparisons(
    pool: Pool,
    pairing: str,
    n: int | None,
    seed: int,
    uncertainty: Uncertainty | None = None,
    random_share: float = RANDOM_SHARE,
) -> list[tuple[int, ...]]:
    """Pairs of sample ids, in the order in which they should be rated. Answers with the same text are never paired.

    "random": each prompt's samples are shuffled and paired off, so that each is seen once; with `n`, prompts take turns
    until there are n pairs. "all": every pair; with `n`, n of them at random. "uncertain": the n pairs that the judges
    disagree most about, but for a random share; without `n` as many as "random" would give.

    Raises:
        FeedbackError: an unknown pairing, no uncertainty where it is needed, or one of the wrong shape.
    """
    if pairing not in PAIRINGS:
        raise FeedbackError(f"There is no pairing {pairing!r}. Choose one of {', '.join(PAIRINGS)}.")
    if (uncertainty is not None) != (pairing == "uncertain"):
        raise FeedbackError(
            f"pairing={pairing!r} {'needs' if uncertainty is None else 'takes no'} uncertainty, a function of a prompt "
            'and its responses. It belongs to pairing="uncertain".'
        )
    generator = random.Random(seed)
    if pairing == "random":
        return _random_pairs(pool, n, generator)
    every: list[tuple[int, ...]] = [pair for _, answers in pool for pair in _distinct_pairs(answers)]
    if pairing == "all":
        generator.shuffle(every)
        return every[:n]
    if not 0 <= random_share <= 1:
        raise FeedbackError(f"random_share is {random_share}. Give a share from 0 to 1.")
    total = min(len(every), len(_random_pairs(pool, None, generator)) if n is None else n)
    disagreement = _disagreement(pool, uncertainty)
    generator.shuffle(every)  # before the stable sort: equal ones come in random order
    by_disagreement = sorted(every, key=lambda pair: -disagreement[pair])
    picked = by_disagreement[: total - round(random_share * total)]
    rest = by_disagreement[len(picked) :]
    picked += generator.sample(rest, total - len(picked))
    generator.shuffle(picked)
    return picked


def rankings(pool: Pool, k: int, n: int | None, seed: int) -> list[tuple[int, ...]]:
    """Groups of k sample ids with different texts, each sample in one group at most, prompts in random order."""
    generator = random.Random(seed)
    groups = []
    for answers in _shuffled(pool, generator):
        ids = _first_of_each_text(answers)
        groups += [tuple(sorted(ids[start : start + k])) for start in range(0, len(ids) - k + 1, k)]
    return groups[:n]


def singles(pool: Pool, n: int | None, seed: int) -> list[tuple[int, ...]]:
    """Samples by themselves, in random order."""
    every: list[tuple[int, ...]] = [(sample,) for _, answers in pool for sample, _ in answers]
    random.Random(seed).shuffle(every)
    return every[:n]


def _random_pairs(pool: Pool, n: int | None, generator: random.Random) -> list[tuple[int, ...]]:
    turns: list[list[tuple[int, ...]]] = []  # turns[t] holds the t-th pair of every prompt that has so many
    for answers in _shuffled(pool, generator):
        for turn, pair in enumerate(_paired_off(answers, again=n is not None)):
            if turn == len(turns):
                turns.append([])
            turns[turn].append(pair)
    return [pair for turn in turns for pair in turn][:n]


def _paired_off(answers: Sequence[tuple[int, str]], again: bool) -> list[tuple[int, ...]]:
    """Pairs in which each sample comes once; if `again`, then pairs not yet made in which each comes once, and so on."""
    left = _distinct_pairs(answers)
    made: list[tuple[int, ...]] = []
    while left:
        seen: set[int] = set()
        for pair in left:
            if not seen.intersection(pair):
                made.append(tuple(sorted(pair)))
                seen.update(pair)
        if not again:
            break
        done = set(made)
        left = [pair for pair in left if tuple(sorted(pair)) not in done]
    return made


def _distinct_pairs(answers: Sequence[tuple[int, str]]) -> list[tuple[int, int]]:
    return [(a, b) for (a, left), (b, right) in combinations(answers, 2) if left != right]


def _first_of_each_text(answers: Sequence[tuple[int, str]]) -> list[int]:
    first: dict[str, int] = {}
    for sample, text in answers:
        first.setdefault(text, sample)
    return list(first.values())


def _shuffled(pool: Pool, generator: random.Random) -> list[list[tuple[int, str]]]:
    """The answers of each prompt, prompts and answers in random order."""
    shuffled = [generator.sample(answers, len(answers)) for _, answers in pool]
    generator.shuffle(shuffled)
    return shuffled


def _disagreement(pool: Pool, uncertainty: Uncertainty | None) -> dict[tuple[int, ...], float]:
    """The uncertainty of every pair of every prompt that has two answers."""
    assert uncertainty is not None
    found: dict[tuple[int, ...], float] = {}
    for prompt, answers in pool:
        k = len(answers)
        if k < 2:
            continue
        values = np.asarray(uncertainty(prompt, [text for _, text in answers]), dtype=float)
        if values.shape == (k, k):
            values = values[np.triu_indices(k, 1)]
        if values.shape != (k * (k - 1) // 2,) or not np.isfinite(values).all():
            raise FeedbackError(
                f"uncertainty gave an array of shape {values.shape} for {k} responses to {excerpt(prompt)}. Return "
                f"finite numbers of shape ({k}, {k}), or one for each of the {k * (k - 1) // 2} pairs."
            )
        ids = [sample for sample, _ in answers]
        found.update(zip(combinations(ids, 2), values.tolist()))
    return found
