"""TokenMask: which tokens are legal now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from text_envs.grammar import Grammar, GrammarMask
from text_envs.tokenizer import token_id
from text_envs.tokens import TokenBatch

BoolArray: TypeAlias = npt.NDArray[np.bool_]
AllowedTokens: TypeAlias = Sequence[int | str] | Callable[[TokenBatch], BoolArray] | Grammar


class TokenMask:
    """The legal tokens of every row: always the same few, or what a function of the tokens so far, or a grammar, says.

    A mask advises the policy, as everywhere in Gymnasium: an environment does not refuse an illegal token, so
    that algorithms that know no masks run on it too. Where a list leaves EOS out, responses end at their
    length.

    Args:
        allowed_tokens: token ids and token strings; or a function ``(TokenBatch) -> bool [n, V]``; or a
            `text_envs.grammar.Regex` or `text_envs.grammar.JSONSchema`.
        tokenizer: looks up token strings.
        vocab_size: V.
        eos_token_ids: what ends a response, for grammars.

    Raises:
        ValueError: for an id outside the vocabulary, a string that is not one token, an empty list, or a grammar that
            cannot be used.
    """

    def __init__(
        self,
        allowed_tokens: AllowedTokens,
        tokenizer: Any,
        vocab_size: int,
        eos_token_ids: Sequence[int] = (),
    ):
        self.vocab_size = vocab_size
        self.function: Callable[[TokenBatch], BoolArray] | None = None
        self.allowed = np.zeros(vocab_size, dtype=np.bool_)
        if isinstance(allowed_tokens, Grammar):
            allowed_tokens = GrammarMask(allowed_tokens, tokenizer, vocab_size, eos_token_ids)
        if callable(allowed_tokens):
            self.function = allowed_tokens
            return
        if (
            isinstance(allowed_tokens, str)
            or not hasattr(allowed_tokens, "__len__")
            or not len(allowed_tokens)
        ):
            raise ValueError(
                f"allowed_tokens={allowed_tokens!r} is no list of tokens. Give ids, strings or a function."
            )
        for token in allowed_tokens:
            self.allowed[token_id(token, tokenizer, vocab_size)] = True

    def __call__(self, batch: TokenBatch, running: BoolArray) -> BoolArray:
        """The legal tokens, bool ``[n, V]``; all True in rows that are not ``running`` [n].

        Raises:
            ValueError: if the function returns another shape or type, or leaves a running row no token.
        """
        if self.function is None:
            mask = np.repeat(self.allowed[None], len(batch), axis=0)
        else:
            mask = np.array(self.function(batch))
            if mask.shape != (len(batch), self.vocab_size) or mask.dtype != np.bool_:
                raise ValueError(
                    f"The allowed_tokens function returned {mask.dtype} of shape {mask.shape}. It must "
                    f"return bool of shape {(len(batch), self.vocab_size)}: a row per episode, a column per "
                    "token."
                )
        mask[~running] = True
        stuck = np.flatnonzero(~mask.any(axis=1))
        if len(stuck):
            row = int(stuck[0])
            raise ValueError(
                f"The allowed_tokens function leaves episode {row} no token after {batch.response(row)}. At "
                "least one must stay legal, EOS for instance."
            )
        return mask
