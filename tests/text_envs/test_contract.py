"""Every registered environment keeps the contract that users' own environments are offered."""

import gymnasium as gym
import numpy as np

import text_envs  # noqa: F401 (registers)
from text_envs.letters import letter_tokenizer
from text_envs.testing import EnvContract


class TestBandit(EnvContract):
    env_id = "text_envs/Bandit-v0"
    kwargs = {"rewards": [0.0, 0.5, 2.0]}


class TestCountLetter(EnvContract):
    env_id = "text_envs/CountLetter-v0"


class TestCopy(EnvContract):
    env_id = "text_envs/Copy-v0"


class TestSort(EnvContract):
    env_id = "text_envs/Sort-v0"


class TestSupportReply(EnvContract):
    env_id = "text_envs/SupportReply-v0"
    steps = 90


def letter_share(completions):
    return [completion.response.count("a") / 7 for completion in completions]


def no_letter_twice(batch):
    mask = np.ones((len(batch), 4), dtype=bool)
    last = batch.input_ids[np.arange(len(batch)), batch.lengths - 1]
    mask[np.arange(len(batch)), last] = False
    return mask


class TestGeneric(EnvContract):
    """Prompts of many lengths, EOS, a stop string, and masks from a function."""

    env_id = "text_envs/TextGeneration-v0"
    kwargs = {
        "tokenizer": letter_tokenizer("abcd"),
        "prompts": ["a" * n for n in range(1, 9)] + [{"prompt": "dcba", "answer": 4}],
        "reward_model": letter_share,
        "max_new_tokens": 7,
        "max_prompt_tokens": 6,
        "prompts_too_long": "truncate_left",
        "eos_token_id": 3,
        "stop": ["bcb"],
        "allowed_tokens": no_letter_twice,
    }


def random_words(rng):
    while True:
        yield "".join(rng.choice(list("abcd"), size=rng.integers(1, 5)))


class TestEndlessPrompts(EnvContract):
    env_id = "text_envs/TextGeneration-v0"
    kwargs = {
        "tokenizer": letter_tokenizer("abcd"),
        "prompts": random_words,
        "reward_model": letter_share,
        "max_new_tokens": 4,
        "max_prompt_tokens": 4,
    }


def test_every_registered_environment_is_tested_here():
    registered = {env_id for env_id in gym.registry if env_id.startswith("text_envs/")}
    tested = {
        value.env_id for value in globals().values() if isinstance(value, type) and hasattr(value, "env_id")
    }
    assert registered == tested
