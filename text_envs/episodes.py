"""TextEpisodes: n episodes in progress. The single and the vector environment are both views of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from reward_models import Completion, score
from text_envs.completions import EOS, LENGTH, STOP, EndedEpisodes
from text_envs.prompts import Prompt, PromptSource, PromptStream
from text_envs.task import TextTask
from text_envs.tokens import IntArray, TokenBatch

BoolArray = npt.NDArray[np.bool_]


class TextEpisodes:
    """n episodes of one task: draws prompts, appends tokens, ends episodes, makes completions.

    Attributes:
        tokens: the `TokenBatch`, ``[n, L]``.
        running: bool ``[n]``; False before the first reset and after an episode's end.
        streams: one `PromptStream` per row; None until `seed` was called for the row.
        samples_per_prompt: so many resets in a row, counted over all rows, deal the same prompt. `deal_anew` begins the
            count again.
    """

    samples_per_prompt: int = 1

    def __init__(self, task: TextTask, n: int):
        self.task = task
        self.tokens = TokenBatch(n, task.max_length, task.filler_id)
        self.limits = np.zeros(n, dtype=np.int64)  # the length at which each row is full
        self.running = np.zeros(n, dtype=np.bool_)
        self.streams: list[PromptStream | None] = [None] * n
        self.prompts: list[Prompt | None] = [None] * n
        self.drew = [False] * n  # whether each row's present prompt is the last that its stream drew
        self.all_rows = np.arange(n)
        self.deal_anew()

    def deal_anew(self) -> None:
        """Let the next reset draw a prompt, also where the last one has not been dealt as often as it should."""
        self._dealt: Prompt | None = None
        self._n_left = 0

    def seed(self, row: int, rng: np.random.Generator) -> None:
        """Let a row draw its prompts from ``rng`` from now on; nothing changes if it does already."""
        stream = self.streams[row]
        if stream is None or stream.rng is not rng:
            self.streams[row] = PromptStream(self.task.prompts, rng)

    def reset(self, rows: IntArray, prompts: Sequence[Any] | None = None) -> None:
        """Begin new episodes in ``rows`` [k], from ``prompts`` [k] or, where None, from their streams."""
        if not len(rows):
            return
        begun = []
        for row, given in zip(rows.tolist(), prompts or repeat(None)):
            self.drew[row] = False
            self.prompts[row] = prompt = self._draw(row) if given is None else self.task.prompts.read(given)
            begun.append(prompt.ids)
        self.tokens.start(rows, begun)
        self.limits[rows] = self.tokens.prompt_lengths[rows] + self.task.max_new_tokens
        self.running[rows] = True

    def _draw(self, row: int) -> Prompt:
        if self._n_left and self._dealt is not None:
            self._n_left -= 1
            return self._dealt
        stream = self.streams[row]
        assert stream is not None, "seed(row, rng) comes first"
        self.drew[row] = True
        self._dealt, self._n_left = stream.draw(), self.samples_per_prompt - 1
        return self._dealt

    def stream_state(self, row: int, again: bool) -> dict[str, Any] | None:
        """The state of a row's stream, JSON values; ``again``: so that it draws its present prompt once more."""
        stream = self.streams[row]
        return None if stream is None else stream.state(again and self.drew[row])

    def step(self, rows: IntArray, actions: IntArray) -> tuple[IntArray, list[Completion]]:
        """Append one token to each of ``rows`` [k]; returns the rows that ended, and their completions."""
        task, tokens = self.task, self.tokens
        tokens.append(rows, actions)
        these: slice | IntArray = slice(None) if rows is self.all_rows else rows  # a slice picks faster
        full = tokens.lengths[these] >= self.limits[these]
        finish = full.view(np.int8)  # LENGTH where True
        if task.stop:
            finish[task.stopped(tokens, rows)] = STOP
        if task.eos_token_ids:
            finish[task.is_eos[actions]] = EOS
        if task.interjects:
            task.interject(tokens, rows[finish == 0])
            finish[(finish == 0) & (tokens.lengths[rows] >= self.limits[rows])] = LENGTH
        if not finish.any():
            return rows[:0], []
        ended = finish > 0
        rows = rows[ended]
        self.running[rows] = False
        return rows, self._completions(rows, finish[ended].tolist())

    def _completions(self, rows: IntArray, finish: list[int]) -> list[Completion]:
        tokens = self.tokens
        prompts: Any = [self.prompts[row] for row in rows.tolist()]  # none of them None: they have begun
        starts, ends = tokens.prompt_lengths[rows].tolist(), tokens.lengths[rows].tolist()
        return EndedEpisodes(self.task, prompts, tokens.input_ids[rows], starts, ends, finish).completions()

    def scores(self, completions: Sequence[Completion]) -> npt.NDArray[np.float64]:
        """The reward model's scores, float64 ``[len(completions)]``, in one call; no call for none."""
        return score(self.task.reward_model, completions) if completions else np.zeros(0)

    def action_masks(self) -> BoolArray:
        """The legal tokens, bool ``[n, V]``; all True where nothing is restricted, and in ended rows."""
        if self.task.mask is None:
            return np.ones((len(self.tokens), self.task.vocab_size), dtype=np.bool_)
        return self.task.mask(self.tokens, self.running)


