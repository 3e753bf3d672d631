"""The language models that reward models are made of here, and how each is trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import GPT2Config, PreTrainedTokenizerFast

from reward_models.preferences import Comparison

MOST_EPOCHS = 7  # a small set is soon known by heart
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")


@dataclass(frozen=True)
class Backbone:
    """A backbone and its recipe.

    Attributes:
        label: names it in the tables.
        make: (training comparisons, data folder) -> what `learning.train` takes: model and tokenizer.
        updates: optimiser steps; a set is passed over as often as they allow, once at least and `MOST_EPOCHS` times at most.
        settings: further arguments of `learning.train`.
    """

    label: str
    make: Callable[[Sequence[Comparison], Path], tuple[Any, Any]]
    updates: int
    settings: dict[str, Any] = field(default_factory=dict)

    def epochs(self, pairs: int) -> int:
        """Passes over so many training pairs."""
        return min(MOST_EPOCHS, max(1, round(self.updates * self.settings["batch_size"] / pairs)))


def fresh(comparisons: Sequence[Comparison], data: Path) -> tuple[Any, Any]:
    """A GPT-2 of one layer with random weights, and a tokenizer of the training responses' words."""
    tokenizer = word_tokenizer(sorted({text for c in comparisons for text in c.responses}))
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=128, n_layer=1, n_head=4, n_positions=512,
        bos_token_id=1, eos_token_id=2, pad_token_id=3,
    )  # fmt: skip
    return config, tokenizer


def stories260k(comparisons: Sequence[Comparison], data: Path) -> tuple[Any, Any]:
    """The pretrained Llama of 260,032 parameters, with its own tokenizer of 512 pieces."""
    return str(data / "models" / "stories260K"), None


def word_tokenizer(texts: Sequence[str], size: int = 8000) -> PreTrainedTokenizerFast:
    """Lower-cased words and punctuation that occur at least twice; a text begins with <s> and ends with </s>."""
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(
        texts, trainers.WordLevelTrainer(vocab_size=size, min_frequency=2, special_tokens=list(SPECIAL))
    )
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), SPECIAL))
    return PreTrainedTokenizerFast(tokenizer_object=words, **names)


BACKBONES = {
    "fresh": Backbone(
        "fresh GPT-2, one layer of 128",
        fresh,
        updates=140,
        settings=dict(learning_rate=1e-3, batch_size=32, dropout=0.4, token_coef=1.0, warmup_steps=20, weight_decay=0.1,
                      template="{response}", max_length=256),
    ),
    "stories260K": Backbone(
        "stories260K",
        stories260k,
        updates=140,
        settings=dict(learning_rate=5e-4, batch_size=32, dropout=0.0, warmup_steps=20, weight_decay=0.1,
                      template="{response}", max_length=256),
    ),
}  # fmt: skip
