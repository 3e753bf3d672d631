"""report.html of a run of the loop, made from its files alone: what was run, how each stage went, what the policies say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from agents.ledger import RECORD
from agents.loop_files import Policy, policies_of, read_json, read_jsonl, rounds_of, stage
from agents.runs import clock
from reward_models.report import Answer, Report, ink, new_figure

SHOWN = 12  # prompts with all policies' answers


def make_report(run: Path) -> Path:
    """Write report.html into the run folder, from whatever is done so far; returns its path.

    Raises:
        ValueError: the folder is no run of the loop.
    """
    if not (run / "feedback.db").is_file():
        raise ValueError(f"{run} is no run of `rlhf loop`: it has no feedback.db. Name such a folder.")
    policies, result = policies_of(run), read_json(run / "result.json")
    report = Report("RLHF, round after round", str(_json_settings(run)))
    if policies:
        _facts(report, policies, result)
        _warnings(report, run)
        report.heading("The policies")
        _policy_table(report, policies, result)
        _components(report, policies)
        _score_against_kl(report, policies)
        report.heading("Answers to the same held-out prompts")
        report.samples(_answers(policies), "What differs from the answer before is marked.")
        report.heading("Scores and lengths")
        _histograms(report, policies)
    for folder in rounds_of(run):
        _round(report, folder)
    _feedback(report, run)
    _setup(report, run)
    report.write(run / "report.html")
    return run / "report.html"


def _facts(report: Report, policies: list[Policy], result: dict[str, Any]) -> None:
    first, last = policies[0], policies[-1]
    by = "gold" if "gold" in first.result["scores"] else "reward"
    facts: dict[str, Any] = {}
    if by in first.result["scores"] and by in last.result["scores"]:
        start, end = first.result["scores"][by], last.result["scores"][by]
        facts[f"{by.capitalize()} score, SFT"] = (f"{start['mean']:.2f}", _interval(start))
        facts[f"{by.capitalize()} score, {last.name.lower()}"] = (f"{end['mean']:.2f}", _interval(end))
    if "sft" in last.result["win_rate"]:
        rate = last.result["win_rate"]["sft"]
        facts["Win rate against SFT"] = (f"{rate['mean']:.0%}", f"{rate['low']:.0%} to {rate['high']:.0%}")
    facts["KL from SFT, nats per reply"] = (
        f"{last.result['kl']['mean']:.1f}",
        _interval(last.result["kl"], 1),
    )
    if "seconds" in result:
        facts["Time"] = clock(result["seconds"])
    report.facts(facts)


def _warnings(report: Report, run: Path) -> None:
    """What the doctor finds wrong with the PPO of each round."""
    from agents.doctor import diagnose

    for folder in rounds_of(run):
        if (folder / "ppo" / "metrics.jsonl").is_file():
            for finding in diagnose(folder / "ppo"):
                if finding.status != "ok":
                    report.warning(f"{folder.name}, {finding.name}: {finding.seen} {finding.advice}")


def _policy_table(report: Report, policies: list[Policy], result: dict[str, Any]) -> None:
    by_reward = result.get("last_reward", {})
    found = [policy.result for policy in policies]
    rows = [
        ["Gold score", *(_with_interval(f["scores"].get("gold")) for f in found)],
        ["Score by the last reward model", *(_number(by_reward.get(p.stage)) for p in policies)],
        ["Wins against SFT", *(_with_interval(f["win_rate"].get("sft"), percent=True) for f in found)],
        [
            "Wins against the round before",
            *(_with_interval(f["win_rate"].get("last"), percent=True) for f in found),
        ],
        ["KL from SFT, nats per reply", *(_with_interval(f["kl"], 1) for f in found)],
        ["Tokens per reply", *(_number(f["length"]["mean"], 1) for f in found)],
        ["Replies that ended by themselves", *(f"{f['ended']:.0%}" for f in found)],
        ["Distinct-2", *(_number(f["distinct_2"]) for f in found)],
    ]
    shown = [row for row in rows if any(cell != "–" for cell in row[1:])]
    caption = "Means over the held-out prompts, with 95 % bootstrap intervals. A tie is half a win."
    report.table(["", *(policy.name for policy in policies)], shown, caption)


def _components(report: Report, policies: list[Policy]) -> None:
    names = list(policies[0].result["components"])
    if names:
        rows = [
            [name.replace("_", " "), *(f"{p.result['components'][name]:.2f}" for p in policies)]
            for name in names
        ]
        report.table(["Component of the gold score", *(p.name for p in policies)], rows)


def _score_against_kl(report: Report, policies: list[Policy]) -> None:
    scored = [p for p in policies if "gold" in p.result["scores"]]
    if len(scored) < 2:
        return
    with new_figure() as (figure, axes):
        distance = [max(p.result["kl"]["mean"], 0.0) for p in scored]
        scores = [p.result["scores"]["gold"] for p in scored]
        means = [s["mean"] for s in scores]
        errors = np.array([[s["mean"] - s["low"], s["high"] - s["mean"]] for s in scores]).T
        axes.errorbar(distance, means, yerr=errors, fmt="o-", capsize=3)
        for policy, x, y in zip(scored, distance, means):
            axes.annotate(policy.name, (x, y), textcoords="offset points", xytext=(8, -12))
        axes.set_xlabel("KL from SFT, nats per reply")
        axes.set_ylabel("gold score")
        report.figure(figure, "What each round gained, and how far from the fine-tuned model it went for it.")


def _answers(policies: list[Policy]) -> Iterator[tuple[str, list[Answer]]]:
    by = "gold" if "gold" in policies[0].samples[0] else "reward"
    for i in range(min(SHOWN, len(policies[0].samples))):
        answers = []
        for place, policy in enumerate(policies):
            row = policy.samples[i]
            note = f"{row[by]:.2f}" if by in row else ""
            before = policies[place - 1].samples[i]["response"] if place else None
            answers.append(Answer(row["response"], policy.name, note, compared_with=before))
        yield policies[0].samples[i]["prompt"], answers


def _histograms(report: Report, policies: list[Policy]) -> None:
    by = "gold" if "gold" in policies[0].samples[0] else "reward"
    scored = [p for p in policies if by in p.samples[0]]
    with new_figure(columns=2) as (figure, (left, right)):
        values = [p.values(by) for p in scored]
        if values:
            edges = np.histogram_bin_edges(np.concatenate(values), 20)
            for policy, own in zip(scored, values):
                left.hist(own, edges, histtype="step", linewidth=1.8, label=policy.name)
            left.legend()
        left.set_xlabel(f"{by} score")
        left.set_ylabel("replies")
        edges = np.histogram_bin_edges(np.concatenate([p.lengths for p in policies]), 20)
        for policy in policies:
            right.hist(policy.lengths, edges, histtype="step", linewidth=1.8, label=policy.name)
        right.set_xlabel("tokens per reply")
        report.figure(figure, "All held-out replies, not only their means.")


def _round(report: Report, folder: Path) -> None:
    """The reward model and the PPO of one round, as far as they are done."""
    report.heading(f"Round {folder.name.removeprefix('round-')}")
    if (folder / "reward" / RECORD).is_file():
        learned = stage(folder / "reward")["result"]
        if learned:
            _reward_model(report, learned)
    metrics = folder / "ppo" / "metrics.jsonl"
    rows = read_jsonl(metrics) if metrics.is_file() else []
    if rows:
        _training_curves(report, rows)


def _reward_model(report: Report, learned: dict[str, Any]) -> None:
    found = learned["held_out"]
    accuracy = found["accuracy"]
    facts: dict[str, Any] = {
        "Held-out accuracy": (f"{accuracy['value']:.0%}", f"{accuracy['low']:.0%} to {accuracy['high']:.0%}"),
        "Comparisons": f"{learned['comparisons']:,}",
    }
    if "agreement_with_gold" in learned:
        agreed = learned["agreement_with_gold"]
        facts["Agrees with the gold judge"] = (
            f"{agreed['share']:.0%}",
            f"on {agreed['pairs']} held-out pairs",
        )
    if found.get("rater_agreement"):
        facts["Raters agree with one another"] = f"{found['rater_agreement']['value']:.0%}"
    for name, label in (("longer_wins", "The longer one wins"), ("bag_of_words", "A bag of words")):
        if found.get(name):
            facts[label] = f"{found[name]['value']:.0%}"
    report.facts(facts)
    bins = found.get("reliability") or []
    if bins:
        with new_figure(4.2, 3.4) as (figure, axes):
            axes.plot([0.5, 1], [0.5, 1], **ink())
            axes.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], "o-")
            axes.set_xlabel("predicted probability of the preferred answer")
            axes.set_ylabel("how often it was preferred")
            report.figure(
                figure, "Reliability of the reward model on held-out comparisons; the dashed line is perfect."
            )


def _training_curves(report: Report, rows: list[dict[str, Any]]) -> None:
    shown = {
        "objective/scores": "score of the reward model",
        "objective/kl": "KL, nats per reply",
        "rollout/ep_len_mean": "tokens",
    }
    with new_figure(9.0, 2.8, columns=3) as (figure, axes):
        for plot, (key, label) in zip(axes, shown.items()):
            points = [(row["num_timesteps"], row[key]) for row in rows if row.get(key) is not None]
            plot.plot(*zip(*points))
            plot.set_xlabel("tokens generated")
            plot.set_title(label)
        report.figure(figure, "PPO of this round.")


def _feedback(report: Report, run: Path) -> None:
    """How many votes there are, and how far the raters agree."""
    from reward_models.preferences.agreement import summary
    from reward_models.preferences.store import FeedbackStore

    report.heading("The raters")
    with FeedbackStore(run / "feedback.db") as store:
        progress, found = store.progress(), summary(store)
    report.facts(
        {"Votes": f"{progress.votes:,}", "Items": f"{progress.items:,}", "Raters": len(progress.by_rater)}
    )
    flat = {name: value for name, value in found.items() if not isinstance(value, dict | list)} | {
        f"{kind}: {name}": value
        for kind, of_kind in found.items()
        if isinstance(of_kind, dict) and "low" not in of_kind
        for name, value in of_kind.items()
    }
    flat |= {name: value for name, value in found.items() if isinstance(value, dict) and "low" in value}
    rows = [[name.replace("_", " "), _any(value)] for name, value in flat.items()]
    report.table(
        ["Measure", "Value"],
        [row for row in rows if row[1]],
        "Intervals of 95 %, where there are enough votes.",
    )


def _setup(report: Report, run: Path) -> None:
    report.heading("What was run")
    rows = []
    for path in sorted(run.glob(f"**/{RECORD}"), key=lambda path: stage(path.parent)["finished"]):
        if "replaced" not in path.parts:
            record = stage(path.parent)
            rows.append([record["stage"], clock(record["seconds"]), record["finished"]])
    report.table(["Stage", "Time", "Finished"], rows)
    report.table(
        ["Setting", "Value"], [[key, value] for key, value in _flat(_json_settings(run, whole=True))]
    )


def _json_settings(run: Path, whole: bool = False) -> Any:
    import yaml

    settings = yaml.safe_load((run / "config.yaml").read_text())
    if whole:
        return settings
    name = settings["env"] or settings["prompts"]
    return f"{name}, {settings['rounds']} rounds, {settings['feedback']['rater']} raters, seed {settings['seed']}"


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, dict) and key != "model":
            yield from _flat(value, f"{prefix}{key}.")
        elif value not in (None, [], {}):
            text = json.dumps(value)
            yield prefix + key, text if len(text) <= 120 else text[:117] + "..."


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(value: dict[str, float], digits: int = 2) -> str:
    return f"{value['low']:.{digits}f} to {value['high']:.{digits}f}"


def _with_interval(value: dict[str, float] | None, digits: int = 2, percent: bool = False) -> str:
    if value is None:
        return "–"
    if percent:
        return f"{value['mean']:.0%} ({value['low']:.0%} to {value['high']:.0%})"
    return f"{value['mean']:.{digits}f} ({_interval(value, digits)})"


def _any(value: Any) -> str:
    """A statistic as text: a number, or a mapping with value, low and high."""
    if isinstance(value, dict) and {"value", "low", "high"} <= set(value):
        if value["value"] is None:
            return ""
        bounds = "" if value["low"] is None else f" ({value['low']:.2f} to {value['high']:.2f})"
        return f"{value['value']:.2f}{bounds}"
    if isinstance(value, float):
        return f"{value:.2f}"
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
