"""Callbacks and helpers around `learn`: a table of samples to read, and a clean stop on Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat
from stable_baselines3.common.type_aliases import MaybeCallback

from agents import processes
from agents.runs import plain


class SampleTable(BaseCallback):
    """Shows what the policy writes: prompt, response, score and KL of the first episodes of a rollout.

    Args:
        every: show every so many rollouts, the first one too; the last one is shown when training ends.
        n: episodes per table.
        path: a JSON Lines file that gets each sample too: rollout, num_timesteps, prompt, response,
            finish_reason, score, kl (nats). None writes none.
        show: print the table to `console`. TensorBoard gets it as text in any case, where the logger has one.
        console: None is standard output.
    """

    saved_attributes = ("rollouts", "last")  # what a checkpoint keeps of it

    def __init__(
        self,
        every: int = 10,
        n: int = 4,
        path: str | os.PathLike[str] | None = None,
        show: bool = True,
        console: Console | None = None,
    ):
        super().__init__()
        if every < 1 or n < 1:
            raise ValueError(f"every={every} and n={n}: SampleTable needs at least 1 of each. Raise them.")
        self.every, self.n, self.show = every, n, show
        self.log_file = None if path is None else Path(path)
        self.console = console or Console()
        self.rollouts = 0
        self.last: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.rollouts += 1
        self.last = self._samples()
        if (self.rollouts - 1) % self.every == 0:
            self._report()

    def _on_training_end(self) -> None:
        if self.last:
            self._report()

    def _samples(self) -> list[dict[str, Any]]:
        episodes: list[Any] = self.model.rollout_buffer.episodes  # type: ignore[attr-defined]
        return [
            {
                "rollout": self.rollouts,
                "num_timesteps": self.model.num_timesteps,
                "prompt": episode.completion.prompt,
                "response": episode.completion.response,
                "finish_reason": episode.completion.finish_reason,
                "score": episode.score,
                "kl": episode.kl,
            }
            for episode in episodes[: self.n]
            if episode.completion is not None
        ]

    def _report(self) -> None:
        samples, self.last = self.last, []
        if self.show:
            self.console.print(
                sample_table(samples, f"rollout {self.rollouts}, {self.model.num_timesteps:,} tokens")
            )
        if self.log_file is not None:
            with self.log_file.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(plain(sample)) + "\n" for sample in samples)
        for output in self.logger.output_formats:
            if isinstance(output, TensorBoardOutputFormat):
                output.writer.add_text("samples", _markdown(samples), self.model.num_timesteps)


def sample_table(samples: Sequence[dict[str, Any]], title: str = "") -> Table:
    """Samples (prompt, response, score, kl) as a table for `rich.console.Console.print`."""
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("prompt", ratio=2, overflow="fold")
    table.add_column("response", ratio=3, overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("KL", justify="right")
    for row in samples:
        prompt, response = (Text(visible(row[key])) for key in ("prompt", "response"))
        table.add_row(prompt, response, f"{row['score']:.3f}", f"{row['kl']:z.2f}")
    return table


def visible(text: str) -> str:
    """`text` safe to print: line breaks and tabs stay; control, bidirectional and unprintable characters turn into �.

    A policy samples any bytes: some would recolour the terminal, or show the text backwards.
    """
    return "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else "�" for c in text)


def _markdown(samples: Sequence[dict[str, Any]]) -> str:
    def cell(text: str) -> str:
        escaped = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
        return escaped.replace("\n", "<br>")

    rows = [
        f"| {cell(row['prompt'])} | {cell(row['response'])} | {row['score']:.3f} | {row['kl']:z.2f} |"
        for row in samples
    ]
    return "\n".join(["| prompt | response | score | KL |", "|---|---|---|---|", *rows])


class SaveEvery(BaseCallback):
    """Saves the model every so many rollouts, between two of them, always to the same path: the latest counts.

    Unlike Stable-Baselines3's `CheckpointCallback`, which counts environment steps, it never saves in mid-rollout.
    """

    saved_attributes = ("rollouts",)
    in_every_process = True  # each has a part of what is saved

    def __init__(self, every: int, path: str | os.PathLike[str]):
        super().__init__()
        self.every, self.path, self.rollouts = every, Path(path), 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.rollouts and self.rollouts % self.every == 0:
            self.model.save(self.path)
        self.rollouts += 1


def callbacks_of_this_process(callback: MaybeCallback) -> MaybeCallback:
    """All of them in the first process; in others those that all processes must call together."""
    if processes.is_first():
        return callback
    given = callback if isinstance(callback, list) else getattr(callback, "callbacks", [callback])
    return [one for one in given if getattr(one, "in_every_process", False)]


class Stoppable(Protocol):
    interruptible: bool

    def stop(self) -> None: ...


class SignalReceived:
    """Which signal asked for the stop; None if none did. True if one did."""

    number: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.number is not None

    def agree(self) -> None:
        """Let it be the same in all processes, whichever of them the signal came to."""
        number = processes.largest(self.number or 0)
        self.number = signal.Signals(number) if number else None


class OutOfPatience(BaseException):
    """Ends what did not come to its end by itself. No `except Exception` on the way takes it for an error."""


@contextmanager
def stop_on_signals(model: Stoppable | None = None, patience: float = 2.0) -> Iterator[SignalReceived]:
    """While the block runs, the first Ctrl-C or SIGTERM asks `model.stop()`, the second raises KeyboardInterrupt.

    So `learn` returns at its next opportunity, and what was learned can be saved:

        with stop_on_signals(model) as stopped:
            model.learn(100_000)
        model.save("last")  # also when stopped.number is signal.SIGTERM

    A `learn` that has not returned after `patience` seconds, because it waits for a reward model or evaluates at length,
    is ended where that does no harm, and so is the block.

    Without a model, ask what it yields: it is true once a signal came. Must be entered in the main thread:
    Python gives no other one its signals (ValueError).
    """
    received, reminds, wait = SignalReceived(), False, patience
    asked, over = threading.Event(), threading.Event()
    main = threading.get_ident()

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal reminds, wait
        if reminds:
            reminds = False
            if model is not None and model.interruptible:
                wait = patience  # for what cleans up on the way
                raise OutOfPatience
        elif received:
            raise KeyboardInterrupt
        else:
            received.number = signal.Signals(number)
            if model is not None:
                model.stop()
                asked.set()

    def remind() -> None:
        nonlocal reminds, wait
        asked.wait()
        while received.number is not None and not over.wait(wait):
            wait = 0.05
            if model is not None and model.interruptible:
                reminds = True
                signal.pthread_kill(main, received.number)  # wakes the main thread from what it waits for

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    reminder = threading.Thread(target=remind, daemon=True)
    reminder.start()  # now: in a handler it would not be safe
    try:
        yield received
    except OutOfPatience:
        pass
    finally:
        over.set()
        asked.set()
        reminder.join()  # a reminder after this block would end the program
        for number, handler in before.items():
            signal.signal(number, handler)
