"""What the environments need to know of a Hugging Face tokenizer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from operator import index
from pathlib import Path
from typing import Any

from reward_models.completion import in_short


def load_tokenizer(tokenizer: Any) -> Any:
    """A tokenizer object as it is; of a folder or name, the tokenizer it holds.

    A folder with ``tokenizer.json`` needs no torch.

    Raises:
        ValueError: if there is none.
        TypeError: for an object that is no tokenizer.
    """
    if not isinstance(tokenizer, (str, os.PathLike)):
        if not callable(getattr(tokenizer, "batch_decode", None)):
            raise TypeError(
                f"tokenizer is a {type(tokenizer).__name__}. Give a Hugging Face tokenizer, or its folder."
            )
        return tokenizer
    name = os.fspath(tokenizer)
    if not os.path.isdir(name) and name.startswith((os.sep, ".", "~")):
        raise ValueError(f"There is no folder {name!r}. Give a tokenizer, or a folder with tokenizer.json.")
    try:
        if os.path.isfile(os.path.join(name, "tokenizer.json")):
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(name)
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(name)
    except Exception as error:  # tokenizers raises Exception itself
        raise ValueError(
            f"No tokenizer at {name!r}: {in_short(error)}. Give a folder with tokenizer.json, or a tokenizer object."
        ) from error


def find_eos(tokenizer: Any, eos_token_id: int | Sequence[int] | None, vocab_size: int) -> tuple[int, ...]:
    """The ids that end a response, sorted: as given, else of ``generation_config.json``, else the tokenizer.

    Raises:
        ValueError: for an id outside the vocabulary, or a generation_config.json that cannot be read.
    """
    eos = eos_token_id
    if eos is None:
        generation = Path(str(getattr(tokenizer, "name_or_path", None) or "")) / "generation_config.json"
        if generation.is_file():
            eos = _settings(generation).get("eos_token_id")
    if eos is None:
        eos = tokenizer.eos_token_id
    try:
        ids = (
            ()
            if eos is None
            else tuple(sorted({index(i) for i in (eos if isinstance(eos, Iterable) else [eos])}))
        )
    except TypeError:
        raise ValueError(
            f"eos_token_id={eos!r} is no token id. Give an integer, or a list of them."
        ) from None
    if ids and not 0 <= ids[0] <= ids[-1] < vocab_size:
        raise ValueError(
            f"eos_token_id={list(ids)} is outside the vocabulary of {vocab_size}. Give ids of this "
            "tokenizer, or a larger vocab_size."
        )
    return ids


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}. Mend it, or remove it.") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds {settings!r:.60}, no settings. Mend it, or remove it.")
    return settings


def decode(tokenizer: Any, sequences: Sequence[Sequence[int]]) -> list[str]:
    """The texts of token sequences, special tokens left out.

    A fast tokenizer with nothing to clean up decodes the batch in one call: half the time of ``batch_decode``.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or tokenizer.clean_up_tokenization_spaces or customizes_decoding(type(tokenizer)):
        return tokenizer.batch_decode(sequences, skip_special_tokens=True)
    return backend.decode_batch(sequences, skip_special_tokens=True)


def customizes_decoding(tokenizer_class: type[Any]) -> bool:
    """Whether a tokenizer class decodes otherwise than ``PreTrainedTokenizerFast``."""
    from transformers import PreTrainedTokenizerFast as Fast

    names = ("decode", "batch_decode", "_decode")
    return any(getattr(tokenizer_class, name) is not getattr(Fast, name) for name in names)


def leading_special_ids(tokenizer: Any) -> list[int]:
    """The special tokens that the tokenizer puts before a text: ``[bos]``, or ``[]`` (GPT-2 puts none)."""
    try:
        encoding = tokenizer("a", return_special_tokens_mask=True)
    except Exception:  # a vocabulary of whole words that lacks this one, and a token for unknown words
        known = next(i for i in tokenizer.get_vocab().values() if i not in tokenizer.all_special_ids)
        encoding = tokenizer(tokenizer.decode([known]), return_special_tokens_mask=True)
    ids: list[int] = []
    for token, special in zip(encoding["input_ids"], encoding["special_tokens_mask"]):
        ends = token == tokenizer.eos_token_id and token != tokenizer.bos_token_id
        if not special or ends:
            break
        ids.append(token)
    return ids


def token_id(token: int | str, tokenizer: Any, vocab_size: int) -> int:
    """The id of a token given as an id, as its string in the vocabulary, or as text that encodes to it alone.

    Raises:
        ValueError: if it is not one token, or outside the vocabulary.
    """
    if isinstance(token, str):
        vocabulary = tokenizer.get_vocab()
        ids = (
            [vocabulary[token]] if token in vocabulary else tokenizer.encode(token, add_special_tokens=False)
        )
        if len(ids) != 1:
            raise ValueError(f"{token!r} is {len(ids)} tokens, {ids}. Name single tokens, or give their ids.")
        token = int(ids[0])
    if not 0 <= token < vocab_size:
        raise ValueError(f"Token {token} is outside the vocabulary of {vocab_size}. Give ids below it.")
    return int(token)
