"""Writes of many threads that share commits: to sync a commit to disk takes longer than most of the writes in it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from reward_models.preferences.schema import sa

T = TypeVar("T")


class SharedCommits:
    """Runs writes in the order in which they come: one thread at a time does all that are waiting, in one transaction.

    Where one of several fails, all are run again, each in a savepoint of its own: so the failed one takes back nothing but
    its own, and the others, which is nearly always, are spared the savepoints. A write that returned is on disk.

    Args:
        begin: begins a transaction that no other write overlaps; the block's end commits it.
    """

    def __init__(self, begin: Callable[[], contextlib.AbstractContextManager[sa.Connection]]):
        self.begin = begin
        self.lock = threading.Lock()  # of the two below; never held for long
        self.waiting: list[_Write] = []
        self.leader: _Write | None = None

    def write(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """`function(connection, *args, **kwargs)`, committed.

        Raises:
            What `function` raises, or the commit. Nothing of it is then stored.
        """
        mine = _Write(function, args, kwargs)
        with self.lock:
            self.waiting.append(mine)
            if self.leader is None:
                self._lead(mine)
        try:
            mine.turn.wait()  # to do all that is waiting, if nobody has done it by then
            if not mine.done:
                self._commit(list(self.waiting))
        finally:
            self._leave(mine)
        if mine.error is not None:
            raise mine.error
        return mine.result

    def _commit(self, batch: list[_Write]) -> None:
        try:
            try:
                self._run(batch, savepoints=False)
            except _Failed:
                if len(batch) > 1:
                    self._run(batch, savepoints=True)
        except Exception as error:
            for write in batch:
                write.error = error
        with self.lock:
            for write in batch:
                if write in self.waiting:
                    self.waiting.remove(write)
                write.done = True
                write.turn.set()

    def _run(self, batch: list[_Write], savepoints: bool) -> None:
        with self.begin() as connection:
            for write in batch:
                write.run(connection, savepoints)

    def _lead(self, write: _Write | None) -> None:
        self.leader = write
        if write is not None:
            write.turn.set()

    def _leave(self, mine: _Write) -> None:
        with self.lock:
            if mine in self.waiting:  # interrupted before it was done
                self.waiting.remove(mine)
            if self.leader is mine:
                self._lead(self.waiting[0] if self.waiting else None)


class _Failed(Exception):
    """A write without a savepoint failed, and its transaction with it."""


class _Write:
    """A function that waits for its turn, then what came of it."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]):
        self.function, self.args, self.kwargs = function, args, kwargs
        self.turn = threading.Event()
        self.done = False
        self.result: Any = None
        self.error: Exception | None = None

    def run(self, connection: sa.Connection, savepoint: bool) -> None:
        self.error = None
        try:
            with connection.begin_nested() if savepoint else contextlib.nullcontext():
                self.result = self.function(connection, *self.args, **self.kwargs)
        except Exception as error:
            self.error = error
            if not savepoint:
                raise _Failed from error
