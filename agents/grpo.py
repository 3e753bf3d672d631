"""Group relative policy optimisation: the other answers to the same prompt take the critic's place."""

from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor

from agents import processes
from agents.advantages import group_relative
from agents.episodes import EpisodeBuffer, Minibatch
from agents.losses import clipped_surrogate, kl_estimate, ratio_stats
from agents.on_policy import OnPolicyTextAlgorithm
from agents.policy import CausalLMPolicy

LOSS_TYPES = ("grpo", "dr_grpo", "dapo")


class TextGRPO(OnPolicyTextAlgorithm):
    """GRPO (Shao et al. 2024, "DeepSeekMath", section 4.1) and two of its variants.

    Each prompt is answered ``samples_per_prompt`` times. A response's advantage, the same for all its tokens, is its score
    less its group's mean, in the group's standard deviations (`agents.advantages.group_relative`). Shared with PPO: the
    clipped ratio of each token. Not shared: no critic, and the KL to the reference stands in the loss, as k3 (eq. 4), instead
    of in the reward. The variants differ in what a token weighs, with G responses o_i:

    * "grpo", eq. 3: ``1/G sum_i 1/|o_i| sum_t``: long responses' tokens weigh less.
    * "dr_grpo", Liu et al. 2025, "Understanding R1-Zero-Like Training", section 3.2: ``1/G sum_i sum_t`` over the length
      limit, a constant; advantages are not divided by the deviation.
    * "dapo", Yu et al. 2025, "DAPO", sections 3.1 to 3.3: one mean over all tokens; the ratio may rise to
      ``1 + clip_range_high`` = 1.28; groups whose scores are all the same are left out.

    Args:
        loss_type: one of the above.
        samples_per_prompt: G; 8 (the paper: 64; TRL: 8).
        n_epochs: passes over each rollout; 1, as in the paper (mu, section 4.2), with ``batch_size`` 16 of 64 episodes.
        clip_range: epsilon; 0.2. A float or a schedule.
        clip_range_high: epsilon above 1; None: ``clip_range``, and 0.28 for "dapo".
        kl_coef: weight beta of the KL in the loss, per token; 0.04 (the paper, section 4.2). DAPO's authors use 0.
        policy, env, and all further arguments: as in `agents.TextPPO`.

    Raises:
        ValueError: for arguments that do not fit one another, the environment, or the model.
    """

    uses_critic: ClassVar[bool] = False
    kl_in_reward = False
    saved_attributes = (*OnPolicyTextAlgorithm.saved_attributes, "loss_type", "clip_range_high")
    saved_schedules = (*OnPolicyTextAlgorithm.saved_schedules, "clip_range")

    def __init__(
        self,
        policy: str | type[CausalLMPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule | None = None,
        *,
        loss_type: str = "grpo",
        samples_per_prompt: int = 8,
        clip_range: float | Schedule = 0.2,
        clip_range_high: float | None = None,
        kl_coef: float = 0.04,
        **kwargs: Any,
    ):
        if loss_type not in LOSS_TYPES:
            raise ValueError(
                f"Unknown loss_type {loss_type!r}: in TextGRPO. Choose one of {', '.join(LOSS_TYPES)}."
            )
        self.check_at_least_two(samples_per_prompt)
        self.loss_type = loss_type
        self.clip_range = clip_range
        self.clip_range_high = 0.28 if clip_range_high is None and loss_type == "dapo" else clip_range_high
        super().__init__(
            policy, env, learning_rate, samples_per_prompt=samples_per_prompt, kl_coef=kl_coef, **kwargs
        )

    def _setup_model(self) -> None:
        super()._setup_model()
        self.clip_range = FloatSchedule(self.clip_range)

    def compute_advantages(self, buffer: EpisodeBuffer) -> None:
        """Scores relative to their group, the same for all tokens of a response."""
        scores = buffer.sum_per_episode(buffer.rewards).astype(np.float64)
        advantages = group_relative(scores, buffer.groups, scale=self.loss_type != "dr_grpo")
        buffer.advantages, buffer.returns = buffer.spread(advantages), buffer.spread(scores)
        even = group_relative(scores, buffer.groups, scale=False) == 0
        share_even = processes.mean(even)
        self.logger.record("rollout/even_groups", share_even)
        if self.loss_type == "dapo" and share_even < 1:
            buffer.chosen = np.flatnonzero(~even)

    def loss(self, batch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Clipped surrogate + kl_coef * k3, each token weighed as ``loss_type`` says."""
        clip_range = self.clip_range(self._current_progress_remaining)  # type: ignore[operator]
        _, log_probs, entropies = self.evaluate(batch)
        weights = self.token_weights(batch)
        policy_loss = clipped_surrogate(
            log_probs, batch.old_log_probs, weights * batch.advantages, clip_range, self.clip_range_high
        )
        kl = (weights * kl_estimate(log_probs, batch.ref_log_probs, "k3")).sum()
        stats = {"policy_gradient_loss": policy_loss.detach(), "kl_loss": kl.detach()}
        stats |= ratio_stats(log_probs, batch.old_log_probs, clip_range, batch.n_tokens)
        loss = policy_loss + self.kl_controller.coef * kl
        return self.add_entropy_bonus(loss, stats, entropies, batch.n_tokens), stats

    def token_weights(self, batch: Minibatch) -> Tensor:
        """What each token weighs in the loss, shape [tokens]."""
        if self.loss_type == "grpo":
            return 1 / (batch.n_episodes * batch.lengths)
        limit = self.max_new_tokens if self.loss_type == "dr_grpo" else batch.n_tokens / batch.n_episodes
        return torch.full_like(batch.advantages, 1 / (batch.n_episodes * limit))
