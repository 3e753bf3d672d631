"""TextTask: what the arguments of an environment mean, worked out once and shared by all its episodes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from reward_models import make
from text_envs.encoding import TooLong
from text_envs.masks import AllowedTokens, TokenMask
from text_envs.prompts import PromptSource
from text_envs.tokenizer import decode, find_eos, load_tokenizer
from text_envs.tokens import IntArray, TokenBatch


class TextTask:
    """Prompts, a tokenizer, a reward model and the rules by which an episode ends.

    Args:
        tokenizer: a Hugging Face tokenizer, or its folder or name.
        prompts, prompt_field, max_prompt_tokens, prompts_too_long: see `text_envs.prompts.PromptSource`.
        reward_model: a name, ``"module:attr"``, callable or object: see `reward_models.make`.
        max_new_tokens: the response ends, scored, after so many tokens.
        stop: strings that end the response when they appear in its text.
        eos_token_id: the token, or tokens, that end the response. None: as ``generation_config.json`` in the
            tokenizer's folder says, else the tokenizer's EOS, else none: episodes then end at a stop string
            or at the length.
        vocab_size: V, the number of actions. None: the highest id of the tokenizer + 1. Give the model's
            where it is larger; a policy with more logits than V leaves the rest out.
        allowed_tokens: see `text_envs.masks.TokenMask`.
        default_model: the Hugging Face folder that a policy starts from when the user names no model, or
            None.

    Attributes:
        max_length: L = max_prompt_tokens + max_new_tokens.
        eos_token_ids: tuple of ids.
        masks_actions: whether ``allowed_tokens`` restricts anything.
        optimum: the best mean score that any policy can reach, where it is known, else None.

    Nothing in a task changes while episodes run, so deep copies of an environment share it, reward model
    included. A subclass may override `interject` to let the environment speak.
    """

    optimum: float | None = None

    def __init__(
        self,
        tokenizer: Any,
        prompts: Any,
        reward_model: Any,
        max_new_tokens: int = 48,
        max_prompt_tokens: int | None = None,
        prompt_field: str = "prompt",
        prompts_too_long: TooLong = "truncate_left",
        stop: str | Sequence[str] | None = (),
        eos_token_id: int | Sequence[int] | None = None,
        vocab_size: int | None = None,
        allowed_tokens: AllowedTokens | None = None,
        default_model: str | os.PathLike[str] | None = None,
    ):
        self.max_new_tokens = count("max_new_tokens", max_new_tokens)
        if max_prompt_tokens is not None:
            max_prompt_tokens = count("max_prompt_tokens", max_prompt_tokens)
        self.tokenizer = load_tokenizer(tokenizer)
        self.vocab_size = (
            max(self.tokenizer.get_vocab().values()) + 1
            if vocab_size is None
            else count("vocab_size", vocab_size)
        )
        self.reward_model = make(reward_model)
        self.prompts = PromptSource(
            prompts, self.tokenizer, prompt_field, max_prompt_tokens, prompts_too_long, self.vocab_size
        )
        self.max_prompt_tokens = self.prompts.max_prompt_tokens
        self.max_length = self.max_prompt_tokens + self.max_new_tokens
        self.stop = stop_strings(stop)
        self.eos_token_ids = find_eos(self.tokenizer, eos_token_id, self.vocab_size)
        self.is_eos = np.zeros(self.vocab_size, dtype=np.bool_)
        self.is_eos[list(self.eos_token_ids)] = True
        # Filler is never read; 0 where the tokenizer has no padding token, never EOS by inference.
        pad = self.tokenizer.pad_token_id
        self.filler_id = pad if pad is not None and pad < self.vocab_size else 0
        self.mask = (
            None
            if allowed_tokens is None
            else TokenMask(allowed_tokens, self.tokenizer, self.vocab_size, self.eos_token_ids)
        )
        self.default_model = None if default_model is None else os.fspath(default_model)
        # A stop string spans at most as many tokens as it has bytes, and a few that print nothing.
        self._stop_window = max((len(text.encode()) for text in self.stop), default=0) + 4

    def __deepcopy__(self, memo: dict[int, Any]) -> TextTask:
        return self

    @property
    def masks_actions(self) -> bool:
        return self.mask is not None

    @property
    def interjects(self) -> bool:
        """Whether a subclass lets the environment speak."""
        return type(self).interject is not TextTask.interject

    def observation_space(self) -> spaces.Dict:
        return spaces.Dict(
            {
                "input_ids": spaces.Box(0, self.vocab_size - 1, (self.max_length,), np.int64),
                "attention_mask": spaces.MultiBinary(self.max_length),
            }
        )

    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(self.vocab_size)

    def decode(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """The texts of token sequences, special tokens left out."""
        return decode(self.tokenizer, sequences)

    def interject(self, batch: TokenBatch, rows: IntArray) -> None:
        """Called after the policy's tokens, with the rows [k] that go on: append the environment's own.

        Use ``batch.append(rows, tokens, chosen=False)``. They count towards ``max_new_tokens``: leave room
        for at least one token of the policy. The default says nothing.
        """

    def stopped(self, batch: TokenBatch, rows: IntArray) -> npt.NDArray[np.bool_]:
        """Which of ``rows`` [k] hold a stop string in their response, bool ``[k]``."""
        found = np.zeros(len(rows), dtype=np.bool_)
        if not self.stop or not len(rows):
            return found
        responses = [batch.response(row) for row in rows]
        tails = self.decode([ids[-self._stop_window :] for ids in responses])
        for i, tail in enumerate(tails):
            # The tail is a cheap filter; the decoded response decides.
            if any(text in tail for text in self.stop):
                (response,) = self.decode([responses[i]])
                found[i] = any(text in response for text in self.stop)
        return found

    def before_stop(self, text: str) -> str:
        """The text up to its first stop string."""
        ends = [text.find(stop) for stop in self.stop if stop in text]
        return text[: min(ends)] if ends else text


def count(name: str, value: Any) -> int:
    """`value` as an integer of 1 or more. Raises ValueError for anything else, also for 2.5."""
    try:
        number = index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name}={value!r}: give an integer, 1 or more.")
    return number


def stop_strings(stop: Any) -> tuple[str, ...]:
    """One stop string or several, or None, as a tuple. Raises ValueError for what is no non-empty string."""
    strings = [stop] if isinstance(stop, str) else [] if stop is None else stop
    if not isinstance(strings, Iterable) or not all(isinstance(text, str) and text for text in strings):
        raise ValueError(f"stop={stop!r} holds something that is not a non-empty string. Leave it out.")
    return tuple(strings)
