"""The probe tasks: rewards by hand, and their optimum."""

import itertools
from time import strptime

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import text_envs  # noqa: F401 (registers)
from reward_models import Completion
from text_envs.letters import word_tokenizer
from text_envs.tasks.date_sentences import DAYS, MONTHS, OPENINGS, YEARS, date_share, words_in_dates
from text_envs.tasks.increasing_numbers import increasing_share


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


@pytest.mark.parametrize("response, reward", [("bac", 1.0), ("abb", 0.0), ("bbb", 1 / 3)])
def test_reverse_compares_with_the_reversed_prompt(response, reward):
    assert final_reward(gym.make("text_envs/Reverse-v0"), "cab", response, "abc") == pytest.approx(reward)


@pytest.mark.parametrize("response, reward", [("abc", 1.0), ("cab", 0.0), ("aac", 2 / 3)])
def test_sort_compares_with_the_sorted_prompt(response, reward):
    assert final_reward(gym.make("text_envs/Sort-v0"), "cab", response, "abc") == pytest.approx(reward)


@pytest.mark.parametrize(
    "name, letters, length",
    [("CountLetter", "abcd", 8), ("Copy", "abc", 3), ("Reverse", "abc", 3), ("Sort", "abc", 3)],
)
def test_the_optimum_is_the_best_of_all_responses(name, letters, length):
    env = gym.make(f"text_envs/{name}-v0").unwrapped
    reward_model, best = env.task.reward_model, []
    for i in range(min(len(env.prompt_source), 5)):
        prompt = env.prompt_source[i].text
        responses = ("".join(letters) for letters in itertools.product(letters, repeat=length))
        best.append(max(reward_model([Completion(prompt, response) for response in responses])))
    assert np.mean(best) == env.optimum == 1.0


def final_reward_of_words(env, prompt, response):
    """The reward of a response of word tokens."""
    words = env.unwrapped.tokenizer.get_vocab()
    env.reset(seed=0, options={"prompt": prompt})
    *before, last = [env.step(words[word]) for word in response.split()]
    assert not any(step[2] for step in before) and last[2]
    assert last[4]["completion"].response == response
    return last[1]


@pytest.mark.parametrize(
    "response, reward",
    [
        ("4 5 6 7 8 9", 1.0),
        ("4 6 7 9 10 11", 1.0),  # any steps
        ("3 4 5 6 7 8", 0.0),  # the first is no larger than the prompt
        ("4 5 5 6 7 8", 2 / 6),  # what follows the first fault does not count
        ("11 4 5 6 7 8", 1 / 6),
        ("4 5 6 7 8 0", 5 / 6),
    ],
)
def test_increasing_numbers_counts_up_to_the_first_fault(response, reward):
    env = gym.make("text_envs/IncreasingNumbers-v0")
    assert final_reward_of_words(env, "3", response) == pytest.approx(reward)


@pytest.mark.parametrize(
    "response, reward",
    [
        ("1 May 2025 31 July 2022", 1.0),
        ("1 May 2025 we met on", 3 / 6),
        ("the 30 April 2023 31 April", 3 / 6),  # April has 30 days
        ("30 February 2023 30 April 2023", 3 / 6),
        ("1 May 1 May 1 May", 3 / 6),  # 1 for each that lacks its year
        ("May 1 2025 May 1 2025", 0.0),
        ("1 1 May 2025 2025 1", 3 / 6),
        ("the shop opened on 1 May", 1 / 6),
    ],
)
def test_date_sentences_counts_the_words_in_dates(response, reward):
    env = gym.make("text_envs/DateSentences-v0")
    assert final_reward_of_words(env, "we met on", response) == pytest.approx(reward)


@given(st.lists(st.sampled_from([*DAYS, *MONTHS, *YEARS, "on"]), max_size=9))
def test_words_in_dates_agrees_with_the_calendar(words):
    """Only a day, month and year of the calendar count 3; a date is never counted twice."""
    whole = begun = position = 0
    while position < len(words):
        try:
            strptime(" ".join(words[position : position + 2]) + " 2025", "%d %B %Y")
        except ValueError:
            position += 1
            continue
        dated = words[position + 2 : position + 3] and words[position + 2] in YEARS
        whole, begun, position = whole + bool(dated), begun + (not dated), position + (3 if dated else 2)
    assert words_in_dates(words) == 3 * whole + begun <= len(words)


def test_every_number_leaves_room_for_the_optimum():
    """From any prompt there are enough larger numbers, and words for two dates."""
    source = gym.make("text_envs/IncreasingNumbers-v0", numbers=7, length=4).unwrapped.prompt_source
    assert [source[i].text for i in range(len(source))] == ["0", "1", "2"]  # 3 4 5 6 follow 2
    completions = [Completion("2", "3 4 5 6"), Completion("0", "1 2 3 4")]
    assert increasing_share(completions) == [1.0, 1.0]
    assert date_share([Completion(opening, "1 May 2025 1 May 2025") for opening in OPENINGS]) == [1.0] * 3


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
        ("Reverse", {"letters": ""}, "letters=''"),
        ("IncreasingNumbers", {"numbers": 6, "length": 6}, "length=6, numbers=6"),
        ("DateSentences", {"dates": 0}, "dates=0"),
    ],
)
def test_wrong_arguments_are_named(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        gym.make(f"text_envs/{name}-v0", **kwargs)


@pytest.mark.parametrize("words", [[], ["a", "a"], ["a b"], [""]])
def test_a_word_is_a_token_once(words):
    with pytest.raises(ValueError, match="different words"):
        word_tokenizer(words)
