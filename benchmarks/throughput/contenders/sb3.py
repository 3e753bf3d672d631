"""Stock Stable-Baselines3: PPO that sees each token as a sample, and its vector environment of single environments."""

import copy
import time
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.features import TokenFeatures
from benchmarks.throughput.contender import Rounds
from benchmarks.throughput.contenders.ours import step_randomly
from benchmarks.throughput.setting import Setting, make_model, make_prompts, make_tokenizer, trivial_reward
from text_envs import TextGenerationEnv


class RolloutClock(BaseCallback):
    """How long the rollout takes; the rest of ``learn`` is the update."""

    def _on_rollout_start(self) -> None:
        self.started = time.perf_counter()

    def _on_rollout_end(self) -> None:
        self.seconds = time.perf_counter() - self.started

    def _on_step(self) -> bool:
        return True


def make_dummy_env(setting: Setting, n_envs: int) -> DummyVecEnv:
    """Single environments one after the other; copies of one, so that all share its tokenizer and prompts."""
    env = TextGenerationEnv(
        tokenizer=make_tokenizer(setting),
        prompts=make_prompts(setting),
        reward_model=trivial_reward,
        max_prompt_tokens=setting.prompt,
        max_new_tokens=setting.response,
        eos_token_id=[],
    )
    return DummyVecEnv([lambda: copy.deepcopy(env)] * n_envs)


def iteration(setting: Setting, rounds: Rounds, n_episodes: int, batch_size: int) -> None:
    """One whole iteration, worked out from a smaller one: ``n_episodes`` episodes and one epoch.

    The cost is linear: every episode is rolled out once, and in each epoch every token of it passes once through the
    transformer, in minibatches of ``batch_size`` tokens. So an episode of the whole iteration costs (rollout + epochs *
    update) / n_episodes of the seconds measured.
    """
    options: dict[str, Any] = dict(
        features_extractor_class=TokenFeatures,
        features_extractor_kwargs={"model": make_model(setting)},
        net_arch=[],
        ortho_init=False,
    )
    agent = PPO(
        "MultiInputPolicy",
        make_dummy_env(setting, n_episodes),
        learning_rate=setting.learning_rate,
        n_steps=setting.response,
        batch_size=batch_size,
        n_epochs=1,
        policy_kwargs=options,
        seed=0,
        device="cpu",
    )
    rounds.facts["measured"] = f"on {n_episodes} episodes: rollout + {setting.epochs} x one epoch"
    rounds.units = n_episodes
    while rounds.next():
        clock, started = RolloutClock(), time.perf_counter()
        agent.learn(n_episodes * setting.response, callback=clock)
        update = time.perf_counter() - started - clock.seconds
        rounds.seconds = clock.seconds + setting.epochs * update


def env(setting: Setting, rounds: Rounds) -> None:
    """Random tokens through the environments alone, one episode of each; per token."""
    step_randomly(make_dummy_env(setting, setting.num_envs), setting, rounds, n_steps=setting.response)
