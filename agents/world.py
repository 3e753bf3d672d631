"""What a run of the loop works on: the task, its prompts for training and for evaluation, its demonstrations, its judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from agents.command_env import made_with
from agents.commands import check_model
from agents.demonstrations import read_pairs
from agents.ledger import fingerprint, fingerprint_of_json
from agents.settings import LoopSettings
from reward_models import Completion, RewardModel, make
from reward_models.files import read_rows
from reward_models.preferences import Comparison, Ranking
from reward_models.preferences.formats import read
from reward_models.registration import load_attribute
from text_envs import TextGenerationEnv
from text_envs.task import TextTask


def no_reward(completions: Sequence[Completion]) -> list[float]:
    """Stands where a task needs a reward model and nobody judges yet."""
    return [0.0] * len(completions)


@dataclass
class World:
    """Made once from the settings.

    Attributes:
        task: tokenizer and rules of an episode, with the training prompts.
        make_env: the environment with a given reward model, on the training prompts.
        prompts: training prompts, dicts.
        held_out: prompts for evaluation, dicts; none of them is a training prompt.
        demos: demonstrations, dicts; None where the model counts as fine-tuned.
        judge: the gold judge; None where only people can compare.
        model: folder or config dict that the run starts from.
    """

    task: TextTask
    make_env: Callable[[Any], gym.Env]
    prompts: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    demos: list[dict[str, Any]] | None
    judge: RewardModel | None
    model: Any

    @cached_property
    def rules(self) -> dict[str, Any]:
        """What decides, besides its weights and a prompt, how a policy answers: JSON values."""
        task = self.task
        return {
            "max_new_tokens": task.max_new_tokens,
            "max_prompt_tokens": task.max_prompt_tokens,
            "stop": list(task.stop),
            "eos_token_ids": list(task.eos_token_ids),
            "tokenizer": fingerprint_of_json(task.tokenizer.get_vocab()),
        }


def identity_of(model: Any) -> Any:
    """What tells one model or judge from another: the weights of a folder, else the JSON value that names it."""
    is_folder = isinstance(model, str | Path) and Path(model).is_dir()
    return fingerprint(model, weights_only=True) if is_folder else model


def make_world(settings: LoopSettings) -> World:
    """Read and check everything that the settings name.

    Raises:
        ValueError: settings that contradict one another, or name what is not there.
    """
    settings.check()
    _check_named(settings)
    parts = _registered(settings) if settings.env is not None else _from_files(settings)
    make_env, prompts, held_out, judge, model = parts
    task: TextTask = make_env(no_reward).unwrapped.task  # type: ignore[attr-defined]
    asks = settings.rounds and settings.feedback.votes != 0
    if settings.feedback.rater == "simulated" and judge is None and asks:
        raise ValueError(
            "feedback.rater is simulated, and nothing says what it prefers: give judge, a reward model's name or "
            '"module:attr", or let people rate (feedback.rater terminal or web).'
        )
    demos = (
        None if settings.demos is None else read_demos(settings.demos, settings.seed, settings.demos_fields)
    )
    return World(task, make_env, prompts, held_out, demos, judge, model)


def _check_named(settings: LoopSettings) -> None:
    """Models and preferences that are asked for late in a run, to be missed at its start."""
    for option, model in (("model", settings.model), ("reward.model", settings.reward.model)):
        if isinstance(model, str):
            check_model(model, option)
    if settings.reward_model is not None:
        make(settings.reward_model)
    for path in settings.preferences:
        if not any(isinstance(record, Comparison | Ranking) for record in read(path).records):
            raise ValueError(f"{path} holds no preferences. Give a file of comparisons or rankings.")


def _registered(settings: LoopSettings) -> tuple[Any, ...]:
    """The parts of a registered environment, whose held-out prompts are those of its split "held_out", if it has one."""
    assert settings.env is not None
    overrides = {
        "max_new_tokens": settings.max_new_tokens,
        "stop": settings.stop or None,
        "eos_token_id": settings.eos_token_id,
    }
    kwargs: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
    probe = made_with(settings.env, lambda: gym.make(settings.env, **kwargs)).unwrapped  # type: ignore[arg-type]
    task = getattr(probe, "task", None)
    if not isinstance(task, TextTask):
        raise ValueError(
            f"{settings.env} is no environment of texts. Name one that text_envs registers, or a like one."
        )
    prompts = _rows_of(task)
    if settings.evaluation.file is not None:
        held_out = _read_prompts(settings.evaluation.file, settings.prompt_field)
    else:
        try:
            held_out = _rows_of(gym.make(settings.env, split="held_out", **kwargs).unwrapped.task)  # type: ignore[attr-defined]
        except TypeError:  # the environment has no splits
            prompts, held_out = _keep_out(prompts, settings.evaluation.prompts)
    judge = task.reward_model if settings.judge is None else make(settings.judge)
    model = task.default_model if settings.model is None else settings.model
    if model is None:
        raise ValueError(
            f"The environment {settings.env} brings no model. Give model, the folder of a causal LM."
        )

    def make_env(reward_model: Any) -> gym.Env:
        return gym.make(settings.env, reward_model=reward_model, **kwargs)  # type: ignore[arg-type]

    return make_env, prompts, _some(held_out, settings.evaluation.prompts), judge, model


def _from_files(settings: LoopSettings) -> tuple[Any, ...]:
    """The parts that a user's own files make."""
    assert settings.prompts is not None
    prompts = _read_prompts(settings.prompts, settings.prompt_field)
    if settings.evaluation.file is not None:
        held_out = _read_prompts(settings.evaluation.file, settings.prompt_field)
    else:
        prompts, held_out = _keep_out(prompts, settings.evaluation.prompts)

    def make_env(reward_model: Any) -> gym.Env:
        return TextGenerationEnv(
            tokenizer=settings.model,
            prompts=prompts,
            reward_model=reward_model,
            max_new_tokens=48 if settings.max_new_tokens is None else settings.max_new_tokens,
            max_prompt_tokens=settings.max_prompt_tokens,
            prompt_field=settings.prompt_field,
            prompts_too_long="truncate_right",
            stop=settings.stop,
            eos_token_id=settings.eos_token_id,
        )

    judge = None if settings.judge is None else make(settings.judge)
    return make_env, prompts, _some(held_out, settings.evaluation.prompts), judge, settings.model