class TaskAttributes:
    """What agents ask of any environment (by SB3's ``get_attr``, Gymnasium's ``get_wrapper_attr``)."""

    task: TextTask
    episodes: TextEpisodes

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer."""
        return self.task.tokenizer

    @property
    def prompt_source(self) -> PromptSource:
        """The prompts that episodes start from."""
        return self.task.prompts

    @property
    def default_model(self) -> str | None:
        """The Hugging Face folder that a policy starts from when the user names no model."""
        return self.task.default_model

    @property
    def max_new_tokens(self) -> int:
        """Longest response in tokens."""
        return self.task.max_new_tokens

    @property
    def max_prompt_tokens(self) -> int:
        """Longest prompt in tokens."""
        return self.task.max_prompt_tokens

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The ids that end a response."""
        return self.task.eos_token_ids

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings that end a response."""
        return self.task.stop

    @property
    def reward_counts(self) -> dict[str, int]:
        """What the reward model counts of its own failures, for the log; empty if it counts nothing."""
        return dict(getattr(self.task.reward_model, "counts", {}))

    @property
    def masks_actions(self) -> bool:
        """Whether ``action_masks()`` restricts anything."""
        return self.task.masks_actions

    @property
    def optimum(self) -> float | None:
        """The best mean score that any policy can reach, where it is known."""
        return self.task.optimum

    def prompt_states(self, again: bool = False) -> list[dict[str, Any] | None]:
        """Where the prompts of each row stand, JSON values; None before a row's first reset.

        Args:
            again: from before the present prompts were drawn, so that a reset shows them once more.
        """
        return [self.episodes.stream_state(row, again) for row in self.episodes.all_rows.tolist()]

    def set_prompt_states(self, states: Sequence[Mapping[str, Any] | None]) -> None:
        """Let each row draw its prompts from where `prompt_states` found it, also in another process.

        Raises:
            ValueError: for another number of rows, or prompts of another kind (endless or not).
        """
        if len(states) != len(self.episodes.streams):
            raise ValueError(
                f"{len(states)} states for {len(self.episodes.streams)} environments. Give one for each."
            )
        rngs: Any = self.np_random  # type: ignore[attr-defined]  # of the environment that this is a part of
        for row, (state, rng) in enumerate(zip(states, rngs if isinstance(rngs, tuple) else (rngs,))):
            if state is None:
                continue
            if (state["seed"] is None) != (self.task.prompts.endless is None):
                raise ValueError(
                    "The state belongs to prompts of another kind: endless ones have a seed, finite ones have none. "
                    "Give the environment the prompts that it had."
                )
            self.episodes.seed(row, rng)
            stream = self.episodes.streams[row]
            assert stream is not None
            stream.set_state(state)
