"""Statistics of few runs, after Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".

Pure functions. `scores` is one array for each task, each of shape [seeds]: tasks are strata, and the bootstrap draws seeds
within each of them. All intervals are of 95 %, by percentiles, and seeded: the same scores give the same interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import trim_mean

Scores = Sequence[np.ndarray]
LEVEL = (2.5, 97.5)
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A statistic and its 95 % interval."""

    value: float
    low: float
    high: float


def iqm(values: np.ndarray) -> np.ndarray:
    """Interquartile mean over the last axis: the mean without the lowest and the highest quarter (rounded down)."""
    return trim_mean(values, 0.25, axis=-1)


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis."""
    return np.mean(values, axis=-1)


def resampled(scores: Scores, rng: np.random.Generator, n: int = RESAMPLES) -> list[np.ndarray]:
    """For each task, `n` draws of as many seeds as it has, with replacement; shapes [n, seeds]."""
    return [values[rng.integers(len(values), size=(n, len(values)))] for values in map(np.asarray, scores)]


def interval(
    scores: Scores, statistic: Callable[[np.ndarray], np.ndarray] = iqm, seed: int = 0, n: int = RESAMPLES
) -> Estimate:
    """A statistic of all runs together, with its stratified bootstrap interval.

    Args:
        statistic: of the last axis, such as `iqm`, `mean`.

    Raises:
        ValueError: there are no scores.
    """
    if not scores or any(len(values) == 0 for values in scores):
        raise ValueError("A task has no scores: an interval needs one run of each at least.")
    drawn = statistic(np.concatenate(resampled(scores, np.random.default_rng(seed), n), axis=-1))
    low, high = np.percentile(drawn, LEVEL)
    return Estimate(float(statistic(np.concatenate([*map(np.asarray, scores)]))), float(low), float(high))


def profile(scores: Scores, thresholds: np.ndarray) -> np.ndarray:
    """Share of runs with a score above each threshold; every task counts the same. Shape of `thresholds`."""
    return np.mean([(np.asarray(v)[:, None] > thresholds).mean(axis=0) for v in scores], axis=0)


def profile_interval(
    scores: Scores, thresholds: np.ndarray, seed: int = 0, n: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of `profile`, pointwise, each of the shape of `thresholds`."""
    drawn = resampled(scores, np.random.default_rng(seed), n)
    shares = np.mean([(values[:, :, None] > thresholds).mean(axis=1) for values in drawn], axis=0)
    low, high = np.percentile(shares, LEVEL, axis=0)
    return low, high


def improvement(x: Scores, y: Scores) -> float:
    """Probability that a run of X scores higher than one of Y on the same task, ties counted half; mean over tasks."""
    return float(np.mean([_wins(np.asarray(a), np.asarray(b)) for a, b in zip(x, y, strict=True)]))


def improvement_interval(x: Scores, y: Scores, seed: int = 0, n: int = RESAMPLES) -> Estimate:
    """`improvement` with its interval; the seeds of X and of Y are drawn independently."""
    rng = np.random.default_rng(seed)
    drawn = np.mean([_wins(a, b) for a, b in zip(resampled(x, rng, n), resampled(y, rng, n))], axis=0)
    low, high = np.percentile(drawn, LEVEL)
    return Estimate(improvement(x, y), float(low), float(high))


def _wins(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of pairs, shape [...], in which `a`, shape [..., m], is above `b`, shape [..., k]."""
    above, equal = a[..., :, None] > b[..., None, :], a[..., :, None] == b[..., None, :]
    return (above + 0.5 * equal).mean(axis=(-2, -1))


def normalised(score: np.ndarray, start: float, optimum: float) -> np.ndarray:
    """0 is the start's mean score, 1 the optimum; below 0 is worse than no training at all.

    Raises:
        ValueError: the start is at the optimum already: there is nothing to measure.
    """
    if not optimum > start:
        raise ValueError(
            f"The start scores {start:.3f} and the optimum is {optimum:.3f}: nothing lies between."
        )
    return (np.asarray(score) - start) / (optimum - start)


def on_grid(
    x: Sequence[np.ndarray], y: Sequence[np.ndarray], points: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """Curves of several seeds at common points: where all of them have been measured, straight lines between measurements.

    Args:
        x, y: one array for each seed, [updates]; x ascending.

    Returns:
        The grid, shape [points]; the curves, shape [seeds, points].
    """
    grid = np.linspace(max(values[0] for values in x), min(values[-1] for values in x), points)
    return grid, np.stack([np.interp(grid, a, b) for a, b in zip(x, y)])


def band(curves: np.ndarray, seed: int = 0, n: int = RESAMPLES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds of curves, shape [seeds, points], and its bounds: three arrays of shape [points]."""
    picks = np.random.default_rng(seed).integers(len(curves), size=(n, len(curves)))
    weights = np.stack([np.bincount(pick, minlength=len(curves)) for pick in picks]) / len(curves)
    low, high = np.percentile(weights @ curves, LEVEL, axis=0)
    return curves.mean(axis=0), low, high


def score_at_kl(kl: np.ndarray, score: np.ndarray, target: float) -> float | None:
    """The score where training first came to a KL of `target` nats, on the straight line between two updates.

    Args:
        kl, score: of each update in order, shape [updates].

    Returns:
        None where the KL never came so far.
    """
    reached = np.flatnonzero(np.asarray(kl) >= target)
    if not len(reached):
        return None
    i = int(reached[0])
    if i == 0:
        return float(score[0])
    return float(np.interp(target, kl[i - 1 : i + 1], score[i - 1 : i + 1]))
