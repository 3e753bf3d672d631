"""The leaderboard's tables, once for the page and for LEADERBOARD.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.bench.results import Result, Results, label
from agents.bench.statistics import Estimate, improvement_interval, interval, iqm, mean, score_at_kl

KL_TARGETS = (5.0, 10.0, 20.0)  # nats per answer


@dataclass(frozen=True)
class Table:
    """Headings, rows of cells, and what stands below."""

    headings: list[str]
    rows: list[list[str]]
    caption: str

    def markdown(self) -> str:
        """As GitHub reads it."""
        lines = [self.headings, ["---"] * len(self.headings), *self.rows]
        table = "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
        )
        return f"{table}\n\n{self.caption}\n"


def tier_table(results: Results, tier: str) -> Table:
    """All tasks of a tier together: normalised scores of the algorithms that ran on each of them."""
    names, rows = results.complete(tier), []
    for name in names:
        scores = results.matrix(tier, name)
        base = base_of(names)
        chance = "–" if name == base else shown(improvement_interval(scores, results.matrix(tier, base)))
        rows.append(
            [label(name), shown(interval(scores, iqm)), shown(interval(scores, mean)), chance, _runs(scores)]
        )
    base = label(base_of(names)) if names else ""
    return Table(
        ["Algorithm", "IQM (95 %)", "Mean (95 %)", f"P(better than {base})", "Runs"],
        rows,
        "Normalised scores: 0 is the mean score of the start, 1 the optimum (1 where none is known). IQM: interquartile "
        "mean. Intervals: stratified bootstrap over seeds. P: probability that a run is better than one of "
        f"{base} on the same task, ties counted half.",
    )


def score_table(results: Results, task: str) -> Table:
    """One task: held-out scores with their intervals, and every seed."""
    names = sorted(results.algorithms(task), key=lambda name: -iqm(results.scores(task, name)))
    rows = []
    for name in names:
        runs, scores = results.of(task, name), results.scores(task, name)
        rows.append(
            [
                label(name),
                shown(interval([scores], iqm)),
                shown(interval([scores], mean)),
                _mean([run.kl for run in runs], 1),
                _mean([run.length for run in runs], 1),
                "  ".join(f"{score:.2f}" for score in scores),
            ]
        )
    return Table(
        ["Algorithm", "IQM (95 %)", "Mean (95 %)", "KL, nats", "Tokens", "Every seed"],
        rows,
        f"Held-out score of one sampled answer to each of {len(results.of(task, names[0])[0].final['scores'])} prompts. "
        "KL: from the start, per answer. Tokens: per answer.",
    )


def cost_table(results: Results, task: str) -> Table:
    """One task: the score at given KLs, and what training cost."""
    rows = []
    for name in results.algorithms(task):
        runs = results.of(task, name)
        if runs[0].family != "baseline":
            at = [at_kl(runs, target) for target in KL_TARGETS]
            tokens = np.mean([run.final["tokens"] for run in runs])
            seconds = np.mean([run.final["seconds"] for run in runs])
            memory = np.mean([run.final["peak_memory_mb"] for run in runs])
            rows.append([label(name), *at, f"{tokens:,.0f}", f"{seconds:.1f}", f"{memory:,.0f}"])
    return Table(
        [
            "Algorithm",
            *(f"Score at {target:.0f} nats" for target in KL_TARGETS),
            "Tokens",
            "Seconds",
            "Memory, MB",
        ],
        rows,
        "Score at a KL: of the answers in training, where the KL first came so far, between updates on a straight line. "
        "Tokens generated, seconds of training (other runs may have shared the machine), most memory of the process.",
    )


def at_kl(runs: Sequence[Result], target: float) -> str:
    """The mean training score at a KL of `target` nats, with its interval; how many seeds came so far, where not all did."""
    curves = [run.curve("kl", "score") for run in runs]
    if not any(len(kl) for kl, _ in curves):
        return "–"
    found = [score for kl, s in curves if (score := score_at_kl(kl, s, target)) is not None]
    if not found:
        return "not reached"
    if len(found) < len(runs):
        return f"{np.mean(found):.2f} ({len(found)} of {len(runs)} seeds)"
    return shown(interval([np.array(found)], mean))


def improvement_table(results: Results, tier: str) -> Table:
    """Probability of improvement of each algorithm (row) over each other (column, by its number)."""
    names = results.complete(tier)
    rows = []
    for number, row in enumerate(names, 1):
        x = results.matrix(tier, row)
        cells = [
            "" if row == column else _short(improvement_interval(x, results.matrix(tier, column), n=200))
            for column in names
        ]
        rows.append([f"{number}. {label(row)}", *cells])
    return Table(
        ["Better than number", *(str(number) for number in range(1, len(names) + 1))],
        rows,
        "Probability that a run of the row scores higher than one of the column on the same task, ties counted half. A star: "
        "the 95 % interval leaves out one half.",
    )


def base_of(names: Sequence[str]) -> str:
    """What the others are compared with: TextPPO, or the best that there is."""
    return "TextPPO" if "TextPPO" in names else names[0]


def shown(estimate: Estimate) -> str:
    """0.71 (0.65 to 0.78)."""
    value, low, high = (
        f"{round(number, 2) + 0.0:.2f}" for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} ({low} to {high})"


def _short(estimate: Estimate) -> str:
    return f"{estimate.value:.2f}" + ("*" if not estimate.low <= 0.5 <= estimate.high else "")


def _runs(scores: Sequence[np.ndarray]) -> str:
    return str(sum(map(len, scores)))


def _mean(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.{digits}f}" if known else "–"
