"""The ledger of a run: which stages are done, what each was made from, and what came of it.

A stage is a folder of its name in the run's folder. It is done when it holds `stage.json`, which is written last and at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from agents.runs import plain
from reward_models.files import write_json

RECORD = "stage.json"
ADDED = ("task", "judge", "reference")  # not in the records of earlier versions, which say nothing of them
LIBRARIES = ("text-envs", "torch", "transformers", "stable-baselines3", "gymnasium", "numpy")


class LedgerError(ValueError):
    """A finished stage does not fit what is asked for now. Says what changed, and how to go on."""


class Ledger:
    """The stages of one run folder.

    Attributes:
        done: names of the stages that are done, in the order in which they were run or found done.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self.done: list[str] = []

    def run(
        self, name: str, made_from: Mapping[str, Any], work: Callable[[Path], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The result of a stage: read, if the stage is done; else made by `work(folder)`.

        Args:
            name: of the stage, and of its folder.
            made_from: JSON values on which the result depends: settings, seeds, and fingerprints of inputs.
            work: fills the folder, which may hold what an interrupted attempt left, and returns the result.

        Raises:
            LedgerError: the stage was done with something else; it names what.
        """
        folder, made_from = self.folder / name, plain(made_from)
        record = self.record(name)
        if record is not None:
            self._compare(name, record["made_from"], made_from)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            result = plain(work(folder))
            record = {
                "stage": name,
                "made_from": made_from,
                "result": result,
                "seconds": round(time.perf_counter() - started, 3),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "versions": versions(),
            }
            write_json(folder / RECORD, record)
        self.done.append(name)
        return record["result"]

    def record(self, name: str) -> dict[str, Any] | None:
        """What stage.json says of a stage; None if the stage is not done.

        Raises:
            LedgerError: the file is not what this library wrote.
        """
        path = self.folder / name / RECORD
        if not path.is_file():
            return None
        try:
            record = json.loads(path.read_text())
            record["made_from"], record["result"]
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerError(
                f"{path} is damaged ({error}). Restore it from a copy, or run the stage again: redo={name!r}."
            ) from error
        return record

    def redo(self, names: list[str]) -> Path:
        """Put the folders of stages aside, so that they are run again. Nothing is deleted.

        Returns:
            The folder that holds them now.
        """
        aside = self.folder / "replaced" / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        for name in names:
            if (self.folder / name).exists():
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(self.folder / name, aside / name)
        return aside

    def _compare(self, name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        known = {key: value for key, value in new.items() if key in old or key not in ADDED}
        changes = list(differences(old, known))
        if changes:
            raise LedgerError(
                f"Stage {name} of {self.folder} is done, but was made from something else: {'; '.join(changes[:4])}. "
                f"Restore that to go on, choose another folder, or run the stage and all after it again: redo={name!r} "
                f"(--redo {name}); what there is now is kept in {self.folder / 'replaced'}."
            )


def differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """In words, where two JSON values differ: "ppo.kl_coef was 0.05 and is 0.1"."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (before, now) in enumerate(zip(old, new)):
            yield from differences(before, now, f"{key}[{i}]")
    elif old != new:
        of = getattr(new, "of", None)
        yield f"{key}{f' ({of})' if of else ''} was {_short(old)} and is {_short(new)}"


def _short(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return f"sha256 {value[:12]}"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


class Fingerprint(str):
    """A sha256 in hex, with the path that it is of, where there is one: so a change can be named."""

    of: str | None

    def __new__(cls, digest: str, of: str | os.PathLike[str] | None = None) -> Fingerprint:
        made = super().__new__(cls, digest)
        made.of = None if of is None else os.fspath(of)
        return made


def fingerprint(path: str | os.PathLike[str], weights_only: bool = False) -> Fingerprint:
    """sha256, in hex, of a file, or of a folder's files with their names; of weights and config alone where asked."""
    path = Path(path)
    digest = hashlib.sha256()
    inside = path.rglob("*") if path.is_dir() else [path]
    files = sorted(file for file in inside if file.is_file() and file.name != RECORD)
    if weights_only:
        files = [file for file in files if file.suffix == ".safetensors" or file.name == "config.json"]
    for file in files:
        digest.update(file.name.encode() + b"\0")
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return Fingerprint(digest.hexdigest(), path)


def fingerprint_of_json(value: Any, of: Any = None) -> Fingerprint:
    """sha256, in hex, of a JSON value; `of`: the file that it came from, if it is one."""
    text = json.dumps(plain(value), sort_keys=True)
    return Fingerprint(hashlib.sha256(text.encode()).hexdigest(), of if isinstance(of, str | Path) else None)


def versions() -> dict[str, str]:
    """The versions of the libraries that decide what comes out."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            found[library] = "unknown"
    return found
