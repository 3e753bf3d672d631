"""The policies of a run of the loop side by side: figures, answers to the same prompts, scores and lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from agents.loop_files import Policy
from agents.runs import clock
from reward_models.report import PALETTE, Answer, Report, ink, new_figure

SHOWN = 12  # prompts with all policies' answers

# Who may score the replies, by preference. A round's own reward model never scores the fine-tuned policy.
JUDGES = {
    "gold": "gold score",
    "last_reward": "score by the last reward model",
    "reward": "score by the round's reward model",
}


def judge_of(policies: list[Policy]) -> str:
    """The name among `JUDGES` of the best judge who scored all policies; "reward" where nobody did."""
    return next((name for name in JUDGES if all(name in p.result["scores"] for p in policies)), "reward")


def facts_of(policies: list[Policy], result: dict[str, Any]) -> dict[str, Any]:
    """What `Report.facts` shows first: score before and after, win rate, KL, time."""
    first, last, by = policies[0], policies[-1], judge_of(policies)
    facts: dict[str, Any] = {}
    name = {"gold": "Gold score", "last_reward": "Reward score"}.get(by)
    if name is not None:
        for policy in dict.fromkeys((first.name, last.name)):
            score = (first if policy == first.name else last).result["scores"][by]
            label = policy if policy == first.name else policy.lower()
            facts[f"{name}, {label}"] = (f"{score['mean']:.2f}", _interval(score))
    if "sft" in last.result["win_rate"]:
        rate = last.result["win_rate"]["sft"]
        facts["Win rate against SFT"] = (f"{rate['mean']:.0%}", f"{rate['low']:.0%} to {rate['high']:.0%}")
    kl = last.result["kl"]
    facts["KL from SFT, nats per reply"] = (f"{kl['mean']:.1f}", _interval(kl, 1))
    if "seconds" in result:
        facts["Time"] = clock(result["seconds"])
    return facts


def add_policies(report: Report, policies: list[Policy]) -> None:
    """Put the policies' figures, answers, scores and lengths on a page."""
    by = judge_of(policies)
    report.heading("The policies")
    _policy_table(report, policies)
    _components(report, policies)
    _score_against_kl(report, policies, by)
    report.heading("Answers to the same held-out prompts")
    scored = f" The number is the {JUDGES[by]}." if any(by in p.samples[0] for p in policies) else ""
    report.samples(_answers(policies, by), f"What differs from the answer before is marked.{scored}")
    report.heading("Scores and lengths")
    _histograms(report, policies, by)


def _policy_table(report: Report, policies: list[Policy]) -> None:
    found = [policy.result for policy in policies]
    rows = [
        ["Gold score", *(_with_interval(f["scores"].get("gold")) for f in found)],
        ["Score by the last reward model", *(_with_interval(f["scores"].get("last_reward")) for f in found)],
        ["Wins against SFT", *(_with_interval(f["win_rate"].get("sft"), percent=True) for f in found)],
        [
            "Wins against the round before",
            *(_with_interval(f["win_rate"].get("last"), percent=True) for f in found),
        ],
        ["KL from SFT, nats per reply", *(_with_interval(f["kl"], 1) for f in found)],
        ["Tokens per reply", *(f"{f['length']['mean']:.1f}" for f in found)],
        ["Replies that ended by themselves", *(f"{f['ended']:.0%}" for f in found)],
        ["Distinct-2", *(f"{f['distinct_2']:.2f}" for f in found)],
    ]
    shown = [row for row in rows if any(cell != "–" for cell in row[1:])]
    caption = "Means over the held-out prompts, with 95% bootstrap intervals. A tie is half a win."
    report.table(["", *(policy.name for policy in policies)], shown, caption)


def _components(report: Report, policies: list[Policy]) -> None:
    names = list(policies[0].result["components"])
    if names:
        rows = [
            [name.replace("_", " "), *(f"{p.result['components'][name]:.2f}" for p in policies)]
            for name in names
        ]
        report.table(["Component of the gold score", *(p.name for p in policies)], rows)


def _score_against_kl(report: Report, policies: list[Policy], by: str) -> None:
    scored = [p for p in policies if by in p.result["scores"]]
    if len(scored) < 2:
        return
    distance = np.array([max(p.result["kl"]["mean"], 0.0) for p in scored])
    scores = [p.result["scores"][by] for p in scored]
    means = [score["mean"] for score in scores]
    with new_figure() as (figure, axes):
        axes.plot(distance, means, **ink())
        for place, (policy, score, x) in enumerate(zip(scored, scores, distance)):
            colour = PALETTE[place % len(PALETTE)]
            if "low" in score:
                axes.plot([x, x], [score["low"], score["high"]], color=colour)
            axes.plot(x, score["mean"], "o", color=colour, markersize=7)
            side = label_side(distance, place)
            axes.annotate(
                policy.name, (x, score["mean"]), textcoords="offset points", xytext=(9 * side, 0), va="center",
                ha="left" if side > 0 else "right", weight="bold", color=colour,
            )  # fmt: skip
        axes.margins(x=0.2, y=0.12)
        left, right = axes.get_xlim()
        axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= right])
        axes.set_xlim(left, right)
        axes.set_xlabel("KL from SFT, nats per reply")
        axes.set_ylabel(JUDGES[by])
        report.figure(
            figure,
            "What each round gained, and how far from the fine-tuned model it went for it. Lines are 95% intervals.",
        )


def label_side(positions: np.ndarray, place: int) -> int:
    """1 or -1: the side, right or left, on which the label of a point is farther from the next point."""
    others = np.delete(positions, place) - positions[place]
    right, left = others[others >= 0].min(initial=np.inf), -others[others < 0].max(initial=-np.inf)
    return 1 if right >= left else -1


def _answers(policies: list[Policy], by: str) -> Iterator[tuple[str, list[Answer]]]:
    for i in range(min(SHOWN, len(policies[0].samples))):
        answers = []
        for place, policy in enumerate(policies):
            row = policy.samples[i]
            note = f"{row[by]:.2f}" if by in row else ""
            before = policies[place - 1].samples[i]["response"] if place else None
            answers.append(Answer(row["response"], policy.name, note, compared_with=before))
        yield policies[0].samples[i]["prompt"], answers


def _histograms(report: Report, policies: list[Policy], by: str) -> None:
    scores = {p.name: p.values(by) for p in policies if by in p.samples[0]}
    lengths = {p.name: p.lengths for p in policies}
    colours = {p.name: PALETTE[place % len(PALETTE)] for place, p in enumerate(policies)}
    figures = []
    for label, values in ((JUDGES[by], scores), ("tokens per reply", lengths)):
        if values:
            with new_figure(4.4, 3.0) as (figure, axes):
                edges = np.histogram_bin_edges(np.concatenate(list(values.values())), 20)
                for name, own in values.items():
                    axes.hist(own, edges, histtype="step", linewidth=1.8, label=name, color=colours[name])
                axes.legend()
                axes.set(xlabel=label, ylabel="replies")
                figures.append(figure)
    report.figures(figures, "All held-out replies, not only their means.")


def _interval(value: Mapping[str, float], digits: int = 2) -> str:
    return f"{value['low']:.{digits}f} to {value['high']:.{digits}f}" if "low" in value else ""


def _with_interval(value: Mapping[str, float] | None, digits: int = 2, percent: bool = False) -> str:
    if value is None:
        return "–"
    if percent:
        return f"{value['mean']:.0%} ({value['low']:.0%} to {value['high']:.0%})"
    interval = _interval(value, digits)
    return f"{value['mean']:.{digits}f}{f' ({interval})' if interval else ''}"
