"""The mathematics of the update: pure functions, one element per token chosen by the policy.

All of them return sums over tokens, never means: the caller divides by the number of tokens of the whole minibatch, so
that the loss does not depend on how episodes are split into micro-batches or processes.
"""

import numpy as np
import torch
from torch import Tensor

KL_ESTIMATORS = ("k1", "k2", "k3")


def clipped_surrogate(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    clip_range: float,
    clip_range_high: float | None = None,
) -> Tensor:
    """PPO's clipped policy loss, summed (Schulman et al. 2017, "Proximal Policy Optimization Algorithms", eq. 7).

    It is linear in the size of the advantages: who wants tokens to weigh differently multiplies their advantages.

    Args:
        log_probs, old_log_probs, advantages: shape [tokens]; or [sequences], where a whole response is the action.
        clip_range: epsilon; 0.2 in the paper's table 3.
        clip_range_high: epsilon above 1; None: ``clip_range`` (Yu et al. 2025, "DAPO", section 3.1, raise it).
    """
    ratio = torch.exp(log_probs - old_log_probs)
    clipped = torch.clamp(
        ratio, 1 - clip_range, 1 + (clip_range if clip_range_high is None else clip_range_high)
    )
    return -torch.min(advantages * ratio, advantages * clipped).sum()


@torch.no_grad()
def ratio_stats(
    log_probs: Tensor, old_log_probs: Tensor, clip_range: float, n_tokens: int
) -> dict[str, Tensor]:
    """Stable-Baselines3's ``approx_kl`` (k3, in nats) and ``clip_fraction``; arguments of shape [tokens]."""
    log_ratio = log_probs - old_log_probs
    ratio = log_ratio.exp()
    return {
        "approx_kl": (ratio - 1 - log_ratio).sum() / n_tokens,
        "clip_fraction": ((ratio - 1).abs() > clip_range).sum() / n_tokens,
    }


def sum_per_sequence(per_token: Tensor, rows: Tensor, n_sequences: int) -> Tensor:
    """Sums over the tokens of each sequence, shape [sequences]; ``per_token`` and ``rows`` (int64) have shape [tokens]."""
    return torch.zeros(n_sequences, dtype=per_token.dtype, device=per_token.device).index_add(
        0, rows, per_token
    )


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_range_vf: float | None) -> Tensor:
    """Squared error of the critic, summed, its step limited to ``old_values`` ± ``clip_range_vf`` as in Stable-Baselines3.

    Args:
        values, old_values, returns: shape [tokens].
        clip_range_vf: in units of the return; None switches the limit off.
    """
    if clip_range_vf is not None:
        values = old_values + torch.clamp(values - old_values, -clip_range_vf, clip_range_vf)
    return ((returns - values) ** 2).sum()


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats, shape [tokens], of softmax(logits), shape [tokens, V]; tokens with logit -inf count 0."""
    log_probs = torch.log_softmax(logits, dim=-1)
    finite = log_probs.masked_fill(
        log_probs.isneginf(), 0.0
    )  # before the product, whose gradient would be 0 * inf
    return -(log_probs.exp() * finite).sum(dim=-1)


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
