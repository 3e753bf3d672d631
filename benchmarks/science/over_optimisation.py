"""Gold and proxy reward against the distance from the start, for best-of-n and for PPO, after Gao et al. 2023."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import text_envs  # noqa: F401  registers the ids
from agents import TextPPO
from agents.best_of_n import best_of_n, best_of_n_kl
from benchmarks.science.claims import HELD, UNDECIDED, Claim, above, by_seed, compared, last, mean_of, text
from benchmarks.science.figures import legend
from benchmarks.science.fits import FORMS, NAMES, Fit, fit
from benchmarks.science.proxies import Remembered, proxy, replies
from benchmarks.science.training import learn
from reward_models import RewardModel, make, score
from reward_models.ensemble import Ensemble
from reward_models.report import PALETTE, new_figure
from text_envs.tasks import support_reply

TITLE = "Optimising a learned reward too far lowers the gold reward"
PAPER = "Gao et al. 2023, sections 3 and 4; ensembles: Coste et al. 2024, section 5"
SIZES = (60, 250, 800)
EPOCHS = {60: 6.0, 250: 4.0, 800: 3.0}
FLIPS = (0.0, 0.25)
OF_ENSEMBLE = (250, 0.25)  # what each of the three members learns from
COMBINED = ("mean", "min", "mean_minus_variance")
TURN = 0.1  # standard deviations of the start's gold scores: a smaller fall is no turnover
NEIGHBOURS = 3  # along a curve, averaged before its peak is sought


def name_of(size: int, flip: float) -> str:
    """Of a single proxy."""
    return f"{size} comparisons, {flip:.0%} flipped"


PROXIES = {name_of(size, flip): (size, flip, "") for flip in FLIPS for size in SIZES} | {
    f"ensemble, {combine}": (*OF_ENSEMBLE, combine) for combine in COMBINED
}
SINGLE = name_of(*OF_ENSEMBLE)


def conditions(quick: bool) -> list[dict[str, Any]]:
    """Three stages, each of which needs the one before: replies to choose from, best-of-n by each proxy, PPO on each."""
    common = (
        {"prompts": 4, "each": 16, "most": 60} if quick else {"prompts": 16, "each": 128, "most": max(SIZES)}
    )
    made: list[dict[str, Any]] = [{"condition": "replies", "stage": 0, **common}]
    for stage, kind in ((1, "best of n"), (2, "ppo")):
        for name, (size, flip, combine) in PROXIES.items():
            if quick and size > 60:
                continue
            arguments = {"size": size, "flip": flip, "epochs": EPOCHS[size], "combine": combine}
            more = {"tokens": 1500 if quick else 10_000, "kl_coef": 0.0} if kind == "ppo" else {}
            made.append({"condition": f"{kind}, {name}", "stage": stage, **common, **arguments, **more})
    return made


def perform(settings: dict[str, Any], cache: Path) -> dict[str, Any]:
    """What one stage needs."""
    pairs = replies(settings["most"], 2, 1000 + settings["seed"], cache)  # of the comparisons
    if settings["condition"] == "replies":
        gold = score(support_reply.judge, pairs)
        replies(settings["prompts"], settings["each"], settings["seed"], cache)
        return {"gold": float(gold.mean()), "std": float(gold.std())}
    return (_choose if settings["stage"] == 1 else _train)(settings, make_proxy(settings, cache), cache)


def make_proxy(settings: dict[str, Any], cache: Path) -> RewardModel:
    """The reward model of a run, single or combined of three."""
    arguments = [settings[name] for name in ("size", "flip", "epochs", "most", "seed")]
    members = range(3 if settings["combine"] else 1)
    folders = [proxy(*arguments, member, cache) for member in members]
    shape = settings["prompts"], settings["each"], settings["seed"]
    judges = [
        Remembered(folder, shape) if settings["stage"] == 1 else make(str(folder)) for folder in folders
    ]
    return Ensemble(judges, settings["combine"]) if settings["combine"] else judges[0]


def _choose(settings: dict[str, Any], reward: RewardModel, cache: Path) -> dict[str, Any]:
    """Best-of-n by the proxy, judged by proxy and gold: means over prompts, for n = 1, 2, 4, ... all that there are."""
    shape = settings["prompts"], settings["each"]
    completions = replies(*shape, settings["seed"], cache)
    gold = score(support_reply.judge, completions).reshape(shape)
    chosen = score(reward, completions).reshape(shape)
    ns = [2**power for power in range(shape[1].bit_length())]
    return {
        "n": ns,
        "curve": {
            "kl": [best_of_n_kl(n) for n in ns],
            "gold": [float(best_of_n(gold, n, chosen).mean()) for n in ns],
            "score": [float(best_of_n(chosen, n).mean()) for n in ns],
        },
        "correlation": float(np.corrcoef(gold.ravel(), chosen.ravel())[0, 1]),
    }


def _train(settings: dict[str, Any], reward: RewardModel, cache: Path) -> dict[str, Any]:
    """PPO on the proxy without a KL penalty: each rollout is judged by gold too."""
    env = gym.make("text_envs/SupportReply-v0", reward_model=reward)
    model = TextPPO(
        "CausalLMPolicy", env, n_episodes=32, batch_size=16, n_epochs=4, learning_rate=5e-4, kl_coef=settings["kl_coef"],
        seed=settings["seed"], device="cpu",
    )  # fmt: skip
    return {"curve": learn(model, settings["tokens"], support_reply.judge)}


# --- what was found --------------------------------------------------------------------------------------------------


def curves(runs: list[dict[str, Any]], condition: str) -> dict[int, dict[str, np.ndarray]]:
    """By seed, as far as all seeds go: d = sqrt(KL), and the gain over the start of "gold" and of the proxy, "score", both in
    standard deviations of the start's replies."""
    found = {seed: result["curve"] for seed, result in by_seed(runs, condition).items()}
    starts = by_seed(runs, "replies")
    n = min((len(curve["kl"]) for curve in found.values()), default=0)
    return {
        seed: {
            "d": np.sqrt(np.maximum(curve["kl"][:n], 0)),
            "gold": (np.array(curve["gold"][:n]) - _start(curve, starts, seed)) / _std(starts),
            "score": np.array(curve["score"][:n]) - curve["score"][0],
        }
        for seed, curve in found.items()
    }


