"""Watches a reward model while it learns: what it is worth after each epoch, how long it still takes, whether to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import torch
from accelerate.utils import reduce
from torch import Tensor
from transformers import TrainerCallback

from reward_models.preference_data import EncodedGroup, collate
from reward_models.preference_losses import Contests, contest_losses
from reward_models.reward_head import RewardHead
from reward_models.sharding import assembled


@dataclass(frozen=True)
class Epoch:
    """How it stood at the end of an epoch.

    Attributes:
        number: 1 for the first.
        train_loss: nats, mean over the epoch's steps.
        held_out_loss: nats per vote on the held-out pairs, those of the rankings included, without label smoothing and
            centring; 0.693 knows nothing. None without held-out preferences.
        held_out_accuracy: the share of those votes that went to the higher score; a tie counts half.
    """

    number: int
    train_loss: float
    held_out_loss: float | None = None
    held_out_accuracy: float | None = None


class Watch(TrainerCallback):
    """Measures after each epoch, says how it goes every few seconds, and ends training when asked."""

    def __init__(
        self,
        head: RewardHead,
        held_out: list[EncodedGroup],
        batch_size: int,
        should_stop: Callable[[], bool],
        file: TextIO | None,
        seconds: float = 2.0,
    ) -> None:
        self.head, self.held_out, self.batch_size = head, held_out, batch_size
        self.should_stop, self.file, self.seconds = should_stop, file, seconds
        self.losses: list[Tensor] = []  # of every batch; kept on the device, to wait for none
        self.earlier = 0  # of them belong to earlier epochs
        self.epochs: list[Epoch] = []
        self.stopped = False
        self.start = self.said = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if reduce(torch.tensor(int(self.should_stop()), device=args.device), "max"):  # in any process
            self.stopped = control.should_training_stop = True
        now = time.perf_counter()
        if self.file is not None and now - self.said >= self.seconds:
            self.said = now
            left = (now - self.start) * (state.max_steps - state.global_step) / state.global_step
            self._say(f"step {state.global_step:>5} of {state.max_steps}   {left:.0f} s to go")

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if len(self.losses) == self.earlier:
            return
        train_loss = reduce(
            torch.stack(self.losses[self.earlier :]).mean(), "mean"
        ).item()  # over all processes
        self.earlier = len(self.losses)
        held_out: tuple[float, float] | tuple[None, None] = (None, None)
        if self.held_out:
            with assembled(model):
                held_out = held_out_metrics(self.head, self.held_out)
        epoch = Epoch(len(self.epochs) + 1, train_loss, *held_out)
        self.epochs.append(epoch)
        measured = "" if held_out[0] is None else f"   held-out {held_out[0]:.3f}, accuracy {held_out[1]:.3f}"
        self._say(f"epoch {epoch.number}   loss {train_loss:.3f}{measured}")

    def _say(self, line: str) -> None:
        if self.file is not None:
            print(line, file=self.file, flush=True)


def held_out_metrics(head: RewardHead, examples: Sequence[EncodedGroup]) -> tuple[float, float]:
    """Loss and accuracy per vote on pairs: see `Epoch`."""
    scores = head.score_rows([row for example in examples for row in example.rows])
    batch = collate(examples)
    contests = Contests(*(batch[name] for name in ("winner", "losers", "weight", "margin")))
    total = contests.weight.sum()
    difference = scores[contests.winner] - scores[contests.losers[:, 0]]
    won = ((difference.sign() + 1) / 2 * contests.weight).sum()
    return (contest_losses(scores, contests).sum() / total).item(), (won / total).item()
