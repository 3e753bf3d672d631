"""A suite: which algorithms run on which tasks, how long, with which settings. One YAML file, one `Run` per seed.

evaluation: {prompts: 128, best_of_samples: 16}
arguments:                          # of constructors: of a family (text, stock), then of an algorithm
  text: {n_episodes: 32}
  TextPPO: {learning_rate: 0.001}
tasks:
  Copy:
    tier: probe
    env: text_envs/Copy-v0
    budget: 20000                   # generated tokens, for every algorithm the same
    seeds: 5
    algorithms: [TextPPO, PPO]
    arguments: {stock: {n_steps: 64}}  # what differs on this task
other: {tier: own, budget: 20000, algorithms: [TextPPO]}  # a task that is not listed, named on the command line
variants:
  TextPPO-one-epoch: {of: TextPPO, n_epochs: 1}
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from agents.bench.algorithms import BASELINES, family_of, known, target_of

SUITES = Path(__file__).parent / "suites"
FIRST_TEST_SEED, FIRST_TUNING_SEED = 1000, 0  # settings were chosen on the one, and are compared on the other


@dataclass(frozen=True)
class Run:
    """All that settles what a run does, as JSON values: the same `Run` gives the same scores.

    Attributes:
        task, algorithm: names in the tables. tier: the tasks that are summed up together.
        env, env_kwargs: the environment; train_kwargs: more arguments where it trains, such as a learned reward.
        budget: generated tokens.
        target: "module:attr" of the algorithm's class; "" for a baseline. arguments: of its constructor.
        start: folder or configuration of the model to start from; None: the task's own.
        sft: arguments of `agents.finetune`, where the task has demonstrations and no model.
        prompts: held-out prompts to be answered. best_of_samples: answers to each that best-of-n is estimated from.
        tuning: evaluate on training prompts, for choosing settings.
    """

    task: str
    algorithm: str
    seed: int
    tier: str
    env: str
    budget: int
    target: str
    arguments: dict[str, Any] = field(default_factory=dict)
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    train_kwargs: dict[str, Any] = field(default_factory=dict)
    start: Any = None
    sft: dict[str, Any] = field(default_factory=dict)
    prompts: int = 128
    best_of_samples: int = 16
    tuning: bool = False

    def path(self, folder: Path) -> Path:
        """Where its file lies in the folder of results."""
        return folder / "runs" / filename(self.task) / filename(self.algorithm) / f"{self.seed}.jsonl"

    @property
    def hash(self) -> str:
        """Of all its settings."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.task}, {self.algorithm}, seed {self.seed}"


