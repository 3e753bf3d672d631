"""Tokenizers that tasks train in memory, on their own texts, so that nothing need be shipped or downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

PAD, EOS = "<pad>", "<eos>"


def trained_tokenizer(texts: Iterable[str], vocab_size: int = 512) -> Any:
    """A byte-level BPE (Radford et al. 2019) trained on ``texts``: any text can be encoded, the task's own in few tokens.

    Token 0 pads and token 1 ends a response. The same texts give the same tokenizer.

    Args:
        texts: some thousand are enough; a second goes into some ten thousand short ones.
        vocab_size: at most this many tokens, the 256 bytes and the two special ones included.

    Raises:
        ValueError: for a vocabulary that cannot hold the bytes.
    """
    if vocab_size < 258:
        raise ValueError(
            f"vocab_size={vocab_size}: the 256 bytes and 2 special tokens need 258. Give at least as many."
        )
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, clean_up_tokenization_spaces=False
    )