def _start(curve: dict[str, list[float]], starts: dict[int, dict], seed: int) -> float:
    """The gold score before: of best-of-1, the same prompts; of PPO, of all replies that were sampled of the start."""
    return curve["gold"][0] if "tokens" not in curve or seed not in starts else starts[seed]["gold"]


def _std(starts: dict[int, dict]) -> float:
    return float(np.mean([start["std"] for start in starts.values()])) if starts else 1.0


def drops(found: dict[int, dict[str, np.ndarray]]) -> tuple[dict[int, float], dict[int, float]]:
    """By how much gold falls, and the proxy rises, from the peak to the end, by seed.

    Where the peak is, the other seeds say: a seed's own highest value would stand above its end by noise alone. Curves are
    averaged over `NEIGHBOURS` neighbours first.
    """
    window = np.ones(NEIGHBOURS) / NEIGHBOURS
    smooth = {
        seed: {key: np.convolve(curve[key], window, mode="valid") for key in ("gold", "score")}
        for seed, curve in found.items()
        if len(curve["gold"]) >= NEIGHBOURS
    }
    falls, rises = {}, {}
    for seed, own in smooth.items():
        others = [curve["gold"] for other, curve in smooth.items() if other != seed]
        if others:
            peak = int(np.mean(others, axis=0).argmax())
            falls[seed] = float(own["gold"][peak] - own["gold"][-1])
            rises[seed] = float(own["score"][-1] - own["score"][peak])
    return falls, rises


def turnover(runs: list[dict[str, Any]], condition: str) -> Claim:
    """That gold falls after its peak, while the proxy does not."""
    says = f"{condition}: gold turns over."
    criterion = f"the 95 % interval of gold's fall from its peak (placed by the other seeds) to the end is above {TURN}"
    falls, rises = drops(curves(runs, condition))
    if len(falls) < 2:
        return Claim(says, criterion, "fewer than two seeds are there", UNDECIDED)
    fall, rise = mean_of(list(falls.values())), mean_of(list(rises.values()))
    return Claim(
        says,
        criterion,
        f"gold falls by {text(fall, 2)}, the proxy rises by {text(rise, 2)} standard deviations, {len(falls)} seeds",
        above(fall, TURN),
    )


def ends(runs: list[dict[str, Any]], condition: str) -> dict[int, float]:
    """Gold at the end of PPO (last quarter), or at the largest n, by seed."""
    share = 0.25 if condition.startswith("ppo") else 0.01
    return {seed: last(list(curve["gold"]), share) for seed, curve in curves(runs, condition).items()}


def fitted(runs: list[dict[str, Any]], condition: str) -> dict[str, Fit]:
    """Both forms, fitted to the points of all seeds; empty where there are too few."""
    found = list(curves(runs, condition).values())
    if sum(int((curve["d"] > 0).sum()) for curve in found) < 3:
        return {}
    d, gold = (np.concatenate([curve[key] for curve in found]) for key in ("d", "gold"))
    return {form: fit(form, d, gold) for form in FORMS}


