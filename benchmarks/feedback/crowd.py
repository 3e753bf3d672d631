"""Raters, each a thread with an HTTP client of its own, who rate as fast as the server lets them."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reward_models.preferences.client import HTTPClient

UNDONE = 0.02
"""Share of votes that the rater takes back and gives again."""

CHOICES = ("left", "right", "tie", "both_bad", "skip")


@dataclass
class Work:
    """What the server has confirmed.

    Attributes:
        acknowledged: key -> answer of every vote.
        undone: keys of every undo.
        seconds: that each vote took, from sending to the confirmation, reconnections included.
    """

    acknowledged: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    undone: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)

    @property
    def counted(self) -> int:
        """Votes that are not taken back."""
        return len(self.acknowledged) - len(self.undone)


class Crowd:
    """`n_raters` raters at one server, who rate until nothing is left.

    Args:
        url: of the server.
        n_raters: how many.
        think: seconds between a confirmation and the next question.
    """

    def __init__(self, url: str, n_raters: int, think: float = 0.0):
        self.url, self.think = url, think
        self.work = [Work() for _ in range(n_raters)]
        self.errors: list[Exception] = []

    @property
    def counted(self) -> int:
        return sum(work.counted for work in self.work)

    def run(self, meanwhile: Callable[[Crowd], None] | None = None) -> Work:
        """Let them rate to the end; `meanwhile` runs beside them.

        Raises:
            What went wrong in a rater's thread.
        """
        threads = [threading.Thread(target=self._rate, args=(i,), daemon=True) for i in range(len(self.work))]
        for thread in threads:
            thread.start()
        if meanwhile is not None:
            meanwhile(self)
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]
        together = Work()
        for work in self.work:
            together.acknowledged |= work.acknowledged
            together.undone |= work.undone
            together.seconds += work.seconds
        return together

    def _rate(self, number: int) -> None:
        try:
            with HTTPClient(self.url, f"rater {number}", retry_for=300) as client:
                self._rate_with(client, self.work[number], random.Random(number))
        except Exception as error:
            self.errors.append(error)

    def _rate_with(self, client: HTTPClient, work: Work, chance: random.Random) -> None:
        while not self.errors and (assignment := client.assign()) is not None:
            answer = {"choice": chance.choice(CHOICES)}
            key = uuid.uuid4().hex
            start = time.perf_counter()
            client.vote(assignment.id, answer, key=key)
            work.seconds.append(time.perf_counter() - start)
            work.acknowledged[key] = answer
            if chance.random() < UNDONE:
                undo = uuid.uuid4().hex
                client.undo(key=undo)
                work.undone.add(undo)
            time.sleep(self.think * chance.uniform(0.5, 1.5))
