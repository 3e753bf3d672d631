"""TRL's RLOOTrainer on the same tokens: as many episodes, epochs and minibatches, and a reference model, but no critic."""

import tempfile
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl import RLOOConfig, RLOOTrainer

from benchmarks.throughput.contender import Rounds, watch_dtype
from benchmarks.throughput.setting import Setting, make_model, make_prompts, make_tokenizer, score_ids


class OneIterationPerRound(TrainerCallback):
    """Stops the training loop between two iterations until the next round is due."""

    def __init__(self, rounds: Rounds, steps_per_iteration: int):
        self.rounds, self.steps_per_iteration = rounds, steps_per_iteration

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        control.should_training_stop = not self.rounds.next()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step % self.steps_per_iteration == 0:
            control.should_training_stop = not self.rounds.next()


def trivial_reward(completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
    """``score_ids`` of each completion."""
    return [score_ids(ids) for ids in completion_ids]


def iteration(setting: Setting, rounds: Rounds, dtype: str) -> None:
    """One whole iteration: generation, rewards, old and reference log-probabilities, update.

    Gradient checkpointing, TRL's default, is switched off: it saves memory and costs a third more time.
    """
    rounds.units = setting.episodes
    steps = setting.epochs * setting.episodes // setting.minibatch
    tokenizer = make_tokenizer(setting)
    with tempfile.TemporaryDirectory() as folder:
        make_model(setting).save_pretrained(folder)  # the trainer reads its reference model from there
        options: dict[str, Any] = dict(
            output_dir=f"{folder}/out",
            per_device_train_batch_size=setting.minibatch,
            steps_per_generation=setting.episodes // setting.minibatch,
            num_iterations=setting.epochs,
            num_generations=2,
            max_completion_length=setting.response,
            generation_kwargs={"min_new_tokens": setting.response},
            beta=0.05,
            learning_rate=setting.learning_rate,
            lr_scheduler_type="constant",
            gradient_checkpointing=False,
            bf16=dtype == "bfloat16",
            use_cpu=setting.device == "cpu",
            max_steps=1_000_000,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = RLOOTrainer(
            model=folder,
            reward_funcs=trivial_reward,
            args=RLOOConfig(**options),
            train_dataset=Dataset.from_dict({"prompt": make_prompts(setting)}),
            processing_class=tokenizer,
            callbacks=[OneIterationPerRound(rounds, steps)],
        )
    assert trainer.model is not None
    watch_dtype(trainer.model, rounds.facts, "dtype")
    trainer.train()
