"""Tokenizers and prompts for the probe tasks: a letter, or a word, is a token. Made in memory, nothing is read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_WORDS = 4096


def letter_tokenizer(letters: str) -> Any:
    """A Hugging Face tokenizer whose token i is ``letters[i]``, with no special token.

    Raises:
        ValueError: if a letter occurs twice, or there is none.
    """
    if not letters or len(set(letters)) < len(letters):
        raise ValueError(f"letters={letters!r} must be different letters, at least one.")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(letters)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


def word_tokenizer(words: Sequence[str]) -> Any:
    """A Hugging Face tokenizer whose token i is ``words[i]``; a space stands between words. No special token.

    Raises:
        ValueError: if a word occurs twice, holds white space or is empty, or there is none.
    """
    if not words or len(set(words)) < len(words) or any(word.split() != [word] for word in words):
        raise ValueError(f"words={list(words)!r} must be different words without white space, at least one.")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


def words(letters: str, length: int) -> list[str]:
    """All words of ``length`` letters; where there are more than 4,096, so many of them, always the same."""
    if length < 1:
        raise ValueError(f"length={length}: give at least 1.")
    if len(letters) ** length <= MOST_WORDS:
        return ["".join(word) for word in itertools.product(letters, repeat=length)]
    picks = np.random.default_rng(0).integers(len(letters), size=(MOST_WORDS, length))
    return ["".join(letters[i] for i in pick) for pick in picks]


def share_of_matches(response: str, wanted: str) -> float:
    """The share of positions at which ``response`` has the letter of ``wanted``."""
    return sum(a == b for a, b in zip(response, wanted)) / len(wanted)
