"""The adaptive KL coefficient of Ziegler et al. 2019 brings the KL to its target, from whatever coefficient it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import text_envs  # noqa: F401  registers the ids
from agents import TextPPO
from benchmarks.science.claims import Claim, all_hold, by_seed
from benchmarks.science.figures import draw_seeds, legend
from benchmarks.science.training import learn
from reward_models.report import INK, PALETTE, ink, new_figure

TITLE = "The adaptive KL controller locks at its target"
PAPER = "Ziegler et al. 2019, section 2.2"
TARGET, WITHIN, LENGTH = 4.0, 0.10, 8
SETTLED = 0.25  # the last quarter of the updates is judged


def conditions(quick: bool) -> list[dict[str, Any]]:
    """The controller from a coefficient that is too low and from one that is too high; and a fixed low one."""
    common = {"updates": 3 if quick else 180, "horizon": 320}
    starts = {
        "adaptive, from below": (0.035, TARGET),
        "adaptive, from above": (0.1, TARGET),
        "fixed": (0.035, None),
    }
    return [
        {"condition": name, "coef": coef, "target": target, **common}
        for name, (coef, target) in starts.items()
    ]  # fmt: skip


def perform(settings: dict[str, Any], cache: Path) -> dict[str, Any]:
    """The curve of PPO on CountLetter: KL in nats per response, coefficient, score."""
    model = TextPPO(
        "CausalLMPolicy", gym.make("text_envs/CountLetter-v0", length=LENGTH), n_episodes=32, batch_size=32, n_epochs=4,
        learning_rate=1e-3, kl_coef=settings["coef"], kl_target=settings["target"], kl_horizon=settings["horizon"],
        seed=settings["seed"], device="cpu",
    )  # fmt: skip
    return {"curve": learn(model, settings["updates"] * 32 * LENGTH)}


def smooth(values: list[float], width: int = 5) -> np.ndarray:
    """Means of `width` neighbours, shape [values - width + 1]; of all where there are fewer."""
    width = min(width, len(values))
    return np.convolve(values, np.ones(width) / width, mode="valid")


def settled(kl: list[float]) -> float:
    """The mean KL of the last quarter, in targets."""
    return float(np.mean(kl[-max(1, round(SETTLED * len(kl))) :])) / TARGET


def claims(runs: list[dict[str, Any]]) -> list[Claim]:
    """That it settles, that it overshoots first, and that without it the KL is elsewhere."""
    kl = {name: [r["curve"]["kl"] for r in by_seed(runs, name).values()] for name in
          ("adaptive, from below", "adaptive, from above", "fixed")}  # fmt: skip
    made = []
    for name in ("adaptive, from below", "adaptive, from above"):
        shares = [settled(values) for values in kl[name]]
        made.append(
            Claim(
                f"The KL settles at the target of {TARGET:g} nats ({name.removeprefix('adaptive, ')}).",
                f"on every seed the mean KL of the last quarter is within {WITHIN:.0%} of the target",
                f"{_listed(shares)} of the target",
                all_hold([abs(share - 1) <= WITHIN for share in shares]),
            )
        )
    peaks = [float(smooth(values).max()) / TARGET for values in kl["adaptive, from below"]]
    made.append(
        Claim(
            "Starting from too low a coefficient, the KL overshoots before it settles.",
            f"on every seed the KL, over five updates, goes above {1 + WITHIN:.0%} of the target",
            f"peaks at {_listed(peaks)} of the target",
            all_hold([peak > 1 + WITHIN for peak in peaks]),
        )
    )
    shares = [settled(values) for values in kl["fixed"]]
    made.append(
        Claim(
            "It is the controller that does it: with the same coefficient held fixed the KL ends elsewhere.",
            f"on every seed the mean KL of the last quarter is more than {WITHIN:.0%} off the target",
            f"{_listed(shares)} of the target",
            all_hold([abs(share - 1) > WITHIN for share in shares]),
        )
    )
    return made


def _listed(shares: list[float]) -> str:
    return ", ".join(f"{share:.0%}" for share in shares) if shares else "no run"


def figure(runs: list[dict[str, Any]]) -> Any:
    """KL and coefficient over the updates: every seed, and the mean."""
    with new_figure(9.0, 3.8, columns=2) as (made, axes):
        for name, colour in zip(("adaptive, from below", "adaptive, from above", "fixed"), PALETTE):
            curves = [r["curve"] for r in by_seed(runs, name).values()]
            for plot, key in zip(axes, ("kl", "coef")):
                lines = [curve[key] for curve in curves]
                draw_seeds(plot, [range(len(line)) for line in lines], lines, colour, name)
        axes[0].axhline(TARGET, **ink())
        axes[0].axhspan(TARGET * (1 - WITHIN), TARGET * (1 + WITHIN), color=INK, alpha=0.08, linewidth=0)
        axes[0].set_ylabel("KL, nats per response")
        axes[1].set_ylabel("coefficient")
        axes[1].set_yscale("log")
        legend(axes[0])
        for plot in axes:
            plot.set_xlabel("update")
        return made
