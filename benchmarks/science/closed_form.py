"""PPO with a KL penalty has an optimum in closed form: reference x exp(reward / beta) / Z."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import text_envs  # noqa: F401  registers the ids
from agents import TextPPO
from benchmarks.science.claims import Claim, all_hold, by_seed
from benchmarks.science.figures import legend
from reward_models.report import PALETTE, ink, new_figure

TITLE = "PPO's optimum under a KL penalty is known in closed form"
PAPER = "Ziegler et al. 2019, section 2.1; Rafailov et al. 2023, section 4"
BETAS, BAR = (0.2, 0.4, 1.0), 0.01
REWARDS = [0.0, 0.25, 0.5, 1.0]


def conditions(quick: bool) -> list[dict[str, Any]]:
    """Three betas."""
    return [
        {"condition": f"beta {beta}", "beta": beta, "rollouts": 3 if quick else 40, "rate": 3e-3}
        for beta in BETAS
    ]


def perform(settings: dict[str, Any], cache: Path) -> dict[str, Any]:
    """Reference, optimum and what was learned: probabilities of the bandit's four arms."""
    env = gym.make("text_envs/Bandit-v0", rewards=REWARDS)
    model = TextPPO(
        "CausalLMPolicy", env, n_episodes=256, n_envs=256, batch_size=256, kl_coef=settings["beta"], seed=settings["seed"],
        learning_rate=lambda progress: settings["rate"] * progress**2, device="cpu",
    )  # fmt: skip
    obs, _ = env.reset(seed=0)
    tensors = {key: torch.from_numpy(value)[None] for key, value in obs.items()}

    def probabilities() -> np.ndarray:
        with torch.no_grad():
            return model.policy.get_distribution(tensors).distribution.probs.numpy()[0].astype(np.float64)

    reference = probabilities()
    model.learn(256 * settings["rollouts"])
    learned, best = probabilities(), optimum(reference, np.array(REWARDS), settings["beta"])
    return {
        "reference": reference.tolist(),
        "optimum": best.tolist(),
        "learned": learned.tolist(),
        "distance": total_variation(learned, best),
        "distance_at_the_start": total_variation(reference, best),
    }


def optimum(reference: np.ndarray, rewards: np.ndarray, beta: float) -> np.ndarray:
    """reference x exp(reward / beta) / Z, shape [arms]."""
    weights = reference * np.exp((rewards - rewards.max()) / beta)
    return weights / weights.sum()


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Half the sum of absolute differences of two distributions, 0 to 1."""
    return float(0.5 * np.abs(p - q).sum())


def claims(runs: list[dict[str, Any]]) -> list[Claim]:
    """One for each beta."""
    made = []
    for beta in BETAS:
        found = by_seed(runs, f"beta {beta}")
        distances = [result["distance"] for result in found.values()]
        before = [result["distance_at_the_start"] for result in found.values()]
        made.append(
            Claim(
                f"With beta = {beta}, PPO converges to reference x exp(reward / beta) / Z.",
                f"on every seed the total variation from it is below {BAR}",
                f"largest distance {max(distances):.4f}, from {min(before):.2f} or more at the start, {len(found)} seeds"
                if found
                else "no run",
                all_hold([distance < BAR for distance in distances]),
            )
        )
    return made


def figure(runs: list[dict[str, Any]]) -> Any:
    """Learned probabilities against the optimum's, and the distances."""
    with new_figure(9.0, 3.8, columns=2) as (made, (left, right)):
        for row, (beta, colour) in enumerate(zip(BETAS, PALETTE)):
            found = list(by_seed(runs, f"beta {beta}").values())
            for index, result in enumerate(found):
                label = f"beta {beta}" if index == 0 else None
                left.plot(
                    result["optimum"], result["learned"], "o", color=colour, ms=5, alpha=0.7, label=label
                )
            right.plot([r["distance"] for r in found], [row] * len(found), "o", color=colour, alpha=0.7)
        left.plot([0, 1], [0, 1], **ink())
        left.set_xlabel("probability in the closed form")
        left.set_ylabel("probability learned")
        legend(left)
        right.axvline(BAR, **ink())
        right.set_yticks(range(len(BETAS)), [f"beta {beta}" for beta in BETAS])
        right.set_ylim(-0.6, len(BETAS) - 0.4)
        right.set_xlim(left=0)
        right.set_xlabel("total variation from the optimum, each seed")
        return made
