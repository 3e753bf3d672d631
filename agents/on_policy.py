"""What all on-policy text algorithms share: roll out whole episodes, judge them, learn from them."""

import sys
import time
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import LinearSchedule, safe_mean
from stable_baselines3.common.vec_env import VecEnv

from agents import critics, processes, sharding
from agents.callbacks import callbacks_of_this_process
from agents.checks import check_counts, check_schedules
from agents.envs import as_vec_env, common_attribute
from agents.episodes import EpisodeBuffer
from agents.kl import KLController
from agents.loading import load_causal_lm
from agents.lora import has_adapter
from agents.losses import kl_estimate
from agents.persistence import MAX_ENVS, CheckpointedAlgorithm
from agents.policy import CausalLMPolicy, check_spaces
from agents.reference import make_reference
from agents.rollouts import EpisodeCollection
from agents.updates import EpisodeUpdate
from text_envs.sb3 import TextVecEnv


class OnPolicyTextAlgorithm(CheckpointedAlgorithm, EpisodeCollection, EpisodeUpdate):  # type: ignore[misc]
    """Stable-Baselines3's ``OnPolicyAlgorithm`` for language models: a rollout is ``n_episodes`` complete episodes.

    An algorithm is its advantage function (``compute_advantages``) and its loss (``loss``); everything else is here.

    Args:
        samples_per_prompt: episodes that each prompt of a rollout is answered in, for algorithms that compare them; the rest
            as in `agents.TextPPO`.

    Attributes:
        uses_critic: class attribute; without one the policy has no value head, and all values are 0.
        kl_in_reward: whether each token's reward holds ``-kl_coef * KL``; else the loss does.
    """

    policy_aliases: ClassVar[dict[str, Any]] = {"CausalLMPolicy": CausalLMPolicy}

    def __init__(
        self,
        policy: str | type[CausalLMPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule | None = None,
        n_episodes: int = 64,
        batch_size: int = 16,
        micro_batch_size: int | None = None,
        max_tokens_per_batch: int | None = None,
        n_epochs: int = 1,
        samples_per_prompt: int = 1,
        ent_coef: float = 0.0,
        max_grad_norm: float = 1.0,
        kl_coef: float = 0.05,
        kl_target: float | None = None,
        kl_horizon: float = 10_000,
        kl_estimator: str = "k1",
        missing_eos_penalty: float = 1.0,
        score_clip: float | None = 10.0,
        target_kl: float | None = None,
        reference_model: Any = None,
        reference_kwargs: dict[str, Any] | None = None,
        n_envs: int | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        own_name = type(self).__name__
        check_counts(
            own_name, n_episodes=n_episodes, batch_size=batch_size, micro_batch_size=micro_batch_size, n_epochs=n_epochs,
            samples_per_prompt=samples_per_prompt, n_envs=n_envs, max_tokens_per_batch=max_tokens_per_batch,
        )  # fmt: skip
        if n_episodes % samples_per_prompt:
            raise ValueError(
                f"n_episodes is {n_episodes}, samples_per_prompt {samples_per_prompt}: in {own_name}. A rollout holds whole "
                "groups: make n_episodes a multiple."
            )
        self.check_positive(score_clip=score_clip, target_kl=target_kl, max_grad_norm=max_grad_norm)
        if env is not None:
            env = as_vec_env(env, n_envs or min(max(1, n_episodes // processes.count()), MAX_ENVS))
            check_spaces(env.observation_space, env.action_space)
        super().__init__(
            policy=policy,  # type: ignore[arg-type]
            env=env,  # type: ignore[arg-type]
            learning_rate=learning_rate,  # type: ignore[arg-type]
            n_steps=n_episodes,
            gamma=1.0,
            gae_lambda=1.0,
            ent_coef=ent_coef,
            vf_coef=0.0,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.n_episodes = n_episodes
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.max_tokens_per_batch = max_tokens_per_batch
        self.n_epochs = n_epochs
        self.samples_per_prompt = samples_per_prompt
        self.kl_controller = KLController(kl_coef, kl_target, kl_horizon)
        self.kl_estimator = kl_estimator
        kl_estimate(np.zeros(1), np.zeros(1), kl_estimator)  # raises for an unknown name
        self.missing_eos_penalty = missing_eos_penalty
        self.score_clip = score_clip
        self.target_kl = target_kl
        self.reference_model = reference_model
        self.reference_kwargs = reference_kwargs
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if getattr(self, "observation_space", None) is None:
            own_name = type(self).__name__
            raise ValueError(
                f"env is None: in {own_name}. Give an environment or its id; {own_name}.load needs none."
            )
        n_groups = self.n_episodes // self.samples_per_prompt
        processes.share(n_groups, "n_episodes / samples_per_prompt", type(self).__name__)
        processes.check_device(self.device)
        self.set_random_seed(self.seed)
        model = self.policy_kwargs.get("model")
        if model is None and self.env is not None:
            model = common_attribute(self.env, "default_model")
        length, vocab_size = self.observation_space["input_ids"].shape[0], int(self.action_space.n)  # type: ignore
        lm = load_causal_lm(model, vocab_size, length)
        if self.learning_rate is None:
            adapted = has_adapter(lm) or self.policy_kwargs.get("lora") is not None
            self.learning_rate = LinearSchedule(default_learning_rate(lm.num_parameters(), adapted), 0.0, 1.0)
        check_schedules(type(self).__name__, **{name: getattr(self, name) for name in self.saved_schedules})
        self._setup_lr_schedule()
        kwargs = self.policy_kwargs | {"model": lm}
        self._check_critic(kwargs.get("value_model"))
        if kwargs.get("value_model") == critics.NAME and self.env is not None:
            kwargs["reward_model"] = critics.fitting_reward_model(kwargs.get("reward_model"), self.env)
        if not self.uses_critic:
            kwargs["value_model"] = "none"
        self.policy = self.policy_class(
            self.observation_space, self.action_space, self.lr_schedule, **kwargs
        ).to(self.device)  # type: ignore
        processes.share_weights(self.policy)
        self._copy_policy()
        if sharding.is_asked_for():
            sharding.shard(self.policy)
        self.rollout_buffer = EpisodeBuffer(getattr(self, "n_envs", 1), length, vocab_size, self.device)

    def _copy_policy(self) -> None:
        """Make what is made of the whole policy, before it may be sharded."""
        self.reference = make_reference(
            self.policy.lm,
            self.reference_model,
            self.reference_kwargs,
            self.policy.max_length,
            self.device,
            type(self).__name__,
        )

    def _check_critic(self, value_model: str | None) -> None:
        if value_model is not None and (value_model == "none") == self.uses_critic:
            mend = (
                "It learns a critic: choose shared or separate." if self.uses_critic else "It has no critic."
            )
            raise ValueError(f"value_model is {value_model!r}: in {type(self).__name__}. {mend}")

    def _get_policy_from_name(self, policy_name: str) -> type[CausalLMPolicy]:  # type: ignore[override]
        if policy_name not in self.policy_aliases:
            raise ValueError(
                f"Policy {policy_name!r} is not known: in {type(self).__name__}. Give 'CausalLMPolicy', or a subclass of it."
            )
        return self.policy_aliases[policy_name]

    def predict(  # type: ignore[override]
        self,
        observation: dict[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """As Stable-Baselines3's, and sb3-contrib's where it gives ``action_masks``: see `CausalLMPolicy.predict`."""
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        # Episodes, their scores and lengths are counted here, so no Monitor is needed.
        return as_vec_env(env)

    def check_shares(self, **shares: float) -> None:
        """Raise ValueError for a share outside 0 to 1."""
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}: in {type(self).__name__}. It must be from 0 to 1.")

    def check_positive(self, **values: float | None) -> None:
        """Raise ValueError for a value that is given and not above 0."""
        for name, value in values.items():
            if value is not None and not value > 0:
                raise ValueError(
                    f"{name} is {value}: in {type(self).__name__}. It must be above 0, or None where it can be off."
                )

    def check_at_least_two(self, samples_per_prompt: int) -> None:
        """Raise ValueError for groups of one."""
        if samples_per_prompt < 2:
            raise ValueError(
                f"samples_per_prompt is {samples_per_prompt}: in {type(self).__name__}. Responses are compared with others "
                "to the same prompt: give 2 or more."
            )

    @property
    def max_new_tokens(self) -> int:
        """The longest response in tokens; where the environment does not say, the longest of the rollout."""
        assert self.env is not None
        return int(common_attribute(self.env, "max_new_tokens", self.rollout_buffer.lengths.max()))

    # --- the loop ---------------------------------------------------------------------------------------------------

    def learn(  # type: ignore[override]
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "OnPolicyTextAlgorithm",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ):
        """Train until at least ``total_timesteps`` tokens were generated, in rollouts of ``n_episodes`` episodes.

        With ``reset_num_timesteps=False`` it goes on: after a ``load`` exactly as the saved run would have, after ``stop``
        first with the update that was cut short.

        Of several processes (`agents.processes`) all call it; callbacks and loggers are the first one's alone, but for
        callbacks whose ``in_every_process`` is true.
        """
        callback = callbacks_of_this_process(callback)
        progress_bar = progress_bar and processes.is_first()
        if not processes.is_first():
            self.set_logger(Logger(None, []))
        self.stop_requested = self.torn = False
        self._share_prompts()
        moment = self._loaded_moment(reset_num_timesteps)
        if moment is not None:
            self._resume_environment(moment)
        elif reset_num_timesteps or self.update is None:
            self.update, self.iteration = None, 0
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        self._callback = callback
        callback.on_training_start(locals(), globals())
        if moment is not None:
            self._resume_rest(moment, callback)
        assert self.env is not None
        while (self.update is not None or self.num_timesteps < total_timesteps) and not self._is_to_stop():
            if self.update is None:
                # Before the rollout, unlike Stable-Baselines3: a schedule that falls to 0 still has the last update learn.
                self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
                if not self.collect_rollouts(self.env, callback, self.rollout_buffer, self.n_own_episodes):  # type: ignore[arg-type]
                    break
            self.train()
            if self.update is not None:
                break
            self.iteration += 1
            if log_interval is not None and self.iteration % log_interval == 0:
                self.dump_logs(self.iteration)
        was_cut_short = self.update is not None or self.num_timesteps < total_timesteps
        if was_cut_short and self._moment is None:
            self._moment = self.moment()  # before callbacks take this for the end and write their last rows
        callback.on_training_end()
        return self

    def _share_prompts(self) -> None:
        """Let the environment deal each prompt ``samples_per_prompt`` times."""
        if self.samples_per_prompt == 1:
            return
        if not isinstance(self.env, TextVecEnv):
            raise ValueError(
                f"samples_per_prompt is {self.samples_per_prompt}: in {type(self).__name__}, on a "
                f"{type(self.env).__name__}. Only text_envs' own vector environment deals a prompt several times: give the "
                "id, a bare environment, or gymnasium.make_vec(id, num_envs=...)."
            )
        self.env.set_attr("samples_per_prompt", self.samples_per_prompt)

    def stop(self) -> None:
        """Ask ``learn`` to return at the next opportunity: after a token, or between two optimiser steps.

        What an interrupted rollout had generated is thrown away. An interrupted update is finished by the next ``learn``
        that does not reset the count, also in another process after ``save`` and ``load``.
        """
        self.stop_requested = True

    # --- the log ---

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the log, under Stable-Baselines3's names."""
        assert self.ep_info_buffer is not None
        elapsed = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        self.logger.record("time/iterations", iteration, exclude="tensorboard")
        self.logger.record("rollout/ep_rew_mean", safe_mean([info["r"] for info in self.ep_info_buffer]))
        self.logger.record("rollout/ep_len_mean", safe_mean([info["l"] for info in self.ep_info_buffer]))
        self.logger.record("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / elapsed))
        self.logger.record("time/time_elapsed", elapsed, exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)


def default_learning_rate(n_parameters: int, adapter: bool = False) -> float:
    """1e-5 for GPT-2 (124 M parameters), growing with the square root as models shrink, at most 3e-4; tenfold for an adapter.

    A rule of thumb through settings that worked: 3e-6 for 1 B (TRL's PPO), 1e-5 for GPT-2, 2e-4 for 0.3 M (ours). LoRA's best
    rate is ten times that of all weights (Schulman et al. 2025, "LoRA Without Regret").
    """
    return min(3e-4, 1e-5 * (124e6 / n_parameters) ** 0.5) * (10 if adapter else 1)
