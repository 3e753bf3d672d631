"""TRL 1.12's PPOTrainer, the last that TRL had, on the same tokens: policy, value model and reference, each a trunk.

It runs in a Python of its own (`benchmarks.throughput.other_python`), so nothing of ours that needs more is imported here.
"""

import os
import tempfile
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import TrainerCallback

from benchmarks.throughput.contender import Rounds, watch_dtype
from benchmarks.throughput.setting import Setting, make_model, make_prompts, make_tokenizer, make_value_model


class Over(Exception):
    """Raised where the trainer would begin another iteration and no round is left: it has no other way to be stopped."""


class OneIterationPerRound(TrainerCallback):
    """Holds the trainer between two iterations until the next round is due."""

    def __init__(self, rounds: Rounds):
        self.rounds = rounds

    def wait(self, *args: Any, **kwargs: Any) -> None:
        if not self.rounds.next():
            raise Over

    on_train_begin = on_step_end = wait


class TrivialReward(nn.Module):
    """A reward model as the trainer wants it, a backbone and a head, that costs nothing but varies: the last token's last
    digit."""

    base_model_prefix = "backbone"

    def backbone(self, input_ids: Tensor, **kwargs: Any) -> SimpleNamespace:
        return SimpleNamespace(hidden_states=[input_ids[..., None]])

    def score(self, hidden: Tensor) -> Tensor:
        return hidden % 10 / 10


def iteration(setting: Setting, rounds: Rounds, dtype: str) -> None:
    """One whole iteration: generation, log-probabilities, reference, values, advantages, update.

    One batch is all episodes and is cut into minibatches; TRL's other way, gradient accumulation, would make one optimiser
    step of an epoch. Its ``bf16=True`` does nothing here: accelerate reads the precision from the environment, and
    applies it to the update.
    """
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if dtype == "bfloat16" else "no"
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    rounds.units = setting.episodes
    tokenizer = make_tokenizer(setting)
    value_model = make_value_model(setting)
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = dict(
            output_dir=folder,
            per_device_train_batch_size=setting.episodes,
            num_mini_batches=setting.episodes // setting.minibatch,
            num_ppo_epochs=setting.epochs,
            total_episodes=1_000_000 * setting.episodes,
            response_length=setting.response,
            temperature=1.0,
            learning_rate=setting.learning_rate,
            lr_scheduler_type="constant",
            gradient_checkpointing=False,
            num_sample_generations=0,
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        prompts = tokenizer(make_prompts(setting))["input_ids"]
        trainer = PPOTrainer(
            args=PPOConfig(**options),
            processing_class=tokenizer,
            model=make_model(setting),
            ref_model=None,
            reward_model=TrivialReward(),
            value_model=value_model,
            train_dataset=Dataset.from_dict({"input_ids": prompts}),
            eval_dataset=Dataset.from_dict({"input_ids": prompts[:1]}),
            callbacks=[OneIterationPerRound(rounds)],
        )
        watch_dtype(trainer.policy_model, rounds.facts, "dtype")
        watch_dtype(trainer.value_model, rounds.facts, "value dtype")
        torch.manual_seed(0)
        with suppress(Over):
            trainer.train()
