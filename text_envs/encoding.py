"""PromptEncoder: from a prompt's text to its token ids, under the rules for what is too long or not text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from text_envs.tokenizer import leading_special_ids
from text_envs.tokens import IntArray

TooLong = Literal["truncate_left", "truncate_right", "drop", "error"]


class PromptError(ValueError):
    """A prompt that cannot be used. The message names its row, or its file and line, and how to mend it."""


class PromptEncoder:
    """Encodes prompts, with the special tokens that the tokenizer puts before a text.

    Special-token text inside a prompt, such as ``</s>``, is plain text. A prompt without tokens becomes
    ``[bos]``.

    Args:
        tokenizer: a Hugging Face tokenizer.
        limit: longest prompt in tokens, or None.
        too_long: ``"truncate_left"`` keeps the end, as transformers' ``truncation_side="left"``;
            ``"truncate_right"`` the opening; both keep the leading special tokens. ``"drop"`` and ``"error"``
            do as they say.
        vocab_size: ids at or above it are an error.

    Raises:
        ValueError: for an unknown rule, or a limit that leaves a prompt no token.
    """

    def __init__(self, tokenizer: Any, limit: int | None, too_long: TooLong, vocab_size: int | None = None):
        if too_long not in get_args(TooLong):
            names = ", ".join(get_args(TooLong))
            raise ValueError(f"prompts_too_long={too_long!r} is not known. Use one of {names}.")
        self.tokenizer, self.limit, self.too_long, self.vocab_size = tokenizer, limit, too_long, vocab_size
        self.prefix = leading_special_ids(tokenizer)
        if limit is not None and limit <= len(self.prefix):
            raise ValueError(
                f"max_prompt_tokens={limit} leaves a prompt no room after the tokenizer's leading special "
                f"tokens {self.prefix}. Give at least {len(self.prefix) + 1}."
            )

    def encode(self, texts: Sequence[str], where: Sequence[str]) -> list[tuple[IntArray | None, bool]]:
        """For each text its ids, None where it is dropped, and whether it was truncated.

        Args:
            texts: the prompts.
            where: what messages call each of them, such as ``prompts[3]``.

        Raises:
            PromptError: for a text with lone surrogates, that the tokenizer refuses, without tokens where there
                is no BOS, outside the vocabulary, or too long under ``"error"``.
        """
        for text, place in zip(texts, where):
            check_unicode(text, place)
        encoded = plain_ids(self.tokenizer, texts, where)
        return [self._fit(self._begin(ids, place), place) for ids, place in zip(encoded, where)]

    def _begin(self, ids: Sequence[int], where: str) -> IntArray:
        ids = self.prefix + list(ids)
        if not ids:
            if self.tokenizer.bos_token_id is None:
                raise PromptError(
                    f"{where} has no tokens, and the tokenizer has no BOS token to start from. Leave empty "
                    "prompts out, or set tokenizer.bos_token."
                )
            ids = [self.tokenizer.bos_token_id]
        if self.vocab_size is not None and max(ids) >= self.vocab_size:
            raise PromptError(
                f"{where} holds the token {max(ids)}, outside vocab_size={self.vocab_size}. vocab_size must "
                "be at least the number of the tokenizer's tokens; is it the model's tokenizer?"
            )
        return np.array(ids, dtype=np.int64)

    def _fit(self, ids: IntArray, where: str) -> tuple[IntArray | None, bool]:
        if self.limit is None or len(ids) <= self.limit:
            return ids, False
        if self.too_long == "drop":
            return None, False
        if self.too_long == "error":
            raise PromptError(
                f"{where} has {len(ids)} tokens, more than max_prompt_tokens={self.limit}. Raise it, or say "
                "what becomes of long prompts with prompts_too_long='truncate_left', 'truncate_right' or "
                "'drop'."
            )
        if self.too_long == "truncate_right":
            return ids[: self.limit].copy(), True
        head = len(self.prefix)
        return np.concatenate([ids[:head], ids[len(ids) - self.limit + head :]]), True


def plain_ids(tokenizer: Any, texts: Sequence[str], where: Sequence[str]) -> list[list[int]]:
    """The ids of texts without special tokens: what looks like one is plain text.

    Raises:
        PromptError: for a text that the tokenizer refuses, named by its entry of ``where``.
    """
    try:
        encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)
        return encoded["input_ids"]
    except (
        Exception
    ) as error:  # of no class of its own, such as of a vocabulary without a token for the unknown
        if len(texts) == 1:
            raise PromptError(
                f"{where[0]} cannot be encoded: the tokenizer says {error}. Repair it, or leave it out."
            ) from error
        return [plain_ids(tokenizer, [text], [place])[0] for text, place in zip(texts, where)]


def check_unicode(text: str, where: str) -> None:
    """Raises PromptError for a text with a lone surrogate, which no tokenizer can read."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(
            f"{where} has a lone surrogate, {text[error.start]!r}, at character {error.start}: it is not "
            "valid Unicode. Repair it, e.g. text.encode('utf-16', 'surrogatepass').decode('utf-16', "
            "'replace')."
        ) from None
