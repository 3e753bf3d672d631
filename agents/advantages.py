"""Advantage estimators: pure functions of padded arrays, one row per episode."""

import numpy as np

from agents import processes


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
    rollout instead of each minibatch, as in Ziegler et al. 2019's code. A single token is returned as it is. Of a
    rollout in several processes each gives its own tokens, and mean and deviation are those of all.
    """
    deviation = processes.variance(advantages, ddof=1) ** 0.5
    return (
        advantages if np.isnan(deviation) else (advantages - processes.mean(advantages)) / (deviation + 1e-8)
    )


def returns_to_go(rewards: np.ndarray, mask: np.ndarray, gamma: float = 1.0) -> np.ndarray:
    """``G_t = sum_k gamma^k r_{t+k}`` over whole episodes: what gae gives with values 0 and lambda 1.

    Args:
        rewards, mask: shape [episodes, tokens], as for `gae`.

    Returns:
        shape [episodes, tokens], 0.0 where the mask is False.
    """
    return gae(rewards, np.zeros_like(rewards), mask, gamma, gae_lambda=1.0)[1]


def group_relative(scores: np.ndarray, groups: np.ndarray, scale: bool = True) -> np.ndarray:
    """How far each response's score is above the mean of its group, in the group's standard deviations.

    ``(r_i - mean(r)) / (std(r) + 1e-4)``, Shao et al. 2024, "DeepSeekMath", section 4.1.2; unbiased deviation and 1e-4 as in
    TRL. With ``scale=False`` the mean alone is taken off (Liu et al. 2025, "Understanding R1-Zero-Like Training", section
    3.1: the division favours prompts that are too easy or too hard). A group of one has advantage 0.

    Args:
        scores, groups: shape [episodes]; equal numbers in ``groups`` belong together.
    """
    _, of_group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    centred = scores - (np.bincount(of_group, scores) / sizes)[of_group]
    if not scale:
        return centred
    variance = np.bincount(of_group, centred**2) / np.maximum(sizes - 1, 1)
    return centred / (np.sqrt(variance)[of_group] + 1e-4)


def leave_one_out(scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Each response's score less the mean of the others of its group: REINFORCE's gradient stays unbiased.

    ``r_i - 1/(k-1) sum_{j != i} r_j``, Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a Baseline for Free!"; Ahmadian et al.
    2024, "Back to Basics", eq. 8.

    Args:
        scores, groups: shape [episodes]; each group holds at least two.

    Raises:
        ValueError: for a group of one.
    """
    _, of_group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if sizes.min() < 2:
        raise ValueError(
            f"Group {of_group[np.argmin(sizes[of_group])]} holds one response: in leave_one_out. There is no other to "
            "compare it with; set samples_per_prompt to 2 or more."
        )
    size = sizes[of_group]
    others = (np.bincount(of_group, scores)[of_group] - scores) / (size - 1)
    return scores - others
