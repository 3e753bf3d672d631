"""TokenFeatures: stock algorithms learn tasks whose right token depends on the prompt and the position."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.vec_env import VecMonitor
from transformers import GPT2Config, GPT2LMHeadModel

from agents.features import TokenFeatures
from text_envs import TextVecEnv
from text_envs.letters import letter_tokenizer

FEATURES = dict(features_extractor_class=TokenFeatures)
ON_POLICY = dict(n_steps=64, batch_size=256, learning_rate=2e-3, gamma=1.0, seed=0, device="cpu")
TINY = GPT2Config(vocab_size=8, n_positions=32, n_embd=16, n_layer=1, n_head=2)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def vec_env(name, n=16, **kwargs):
    return VecMonitor(TextVecEnv(gym.make_vec(f"text_envs/{name}-v0", n, **kwargs)))


def mean_score(model, name, n=64):
    """Mean score of the first episode of n environments, greedy."""
    env = TextVecEnv(gym.make_vec(f"text_envs/{name}-v0", n))
    env.seed(99)
    obs, state, starts, scores = env.reset(), None, np.ones(n, dtype=bool), np.full(n, np.nan)
    while np.isnan(scores).any():
        actions, state = model.predict(obs, state=state, episode_start=starts, deterministic=True)
        obs, rewards, starts, _ = env.step(actions)
        scores = np.where(np.isnan(scores) & starts, rewards, scores)
    return scores.mean()


# A policy blind to the prompt reaches 1/3 on Copy, and at most 0.63 on Sort: the smallest of three of a, b, c is an a in
# 19 of 27 words, the middle one a b in 13, the largest a c in 19.
def learns(model, name, timesteps, at_least):
    """Within so many timesteps; training ends early where the last 100 episodes, sampled, were better than that."""

    def goes_on(local, _):
        scores = [episode["r"] for episode in model.ep_info_buffer]
        return len(scores) < 100 or np.mean(scores) < at_least + 0.05

    assert mean_score(model, name) < at_least - 0.25
    model.learn(timesteps, callback=goes_on)
    assert mean_score(model, name) >= at_least


def test_ppo_learns_to_copy():
    learns(PPO("MultiInputPolicy", vec_env("Copy"), policy_kwargs=FEATURES, **ON_POLICY), "Copy", 16_000, 0.8)


def test_ppo_learns_to_count():
    model = PPO("MultiInputPolicy", vec_env("CountLetter"), policy_kwargs=FEATURES, **ON_POLICY)
    learns(model, "CountLetter", 10_000, 0.9)


def test_a2c_learns_to_sort():
    model = A2C(
        "MultiInputPolicy",
        vec_env("Sort"),
        n_steps=8,
        learning_rate=2e-3,
        gamma=1.0,
        policy_kwargs=FEATURES,
        seed=0,
        device="cpu",
    )
    learns(model, "Sort", 16_000, 0.85)


def test_dqn_learns_to_copy():
    model = DQN(
        "MultiInputPolicy",
        vec_env("Copy"),
        buffer_size=10_000,
        learning_starts=500,
        train_freq=1,
        gradient_steps=4,
        batch_size=128,
        target_update_interval=250,
        learning_rate=1e-3,
        gamma=1.0,
        exploration_fraction=0.5,
        policy_kwargs=FEATURES,
        seed=0,
        device="cpu",
    )
    learns(model, "Copy", 6_000, 0.8)


def test_maskable_ppo_learns_to_sort():
    model = MaskablePPO("MultiInputPolicy", vec_env("Sort"), policy_kwargs=FEATURES, **ON_POLICY)
    learns(model, "Sort", 12_000, 0.85)


def test_recurrent_ppo_learns_to_copy():
    policy = dict(**FEATURES, lstm_hidden_size=32)
    settings = {**ON_POLICY, "n_epochs": 5, "learning_rate": 3e-3}
    learns(
        RecurrentPPO("MultiInputLstmPolicy", vec_env("Copy"), policy_kwargs=policy, **settings),
        "Copy",
        12_000,
        0.75,
    )


def all_but_a(batch):
    mask = np.ones((len(batch), 4), dtype=bool)
    mask[:, 0] = False
    return mask


def test_maskable_ppo_obeys_the_masks_of_the_environment():
    env = vec_env(
        "TextGeneration",
        n=4,
        tokenizer=letter_tokenizer("abcd"),
        prompts=["a"],
        reward_model=lambda completions: [completion.response.count("a") for completion in completions],
        max_new_tokens=5,
        allowed_tokens=all_but_a,
    )
    model = MaskablePPO("MultiInputPolicy", env, n_steps=64, policy_kwargs=FEATURES, seed=0, device="cpu")
    model.learn(256)
    assert not (model.rollout_buffer.actions == 0).any()
    assert model.rollout_buffer.action_masks[..., 0].max() == 0


# -- what the features are


def observations(ids, lengths, length=6):
    ids = torch.tensor(ids)
    return {
        "input_ids": ids.float(),
        "attention_mask": (torch.arange(length) < torch.tensor(lengths)[:, None]).float(),
    }


SPACE = spaces.Dict({"input_ids": spaces.Box(0, 7, (6,), np.int64), "attention_mask": spaces.MultiBinary(6)})
A = [[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 1, 2]]
B = [[1, 2, 3, 5, 7, 6], [4, 5, 6, 7, 1, 2]]  # as A, with other padding


@pytest.mark.parametrize("model", [None, TINY])
def test_padding_changes_nothing(model):
    extractor = TokenFeatures(SPACE, model=model)
    with torch.no_grad():
        a, b = extractor(observations(A, [3, 6])), extractor(observations(B, [3, 6]))
    assert a.shape == (2, extractor.features_dim)
    assert torch.equal(a, b)
    assert not torch.equal(a[0], extractor(observations(A, [2, 6]))[0])


def test_the_features_of_a_model_are_its_last_hidden_state_on_the_last_token():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(TINY).eval()
    extractor = TokenFeatures(SPACE, model=model)
    with torch.no_grad():
        features = extractor(observations(A, [3, 6]))
        alone = [
            model.transformer(torch.tensor([ids[:n]])).last_hidden_state[0, -1] for ids, n in zip(A, [3, 6])
        ]
    assert torch.allclose(features, torch.stack(alone), atol=1e-6)


def test_a_folder_a_model_and_a_configuration_will_do_and_dropout_is_off(tmp_path):
    GPT2LMHeadModel(TINY).save_pretrained(tmp_path)
    for model in (str(tmp_path), GPT2LMHeadModel(TINY), TINY):
        extractor = TokenFeatures(SPACE, model=model).train()
        assert extractor.features_dim == 16
        assert torch.equal(extractor(observations(A, [3, 6])), extractor(observations(A, [3, 6])))


def test_a_model_is_copied_so_that_dqn_has_a_target_of_its_own():
    policy = dict(**FEATURES, features_extractor_kwargs=dict(model=GPT2LMHeadModel(TINY)), net_arch=[16])
    model = DQN("MultiInputPolicy", vec_env("Copy", 1), buffer_size=100, policy_kwargs=policy, device="cpu")
    mine = {p.data_ptr() for p in model.q_net.parameters()}
    assert not mine & {p.data_ptr() for p in model.q_net_target.parameters()}


def test_a_transformer_learns_to_count():
    policy = dict(**FEATURES, features_extractor_kwargs=dict(model=TINY), net_arch=[])
    settings = {**ON_POLICY, "n_epochs": 4, "learning_rate": 5e-3}
    model = PPO("MultiInputPolicy", vec_env("CountLetter"), policy_kwargs=policy, **settings)
    learns(model, "CountLetter", 6_000, 0.9)


def test_what_does_not_fit_is_said():
    with pytest.raises(TypeError, match="input_ids"):
        TokenFeatures(spaces.Box(0, 1, (3,)))
    with pytest.raises(ValueError, match="knows 4 tokens, the environment 8"):
        TokenFeatures(SPACE, model=GPT2Config(vocab_size=4, n_embd=8, n_layer=1, n_head=1))
