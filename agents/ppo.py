"""Proximal policy optimisation on whole episodes of text."""

from typing import Any

import torch
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor

from agents.advantages import gae, whiten
from agents.episodes import EpisodeBuffer, Minibatch
from agents.losses import clipped_surrogate, ratio_stats, value_loss
from agents.on_policy import OnPolicyTextAlgorithm
from agents.policy import CausalLMPolicy


class TextPPO(OnPolicyTextAlgorithm):
    """PPO (Schulman et al. 2017) for a causal LM and a value head, kept near a reference by a KL penalty in the reward
    (Ziegler et al. 2019; Stiennon et al. 2020; Ouyang et al. 2022), with Stable-Baselines3's interface.

    Each rollout is ``n_episodes`` whole episodes. The reward of a token is ``-kl_coef * KL``, that of the last one also the
    score. The loss is Stable-Baselines3's, token for token: clipped surrogate, clipped squared value error, entropy bonus;
    but a minibatch is ``batch_size`` whole episodes, each encoded once.

    Args:
        policy: "CausalLMPolicy" or a subclass of it; its options go into ``policy_kwargs`` (``model``, ``lora``,
            ``value_model``, ``temperature``, ``dtype``). Without ``model`` the environment's ``default_model`` is used.
        env: an environment, an id, or a vector environment; one of Gymnasium's must reset in the same step
            (``AutoresetMode.SAME_STEP``), which is not its default.
        learning_rate: a float (constant, as in Stable-Baselines3), a schedule, or None: linear to 0 from
            1e-5 * sqrt(124e6 / parameters), at most 3e-4; ten times that for a LoRA adapter.
        n_episodes: episodes per rollout; 64 is Ouyang et al.'s order divided to fit a laptop (they use 512). Of several
            processes each plays as many.
        batch_size: episodes per minibatch.
        n_epochs: passes over each rollout; 4 as in Ziegler et al. 2019 and Stiennon et al. 2020.
        gamma: discount; 1.0, for only the end is rewarded (Ziegler et al. 2019).
        gae_lambda: 0.95 (Schulman et al. 2016; Ziegler et al. 2019).
        clip_range: of the probability ratio; 0.2 (Schulman et al. 2017, table 3). A float or a schedule.
        clip_range_vf: of the value's step, in units of the return; 0.2 (Ziegler et al. 2019's code). None switches it off.
        ent_coef: weight of the entropy bonus; 0, as usual for language models.
        vf_coef: weight of the value loss; 0.1 (Ziegler et al. 2019; Stiennon et al. 2020).
        max_grad_norm: 1.0.
        kl_coef: weight beta of the KL penalty, per token; 0.05.
        kl_target: nats per sequence; if given, beta adapts so that the KL settles there (Ziegler et al. 2019, section 2.2,
            with target 6), over ``kl_horizon`` episodes.
        kl_estimator: "k1", "k2" or "k3" (Schulman 2020) in the reward. The log shows k1 as ``objective/kl`` (TRL's) and k3 as
            ``objective/kl_k3``: k3 varies less while the policy is near its reference, and more when it is far.
        missing_eos_penalty: subtracted from the score of a response that reached the length limit; 1.0 (Stiennon et al.
            2020; TRL). Not applied where no episode can end earlier.
        score_clip: scores are clipped to ± this; 10. None switches it off.
        whiten_advantages: to mean 0 and deviation 1 over the rollout's tokens.
        target_kl: stops a rollout's update when approx_kl exceeds 1.5 times this, as in Stable-Baselines3.
        reference_model: what to stay near; None: a frozen copy of the policy as it starts.
        reference_kwargs: how it is held: dict(dtype="bfloat16") takes half the memory, at the price of rounding: its
            log-probabilities are off by some 0.02 nats per token, so the KL does not start at exactly 0; dict(device=...)
            puts it on another device.
        micro_batch_size: episodes per forward pass; changes memory, not the result.
        max_tokens_per_batch: tokens per forward pass, padding, prompts and responses counted; changes memory, not the
            result. An episode that is longer stands alone.
        samples_per_prompt: episodes in which each prompt of a rollout is answered.
        n_envs: sub-environments that a single environment or id is turned into, in each process; None: as many as it plays
            episodes, at most 64.
        stats_window_size, tensorboard_log, policy_kwargs, verbose, seed, device: as in Stable-Baselines3.

    Raises:
        ValueError: for arguments that do not fit one another, the environment, or the model.
    """

    saved_attributes = (*OnPolicyTextAlgorithm.saved_attributes, "whiten_advantages")
    saved_schedules = (*OnPolicyTextAlgorithm.saved_schedules, "clip_range", "clip_range_vf")

    def __init__(
        self,
        policy: str | type[CausalLMPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule | None = None,
        n_episodes: int = 64,
        batch_size: int = 16,
        n_epochs: int = 4,
        gamma: float = 1.0,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = 0.2,
        ent_coef: float = 0.0,
        vf_coef: float = 0.1,
        max_grad_norm: float = 1.0,
        kl_coef: float = 0.05,
        kl_target: float | None = None,
        kl_horizon: float = 10_000,
        kl_estimator: str = "k1",
        missing_eos_penalty: float = 1.0,
        score_clip: float | None = 10.0,
        whiten_advantages: bool = True,
        target_kl: float | None = None,
        reference_model: Any = None,
        reference_kwargs: dict[str, Any] | None = None,
        micro_batch_size: int | None = None,
        max_tokens_per_batch: int | None = None,
        samples_per_prompt: int = 1,
        n_envs: int | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        self.check_shares(gamma=gamma, gae_lambda=gae_lambda)
        super().__init__(
            policy=policy,
            env=env,
            learning_rate=learning_rate,
            n_episodes=n_episodes,
            batch_size=batch_size,
            micro_batch_size=micro_batch_size,
            max_tokens_per_batch=max_tokens_per_batch,
            n_epochs=n_epochs,
            samples_per_prompt=samples_per_prompt,
            ent_coef=ent_coef,
            max_grad_norm=max_grad_norm,
            kl_coef=kl_coef,
            kl_target=kl_target,
            kl_horizon=kl_horizon,
            kl_estimator=kl_estimator,
            missing_eos_penalty=missing_eos_penalty,
            score_clip=score_clip,
            target_kl=target_kl,
            reference_model=reference_model,
            reference_kwargs=reference_kwargs,
            n_envs=n_envs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.gamma = gamma
        self.gae_lambda = gae_lambda
        self.clip_range = clip_range
        self.clip_range_vf = clip_range_vf
        self.vf_coef = vf_coef
        self.whiten_advantages = whiten_advantages
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        self.clip_range = FloatSchedule(self.clip_range)
        if self.clip_range_vf is not None:
            self.clip_range_vf = FloatSchedule(self.clip_range_vf)

    def compute_advantages(self, buffer: EpisodeBuffer) -> None:
        """Generalized advantage estimation, then whitening over the rollout."""
        advantages, returns = gae(
            buffer.padded(buffer.rewards),
            buffer.padded(buffer.values),
            buffer.mask,
            self.gamma,
            self.gae_lambda,
        )
        buffer.advantages, buffer.returns = buffer.flat(advantages), buffer.flat(returns)
        if self.whiten_advantages:
            buffer.advantages = whiten(buffer.advantages)

    def loss(self, batch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Clipped surrogate + vf_coef * value loss - ent_coef * entropy: means over the minibatch's tokens."""
        clip_range, clip_range_vf = self._clip_ranges()
        values, log_probs, entropies = self.evaluate(batch)
        policy_loss = (
            clipped_surrogate(log_probs, batch.old_log_probs, batch.advantages, clip_range) / batch.n_tokens
        )
        critic_loss = value_loss(values, batch.old_values, batch.returns, clip_range_vf) / batch.n_tokens
        loss = policy_loss + self.vf_coef * critic_loss
        stats = {"policy_gradient_loss": policy_loss.detach(), "value_loss": critic_loss.detach()}
        loss = self.add_entropy_bonus(loss, stats, entropies, batch.n_tokens)
        return loss, stats | ratio_stats(log_probs, batch.old_log_probs, clip_range, batch.n_tokens)

    def _clip_ranges(self) -> tuple[float, float | None]:
        progress = self._current_progress_remaining
        clip_range_vf = None if self.clip_range_vf is None else self.clip_range_vf(progress)  # type: ignore[operator]
        return self.clip_range(progress), clip_range_vf  # type: ignore[operator]

    def train(self) -> None:
        """Update policy and critic from the last rollout."""
        super().train()
        if self.update is not None:  # it was cut short
            return
        clip_range, clip_range_vf = self._clip_ranges()
        self.logger.record("train/clip_range", clip_range)
        if clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", clip_range_vf)

    def learn(  # type: ignore[override]
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "TextPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> "TextPPO":
        return super().learn(
            total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar
        )