def better_form(runs: list[dict[str, Any]], kind: str, form: str) -> Claim:
    """That one form explains the proxies' curves better than the other."""
    (other,) = set(FORMS) - {form}
    pairs = [found for name in PROXIES if (found := fitted(runs, f"{kind}, {name}"))]
    says = f"Gold under {kind} follows {NAMES[form]}."
    criterion = f"its R2 is above that of {NAMES[other]} for at least three proxies in four, and above 0.5 for as many"
    if not pairs:
        return Claim(says, criterion, "no run", UNDECIDED)
    wins = sum(found[form].r2 > found[other].r2 for found in pairs)
    good = sum(found[form].r2 > 0.5 for found in pairs)
    r2 = np.mean([[found[f].r2 for f in (form, other)] for found in pairs], axis=0)
    holds = min(wins, good) >= 0.75 * len(pairs)
    return Claim(
        says,
        criterion,
        f"better for {wins} of {len(pairs)}, above 0.5 for {good}; mean R2 {r2[0]:.2f} against {r2[1]:.2f}",
        HELD if holds else "did not hold",
    )


def claims(runs: list[dict[str, Any]]) -> list[Claim]:
    """Turnovers; what more comparisons, slips and ensembles change; the functional forms."""
    made = [turnover(runs, f"{kind}, {name}") for kind in ("best of n", "ppo") for name in PROXIES]
    seen = [claim.says.removesuffix(": gold turns over.") for claim in made if claim.verdict == HELD]
    found = "; ".join(seen) if seen else "nowhere"
    verdict = HELD if seen else UNDECIDED
    made.insert(0, Claim("Gold turns over somewhere.", "one of the next claims held", found, verdict))
    for kind in ("best of n", "ppo"):
        made += end_claims(runs, kind)
    return [*made, better_form(runs, "best of n", "best_of_n"), better_form(runs, "ppo", "rl")]


def end_claims(runs: list[dict[str, Any]], kind: str) -> list[Claim]:
    """Where gold ends: with more comparisons, without flips, with ensembles."""
    better = [
        (
            f"more comparisons end higher, {SIZES[-1]} against {SIZES[0]}, {flip:.0%} flipped",
            name_of(SIZES[-1], flip),
            name_of(SIZES[0], flip),
        )
        for flip in FLIPS
    ]
    better += [
        (
            f"comparisons without flips end higher, {size} of them",
            name_of(size, FLIPS[0]),
            name_of(size, FLIPS[1]),
        )
        for size in SIZES
    ]
    better += [
        (
            f"an ensemble ({combine}) ends higher than a single reward model",
            f"ensemble, {combine}",
            SINGLE,
        )
        for combine in COMBINED
    ]
    return [
        compared(
            f"{kind}: {says}.",
            f"gold at the end of {kind}",
            *(ends(runs, f"{kind}, {name}") for name in pair),
        )
        for says, *pair in better
    ]


def tables(runs: list[dict[str, Any]]) -> list[str]:
    """The fits, as Markdown."""
    lines = [
        "| condition | seeds | form | alpha | beta | R2 | peak at d |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind in ("best of n", "ppo"):
        for name in PROXIES:
            condition = f"{kind}, {name}"
            seeds = len(by_seed(runs, condition))
            lines += [
                f"| {condition} | {seeds} | {NAMES[form]} | {found.alpha:.2f} | {found.beta:.2f} | {found.r2:.2f} | "
                f"{found.peak:.1f} |"
                for form, found in fitted(runs, condition).items()
            ]
    return lines


def figure(runs: list[dict[str, Any]]) -> Any:
    """Gold, with its fitted form, and the proxy, against d: best-of-n and PPO by size, without and with flips; ensembles."""
    flipped = {f"{flip:.0%} flipped": [name_of(size, flip) for size in SIZES] for flip in FLIPS}
    groups = flipped | {"ensembles of 3": [SINGLE, *(f"ensemble, {combine}" for combine in COMBINED)]}
    panels = [(kind, title, names) for kind in ("best of n", "ppo") for title, names in groups.items()]
    with new_figure(16.0, 3.8, columns=len(panels)) as (made, axes):
        for plot, (kind, title, names) in zip(axes, panels):
            for name, colour in zip(names, PALETTE):
                _draw(plot, runs, f"{kind}, {name}", name, colour)
            plot.set_title(f"{kind}, {title}", fontsize=9)
            plot.set_xlabel("sqrt(KL), nats")
            legend(plot, 6)
        axes[0].set_ylabel("gain: gold (points, fit), proxy (dashed)\nstandard deviations of the start")
        return made


def _draw(plot: Any, runs: list[dict[str, Any]], condition: str, name: str, colour: str) -> None:
    found = list(curves(runs, condition).values())
    if not found:
        return
    for curve in found:
        plot.plot(curve["d"], curve["gold"], "o", color=colour, ms=2.5, alpha=0.35, mew=0)
    d, proxy_ = (np.mean([curve[key] for curve in found], axis=0) for key in ("d", "score"))
    plot.plot(d, proxy_, "--", color=colour, linewidth=1.0, alpha=0.8)
    form = "rl" if condition.startswith("ppo") else "best_of_n"
    fits = fitted(runs, condition)
    if fits:
        grid = np.linspace(0.02, max(float(curve["d"].max()) for curve in found), 80)
        plot.plot(grid, fits[form](grid), color=colour, linewidth=1.6, label=name)
