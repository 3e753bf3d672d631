"""`transformers.Trainer` for fine-tuning that can be interrupted at any moment and goes on exactly.

The order of the demonstrations is a function of seed and epoch, and a checkpoint holds everything else that decides how
training goes on. It is one zip of JSON and safetensors, replaced atomically (`agents.checkpoint`): what Trainer writes by
itself is a folder with pickles in it.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

import torch
from torch.utils.data import Sampler
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from agents import checkpoint, processes
from agents.demonstrations import Example, collate
from agents.packing import (
    CheckpointError,
    pack_module,
    pack_optimizer,
    pack_tree,
    unpack_module,
    unpack_optimizer,
    unpack_tree,
)
from agents.response_losses import called_for_losses, is_output_of_hidden
from agents.runs import clock
from agents.states import random_state, set_random_state
from reward_models.sharding_trainer import ShardingTrainer

TRAINER_STATE = "trainer_state.json"  # where Trainer looks for it


class Progress(TrainerCallback):
    """Keeps the losses, says how it goes every few seconds, and ends training, or has it saved, when it is time.

    Attributes:
        losses: nats per response token, of each step.
        earlier: seconds of training before this process.
        stopped: whether `should_stop` ended it.
    """

    def __init__(
        self,
        should_stop: Callable[[], bool],
        file: TextIO | None,
        checkpoint_every: int | None = None,
        seconds: float = 2.0,
    ):
        self.should_stop, self.every, self.seconds = should_stop, checkpoint_every, seconds
        self.file = file if processes.is_first() else None
        self.losses: list[float] = []
        self.earlier = 0.0
        self.start = time.perf_counter()
        self.stopped = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.start = self.said = time.perf_counter()
        self.begin = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if processes.anywhere(self.should_stop()):
            self.stopped = control.should_training_stop = True
        due = self.every and state.global_step % self.every == 0
        control.should_save = self.every is not None and bool(due or self.stopped)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" not in (logs or {}):
            return
        self.losses.append(float(logs["loss"]))
        now, step, steps = time.perf_counter(), state.global_step, state.max_steps
        if self.file is not None and (now - self.said >= self.seconds or step == steps):
            self.said, elapsed = now, now - self.start
            left = f"{clock(elapsed)} + {clock(elapsed * (steps - step) / (step - self.begin))} to go"
            print(
                f"step {step:>5} of {steps}   loss {self.losses[-1]:.3f}   {left}", file=self.file, flush=True
            )

    def elapsed(self) -> float:
        """Seconds of training, those before this process included."""
        return self.earlier + time.perf_counter() - self.start


class LengthGroups(Sampler[int]):
    """Examples in batches of similar length, the batches in random order; the same order for the same seed and epoch.

    transformers' own grouping leaves the batches sorted, long ones first, fifty at a time: with the short ones a model then
    forgets how to go on.

    Attributes:
        epoch: whose order it is; 0 for the first.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, batches_per_pool: int = 50):
        self.lengths, self.batch_size, self.seed = torch.tensor(lengths), batch_size, seed
        self.pool_size = batches_per_pool * batch_size
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        shuffled = torch.randperm(len(self), generator=generator)
        pools = [pool[self.lengths[pool].argsort(stable=True)] for pool in shuffled.split(self.pool_size)]
        batches = [batch for pool in pools for batch in pool.split(self.batch_size)]
        full = [batch for batch in batches if len(batch) == self.batch_size]
        order = torch.randperm(len(full), generator=generator).tolist()
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        return iter(torch.cat([*(full[i] for i in order), *rest]).tolist())


