"""REINFORCE leave-one-out: the other answers to the same prompt are the baseline, a whole response is the action."""

from typing import Any, ClassVar

import numpy as np
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor

from agents.advantages import leave_one_out
from agents.episodes import EpisodeBuffer, Minibatch
from agents.losses import clipped_surrogate, ratio_stats, sum_per_sequence
from agents.on_policy import OnPolicyTextAlgorithm
from agents.policy import CausalLMPolicy


class TextRLOO(OnPolicyTextAlgorithm):
    """RLOO (Kool et al. 2019; Ahmadian et al. 2024, "Back to Basics: Revisiting REINFORCE-Style Optimization for Learning
    from Human Feedback in LLMs", section 3.2).

    Each prompt is answered ``samples_per_prompt`` times. A response's return is its score less ``kl_coef`` times its KL
    to the reference; its advantage is that less the mean return of the other responses to the prompt. Shared with PPO:
    the KL penalty in the reward, and the clipped surrogate. Not shared: no critic, and the ratio is that of the whole
    response, for a response is one action (a bandit). In the first step on a rollout the ratio is 1, and the gradient is
    eq. 8's; afterwards the clip keeps it near, as in TRL.

    Args:
        samples_per_prompt: k; 4 (the paper compares 2 and 4).
        n_epochs: passes over each rollout; 1.
        clip_range: epsilon of the response's ratio; 0.2. A float or a schedule.
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
        samples_per_prompt: int = 4,
        clip_range: float | Schedule = 0.2,
        **kwargs: Any,
    ):
        self.check_at_least_two(samples_per_prompt)
        self.clip_range = clip_range
        super().__init__(policy, env, learning_rate, samples_per_prompt=samples_per_prompt, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.clip_range = FloatSchedule(self.clip_range)

    def compute_advantages(self, buffer: EpisodeBuffer) -> None:
        """Returns less the mean of the group's others, the same for all tokens of a response."""
        returns = buffer.sum_per_episode(buffer.rewards).astype(np.float64)
        buffer.advantages = buffer.spread(leave_one_out(returns, buffer.groups))
        buffer.returns = buffer.spread(returns)

    def loss(self, batch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The clipped surrogate of whole responses: their mean over the minibatch."""
        clip_range = self.clip_range(self._current_progress_remaining)  # type: ignore[operator]
        _, log_probs, entropies = self.evaluate(batch)
        rows, n = batch.sequences.rows, len(batch.sequences.ids)
        policy_loss = (
            clipped_surrogate(
                sum_per_sequence(log_probs, rows, n),
                sum_per_sequence(batch.old_log_probs, rows, n),
                sum_per_sequence(batch.advantages / batch.lengths, rows, n),
                clip_range,
            )
            / batch.n_episodes
        )
        stats = {"policy_gradient_loss": policy_loss.detach()} | ratio_stats(
            log_probs, batch.old_log_probs, clip_range, batch.n_tokens
        )
        return self.add_entropy_bonus(policy_loss, stats, entropies, batch.n_tokens), stats
