"""EnvContract: what every environment of this package keeps, as a mixin for the tests of users' own environments."""

from __future__ import annotations

import copy
import json
import pickle
import unittest
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv

Transition = tuple[Any, ...]


class EnvContract:
    """Inherit from it in a test class, and name a registered environment; pytest then runs every ``test_*`` below.

        class TestMyEnv(EnvContract):
            env_id = "my_package/MyEnv-v0"
            kwargs = {"max_new_tokens": 8}

    Attributes:
        env_id: the id under which the environment is registered.
        kwargs: its arguments.
        num_envs: how many single environments the vector environment is compared with.
        steps: how many steps of it.
        eos_rate: how often the random actions end a response where the environment has EOS tokens.
    """

    env_id: str
    kwargs: dict[str, Any] = {}  # noqa: RUF012 (read only)
    num_envs = 3
    steps = 60
    eos_rate = 0.15

    def make(self, **kwargs: Any) -> gym.Env[Any, Any]:
        return gym.make(self.env_id, **{**self.kwargs, **kwargs})

    # -- one environment ---------------------------------------------------------------------------------------------

    def test_passes_the_checkers_of_gymnasium_and_sb3_without_a_warning(self) -> None:
        from stable_baselines3.common.env_checker import check_env as sb3_check_env

        env = self.make().unwrapped
        with no_warnings():
            gymnasium_check_env(env)
            sb3_check_env(env)

    def test_scores_and_tells_the_completion_on_the_last_step_only(self) -> None:
        for _, (_, reward, terminated, truncated, info) in zip(range(self.steps), self.play(self.make())):
            assert ("completion" in info) == terminated
            assert terminated or reward == 0.0
            assert not truncated, "an episode that is cut is never scored"

    def test_refuses_a_step_after_the_end(self) -> None:
        env = self.make()
        next(transition for transition in self.play(env) if transition[2])
        raised = False
        try:
            env.step(0)
        except gym.error.ResetNeeded:
            raised = True
        assert raised, "step() after the end of an episode must raise gymnasium.error.ResetNeeded"

    def test_the_same_seed_gives_the_same_episodes(self) -> None:
        env = self.make()
        first, second = self.record(env), self.record(env)
        assert equal(first, second)
        assert equal(first, self.record(self.make()))

    def test_a_pickled_or_copied_environment_continues_alike(self) -> None:
        for clone in (copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))):
            env = self.make()
            self.record(env, self.steps // 2)
            twin = clone(env)
            assert equal(self.record(env, seed=None), self.record(twin, seed=None))

    def test_its_spec_makes_it_again(self) -> None:
        env = self.make()
        assert env.spec is not None
        specs = [env.spec]
        if is_json(self.kwargs):
            specs.append(EnvSpec.from_json(env.spec.to_json()))
        for spec in specs:
            assert equal(self.record(env), self.record(gym.make(spec)))

    def test_takes_an_action_of_any_integer_type(self) -> None:
        env = self.make()
        steps = []
        for action in (1, np.int64(1), np.array(1), np.array([1])):
            env.reset(seed=0)
            steps.append(env.step(action))
        assert all(equal(step, steps[0]) for step in steps)

    def test_renders(self) -> None:
        for mode, kind in (("ansi", str), ("rgb_array", np.ndarray)):
            env = self.make(render_mode=mode)
            self.record(env, 3)
            assert isinstance(env.render(), kind)

    def test_masks_leave_a_token(self) -> None:
        env = self.make()
        _, info = env.reset(seed=0)
        masks = env.get_wrapper_attr("action_masks")()
        assert masks.shape == (env.action_space.n,) and masks.dtype == np.bool_ and masks.any()  # type: ignore[attr-defined]
        assert ("action_mask" in info) == env.get_wrapper_attr("masks_actions")
        assert "action_mask" not in info or np.array_equal(info["action_mask"], masks)

    # -- n environments ----------------------------------------------------------------------------------------------

    def test_next_step_autoreset_equals_single_environments(self) -> None:
        self.compare(AutoresetMode.NEXT_STEP)

    def test_same_step_autoreset_equals_single_environments(self) -> None:
        self.compare(AutoresetMode.SAME_STEP)

    def test_disabled_autoreset_equals_single_environments(self) -> None:
        self.compare(AutoresetMode.DISABLED)

    def compare(self, mode: AutoresetMode) -> None:
        """The native vector environment against ``SyncVectorEnv`` over single ones: every array and info."""
        if gym.spec(self.env_id).vector_entry_point is None:
            raise unittest.SkipTest(f"{self.env_id} has no vector_entry_point")
        ours = gym.make_vec(self.env_id, self.num_envs, autoreset_mode=mode, **self.kwargs)
        theirs = SyncVectorEnv([self.make] * self.num_envs, autoreset_mode=mode)
        assert ours.metadata["autoreset_mode"] == mode
        assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
        assert equal(ours.reset(seed=7), theirs.reset(seed=7))
        rng = np.random.default_rng(0)
        for _ in range(self.steps):
            actions = np.array([self.action(rng, env) for env in theirs.envs])
            step = ours.step(actions)
            assert equal(step, theirs.step(actions))
            ended = step[2]
            if mode == AutoresetMode.DISABLED and ended.any():
                resets = [env.reset(options={"reset_mask": ended.copy()}) for env in (ours, theirs)]
                assert equal(resets[0], resets[1])

    # -- helpers -----------------------------------------------------------------------------------------------------

    def action(self, rng: np.random.Generator, env: gym.Env[Any, Any]) -> int:
        """A random legal token; EOS now and then."""
        legal = np.flatnonzero(env.get_wrapper_attr("action_masks")())
        ends = [token for token in env.get_wrapper_attr("eos_token_ids") if token in legal]
        return int(rng.choice(ends if ends and rng.random() < self.eos_rate else legal))

    def play(self, env: gym.Env[Any, Any], seed: int | None = 3) -> Iterator[Transition]:
        """Steps with random actions, without end; resets are not told."""
        rng = np.random.default_rng(0)
        env.reset(seed=seed)
        while True:
            transition = env.step(self.action(rng, env))
            yield transition
            if transition[2] or transition[3]:
                env.reset()

    def record(
        self, env: gym.Env[Any, Any], steps: int | None = None, seed: int | None = 3
    ) -> list[Transition]:
        """The first transitions of `play`; copies, since an environment might reuse its arrays."""
        return [copy.deepcopy(step) for _, step in zip(range(steps or self.steps), self.play(env, seed))]


def equal(one: Any, other: Any) -> bool:
    """Whether observations, rewards, flags and infos are the same, exactly."""
    return data_equivalence(one, other, exact=True)


def is_json(value: Any) -> bool:
    """Whether a value survives JSON."""
    try:
        return json.loads(json.dumps(value)) == value
    except TypeError:
        return False


@contextmanager
def no_warnings() -> Iterator[None]:
    """Any warning inside is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
