"""Demonstrations, pairs of a prompt and the response to imitate, as token ids and labels."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from reward_models.files import read_rows
from text_envs.encoding import PromptError, check_unicode, plain_ids
from text_envs.prompts import PromptSource
from text_envs.tokenizer import find_eos

logger = logging.getLogger("agents")

IGNORED = -100  # the label that torch's cross-entropy leaves out


class DemonstrationEncoder:
    """Turns demonstrations into `input_ids` and `labels` under the environments' own rules.

    Attributes:
        vocab_size: the tokenizer's highest id + 1.
        eos_token_ids: the ids that end a response, as `text_envs.tokenizer.find_eos` finds them.
        eos: the one that is appended; None where nothing ends one.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompt_field: str = "prompt",
        response_field: str = "response",
        eos_token_id: int | Sequence[int] | None = None,
    ):
        self.tokenizer, self.prompt_field, self.response_field = tokenizer, prompt_field, response_field
        self.vocab_size = max(tokenizer.get_vocab().values()) + 1
        self.eos_token_ids = find_eos(tokenizer, eos_token_id, self.vocab_size)
        own = tokenizer.eos_token_id
        self.eos = own if own in self.eos_token_ids else next(iter(self.eos_token_ids), None)
        if self.eos is None:
            logger.warning(
                "The tokenizer has no EOS token, so the model cannot learn to end. Set eos_token_id."
            )

    def __call__(self, demonstrations: Any, max_length: int) -> tuple[list[dict[str, list[int]]], int]:
        """The examples of at most `max_length` tokens, and how many longer ones were left out.

        Raises:
            PromptError: a row that is no demonstration; nothing is left.
        """
        source = PromptSource(demonstrations, self.tokenizer, self.prompt_field, vocab_size=self.vocab_size)
        where = _places(demonstrations)
        rows = [source[i] for i in range(len(source))]
        responses = [self._response(row.columns, where(i)) for i, row in enumerate(rows)]
        encoded = plain_ids(self.tokenizer, responses, [where(i) for i in range(len(rows))])
        end = [] if self.eos is None else [self.eos]
        pairs = [(row.ids.tolist(), [*ids, *end]) for row, ids in zip(rows, encoded)]
        examples = [
            {"input_ids": prompt + response, "labels": [IGNORED] * len(prompt) + response}
            for prompt, response in pairs
            if response and len(prompt) + len(response) <= max_length
        ]
        overlong = sum(len(prompt) + len(response) > max_length for prompt, response in pairs)
        if not examples:
            raise PromptError(
                f"None of the {len(rows)} demonstrations has a response and at most {max_length} tokens. "
                "Raise max_length, or give shorter ones."
            )
        if overlong:
            logger.warning(
                "%d of %d demonstrations are longer than %d tokens and were left out (max_length).",
                overlong,
                len(rows),
                max_length,
            )
        return examples, overlong

    def _response(self, columns: Mapping[str, Any], where: str) -> str:
        if self.response_field not in columns:
            raise PromptError(
                f"{where} has no field {self.response_field!r}, only {[self.prompt_field, *columns]}. "
                "Set response_field."
            )
        text = columns[self.response_field]
        if not isinstance(text, str):
            raise PromptError(
                f"{where} holds a {type(text).__name__} in {self.response_field!r}. A response is a string."
            )
        check_unicode(text, where)
        return text


def _places(demonstrations: Any) -> Callable[[int], str]:
    """How to name row i in a message: by file and line, or by its index."""
    if isinstance(demonstrations, (str, os.PathLike)):
        lines = read_rows(demonstrations, (".jsonl", ".txt"), PromptError)[1]
        return lambda i: f"{os.fspath(demonstrations)}, line {lines[i]},"
    return lambda i: f"demonstrations[{i}]"


def collate(examples: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Tensor]:
    """Right-padded `input_ids`, `attention_mask` and `labels`, int64, each of shape [examples, longest].

    The filler is id 0 under mask 0 and label -100: it is never read.
    """
    longest = max(len(example["input_ids"]) for example in examples)

    def padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
        return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])

    return {
        "input_ids": padded([example["input_ids"] for example in examples], 0),
        "attention_mask": padded([[1] * len(example["input_ids"]) for example in examples], 0),
        "labels": padded([example["labels"] for example in examples], IGNORED),
    }