@dataclass(frozen=True)
class TaskSettings:
    """A task of a suite; see the top of this file."""

    tier: str
    env: str
    budget: int
    algorithms: Sequence[str]
    seeds: int = 5
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    train_kwargs: dict[str, Any] = field(default_factory=dict)
    start: Any = None
    sft: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """Tasks, algorithms and settings.

    Attributes:
        tasks: by name. other: settings of a task that is not among them, without its env.
        arguments: by family or algorithm. variants: by name.
    """

    tasks: dict[str, TaskSettings]
    other: dict[str, Any]
    arguments: dict[str, dict[str, Any]] = field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    evaluation: dict[str, int] = field(default_factory=dict)

    def runs(
        self,
        algorithms: Sequence[str] = (),
        tasks: Sequence[str] = (),
        seeds: int | None = None,
        budget: int | None = None,
        tuning: bool = False,
    ) -> list[Run]:
        """The runs that are asked for, seed after seed, so that a benchmark that is stopped has a little of everything.

        Args:
            algorithms: names; none: those of each task. One that the suite gives to some tasks runs on these; any other, such
                as "module:attr", on all. The baselines always run.
            tasks: names or environment ids; none: all of the suite.
            seeds: how many; None: as the suite says. budget: tokens instead of the suite's.

        Raises:
            ValueError: an algorithm or a task that does not exist; the message lists those that do.
        """
        chosen = {name: self.task(name) for name in tasks} if tasks else self.tasks
        for name in algorithms:
            self.check_algorithm(name)
        found: list[Run] = []
        for name, task in chosen.items():
            of_task = [*BASELINES, *(n for n in self._on(task, algorithms) if n not in BASELINES)]
            first = FIRST_TUNING_SEED if tuning else FIRST_TEST_SEED
            for seed in range(first, first + (seeds or task.seeds)):
                found += [self._run(name, task, algorithm, seed, budget, tuning) for algorithm in of_task]
        return sorted(found, key=lambda run: run.seed)

    def task(self, name: str) -> TaskSettings:
        """The settings of a task, by its name or its environment's id.

        Raises:
            ValueError: neither the suite nor Gymnasium knows it.
        """
        import gymnasium as gym

        import text_envs  # noqa: F401  registers the ids

        if name in self.tasks:
            return self.tasks[name]
        if ":" not in name and name not in gym.registry:
            ids = sorted(i for i in gym.registry if i.startswith("text_envs/"))
            raise ValueError(
                f"There is no task {name!r}{_closest(name, [*self.tasks, *ids])} The suite has {', '.join(self.tasks)}; "
                f"environments are {', '.join(ids)}; your own are named module:id."
            )
        return TaskSettings(env=name, **self.other)

    def check_algorithm(self, name: str) -> None:
        """Raise ValueError for an algorithm that does not exist; the message lists those that do."""
        if name not in (names := [*known(), *self.variants]) and ":" not in name:
            raise ValueError(
                f"There is no algorithm {name!r}{_closest(name, names)} Choose among {', '.join(names)}; your own are "
                "named module:attr."
            )

    def _on(self, task: TaskSettings, algorithms: Sequence[str]) -> list[str]:
        listed = {name for other in self.tasks.values() for name in other.algorithms}
        if not algorithms:
            return list(task.algorithms)
        return [name for name in algorithms if name in task.algorithms or name not in listed]

    def _run(
        self, name: str, task: TaskSettings, algorithm: str, seed: int, budget: int | None, tuning: bool
    ) -> Run:
        variant = dict(self.variants.get(algorithm, {}))
        base = variant.pop("of", algorithm)
        keys = (family_of(base), base, algorithm) if base != algorithm else (family_of(base), base)
        arguments = merged(
            *(given.get(key, {}) for given in (self.arguments, task.arguments) for key in keys), variant
        )
        return Run(
            task=name, algorithm=algorithm, seed=seed, tier=task.tier, env=task.env, budget=budget or task.budget,
            target=target_of(base), arguments={} if base in BASELINES else arguments, env_kwargs=task.env_kwargs,
            train_kwargs=task.train_kwargs, start=task.start, sft=task.sft, tuning=tuning, **self.evaluation,
        )  # fmt: skip


def load_suite(name: str | os.PathLike[str]) -> Suite:
    """A suite that comes with the package ("quick", "full"), or a YAML file of the same form.

    Raises:
        ValueError: there is none, or it holds something else.
    """
    path = SUITES / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        own = ", ".join(sorted(path.stem for path in SUITES.glob("*.yaml")))
        raise ValueError(
            f"There is no suite {os.fspath(name)!r}. Choose {own}, or give a YAML file like these."
        )
    values = yaml.safe_load(path.read_text())
    try:
        values.pop("lists", None)  # YAML anchors, used elsewhere in the file
        tasks = {key: TaskSettings(**settings) for key, settings in values.pop("tasks").items()}
        suite = Suite(tasks=tasks, **values)
    except (TypeError, AttributeError, KeyError) as error:
        names = ", ".join(f.name for f in fields(TaskSettings))
        raise ValueError(
            f"{path} is no suite: {error}. A task has {names}; see {SUITES}/quick.yaml."
        ) from error
    for key, task in suite.tasks.items():
        for algorithm in task.algorithms:
            try:
                suite.check_algorithm(algorithm)
            except ValueError as error:
                raise ValueError(f"{error} In task {key} of {path}.") from error
    return suite


def merged(*mappings: Mapping[str, Any]) -> dict[str, Any]:
    """Later ones over earlier ones; nested mappings are merged too."""
    result: dict[str, Any] = {}
    for mapping in mappings:
        for key, value in mapping.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = merged(result[key], value) if both else value
    return result


def filename(name: str) -> str:
    """A name as a file may have it."""
    return "".join(c if c.isalnum() or c in "-+._" else "_" for c in name)


def _closest(name: str, names: Sequence[str]) -> str:
    match = difflib.get_close_matches(name, names, n=1)
    return f": did you mean {match[0]}?" if match else "."
