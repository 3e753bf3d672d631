"""A causal LM from what a user may give."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from agents.lora import plain_module
from reward_models.completion import in_short
from reward_models.sharding import load_in_each_process

SMALL_VOCABULARY = 128


def load_causal_lm(model: Any, vocab_size: int, max_length: int) -> PreTrainedModel:
    """A causal LM from what a user may give.

    Args:
        model: a folder or hub id; a PreTrainedConfig or its dict (random weights); a module, or one with a LoRA adapter
            (``peft.PeftModel``), taken as it is; or None for a small random GPT-2 (2 layers of 64), which fits vocabularies
            of at most 128 tokens.
        vocab_size, max_length: of the environment, in tokens; only None needs them.

    Raises:
        ValueError: if nothing can be made of ``model``.
    """
    if isinstance(model, nn.Module):
        return plain_module(model)
    if isinstance(model, str | os.PathLike):
        load_in_each_process()
        try:
            return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, trust_remote_code=False)
        except Exception as error:  # of transformers, safetensors, huggingface_hub
            raise ValueError(
                f"No causal LM could be loaded: from model={os.fspath(model)!r}. Give a folder that holds config.json and "
                f"weights, as save_pretrained writes it. transformers said: {in_short(error)}."
            ) from error
    if model is None:
        if vocab_size > SMALL_VOCABULARY:
            raise ValueError(
                f"No language model was given and the environment suggests none: its vocabulary has {vocab_size} tokens. "
                'Name one: policy_kwargs=dict(model="folder of a causal LM"), or --model of `rlhf`.'
            )
        return small_gpt2(vocab_size, max_length)
    if isinstance(model, Mapping) and "model_type" in model:
        settings = dict(model)
        model = AutoConfig.for_model(settings.pop("model_type"), **settings)
    if isinstance(model, PreTrainedConfig):
        return AutoModelForCausalLM.from_config(model, dtype=torch.float32)
    raise ValueError(
        f"A {type(model).__name__} is no language model: in CausalLMPolicy. Give a folder, a transformers config, its dict "
        "with model_type, or a module."
    )


def small_gpt2(vocab_size: int, max_length: int) -> PreTrainedModel:
    """A random GPT-2 of 2 layers of 64 for tasks of few letters, which learns to copy and to sort them in seconds.

    A Llama of that size takes ten times the tokens: what these tasks need are positions, and GPT-2 is told them. The
    weights are wide (0.1 is near 1 / sqrt(64), with which a layer keeps the scale of its input), those of the output layer
    narrow, so that the first policy is nearly uniform (Andrychowicz et al. 2021, "What Matters in On-Policy Reinforcement
    Learning?", section 3.2).
    """
    config = AutoConfig.for_model(
        "gpt2", vocab_size=vocab_size, n_embd=64, n_layer=2, n_head=4, n_positions=max(64, max_length),
        initializer_range=0.1, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight.mul_(0.2)
    return model
