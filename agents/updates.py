"""The second half of an iteration: optimiser steps on the episodes of a rollout."""

import math
from collections import defaultdict
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor

from agents import processes
from agents.checks import check_first_minibatch
from agents.episodes import EpisodeBuffer, Minibatch
from agents.policy import CausalLMPolicy
from agents.resume import ResumableAlgorithm, Update


class EpisodeUpdate(ResumableAlgorithm, OnPolicyAlgorithm):
    """``train`` for text: minibatches of whole episodes, in micro-batches, each an optimiser step."""

    policy: CausalLMPolicy  # type: ignore[assignment]
    rollout_buffer: EpisodeBuffer  # type: ignore[assignment]
    n_epochs: int
    batch_size: int
    micro_batch_size: int | None
    max_tokens_per_batch: int | None
    target_kl: float | None
    ent_coef: float
    uses_critic: ClassVar[bool] = True

    def loss(self, batch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The part of the minibatch's loss that ``batch`` holds, divided by its ``n_tokens`` or ``n_episodes``; and sums for
        the log, ``approx_kl`` and ``clip_fraction`` among them."""
        raise NotImplementedError

    def evaluate(self, batch: Minibatch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values, log-probabilities and, where ``ent_coef`` wants them, entropies of the minibatch's tokens."""
        return self.policy.evaluate_sequences(batch.sequences, entropies=self.ent_coef != 0.0)

    def add_entropy_bonus(
        self, loss: Tensor, stats: dict[str, Tensor], entropies: Tensor | None, n_tokens: int
    ) -> Tensor:
        """``loss - ent_coef * entropy``, the mean over the minibatch's ``n_tokens``; ``stats`` gains ``entropy_loss``."""
        if entropies is None:
            return loss
        stats["entropy_loss"] = -entropies.detach().sum() / n_tokens
        return loss - self.ent_coef * entropies.sum() / n_tokens

    def train(self) -> None:
        """``n_epochs`` passes over the rollout in minibatches of ``batch_size`` episodes.

        Where ``stop`` ends it early, ``update`` tells how far it came; else it is None afterwards.
        """
        self._moment = None  # from here on the model rests between any two minibatches
        self.policy.set_training_mode(True)
        buffer, update = self.rollout_buffer, self.update or Update()
        self.update = update
        self._update_learning_rate(self.policy.optimizer)
        while update.epoch < self.n_epochs:
            if update.order is None:
                update.order = buffer.shuffled()
                update.log["approx_kl"] = []  # the last epoch's is logged, as in Stable-Baselines3
            rest = update.order[update.minibatch * self.batch_size :]
            for micro_batches in buffer.minibatches(
                self.batch_size, self.micro_batch_size, rest, self.max_tokens_per_batch
            ):
                if self._is_to_stop():
                    return
                self._learn_from(micro_batches, update)
                if update.epoch == self.n_epochs:  # it went too far
                    break
            else:
                update.epoch, update.order, update.minibatch = update.epoch + 1, None, 0
            self._n_updates += 1
        self._record_update(update.log)
        self.update = None

    def _learn_from(self, micro_batches: list[Minibatch], update: Update) -> None:
        """One optimiser step; none, and the end of the update, where the policy has gone too far from the rollout's."""
        optimizer, log = self.policy.optimizer, update.log
        optimizer.zero_grad()
        sums: defaultdict[str, Any] = defaultdict(float)
        with self._may_be_interrupted():
            for batch in micro_batches:
                loss, stats = self.loss(batch)
                loss.backward()
                for name, value in (stats | {"loss": loss.detach()}).items():
                    sums[name] += value
            values = dict(zip(sums, processes.total([float(value) for value in sums.values()]).tolist()))
        for name, number in values.items():
            log.setdefault(name, []).append(number)
        if update.epoch == 0 and update.minibatch == 0:
            log["initial_approx_kl"] = [values["approx_kl"]]  # 0, but for rounding: law 1 of every rollout
        if self._n_updates == 0 and update.minibatch == 0:
            tolerance = 1e-5 if self.policy.lm.dtype == torch.float32 else 1e-3
            check_first_minibatch(values["approx_kl"], values["clip_fraction"], tolerance)
        if self.target_kl is not None and values["approx_kl"] > 1.5 * self.target_kl:
            if self.verbose >= 1:
                print(f"Early stopping at epoch {update.epoch}: approx_kl is {values['approx_kl']:.3f}")
            update.epoch = self.n_epochs
            return
        norm = processes.clip_gradients(self.policy.parameters(), self.max_grad_norm)
        if not math.isfinite(norm):  # a step along it would leave a policy that can sample nothing
            raise ValueError(
                f"The gradient is {norm} after {self.num_timesteps} timesteps, in update {self._n_updates + 1}; the policy "
                "is as it was before. Lower learning_rate, and look at the scores and the KL before it."
            )
        log.setdefault("grad_norm", []).append(norm)
        self.torn = True
        optimizer.step()
        update.minibatch += 1
        self.torn = False

    def _record_update(self, log: dict[str, list[float]]) -> None:
        for name, values in log.items():
            self.logger.record(f"train/{name}", values[-1] if name == "loss" else float(np.mean(values)))
        buffer = self.rollout_buffer
        if self.ent_coef == 0.0:
            self.logger.record("train/entropy_loss", -processes.mean(buffer.entropies))
        if self.uses_critic:
            unexplained = processes.variance(buffer.returns - buffer.values)
            whole = processes.variance(buffer.returns)
            self.logger.record("train/explained_variance", 1 - unexplained / whole if whole else math.nan)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
