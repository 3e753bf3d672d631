"""What a paper says, and whether numbers agree: by a criterion that is fixed before the numbers are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.bench.statistics import Estimate, interval, mean

HELD, REFUTED, UNDECIDED = "held", "did not hold", "undecided"


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, what it was measured by, and the verdict.

    Attributes:
        says: the claim.
        criterion: when it counts as held, in words.
        found: the numbers, in words.
        verdict: `HELD`, `REFUTED` or `UNDECIDED`.
    """

    says: str
    criterion: str
    found: str
    verdict: str


def above(estimate: Estimate, threshold: float = 0.0) -> str:
    """Held where the whole interval is above the threshold, not where it is below, else undecided."""
    if estimate.low > threshold:
        return HELD
    return REFUTED if estimate.high < threshold else UNDECIDED


def all_hold(values: Sequence[bool]) -> str:
    """Held where every run holds; nothing without runs."""
    if not values:
        return UNDECIDED
    return HELD if all(values) else REFUTED


def mean_of(values: Sequence[float]) -> Estimate:
    """The mean over seeds and its 95 % bootstrap interval."""
    return interval([np.asarray(values, dtype=np.float64)], mean)


def difference(ours: dict[int, float], theirs: dict[int, float]) -> Estimate | None:
    """The mean difference over the seeds that both have, with its 95 % bootstrap interval; None with fewer than two."""
    seeds = sorted(set(ours) & set(theirs))
    return mean_of([ours[seed] - theirs[seed] for seed in seeds]) if len(seeds) > 1 else None


def compared(says: str, what: str, ours: dict[int, float], theirs: dict[int, float]) -> Claim:
    """The claim that `ours` is above `theirs`, values by seed."""
    criterion = f"the 95 % interval of the mean paired difference in {what} is above 0"
    estimate = difference(ours, theirs)
    if estimate is None:
        return Claim(says, criterion, "fewer than two seeds are there", UNDECIDED)
    seeds = len(set(ours) & set(theirs))
    return Claim(says, criterion, f"difference {text(estimate)}, {seeds} seeds", above(estimate))


def text(estimate: Estimate, digits: int = 3) -> str:
    """ "0.12 (0.10 to 0.14)"."""
    return f"{estimate.value:+.{digits}f} ({estimate.low:+.{digits}f} to {estimate.high:+.{digits}f})"


def last(curve: Sequence[float], share: float = 0.25) -> float:
    """The mean of a curve's last quarter, one value at least."""
    return float(np.mean(curve[-max(1, round(len(curve) * share)) :]))


def by_seed(runs: Sequence[dict], condition: str) -> dict[int, dict]:
    """The results of a condition, by seed."""
    found = [run for run in runs if run["settings"]["condition"] == condition]
    return {run["settings"]["seed"]: run["result"] for run in found}
