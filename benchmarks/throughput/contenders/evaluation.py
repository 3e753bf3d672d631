"""Stable-Baselines3's ``evaluate_policy``, on prompts enough for one episode each, greedily."""

from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

from agents import TextPPO
from agents.features import TokenFeatures
from benchmarks.throughput.contender import Rounds
from benchmarks.throughput.contenders.ours import make_agent, make_env, watch
from benchmarks.throughput.setting import Setting, make_model


def ours(setting: Setting, rounds: Rounds, dtype: str) -> None:
    """TextPPO: the cache travels as the state of ``predict``."""
    policy: dict[str, Any] = {"model": make_model(setting)}
    agent = make_agent(setting, TextPPO, dtype, env=make_env(setting, setting.slots), policy_kwargs=policy)
    watch(agent.policy, rounds)
    evaluate(agent, setting, rounds)


def sb3(setting: Setting, rounds: Rounds) -> None:
    """Stock PPO with the same transformer as features extractor: ``predict`` encodes the whole prefix for each token."""
    policy: dict[str, Any] = dict(
        features_extractor_class=TokenFeatures,
        features_extractor_kwargs={"model": make_model(setting)},
        net_arch=[],
        ortho_init=False,
    )
    env = make_env(setting, setting.slots)
    agent = PPO("MultiInputPolicy", env, n_steps=2, batch_size=2, policy_kwargs=policy, seed=0, device="cpu")
    evaluate(agent, setting, rounds)


def evaluate(agent: Any, setting: Setting, rounds: Rounds) -> None:
    """Rounds of as many episodes as the setting has, on the same vector environment for everyone; per episode."""
    env = make_env(setting, setting.slots)
    rounds.units = setting.episodes
    while rounds.next():
        evaluate_policy(agent, env, n_eval_episodes=setting.episodes)
