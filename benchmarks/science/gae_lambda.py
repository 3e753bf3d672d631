"""Which lambda of GAE a language model wants that starts from fine-tuning, and how often PPO's clip is active there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import text_envs  # noqa: F401  registers the ids
from agents import TextPPO
from benchmarks.science.claims import Claim, above, by_seed, compared, last, mean_of, text
from benchmarks.science.figures import draw_seeds, legend
from benchmarks.science.training import learn
from reward_models.report import PALETTE, ink, new_figure

TITLE = "GAE's lambda, and how often the clip is active"
PAPER = "Ahmadian et al. 2024, sections 3.1 and 5.1: no bootstrapping (lambda 1) is best; less than 5 % is clipped"
LAMBDAS, BAR = (0.0, 0.5, 0.95, 1.0), 0.05


def conditions(quick: bool) -> list[dict[str, Any]]:
    """Four lambdas."""
    return [
        {"condition": f"lambda {value:g}", "gae_lambda": value, "tokens": 1000 if quick else 13_000}
        for value in LAMBDAS
    ]


def perform(settings: dict[str, Any], cache: Path) -> dict[str, Any]:
    """The curve of PPO on SupportReply with the gold judge as reward."""
    model = TextPPO(
        "CausalLMPolicy", gym.make("text_envs/SupportReply-v0"), n_episodes=64, batch_size=16, n_epochs=2, learning_rate=5e-4,
        kl_coef=0.02, gae_lambda=settings["gae_lambda"], seed=settings["seed"], device="cpu",
    )  # fmt: skip
    return {"curve": learn(model, settings["tokens"])}


def ends(runs: list[dict[str, Any]], value: float) -> dict[int, float]:
    """Mean gold score of the last quarter of the updates, by seed."""
    return {seed: last(r["curve"]["score"]) for seed, r in by_seed(runs, f"lambda {value:g}").items()}


def clipped(runs: list[dict[str, Any]], value: float) -> list[float]:
    """Mean share of tokens whose ratio is beyond the clip range, for each seed."""
    return [float(np.mean(r["curve"]["clipped"])) for r in by_seed(runs, f"lambda {value:g}").values()]


def claims(runs: list[dict[str, Any]]) -> list[Claim]:
    """Lambda 1 is above each other; the clip is active on less than 5 % of the tokens."""
    made = [
        compared(
            f"Lambda 1 scores higher than lambda {value:g}.",
            "the score of the last quarter",
            ends(runs, 1.0),
            ends(runs, value),
        )
        for value in LAMBDAS[:-1]
    ]
    for value in LAMBDAS:
        shares = clipped(runs, value)
        criterion = f"the 95 % interval of the mean share of tokens outside the clip range is below {BAR:.0%}"
        says = f"With lambda {value:g}, less than {BAR:.0%} of the tokens are beyond the clip range."
        if len(shares) < 2:
            made.append(Claim(says, criterion, "fewer than two seeds are there", "undecided"))
            continue
        room = mean_of([BAR - share for share in shares])
        made.append(
            Claim(says, criterion, f"share {text(mean_of(shares))}, {len(shares)} seeds", above(room))
        )
    return made


def figure(runs: list[dict[str, Any]]) -> Any:
    """Learning curves and clipped shares."""
    with new_figure(9.0, 3.8, columns=2) as (made, axes):
        for value, colour in zip(LAMBDAS, PALETTE):
            curves = [r["curve"] for r in by_seed(runs, f"lambda {value:g}").values()]
            for plot, key in zip(axes, ("score", "clipped")):
                draw_seeds(
                    plot, [c["tokens"] for c in curves], [c[key] for c in curves], colour, f"lambda {value:g}"
                )
        axes[1].axhline(BAR, **ink())
        axes[0].set_ylabel("gold score")
        axes[1].set_ylabel("share of tokens beyond the clip range")
        legend(axes[0])
        for plot in axes:
            plot.set_xlabel("tokens generated")
        return made
