"""Credit for each token, by a critic and GAE, against one credit for the whole response, as responses grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import text_envs  # noqa: F401  registers the ids
from agents import TextPPO, TextRLOO
from benchmarks.science.claims import Claim, by_seed, compared, last
from benchmarks.science.figures import draw_seeds, legend
from benchmarks.science.training import learn
from reward_models.report import PALETTE, new_figure

TITLE = "Credit per token against credit per response, as responses grow"
PAPER = "Ahmadian et al. 2024, section 3, who find whole responses enough; Schulman et al. 2016, who want credit in time"
LENGTHS = (8, 32, 128)
ALGORITHMS = {"per token": TextPPO, "per response": TextRLOO}
EPISODES = 32


def conditions(quick: bool) -> list[dict[str, Any]]:
    """Two kinds of credit, three lengths; the same number of responses and of optimiser steps for all."""
    return [
        {"condition": f"{credit}, {length} tokens", "credit": credit, "length": length, "updates": 2 if quick else 10}
        for length in ((8,) if quick else LENGTHS)
        for credit in ALGORITHMS
    ]  # fmt: skip


def perform(settings: dict[str, Any], cache: Path) -> dict[str, Any]:
    """The curve on CountLetter, a score from 1/4 (chance) to 1."""
    env = gym.make("text_envs/CountLetter-v0", length=settings["length"])
    model = ALGORITHMS[settings["credit"]](
        "CausalLMPolicy", env, n_episodes=EPISODES, batch_size=EPISODES, n_epochs=4, learning_rate=2e-3, kl_coef=0.0,
        seed=settings["seed"], device="cpu",
    )  # fmt: skip
    return {"curve": learn(model, settings["updates"] * EPISODES * settings["length"])}


def ends(runs: list[dict[str, Any]], credit: str, length: int) -> dict[int, float]:
    """Mean score of the last quarter of the updates, by seed."""
    found = by_seed(runs, f"{credit}, {length} tokens")
    return {seed: last(result["curve"]["score"]) for seed, result in found.items()}


def gaps(runs: list[dict[str, Any]], length: int) -> dict[int, float]:
    """How far per-token credit is above per-response credit, by seed."""
    token, response = (ends(runs, credit, length) for credit in ALGORITHMS)
    return {seed: token[seed] - response[seed] for seed in set(token) & set(response)}


def claims(runs: list[dict[str, Any]]) -> list[Claim]:
    """Per-token credit is better at each length, and the more so the longer the response."""
    what = "the score of the last quarter"
    made = [
        compared(
            f"With responses of {length} tokens, credit per token learns more from as many responses.",
            what,
            ends(runs, "per token", length),
            ends(runs, "per response", length),
        )
        for length in LENGTHS
    ]
    made.append(
        compared(
            f"The advantage of credit per token grows from {LENGTHS[0]} to {LENGTHS[-1]} tokens.",
            f"{what}, per token less per response,",
            gaps(runs, LENGTHS[-1]),
            gaps(runs, LENGTHS[0]),
        )
    )
    return made


def figure(runs: list[dict[str, Any]]) -> Any:
    """Learning curves at each length, over responses."""
    with new_figure(9.6, 3.4, columns=len(LENGTHS)) as (made, axes):
        for plot, length in zip(axes, LENGTHS):
            for credit, colour in zip(ALGORITHMS, PALETTE):
                curves = [r["curve"] for r in by_seed(runs, f"{credit}, {length} tokens").values()]
                responses = [[tokens / length for tokens in c["tokens"]] for c in curves]
                scores = [c["score"] for c in curves]
                label = f"{credit}: {np.mean([last(s) for s in scores]):.2f}" if scores else credit
                draw_seeds(plot, responses, scores, colour, label)
            plot.set_ylim(0, 1.03)
            plot.set_title(f"{length} tokens")
            plot.set_xlabel("responses")
            legend(plot, loc="lower right")
        axes[0].set_ylabel("score")
        return made
