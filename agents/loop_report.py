"""report.html of a run of the loop, made from its files alone: what was run, how each stage went, what the policies say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agents.ledger import RECORD
from agents.loop_files import policies_of, read_json, rounds_of, stage
from agents.loop_report_policies import add_policies, facts_of
from agents.loop_report_stages import add_fine_tuning, add_raters, add_round
from agents.model_card import asks_raters
from agents.runs import clock
from reward_models.report import Report


def make_report(run: Path) -> Path:
    """Write report.html into the run folder, from whatever is done so far; returns its path.

    Raises:
        ValueError: the folder is no run of the loop.
    """
    if not (run / "feedback.db").is_file():
        raise ValueError(f"{run} is no run of `rlhf loop`: it has no feedback.db. Name such a folder.")
    settings, policies = _settings(run), policies_of(run)
    report = Report("RLHF, round after round", subtitle_of(settings))
    notes = {folder: _notes(folder) for folder in rounds_of(run)}
    if policies:
        report.facts(facts_of(policies, read_json(run / "result.json")))
        for folder, of_round in notes.items():
            for status, note in of_round:
                if status == "problem":
                    report.warning(f"{folder.name}, {note}")
        add_policies(report, policies)
    add_fine_tuning(report, run)
    for folder, of_round in notes.items():
        add_round(report, folder, settings, [note for status, note in of_round if status == "warning"])
    add_raters(report, run)
    _add_setup(report, run, settings)
    report.write(run / "report.html")
    return run / "report.html"


def _notes(folder: Path) -> list[tuple[str, str]]:
    """What the doctor finds wrong with the PPO of a round: each "problem" or "warning", and what it says."""
    from agents.doctor import diagnose

    if not (folder / "ppo" / "metrics.jsonl").is_file():
        return []
    wrong = [finding for finding in diagnose(folder / "ppo") if finding.status != "ok"]
    return [(one.status, f"{one.name}: {one.seen} {one.advice}") for one in wrong]


def _add_setup(report: Report, run: Path, settings: dict[str, Any]) -> None:
    report.heading("What was run")
    rows = []
    for path in sorted(run.glob(f"**/{RECORD}"), key=lambda path: stage(path.parent)["finished"]):
        if "replaced" not in path.parts:
            record = stage(path.parent)
            rows.append([record["stage"], clock(record["seconds"]), record["finished"]])
    report.table(["Stage", "Time", "Finished"], rows)
    report.table(["Setting", "Value"], [[key, value] for key, value in _flat(settings)])


def _settings(run: Path) -> dict[str, Any]:
    import yaml

    return yaml.safe_load((run / "config.yaml").read_text())


def subtitle_of(settings: dict[str, Any]) -> str:
    rounds = settings["rounds"]
    learned_from = [
        "a given reward model" * bool(settings.get("reward_model")),
        "given preferences" * bool(settings["preferences"]),
        f"{settings['feedback']['rater']} raters" * asks_raters(settings),
    ]
    parts = [
        settings["env"] or settings["prompts"],
        f"{rounds} round{'' if rounds == 1 else 's'}",
        *learned_from,
    ]
    return ", ".join([*filter(None, parts), f"seed {settings['seed']}"])


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, dict) and key != "model":
            yield from _flat(value, f"{prefix}{key}.")
        elif value not in (None, [], {}):
            text = json.dumps(value)
            yield prefix + key, text if len(text) <= 120 else text[:117] + "..."
