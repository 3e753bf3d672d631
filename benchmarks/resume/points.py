"""The points at which a run is killed on purpose, and the phases in which it is killed by chance."""

import mmap
import os
import signal
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from stable_baselines3.common import callbacks as sb3_callbacks

from agents import callbacks, checkpoint, resume, runs
from agents.ppo import TextPPO
from text_envs.sb3 import TextVecEnv


def die() -> None:
    """What the kernel, or a power cut, does."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Point:
    """Before or after the n-th call of a function, or in the middle of one that writes.

    Attributes:
        owner, name: the function is ``owner.name``.
        when: "before", "after", "half" (half of a row is written instead), or "hang" (it never returns).
        calls: the n that make sense; a kill takes one of them.
    """

    owner: Any
    name: str
    when: str
    calls: tuple[int, ...] = (1, 2, 5)

    def arm(self, n: int, board: "PhaseBoard | None" = None) -> None:
        """Let this process die, or hang and say so on the board, at the n-th call."""
        function, seen = getattr(self.owner, self.name), 0

        def armed(*args: Any, **kwargs: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == n and self.when == "hang":
                assert board is not None
                board.memory[0] = PHASES.index("hanging")
                time.sleep(3600)
            if seen == n and self.when == "half":
                with open(args[0].log_file, "a") as file:
                    file.write('{"num_timesteps": 1, "rol')
            if seen == n and self.when != "after":
                die()
            value = function(*args, **kwargs)
            if seen == n:
                die()
            return value

        setattr(self.owner, self.name, armed)


POINTS = {
    "rollout: before a token": Point(TextVecEnv, "step_wait", "before", (1, 7, 60, 150)),
    "rollout: before the scores": Point(TextVecEnv, "collect_scores", "before"),
    "rollout: after the scores": Point(TextVecEnv, "collect_scores", "after"),
    "rollout: before the advantages": Point(TextPPO, "compute_advantages", "before"),
    "samples: before": Point(callbacks.SampleTable, "_report", "before", (1, 2)),
    "samples: in the middle of a row": Point(callbacks.SampleTable, "_report", "half", (1, 2)),
    "samples: after": Point(callbacks.SampleTable, "_report", "after", (1, 2)),
    "update: before": Point(TextPPO, "train", "before"),
    "update: before a minibatch's loss": Point(TextPPO, "loss", "before", (1, 4, 9, 20)),
    "update: before an optimiser step": Point(torch.optim.AdamW, "step", "before", (1, 4, 9)),
    "update: after an optimiser step": Point(torch.optim.AdamW, "step", "after", (1, 6, 20)),
    "update: after": Point(TextPPO, "train", "after"),
    "log: in the middle of a row": Point(runs.MetricsWriter, "write", "half", (1, 3)),
    "log: after a row": Point(runs.MetricsWriter, "write", "after", (1, 3)),
    "evaluation: before": Point(sb3_callbacks, "evaluate_policy", "before", (1, 2)),
    "evaluation: in the middle": Point(sb3_callbacks.EvalCallback, "_log_success_callback", "before", (1, 9, 20)),
    "evaluation: after": Point(sb3_callbacks, "evaluate_policy", "after", (1, 2)),
    "saving: before": Point(checkpoint, "write", "before", (1, 2, 4)),
    "saving: after a member": Point(zipfile.ZipFile, "writestr", "after", (1, 2, 3, 5, 8, 12)),
    "saving: before a flush to disk": Point(os, "fsync", "before", (1, 2, 3, 4, 7)),
    "saving: after a flush to disk": Point(os, "fsync", "after", (1, 2, 3, 4, 7)),
    "saving: before the rename": Point(os, "replace", "before", (1, 2)),
    "saving: after the rename": Point(os, "replace", "after", (1, 2)),
    "saving: after": Point(checkpoint, "write", "after", (1, 2, 4)),
    "loading: before": Point(checkpoint, "read", "before", (1,)),
    "loading: after": Point(checkpoint, "read", "after", (1,)),
    "resuming: before a file is cut": Point(resume, "rewind", "before", (1, 2)),
    "resuming: after a file is cut": Point(resume, "rewind", "after", (1, 2)),
    "starting: before the folder": Point(runs.RunFolder, "start", "before", (1,)),
    "starting: after the folder": Point(runs.RunFolder, "start", "after", (1,)),
}  # fmt: skip
# After the last token: these are tried when the run is all but over.
LAST_POINTS = {
    "ending: before the last checkpoint": Point(runs.Logger, "close", "after", (1,)),
    "ending: before the policy": Point(TextPPO, "save_pretrained", "before", (1,)),
    "ending: after the policy": Point(TextPPO, "save_pretrained", "after", (1,)),
    "ending: before result.json": Point(runs.RunFolder, "write_result", "before", (1,)),
    "ending: after result.json": Point(runs.RunFolder, "write_result", "after", (1,)),
}
HANGS = {
    "a reward hangs": Point(TextVecEnv, "collect_scores", "hang", (3,)),
    "an environment hangs": Point(TextVecEnv, "step_wait", "hang", (60,)),
    "a minibatch takes an hour": Point(TextPPO, "loss", "hang", (9,)),
    "an evaluation takes an hour": Point(sb3_callbacks.EvalCallback, "_log_success_callback", "hang", (20,)),
}
PHASES = ("starting and loading", "rollout", "update", "evaluation", "saving", "ending", "hanging")
_PHASE_OF = {
    "rollout": (TextPPO, "collect_rollouts"),
    "update": (TextPPO, "train"),
    "evaluation": (sb3_callbacks, "evaluate_policy"),
    "saving": (checkpoint, "write"),
    "ending": (TextPPO, "save_pretrained"),
}


class PhaseBoard:
    """A byte that parent and child share: in which phase the child is."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 1)

    def clear(self) -> None:
        """A new child begins."""
        self.memory[0] = 0

    def watch(self) -> None:
        """Keep it up to date in this process."""
        for phase, (owner, name) in _PHASE_OF.items():
            setattr(owner, name, self._watched(getattr(owner, name), PHASES.index(phase)))

    def _watched(self, function: Callable, phase: int) -> Callable:
        def watched(*args: Any, **kwargs: Any) -> Any:
            before, self.memory[0] = self.memory[0], phase
            try:
                return function(*args, **kwargs)
            finally:
                self.memory[0] = before

        return watched

    def phase(self) -> str:
        return PHASES[self.memory[0]]
