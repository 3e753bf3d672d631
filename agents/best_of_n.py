"""Best-of-n: the best of n answers by some score, without any training. The baseline that RL has to beat."""

import math
from functools import lru_cache

import numpy as np


def best_of_n(scores: np.ndarray, n: int, chosen_by: np.ndarray | None = None) -> np.ndarray:
    """What the best of ``n`` answers scores in expectation, estimated without bias from N of them.

    With the answers sorted by the score that chooses, the i-th of N (from 1) is the best of n random ones in
    ``C(i - 1, n - 1)`` of ``C(N, n)`` draws without replacement (Nakano et al. 2021, "WebGPT", appendix I; Gao et al. 2023,
    "Scaling Laws for Reward Model Overoptimization", appendix I). Ties count in the order in which they stand.

    Args:
        scores: shape [prompts, N], what the chosen answer is judged by.
        n: 1 to N; 1 gives the mean.
        chosen_by: shape [prompts, N], what chooses, a proxy reward say; None: ``scores`` themselves.

    Returns:
        shape [prompts].

    Raises:
        ValueError: for n above N or below 1, or shapes that differ.
    """
    scores = np.asarray(scores, dtype=np.float64)
    chooser = scores if chosen_by is None else np.asarray(chosen_by)
    if scores.ndim != 2 or chooser.shape != scores.shape:
        raise ValueError(
            f"scores has shape {scores.shape}, chosen_by {chooser.shape}: in best_of_n. Both must be [prompts, N]."
        )
    n_samples = scores.shape[1]
    if not 1 <= n <= n_samples:
        raise ValueError(
            f"n is {n} with {n_samples} answers per prompt: in best_of_n. Choose 1 to {n_samples}."
        )
    order = np.argsort(chooser, axis=1, kind="stable")
    return np.take_along_axis(scores, order, axis=1) @ _chances(n, n_samples)


@lru_cache
def _chances(n: int, n_samples: int) -> np.ndarray:
    """The probability of each rank to be the best of n out of ``n_samples``, shape [n_samples], lowest rank first."""
    whole = math.comb(n_samples, n)
    return np.array([math.comb(rank, n - 1) / whole for rank in range(n_samples)])


def best_of_n_kl(n: int) -> float:
    """KL(best-of-n || the policy that answers), in nats: ``log n - (n - 1) / n`` (Stiennon et al. 2020, appendix G.3).

    An upper bound, exact where no two answers tie (Beirami et al. 2024, "Theoretical guarantees on the best-of-n alignment
    policy").
    """
    return math.log(n) - (n - 1) / n
