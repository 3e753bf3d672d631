"""The probe tasks: rewards by hand, and their optimum."""

import itertools

import gymnasium as gym
import numpy as np
import pytest

import text_envs  # noqa: F401 (registers)
from reward_models import Completion


def final_reward(env, prompt, response, letters):
    env.reset(seed=0, options={"prompt": prompt})
    steps = [env.step(letters.index(letter)) for letter in response]
    assert [step[2] for step in steps] == [False] * (len(response) - 1) + [True]
    return steps[-1][1]


def test_bandit_pays_by_its_table():
    env = gym.make("text_envs/Bandit-v0", rewards=[0.5, -1.0, 3.0])
    assert [final_reward(env, "a", arm, "abc") for arm in "abc"] == [0.5, -1.0, 3.0]
    assert env.get_wrapper_attr("optimum") == 3.0
    assert env.observation_space["input_ids"].shape == (2,)


@pytest.mark.parametrize("response, reward", [("aaaaaaaa", 1.0), ("abcdabcd", 0.25), ("bbbbbbbb", 0.0)])
def test_count_letter_counts(response, reward):
    assert final_reward(gym.make("text_envs/CountLetter-v0"), "c", response, "abcd") == reward


@pytest.mark.parametrize("response, reward", [("cab", 1.0), ("caa", 2 / 3), ("abc", 0.0)])
def test_copy_compares_with_the_prompt(response, reward):
    assert final_reward(gym.make("text_envs/Copy-v0"), "cab", response, "abc") == pytest.approx(reward)


@pytest.mark.parametrize("response, reward", [("abc", 1.0), ("cab", 0.0), ("aac", 2 / 3)])
def test_sort_compares_with_the_sorted_prompt(response, reward):
    assert final_reward(gym.make("text_envs/Sort-v0"), "cab", response, "abc") == pytest.approx(reward)


@pytest.mark.parametrize(
    "name, letters, length", [("CountLetter", "abcd", 8), ("Copy", "abc", 3), ("Sort", "abc", 3)]
)
def test_the_optimum_is_the_best_of_all_responses(name, letters, length):
    env = gym.make(f"text_envs/{name}-v0").unwrapped
    reward_model, best = env.task.reward_model, []
    for i in range(min(len(env.prompt_source), 5)):
        prompt = env.prompt_source[i].text
        responses = ("".join(letters) for letters in itertools.product(letters, repeat=length))
        best.append(max(reward_model([Completion(prompt, response) for response in responses])))
    assert np.mean(best) == env.optimum == 1.0


def test_a_large_task_draws_from_a_sample_of_its_words():
    source = gym.make("text_envs/Copy-v0", letters="abcdefgh", length=8).unwrapped.prompt_source
    assert len(source) == 4096


@pytest.mark.parametrize("letters", ["xyz", "é😀", "b\n"])
def test_any_letters_do(letters):
    env = gym.make("text_envs/Copy-v0", letters=letters, length=2)
    env.reset(seed=0, options={"prompt": letters[1] + letters[0]})
    assert [env.step(token)[1] for token in (1, 0)] == [0.0, 1.0]


@pytest.mark.parametrize(
    "name, kwargs, message",
    [
        ("Bandit", {"rewards": []}, "0 entries"),
        ("CountLetter", {"target": "z"}, "'z'"),
        ("Copy", {"letters": "aab"}, "'aab'"),
        ("Sort", {"length": 0}, "length=0"),
    ],
)
def test_wrong_arguments_are_named(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        gym.make(f"text_envs/{name}-v0", **kwargs)
