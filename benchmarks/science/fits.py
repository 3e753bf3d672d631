"""The two functional forms of Gao et al. 2023, "Scaling Laws for Reward Model Overoptimization", section 3.1.

With d = sqrt(KL) in nats, the gold reward, less that of the policy at the start, is d (alpha - beta d) for best-of-n and
d (alpha - beta log d) for RL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

FORMS = ("best_of_n", "rl")
NAMES = {"best_of_n": "d(alpha - beta d)", "rl": "d(alpha - beta log d)"}


@dataclass(frozen=True)
class Fit:
    """A fitted form.

    Attributes:
        form: one of `FORMS`.
        r2: share of the variance that it explains; may be negative, for the curve is held to 0 at d = 0.
    """

    form: str
    alpha: float
    beta: float
    r2: float

    def __call__(self, d: np.ndarray) -> np.ndarray:
        """The reward at distances d > 0."""
        return np.asarray(d) * (self.alpha - self.beta * penalty(self.form, d))

    @property
    def peak(self) -> float:
        """The d of the highest reward: alpha / (2 beta), or exp(alpha / beta - 1); infinite where it never turns."""
        if self.beta <= 0:
            return float("inf")
        with np.errstate(over="ignore"):
            ratio = self.alpha / self.beta
            return float(ratio / 2 if self.form == "best_of_n" else np.exp(ratio - 1))

    def json(self) -> dict:
        """As JSON has it."""
        peak = self.peak if np.isfinite(self.peak) else None
        return {**asdict(self), "peak": peak}


def penalty(form: str, d: np.ndarray) -> np.ndarray:
    """What beta stands before: d, or log d."""
    return np.asarray(d) if form == "best_of_n" else np.log(d)


def fit(form: str, d: Sequence[float], reward: Sequence[float]) -> Fit:
    """Least squares, which is linear in alpha and beta. Points with d = 0 say nothing and are left out.

    Raises:
        ValueError: fewer than three points with d > 0.
    """
    distances, rewards = np.asarray(d, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    distances, rewards = distances[distances > 0], rewards[distances > 0]
    if len(distances) < 3:
        raise ValueError(
            f"{len(distances)} points with d > 0: in fit. Two numbers are sought: give three or more."
        )
    columns = np.stack([distances, -distances * penalty(form, distances)], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(columns, rewards, rcond=None)
    rest = rewards - columns @ np.array([alpha, beta])
    spread = ((rewards - rewards.mean()) ** 2).sum()
    return Fit(
        form, float(alpha), float(beta), float(1 - (rest**2).sum() / spread) if spread > 0 else float("nan")
    )
