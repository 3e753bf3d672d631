"""Reward models that behave and misbehave, for the worker process of the tests to import."""

import ctypes
import os
import re
import subprocess
import sys
import time

CALLS = []


def length(completions, scale=1.0):
    return [scale * len(completion.response) for completion in completions]


def noisy(completions):
    print("printed by a reward")
    return [float(len(sys.stdin.read())) for _ in completions]


def picky(completions):
    """Raises on a response with a q, returns NaN for one with an n."""
    if any("q" in completion.response for completion in completions):
        raise KeyError("q")
    return [float("nan") if "n" in c.response else float(len(c.response)) for c in completions]


def rubbish(completions, kind="none"):
    return {
        "none": None,
        "text": "0.5",
        "short": [1.0] * (len(completions) - 1),
        "nested": [[1.0]] * len(completions),
        "object": object(),
    }[kind]


def misbehaves(completions):
    """The response says how."""
    for how in (completion.response for completion in completions):
        if how == "sleep":
            time.sleep(1000)
        if how == "regex":  # hangs in C, with the interpreter's lock held
            re.match(r"(a+)+$", "a" * 60 + "b")
        if how == "exit":
            os._exit(3)
        if how == "sys.exit":
            sys.exit(4)
        if how == "segfault":
            ctypes.string_at(0)
        if how == "fork":  # a grandchild that keeps all open files, and hangs
            if os.fork() == 0:
                time.sleep(1000)
            os._exit(5)
        if how == "subprocess":
            subprocess.Popen(["sleep", "987654"])
            time.sleep(1000)
    return [float(os.getpid())] * len(completions)


class Threshold:
    def __init__(self, at, value=1.0):
        self.at, self.value = at, value

    def __call__(self, completions):
        return [self.value * (len(completion.response) >= self.at) for completion in completions]


def make_threshold(at=2):
    return Threshold(at)


def hangs_when_made():
    time.sleep(1000)


def cannot_be_made():
    raise OSError("no such model")


def trl(prompts, completions, answer=None, **kwargs):
    return [float(text == wanted) for text, wanted in zip(completions, answer or [])]


not_callable = 3
