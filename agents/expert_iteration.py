"""Expert iteration: of several answers to each prompt the best is kept, and the policy is fine-tuned on it."""

from typing import Any, ClassVar

import numpy as np
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from agents import processes
from agents.episodes import EpisodeBuffer, Minibatch
from agents.losses import ratio_stats
from agents.on_policy import OnPolicyTextAlgorithm
from agents.policy import CausalLMPolicy


class TextExpertIteration(OnPolicyTextAlgorithm):
    """Best-of-n distillation, round after round: RAFT (Dong et al. 2023, "RAFT: Reward rAnked FineTuning for Generative
    Foundation Model Alignment", algorithm 1); expert iteration (Anthony et al. 2017) without a search.

    Each prompt is answered ``samples_per_prompt`` times; the ``n_best`` answers of the highest score are demonstrations,
    on which the loss is that of supervised fine-tuning: ``-log pi`` per token. Shared with PPO: only the rollout. The KL
    to the reference is measured; with ``kl_coef`` above 0 it counts in the choice (RAFT, section 3.2).

    Args:
        samples_per_prompt: n; 8.
        n_best: how many of each group are learned from; 1.
        n_epochs: passes over the chosen answers; 1.
        kl_coef: 0.0.
        policy, env, and all further arguments: as in `agents.TextPPO`.

    Raises:
        ValueError: for arguments that do not fit one another, the environment, or the model.
    """

    uses_critic: ClassVar[bool] = False
    saved_attributes = (*OnPolicyTextAlgorithm.saved_attributes, "n_best")

    def __init__(
        self,
        policy: str | type[CausalLMPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule | None = None,
        *,
        samples_per_prompt: int = 8,
        n_best: int = 1,
        kl_coef: float = 0.0,
        **kwargs: Any,
    ):
        if not 1 <= n_best < samples_per_prompt:
            raise ValueError(
                f"n_best is {n_best}, samples_per_prompt {samples_per_prompt}: in TextExpertIteration. Keep at least 1 of "
                "each group, and fewer than all."
            )
        self.n_best = n_best
        super().__init__(
            policy, env, learning_rate, samples_per_prompt=samples_per_prompt, kl_coef=kl_coef, **kwargs
        )

    def compute_advantages(self, buffer: EpisodeBuffer) -> None:
        """Choose the best of each group; of equals, those that ended first."""
        scores = buffer.sum_per_episode(buffer.rewards)
        order = np.lexsort((-scores, buffer.groups))  # groups one after another, the best of each in front
        place = np.arange(len(order)) % self.samples_per_prompt
        buffer.chosen = np.sort(order[place < self.n_best])
        is_chosen = np.isin(np.arange(len(scores)), buffer.chosen)
        buffer.advantages, buffer.returns = buffer.spread(is_chosen), buffer.spread(scores)
        self.logger.record("rollout/chosen_score", processes.mean(scores[buffer.chosen]))

    def loss(self, batch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the chosen answers: the mean over the minibatch's tokens."""
        _, log_probs, entropies = self.evaluate(batch)
        nll = -log_probs.sum() / batch.n_tokens
        stats = {"negative_log_likelihood": nll.detach()}
        stats |= ratio_stats(log_probs, batch.old_log_probs, np.inf, batch.n_tokens)
        return self.add_entropy_bonus(nll, stats, entropies, batch.n_tokens), stats
