"""Every registered environment keeps the contract that users' own environments are offered."""

# ruff: noqa: RUF012 (class attributes are arguments, read only)

from importlib.util import find_spec

import gymnasium as gym
import numpy as np
import pytest

from tests.text_envs.helpers import BYTES, LETTERS, response_length
from text_envs import TextGenerationEnv
from text_envs.letters import letter_tokenizer
from text_envs.tasks.bandit import BanditEnv
from text_envs.testing import EnvContract, is_json


class TestBandit(EnvContract):
    env_id = "text_envs/Bandit-v0"
    kwargs = {"rewards": [0.0, 0.5, 2.0]}


class TestCountLetter(EnvContract):
    env_id = "text_envs/CountLetter-v0"


class TestCopy(EnvContract):
    env_id = "text_envs/Copy-v0"


class TestReverse(EnvContract):
    env_id = "text_envs/Reverse-v0"


class TestSort(EnvContract):
    env_id = "text_envs/Sort-v0"


class TestIncreasingNumbers(EnvContract):
    env_id = "text_envs/IncreasingNumbers-v0"


class TestDateSentences(EnvContract):
    env_id = "text_envs/DateSentences-v0"


class TestArithmetic(EnvContract):
    env_id = "text_envs/Arithmetic-v0"
    kwargs = {"split": "held_out", "chain": True, "partial_credit": True}
    steps = 90


class TestJSONRecord(EnvContract):
    env_id = "text_envs/JSONRecord-v0"
    kwargs = {"split": "held_out"}


@pytest.mark.skipif(find_spec("xgrammar") is None, reason="needs the extra [grammar]")
class TestMaskedJSONRecord(EnvContract):
    env_id = "text_envs/JSONRecord-v0"
    kwargs = {"split": "held_out", "masked": True}


@pytest.mark.skipif(find_spec("reasoning_gym") is None, reason="needs the extra [tasks]")
class TestReasoningGym(EnvContract):
    env_id = "text_envs/ReasoningGym-v0"
    kwargs = {"dataset": "leg_counting", "size": 20, "config": {"max_animals": 4}, "max_new_tokens": 8}


class TestSupportReply(EnvContract):
    env_id = "text_envs/SupportReply-v0"
    kwargs = {"split": "held_out"}  # fewer prompts to encode, many times over
    steps = 90


class TestSentiment(EnvContract):
    env_id = "text_envs/Sentiment-v0"
    kwargs = {"split": "held_out"}


class TestKeywordSentence(EnvContract):
    env_id = "text_envs/KeywordSentence-v0"
    kwargs = {"split": "held_out"}


class TestDataToText(EnvContract):
    env_id = "text_envs/DataToText-v0"
    kwargs = {"split": "held_out"}


class TestSimplify(EnvContract):
    env_id = "text_envs/Simplify-v0"
    kwargs = {"split": "held_out"}


class OfFiles(EnvContract):
    """Environments that come without files of their own: a folder with a tokenizer, and a file of prompts."""

    row = ""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("model")
        BYTES.save_pretrained(folder)
        (folder / "prompts.jsonl").write_text(cls.row + "\n")
        cls.kwargs = {**cls.kwargs, "model": str(folder), "prompts": str(folder / "prompts.jsonl")}


class TestIMDBContinuation(OfFiles):
    env_id = "text_envs/IMDBContinuation-v0"
    row = '{"text": "We saw it last night, and"}'
    kwargs = {"reward_model": "sentiment"}  # a classifier's scores differ by rounding with the batch


class TestTLDR(OfFiles):
    env_id = "text_envs/TLDR-v0"
    row = '{"prompt": "My cat is asleep. TL;DR:", "summary": "cat sleeps"}'


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


class TestArgumentsOfJSON(EnvContract):
    """A folder, a file and names: what goes through EnvSpec.to_json."""

    env_id = "text_envs/TextGeneration-v0"

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("tokenizer")
        BYTES.save_pretrained(folder)
        (folder / "prompts.jsonl").write_text('{"text": "one", "n": 1}\n{"text": "twenty", "n": 20}\n')
        cls.kwargs = {
            "tokenizer": str(folder),
            "prompts": str(folder / "prompts.jsonl"),
            "prompt_field": "text",
            "reward_model": "tests.text_envs.helpers:response_length",
            "max_new_tokens": 9,
            "stop": ["zz"],
            "allowed_tokens": list(range(200, 259)),
        }

    def test_they_are_json(self):
        assert is_json(self.kwargs)


# -- the contract fails for environments that break it


class Broken(TextGenerationEnv):
    fault = ""

    def __init__(self, fault="", render_mode=None):
        super().__init__(LETTERS, ["a", "bc"], response_length, max_new_tokens=3, render_mode=render_mode)
        self.fault = fault

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        return obs, ({"action_mask": self.action_masks()} if self.fault == "mask" else info)

    def step(self, action):
        if self.fault == "0-d":
            action = [*range(8)][action]
        if self.fault == "after the end" and not self.episodes.running[0]:
            self.reset()
        obs, reward, terminated, truncated, info = super().step(action)
        if self.fault == "random":
            reward += terminated * np.random.default_rng().random()
        if self.fault == "truncated" and terminated:
            terminated, truncated = False, True
        if self.fault == "warns":
            obs["input_ids"] = obs["input_ids"].astype(np.float64)
        return obs, reward, terminated, truncated, info

    def render(self):
        return None if self.fault == "render" else super().render()


class Forgetful(BanditEnv):
    """Its vector environment has other rewards."""

    make_vec = classmethod(
        lambda cls, num_envs, **kwargs: BanditEnv.make_vec(num_envs, rewards=[9.0], **kwargs)
    )


gym.register("tests/Broken-v0", Broken)
gym.register("tests/Forgetful-v0", Forgetful, vector_entry_point=Forgetful.make_vec)

FAULTS = {
    "0-d": "test_takes_an_action_of_any_integer_type",
    "after the end": "test_refuses_a_step_after_the_end",
    "mask": "test_masks_leave_a_token",
    "random": "test_the_same_seed_gives_the_same_episodes",
    "render": "test_renders",
    "truncated": "test_scores_and_tells_the_completion_on_the_last_step_only",
    "warns": "test_passes_the_checkers_of_gymnasium_and_sb3_without_a_warning",
}


def contract_of(env_id, **kwargs):
    contract = EnvContract()
    contract.env_id, contract.kwargs = env_id, kwargs
    return contract


@pytest.mark.filterwarnings("ignore:.*ANSI")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_breaks_the_contract(fault):
    getattr(contract_of("tests/Broken-v0"), FAULTS[fault])()
    with pytest.raises((AssertionError, TypeError, UserWarning)):
        getattr(contract_of("tests/Broken-v0", fault=fault), FAULTS[fault])()


def test_a_vector_environment_of_another_kind_breaks_the_contract():
    with pytest.raises(AssertionError):
        contract_of("tests/Forgetful-v0").test_next_step_autoreset_equals_single_environments()


def test_every_registered_environment_is_tested_here():
    registered = {env_id for env_id in gym.registry if env_id.startswith("text_envs/")}
    tested = {
        value.env_id for value in globals().values() if isinstance(value, type) and hasattr(value, "env_id")
    }
    assert registered == tested
