"""Going on with training exactly where a checkpoint left it: what is kept of a run besides its weights, and when.

A run is at rest at two kinds of points: before a rollout, and between two optimiser steps. A rollout changes no weights, so
that its beginning stays the point to go on from until it is over: `save` in the middle of one writes the weights of now and
everything else as it was then. An update is taken up again at the minibatch where it stopped.
"""

import os
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from agents import processes
from agents.envs import common_attribute
from agents.episodes import EpisodeBuffer
from agents.kl import KLController
from agents.packing import CheckpointError
from agents.states import (
    callback_states,
    environment_state,
    file_position,
    log_files,
    logger_state,
    random_state,
    rewind,
    set_callback_states,
    set_environment_state,
    set_logger_state,
    set_random_state,
)


@dataclass
class Update:
    """How far the update of a rollout has come.

    Attributes:
        epoch: passes over the rollout that are complete.
        order: of the episodes in the present pass; None before it begins.
        minibatch: how many minibatches of the present pass are done.
        log: by name, a number for each minibatch.
    """

    epoch: int = 0
    order: list[int] | None = None
    minibatch: int = 0
    log: dict[str, list[float]] = field(default_factory=dict)


class ResumableAlgorithm(BaseAlgorithm):
    """What a run is besides its weights: taken down at each point of rest, put back by the ``learn`` after a ``load``.

    Attributes:
        update: of the last rollout, where it is not over; ``learn`` finishes it first.
        iteration: rollouts that were learned from, since ``learn`` began to count.
        interruptible: an exception that comes now, from a signal handler say, costs nothing but the work since the
            last point of rest.
        torn: an exception came in the middle of an optimiser step: the weights are those of no point of the run.
    """

    rollout_buffer: EpisodeBuffer
    kl_controller: KLController

    counters: ClassVar[tuple[str, ...]] = (
        "num_timesteps", "_total_timesteps", "_num_timesteps_at_start", "_n_updates", "_current_progress_remaining",
        "iteration",
    )  # fmt: skip
    update: Update | None = None
    iteration: int = 0
    interruptible: bool = False
    torn: bool = False
    stop_requested: bool = False
    _moment: dict[str, Any] | None = None  # the point of rest to go on from, where the model has left it
    _was_loaded: bool = False  # the moment is a checkpoint's, and `learn` has not put it back yet
    _callback: BaseCallback | None = None
    _earlier_reward_counts: Mapping[str, int] = {}

    @property
    def is_loaded(self) -> bool:
        """The model comes from a checkpoint, and ``learn`` has not gone on from it yet."""
        return self._was_loaded

    @property
    def log_files(self) -> list[Path]:
        """The files to which this run appends rows, such as metrics.jsonl."""
        return log_files(getattr(self, "_logger", None), self._callback)

    def moment(self) -> dict[str, Any]:
        """Everything but weights and settings that decides how training goes on from here, of all processes."""
        logger = getattr(self, "_logger", None)
        own, *others = processes.of_all(self._own_moment())
        rollout = own.pop("rollout")
        return {
            "counters": {name: getattr(self, name) for name in self.counters},
            "kl_controller": dict(vars(self.kl_controller)),
            "episode_infos": list(self.ep_info_buffer or ()),
            **own,
            "callbacks": {} if self._callback is None else callback_states(self._callback),
            "logger": None if logger is None else logger_state(logger),
            "files": {path.name: file_position(path) for path in self.log_files},
            "update": (
                None if self.update is None else {"progress": asdict(self.update), "rollout": rollout}
            ),
            "other_processes": others,
        }

    def _own_moment(self) -> dict[str, Any]:
        """The part of the moment that each process has for itself."""
        return {
            "reward_counts": self._reward_counts(),
            "random": random_state(),
            "environment": (
                None if self.env is None else environment_state(self.env, again=self._last_obs is not None)
            ),
            "rollout": None if self.update is None else self.rollout_buffer.state(),
        }

    def _take_up(self, moment: dict[str, Any]) -> None:
        """What of a loaded moment can be there before ``learn``."""
        counters = {name: moment["counters"][name] for name in self.counters}
        if not all(
            type(value) is float or (type(value) is int and value >= 0) for value in counters.values()
        ):
            raise CheckpointError(f"The checkpoint's counters are {counters}, no counts. Take another one.")
        self.__dict__.update(counters)
        self.kl_controller = KLController(**moment["kl_controller"])
        self.ep_info_buffer = deque(moment["episode_infos"], maxlen=self._stats_window_size)
        self.ep_success_buffer = deque(maxlen=self._stats_window_size)
        self._moment, self._was_loaded = moment_of_this_process(moment), True

    def _loaded_moment(self, reset_num_timesteps: bool) -> dict[str, Any] | None:
        """The moment that ``learn`` is to put back: a checkpoint's, if it goes on counting; each once."""
        moment = self._moment if self._was_loaded and not reset_num_timesteps else None
        self._moment, self._was_loaded = None, False
        return moment

    def _resume_environment(self, moment: Mapping[str, Any]) -> None:
        """Before the reset by which ``learn`` begins: let it show the prompts that were shown."""
        assert self.env is not None
        with _explained():
            if moment["environment"] is not None:
                set_environment_state(self.env, moment["environment"])
            counts = Counter(moment["reward_counts"])
            counts.subtract(common_attribute(self.env, "reward_counts", {}))
            self._earlier_reward_counts = counts
            self._last_obs = None

    def _resume_rest(self, moment: Mapping[str, Any], callback: BaseCallback) -> None:
        """After ``learn`` has set up logger and callbacks: random generators last, for all that may have drawn numbers."""
        with _explained():
            set_callback_states(callback, moment["callbacks"])
            if moment["logger"] is not None:
                set_logger_state(self.logger, moment["logger"])
            for path in self.log_files:
                if path.name in moment["files"]:
                    rewind(path, moment["files"][path.name])
            if moment["update"] is not None:
                self.update = Update(**moment["update"]["progress"])
                self.rollout_buffer.set_state(moment["update"]["rollout"])
            if moment["random"] is not None:
                set_random_state(moment["random"])

    def _reward_counts(self) -> dict[str, int]:
        """What the reward model counted of its own failures, before the last ``load`` too."""
        counts = Counter(self._earlier_reward_counts)
        if self.env is not None:
            counts.update(common_attribute(self.env, "reward_counts", {}))
        return dict(counts)

    def _is_to_stop(self) -> bool:
        """Whether any process was asked to stop: then all do."""
        self.stop_requested = processes.anywhere(self.stop_requested)
        return self.stop_requested

    def set_random_seed(self, seed: int | None = None) -> None:
        """As Stable-Baselines3's. After a ``load`` it replaces the random numbers that training would have gone on with. Each
        process gets numbers of its own."""
        if seed is None and processes.rank():
            torch.seed()  # torch begins with the same random numbers in each process
        # Sub-environment i of this process has seed + offset + i.
        offset = processes.rank() * getattr(self, "n_envs", 1)
        super().set_random_seed(None if seed is None else seed + offset)
        if seed is not None and self._moment is not None:
            self._moment = self._moment | {"random": None, "environment": None}

    def _moment_to_save(self) -> dict[str, Any] | None:
        """The moment that goes with the present weights; None if there is none."""
        if self.torn:
            warnings.warn(
                "An exception came in the middle of an optimiser step, so this checkpoint cannot be resumed exactly: its "
                "weights are half an update's. An earlier checkpoint can.",
                stacklevel=3,
            )
            return None
        for path in self.log_files:  # a checkpoint must not outlive the rows before it
            if path.exists():
                with open(path, "r+b") as file:
                    os.fsync(file.fileno())
        return self._moment or self.moment()

    def _forget_moment(self, but_loaded: bool = False) -> None:
        """The model was changed by hand: it goes on from what it is now."""
        if not (but_loaded and self._was_loaded):
            self._moment, self._was_loaded = None, False
        self.update = None

    @contextmanager
    def _may_be_interrupted(self) -> Iterator[None]:
        # Where there are others, they would wait for what this process was about to tell them.
        self.interruptible = processes.count() == 1
        try:
            yield
        finally:
            self.interruptible = False


def moment_of_this_process(moment: dict[str, Any]) -> dict[str, Any]:
    """A moment of which every process has its own part. In another number of processes than it was taken down in, random
    numbers and prompts begin anew, and an update that was not over is left out."""
    others = moment.get("other_processes", [])  # of a checkpoint from before there were several: none
    if len(others) + 1 != processes.count():
        warnings.warn(
            f"The checkpoint is one of {len(others) + 1} processes, and this is one of {processes.count()}: random numbers "
            "and prompts begin anew. Weights, optimiser, counters and KL coefficient go on.",
            stacklevel=4,
        )
        return moment | {"random": None, "environment": None, "update": None, "other_processes": []}
    if not processes.rank():
        return moment
    own = others[processes.rank() - 1]
    update = moment["update"] and {**moment["update"], "rollout": own["rollout"]}
    return (
        moment | {name: own[name] for name in ("reward_counts", "random", "environment")} | {"update": update}
    )


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"The checkpoint's state of the run cannot be put back ({error!r}). Take another one, or start a new count "
            "with learn(..., reset_num_timesteps=True), which needs its weights alone."
        ) from error
