"""TextVecEnv: the vector environment as Stable-Baselines3 sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from text_envs.masks import BoolArray
from text_envs.vector import FloatArray, TextVectorEnv


class TextVecEnv(VecEnv):
    """A `TextVectorEnv` behind Stable-Baselines3's ``VecEnv``.

    It switches the environment to SAME_STEP autoreset, which is SB3's: ``infos[i]`` of an ended episode holds
    ``"completion"``, ``"terminal_observation"`` and ``"TimeLimit.truncated": False``. Wrap it in SB3's
    ``VecMonitor`` for episode statistics.

    Attributes:
        can_rest: True: an action of -1 rests its row (`TextVectorEnv`).
    """

    can_rest = True

    def __init__(self, venv: TextVectorEnv):
        venv.autoreset_mode = AutoresetMode.SAME_STEP
        self.venv = venv
        super().__init__(venv.num_envs, venv.single_observation_space, venv.single_action_space)

    @property
    def defer_scores(self) -> bool:
        """Whether ended episodes are held, with reward 0.0, until `collect_scores`."""
        return self.venv.defer_scores

    @defer_scores.setter
    def defer_scores(self, defer: bool) -> None:
        self.venv.defer_scores = defer

    def collect_scores(self) -> FloatArray:
        """The scores held by ``defer_scores``, float64, in the order episodes ended: by step, by row."""
        return self.venv.collect_scores()

    def discard_scores(self) -> None:
        """Forget the episodes held by ``defer_scores``."""
        self.venv.discard_scores()

    def action_masks(self) -> BoolArray:
        """The legal tokens, bool ``[n, V]``."""
        return self.venv.action_masks()

    def reset(self) -> VecEnvObs:
        """Reset all rows with the seeds of ``seed()`` and the options of ``set_options()``, each used once."""
        options = {"prompt": [(options or {}).get("prompt") for options in self._options]}
        obs, infos = self.venv.reset(seed=self._seeds, options=options)
        masks = infos.get("action_mask", ())
        self.reset_infos = [{"action_mask": mask} for mask in masks] or [{} for _ in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, dones, _, vector_infos = self.venv.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if "final_info" in vector_infos:
            completions, final = vector_infos["final_info"]["completion"], vector_infos["final_obs"]
            ended = np.flatnonzero(dones)
            for row, completion, last in zip(ended.tolist(), completions[ended], final[ended]):
                infos[row] = {
                    "completion": completion,
                    "terminal_observation": last,
                    "TimeLimit.truncated": False,
                }
        for row, mask in enumerate(vector_infos.get("action_mask", ())):
            infos[row]["action_mask"] = mask
        return obs, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        self.venv.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        return self.venv.render() or []

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of the vector environment, once for each index: its rows share one task."""
        return [getattr(self.venv, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector environment, for all rows: they share one task."""
        setattr(self.venv, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the vector environment once, and give each index its row of the result."""
        result = getattr(self.venv, method_name)(*method_args, **method_kwargs)
        return [None if result is None else result[index] for index in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        return [False] * len(list(self._get_indices(indices)))
