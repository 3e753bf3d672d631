"""What the figures share: curves of all seeds with their mean, and legends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agents.bench.statistics import on_grid


def draw_seeds(
    axes: Any, x: Sequence[Sequence[float]], y: Sequence[Sequence[float]], colour: str, label: str
) -> None:
    """A faint line for each seed, and a strong one for their mean; nothing where there is no seed."""
    for along, values in zip(x, y):
        axes.plot(along, values, color=colour, alpha=0.25, linewidth=0.8)
    if len(y):
        grid, lines = on_grid(x, y)  # type: ignore[arg-type]
        axes.plot(grid, lines.mean(axis=0), color=colour, label=label)


def legend(axes: Any, size: float = 8, **where: Any) -> None:
    """A legend, where there is something to explain."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=size, **where)
