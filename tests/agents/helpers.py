"""Small models and environments that the tests of agents/ share."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from transformers import AutoConfig, AutoModelForCausalLM

import text_envs  # noqa: F401  registers the ids
from agents.policy import CausalLMPolicy
from text_envs.letters import letter_tokenizer

LETTERS = "abcdefghijkl"
NO_SPECIAL = dict(pad_token_id=None, bos_token_id=None, eos_token_id=None)
ARCHITECTURES = {
    "gpt2": dict(n_embd=32, n_layer=2, n_head=4, n_positions=64),  # learned positions
    "llama": dict(  # rotary positions
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64,
    ),
}  # fmt: skip


def small_lm(architecture: str = "llama", vocab_size: int = len(LETTERS), **settings):
    """A causal LM with random weights, large enough that no two tokens are equally likely."""
    config = AutoConfig.for_model(
        architecture, vocab_size=vocab_size, **NO_SPECIAL, **(ARCHITECTURES[architecture] | settings)
    )
    config.initializer_range = 0.3
    return AutoModelForCausalLM.from_config(config)


def letters_env(**kwargs):
    """Prompts of 1 to 5 letters, answers of at most 6; "l" ends an answer, "a" is worth a point."""
    settings = dict(
        tokenizer=letter_tokenizer(LETTERS),
        prompts=["a", "bc", "def", "ghijk", "aaaa"],
        reward_model=lambda completions: [float(c.response.count("a")) for c in completions],
        max_new_tokens=6,
        eos_token_id=LETTERS.index("l"),
    )
    return gym.make("text_envs/TextGeneration-v0", **(settings | kwargs))


def letters_policy(model=None, length: int = 11, vocab_size: int = len(LETTERS), **kwargs) -> CausalLMPolicy:
    observation_space = spaces.Dict(
        input_ids=spaces.Box(0, vocab_size - 1, (length,), np.int64),
        attention_mask=spaces.MultiBinary(length),
    )
    return CausalLMPolicy(
        observation_space, spaces.Discrete(vocab_size), lambda _: 1e-3, model=model or small_lm(), **kwargs
    )
