"""Golden trajectories: what five updates of every algorithm do, on a fixed seed, as numbers in git.

A number that changes means that an algorithm has changed: say in CHANGELOG.md what and why, and write the file anew with

    python -m tests.agents.test_golden
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import KVWriter, Logger

import agents
from tests.agents.helpers import letters_env, small_lm

GOLDEN = Path(__file__).with_name("golden.json")
ALGORITHMS = {
    "TextPPO": {},
    "TextGRPO": {"samples_per_prompt": 4},
    "TextGRPO, dr_grpo": {"samples_per_prompt": 4, "loss_type": "dr_grpo"},
    "TextGRPO, dapo": {"samples_per_prompt": 4, "loss_type": "dapo"},
    "TextRLOO": {},
    "TextREINFORCE": {},
    "TextREINFORCE, no baseline": {"baseline": "none"},
    "TextREINFORCEPlusPlus": {},
    "TextNLPO": {"mask_update_interval": 2},
    "TextExpertIteration": {"samples_per_prompt": 4},
}
LOGGED = ("objective/scores", "objective/kl", "train/loss", "train/grad_norm")


class Rows(KVWriter):
    """Keeps what is logged."""

    def __init__(self):
        self.rows = []

    def write(self, key_values, key_excluded, step=0):
        self.rows.append({key: float(key_values[key]) for key in LOGGED})

    def close(self):
        pass


def untied(completions):
    """Different responses score differently, so that the best of a group does not depend on who ended first."""
    return [
        c.response.count("a") + sum(i * 13**-k for k, i in enumerate(c.response_ids, 1)) for c in completions
    ]


def make(name, env=None, **kwargs):
    torch.manual_seed(5)
    algorithm = getattr(agents, name.partition(",")[0])
    settings = dict(learning_rate=1e-3, n_episodes=16, n_envs=8, seed=0, device="cpu") | ALGORITHMS[name]
    return algorithm(
        "CausalLMPolicy",
        env or letters_env(),
        policy_kwargs=dict(model=small_lm(), dtype="float32"),
        **(settings | kwargs),
    )


def trajectory(name):
    """The log of five updates, a row each."""
    torch.set_num_threads(1)
    model, writer = make(name), Rows()
    model.set_logger(Logger(None, [writer]))
    for _ in range(5):
        model.learn(1, reset_num_timesteps=False)
    return writer.rows


@pytest.mark.parametrize("name", ALGORITHMS)
def test_five_updates_are_those_in_git(name):
    expected = json.loads(GOLDEN.read_text())[name]
    found = trajectory(name)
    assert len(found) == 5
    for update, (ours, golden) in enumerate(zip(found, expected)):
        assert ours == pytest.approx(golden, rel=1e-3, abs=1e-4), f"update {update + 1}"


def test_the_trajectories_differ_from_one_another():
    """A golden file that was written with one algorithm in every place would pass."""
    losses = [tuple(row["train/loss"] for row in rows) for rows in json.loads(GOLDEN.read_text()).values()]
    assert len(set(losses)) == len(ALGORITHMS)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_same_episodes_give_the_same_update_however_many_environments_wrote_them(name):
    weights = []
    writer = make(name, letters_env(reward_model=untied), batch_size=16)
    writer._setup_learn(1)
    writer._share_prompts()
    if writer.samples_per_prompt > 1:
        writer._last_obs = writer.env.reset()
    writer.collect_rollouts(writer.env, writer_callback(writer), writer.rollout_buffer, 16)
    for n_envs, order in ((8, np.arange(16)), (1, np.random.default_rng(0).permutation(16))):
        model = make(name, letters_env(reward_model=untied), batch_size=16, n_envs=n_envs)
        model._setup_learn(1)
        buffer = model.rollout_buffer
        buffer.episodes = [writer.rollout_buffer.episodes[i] for i in order]
        buffer.close()
        model._evaluate(buffer)
        model._assign_rewards(buffer)
        model.compute_advantages(buffer)
        model.train()
        weights.append(torch.cat([p.detach().flatten() for p in model.policy.parameters()]))
    assert torch.allclose(*weights, atol=2e-5)


def writer_callback(model):
    from stable_baselines3.common.callbacks import CallbackList

    callback = CallbackList([])
    callback.init_callback(model)
    return callback


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: trajectory(name) for name in ALGORITHMS}, indent=1) + "\n")