def _rows_of(task: TextTask) -> list[dict[str, Any]]:
    source = task.prompts
    if source.endless:
        raise ValueError(
            "The environment's prompts come from an endless generator; the loop needs a finite set, to keep some for "
            "evaluation. Write some of them to a file and give prompts."
        )
    rows = (source[i] for i in range(len(source)))
    return [{source.prompt_field: row.text, **row.columns} for row in rows]


def _read_prompts(path: str, prompt_field: str) -> list[dict[str, Any]]:
    rows, lines = read_rows(path, (".jsonl", ".txt"))
    found: dict[str, dict[str, Any]] = {}
    for row, line in zip(rows, lines):
        row = {prompt_field: row} if isinstance(row, str) else row
        if not isinstance(row, Mapping) or not isinstance(row.get(prompt_field), str):
            raise ValueError(
                f"{path}, line {line}, has no text in {prompt_field!r}. Name the field with prompt_field, or mend the line."
            )
        found.setdefault(row[prompt_field], dict(row))  # the same prompt twice could land on both sides
    return list(found.values())


def _keep_out(rows: list[dict[str, Any]], n: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Split rows into those for training and `n` for evaluation, at most half; the same ones for every seed."""
    order = np.random.default_rng(0).permutation(len(rows))
    n = min(n, len(rows) // 2)
    if n < 1:
        raise ValueError(f"There is {len(rows)} prompt: none can be kept for evaluation. Give at least two.")
    return [rows[i] for i in sorted(order[n:])], [rows[i] for i in order[:n]]


def _some(rows: list[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """`n` of the rows at most; the same ones for every seed."""
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:n]]


def read_demos(demos: Any, seed: int, fields: Sequence[str] = ("prompt", "response")) -> list[dict[str, Any]]:
    """Demonstrations as dicts.

    Args:
        demos: a .jsonl[.gz] file; a list of dicts; or {"name": "module:attr", ...}, a function that takes a seed and these
            arguments.
        fields: that hold prompt and response.

    Raises:
        ValueError: rows that are no demonstrations, with their place; a dict that names no function.
    """
    if isinstance(demos, Mapping):
        if not isinstance(demos.get("name"), str):
            raise ValueError('demos has no name. Give a file, or {"name": "module:attr", ...} of a function.')
        arguments = {"seed": seed} | {name: value for name, value in demos.items() if name != "name"}
        try:
            function = load_attribute(demos["name"])
        except ValueError as error:
            raise ValueError(
                f"demos: {str(error).replace('Reward model', 'the function').replace('reward model', 'function')}"
            ) from error
        demos = function(**arguments)
    read_pairs(demos, *fields)
    rows = read_rows(demos)[0] if isinstance(demos, str | Path) else demos
    return [dict(row) for row in rows]
