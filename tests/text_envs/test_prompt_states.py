"""Where an environment's prompts stand: told as JSON values, and gone on with in another environment."""

import itertools
import json

import gymnasium as gym
import numpy as np
import pytest

import text_envs  # noqa: F401  registers the ids
from text_envs.letters import letter_tokenizer
from text_envs.vector import TextVectorEnv


def numbers(rng):
    """An endless stream of prompts, one letter out of twelve each."""
    for _ in itertools.count():
        yield "abcdefghijkl"[rng.integers(12)]


def make(prompts, n: int | None = 2):
    arguments = dict(
        tokenizer=letter_tokenizer("abcdefghijkl"), prompts=prompts, max_prompt_tokens=3, max_new_tokens=2,
        reward_model=lambda completions: [0.0] * len(completions),
    )  # fmt: skip
    if n is None:
        return gym.make("text_envs/TextGeneration-v0", **arguments).unwrapped
    return TextVectorEnv(n, autoreset_mode="SameStep", **arguments)


def prompts_of(env) -> list[str]:
    return [prompt.text for prompt in env.episodes.prompts]


def drawn(env, n: int) -> list[list[str]]:
    """The prompts of n resets."""
    shown = []
    for _ in range(n):
        env.reset()
        shown.append(prompts_of(env))
    return shown


@pytest.mark.parametrize("n", [None, 2], ids=["single", "vector"])
@pytest.mark.parametrize("source", [list("abcdefghijkl"), numbers], ids=["finite", "endless"])
def test_prompts_go_on_in_another_environment(source, n):
    env = make(source, n)
    env.reset(seed=3)
    drawn(env, 4)
    state = json.loads(json.dumps(env.prompt_states()))
    expected = drawn(env, 6)
    other = make(source, n)
    other.reset(seed=99)
    drawn(other, 2)
    other.set_prompt_states(state)
    assert drawn(other, 6) == expected
    fresh = make(source, n)  # never reset
    fresh.set_prompt_states(state)
    assert drawn(fresh, 6) == expected


@pytest.mark.parametrize("source", [list("abcdefghijkl"), numbers], ids=["finite", "endless"])
def test_again_shows_the_present_prompts_once_more(source):
    env = make(source)
    env.reset(seed=3)
    for _ in range(5):  # rows reset by themselves, each in its own time
        env.step(np.array([0, -1]))
    env.step(np.array([0, 0]))
    present = prompts_of(env)
    again = env.prompt_states(again=True)
    expected = [present, *drawn(env, 5)]
    other = make(source)
    other.set_prompt_states(again)
    assert drawn(other, 6) == expected


def test_before_the_first_reset_there_is_no_state():
    env = make(["a", "b"])
    assert env.prompt_states() == [None, None]
    env.set_prompt_states([None, None])
    env.reset(seed=1)


def test_states_of_other_environments_are_refused():
    env = make(["a", "b"])
    env.reset(seed=1)
    with pytest.raises(ValueError, match="2 states for 3 environments"):
        make(["a", "b"], 3).set_prompt_states(env.prompt_states())
    with pytest.raises(ValueError, match="prompts of another kind"):
        make(numbers).set_prompt_states(env.prompt_states())


def test_discarded_scores_are_never_told():
    env = make(["a", "b"])
    env.defer_scores = True
    env.reset(seed=1)
    for _ in range(2):
        env.step(np.array([0, 0]))
    env.discard_scores()
    assert len(env.collect_scores()) == 0
