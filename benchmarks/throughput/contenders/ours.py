"""This library: whole iterations of TextPPO, its rollout, its update, its vector environment alone."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch.utils._python_dispatch import TorchDispatchMode

from agents import TextPPO
from agents.policy import CausalLMPolicy
from benchmarks.throughput.contender import Rounds
from benchmarks.throughput.setting import (
    EOS,
    Setting,
    make_model,
    make_prompts,
    make_tokenizer,
    trivial_reward,
)
from text_envs.sb3 import TextVecEnv
from text_envs.vector import TextVectorEnv

Agent = TypeVar("Agent", bound=TextPPO)


def make_env(setting: Setting, n_envs: int, ends_early: bool = False) -> TextVecEnv:
    """The native vector environment; without EOS, so that all episodes have the same length, unless ``ends_early``."""
    return TextVecEnv(
        TextVectorEnv(
            n_envs,
            tokenizer=make_tokenizer(setting),
            prompts=make_prompts(setting),
            reward_model=trivial_reward,
            max_prompt_tokens=setting.prompt,
            max_new_tokens=setting.limit if ends_early else setting.response,
            eos_token_id=EOS if ends_early else [],
        )
    )


def make_agent(setting: Setting, cls: type[Agent], dtype: str, **kwargs: Any) -> Agent:
    """TextPPO with its defaults, but for the sizes of the setting."""
    policy_kwargs = kwargs.pop("policy_kwargs", {})
    settings: dict[str, Any] = dict(
        learning_rate=setting.learning_rate,
        n_episodes=setting.episodes,
        batch_size=setting.minibatch,
        n_epochs=setting.epochs,
        seed=0,
        device=setting.device,
    )
    return cls("CausalLMPolicy", policy_kwargs={"dtype": dtype} | policy_kwargs, **settings | kwargs)


def watch(policy: CausalLMPolicy, rounds: Rounds) -> None:
    """Note in the warm-up round which dtypes come out of the policy's products; without hooks, for where there are any,
    decoding is not written out."""

    def noting(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with Products() as products:
                result = method(*args, **kwargs)
            evaluation = "update" if torch.is_grad_enabled() else "scoring"
            phase = "decoding" if method.__name__ == "act" else evaluation
            rounds.facts[f"dtype in {phase}"] = ", ".join(sorted(products.dtypes))
            return result

        return call

    for name in ("act", "evaluate_sequences"):
        setattr(policy, name, noting(getattr(policy, name)))

    def leave_alone() -> None:
        del policy.act, policy.evaluate_sequences  # those of its class are left

    rounds.after_warm_up = leave_alone


class Products(TorchDispatchMode):
    """Notes the dtypes of all matrices that products give."""

    NAMES = ("mm", "addmm", "linear", "_linear_pointwise")

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in self.NAMES and output.shape[-1] > 1:  # not the value head
            self.dtypes.add(str(output.dtype).removeprefix("torch."))
        return output


def iteration(setting: Setting, rounds: Rounds, dtype: str, **kwargs: Any) -> None:
    """One whole iteration: rollout, scores, reference, advantages, update."""
    agent = make_agent(
        setting,
        TextPPO,
        dtype,
        env=make_env(setting, setting.episodes),
        policy_kwargs={"model": make_model(setting), **kwargs},
    )
    watch(agent.policy, rounds)
    rounds.facts["parameters"] = agent.policy.lm.model.num_parameters()
    rounds.units = setting.episodes
    while rounds.next():
        agent.learn(setting.tokens)


class Rollout(TextPPO):
    """TextPPO that only generates: what it does with the episodes afterwards is left out."""

    def _evaluate(self, buffer) -> None:
        self.n_tokens = len(buffer.actions)
        self.mean_length = float(np.mean(buffer.lengths))

    def _assign_rewards(self, buffer) -> None: ...
    def compute_advantages(self, buffer) -> None: ...
    def _record_rollout(self, buffer) -> None: ...
    def train(self) -> None: ...


def rollout(setting: Setting, rounds: Rounds, dtype: str, ends_early: bool) -> None:
    """Generation alone, with log-probabilities and values, through the environment; per token."""
    agent = make_agent(
        setting,
        Rollout,
        dtype,
        env=make_env(setting, setting.slots, ends_early),
        n_episodes=setting.ragged_episodes if ends_early else setting.episodes,
        policy_kwargs={"model": make_model(setting, ends_early)},
    )
    watch(agent.policy, rounds)
    while rounds.next():
        agent.learn(1)
        rounds.units = agent.n_tokens
        rounds.facts["mean length"] = round(agent.mean_length, 1)


class Update(TextPPO):
    """TextPPO whose first update is repeated, round after round, on the same rollout."""

    rounds: Rounds

    def train(self) -> None:
        while self.rounds.next():
            super().train()


def update(setting: Setting, rounds: Rounds, dtype: str, **kwargs: Any) -> None:
    """The update alone, all epochs; per response token."""
    agent = make_agent(
        setting,
        Update,
        dtype,
        env=make_env(setting, setting.episodes),
        policy_kwargs={"model": make_model(setting), **kwargs},
    )
    watch(agent.policy, rounds)
    agent.rounds, rounds.units = rounds, setting.tokens
    agent.learn(setting.tokens)


def env(setting: Setting, rounds: Rounds) -> None:
    """Random tokens through the environment alone, 40 episodes of each sub-environment; per token."""
    step_randomly(make_env(setting, setting.num_envs), setting, rounds, n_steps=40 * setting.response)


def step_randomly(env: VecEnv, setting: Setting, rounds: Rounds, n_steps: int) -> None:
    """Rounds of ``n_steps`` steps, all actions drawn beforehand."""
    actions = np.random.default_rng(0).integers(2, setting.vocabulary, size=(n_steps, env.num_envs))
    env.seed(0)
    env.reset()
    rounds.units = actions.size
    while rounds.next():
        for action in actions:
            env.step(action)