@dataclasses.dataclass(frozen=True)
class Resumed:
    """What a checkpoint holds: how far training came, and what it goes on with."""

    state: TrainerState
    model: Mapping[str, torch.Tensor]
    optimizer: tuple[Any, Mapping[str, torch.Tensor]]
    scheduler: Mapping[str, Any]
    random: Sequence[Mapping[str, Any]]
    losses: list[float]
    seconds: float

    @classmethod
    def read(cls, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> Resumed:
        """Read a checkpoint that `ResumableTrainer` wrote, with these settings.

        Raises:
            CheckpointError: it is damaged, something else, or another training's.
        """
        members = checkpoint.read(path)
        try:
            training = members["training.json"]
            told = training["settings"]
            differing = [n for n in dict.fromkeys([*told, *settings]) if told.get(n) != settings.get(n)]
            rest = unpack_tree(training["rest"], members["rest.safetensors"])
            resumed = cls(
                TrainerState(**training["state"]),
                members["model.safetensors"],
                (training["optimizer"], members["optimizer.safetensors"]),
                rest["scheduler"],
                [rest["random"], *rest.get("random_of_others", [])],
                rest["losses"].tolist(),
                float(training["seconds"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise CheckpointError(
                f"{path} is no checkpoint of fine-tuning ({error!r}). Take another one, or begin anew."
            ) from error
        if differing:
            raise CheckpointError(
                f"{path} is the checkpoint of another training: {', '.join(differing)} differ. Go on with what it began "
                "with, or begin anew in another folder."
            )
        return resumed


class ResumableTrainer(ShardingTrainer):
    """Trainer with the order, and the checkpoints, of this module.

    Args:
        settings: what a checkpoint must agree on with this training; JSON values by name.
        checkpoint_path: where it is saved when `progress` has it saved.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        arguments: TrainingArguments,
        examples: list[Example],
        progress: Progress,
        settings: Mapping[str, Any],
        checkpoint_path: Path | None = None,
    ):
        self.progress, self.settings, self.checkpoint_path = progress, dict(settings), checkpoint_path
        lengths = [len(example["input_ids"]) for example in examples]
        self.order = LengthGroups(lengths, arguments.train_batch_size * processes.count(), arguments.seed)
        self.resumed: Resumed | None = None
        # torch's DataParallel would call the first GPU's model on all of them.
        self.by_tokens = arguments.n_gpu <= 1 and "forward" not in vars(model) and is_output_of_hidden(model)
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=examples,  # type: ignore[arg-type]
            data_collator=collate,  # type: ignore[arg-type]
            callbacks=[progress],
        )
        self.remove_callback(PrinterCallback)

    def resume(self, path: str | os.PathLike[str]) -> None:
        """As `train`, going on from a checkpoint, exactly.

        Raises:
            CheckpointError: it is damaged, or another training's; nothing of it was loaded.
        """
        self.resumed = Resumed.read(path, self.settings)
        self.progress.losses, self.progress.earlier = self.resumed.losses, self.resumed.seconds
        if self.resumed.state.global_step >= self.resumed.state.max_steps:  # Trainer would make one more step
            self.state = self.resumed.state
            self._load_from_checkpoint()
            return
        folder = str(self.args.output_dir)
        self.resumed.state.save_to_json(os.path.join(folder, TRAINER_STATE))
        self.train(resume_from_checkpoint=folder)

    def train(self, *args: Any, **named: Any) -> Any:
        """As Trainer's; where the model allows it, only what predicts a response token is computed."""
        with called_for_losses(self) if self.by_tokens else nullcontext():
            return super().train(*args, **named)

    # --- what Trainer calls ----------------------------------------------------------------------------------------

    def _get_train_sampler(self, *_: Any) -> LengthGroups:
        return self.order

    def _run_epoch(self, model: Any, epoch: Any, *more: Any, **named: Any) -> Any:
        self.order.epoch = epoch
        return super()._run_epoch(model, epoch, *more, **named)

    def _save_checkpoint(self, *_: Any) -> None:
        assert self.checkpoint_path is not None and self.model is not None and self.lr_scheduler is not None
        optimizer, optimizer_tensors = pack_optimizer(self._bare_optimizer())
        first, *others = processes.of_all(random_state())
        rest, rest_tensors = pack_tree(
            {
                "random": first,
                "random_of_others": others,
                "scheduler": self.lr_scheduler.state_dict(),
                "losses": torch.tensor(self.progress.losses, dtype=torch.float64),
            }
        )
        training = {
            "settings": self.settings,
            "state": dataclasses.asdict(self.state) | {"log_history": [], "stateful_callbacks": {}},
            "optimizer": optimizer,
            "rest": rest,
            "seconds": self.progress.elapsed(),
        }
        members = {
            "training.json": training,
            "model.safetensors": pack_module(self.model),
            "optimizer.safetensors": optimizer_tensors,
            "rest.safetensors": rest_tensors,
        }
        if processes.is_first():
            self.checkpoint_path.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.write(self.checkpoint_path, members)

    def _load_from_checkpoint(self, *_: Any) -> None:
        assert self.model is not None and self.resumed is not None
        unpack_module(self.model, self.resumed.model)

    def _load_optimizer_and_scheduler(self, path: str | None) -> None:
        if path is not None:
            assert self.lr_scheduler is not None and self.resumed is not None
            unpack_optimizer(self._bare_optimizer(), *self.resumed.optimizer)
            self.lr_scheduler.load_state_dict(dict(self.resumed.scheduler))

    def _load_rng_state(self, path: str | None) -> None:
        if path is not None:
            assert self.resumed is not None
            # In another number of processes than before, some go on from the first one's.
            set_random_state(self.resumed.random[processes.rank() % len(self.resumed.random)])

    def _bare_optimizer(self) -> torch.optim.Optimizer:
        wrapped: Any = self.optimizer  # by accelerate
        return getattr(wrapped, "optimizer", wrapped)
