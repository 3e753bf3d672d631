"""The first half of an iteration: whole episodes, their scores, and what the update needs to know of them."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from agents import processes
from agents.checks import check_groups, check_rollout
from agents.envs import common_attribute
from agents.episodes import EpisodeBuffer
from agents.kl import KLController
from agents.lm import LanguageModel, kept_casts
from agents.lora import adds_nothing
from agents.losses import kl_estimate
from agents.memory import give_back_freed
from agents.policy import CausalLMPolicy
from agents.resume import ResumableAlgorithm
from agents.sampling import right_padded
from agents.slots import LeftPaddedBatch, Slots
from reward_models.sharding import assembled
from text_envs.sb3 import TextVecEnv

REST = -1  # the action of a row that is not to move
# New prompts are encoded together: one forward pass for several is cheaper than one for each.
REFILL_GROUP = 8


class EpisodeCollection(ResumableAlgorithm, OnPolicyAlgorithm):
    """``collect_rollouts`` for text: a rollout is a number of complete episodes, scored in one batch."""

    policy: CausalLMPolicy  # type: ignore[assignment]
    reference: LanguageModel
    reference_model: Any
    reference_kwargs: dict[str, Any] | None
    rollout_buffer: EpisodeBuffer  # type: ignore[assignment]
    kl_controller: KLController
    kl_estimator: str
    missing_eos_penalty: float
    score_clip: float | None
    batch_size: int
    micro_batch_size: int | None
    max_tokens_per_batch: int | None
    samples_per_prompt: int
    kl_in_reward: bool = True
    _slots: Slots | LeftPaddedBatch | None = None

    def compute_advantages(self, buffer: EpisodeBuffer) -> None:
        """Fill ``buffer.advantages`` and ``buffer.returns`` from its ``rewards`` and ``values``; shape [actions]."""
        raise NotImplementedError

    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: EpisodeBuffer, n_rollout_steps: int
    ) -> bool:
        """Generate exactly ``n_rollout_steps`` whole episodes, score them, and prepare them for ``train``.

        Sub-environments whose turn is over rest, so no token is generated that is not used. Returns False if the callback
        or ``stop`` ended it early. Each process has its own episodes; what is logged is of all.
        """
        self._moment, self.update = self.moment(), None
        with self._may_be_interrupted():
            callback.on_rollout_start()
            with assembled(self.policy):
                return self._collect(env, callback, rollout_buffer, n_rollout_steps)

    def _collect(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: EpisodeBuffer, n_rollout_steps: int
    ) -> bool:
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        give_back_freed()
        # An attribute, for callbacks would keep a local name, and with it the cache, through the update.
        self._slots = self.policy.slots(env.num_envs)
        number = np.arange(
            env.num_envs
        )  # the number of each row's episode, in the order in which they were started
        can_rest, refill_group = getattr(env, "can_rest", False), min(REFILL_GROUP, max(1, env.num_envs // 4))
        if self._last_obs is None:
            self._last_obs = env.reset()  # type: ignore[assignment]
        masks_actions = bool(common_attribute(env, "masks_actions", False))
        active = np.arange(env.num_envs) < n_rollout_steps
        starting = active.copy()
        n_started, n_steps, n_before = int(active.sum()), 0, self.num_timesteps
        is_complete = True
        with deferred_scores(env) as collect_scores, kept_casts():
            while active.any():
                running = active & ~starting
                if not can_rest or not running.any() or (starting & active).sum() >= refill_group:
                    running = active
                rows = np.flatnonzero(running)
                ids, lengths = right_padded(self._last_obs["input_ids"], self._last_obs["attention_mask"])  # type: ignore
                legal = np.stack(env.env_method("action_masks"))[rows] if masks_actions else None
                legal = self.policy.legal_tokens(self._slots, ids, lengths, rows, legal)
                tokens, values, log_probs = self.policy.act(self._slots, ids, lengths, rows, legal)
                actions = np.full(env.num_envs, REST if can_rest else 0, dtype=np.int64)
                actions[rows] = tokens.cpu().numpy()

                new_obs, rewards, dones, infos = env.step(actions)

                n_steps += 1
                self.num_timesteps += len(rows)
                callback.update_locals(locals())
                if not callback.on_step() or self.stop_requested:
                    is_complete = False
                    break
                rollout_buffer.add(rows, lengths[rows], log_probs.cpu().numpy(), rewards[rows], legal)
                starting[rows] = dones[rows]
                for row in rows[dones[rows]]:
                    sequence = np.append(ids[row, : lengths[row]], actions[row])
                    group = number[row] // self.samples_per_prompt
                    rollout_buffer.finish(row, sequence, infos[row].get("completion"), group)
                    active[row] = n_started < n_rollout_steps
                    number[row] = n_started
                    n_started += int(active[row])
                self._last_obs = new_obs  # type: ignore[assignment]
                self._last_episode_starts = dones
            self.num_timesteps = n_before + int(processes.total(self.num_timesteps - n_before))
            if processes.anywhere(not is_complete):
                self._last_obs = None  # episodes cut short are thrown away, not continued
                return False
            if not can_rest or self.samples_per_prompt > 1:
                # Rows whose turn was over had to go on, or hold prompts of a group that is over: they start anew.
                self._last_obs = None
            for episode, score in zip(rollout_buffer.episodes, collect_scores()):
                episode.score += float(score)
                episode.rewards[-1] += score

        self._slots = None
        self._prepare(rollout_buffer)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _prepare(self, buffer: EpisodeBuffer) -> None:
        """All that ``train`` needs to know of the episodes, and the log."""
        buffer.close()
        check_groups(buffer, self.samples_per_prompt)
        self._evaluate(buffer)
        self._assign_rewards(buffer)
        self.compute_advantages(buffer)
        self._record_rollout(buffer)

    @torch.no_grad()
    def _evaluate(self, buffer: EpisodeBuffer) -> None:
        """Log-probabilities, values and entropies in the numerics of the update, and the reference's log-probabilities."""
        size = self.micro_batch_size or self.batch_size
        for indices in buffer.in_order_of_length(size, self.max_tokens_per_batch):
            batch, tokens = buffer.sequences(indices), buffer.tokens_of(indices)
            values, log_probs, entropies = self.policy.evaluate_sequences(batch, entropies=True)
            assert entropies is not None
            buffer.values[tokens] = values.cpu().numpy()
            buffer.log_probs[tokens] = log_probs.cpu().numpy()
            buffer.entropies[tokens] = entropies.cpu().numpy()
            buffer.ref_log_probs[tokens] = self.reference.token_log_probs(batch)[0].cpu().numpy()
        error = processes.mean(np.abs(buffer.sampled_log_probs - buffer.log_probs))
        self.logger.record("rollout/log_prob_error", error)  # nats; rounding, unless sampling differs
        if self._n_updates == 0:
            tolerance = 1e-3 if self.policy.lm.dtype == torch.float32 else 0.1
            starts_as_policy = self.reference_model is None and adds_nothing(self.policy.lm.model)
            check_rollout(buffer, starts_as_policy, tolerance, self.reference_tolerance)

    @property
    def reference_tolerance(self) -> float:
        """Nats per token, on average, by which a reference that is the policy's own copy may differ from it: only one that
        is held otherwise may, by rounding."""
        return 0.1 if self.reference_kwargs else 0.0

    def _assign_rewards(self, buffer: EpisodeBuffer) -> None:
        """Per token -kl_coef * KL, unless the loss holds it; on an episode's last token also the score, clipped, less the
        missing-EOS penalty."""
        kl = kl_estimate(buffer.log_probs, buffer.ref_log_probs, self.kl_estimator)
        buffer.rewards[:] = np.concatenate([episode.rewards for episode in buffer.episodes])
        last = buffer.offsets[1:] - 1
        if self.score_clip is not None:
            buffer.rewards[last] = np.clip(buffer.rewards[last], -self.score_clip, self.score_clip)
        unfinished = np.array(
            [e.completion is not None and e.completion.finish_reason == "length" for e in buffer.episodes]
        )
        if self._episodes_can_end:
            buffer.rewards[last] -= self.missing_eos_penalty * unfinished
            self.logger.record("rollout/eos_rate", 1 - processes.mean(unfinished))
        if self.kl_in_reward:
            buffer.rewards -= self.kl_controller.coef * kl
        for name, estimator in (("objective/kl", "k1"), ("objective/kl_k3", "k3")):
            nats = buffer.sum_per_episode(kl_estimate(buffer.log_probs, buffer.ref_log_probs, estimator))
            self.logger.record(name, processes.mean(nats))
            if estimator == "k1":
                for episode, episode_nats in zip(buffer.episodes, nats):
                    episode.kl = float(episode_nats)
        self.logger.record("objective/kl_coef", self.kl_controller.coef)
        self.logger.record("objective/rlhf_reward", processes.mean(buffer.sum_per_episode(buffer.rewards)))
        self.kl_controller.update(processes.mean(buffer.sum_per_episode(kl)), len(buffer.all_lengths))

    @property
    def _episodes_can_end(self) -> bool:
        """Whether an episode can end before its length limit: else a missing EOS is nobody's fault."""
        assert self.env is not None
        return bool(
            common_attribute(self.env, "eos_token_ids", (-1,)) or common_attribute(self.env, "stop", ())
        )

    def _record_rollout(self, buffer: EpisodeBuffer) -> None:
        assert self.ep_info_buffer is not None
        elapsed = time.time() - self.start_time / 1e9
        scores = processes.together(np.array([episode.score for episode in buffer.episodes]))
        self.ep_info_buffer.extend(
            {"r": score, "l": length, "t": elapsed}
            for score, length in zip(scores.tolist(), buffer.all_lengths.tolist())
        )
        self.logger.record("objective/scores", float(scores.mean()))
        self.logger.record("objective/scores_std", float(scores.std()))
        self.logger.record("objective/entropy", processes.mean(buffer.entropies))
        assert self.env is not None
        counts: Counter[str] = Counter()
        for of_one in processes.of_all(self._reward_counts()):
            counts.update(of_one)
        for name, count in counts.items():
            self.logger.record(f"reward_model/{name}", count)


@contextmanager
def deferred_scores(env: VecEnv) -> Iterator[Callable[[], Iterable[float]]]:
    """Let an environment that can hold its scores back do so, and yield the function that has them all judged in one call."""
    if not isinstance(env, TextVecEnv):
        yield list
        return
    before, env.defer_scores = env.defer_scores, True
    try:
        yield env.collect_scores
    finally:
        env.defer_scores = before
        env.discard_scores()  # of a rollout that was cut short
