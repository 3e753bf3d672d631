"""TextPPO as a Stable-Baselines3 user meets it."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked_policy
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from agents.on_policy import default_learning_rate
from agents.ppo import TextPPO
from reward_models import RewardError
from tests.agents.helpers import LETTERS, letters_env, small_lm
from text_envs.env import TextGenerationEnv
from text_envs.letters import letter_tokenizer
from text_envs.sb3 import TextVecEnv


def make_ppo(env=None, **kwargs) -> TextPPO:
    torch.manual_seed(0)
    policy_kwargs = dict(model=small_lm()) | kwargs.pop("policy_kwargs", {})
    settings = dict(n_episodes=8, batch_size=4, learning_rate=1e-3, seed=0, device="cpu")
    return TextPPO("CausalLMPolicy", env or letters_env(), policy_kwargs=policy_kwargs, **(settings | kwargs))


def count_letter(num_envs: int, **kwargs):
    return gym.make_vec("text_envs/CountLetter-v0", num_envs=num_envs, **kwargs)


ENVIRONMENTS = {
    "id": lambda: "text_envs/CountLetter-v0",
    "single": lambda: gym.make("text_envs/CountLetter-v0"),
    "monitored": lambda: Monitor(gym.make("text_envs/CountLetter-v0")),
    "DummyVecEnv": lambda: DummyVecEnv([lambda: gym.make("text_envs/CountLetter-v0")] * 3),
    "make_vec": lambda: count_letter(3),
    "SyncVectorEnv": lambda: SyncVectorEnv(
        [lambda: gym.make("text_envs/CountLetter-v0")] * 3, autoreset_mode=AutoresetMode.SAME_STEP
    ),
    "TextVecEnv": lambda: TextVecEnv(count_letter(3)),
    "VecMonitor": lambda: VecMonitor(TextVecEnv(count_letter(3))),
}


@pytest.mark.parametrize("kind", ENVIRONMENTS)
def test_it_runs_on_any_environment_and_a_rollout_is_n_episodes(kind):
    model = TextPPO("CausalLMPolicy", ENVIRONMENTS[kind](), n_episodes=7, batch_size=4, device="cpu", seed=0)
    model.learn(2 * 7 * 8)  # two rollouts of 7 episodes of 8 tokens
    assert model.num_timesteps == 2 * 7 * 8
    assert len(model.rollout_buffer.episodes) == 7
    assert [len(episode.positions) for episode in model.rollout_buffer.episodes] == [8] * 7
    scores = [episode.completion.response.count("a") / 8 for episode in model.rollout_buffer.episodes]
    assert [episode.score for episode in model.rollout_buffer.episodes] == pytest.approx(scores)


def test_a_vector_env_that_resets_at_the_next_step_is_refused_with_a_way_out():
    venv = SyncVectorEnv([lambda: gym.make("text_envs/CountLetter-v0")] * 2)
    with pytest.raises(ValueError, match=r"autoreset_mode=AutoresetMode\.SAME_STEP"):
        make_ppo(venv)


def test_an_environment_with_a_step_of_its_own_keeps_it():
    class Shifted(TextGenerationEnv):
        def step(self, action):
            obs, reward, *rest = super().step(action)
            return obs, reward + 5.0, *rest

    env = Shifted(
        tokenizer=letter_tokenizer(LETTERS),
        prompts=["a"],
        reward_model=lambda c: [0.0] * len(c),
        max_new_tokens=2,
    )
    model = make_ppo(env, n_episodes=3)
    model.learn(1)
    assert [episode.score for episode in model.rollout_buffer.episodes] == [10.0] * 3


def test_no_token_is_generated_that_is_not_used_and_all_are_judged_in_one_call():
    calls = []

    def reward(completions):
        calls.append(len(completions))
        return [0.0] * len(completions)

    model = make_ppo(letters_env(reward_model=reward), n_episodes=20, n_envs=6)
    model.learn(1)
    assert calls == [20]
    assert model.num_timesteps == sum(len(e.completion.response_ids) for e in model.rollout_buffer.episodes)


def test_the_reward_model_is_called_at_once_again_after_learning():
    env = TextVecEnv(count_letter(2))
    model = TextPPO("CausalLMPolicy", env, n_episodes=4, batch_size=4, device="cpu")
    model.learn(1)
    assert not env.defer_scores


def test_it_learns_to_write_one_letter():
    """Chance is 0.25, the optimum 1.0."""
    model = TextPPO(
        "CausalLMPolicy", "text_envs/CountLetter-v0", learning_rate=1e-3, kl_coef=0.01, seed=1, device="cpu"
    )
    model.learn(64 * 8 * 35)
    env = gym.make("text_envs/CountLetter-v0")
    env.reset(seed=5)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=20, warn=False)
    assert mean > 0.95
    scores = [episode.score for episode in model.rollout_buffer.episodes]
    assert np.mean(scores) > 0.8


class Recorder(BaseCallback):
    """Keeps the names that collect_rollouts shows, and counts its own calls."""

    def __init__(self):
        super().__init__()
        self.events, self.names = [], set()

    def _on_training_start(self):
        self.events.append("training_start")

    def _on_rollout_start(self):
        self.events.append("rollout_start")

    def _on_step(self):
        self.names |= set(self.locals)
        self.events.append("step")
        return True

    def _on_rollout_end(self):
        self.events.append("rollout_end")

    def _on_training_end(self):
        self.events.append("training_end")


def test_callbacks_see_sb3s_local_names_once_per_step():
    recorder = Recorder()
    model = TextPPO("CausalLMPolicy", count_letter(4), n_episodes=4, batch_size=4, device="cpu")
    model.learn(1, callback=recorder)
    steps = ["step"] * 8
    assert recorder.events == ["training_start", "rollout_start", *steps, "rollout_end", "training_end"]
    sb3 = "self env rollout_buffer n_steps actions values log_probs new_obs rewards dones infos callback n_rollout_steps"
    assert set(sb3.split()) <= recorder.names


def test_sb3s_callbacks_work_unchanged(tmp_path):
    eval_env = Monitor(gym.make("text_envs/CountLetter-v0"))
    inner = Recorder()
    callbacks = [
        EvalCallback(
            eval_env, n_eval_episodes=2, eval_freq=8, best_model_save_path=str(tmp_path), verbose=0,
            callback_on_new_best=StopTrainingOnRewardThreshold(2.0),
            callback_after_eval=StopTrainingOnNoModelImprovement(100),
        ),
        CheckpointCallback(save_freq=8, save_path=str(tmp_path), name_prefix="ppo"),
        EveryNTimesteps(n_steps=32, callback=inner),
    ]  # fmt: skip
    model = TextPPO("CausalLMPolicy", count_letter(4), n_episodes=4, batch_size=4, device="cpu")
    with pytest.warns(UserWarning, match="not of the same type"):
        model.learn(64, callback=callbacks)
    assert (tmp_path / "best_model.zip").exists()
    assert sorted(path.name for path in tmp_path.glob("ppo*")) == ["ppo_32_steps.zip", "ppo_64_steps.zip"]
    assert inner.events.count("step") == 2
    TextPPO.load(tmp_path / "ppo_64_steps").predict(eval_env.reset(seed=0)[0])


def test_a_callback_can_stop_training_in_the_middle():
    model = TextPPO("CausalLMPolicy", count_letter(4), n_episodes=4, batch_size=4, device="cpu")
    model.learn(10_000, callback=StopTrainingOnMaxEpisodes(max_episodes=1))
    assert model.num_timesteps == 4 * 8


def test_stop_ends_learning_and_learning_can_go_on():
    class StopAtStep(BaseCallback):
        def _on_step(self):
            if self.n_calls == 3:
                self.model.stop()
            return True

    model = TextPPO("CausalLMPolicy", count_letter(4), n_episodes=4, batch_size=4, device="cpu")
    model.learn(10_000, callback=StopAtStep())
    assert model.num_timesteps == 3 * 4
    model.learn(4 * 8, reset_num_timesteps=False)
    assert [len(e.positions) for e in model.rollout_buffer.episodes] == [8] * 4
    assert all(len(e.completion.prompt_ids) == 1 for e in model.rollout_buffer.episodes)


def greedy_by_hand(model: TextPPO, env: gym.Env, seed: int) -> float:
    obs, _ = env.reset(seed=seed)
    total, done = 0.0, False
    while not done:
        action, _ = model.predict(obs, deterministic=True)  # no state: the prefix is encoded anew each time
        assert action.shape == ()
        obs, reward, done, _, _ = env.step(action)
        total += reward
    return total


def test_evaluate_policy_with_the_cache_equals_prediction_without_it():
    env = letters_env()
    model = make_ppo()
    by_hand = [greedy_by_hand(model, env, seed) for seed in range(6)]
    with_cache = []
    for seed in range(6):
        env.reset(seed=seed)
        vec = DummyVecEnv([lambda: env])
        vec.seed(seed)
        with_cache.append(evaluate_policy(model, vec, n_eval_episodes=1, warn=False)[0])
    assert with_cache == by_hand


def test_sb3_contrib_s_evaluation_gives_predict_the_masks():
    judged = []
    env = letters_env(
        allowed_tokens=["a", "b"],
        reward_model=lambda completions: (judged.extend(completions), [0.0] * len(completions))[1],
    )
    evaluate_masked_policy(make_ppo(), Monitor(env), n_eval_episodes=5, deterministic=False)
    assert len(judged) == 5 and {token for c in judged for token in c.response_ids} == {0, 1}


def test_predict_decodes_many_rows_with_the_state_as_without():
    model = make_ppo()
    vec = TextVecEnv(letters_env().unwrapped.vectorize(6))
    vec.seed(3)
    obs, state = vec.reset(), None
    for _ in range(15):
        actions, state = model.predict(obs, state=state, deterministic=True)
        afresh, _ = model.predict(obs, deterministic=True)
        assert actions.tolist() == afresh.tolist()
        obs, _, _, _ = vec.step(actions)


def test_same_seed_same_rollouts_other_seed_others():
    def episodes(seed):
        model = make_ppo(seed=seed)
        model.learn(1)
        return [tuple(episode.ids) for episode in model.rollout_buffer.episodes]

    assert episodes(1) == episodes(1)
    assert episodes(1) != episodes(2)


def test_log_names_and_files(tmp_path):
    model = make_ppo(tensorboard_log=str(tmp_path), kl_target=6.0)
    model.learn(1, progress_bar=True)
    model.set_logger(configure(str(tmp_path), ["json"]))
    model.learn(1)
    recorded = json.loads((tmp_path / "progress.json").read_text().splitlines()[0])
    names = """rollout/ep_rew_mean rollout/ep_len_mean rollout/eos_rate train/approx_kl train/clip_fraction
        train/explained_variance train/value_loss train/policy_gradient_loss train/entropy_loss train/loss train/n_updates
        train/learning_rate train/clip_range train/clip_range_vf train/grad_norm time/fps time/total_timesteps
        objective/kl objective/kl_k3 objective/entropy objective/scores objective/rlhf_reward objective/kl_coef"""
    assert set(names.split()) <= set(recorded)
    assert list(tmp_path.glob("TextPPO_1/events*"))


def test_schedules_reach_optimiser_and_clipping():
    seen = []
    model = make_ppo(
        learning_rate=lambda progress: 1e-3 * progress, clip_range=lambda progress: 0.1 + 0.1 * progress
    )
    original = model._record_update
    model._record_update = lambda log: (
        seen.append(model.policy.optimizer.param_groups[0]["lr"]),
        original(log),
    )
    model.learn(60)
    assert (
        seen[0] == 1e-3
        and seen == sorted(seen, reverse=True)
        and len(set(seen)) == len(seen)
        and seen[-1] > 0
    )
    assert 0.1 < model._clip_ranges()[0] < 0.2


def test_the_default_learning_rate_falls_linearly_to_zero_and_shrinks_with_size():
    assert default_learning_rate(124_000_000) == pytest.approx(1e-5)
    assert default_learning_rate(4 * 124_000_000) == pytest.approx(0.5e-5)
    assert default_learning_rate(10_000) == 3e-4
    model = make_ppo(learning_rate=None)
    assert model.lr_schedule(1.0) == default_learning_rate(model.policy.lm.model.num_parameters())
    assert model.lr_schedule(0.0) == 0.0


def test_target_kl_stops_the_update():
    model = make_ppo(target_kl=1e-6, learning_rate=1e-2, n_epochs=4)
    model.learn(1)
    assert model._n_updates == 1, "the first epoch was not finished"
    free = make_ppo(learning_rate=1e-2, n_epochs=4)
    free.learn(1)
    assert free._n_updates == 4


def test_rewards_are_score_clip_penalty_and_kl():
    """Score 100 is clipped to 10; a response without EOS loses 1; the policy is its reference, so KL is 0."""
    env = letters_env(reward_model=lambda completions: [100.0] * len(completions))
    model = make_ppo(env, n_episodes=30)
    _, callback = model._setup_learn(1_000_000)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 30)
    buffer = model.rollout_buffer
    reasons = [episode.completion.finish_reason for episode in buffer.episodes]
    assert {"eos", "length"} == set(reasons)
    expected = [9.0 if reason == "length" else 10.0 for reason in reasons]
    np.testing.assert_allclose(buffer.rewards[buffer.offsets[1:] - 1], expected)
    assert [episode.score for episode in buffer.episodes] == [100.0] * 30


def test_no_penalty_where_no_episode_can_end_earlier():
    model = TextPPO(
        "CausalLMPolicy", count_letter(4), n_episodes=4, batch_size=4, device="cpu", score_clip=None
    )
    _, callback = model._setup_learn(1_000_000)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 4)
    scores = [episode.score for episode in model.rollout_buffer.episodes]
    np.testing.assert_allclose(model.rollout_buffer.rewards[7::8], scores, atol=1e-6)


def test_the_kl_penalty_is_per_token_and_uses_the_estimator():
    model = make_ppo(
        kl_coef=0.5, kl_estimator="k3", reference_model=small_lm(), missing_eos_penalty=0.0, seed=4
    )
    _, callback = model._setup_learn(1_000_000)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 8)
    buffer = model.rollout_buffer
    log_ratio = buffer.ref_log_probs - buffer.log_probs
    k3 = np.exp(log_ratio) - 1 - log_ratio
    scores = np.concatenate([episode.rewards for episode in buffer.episodes])
    assert k3.max() > 0.1
    np.testing.assert_allclose(buffer.rewards, scores - 0.5 * k3, atol=1e-5)


def test_a_separate_critic_learns_without_touching_the_policys_trunk():
    model = make_ppo(policy_kwargs=dict(value_model="separate"), n_episodes=16)
    policy_weight, critic_weight = (
        lm.model.get_input_embeddings().weight for lm in (model.policy.lm, model.policy.critic)
    )
    assert torch.equal(policy_weight, critic_weight) and policy_weight is not critic_weight
    model.learn(1)
    assert (model.rollout_buffer.values == 0).all(), "the head starts at 0"
    (batch, *_) = model.rollout_buffer.minibatches(16).__next__()
    values, _, _ = model.policy.evaluate_sequences(batch.sequences)
    model.policy.optimizer.zero_grad()
    values.sum().backward()
    assert critic_weight.grad is not None and policy_weight.grad is None


def test_bfloat16_keeps_the_ratio_at_one():
    model = make_ppo(policy_kwargs=dict(dtype="bfloat16"))
    model.learn(1)  # a SelfCheckWarning would be an error
    assert model.policy.lm.dtype == torch.bfloat16
    assert model.policy.value_head.weight.dtype == torch.float32


def test_a_failing_reward_is_an_error_that_leaves_the_model_usable():
    state = {"fails": True}

    def reward(completions):
        return [float("nan") if state["fails"] else 1.0] * len(completions)

    model = make_ppo(letters_env(reward_model=reward))
    with pytest.raises(RewardError):
        model.learn(1)
    state["fails"] = False
    model.learn(1)
    assert len(model.rollout_buffer.episodes) == 8


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(n_episodes=0), "n_episodes is 0"),
        (dict(micro_batch_size=-1), "micro_batch_size is -1"),
        (dict(micro_batch_size=0), "micro_batch_size is 0"),
        (dict(n_envs=0), "n_envs is 0"),
        (dict(batch_size=2.5), r"batch_size is 2.5: in TextPPO\. It must be a whole number"),
        (dict(clip_range=-1.0), "clip_range is -1"),
        (dict(clip_range=float("nan")), "clip_range is nan"),
        (dict(clip_range_vf=-1.0), "clip_range_vf is -1"),
        (dict(learning_rate=-1.0), "learning_rate is -1"),
        (dict(learning_rate=lambda progress: float("inf")), "learning_rate is inf"),
        (dict(learning_rate="fast"), "learning_rate is fast"),
        (dict(kl_coef=float("nan")), "kl_coef is nan"),
        (dict(kl_coef=-1.0), "kl_coef is -1"),
        (dict(kl_target=0.0), "kl_target is 0"),
        (dict(kl_estimator="k9"), "Choose one of k1, k2, k3"),
        (dict(policy_kwargs=dict(value_model="none")), "learns a critic: choose shared or separate"),
        (
            dict(policy_kwargs=dict(value_model="both")),
            "Choose one of shared, separate, from_reward_model, none",
        ),
        (dict(policy_kwargs=dict(dtype="float8")), "Choose auto, float32 or bfloat16"),
        (dict(policy_kwargs=dict(temperature=0.0)), "must be positive"),
        (dict(gamma=2.0), "gamma is 2"),
        (dict(gae_lambda=-1.0), "gae_lambda is -1"),
        (dict(score_clip=0.0), "score_clip is 0"),
        (dict(target_kl=-0.1), "target_kl is -0.1"),
        (dict(max_grad_norm=float("nan")), "max_grad_norm is nan"),
        (dict(policy_kwargs=dict(model=dict(vocab_size=12))), "its dict with model_type"),
        (dict(policy_kwargs=dict(model="/no/such/folder")), "No causal LM could be loaded"),
        (dict(policy_kwargs=dict(model=small_lm(vocab_size=5))), "knows 5 tokens, the environment 12"),
        (dict(policy_kwargs=dict(model=small_lm(max_position_embeddings=8))), "positions end at 8"),
        (dict(env=gym.make("CartPole-v1")), "no text environment"),
    ],
)
def test_mistakes_are_named_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        make_ppo(**settings)


def test_another_policy_is_refused_with_the_one_there_is():
    with pytest.raises(ValueError, match=r"'MlpPolicy' is not known: in TextPPO\. Give 'CausalLMPolicy'"):
        TextPPO("MlpPolicy", letters_env())


def test_a_gradient_that_is_no_number_is_an_error_that_leaves_the_policy_as_it_was():
    model = make_ppo(ent_coef=float("nan"))
    before = [parameter.clone() for parameter in model.policy.parameters()]
    with pytest.raises(ValueError, match=r"The gradient is nan after \d+ timesteps, in update 1"):
        model.learn(1)
    assert all(torch.equal(old, new) for old, new in zip(before, model.policy.parameters()))


def test_an_algorithm_needs_an_environment():
    with pytest.raises(ValueError, match="env is None"):
        TextPPO("CausalLMPolicy", None)


def test_no_model_is_an_error_where_the_vocabulary_is_real(stories):
    env = gym.make(
        "text_envs/TextGeneration-v0",
        tokenizer=str(stories),
        prompts=["Once"],
        reward_model="sentiment",
        max_new_tokens=4,
    )
    with pytest.raises(ValueError, match="No language model was given"):
        TextPPO("CausalLMPolicy", env)
