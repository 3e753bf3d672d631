"""Coefficients of agreement between raters, and intervals. Needs numpy alone.

Each coefficient is a function of sums over items, so that its bootstrap interval (items drawn with replacement, 95 %,
percentiles) takes one matrix product. A coefficient that is not defined, because nobody shares an item or everybody says the
same one thing, is nan, and null in JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Units = Sequence[Sequence[Hashable]]  # for each item, what its raters said

RESAMPLES = 1000
Z95 = 1.959964  # the normal distribution's 97.5 % point


class Estimate(NamedTuple):
    """A value, its 95 % interval, and how many items (votes, for a share) it rests on."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int | None]:
        return {name: None if math.isnan(value) else value for name, value in self._asdict().items()}


# --- coefficients ----------------------------------------------------------------------------------------------


def raw_agreement(counts: ArrayLike) -> float:
    """How often two raters of one item say the same: over all pairs of votes on one item.

    Args:
        counts: shape [items, labels], how many raters gave the item that label.
    """
    return float(raw_of(agreeing_sums(np.asarray(counts, float)).sum(axis=0)))


def cohen_kappa(a: Sequence[Hashable | None], b: Sequence[Hashable | None]) -> float:
    """Cohen's kappa of two raters: agreement beyond what their label frequencies give by chance (Cohen 1960).

    Args:
        a, b: the labels that each gave to the same items, in the same order; None for an item that they left out.
    """
    if len(a) != len(b):
        raise ValueError(f"One rater labelled {len(a)} items, the other {len(b)}. Give both the same items.")
    both = [(x, y) for x, y in zip(a, b) if x is not None and y is not None]
    labels = numbered(label for pair in both for label in pair)
    table = np.zeros((len(labels), len(labels)))
    for x, y in both:
        table[labels[x], labels[y]] += 1
    return float(cohen_of(table))


def fleiss_kappa(counts: ArrayLike) -> float:
    """Fleiss' kappa of many raters (Fleiss 1971). Items of fewer than two votes are left out; where items have different
    numbers of votes, each one's agreement is that of its own pairs.

    Args:
        counts: shape [items, labels], how many raters gave the item that label.
    """
    return float(fleiss_of(fleiss_sums(np.asarray(counts, float)).sum(axis=0)))


def krippendorff_alpha(units: Units, level: str = "nominal") -> float:
    """Krippendorff's alpha: 1 - observed / expected disagreement, for any number of raters and of missing votes.

    Krippendorff, Computing Krippendorff's Alpha-Reliability (2011).

    Args:
        units: for each item what its raters said, in any order; items of fewer than two votes do not count.
        level: "nominal", for labels; "interval", for numbers, whose disagreement is the squared difference.
    """
    if level not in ("nominal", "interval"):
        raise ValueError(f'level is {level!r}. Choose "nominal" or "interval".')
    if level == "interval":
        return float(alpha_of_numbers(number_sums(units).sum(axis=0)))
    return float(alpha_of_labels(label_sums(counts_of(units)).sum(axis=0)))


def counts_of(units: Units) -> Floats:
    """How many raters gave each item each label, shape [items, labels]; labels in the order in which they come."""
    labels = numbered(label for unit in units for label in unit)
    counts = np.zeros((len(units), len(labels)))
    for item, unit in enumerate(units):
        for label in unit:
            counts[item, labels[label]] += 1
    return counts


# Sums over items, shape [..., features], to coefficients, shape [...]; and the features, shape [items, features].


def agreeing_sums(counts: Floats) -> Floats:
    """[pairs of votes that agree, pairs of votes]"""
    n = counts.sum(axis=1)
    return np.stack([(counts * (counts - 1)).sum(axis=1), n * (n - 1)], axis=1)


def raw_of(sums: Floats) -> Floats:
    return divide(sums[..., 0], sums[..., 1])


def fleiss_sums(counts: Floats) -> Floats:
    """[items, their agreement, votes for each label...] of items with two votes or more."""
    n = counts.sum(axis=1)
    shared = n >= 2
    agreement = np.where(shared, (counts * (counts - 1)).sum(axis=1) / np.where(shared, n * (n - 1), 1), 0.0)
    return np.column_stack([shared, agreement, counts * shared[:, None]])


def fleiss_of(sums: Floats) -> Floats:
    observed = divide(sums[..., 1], sums[..., 0])
    shares = divide(sums[..., 2:], sums[..., 2:].sum(axis=-1, keepdims=True))
    return _beyond_chance(observed, (shares**2).sum(axis=-1))


