"""TextVectorEnv: n episodes in lock-step, one reward-model call for all that ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from reward_models import Completion
from text_envs.episodes import TaskAttributes, TextEpisodes
from text_envs.masks import BoolArray
from text_envs.prompts import PromptStream
from text_envs.rendering import METADATA, TextRenderer
from text_envs.task import TextTask, count
from text_envs.tokens import IntArray

FloatArray = npt.NDArray[np.float64]
REST = -1


class TextVectorEnv(TaskAttributes, VectorEnv):
    """n text episodes as one Gymnasium vector environment.

    Equals n `TextGenerationEnv` in a ``gymnasium.vector.SyncVectorEnv``, token for token and info for info,
    under each autoreset mode; sub-environment i is seeded ``seed + i``. All episodes that end on one step are
    scored in one call.

    An action of -1 rests its row: no token, reward 0.0, not done. An agent that wants exactly so many
    episodes can let rows idle (under ``DISABLED``, also rows that have ended; under ``NEXT_STEP`` a rested
    row is not yet reset).

    Args:
        num_envs: n.
        task: a `TextTask` to share; else its arguments in ``kwargs``.
        autoreset_mode: ``NEXT_STEP`` (Gymnasium's default), ``SAME_STEP`` or ``DISABLED``.
        defer_scores: hold ended episodes, with reward 0.0, until `collect_scores`.
        samples_per_prompt: G episodes in a row, in the order in which rows are reset, start from the same prompt; a
            ``reset()`` of all rows begins a new prompt. Algorithms that compare responses to one prompt set it themselves.
        render_mode: as of `TextGenerationEnv`; ``render()`` returns a tuple of n frames.
        **kwargs: the arguments of `TextTask`.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        task: TextTask | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        defer_scores: bool = False,
        samples_per_prompt: int = 1,
        render_mode: str | None = None,
        **kwargs: Any,
    ):
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs}: give at least 1.")
        self.task = task or TextTask(**kwargs)
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.defer_scores = defer_scores
        self.render_mode = render_mode
        self.single_observation_space = self.task.observation_space()
        self.single_action_space = self.task.action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.episodes = TextEpisodes(self.task, num_envs)
        self.samples_per_prompt = samples_per_prompt
        self.renderer = TextRenderer(self.task, render_mode)
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        self._seeds: list[int] = [-1] * num_envs
        self._due = np.zeros(num_envs, dtype=np.bool_)  # NEXT_STEP: ended, reset when they act next
        self._unscored: list[Completion] = []

    @property
    def autoreset_mode(self) -> AutoresetMode:
        return self.metadata["autoreset_mode"]

    @autoreset_mode.setter
    def autoreset_mode(self, mode: AutoresetMode | str) -> None:
        self.metadata = {**METADATA, "autoreset_mode": AutoresetMode(mode)}

    @property
    def samples_per_prompt(self) -> int:
        return self.episodes.samples_per_prompt

    @samples_per_prompt.setter
    def samples_per_prompt(self, n: int) -> None:
        self.episodes.samples_per_prompt = count("samples_per_prompt", n)
        self.episodes.deal_anew()

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generator of each sub-environment."""
        for row in range(self.num_envs):
            self._seed_row(row, None)
        return tuple(rng for rng in self._rngs if rng is not None)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of each sub-environment."""
        return tuple(self._seeds) if self.np_random else ()

    @property
    def prompt_streams(self) -> list[PromptStream | None]:
        """The `PromptStream` of each sub-environment; None before the first reset."""
        return self.episodes.streams

    def reset(  # type: ignore[override]
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Reset all rows, or those in ``options["reset_mask"]``, bool ``[n]``.

        ``options["prompt"]``: one prompt for all, or a list of n, None where one is to be drawn.

        Raises:
            ValueError: for a wrong number of seeds or prompts, or a malformed mask.
            PromptError: if a prompt cannot be used.
        """
        options = options or {}
        rows = self.episodes.all_rows
        if "reset_mask" in options:
            rows = np.flatnonzero(checked_mask(options["reset_mask"], self.num_envs))
        seeds = self._spread(seed, "seeds")
        if isinstance(seed, (int, np.integer)):
            seeds = [int(seed) + row for row in range(self.num_envs)]
        prompts = self._spread(options.get("prompt"), "prompts")
        for row in rows.tolist():
            self._seed_row(row, seeds[row])
        self._due[rows] = False
        if len(rows) == self.num_envs:
            self.episodes.deal_anew()
        self.episodes.reset(rows, [prompts[row] for row in rows])
        self._show(rows)
        infos: dict[str, Any] = {}
        if self.masks_actions:
            self._add_masks(infos, rows)
        return self.episodes.tokens.observation(), infos

    def _spread(self, value: Any, what: str) -> list[Any]:
        if isinstance(value, (list, tuple)):
            if len(value) != self.num_envs:
                raise ValueError(f"{len(value)} {what} for {self.num_envs} environments. Give one for each.")
            return list(value)
        return [value] * self.num_envs

    def _seed_row(self, row: int, seed: int | None) -> None:
        rng = self._rngs[row]
        if seed is not None or rng is None:
            rng, self._seeds[row] = seeding.np_random(seed)
            self._rngs[row] = rng
        self.episodes.seed(row, rng)

    def step(  # type: ignore[override]
        self, actions: Any
    ) -> tuple[dict[str, np.ndarray], FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Append one token to each row. Arrays of shape ``[n]``; observations are copies.

        Raises:
            gymnasium.error.ResetNeeded: if a row that acts has no running episode.
            gymnasium.error.InvalidAction: for actions that are no n tokens of the vocabulary (or -1).
        """
        actions, some_rest = self._checked(actions)
        rewards, terminated = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=np.bool_)
        infos: dict[str, Any] = {}
        rows = self.episodes.all_rows
        if some_rest or not self.episodes.running.all():
            rows = self._acting(actions)
            actions = actions[rows]
        ended, completions = self.episodes.step(rows, actions)
        if completions:
            terminated[ended] = True
            rewards[ended] = self._judge(completions)
        self._show(rows, rewards, terminated)
        if completions:
            self._finish(ended, completions, infos)
        if self.masks_actions:
            self._add_masks(infos, self.episodes.all_rows)
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        return self.episodes.tokens.observation(), rewards, terminated, truncated, infos

    def _acting(self, actions: IntArray) -> IntArray:
        """The rows that append a token: not those that rest, and not those that are due, which are reset."""
        acting = actions != REST
        due = self._due & acting
        self._restart(np.flatnonzero(due))
        rows = np.flatnonzero(acting & ~due)
        if not self.episodes.running[rows].all():
            raise gym.error.ResetNeeded(
                f"Rows {rows[~self.episodes.running[rows]].tolist()} have no running episode. Call reset() "
                "first; under DISABLED autoreset with options={'reset_mask': ...}."
            )
        return rows

    def _checked(self, actions: Any) -> tuple[IntArray, bool]:
        """The actions as int64 ``[n]``, and whether any of them rests its row."""
        array = np.asarray(actions)
        if array.shape != (self.num_envs,) or array.dtype.kind not in "iu":
            raise gym.error.InvalidAction(
                f"Actions are {array.dtype} of shape {array.shape}. Give {self.num_envs} integers, one for "
                "each row."
            )
        lowest = array.min()
        if lowest < REST or array.max() >= self.task.vocab_size:
            row = int(np.flatnonzero((array < REST) | (array >= self.task.vocab_size))[0])
            raise gym.error.InvalidAction(
                f"Action {array[row]} of row {row} is no token. Give integers in {self.single_action_space}, "
                "or -1 to rest the row."
            )
        return array.astype(np.int64, copy=False), bool(lowest == REST)

    def _judge(self, completions: list[Completion]) -> FloatArray | float:
        if self.defer_scores:
            self._unscored.extend(completions)
            return 0.0
        return self.episodes.scores(completions)

    def collect_scores(self) -> FloatArray:
        """The scores held by ``defer_scores``, float64, in the order episodes ended: by step, then by row."""
        scores = self.episodes.scores(self._unscored)
        self._unscored = []
        return scores

    def discard_scores(self) -> None:
        """Forget the episodes held by ``defer_scores``: they are never judged."""
        self._unscored = []

    def _finish(self, ended: IntArray, completions: list[Completion], infos: dict[str, Any]) -> None:
        """Tell of the ended rows in ``infos`` as SyncVectorEnv does, and reset them when the mode says."""
        there = np.zeros(self.num_envs, dtype=np.bool_)
        there[ended] = True
        told = {"completion": objects(self.num_envs, ended, completions), "_completion": there}
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            final = self.episodes.tokens.observations(ended)
            infos["final_obs"], infos["_final_obs"] = objects(self.num_envs, ended, final), there.copy()
            infos["final_info"], infos["_final_info"] = told, there.copy()
            self._restart(ended)
        else:
            infos.update(told)
            self._due[ended] = self.autoreset_mode == AutoresetMode.NEXT_STEP

    def _restart(self, rows: IntArray) -> None:
        self._due[rows] = False
        self.episodes.reset(rows)
        self._show(rows)

    def _add_masks(self, infos: dict[str, Any], rows: IntArray) -> None:
        running = np.zeros(self.num_envs, dtype=np.bool_)
        running[rows] = self.episodes.running[rows]
        if running.any():
            infos["action_mask"], infos["_action_mask"] = self.action_masks() & running[:, None], running

    def action_masks(self) -> BoolArray:
        """The legal tokens, bool ``[n, V]``; all True in rows whose episode has ended."""
        return self.episodes.action_masks()

    def render(self) -> tuple[Any, ...] | None:
        """The frame of each row."""
        return tuple(self.renderer.frame(self.episodes, row) for row in range(self.num_envs))

    def _show(
        self, rows: IntArray, rewards: FloatArray | None = None, ended: BoolArray | None = None
    ) -> None:
        if self.render_mode != "human":
            return
        for row in rows:
            score = float(rewards[row]) if rewards is not None and ended is not None and ended[row] else None
            self.renderer.show(self.episodes, int(row), score)


def objects(n: int, rows: IntArray, values: Sequence[Any]) -> npt.NDArray[np.object_]:
    """An object array ``[n]`` with ``values`` in ``rows``, None elsewhere."""
    array = np.full(n, None, dtype=object)
    array[rows] = np.fromiter(values, object, len(values))
    return array


def checked_mask(mask: Any, n: int) -> BoolArray:
    """``options["reset_mask"]``, under the rules of ``SyncVectorEnv.reset``."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError(f"options['reset_mask'] is {type(mask).__name__}. Give a numpy array of bool.")
    if mask.shape != (n,) or not mask.any():
        raise ValueError(
            f"options['reset_mask'] has shape {mask.shape} and {int(mask.sum())} True. Give {n} values, one "
            "or more True."
        )
    return mask
