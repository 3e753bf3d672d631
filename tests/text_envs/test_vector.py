import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from reward_models import RewardError
from tests.text_envs.helpers import letter_env, letter_vector_env
from text_envs import TextVectorEnv

REST = -1


def step(env, *actions):
    return env.step(np.array(actions))


def recording(calls):
    def reward(completions):
        calls.append([completion.response for completion in completions])
        return [float(len(completion.response)) for completion in completions]

    return reward


def test_episodes_that_end_together_are_scored_in_one_call():
    calls = []
    env = letter_vector_env(3, reward_model=recording(calls), eos_token_id=7, max_new_tokens=2)
    env.reset(seed=0)
    assert step(env, 1, 7, 7)[1].tolist() == [0.0, 1.0, 1.0]
    assert calls == [["h", "h"]]


def test_rows_equal_rows_of_their_own_seeds():
    env = letter_vector_env(4, list("abcdefgh"), max_new_tokens=2)
    obs, _ = env.reset(seed=10)
    alone = [letter_env(list("abcdefgh"), max_new_tokens=2).reset(seed=10 + i)[0] for i in range(4)]
    assert np.array_equal(obs["input_ids"], [o["input_ids"] for o in alone])
    assert env.np_random_seed == (10, 11, 12, 13)
    assert np.array_equal(env.reset(seed=[10, 11, 12, 13])[0]["input_ids"], obs["input_ids"])


def test_a_vector_env_can_be_made_from_the_arguments_of_the_task_and_shares_that_of_a_single_one():
    single = letter_env()
    assert single.vectorize(2).task is single.task
    assert isinstance(letter_vector_env(2), TextVectorEnv)


# -- resting


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_resting_row_stands_still(mode):
    env = letter_vector_env(2, max_new_tokens=2, autoreset_mode=mode)
    env.reset(seed=0)
    obs, rewards, terminated, _, infos = step(env, REST, 3)
    assert obs["attention_mask"].sum(axis=1).tolist() == [1, 2]
    assert rewards.tolist() == [0.0, 0.0] and not terminated.any() and infos == {}
    assert step(env, REST, 3)[2].tolist() == [False, True]


def test_under_next_step_a_rested_row_is_reset_when_it_acts():
    env = letter_vector_env(1, max_new_tokens=1, autoreset_mode="NextStep")
    env.reset(seed=0)
    assert step(env, 3)[2].tolist() == [True]
    obs, _, terminated, _, _ = step(env, REST)
    assert obs["input_ids"].tolist() == [[0, 3]] and not terminated.any()
    assert step(env, 5)[0]["attention_mask"].tolist() == [[1, 0]]
    assert step(env, 5)[0]["input_ids"].tolist() == [[0, 5]]


def test_under_disabled_an_ended_row_may_rest_and_not_act():
    env = letter_vector_env(2, max_new_tokens=1, autoreset_mode="Disabled")
    env.reset(seed=0)
    step(env, 3, REST)
    assert step(env, REST, 3)[2].tolist() == [False, True]
    with pytest.raises(gym.error.ResetNeeded, match=r"\[0\]"):
        step(env, 3, REST)
    obs, _ = env.reset(options={"reset_mask": np.array([True, False])})
    assert obs["input_ids"].tolist() == [[0, 0], [0, 3]]
    assert step(env, 4, REST)[0]["input_ids"].tolist() == [[0, 4], [0, 3]]


# -- deferred scores


def test_deferred_scores_come_in_the_order_episodes_ended_in_one_call():
    calls = []
    env = letter_vector_env(
        3, reward_model=recording(calls), eos_token_id=7, autoreset_mode="SameStep", defer_scores=True
    )
    env.reset(seed=0)
    rewards = [step(env, *actions)[1] for actions in [(1, 1, 7), (7, 1, 1), (1, 7, 7)]]
    assert not np.any(rewards) and calls == []
    assert env.collect_scores().tolist() == [1.0, 2.0, 3.0, 2.0]
    assert calls == [["h", "bh", "bbh", "bh"]]
    assert env.collect_scores().tolist() == [] and len(calls) == 1


def test_a_completion_keeps_its_tokens_while_the_environment_goes_on():
    env = letter_vector_env(2, prompts=["ab", "c"], max_new_tokens=2, autoreset_mode="SameStep")
    env.reset(seed=0, options={"prompt": ["ab", "c"]})
    env.step(np.array([0, 1]))
    kept = env.step(np.array([2, 3]))[4]["final_info"]["completion"]
    for _ in range(3):
        env.step(np.array([7, 7]))
    assert [(one.prompt, one.prompt_ids, one.response_ids, one.response) for one in kept] == [
        ("ab", (0, 1), (0, 2), "ac"),
        ("c", (2,), (1, 3), "bd"),
    ]


