"""The first process leads: it does alone what only one can do, and calls the others for what all do together.

While it works, raters rate or a judge judges, for hours perhaps, the processes hear of one another every quarter of a second.
So no wait comes near the minutes after which torch gives a process up, a signal that came to any of them reaches the first
one, and a process that has ended is missed at once.

A process that was started alone leads nobody, and nothing here is noticed.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from agents import processes
from agents.callbacks import OutOfPatience, SignalReceived, Stoppable
from agents.stages import Stopped

R = TypeVar("R")
BEAT = 0.25  # seconds between two times that the processes hear of one another


class LeaderFailed(SystemExit):
    """The first process ended with an error, which it tells itself: this one ends with it, and says nothing."""


@dataclass(frozen=True)
class Call:
    """All are to do this together."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Done:
    """The first process is done; what it came to."""

    result: Any


# What the first process tells the others: to wait on (None), a call, or how it ended.
Told = Call | Done | Stopped | LeaderFailed | None


class Leader:
    """What the first process works in.

    Args:
        received: the signal that asked for a stop, if one did. One that came to another process is passed on to this one.
        guard: what may be cut short after a signal; not where all learn together.
        do: is given a function and its arguments, and runs it; the same in all processes.
    """

    def __init__(self, received: SignalReceived, guard: Stoppable, do: Callable[..., Any]):
        self.received, self.guard, self.do = received, guard, do
        self.beating: threading.Thread | None = None  # while the others wait
        self.over = threading.Event()
        self.lost: Exception | None = None

    def run(self, work: Callable[[], R]) -> R:
        """What `work` comes to; the others are told how it ended.

        Raises:
            ProcessLost: another process has ended meanwhile. Whatever else `work` raises.
        """
        self._let_wait()
        try:
            result = work()
        except BaseException as error:
            if self.beating is not None:  # else all were called, and find out by themselves
                self._end_others(error)
            raise
        self._tell(Done(result))
        return result

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Let all processes do `function(*arguments)`; what this one has of it. Function and arguments can be pickled."""
        self._tell(Call(function, arguments))
        try:
            result = self.do(function, *arguments)
        except Stopped:  # in all of them: they listen again
            self._let_wait()
            raise
        self._let_wait()
        return result

    def _let_wait(self) -> None:
        if processes.count() > 1:
            self.over.clear()
            self.beating = threading.Thread(target=self._beat, daemon=True, name="beat")
            self.beating.start()
            self.guard.interruptible = True

    def _beat(self) -> None:
        try:
            while not self.over.wait(BEAT):
                _, *numbers = processes.of_all(None)
                if any(numbers):
                    self._stop_main(next(filter(None, numbers)))
        except Exception as error:
            self.lost = error
            self._stop_main(signal.SIGTERM)

    def _stop_main(self, number: signal.Signals) -> None:
        """Stop what the main thread does, as if the signal had come to this process."""
        if not self.received:  # a second one would break it off
            signal.pthread_kill(threading.main_thread().ident or 0, number)

    def _tell(self, told: Told) -> None:
        if self.beating is None:
            return
        self.guard.interruptible = False
        self.over.set()
        self.beating.join()
        self.beating = None
        if self.lost is not None:
            raise self.lost
        processes.of_all(told)

    def _end_others(self, error: BaseException) -> None:
        if not isinstance(error, Stopped | OutOfPatience):
            with suppress(processes.ProcessLost):  # what was wrong first is told
                self._tell(LeaderFailed(1))
            return
        try:
            self._tell(Stopped(self.received.number or next(iter(error.args), None)))
        except processes.ProcessLost as lost:  # that is why it stopped
            raise lost from None


def follow(received: SignalReceived, do: Callable[..., Any]) -> Any:
    """What the other processes work in: do what the first one calls for, until it ends, and as it ends.

    Args:
        received: a signal that came to this process; the first one is told.
        do: as the `Leader`'s.

    Returns:
        What the first process's work came to.

    Raises:
        Stopped: it was stopped, with the signal's number. LeaderFailed: it ended with an error.
        ProcessLost: it has ended without a word.
    """
    while True:
        time.sleep(BEAT)  # a GPU that waits for another one is busy
        told: Any = processes.of_all(received.number)[0]
        if isinstance(told, Call):
            with suppress(Stopped):  # the first one says how all end
                do(told.function, *told.arguments)
        elif isinstance(told, Done):
            return told.result
        elif isinstance(told, LeaderFailed):
            time.sleep(4 * BEAT)  # who ends first is taken for the culprit by what started them
            raise told
        elif told is not None:
            raise told
