"""Advantage estimators: pure functions of padded arrays, one row per episode."""

import numpy as np


def gae(
    rewards: np.ndarray, values: np.ndarray, mask: np.ndarray, gamma: float = 1.0, gae_lambda: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Generalized advantage estimation over whole episodes.

    ``A_t = sum_k (gamma * lambda)^k delta_{t+k}`` with ``delta_t = r_t + gamma * V_{t+1} - V_t`` (Schulman et al. 2016,
    "High-Dimensional Continuous Control Using Generalized Advantage Estimation", eq. 16). An episode ends with its last
    token, so the value after it is 0. Defaults: gamma 1.0 and lambda 0.95 as in Ziegler et al. 2019, appendix A.

    Args:
        rewards: shape [episodes, tokens], nats and score units.
        values: shape [episodes, tokens], the critic's estimate before each token.
        mask: bool, shape [episodes, tokens]; each row is True for the episode's tokens, then False.

    Returns:
        advantages and returns (advantages + values), shape [episodes, tokens], 0.0 where the mask is False.
    """
    advantages = np.zeros_like(rewards)
    next_value = next_advantage = np.zeros(len(rewards), dtype=rewards.dtype)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        # Beyond an episode's end everything is 0, which is just what its last token must see as its future.
        advantages[:, t] = np.where(mask[:, t], delta + gamma * gae_lambda * next_advantage, 0.0)
        next_advantage = advantages[:, t]
        next_value = np.where(mask[:, t], values[:, t], 0.0)
    return advantages, np.where(mask, advantages + values, 0.0)


def whiten(advantages: np.ndarray) -> np.ndarray:
    """Shift to mean 0 and scale to standard deviation 1 over all tokens of the rollout, shape [tokens].

    The same formula as Stable-Baselines3's ``normalize_advantage`` (unbiased deviation, 1e-8 added), but over the whole
    rollout instead of each minibatch, as in Ziegler et al. 2019's code. A single token is returned as it is.
    """
    if len(advantages) < 2:
        return advantages
    return (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-8)
