"""What the doctor says: one finding for each thing it looked at, and which findings only follow from others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Status = Literal["ok", "warning", "problem"]
STATUSES: tuple[Status, ...] = ("problem", "warning", "ok")  # as they are shown

# What a fault brings about elsewhere. A symptom whose cause was found is a warning that names it: to mend the one mends both.
# Nothing follows from itself.
CONSEQUENCES: Mapping[str, tuple[str, ...]] = {
    "vocabulary": ("demonstrations",),
    "demonstrations": ("end of replies", "reply length"),
    "pad token": ("end of replies", "reward"),
    "reward": ("score", "learning rate", "gradient", "KL", "entropy", "reply length", "repetition"),
    "dropout": ("ratio at the start", "log-probabilities", "temperature", "KL"),
    "temperature": ("log-probabilities", "KL"),
    "ratio at the start": ("learning rate",),  # for approx_kl then measures the difference
    "learning rate": (
        "numbers", "KL", "entropy", "end of replies", "reply length", "repetition", "score", "value function", "gradient",
    ),
}  # fmt: skip

OPTION = re.compile(r'`[^`]*`|--(?P<option>[a-z]+(?:-[a-z]+)*)(?P<value> \d[\d.]*| separate| "\[\]")?')


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what, named after the cause that a problem points to: "learning rate", "pad token".
        status: "ok"; "warning": look at it; "problem": what is learned is not what is meant.
        seen: what was seen, with numbers.
        advice: what to do; empty where all is well.
        where: the part of a run it belongs to, such as "round-1/ppo"; empty for the whole.
    """

    name: str
    status: Status
    seen: str
    advice: str = ""
    where: str = ""

    def to_json(self) -> dict[str, str]:
        return {key: value for key, value in vars(self).items() if value or key in ("name", "status", "seen")}


def ok(name: str, seen: str) -> Finding:
    return Finding(name, "ok", seen)


def warning(name: str, seen: str, advice: str) -> Finding:
    return Finding(name, "warning", seen, advice)


def problem(name: str, seen: str, advice: str) -> Finding:
    return Finding(name, "problem", seen, advice)


def placed(findings: Iterable[Finding], where: str) -> list[Finding]:
    """The findings, of the part of a run that is named."""
    return [replace(finding, where=where) for finding in findings]


def for_loop(findings: Iterable[Finding], stage: str) -> list[Finding]:
    """The findings of a stage of the loop, whose advice names settings of the loop: ppo.kl_coef in place of --kl-coef.

    An option that the loop lacks is shown with the command that has it: `rlhf ppo --vf-coef`.
    """
    from agents.settings import LoopSettings

    settings = LoopSettings()
    section = stage if stage in ("sft", "reward") else "ppo"

    def named(match: re.Match[str]) -> str:
        if match["option"] is None:
            return match[0]  # a command in backquotes
        name, value = match["option"].replace("-", "_"), match["value"] or ""
        if hasattr(getattr(settings, section), name):
            return f"{section}.{name}{value}"
        return f"{name}{value}" if hasattr(settings, name) else f"`rlhf ppo {match[0]}`"

    return [replace(finding, advice=OPTION.sub(named, finding.advice)) for finding in findings]


def causes_first(findings: Iterable[Finding]) -> list[Finding]:
    """Problems before warnings before what is well; what follows from another problem becomes a warning that names it."""
    found = list(findings)
    wrong = {finding.name for finding in found if finding.status == "problem"}
    effects = {cause: _effects(cause) for cause in wrong}
    roots = [cause for cause in wrong if not any(cause in effects[other] for other in wrong - {cause})]
    causes = {effect: cause for cause in roots for effect in effects[cause]}
    explained = [
        replace(
            finding,
            status="warning",
            advice=f"Likely follows from the {causes[finding.name]}: mend that first.",
        )
        if finding.status != "ok" and finding.name in causes
        else finding
        for finding in found
    ]
    return problems_first(explained)


def _effects(cause: str) -> set[str]:
    """All that follows from a cause, and from what follows from it."""
    direct = set(CONSEQUENCES.get(cause, ()))
    return direct.union(*map(_effects, direct))


def problems_first(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: STATUSES.index(finding.status))


def to_json(findings: Iterable[Finding], subject: str) -> dict[str, Any]:
    """The findings as doctor.json holds them."""
    found = list(findings)
    count = {status: sum(finding.status == status for finding in found) for status in STATUSES}
    return {
        "subject": subject,
        "problems": count["problem"],
        "warnings": count["warning"],
        "findings": [finding.to_json() for finding in found],
    }
