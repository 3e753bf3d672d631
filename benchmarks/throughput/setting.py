"""The task that all contenders run: a GPT-2, prompts of one length, and a reward that costs nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

if TYPE_CHECKING:  # a contender in a Python of its own has nothing of ours
    from reward_models import Completion

PAD, EOS = 0, 1


@dataclass(frozen=True)
class Setting:
    """Sizes; lengths in tokens, batches in episodes.

    ``mean_length`` and ``limit`` describe the ragged episodes: response lengths are geometric with this mean, cut at the
    limit, because every step ends an episode with probability 1 / mean_length. ``device`` is where the contenders run.
    """

    layers: int = 4
    hidden: int = 256
    heads: int = 4
    vocabulary: int = 2048
    prompt: int = 32
    response: int = 48
    episodes: int = 64
    epochs: int = 4
    minibatch: int = 16
    slots: int = 32
    ragged_episodes: int = 256
    mean_length: int = 24
    limit: int = 128
    num_envs: int = 256
    learning_rate: float = 1e-6
    device: str = "cpu"

    @property
    def tokens(self) -> int:
        """Response tokens of one iteration at even lengths."""
        return self.episodes * self.response

    @property
    def positions(self) -> int:
        """The longest sequence that the model has to take."""
        return max(256, self.prompt + self.limit, self.prompt + self.response)

    def config(self) -> PreTrainedConfig:
        """A GPT-2 of these sizes, without dropout."""
        return GPT2Config(
            vocab_size=self.vocabulary,
            n_positions=self.positions,
            n_embd=self.hidden,
            n_layer=self.layers,
            n_head=self.heads,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
            pad_token_id=PAD,
            bos_token_id=EOS,
            eos_token_id=EOS,
        )


@dataclass(frozen=True)
class QwenSetting(Setting):
    """The same task for a model built like Qwen2, with grouped heads and tied embeddings."""

    mlp: int = 4864
    kv_heads: int = 2

    def config(self) -> PreTrainedConfig:
        """A Qwen2 of these sizes."""
        return Qwen2Config(
            vocab_size=self.vocabulary,
            max_position_embeddings=self.positions,
            hidden_size=self.hidden,
            intermediate_size=self.mlp,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            tie_word_embeddings=True,
            pad_token_id=PAD,
            bos_token_id=EOS,
            eos_token_id=EOS,
        )


def make_model(setting: Setting, ends_early: bool = False, seed: int = 0) -> PreTrainedModel:
    """A random model on the setting's device; all else as transformers makes it.

    ``ends_early`` gives the output layer a bias that makes EOS come with probability 1 / mean_length at every step,
    whatever the context: whoever runs the model then gets geometric lengths, without a logits processor.
    """
    torch.manual_seed(seed)
    config = setting.config()
    with torch.device(setting.device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        if ends_early:
            weight = model.lm_head.weight.detach().clone()
            # Without the EOS row's own noise its logit is its bias; the others' log-sum-exp is log V plus half
            # their variance.
            weight[EOS] = 0.0
            others = math.log(setting.vocabulary - 1) + 0.5 * setting.hidden * config.initializer_range**2
            model.lm_head = nn.Linear(setting.hidden, setting.vocabulary, bias=True)
            with torch.no_grad():
                model.lm_head.weight.copy_(weight)
                model.lm_head.bias.zero_()
                model.lm_head.bias[EOS] = others - math.log(setting.mean_length - 1)
    return model.eval()


def make_value_model(setting: Setting) -> PreTrainedModel:
    """A value model as TRL has it: the same trunk with a score for each token."""
    config = setting.config()
    config.num_labels = 1
    return AutoModelForSequenceClassification.from_config(config)


def make_tokenizer(setting: Setting) -> PreTrainedTokenizerFast:
    """One word per id: "w5" is token 5."""
    words = {"<pad>": PAD, "<eos>": EOS} | {f"w{i}": i for i in range(2, setting.vocabulary)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def make_prompts(setting: Setting, n: int = 256) -> list[str]:
    """``n`` random prompts of exactly ``setting.prompt`` tokens."""
    ids = np.random.default_rng(0).integers(2, setting.vocabulary, size=(n, setting.prompt))
    return [" ".join(f"w{i}" for i in row) for row in ids]


def score_ids(response_ids: Sequence[int]) -> float:
    """A score that costs nothing but differs: a constant one would let the gradients, and with them Adam's moments, shrink
    to denormal numbers, which are slow to compute with."""
    return response_ids[0] % 10 / 10


def trivial_reward(completions: Sequence[Completion]) -> list[float]:
    """``score_ids`` of each response."""
    return [score_ids(completion.response_ids) for completion in completions]
