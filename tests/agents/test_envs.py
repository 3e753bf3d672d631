"""Whatever environment a user has, as the VecEnv that the algorithms train on."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import text_envs  # noqa: F401  registers the ids
from agents import TextPPO
from agents.envs import GymnasiumVecEnv, as_vec_env
from text_envs.sb3 import TextVecEnv


def wrapped(**kwargs):
    """Two environments of four letters, whose episodes a wrapper counts: three letters each, "a" is worth a third."""
    venv = gym.make_vec(
        "text_envs/CountLetter-v0", 2, autoreset_mode=AutoresetMode.SAME_STEP, length=3, **kwargs
    )
    return as_vec_env(RecordEpisodeStatistics(venv))


def test_a_wrapped_vector_environment_keeps_its_wrapper():
    env = wrapped()
    assert isinstance(env, GymnasiumVecEnv)
    env.seed(0)
    env.reset()
    for _ in range(2):
        env.step(np.array([0, 1]))
    _, rewards, dones, infos = env.step(np.array([0, 0]))
    assert dones.all() and rewards.tolist() == pytest.approx([1.0, 1 / 3])
    assert [info["episode"]["l"] for info in infos] == [3, 3]
    assert [info["completion"].response for info in infos] == ["aaa", "bba"]
    assert [len(info["terminal_observation"]["input_ids"]) for info in infos] == [4, 4]


def test_a_wrapped_vector_environment_answers_as_the_bare_one():
    env, bare = wrapped(), as_vec_env(gym.make_vec("text_envs/CountLetter-v0", 2, length=3))
    assert isinstance(bare, TextVecEnv)
    for name in ("tokenizer", "max_new_tokens", "masks_actions", "eos_token_ids"):
        assert len(env.get_attr(name)) == 2
        assert str(env.get_attr(name)) == str(bare.get_attr(name))
    assert np.array_equal(env.env_method("action_masks"), bare.env_method("action_masks"))


def test_a_wrapped_vector_environment_can_be_trained_on():
    model = TextPPO("CausalLMPolicy", wrapped(), n_episodes=4, batch_size=4, device="cpu", seed=0)
    model.learn(12)
    assert model.num_timesteps == 12 and len(model.rollout_buffer.episodes) == 4
