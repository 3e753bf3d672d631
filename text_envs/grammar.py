"""Regular expressions and JSON schemas as legal-token masks: ``allowed_tokens=Regex("[0-9]+")``.

xgrammar (Dong et al. 2024) does the matching; it comes with the extra ``[grammar]``. It declares triton, 286 MB, which masks
on a CPU never import; without it: ``pip install --no-deps xgrammar; pip install apache-tvm-ffi pydantic``. It imports
torch, when the first environment with a grammar is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from text_envs.tokens import TokenBatch

BoolArray: TypeAlias = npt.NDArray[np.bool_]

INSTALL = (
    "A grammar as allowed_tokens needs xgrammar, which is not installed. Do: pip install 'text-envs[grammar]', or without "
    "its 286 MB of triton: pip install --no-deps xgrammar; pip install apache-tvm-ffi pydantic."
)


@dataclass(frozen=True)
class Grammar:
    """What whole responses look like; use `Regex` or `JSONSchema`."""

    def compile(self, compiler: Any) -> Any:
        """The ``xgrammar.CompiledGrammar`` that a ``GrammarCompiler`` makes of it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Regex(Grammar):
    """Responses that a regular expression matches whole.

    Args:
        pattern: in the common syntax: characters, classes, groups, ``|``, ``* + ? {m,n}``; without look-around and
            back-references. White space counts, that which joins prompt and response too.
    """

    pattern: str

    def compile(self, compiler: Any) -> Any:
        return compiler.compile_regex(self.pattern)


@dataclass(frozen=True)
class JSONSchema(Grammar):
    """Responses that are JSON and valid against a schema, with properties in the schema's order.

    Args:
        schema: JSON Schema as a dict, or as its JSON text. Objects have no properties but those named, unless
            ``additionalProperties`` allows them.
        whitespace: whether white space may stand wherever JSON allows it. By default it is as `json.dumps` writes it:
            ``{"a": 1, "b": [2, 3]}``; a policy that may write blanks for ever sometimes does.

    In strings with ``minLength`` or ``maxLength`` xgrammar 0.2.8 lets raw control characters through, which JSON forbids:
    limit them by a ``pattern`` instead.
    """

    schema: Mapping[str, Any] | str
    whitespace: bool = False

    def compile(self, compiler: Any) -> Any:
        schema = self.schema if isinstance(self.schema, str) else json.dumps(self.schema)
        return compiler.compile_json_schema(schema, any_whitespace=self.whitespace)


class GrammarMask:
    """The tokens with which each response can still become one of the grammar's: a function ``(TokenBatch) -> bool [n, V]``.

    EOS is legal exactly where the response may end. Special tokens print nothing and are never legal. A response that the
    grammar refused, because the policy knows no masks, may only end. Tokens that the environment itself appended are
    passed over.

    Each row's parser goes on from the tokens it has seen, whichever call showed them; it begins anew where a row's
    tokens are no continuation of these. What it holds is not copied or pickled, but made again.

    Args:
        grammar: what responses look like.
        tokenizer: a fast Hugging Face tokenizer whose tokens' texts join without anything between them.
        vocab_size: V.
        eos_token_ids: the tokens that end a response, one or more.

    Raises:
        ImportError: without xgrammar.
        ValueError: for a grammar that cannot be compiled, a task without EOS, or another tokenizer.
    """

    def __init__(self, grammar: Grammar, tokenizer: Any, vocab_size: int, eos_token_ids: Sequence[int]):
        if not eos_token_ids:
            raise ValueError(
                f"{grammar} has no token to end a response with: the task has no EOS. Give eos_token_id."
            )
        self.grammar, self.tokenizer, self.vocab_size = grammar, tokenizer, vocab_size
        self.eos_token_ids = tuple(eos_token_ids)
        self._prepare()

    def _prepare(self) -> None:
        self.compiled = compile_grammar(self.grammar, self.tokenizer, self.vocab_size, self.eos_token_ids)
        self._parsers: WeakKeyDictionary[TokenBatch, list[RowParser]] = WeakKeyDictionary()

    def __call__(self, batch: TokenBatch) -> BoolArray:
        parsers = self._parsers.get(batch)
        if parsers is None:
            parsers = [
                RowParser(self.compiled, self.vocab_size, self.eos_token_ids) for _ in range(len(batch))
            ]
            self._parsers[batch] = parsers
        return np.stack([parser.legal_after(chosen(batch, row)) for row, parser in enumerate(parsers)])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("compiled", "_parsers")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()


class RowParser:
    """Where one response stands in a grammar.

    Attributes:
        ids: the tokens seen.
        legal: what may follow them, bool ``[V]``.
    """

    def __init__(self, compiled: Any, vocab_size: int, eos_token_ids: Sequence[int]):
        from xgrammar import GrammarMatcher

        self.matcher = GrammarMatcher(compiled)
        self.only_eos = np.zeros(vocab_size, dtype=np.bool_)
        self.only_eos[list(eos_token_ids)] = True
        self.ids: list[int] = []
        self.follows = True  # whether the grammar has accepted every token
        self.legal = self._fill()

    def legal_after(self, ids: list[int]) -> BoolArray:
        """The tokens that may follow ``ids``, bool ``[V]``."""
        if ids != self.ids:
            if ids[: len(self.ids)] != self.ids:  # another response
                self.matcher.reset()
                self.ids, self.follows = [], True
            for token in ids[len(self.ids) :]:
                self.follows = self.follows and self.matcher.accept_token(token)
            self.ids, self.legal = ids, self._fill()
        return self.legal

    def _fill(self) -> BoolArray:
        if not self.follows or self.matcher.is_terminated():
            return self.only_eos
        words = np.zeros((1, -(-len(self.only_eos) // 32)), dtype=np.int32)
        self.matcher.fill_next_token_bitmask(words)
        bits = np.unpackbits(words.astype("<i4").view(np.uint8), bitorder="little", count=len(self.only_eos))
        return bits.astype(np.bool_)


def chosen(batch: TokenBatch, row: int) -> list[int]:
    """The tokens of a row's response that the policy chose."""
    response = slice(batch.prompt_lengths[row], batch.lengths[row])
    return batch.input_ids[row, response][batch.action_mask[row, response]].tolist()


def compile_grammar(grammar: Grammar, tokenizer: Any, vocab_size: int, eos: Sequence[int]) -> Any:
    """The ``xgrammar.CompiledGrammar`` for a tokenizer's vocabulary; raises as `GrammarMask`."""
    try:
        from xgrammar import GrammarCompiler, TokenizerInfo
    except ImportError as error:
        raise ImportError(INSTALL) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None:
        raise ValueError(
            f"The tokenizer, a {type(tokenizer).__name__}, has no decoder that joins its tokens, so {grammar} cannot be "
            "read off them. Use a byte-level or SentencePiece tokenizer in its fast form."
        )
    known = TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocab_size, stop_token_ids=list(eos))
    texts = [""] * vocab_size  # a token without a text is never legal
    for token, i in tokenizer.get_vocab().items():
        if i < vocab_size and i not in tokenizer.all_special_ids:
            texts[i] = token
    info = TokenizerInfo(
        texts,
        known.vocab_type,
        vocab_size=vocab_size,
        stop_token_ids=list(eos),
        add_prefix_space=known.add_prefix_space,
    )
    try:
        return grammar.compile(GrammarCompiler(info))
    except RuntimeError as error:  # of xgrammar: "[time] file:line: what is wrong"
        reason = str(error).strip().rpartition(".cc:")[2]
        raise ValueError(f"{grammar} cannot be compiled: xgrammar says {reason!r}. Correct it.") from error
