"""Demonstrations, pairs of a prompt and the response to imitate, as token ids and labels."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reward_models.completion import excerpt
from reward_models.files import read_rows
from reward_models.preferences.records import Demonstration, RecordError
from reward_models.preferences.rows import record_of
from text_envs.encoding import PromptEncoder, PromptError, check_unicode, plain_ids
from text_envs.tokenizer import find_eos

logger = logging.getLogger("agents")

IGNORED = -100  # the label that torch's cross-entropy leaves out
FIELDS = ("prompt", "response")

Example = dict[str, list[int]]


class Pair(NamedTuple):
    """A prompt, the response to imitate, and where a message says that they stand."""

    prompt: str
    response: str
    where: str


def read_pairs(source: Any, prompt_field: str = "prompt", response_field: str = "response") -> list[Pair]:
    """Demonstrations from a list of dicts or of `Demonstration`, a `.jsonl[.gz]` path, or a `datasets.Dataset`.

    With the default fields each row may have any shape that `reward_models.preferences.formats` reads: prompt and response,
    TRL's prompt and completion, the same as lists of messages, what the feedback store exports. Other fields are taken as
    they are named.

    Raises:
        PromptError: a row that is no demonstration, with its file and line; none at all.
    """
    if isinstance(source, str | os.PathLike):
        rows, lines = read_rows(source, error=PromptError)
        places = [f"{os.fspath(source)}, line {line}," for line in lines]
    else:
        rows, places = source, [f"demonstrations[{i}]" for i in range(len(source))]
    if not places:
        raise PromptError(f"There are no demonstrations in {excerpt(source)}. Give at least one.")
    fields = (prompt_field, response_field)
    pair_of = _pair_of_any_shape if fields == FIELDS else partial(_pair_of_fields, fields=fields)
    return [pair_of(row, place) for row, place in zip(rows, places)]


def _pair_of_any_shape(row: Any, where: str) -> Pair:
    try:
        record = row if isinstance(row, Demonstration) else record_of(row, "demonstration")
    except RecordError as error:
        raise PromptError(f"{where} {error}") from error
    assert isinstance(record, Demonstration)
    return Pair(record.prompt, record.response, where)


def _pair_of_fields(row: Any, where: str, fields: tuple[str, str]) -> Pair:
    if not isinstance(row, Mapping):
        raise PromptError(f"{where} is a {type(row).__name__}. A demonstration is a dict.")
    for field, argument in zip(fields, ("prompt_field", "response_field")):
        if field not in row:
            raise PromptError(f"{where} has no field {field!r}, only {list(row)}. Set {argument}.")
        if not isinstance(row[field], str):
            raise PromptError(f"{where} holds a {type(row[field]).__name__} in {field!r}. Give a string.")
    return Pair(row[fields[0]], row[fields[1]], where)


class DemonstrationEncoder:
    """Turns demonstrations into `input_ids` and `labels` under the environments' own rules.

    Args:
        tokenizer: a Hugging Face tokenizer.
        eos_token_id: the token, or tokens, that end a response; None: as `text_envs.tokenizer.find_eos` finds them.
        response_prefix: put before a response that does not begin with white space, such as " " where prompts end in a word.

    Attributes:
        vocab_size: the tokenizer's highest id + 1.
        eos_token_ids: the ids that end a response.
        eos: the one that is appended; None where nothing ends one.
    """

    def __init__(
        self,
        tokenizer: Any,
        eos_token_id: int | Sequence[int] | None = None,
        response_prefix: str = "",
    ):
        self.tokenizer, self.response_prefix = tokenizer, response_prefix
        self.vocab_size = max(tokenizer.get_vocab().values()) + 1
        self.eos_token_ids = find_eos(tokenizer, eos_token_id, self.vocab_size)
        own = tokenizer.eos_token_id
        self.eos = own if own in self.eos_token_ids else next(iter(self.eos_token_ids), None)
        if self.eos is None:
            logger.warning(
                "The tokenizer has no EOS token, so the model cannot learn to end. Set eos_token_id."
            )

    def __call__(self, pairs: Sequence[Pair], max_length: int) -> tuple[list[Example], int]:
        """The examples of at most `max_length` tokens, and how many longer ones were left out.

        Raises:
            PromptError: a text that cannot be encoded; nothing is left.
        """
        encoded = list(zip(self.prompts(pairs), self.responses(pairs)))
        examples = [
            {"input_ids": prompt + response, "labels": [IGNORED] * len(prompt) + response}
            for prompt, response in encoded
            if response and len(prompt) + len(response) <= max_length
        ]
        overlong = sum(len(prompt) + len(response) > max_length for prompt, response in encoded)
        if not examples:
            raise PromptError(
                f"None of the {len(pairs)} demonstrations has a response and at most {max_length} tokens. "
                "Raise max_length, or give shorter ones."
            )
        if overlong:
            logger.warning(
                "%d of %d demonstrations are longer than %d tokens and were left out (max_length).",
                overlong,
                len(pairs),
                max_length,
            )
        return examples, overlong

    def prompts(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """The ids of each prompt, as the environments encode it."""
        encoder = PromptEncoder(self.tokenizer, None, "error", self.vocab_size)
        encoded = encoder.encode([pair.prompt for pair in pairs], [pair.where for pair in pairs])
        return [ids.tolist() for ids, _ in encoded if ids is not None]

    def responses(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """The ids of each response, without special tokens but for the EOS that ends it."""
        texts = []
        for pair in pairs:
            check_unicode(pair.response, pair.where)
            glued = pair.response and not pair.response[0].isspace()
            texts.append((self.response_prefix if glued else "") + pair.response)
        end = [] if self.eos is None else [self.eos]
        return [[*ids, *end] for ids in plain_ids(self.tokenizer, texts, [pair.where for pair in pairs])]


def collate(examples: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Tensor]:
    """Right-padded `input_ids`, `attention_mask` and `labels`, int64, each of shape [examples, longest].

    The filler is id 0 under mask 0 and label -100: it is never read.
    """
    longest = max(len(example["input_ids"]) for example in examples)

    def padded(rows: Iterable[Sequence[int]], filler: int) -> Tensor:
        return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])

    return {
        "input_ids": padded((example["input_ids"] for example in examples), 0),
        "attention_mask": padded(([1] * len(example["input_ids"]) for example in examples), 0),
        "labels": padded((example["labels"] for example in examples), IGNORED),
    }
