"""MODEL_CARD.md: what a policy of the loop was made from, how, and what it is good for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from agents.ledger import RECORD, versions
from reward_models.files import replacing


def write_model_card(run: Path, policy: Path, result: Mapping[str, Any]) -> Path:
    """Write MODEL_CARD.md into the policy's folder, from what the stages of the run recorded; returns its path.

    Args:
        run: the run folder of the loop. policy: the policy's folder in it. result: what result.json holds.
    """
    settings = yaml.safe_load((run / "config.yaml").read_text())
    records = [
        json.loads(path.read_text())
        for path in sorted(run.glob(f"**/{RECORD}"))
        if "replaced" not in path.parts
    ]
    records.sort(key=lambda record: record["finished"])
    rounds = settings["rounds"]
    tuned = "taken as fine-tuned" if settings["demos"] is None else "fine-tuned on demonstrations"
    lines = [
        "# Model card", "",
        f"A causal language model, {tuned} and then trained by {rounds} round{'' if rounds == 1 else 's'} of "
        "reinforcement learning from human feedback (PPO) with text-envs.", "",
        "## Data", "",
        f"- Task: {settings['env'] or settings['prompts']}",
        f"- Raters: {raters_of(settings)}", "",
        "| stage | made from | sha256 |", "| --- | --- | --- |",
        *(f"| {name} | {what} | `{digest[:16]}` |" for name, what, digest in _inputs(records)), "",
        "## Results on held-out prompts", "",
        "| policy | score | value | 95 % interval |", "| --- | --- | --- | --- |",
        *_scores(result["stages"]), "",
        "## Votes and reward models", "",
        "| round | votes | comparisons learned from | accuracy on those held out | agrees with the gold judge |",
        "| --- | --- | --- | --- | --- |",
        *_rewards(result["stages"]), "",
        "## Settings", "", "```yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).strip(), "```", "",
        "Made with " + ", ".join(f"{name} {number}" for name, number in versions().items()) + ".", "",
        "## Limits", "",
        "- It was trained towards a reward model, which is wrong on some answers: what scores high is not therefore good.",
        "- It was measured on prompts like those it was trained on. How it answers others was not measured.",
        "- Nothing here was tested for safety, bias or truthfulness.", "",
    ]  # fmt: skip
    with replacing(policy / "MODEL_CARD.md") as file:
        file.write("\n".join(lines).encode())
    return policy / "MODEL_CARD.md"


def asks_raters(settings: Mapping[str, Any]) -> bool:
    """Whether anybody, a person or a judge, compares answers in such a run."""
    # A given reward model stands for the first round's.
    return settings["rounds"] > bool(settings.get("reward_model")) and settings["feedback"]["votes"] != 0


def raters_of(settings: Mapping[str, Any]) -> str:
    """Whose preferences a run learned from, in words."""
    feedback = settings["feedback"]
    parts = []
    if settings.get("reward_model"):
        parts.append(f"those of a reward model that was given ({settings['reward_model']}), unknown here")
    if settings["preferences"]:
        parts.append(
            f"those of preferences that were given ({', '.join(settings['preferences'])}), unknown here"
        )
    if not asks_raters(settings):
        parts.append("nobody was asked in this run")
    elif feedback["rater"] == "simulated":
        parts.append(
            f"simulated by the judge (temperature {feedback['temperature']}, {feedback['flip']:.0%} of the choices flipped): "
            "no person rated this run's answers"
        )
    else:
        parts.append(f"people ({feedback['rater']}), {feedback['overlap']} for each item")
    return "; ".join(parts)


def _rewards(stages: Mapping[str, Any]) -> list[str]:
    """A row for each round: its votes, and the reward model learned from them."""
    rows = []
    for name, learned in stages.items():
        if name.endswith("/reward"):
            of_round = name.partition("/")[0]
            accuracy, agreed = (
                (learned.get("held_out") or {}).get("accuracy"),
                learned.get("agreement_with_gold"),
            )
            cells = [
                stages.get(f"{of_round}/compare", {}).get("votes", "–"),
                learned.get("comparisons", "given"),
                f"{accuracy['value']:.0%} ({accuracy['low']:.0%} to {accuracy['high']:.0%})"
                if accuracy
                else "–",
                f"{agreed['share']:.0%}" if agreed else "–",
            ]
            rows.append(f"| {' | '.join(map(str, [of_round, *cells]))} |")
    return rows


def _inputs(records: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Stage, name and fingerprint of everything that a stage was made from."""
    found = []
    for record in records:
        for name, value in record["made_from"].items():
            values = value if isinstance(value, list) else [value]
            found += [
                (record["stage"], name.replace("_", " "), text)
                for text in values
                if isinstance(text, str) and len(text) == 64
            ]
    return found


def _scores(stages: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, result in stages.items():
        if not name.endswith("evaluate"):
            continue
        policy = "SFT" if name.startswith("sft") else name.partition("/")[0]
        shown = {**result["scores"], "KL from SFT, nats": result["kl"]}
        shown |= {f"win rate against {other}": rate for other, rate in result["win_rate"].items()}
        rows += [
            f"| {policy} | {score} | {value['mean']:.3f} | {value['low']:.3f} to {value['high']:.3f} |"
            for score, value in shown.items()
        ]
    return rows
