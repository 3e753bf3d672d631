"""The algorithms of the leaderboard, by name: this library's, Stable-Baselines3's, anybody's by "module:attr"."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

# The language model itself learns: the policy is a causal LM.
TEXT = (
    "TextPPO", "TextGRPO", "TextRLOO", "TextREINFORCE", "TextREINFORCEPlusPlus", "TextNLPO", "TextExpertIteration",
)  # fmt: skip
# Stock algorithms learn a small network on embedded tokens, `agents.TokenFeatures`, from nothing.
STABLE_BASELINES3 = ("PPO", "A2C", "DQN")
CONTRIB = ("TRPO", "MaskablePPO", "RecurrentPPO", "QRDQN")
# No RL: on every table. "start" is the model that all text algorithms start from.
BASELINES = ("random", "start", "best_of_4", "best_of_16")
N_ENVS = 16  # of a stock algorithm, where nothing else is said
POLICIES = {"RecurrentPPO": "MultiInputLstmPolicy"}


def known() -> list[str]:
    """All names, in the order of tables."""
    return [*BASELINES, *TEXT, *STABLE_BASELINES3, *CONTRIB]


def family_of(name: str) -> str:
    """ "baseline", "text" or "stock"; "text" for a class from outside that is a text algorithm."""
    if name in BASELINES:
        return "baseline"
    if name in TEXT:
        return "text"
    if name in (*STABLE_BASELINES3, *CONTRIB):
        return "stock"
    from agents.on_policy import OnPolicyTextAlgorithm

    return "text" if issubclass(load_class(name), OnPolicyTextAlgorithm) else "stock"


def target_of(name: str) -> str:
    """ "module:attr" of an algorithm's class; "" for a baseline."""
    if name in BASELINES:
        return ""
    for module, names in (
        ("agents", TEXT),
        ("stable_baselines3", STABLE_BASELINES3),
        ("sb3_contrib", CONTRIB),
    ):
        if name in names:
            return f"{module}:{name}"
    return name


def load_class(target: str) -> type:
    """The class that "module:attr" names; the module may lie in the current directory.

    Raises:
        ValueError: there is no such module, attribute or class.
    """
    look_here()
    module, _, attribute = target.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"The algorithm {target} cannot be loaded: {error}. Write module:attr, as in my_package.algorithms:MyPPO, and "
            "run where the module can be imported."
        ) from error
    if not isinstance(found, type):
        raise ValueError(
            f"{target} is a {type(found).__name__}: give a class with Stable-Baselines3's interface."
        )
    return found


def look_here() -> None:
    """Import from the current directory too, as `python -m` does and a console script does not."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def is_missing(name: str) -> bool:
    """Whether an algorithm needs sb3-contrib, and that is not installed."""
    return name in CONTRIB and find_spec("sb3_contrib") is None


def make_model(target: str, arguments: dict[str, Any], env: Any, start: Any, seed: int, device: str) -> Any:
    """The algorithm on its environment, about to learn.

    Args:
        target: "module:attr" of a class with Stable-Baselines3's interface.
        arguments: of its constructor; a schedule is written as `schedule` says. Stock algorithms take `n_envs` too, side by
            side; `policy` is "CausalLMPolicy" for text algorithms and "MultiInputPolicy" with `TokenFeatures` for others,
            unless it is given.
        env: a text environment; this function vectorizes it.
        start: the language model that text algorithms start from; None: the small random one.

    Raises:
        ValueError: arguments that the class does not take.
    """
    from stable_baselines3.common.vec_env import VecMonitor

    from agents.envs import as_vec_env
    from agents.features import TokenFeatures
    from agents.on_policy import OnPolicyTextAlgorithm

    cls, arguments = load_class(target), dict(arguments)
    arguments = {name: schedule(name, value) for name, value in arguments.items()}
    given = dict(arguments.pop("policy_kwargs", {}))
    if issubclass(cls, OnPolicyTextAlgorithm):
        policy = arguments.pop("policy", "CausalLMPolicy")
        given = {} if start is None else {"model": start} | given
        vec_env = env
    else:
        policy = arguments.pop("policy", _policy_of(cls))
        if policy.startswith("MultiInput"):
            given = {"features_extractor_class": TokenFeatures} | given
        vec_env = VecMonitor(as_vec_env(env, arguments.pop("n_envs", N_ENVS)))
    try:
        return cls(policy, vec_env, seed=seed, device=device, policy_kwargs=given, **arguments)
    except TypeError as error:
        raise ValueError(
            f"{target} cannot be made with {arguments}: {error}. Mend `arguments` in the suite; a class of your own takes "
            "policy, env, seed, device and policy_kwargs as Stable-Baselines3's do."
        ) from error


def schedule(name: str, value: Any) -> Any:
    """``value``, but for "lin_0.003", as RL Baselines3 Zoo writes a schedule that falls from 0.003 to 0 while learning."""
    from stable_baselines3.common.utils import LinearSchedule

    if not (isinstance(value, str) and value.startswith("lin_")):
        return value
    try:
        return LinearSchedule(float(value.removeprefix("lin_")), 0.0, 1.0)
    except ValueError:
        raise ValueError(
            f"{name} is {value!r}: in the suite. Write lin_ and a number, as in lin_0.003."
        ) from None


def _policy_of(cls: type) -> str:
    """The policy of a stock algorithm, or of a subclass of one."""
    names = [base.__name__ for base in cls.__mro__]
    return next((POLICIES[name] for name in names if name in POLICIES), "MultiInputPolicy")
