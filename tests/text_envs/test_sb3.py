import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from tests.text_envs.helpers import letter_env, letter_vector_env
from text_envs import TextVecEnv
from text_envs.testing import equal

KWARGS = dict(
    prompts=["a", "ab", "abc", "abcd"],
    max_new_tokens=4,
    eos_token_id=7,
    stop=["cc"],
    allowed_tokens=[0, 2, 5, 7],
)


def test_equals_dummy_vec_env_over_single_environments():
    ours, theirs = TextVecEnv(letter_vector_env(3, **KWARGS)), DummyVecEnv([lambda: letter_env(**KWARGS)] * 3)
    for env in (ours, theirs):
        env.seed(5)
    assert equal(dict(ours.reset()), dict(theirs.reset()))
    assert equal(ours.reset_infos, theirs.reset_infos)
    rng = np.random.default_rng(0)
    for _ in range(60):
        actions = rng.choice([0, 2, 5, 7], size=3)
        (obs, rewards, dones, infos), (obs2, rewards2, dones2, infos2) = (
            ours.step(actions),
            theirs.step(actions),
        )
        assert equal(dict(obs), dict(obs2)) and equal(rewards, rewards2) and equal(dones, dones2)
        for row in range(3):
            assert infos[row].get("completion") == infos2[row].get("completion")
            assert equal(infos[row].get("terminal_observation"), infos2[row].get("terminal_observation"))
            assert infos[row].get("TimeLimit.truncated", False) == infos2[row]["TimeLimit.truncated"]
            # DummyVecEnv leaves the mask of a new episode in reset_infos; action_masks() is what SB3 reads.
            assert equal(ours.env_method("action_masks")[row], theirs.env_method("action_masks")[row])


def test_options_and_seeds_are_used_once():
    env = TextVecEnv(letter_vector_env(2, list("abcdefgh"), max_new_tokens=1))
    env.set_options([{"prompt": "c"}, {}])
    env.seed(3)
    first = env.reset()["input_ids"][:, 0].tolist()
    assert first[0] == 2
    assert len({tuple(env.reset()["input_ids"][:, 0]) for _ in range(20)}) > 1


def test_rows_can_rest_and_scores_can_wait():
    env = TextVecEnv(letter_vector_env(2, max_new_tokens=1))
    assert env.can_rest
    env.defer_scores = True
    env.reset()
    _, rewards, dones, infos = env.step(np.array([3, -1]))
    assert (rewards.tolist(), dones.tolist()) == ([0.0, 0.0], [True, False])
    assert infos[0]["completion"].response == "d" and infos[1] == {}
    assert env.collect_scores().tolist() == [1.0]


def test_attributes_reach_through():
    venv = letter_vector_env(2, **KWARGS)
    env = VecMonitor(TextVecEnv(venv))
    assert env.get_attr("eos_token_ids") == [(7,), (7,)]
    assert env.get_attr("tokenizer", [1]) == [venv.tokenizer]
    assert env.get_attr("masks_actions") == [True, True]
    assert env.has_attr("action_masks") and not env.has_attr("no_such_thing")
    single = gym.wrappers.TimeAwareObservation  # any wrapper
    assert env.env_is_wrapped(single) == [False, False]


@pytest.mark.filterwarnings("error")
def test_renders_side_by_side():
    env = TextVecEnv(letter_vector_env(4, render_mode="rgb_array"))
    env.reset()
    assert env.render().shape == (800, 1280, 3)


class AlwaysB:
    def predict(self, obs, state=None, episode_start=None, deterministic=False):
        return np.ones(len(obs["input_ids"]), dtype=int), None


def test_evaluate_policy():
    env = VecMonitor(TextVecEnv(letter_vector_env(2, max_new_tokens=3)))
    rewards, lengths = evaluate_policy(AlwaysB(), env, n_eval_episodes=5, return_episode_rewards=True)
    assert (rewards, lengths) == ([3.0] * 5, [3] * 5)
