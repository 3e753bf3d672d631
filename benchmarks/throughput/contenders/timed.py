"""Whole iterations of TextPPO that say how long their parts took."""

import time
from collections.abc import Callable
from typing import Any

import torch

from agents import TextPPO
from benchmarks.throughput.contender import Rounds
from benchmarks.throughput.contenders.ours import make_agent, make_env, watch
from benchmarks.throughput.setting import Setting, make_model


def wait_for(device: str) -> None:
    """Until a GPU has done all that was asked of it."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


class TimedPPO(TextPPO):
    """TextPPO with a clock around two of its parts; the rest of an iteration is the rollout.

    Attributes:
        seconds: per part, of each iteration so far.
    """

    seconds: dict[str, list[float]]

    def timed(self, part: str, function: Callable[..., None], *args: Any) -> None:
        wait_for(str(self.device))
        started = time.perf_counter()
        function(*args)
        wait_for(str(self.device))
        self.seconds.setdefault(part, []).append(time.perf_counter() - started)

    def _evaluate(self, buffer) -> None:
        self.timed("evaluation", super()._evaluate, buffer)

    def train(self) -> None:
        self.timed("update", super().train)


def iteration(setting: Setting, rounds: Rounds, dtype: str, **policy_kwargs: Any) -> None:
    """One whole iteration; per response token. The facts hold the parts' seconds and the model's parameters."""
    agent = make_agent(
        setting,
        TimedPPO,
        dtype,
        env=make_env(setting, setting.episodes),
        policy_kwargs={"model": make_model(setting), **policy_kwargs},
    )
    agent.seconds = {}
    watch(agent.policy, rounds)
    rounds.units = setting.tokens
    rounds.facts["parameters"] = sum(parameter.numel() for parameter in agent.policy.lm.parameters())
    rounds.facts["parts"] = agent.seconds
    while rounds.next():
        agent.learn(setting.tokens)
