"""How the stages of a run of the loop went: fine-tuning, each round's reward model and PPO, the raters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.ledger import RECORD
from agents.loop_files import read_jsonl, stage
from reward_models.evaluation import wilson
from reward_models.report import PALETTE, Report, ink, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW_BINS = 5  # of the reliability: a run of the loop holds out a hundred votes or so

CURVES = {
    "objective/scores": "Score of the reward model",
    "objective/kl": "KL, nats per reply",
    "rollout/ep_len_mean": "Tokens per reply",
    "objective/entropy": "Entropy, nats per token",
    "train/clip_fraction": "Share of clipped tokens",
    "train/explained_variance": "Variance the critic explains",
}


def add_fine_tuning(report: Report, run: Path) -> None:
    """Stage 1; nothing where the model was given."""
    if not (run / "sft" / RECORD).is_file():
        return
    tuned = stage(run / "sft")["result"]
    if "steps" not in tuned:
        return
    report.heading("Fine-tuning")
    facts: dict[str, Any] = {"Demonstrations": f"{tuned['demonstrations']:,}", "Steps": f"{tuned['steps']:,}"}
    if tuned["train_loss"] is not None:
        facts["Loss, nats per token"] = (f"{tuned['train_loss']:.3f}", "last tenth of the steps")
    report.facts(facts)
    if tuned.get("losses"):  # runs of earlier versions kept none
        figure = _losses([tuned["losses"]], tuned["steps"], "step", "loss, nats per token")
        report.figure(figure, "Fine-tuning on the demonstrations.")


def add_round(report: Report, folder: Path, settings: dict[str, Any], notes: list[str]) -> None:
    """The reward model and the PPO of one round, as far as they are done; `notes` are warnings about its PPO."""
    report.heading(f"Round {folder.name.removeprefix('round-')}")
    if (folder / "reward" / RECORD).is_file():
        learned = stage(folder / "reward")["result"]
        if learned and learned["held_out"]:  # none where every held-out comparison is a tie
            _reward_model(report, learned, settings)
    metrics = folder / "ppo" / "metrics.jsonl"
    rows = read_jsonl(metrics) if metrics.is_file() else []
    if rows:
        report.figures([_curve(rows, key) for key in CURVES if _points(rows, key)], "PPO, update by update.")
    for note in notes:
        report.warning(note)


def _reward_model(report: Report, learned: dict[str, Any], settings: dict[str, Any]) -> None:
    found = learned["held_out"]
    facts: dict[str, Any] = {"Comparisons": f"{learned['comparisons']:,}"}
    facts["Held-out accuracy"] = _share(found["accuracy"])
    if "agreement_with_gold" in learned:
        agreed = learned["agreement_with_gold"]
        pairs = f"on {agreed['pairs']} held-out pairs"
        facts["Agrees with the gold judge"] = (f"{agreed['share']:.0%}", pairs)
    if found.get("rater_agreement"):
        facts["Raters agree with one another"] = _share(found["rater_agreement"])
    for name, label in (("longer_wins", "the longer one wins"), ("bag_of_words", "a bag of words")):
        if found.get(name):
            facts[f"Baseline: {label}"] = _share(found[name])
    report.facts(facts)
    if "agreement_with_gold" in learned:
        report.text(_why_accuracy_differs(settings["feedback"]))
    bins, losses = found.get("reliability") or [], learned.get("losses") or []
    figures, said = [], []
    if bins:
        figures.append(_reliability(bins))
        said.append(
            "How sure the model is of its choice between two held-out answers, and how often raters chose the same. On "
            "the dashed line it is as right as it is sure. Lines are 95% intervals, with the number of votes."
        )
    if any(losses):
        figures.append(_losses(losses, settings["reward"]["epochs"], "epoch", "loss, nats per comparison"))
        said.append("The other figure is its loss while it learned.")
        if settings["feedback"]["kind"] == "comparison":
            nothing = np.log(2) * (1 + settings["reward"].get("token_coef", 0.0))
            said.append(f"A model that knows nothing has {nothing:.2f}.")
    report.figures(figures, " ".join(said))


def _why_accuracy_differs(feedback: dict[str, Any]) -> str:
    """From the agreement with the gold judge, which may be much higher."""
    slips = []
    if feedback["rater"] == "simulated" and feedback["flip"]:
        slips.append(f"{feedback['flip']:.0%} of the simulated votes are turned round on purpose")
    if feedback["rater"] == "simulated" and feedback["temperature"]:
        slips.append("close pairs are decided partly by chance")
    why = " and ".join(slips) or "raters slip"
    return f"Held-out accuracy is against votes, and {why}. The gold judge never slips: agreement with it may be higher."


def _reliability(bins: list[dict[str, float]]) -> Figure:
    with new_figure(4.4, 3.4) as (figure, axes):
        axes.plot([0.5, 1], [0.5, 1], **ink())
        for sure, right, n in pooled(bins, FEW_BINS):
            low, high = wilson(right, n)
            axes.plot([sure, sure], [low, high], color=PALETTE[0])
            axes.plot(sure, right, "o", color=PALETTE[0], markersize=7)
            axes.annotate(f"{n}", (sure, high), textcoords="offset points", xytext=(0, 4), ha="center")
        axes.set(xlim=(0.48, 1.02), ylim=(None, 1.08))
        axes.set(xlabel="chance that the model gives its choice", ylabel="share that it gets right")
        return figure


def pooled(bins: list[dict[str, float]], most: int) -> list[tuple[float, float, int]]:
    """Neighbouring bins together, until each holds its part of the votes: at most `most` of (confidence, accuracy, n)."""
    part = sum(b["n"] for b in bins) / most
    groups: list[list[dict[str, float]]] = [[]]
    for b in bins:
        if groups[-1] and sum(one["n"] for one in groups[-1]) >= part:
            groups.append([])
        groups[-1].append(b)
    if len(groups) > 1 and sum(one["n"] for one in groups[-1]) < part / 2:  # a rest
        rest = groups.pop()
        groups[-1] += rest
    weighed = [(group, [b["n"] for b in group]) for group in groups]
    return [
        (
            float(np.average([b["confidence"] for b in group], weights=n)),
            float(np.average([b["accuracy"] for b in group], weights=n)),
            int(sum(n)),
        )
        for group, n in weighed
    ]


def _losses(curves: list[list[float]], length: float, unit: str, label: str) -> Figure:
    """Loss curves over `length` steps or epochs, one for each model; what was not finite leaves a gap."""
    from matplotlib.ticker import MaxNLocator

    with new_figure(4.4, 3.4) as (figure, axes):
        for curve in curves:
            values = np.array([np.nan if loss is None else loss for loss in curve], dtype=np.float64)
            axes.plot((np.arange(len(values)) + 0.5) * length / len(values), values, linewidth=1.6)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.set(xlabel=unit, ylabel=label, xlim=(0, length))
        return figure


def _points(rows: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(row["num_timesteps"], row[key]) for row in rows if row.get(key) is not None]


def _curve(rows: list[dict[str, Any]], key: str) -> Figure:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with new_figure(3.4, 2.4) as (figure, axes):
        axes.plot(*zip(*_points(rows, key)), linewidth=1.8)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x >= 1000 else f"{x:g}")
        )
        axes.set_xlabel("tokens generated")
        axes.set_title(CURVES[key])
        return figure


def add_raters(report: Report, run: Path) -> None:
    """How many votes there are, how far the raters agree, and what else than quality decides their votes."""
    from reward_models.preferences.agreement import summary
    from reward_models.preferences.store import FeedbackStore

    report.heading("The raters")
    with FeedbackStore(run / "feedback.db") as store:
        found = summary(store)
    items = "Pairs" if "comparisons" in found and "rankings" not in found else "Items"
    report.facts(
        {"Votes": f"{found['votes']:,}", items: f"{found['items']:,}", "Raters": len(found["raters"])}
    )
    kinds = [found[kind] for kind in ("comparisons", "rankings") if kind in found]
    if kinds and not any(kind["items_shared"] for kind in kinds):
        each = f"Each {items[:-1].lower()} had one rater"
        report.text(f"{each}, so agreement is unknown. Set feedback.overlap to 2 to measure it.")
    rows = measures(found, kinds)
    if rows:
        caption = "In brackets: intervals of 95%; of seconds, the middle 80%."
        report.table(["Measure", "Value", "How to read it"], rows, caption)


def measures(found: dict[str, Any], kinds: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Rows of measure, value and how to read it; what is unknown is left out.

    Args:
        found: what `reward_models.preferences.agreement.summary` gave; kinds: of it, the comparisons and the rankings.
    """
    rows = []
    for kind in kinds:
        choices = kind.get("choices", {})
        ties = choices.get("tie", 0)
        rows += [
            (
                "Two raters agree",
                _percent(kind["raw_agreement"]),
                f"on {kind['items_shared']:,} shared items",
            ),
            *(
                (f"{name} {what}", _percent(kind[key], "{:.2f}"), "1: they always agree; 0: as by chance")
                for key, name, what in (
                    ("cohen_kappa", "Cohen's", "kappa"),
                    ("fleiss_kappa", "Fleiss'", "kappa"),
                    ("krippendorff_alpha", "Krippendorff's", "alpha"),
                )
            ),
            ("Ties", f"{ties:,}" if ties else "", "two answers called equally good"),
            ("Skips", f"{kind['skips']:,}" if kind["skips"] else "", "not judged"),
        ]
    rows.append(
        ("The answer on the left won", _percent(found["position_bias"]), "50%: the side does not matter")
    )
    rows.append(
        (
            "The longer answer won",
            _percent(found["length_bias"]),
            "far from 50%: length may pass for quality, and a reward model may learn to count",
        )
    )
    seconds = found["seconds"]
    if seconds["n"]:
        spread = f"{seconds['median']:.0f} ({seconds['p10']:.0f} to {seconds['p90']:.0f})"
        rows.append(("Seconds per vote", spread, f"median of {seconds['n']:,} votes"))
    return [row for row in rows if row[1]]


def _share(share: dict[str, float]) -> tuple[str, str]:
    """A share and its interval, as `Report.facts` takes them."""
    return f"{share['value']:.0%}", f"{share['low']:.0%} to {share['high']:.0%}"


def _percent(value: dict[str, Any], number: str = "{:.0%}") -> str:
    """A statistic with its interval; empty where it is unknown."""
    if value["value"] is None:
        return ""
    interval = "" if value["low"] is None else f" ({number} to {number})".format(value["low"], value["high"])
    return number.format(value["value"]) + interval
