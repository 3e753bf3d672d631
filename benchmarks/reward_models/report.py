# ruff: noqa: E501
"""The results as JSON, as Markdown tables, and as lines in the terminal."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.reward_models.cross_validation import FOLDS, MOST_PAIRS, CrossValidated, Judged
from benchmarks.reward_models.speed import BATCH, MAX_LENGTH, Speed
from benchmarks.reward_models.support import FLIP, Support
from reward_models.evaluation import Share
from reward_models.files import replacing, write_json

AGREEMENT_BAR, GAIN_BAR, SPEED_BAR = 0.85, 0.10, 1.0


def write(
    sets: Sequence[CrossValidated],
    speed: Speed | None,
    support: Support | None,
    seconds: float,
    machine: dict[str, Any],
    folder: Path,
) -> None:
    """Write results.json and results.md of sets and speed, support.json and support.md of SupportReply: of what there is."""
    common = {"machine": machine, "seconds": seconds}
    if sets or speed is not None:
        ours = None if speed is None else {**asdict(speed), "ratio": speed.ratio}
        write_json(
            folder / "results.json", common | {"sets": [asdict(result) for result in sets], "speed": ours}
        )
        _write_lines(folder / "results.md", markdown(sets, speed, None, seconds, machine))
    if support is not None:
        write_json(folder / "support.json", common | support_json(support))
        _write_lines(folder / "support.md", markdown([], None, support, seconds, machine))


def read(folder: Path) -> tuple[list[CrossValidated], Speed | None, float]:
    """What `write` left of sets and speed in a folder, and the seconds it took; nothing where there is nothing."""
    path = folder / "results.json"
    if not path.is_file():
        return [], None, 0.0
    found = json.loads(path.read_text())
    sets = []
    for values in found["sets"]:
        judges = {n: Judged(j["by_fold"], Share(**j["accuracy"])) for n, j in values.pop("judges").items()}
        agreement = values.pop("agreement")
        sets.append(CrossValidated(**values, judges=judges, agreement=agreement and Share(**agreement)))
    speed = found["speed"]
    return (
        sets,
        speed and Speed(**{name: speed[name] for name in ("pairs", "steps", "ours", "theirs")}),
        found["seconds"],
    )


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    with replacing(path) as file:
        file.write("\n".join(lines).encode() + b"\n")


def support_json(support: Support) -> dict[str, Any]:
    values = asdict(support)
    values["evaluation"] = support.evaluation.to_json()
    values["policies"] = [{**asdict(policy), "gain": policy.gain} for policy in support.policies]
    return values


def markdown(
    sets: Sequence[CrossValidated],
    speed: Speed | None,
    support: Support | None,
    seconds: float,
    machine: dict[str, Any],
) -> list[str]:
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("torch", "transformers", "trl"))
    lines = [
        "# Reward models", "",
        "Written by `python -m benchmarks.reward_models`. What the figures mean: NOTES.md.", "",
        f"{machine['cpu']}, {machine['threads']} thread(s), {versions}, Python {machine['python']}; {seconds / 60:.0f} minutes in all.",
    ]  # fmt: skip
    if sets:
        lines += ["", f"## Accuracy on real preferences, {FOLDS} folds by prompt", ""]
        lines += [
            f"Interval: 95 %, over all test comparisons, votes on one prompt counting as partly the same vote. At most {MOST_PAIRS:,} "
            "comparisons to train on in a fold.", "",
            "| set | judge | accuracy | 95 % interval | folds | against the bag of words |", "| --- | --- | --- | --- | --- | --- |",
        ]  # fmt: skip
        for result in sets:
            lines += set_rows(result)
        lines += ["", *bars(sets)]
    if speed is not None:
        ratios = ", ".join(f"{ratio:.2f}" for ratio in speed.ratios)
        lines += [
            "", "## Training speed against TRL's RewardTrainer", "",
            f"stories260K, fp32, {speed.pairs} pairs in batches of {BATCH}, at most {MAX_LENGTH} tokens, {speed.steps} steps, in turns.", "",
            f"- ratio of the seconds, median of the rounds: **{speed.ratio:.2f}** ({ratios}); bar: at least {SPEED_BAR:.0f}: "
            f"{verdict(speed.ratio >= SPEED_BAR)}",
            f"- pairs per second, best round: {speed.pairs / min(speed.ours):.1f} here, {speed.pairs / min(speed.theirs):.1f} TRL",
        ]  # fmt: skip
    if support is not None:
        lines += ["", "## SupportReply, from a rater who slips to PPO", "", *support_lines(support)]
    return lines


def set_rows(result: CrossValidated) -> list[str]:
    """One row for each judge."""
    rows = []
    order = [name for name in result.judges if name not in ("bag of words", "longer wins")]
    for number, name in enumerate([*order, "bag of words", "longer wins"]):
        judged = result.judges[name]
        about = (
            f"{result.name}<br>{result.comparisons:,} comparisons, {result.prompts:,} prompts"
            if not number
            else ""
        )
        epochs = f" ({result.epochs[name]} epochs)" if name in result.epochs else ""
        folds = " ".join(f"{value:.3f}" for value in judged.by_fold)
        gap = f"{result.gap(name):+.3f}" if name in order else ""
        rows.append(
            f"| {about} | {name}{epochs} | {judged.accuracy.value:.3f} | {interval(judged.accuracy)} | {folds} | {gap} |"
        )
    if result.agreement is not None:
        share = result.agreement
        rows.append(f"| | two raters agree | {share.value:.3f} | {interval(share)} | | |")
    return rows


def bars(sets: Sequence[CrossValidated]) -> list[str]:
    """What was asked for, and whether it is so."""
    asked = [result for result in sets if result.bar is not None]
    lines = []
    for result in asked:
        gaps = {name: result.gap(name) for name in result.epochs}
        best = max(gaps, key=gaps.__getitem__)
        lines.append(
            f"- {result.name}: {best} is {gaps[best]:+.3f} from the bag of words; bar: at least {-result.bar:.2f}: "
            f"{verdict(gaps[best] >= -result.bar)}"
        )
    if asked:
        above = [result.name for result in asked if max(result.gap(name) for name in result.epochs) > 0]
        lines.append(
            f"- above the bag of words on at least one of them: {verdict(bool(above))} ({', '.join(above) or 'none'})"
        )
    return lines


def support_lines(support: Support) -> list[str]:
    found = support.evaluation
    lines = [
        f"{support.comparisons:,} comparisons of samples of the shipped model by a simulated rater, {FLIP:.0%} of them turned round. "
        "Held-out pairs: replies to customers whose product and problem never came together in training.", "",
        "| on held-out pairs | share | 95 % interval | pairs |", "| --- | --- | --- | --- |",
        *(f"| {name} | {share.value:.3f} | {interval(share)} | {share.n} |" for name, share in support.agreements.items()),
        f"| the rater's votes, learned model | {found.accuracy.value:.3f} | {interval(found.accuracy)} | {found.votes} |",
        f"| the rater's votes, bag of words | {found.bag_of_words.value:.3f} | {interval(found.bag_of_words)} | {found.votes} |"
        if found.bag_of_words else "",
        "", f"Bar: the learned model agrees with the gold judge in at least {AGREEMENT_BAR} of the pairs: "
        f"{verdict(support.agreements['learned model'].value >= AGREEMENT_BAR)}. Learned in {support.seconds:.0f} s.", "",
        "| PPO | gold before | gold after | gain | learned reward before, after | KL, nats |", "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| seed {p.seed} | {p.before['mean']:.3f} | {p.after['mean']:.3f} ({p.after['low']:.3f} to {p.after['high']:.3f}) | "
            f"{p.gain:+.3f} | {p.learned_before:.2f}, {p.learned_after:.2f} | {p.kl:.1f} |"
            for p in support.policies
        ),
        "", f"Bar: the gold score rises by at least {GAIN_BAR:.2f} on every seed: "
        f"{verdict(all(p.gain >= GAIN_BAR for p in support.policies))}",
    ]  # fmt: skip
    return [line for line in lines if line is not None]


def interval(share: Share) -> str:
    return f"{share.low:.3f} to {share.high:.3f}"


def verdict(passes: bool) -> str:
    return "pass" if passes else "**fail**"
