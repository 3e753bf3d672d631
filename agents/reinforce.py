"""REINFORCE on whole responses, and REINFORCE++: policy gradients without critic and without groups."""

from typing import Any, ClassVar

import numpy as np
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor

from agents import processes
from agents.advantages import leave_one_out, returns_to_go, whiten
from agents.episodes import EpisodeBuffer, Minibatch
from agents.losses import clipped_surrogate, ratio_stats
from agents.on_policy import OnPolicyTextAlgorithm
from agents.policy import CausalLMPolicy

BASELINES = ("mean", "none")


class TextREINFORCE(OnPolicyTextAlgorithm):
    """REINFORCE (Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
    Learning"; for
    language models: Ahmadian et al. 2024, "Back to Basics", section 3.1).

    The loss of a response is ``-(R - b) * log pi(response)``, its mean over the minibatch; R is its score less
    ``kl_coef`` times its KL to the reference. Shared with PPO: the KL penalty in the reward. Not shared: no critic, no
    ratio and no clip, so each rollout is used for one step.

    Args:
        baseline: "mean": b is the mean return of the rollout's other responses, whatever their prompts, so that the
            gradient stays unbiased; "none": b is 0.
        n_episodes, batch_size: 64 and None: all of them, one optimiser step per rollout.
        policy, env, and all further arguments: as in `agents.TextPPO`.

    Raises:
        ValueError: for arguments that do not fit one another, the environment, or the model.
    """

    uses_critic: ClassVar[bool] = False
    saved_attributes = (*OnPolicyTextAlgorithm.saved_attributes, "baseline")

    def __init__(
        self,
        policy: str | type[CausalLMPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule | None = None,
        *,
        baseline: str = "mean",
        n_episodes: int = 64,
        batch_size: int | None = None,
        **kwargs: Any,
    ):
        if baseline not in BASELINES:
            raise ValueError(
                f"Unknown baseline {baseline!r}: in TextREINFORCE. Choose one of {', '.join(BASELINES)}."
            )
        if baseline == "mean" and n_episodes < 2:
            raise ValueError(
                f"n_episodes is {n_episodes}: in TextREINFORCE. The mean of the others needs 2 or more, or baseline='none'."
            )
        self.baseline = baseline
        batch_size = n_episodes if batch_size is None else batch_size
        super().__init__(policy, env, learning_rate, n_episodes=n_episodes, batch_size=batch_size, **kwargs)

    def compute_advantages(self, buffer: EpisodeBuffer) -> None:
        """Returns less the baseline, the same for all tokens of a response."""
        returns = buffer.sum_per_episode(buffer.rewards).astype(np.float64)
        advantages = returns
        if self.baseline == "mean":
            of_all = processes.together(returns)
            in_one_group = np.zeros(len(of_all), dtype=np.int64)
            advantages = leave_one_out(of_all, in_one_group)[buffer.first :][: len(returns)]
        buffer.advantages, buffer.returns = buffer.spread(advantages), buffer.spread(returns)

    def loss(self, batch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus advantage times log-probability: summed over a response's tokens, the mean over responses."""
        _, log_probs, entropies = self.evaluate(batch)
        policy_loss = -(batch.advantages * log_probs).sum() / batch.n_episodes
        stats = {"policy_gradient_loss": policy_loss.detach()} | ratio_stats(
            log_probs, batch.old_log_probs, np.inf, batch.n_tokens
        )
        return self.add_entropy_bonus(policy_loss, stats, entropies, batch.n_tokens), stats


class TextREINFORCEPlusPlus(OnPolicyTextAlgorithm):
    """REINFORCE++ (Hu 2025, "REINFORCE++: A Simple and Efficient Approach for Aligning Large Language Models").

    PPO without a critic: a token's advantage is what comes after it, ``sum_{k >= t} (-kl_coef * KL_k)`` and the score at
    the end, whitened over the whole rollout. Shared with PPO: the KL penalty per token in the reward, whitening, the
    clipped ratio of each token, the mean over tokens.

    Args:
        n_epochs: passes over each rollout; 1.
        clip_range: epsilon; 0.2. A float or a schedule.
        policy, env, and all further arguments: as in `agents.TextPPO`.

    Raises:
        ValueError: for arguments that do not fit one another, the environment, or the model.
    """

    uses_critic: ClassVar[bool] = False
    saved_schedules = (*OnPolicyTextAlgorithm.saved_schedules, "clip_range")

    def __init__(
        self,
        policy: str | type[CausalLMPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule | None = None,
        *,
        clip_range: float | Schedule = 0.2,
        **kwargs: Any,
    ):
        self.clip_range = clip_range
        super().__init__(policy, env, learning_rate, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.clip_range = FloatSchedule(self.clip_range)

    def compute_advantages(self, buffer: EpisodeBuffer) -> None:
        """Returns to go, whitened over the rollout."""
        buffer.returns = buffer.flat(returns_to_go(buffer.padded(buffer.rewards), buffer.mask))
        buffer.advantages = whiten(buffer.returns)

    def loss(self, batch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        """PPO's clipped surrogate: the mean over the minibatch's tokens."""
        clip_range = self.clip_range(self._current_progress_remaining)  # type: ignore[operator]
        _, log_probs, entropies = self.evaluate(batch)
        policy_loss = (
            clipped_surrogate(log_probs, batch.old_log_probs, batch.advantages, clip_range) / batch.n_tokens
        )
        stats = {"policy_gradient_loss": policy_loss.detach()} | ratio_stats(
            log_probs, batch.old_log_probs, clip_range, batch.n_tokens
        )
        return self.add_entropy_bonus(policy_loss, stats, entropies, batch.n_tokens), stats
