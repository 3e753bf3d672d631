"""The leaderboard's figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.bench.results import Results, label
from agents.bench.statistics import (
    Estimate,
    band,
    improvement_interval,
    interval,
    iqm,
    mean,
    on_grid,
    profile,
    profile_interval,
)
from agents.bench.tables import base_of
from reward_models.report import INK, PALETTE, ink, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAMILIES = {"text": "a language model learns", "stock": "stock algorithms on token features"}
COLOURS = {"baseline": PALETTE[5], "text": PALETTE[0], "stock": PALETTE[1]}
OF_LINES = (*PALETTE[:5], INK, PALETTE[5])
ROW = 0.26  # inches


def tier_intervals(results: Results, tier: str) -> Figure:
    """IQM and mean of the normalised scores of a tier, an interval for each algorithm."""
    names = results.complete(tier)[::-1]
    with new_figure(9.0, 1.1 + ROW * len(names), columns=2) as (figure, axes):
        for plot, statistic, title in zip(axes, (iqm, mean), ("IQM", "mean")):
            found = [interval(results.matrix(tier, name), statistic) for name in names]
            _intervals(plot, found, [results.family(name) for name in names])
            plot.set_title(title)
            plot.set_xlabel("normalised score")
        _names(axes[0], names)
        axes[1].set_yticks([])
        return figure


def tier_improvement(results: Results, tier: str) -> Figure:
    """Probability of improvement over the algorithm that the others are compared with."""
    names = results.complete(tier)[::-1]
    base = base_of(names[::-1])
    others = [name for name in names if name != base]
    with new_figure(6.6, 1.1 + ROW * len(others)) as (figure, axes):
        y = results.matrix(tier, base)
        found = [improvement_interval(results.matrix(tier, name), y) for name in others]
        _intervals(axes, found, [results.family(name) for name in others])
        axes.axvline(0.5, **ink())
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(f"probability to be better than {label(base)}")
        _names(axes, others)
        return figure


def tier_profiles(results: Results, tier: str) -> Figure:
    """Which share of the runs scores above each threshold."""
    names = results.complete(tier)
    families = [f for f in FAMILIES if any(results.family(name) == f for name in names)]
    thresholds = np.linspace(0.0, 1.0, 51)
    with new_figure(9.0, 3.8, columns=2) as (figure, axes):
        for plot, family in zip(axes, families):
            for name, line in lines_of(results, family).items():
                if name not in names:
                    continue
                scores = results.matrix(tier, name)
                low, high = profile_interval(scores, thresholds)
                plot.plot(thresholds, profile(scores, thresholds), **line, label=label(name))
                plot.fill_between(thresholds, low, high, color=line["color"], alpha=0.13, linewidth=0)
            plot.set_title(FAMILIES[family])
            plot.set_ylim(-0.03, 1.03)
            plot.set_xlabel("normalised score")
            plot.legend(fontsize=8, loc="lower left")
        axes[0].set_ylabel("share of runs above it")
        for plot in axes[len(families) :]:
            plot.set_axis_off()
        return figure


def seeds(results: Results, task: str) -> Figure:
    """Every seed of every algorithm on a task, with IQM and interval."""
    names = sorted(results.algorithms(task), key=lambda name: float(iqm(results.scores(task, name))))
    families = [results.family(name) for name in names]
    with new_figure(6.6, 1.1 + ROW * len(names)) as (figure, axes):
        _intervals(axes, [interval([results.scores(task, name)], iqm) for name in names], families)
        for row, (name, family) in enumerate(zip(names, families)):
            scores = results.scores(task, name)
            axes.plot(scores, np.full(len(scores), row), "o", color=COLOURS[family], alpha=0.45, ms=5, mew=0)
        axes.axvline(results.optimum(task), **ink())
        axes.set_xlabel("held-out score")
        _names(axes, names)
        return figure


def curves(results: Results, task: str, family: str) -> Figure | None:
    """Learning curves of one family on a task, over tokens and over seconds; None where nothing of it was trained."""
    names = _trained(results, task, family)
    if not names:
        return None
    with new_figure(9.0, 4.0, columns=2) as (figure, axes):
        for plot, by in zip(axes, ("tokens", "seconds")):
            for name in names:
                line = lines_of(results, family)[name]
                pairs = [run.curve(by, "score") for run in results.of(task, name)]
                pairs = [pair for pair in pairs if len(pair[0])]
                if not pairs:
                    continue
                grid, lines = on_grid(*zip(*pairs))
                middle, low, high = band(lines)
                plot.plot(grid, middle, **line, label=label(name), linewidth=1.7)
                plot.fill_between(grid, low, high, color=line["color"], alpha=0.15, linewidth=0)
            plot.set_xlabel({"tokens": "tokens generated", "seconds": "seconds of training"}[by])
        axes[0].set_ylabel("score in training")
        _legend(figure, axes[0])
        return figure


def score_against_kl(results: Results, task: str) -> Figure | None:
    """How much score each algorithm gets for its KL, along training; best-of-n is where it stands."""
    names = _trained(results, task, "text")
    if not names:
        return None
    with new_figure(6.6, 4.0) as (figure, axes):
        for name in names:
            line = lines_of(results, "text")[name] | {"linewidth": 1.0, "alpha": 0.7}
            for index, run in enumerate(results.of(task, name)):
                kl, score = run.curve("kl", "score")
                axes.plot(np.maximum(kl, 0), score, **line, label=label(name) if index == 0 else None)
        for name in (n for n in results.algorithms(task) if n.startswith("best_of")):
            runs = results.of(task, name)
            axes.plot(runs[0].kl, np.mean([run.score for run in runs]), "D", color=INK, ms=5)
            axes.annotate(
                label(name).removesuffix(" (no RL)"), (runs[0].kl, np.mean([run.score for run in runs])),
                textcoords="offset points", xytext=(7, -4), fontsize=8,
            )  # fmt: skip
        axes.set_xlabel("KL from the start, nats per answer")
        axes.set_ylabel("score in training")
        _legend(figure, axes)
        return figure


def lines_of(results: Results, family: str) -> dict[str, dict[str, Any]]:
    """How the line of each algorithm of a family looks, the same in all figures."""
    names = [name for name in results.algorithms() if results.family(name) == family]
    looks = [{"color": colour, "linestyle": style} for style in ("-", "--", ":") for colour in OF_LINES]
    return dict(zip(names, looks))


def _legend(figure: Figure, axes: Any) -> None:
    """Below the figure, where it hides nothing."""
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8)


def _trained(results: Results, task: str, family: str) -> list[str]:
    return [name for name in results.algorithms(task) if results.of(task, name)[0].family == family]


def _intervals(axes: Any, found: Sequence[Estimate], families: Sequence[str]) -> None:
    for row, (estimate, family) in enumerate(zip(found, families)):
        axes.plot([estimate.low, estimate.high], [row, row], color=COLOURS[family], linewidth=5, alpha=0.35)
        axes.plot(estimate.value, row, "|", color=COLOURS[family], ms=12, mew=2.4)
    axes.set_ylim(-0.6, len(found) - 0.4)


def _names(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.yaxis.grid(False)
