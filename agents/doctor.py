"""`rlhf doctor`: checks a run or a set-up, and says in plain words what is wrong, by which numbers, and what to do.

from agents.doctor import diagnose, examine

for finding in diagnose("runs/ppo"):       # what a folder's files tell
    print(finding.status, finding.name, finding.seen, finding.advice)
examine(TextPPO(...), demonstrations=...)  # what one small rollout of an algorithm tells, before it learns
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agents.callbacks import visible
from agents.doctor_findings import STATUSES, Finding, causes_first, placed, problems_first, to_json
from reward_models.files import write_json

__all__ = ["Finding", "diagnose", "examine"]

STYLES = {"problem": "bold red", "warning": "yellow", "ok": "green"}


def diagnose(folder: str | os.PathLike[str]) -> list[Finding]:
    """What the files of a folder tell: of a PPO run, finished or not; a run of the loop; a model; a reward model.

    Models are not loaded, but for one case: a policy none of whose replies ended is given more time.

    Returns:
        Problems first.

    Raises:
        ValueError: the folder holds none of these, or a file in it is damaged.
    """
    from agents.doctor_folders import parts_of

    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder. Name that of a run or of a model.")
    findings = [one for where, found in parts_of(folder) for one in placed(causes_first(found), where)]
    if not findings:
        raise ValueError(
            f"{folder} holds nothing to examine: neither metrics.jsonl, nor a round of `rlhf loop`, nor a config.json. Name "
            "the folder of a run or of a model."
        )
    return problems_first(findings)


def examine(
    ppo: Any,
    demonstrations: Any = None,
    *,
    prompt_field: str = "prompt",
    response_field: str = "response",
) -> list[Finding]:
    """What an algorithm shows before it learns: tokenizer, demonstrations, laws at the start, replies, reward.

    Args:
        ppo: a `TextPPO`, or a subclass of `OnPolicyTextAlgorithm`, made for this: it rolls out once.
        demonstrations: that its model was, or is to be, fine-tuned on: what `agents.finetune` takes.
        prompt_field, response_field: of the demonstrations.

    Returns:
        Problems first.
    """
    from agents.doctor_examination import examination

    return causes_first(examination(ppo, demonstrations, prompt_field, response_field))


def doctor(options: Namespace, config: str) -> int:
    """`rlhf doctor`: prints what was found; returns 0, or 1 where something is wrong."""
    from agents.commands import set_up

    set_up(options)
    described = [
        name for name in ("model", "env", "prompts", "demos", "reward") if getattr(options, name) is not None
    ]
    if options.folder is not None and described:
        raise ValueError(f"give a folder, or a set-up (--{described[0]} ...), not both.")
    if options.folder is None and not described:
        raise ValueError(
            "what is to be examined? Name a folder, or a set-up: --env ID, or --model M --prompts FILE --reward R."
        )
    if options.folder is not None:
        subject, findings = options.folder, diagnose(options.folder)
    else:
        from agents.doctor_examination import examine_options

        subject, findings = (
            " ".join(str(getattr(options, name)) for name in described),
            examine_options(options),
        )
    report = to_json(findings, subject)
    if options.folder is not None:
        keep(report, Path(options.folder) / "doctor.json")
    if options.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        show(findings, Console())
    return 1 if report["problems"] else 0


def keep(report: dict[str, Any], path: Path) -> None:
    """Write doctor.json; a folder that cannot be written to is examined all the same."""
    try:
        write_json(path, report)
    except OSError as error:
        print(f"rlhf doctor: {path} was not written: {error}", file=sys.stderr)


def show(findings: list[Finding], console: Console) -> None:
    """What is wrong, with what to do; then what is well; then how much of each."""
    wrong, well = ([one for one in findings if (one.status == "ok") is fine] for fine in (False, True))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0))
    for heading, width in (("", None), ("What", 2), ("What was seen", 5), ("What to do", 5)):
        table.add_column(heading, ratio=width, overflow="fold")
    for one in wrong:
        table.add_row(*_row(one), Text(visible(one.advice)))
    if wrong:
        console.print(table)
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for one in well:
        table.add_row(*_row(one))
    console.print(table)
    count = {status: sum(one.status == status for one in findings) for status in STATUSES}
    console.print(
        f"{_counted(count['problem'], 'problem')}, {_counted(count['warning'], 'warning')}, {count['ok']} ok."
    )


def _row(one: Finding) -> tuple[Text, ...]:
    name = f"{one.name} ({one.where})" if one.where else one.name
    return Text(one.status, style=STYLES[one.status]), Text(name), Text(visible(one.seen))


def _counted(n: int, what: str) -> str:
    return f"{n or 'no'} {what}{'' if n == 1 else 's'}"