def test_a_reward_model_that_fails_names_the_completion():
    env = letter_vector_env(2, reward_model=lambda completions: [float("nan")] * 2, max_new_tokens=1)
    env.reset(seed=0)
    with pytest.raises(RewardError, match="completion 0 of 2"):
        step(env, 3, 4)


# -- what is returned


def test_observations_may_be_kept_and_changed():
    env = letter_vector_env(2, max_new_tokens=3)
    first, _ = env.reset(seed=0)
    kept = first["input_ids"].copy()
    second = step(env, 5, 5)[0]
    assert np.array_equal(first["input_ids"], kept)
    second["input_ids"][:] = 0
    assert step(env, 6, 6)[0]["input_ids"][0].tolist() == [0, 5, 6, 0]


def test_same_step_tells_the_final_observation():
    env = letter_vector_env(2, ["ab"], max_new_tokens=1, autoreset_mode="SameStep")
    env.reset(seed=0)
    obs, rewards, terminated, _, infos = step(env, 5, REST)
    assert obs["input_ids"].tolist() == [[0, 1, 0], [0, 1, 0]]
    assert (rewards.tolist(), terminated.tolist()) == ([1.0, 0.0], [True, False])
    assert infos["final_obs"][0]["input_ids"].tolist() == [0, 1, 5] and infos["final_obs"][1] is None
    assert infos["final_info"]["completion"][0].response == "f"
    assert infos["_final_info"].tolist() == infos["_final_obs"].tolist() == [True, False]


def test_prompts_can_be_asked_for_row_by_row():
    env = letter_vector_env(3, ["a"], max_new_tokens=1)
    assert env.reset(options={"prompt": ["b", None, {"prompt": "c"}]})[0]["input_ids"][:, 0].tolist() == [
        1,
        0,
        2,
    ]
    assert env.reset(options={"prompt": "d"})[0]["input_ids"][:, 0].tolist() == [3, 3, 3]


# -- mistakes


@pytest.mark.parametrize(
    "actions, message",
    [([1], "shape"), ([1.0, 2.0], "float64"), ([1, 8], "Action 8 of row 1"), ([-2, 1], "Action -2 of row 0")],
)
def test_actions_are_one_token_for_each_row(actions, message):
    env = letter_vector_env(2)
    env.reset(seed=0)
    with pytest.raises(gym.error.InvalidAction, match=message):
        env.step(np.array(actions))


def test_a_step_needs_a_reset():
    with pytest.raises(gym.error.ResetNeeded):
        step(letter_vector_env(2), 1, 1)


@pytest.mark.parametrize(
    "mask", [[True, False], np.array([1, 0]), np.array([True]), np.array([False, False])]
)
def test_a_malformed_reset_mask_is_refused(mask):
    env = letter_vector_env(2, autoreset_mode="Disabled")
    with pytest.raises((TypeError, ValueError), match="reset_mask"):
        env.reset(options={"reset_mask": mask})


def test_the_numbers_must_fit():
    env = letter_vector_env(2)
    with pytest.raises(ValueError, match="3 seeds for 2"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="1 prompts for 2"):
        env.reset(options={"prompt": ["a"]})
    with pytest.raises(ValueError, match="num_envs=0"):
        letter_vector_env(0)


def test_a_prompt_can_be_dealt_several_times_in_the_order_of_resets():
    env = letter_vector_env(6, autoreset_mode="SameStep", samples_per_prompt=3, prompts=list("abcd"))
    env.reset(seed=0)
    dealt = [prompt.text for prompt in env.episodes.prompts]
    assert dealt[0] == dealt[1] == dealt[2] and dealt[3] == dealt[4] == dealt[5]
    first = np.random.default_rng(np.random.SeedSequence(0))
    assert dealt[0] == "abcd"[first.integers(4)]  # the row that opens the group draws from its own generator

    env.reset()
    again = [prompt.text for prompt in env.episodes.prompts]
    assert len(set(again[:3])) == len(set(again[3:])) == 1


def test_a_prompt_is_dealt_at_least_once():
    with pytest.raises(ValueError, match="samples_per_prompt=0"):
        letter_vector_env(2, samples_per_prompt=0)
