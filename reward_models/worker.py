"""The other end of `guarded`: the process in which a reward runs, and the messages that go to and fro."""

import contextlib
import json
import os
import pickle
import signal
import socket
import struct
import threading
import time
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from reward_models.completion import Completion, RewardError, score
from reward_models.registration import make, register

_HEADER = struct.Struct("!Q")  # the length of the message that follows
_LONGEST_REPLY = 1 << 30


def send(channel: socket.socket, message: bytes, deadline: float | None = None) -> None:
    channel.settimeout(None if deadline is None else max(deadline - time.monotonic(), 1e-3))
    channel.sendall(_HEADER.pack(len(message)) + message)


def receive(channel: socket.socket, deadline: float | None = None) -> bytes:
    """One message. Raises TimeoutError, EOFError where the other end is closed, OSError."""

    def exactly(size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            channel.settimeout(None if deadline is None else max(deadline - time.monotonic(), 1e-3))
            piece = channel.recv(min(size - len(data), 1 << 20))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    (size,) = _HEADER.unpack(exactly(_HEADER.size))
    if deadline is not None and size > _LONGEST_REPLY:
        raise EOFError
    return exactly(size)


def serve(parent: int) -> None:
    """The worker: make the reward, then answer batches until the socket closes. Standard input is the socket."""
    channel = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    with contextlib.suppress(EOFError, ConnectionError):
        reward_model = _make(channel, receive(channel))
        while reward_model is not None:
            send(channel, json.dumps(_judge(reward_model, receive(channel))).encode())


def _make(channel: socket.socket, message: bytes) -> Any:
    """The reward model, or None; tells the parent which."""
    try:
        registered, recipe = pickle.loads(message)
        for name, factory in registered.items():
            register(name, cloudpickle.loads(factory))
        reward, kwargs = cloudpickle.loads(recipe)
        reward_model, error = make(reward, **kwargs), None
    except Exception as raised:
        told = str(raised) if isinstance(raised, RewardError) else f"{type(raised).__name__}: {raised}"
        reward_model, error = None, told
    send(channel, json.dumps({"error": error}).encode())
    return reward_model


def _judge(reward_model: Any, message: bytes) -> dict[str, Any]:
    """The scores, or what went wrong; then with `salvage` the scores one by one, None where there is none."""
    try:
        rows, salvage = pickle.loads(message)
        completions = [Completion(*row) for row in rows]
    except Exception as error:
        return {"scores": None, "error": f"The worker cannot read a batch: {type(error).__name__}: {error}"}
    try:
        return {"scores": score(reward_model, completions).tolist(), "error": None}
    except Exception as error:
        scores = [_alone(reward_model, completion) for completion in completions] if salvage else None
        return {"scores": scores, "error": str(error)}


def _alone(reward_model: Any, completion: Completion) -> float | None:
    try:
        return float(score(reward_model, [completion])[0])
    except Exception:
        return None


def _end_with_parent(parent: int) -> None:
    """A parent that was killed cannot end its worker: watch for it, also while a reward hangs."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.killpg(0, signal.SIGKILL)
