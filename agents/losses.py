"""The mathematics of the update: pure functions, one element per token chosen by the policy.

All of them return sums over tokens, never means: the caller divides by the number of tokens of the whole minibatch, so
that the loss does not depend on how episodes are split into micro-batches or processes.
"""

import numpy as np
import torch
from torch import Tensor

KL_ESTIMATORS = ("k1", "k2", "k3")


def clipped_surrogate(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float
) -> Tensor:
    """PPO's clipped policy loss, summed (Schulman et al. 2017, "Proximal Policy Optimization Algorithms", eq. 7).

    Args:
        log_probs, old_log_probs, advantages: shape [tokens].
        clip_range: epsilon; 0.2 in the paper's table 3.
    """
    ratio = torch.exp(log_probs - old_log_probs)
    clipped = torch.clamp(ratio, 1 - clip_range, 1 + clip_range)
    return -torch.min(advantages * ratio, advantages * clipped).sum()


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_range_vf: float | None) -> Tensor:
    """Squared error of the critic, summed, its step limited to ``old_values`` ± ``clip_range_vf`` as in Stable-Baselines3.

    Args:
        values, old_values, returns: shape [tokens].
        clip_range_vf: in units of the return; None switches the limit off.
    """
    if clip_range_vf is not None:
        values = old_values + torch.clamp(values - old_values, -clip_range_vf, clip_range_vf)
    return ((returns - values) ** 2).sum()


def kl_estimate(log_probs, ref_log_probs, estimator: str = "k1"):
    """Per-token estimate of KL(policy || reference) in nats, from tokens drawn from the policy; shape [tokens].

    Schulman 2020, "Approximating KL Divergence" (http://joschu.net/blog/kl-approx.html), with
    ``log r = ref_log_probs - log_probs``: k1 = -log r (unbiased, may be negative), k2 = (log r)^2 / 2 (biased, low
    variance), k3 = (r - 1) - log r (unbiased, never negative). Works on numpy arrays and torch tensors alike.

    Raises:
        ValueError: for another estimator's name.
    """
    log_ratio = ref_log_probs - log_probs
    if estimator == "k1":
        return -log_ratio
    if estimator == "k2":
        return 0.5 * log_ratio**2
    if estimator == "k3":
        ratio = log_ratio.exp() if isinstance(log_ratio, Tensor) else np.exp(log_ratio)
        return ratio - 1 - log_ratio
    raise ValueError(
        f"Unknown KL estimator {estimator!r}: in kl_estimator. Choose one of {', '.join(KL_ESTIMATORS)}."
    )
