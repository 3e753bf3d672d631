"""Any text environment a user may have, as the Stable-Baselines3 ``VecEnv`` that the algorithms train on."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from text_envs.env import TextGenerationEnv
from text_envs.sb3 import TextVecEnv
from text_envs.vector import TextVectorEnv

# What gymnasium.make adds by itself: it changes nothing that an episode consists of.
TRANSPARENT_WRAPPERS = (PassiveEnvChecker, OrderEnforcing)


def as_vec_env(env: Any, n_envs: int = 1) -> VecEnv:
    """Make ``env`` a VecEnv.

    Args:
        env: an id; a Gymnasium environment; a Gymnasium vector environment; or a VecEnv, which is returned as it is.
        n_envs: sub-environments that a single ``TextGenerationEnv`` becomes, so that episodes are generated side by side.
            An environment behind wrappers of the user's own, or with a ``step`` of its own, stays alone, so that they keep
            working.

    Raises:
        ValueError: for anything else, and for a vector environment that resets at the next step.
    """
    if isinstance(env, VecEnv):
        return env
    if isinstance(env, VectorEnv):
        return TextVecEnv(env) if isinstance(env, TextVectorEnv) else GymnasiumVecEnv(env)
    if isinstance(env, str):
        env = gym.make(env)
    if not isinstance(env, gym.Env):
        raise ValueError(
            f"A {type(env).__name__} is no environment: in env. Give an id, a Gymnasium environment or vector environment, "
            "or a Stable-Baselines3 VecEnv."
        )
    bare = env
    while isinstance(bare, TRANSPARENT_WRAPPERS):
        bare = bare.env
    if isinstance(bare, TextGenerationEnv) and not overrides_episodes(bare):
        return TextVecEnv(bare.vectorize(n_envs))
    return DummyVecEnv([lambda: env])


def overrides_episodes(env: TextGenerationEnv) -> bool:
    """Whether a subclass steps or resets in a way of its own, which the vector environment would not call."""
    return any(getattr(type(env), name) is not getattr(TextGenerationEnv, name) for name in ("reset", "step"))


def common_attribute(env: VecEnv, name: str, default: Any = None) -> Any:
    """An attribute that the sub-environments share, or the default where they have none."""
    try:
        return env.get_attr(name)[0]
    except AttributeError:
        return default


class GymnasiumVecEnv(VecEnv):
    """A Gymnasium vector environment of any make that resets in the same step, as a Stable-Baselines3 VecEnv."""

    def __init__(self, venv: VectorEnv):
        if venv.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise ValueError(
                f"This vector environment resets in mode {venv.metadata.get('autoreset_mode')}: in {venv}. Stable-Baselines3 "
                "needs a reset in the same step: make it with autoreset_mode=AutoresetMode.SAME_STEP, or with "
                "gymnasium.make_vec, which gives text_envs' own vector environment."
            )
        self.venv = venv
        # A TextVectorEnv behind wrappers has no get_attr of its own: its rows share one task.
        self._native = TextVecEnv(venv.unwrapped) if isinstance(venv.unwrapped, TextVectorEnv) else None
        super().__init__(venv.num_envs, venv.single_observation_space, venv.single_action_space)

    def reset(self) -> VecEnvObs:
        seeds = self._seeds if any(seed is not None for seed in self._seeds) else None
        obs, _ = self.venv.reset(seed=seeds)  # type: ignore[arg-type]
        self._reset_seeds()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, terminated, truncated, infos = self.venv.step(self._actions)
        dones = terminated | truncated
        rows = [_row(infos, i) for i in range(self.num_envs)]
        for i in np.flatnonzero(dones).tolist():
            rows[i] |= _row(infos["final_info"], i) | {
                "terminal_observation": infos["final_obs"][i],
                "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
            }
        return obs, np.asarray(rewards, dtype=np.float32), dones, rows

    def close(self) -> None:
        self.venv.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        if self._native is not None:
            return self._native.get_attr(attr_name, indices)
        values = self.venv.get_attr(attr_name)  # type: ignore[attr-defined]
        return [values[i] for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        if self._native is not None:
            return self._native.set_attr(attr_name, value)
        self.venv.set_attr(attr_name, value)  # type: ignore[attr-defined]

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        if self._native is not None:
            return self._native.env_method(method_name, *args, indices=indices, **kwargs)
        values = self.venv.call(method_name, *args, **kwargs)  # type: ignore[attr-defined]
        return [values[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        is_wrapped: Callable[[gym.Env], bool] = lambda env: _has_wrapper(env, wrapper_class)  # noqa: E731
        envs = getattr(self.venv, "envs", None)
        return [is_wrapped(envs[i]) if envs else False for i in self._get_indices(indices)]


def _row(infos: dict[str, Any], i: int) -> dict[str, Any]:
    """Sub-environment i's own info from a Gymnasium vector environment's, where "_name" says which have a "name"."""
    return {
        name: {key: array[i] for key, array in values.items()} if isinstance(values, dict) else values[i]
        for name, values in infos.items()
        if f"_{name}" in infos and infos[f"_{name}"][i] and not name.startswith("final_")
    }


def _has_wrapper(env: gym.Env, wrapper_class: type[gym.Wrapper]) -> bool:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, wrapper_class):
            return True
        env = env.env
    return False