def cohen_of(table: Floats) -> Floats:
    """`table`: how often the one said the row and the other the column, shape [..., labels, labels]."""
    n = table.sum(axis=(-2, -1))
    observed = divide(np.trace(table, axis1=-2, axis2=-1), n)
    expected = divide((table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1), n**2)
    return _beyond_chance(observed, expected)


def _beyond_chance(observed: Floats, expected: Floats) -> Floats:
    return divide(observed - expected, 1 - expected)


def label_sums(counts: Floats) -> Floats:
    """[disagreement within the item, its votes for each label...] of items with two votes or more."""
    n = counts.sum(axis=1)
    shared = n >= 2
    differing = n * (n - 1) - (counts * (counts - 1)).sum(axis=1)
    return np.column_stack(
        [np.where(shared, differing / np.where(shared, n - 1, 1), 0.0), counts * shared[:, None]]
    )


def alpha_of_labels(sums: Floats) -> Floats:
    totals = sums[..., 1:]
    n = totals.sum(axis=-1)
    expected = divide(n * (n - 1) - (totals * (totals - 1)).sum(axis=-1), n - 1)
    return 1 - divide(sums[..., 0], expected)


def number_sums(units: Units) -> Floats:
    """[squared differences within the item, votes, sum, sum of squares] of items with two votes or more."""
    rows = []
    for unit in units:
        values = np.asarray(unit, float)
        n, total, squares = len(values), values.sum(), (values**2).sum()
        within = 2 * (n * squares - total**2) / (n - 1) if n > 1 else 0.0
        rows.append([within, n, total, squares] if n > 1 else [0.0] * 4)
    return np.array(rows).reshape(-1, 4)


def alpha_of_numbers(sums: Floats) -> Floats:
    within, n, total, squares = (sums[..., i] for i in range(4))
    expected = divide(2 * (n * squares - total**2), n - 1)
    return 1 - divide(within, np.where(expected > 1e-12 * squares, expected, 0.0))


def divide(a: Floats, b: Floats) -> Floats:
    """a / b; nan where b is 0."""
    a, b = np.broadcast_arrays(np.asarray(a, float), np.asarray(b, float))
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=np.abs(b) > 1e-12)


def numbered(labels: Iterable[Hashable]) -> dict[Hashable, int]:
    return {label: number for number, label in enumerate(dict.fromkeys(labels))}


# --- intervals -------------------------------------------------------------------------------------------------


def bootstrap(
    statistic: Callable[[Floats], Floats], n_items: int, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The 95 % interval of a statistic of items: percentiles over resamples of the items (Efron and Tibshirani 1993).

    Args:
        statistic: of weights, shape [resamples, items], how often each item was drawn; returns shape [resamples].
        n_items: how many there are.
        seed: of the drawing.
        resamples: how many times.

    Returns:
        The 2.5 and 97.5 % points over the resamples in which the statistic is defined; nan where it is in none.
    """
    if n_items == 0:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)

    def weights(size: int) -> Floats:
        drawn = rng.integers(n_items, size=(size, n_items)) + n_items * np.arange(size)[:, None]
        return np.bincount(drawn.ravel(), minlength=size * n_items).reshape(size, n_items).astype(float)

    at_once = min(resamples, max(1, 4_000_000 // n_items))  # bounds memory
    sizes = [at_once] * (resamples // at_once) + [resamples % at_once] * (resamples % at_once > 0)
    values = np.concatenate([statistic(weights(size)) for size in sizes])
    values = values[~np.isnan(values)]
    return (math.nan, math.nan) if not len(values) else tuple(np.quantile(values, [0.025, 0.975]).tolist())


def share(successes: int, n: int) -> Estimate:
    """A share and its Wilson score interval, which stays honest for few votes (Wilson 1927)."""
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    p, z = successes / n, Z95**2 / n
    centre, half = p + z / 2, Z95 * math.sqrt(p * (1 - p) / n + z / (4 * n))
    return Estimate(p, max(0.0, (centre - half) / (1 + z)), min(1.0, (centre + half) / (1 + z)), n)


def estimate(features: Floats, coefficient: Callable[[Floats], Floats]) -> Estimate:
    """A coefficient and its interval.

    Args:
        features: shape [items, features].
        coefficient: of their sum over items, shape [..., features] to [...].
    """
    value = float(coefficient(features.sum(axis=0)))
    return Estimate(
        value, *bootstrap(lambda weights: coefficient(weights @ features), len(features)), len(features)
    )
