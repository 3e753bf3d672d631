"""Runs a reward model in a worker process, so that nothing it does can hang or kill training.

The worker is a fresh interpreter (no fork: threads and CUDA survive; no re-import of the user's script) that talks
over a socket. Completions go out pickled; numbers come back as JSON, so that nothing a reward returns is ever
unpickled here.
"""

import contextlib
import json
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any, Literal

import cloudpickle  # type: ignore[import-untyped]
import numpy as np

from reward_models.completion import Completion, RewardError, excerpt, where
from reward_models.registration import REGISTERED, check_name
from reward_models.worker import receive, send

_SERVE = "import sys; sys.path[:] = {path}; from reward_models.worker import serve; serve({owner})"
_GRACE_SECONDS = 2.0


class Guarded:
    """A reward model in a worker process, with a time limit per batch. Range: that of the reward, and `constant`.

    The worker starts with the first batch and is replaced after a timeout or death; it and all processes that it
    started end with this object or the program. Copies (`copy.deepcopy`, pickling) share nothing: each
    starts a worker of its own when first called. Needs a POSIX system.

    Args:
        reward: a name, "module:attr", a nested dict, or a callable; what `cloudpickle` can send, which includes
            functions of the script itself and lambdas.
        timeout: seconds for a batch, from sending it until all scores are there.
        on_error: "raise" raises RewardError. "constant" gives `constant` to completions on which the reward raises or
            returns rubbish, or to the whole batch where it hangs or dies. A reward that could not even be made
            is always raised.
        constant: that score.
        start_timeout: seconds for the worker to import and make the reward.
        kwargs: arguments of the reward, as in `make`.

    Attributes:
        counts: what happened so far, to be logged: "batches"; "errors", batches in which the reward raised or
            returned rubbish; "timeouts" and "deaths", batches in which it hung or died; "constants",
            completions that were given the constant; "restarts", workers started after the first.
    """

    def __init__(
        self,
        reward: Any,
        timeout: float = 60.0,
        on_error: Literal["raise", "constant"] = "raise",
        constant: float = 0.0,
        start_timeout: float = 300.0,
        **kwargs: Any,
    ) -> None:
        if os.name != "posix":
            raise RewardError("guarded: the worker needs a POSIX system. Use the reward without it here.")
        if on_error not in ("raise", "constant"):
            raise RewardError(f'guarded: on_error is {on_error!r}. Choose "raise" or "constant".')
        if not timeout > 0 or not start_timeout > 0:
            raise RewardError(
                f"guarded: timeout {timeout}, start_timeout {start_timeout}. Give seconds, more than 0."
            )
        if not math.isfinite(constant):
            raise RewardError(f"guarded: constant is {constant}. Give a finite number.")
        self.timeout, self.start_timeout = float(timeout), float(start_timeout)
        self.on_error, self.constant = on_error, float(constant)
        self.counts = dict.fromkeys(("batches", "errors", "timeouts", "deaths", "constants", "restarts"), 0)
        check_name(reward)
        self._name = excerpt(reward)
        self._recipe = _recipe(reward, kwargs)
        self._was_made = False
        self._forget()

    def _forget(self) -> None:
        """Have no worker, without ending one."""
        self._lock = threading.Lock()
        self._worker: _Worker | None = None

    def __getstate__(self) -> dict[str, Any]:
        state = {key: value for key, value in self.__dict__.items() if key not in ("_lock", "_worker")}
        return state | {"counts": dict(self.counts), "_was_made": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def __repr__(self) -> str:
        return f"Guarded({self._name})"

    def __call__(self, completions: Sequence[Completion]) -> np.ndarray:
        """Scores, float64, shape [n]. Raises RewardError as `on_error` says."""
        if self._worker is not None and self._worker.owner != os.getpid():
            self._forget()  # after a fork the worker is still the parent's
        message = _packed(completions, salvage=self.on_error == "constant")
        with self._lock:
            self.counts["batches"] += 1
            try:
                reply = self._ask(message)
            except _WorkerLost as lost:
                self._kill()
                self.counts[lost.kind] += 1
                reply = {"error": self._tell(lost, completions), "scores": None}
            except BaseException:
                self._kill()  # Ctrl-C: the answer that may still come must not be taken for that to the next batch
                raise
            else:
                self.counts["errors"] += reply["error"] is not None
            if reply["error"] is not None and (self.on_error == "raise" or not self._was_made):
                raise RewardError(reply["error"])
            scores = reply["scores"] or [None] * len(completions)
            self.counts["constants"] += scores.count(None)
        return np.array([self.constant if value is None else value for value in scores], dtype=np.float64)

    def close(self) -> None:
        """End the worker, if there is one. The next call starts another."""
        if self._worker is not None and self._worker.owner == os.getpid():
            self._worker.end()
        self._worker = None

    def _kill(self) -> None:
        if self._worker is not None:
            self._worker.kill()
        self._worker = None

    def _ask(self, message: bytes) -> dict[str, Any]:
        if self._worker is None:
            try:
                self._worker = _Worker()
            except OSError as error:
                raise _WorkerLost("deaths", f"could not be started: {error}") from error
            self.counts["restarts"] += self._was_made
            made = self._worker.request(self._recipe, self.start_timeout)
            if made["error"] is not None:
                raise _WorkerLost("errors", f"could not be made: {made['error'].rstrip('.')}")
            self._was_made = True
        return self._worker.request(message, self.timeout)

    def _tell(self, lost: "_WorkerLost", completions: Sequence[Completion]) -> str:
        total = len(completions)
        return (
            f"Guarded reward {self._name} {lost}, on a batch of {total}, first {where(completions[0], 0, total)}. "
            f'Mend the reward, give it more time (timeout, start_timeout), or go on with on_error="constant".'
        )


class _WorkerLost(Exception):
    """The worker cannot be used any more. `kind` is the count that it belongs to."""

    def __init__(self, kind: Literal["errors", "timeouts", "deaths"], what: str) -> None:
        super().__init__(what)
        self.kind = kind


class _Worker:
    """A fresh interpreter at the other end of a socket, in a process group of its own."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.channel, theirs = socket.socketpair()
        with theirs:
            code = _SERVE.format(path=[str(entry) for entry in sys.path], owner=self.owner)
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=theirs.fileno(), start_new_session=True
            )
        self.end = weakref.finalize(self, _end, self.process, self.channel, self.owner)

    def request(self, message: bytes, timeout: float) -> dict[str, Any]:
        """Send a message, return the reply. Raises _WorkerLost."""
        deadline = time.monotonic() + timeout
        try:
            send(self.channel, message, deadline)
            return json.loads(receive(self.channel, deadline))
        except TimeoutError:
            if self.process.poll() is None:
                raise _WorkerLost("timeouts", f"gave no answer within {timeout:g} s; it was ended") from None
        except (OSError, EOFError, ValueError):
            pass  # its end of the socket is closed, or what came is no reply
        raise _WorkerLost("deaths", f"died: its worker {self._fate()}")

    def kill(self) -> None:
        """End it at once: it hangs, or an answer is under way that nobody waits for."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.end()

    def _fate(self) -> str:
        try:
            status = self.process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its end of the socket"
        return (
            f"was killed by a signal ({signal.strsignal(-status)})"
            if status < 0
            else f"exited with status {status}"
        )


def _end(process: subprocess.Popen[bytes], channel: socket.socket, owner: int) -> None:
    """End a worker and what it started, and reap it. An idle one ends by itself when the socket closes."""
    if os.getpid() != owner:
        return
    with contextlib.suppress(OSError, EOFError):
        channel.shutdown(socket.SHUT_WR)
        receive(channel, time.monotonic() + (_GRACE_SECONDS if process.poll() is None else 0.0))
    channel.close()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _recipe(reward: Any, kwargs: dict[str, Any]) -> bytes:
    """What the worker needs to make the reward: it, its arguments, and the names that were registered here."""
    registered = {}
    for name, factory in REGISTERED.items():
        with contextlib.suppress(Exception):  # one that cannot be sent can only be missed by its name
            registered[name] = cloudpickle.dumps(factory)
    try:
        return pickle.dumps((registered, cloudpickle.dumps((reward, kwargs))))
    except Exception as error:
        raise RewardError(
            f"guarded: {excerpt(reward)} cannot be sent to a worker process: {error}. "
            f'Give a name or "module:attr", with arguments that can be pickled.'
        ) from error


def _packed(completions: Sequence[Completion], salvage: bool) -> bytes:
    """The message for one batch; columns as plain dicts, for a read-only mapping cannot be pickled."""
    rows = [
        (c.prompt, c.response, c.prompt_ids, c.response_ids, c.finish_reason, dict(c.columns))
        for c in completions
    ]
    try:
        return pickle.dumps((rows, salvage))
    except Exception as error:
        raise RewardError(
            f"guarded: a batch cannot be sent to the worker: {error}. Keep in the prompts' columns, "
            f"{sorted(completions[0].columns)} in the first, only what can be pickled."
        ) from error
