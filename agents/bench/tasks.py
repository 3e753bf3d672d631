"""A task of the leaderboard: its environments, its held-out prompts, and the language model that training starts from."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import text_envs  # registers the ids
from agents.bench.algorithms import look_here
from agents.bench.suite import Run, filename
from text_envs.env import TextGenerationEnv
from text_envs.task import TextTask

STARTS = "starts"  # in the folder of results: models that were fine-tuned for it
DRAWN_WITH = 0  # the seed of the held-out prompts: the same for every run
# A language model for a task that has none: a Llama of 3 layers of 128, 0.6 M parameters at 500 tokens.
TINY: dict[str, Any] = dict(
    model_type="llama", hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
    initializer_range=0.08, tie_word_embeddings=True, bos_token_id=None,
)  # fmt: skip
SFT: dict[str, Any] = dict(
    demonstrations=25_600, max_steps=800, batch_size=32, learning_rate=2e-3, lr_schedule="cosine", warmup_steps=60,
)  # fmt: skip


def make_env(run: Run, split: str, training: bool = False) -> TextGenerationEnv:
    """The environment of a run, of one split where the task has splits.

    Raises:
        ValueError: it is no text environment.
    """
    kwargs = run.env_kwargs | (run.train_kwargs if training else {})
    if has_split(run.env):
        kwargs = {"split": split} | kwargs
    env = _make(run.env, json.dumps(kwargs, sort_keys=True))
    if not isinstance(env, TextGenerationEnv):
        raise ValueError(
            f"{run.env} is a {type(env).__name__}, no text environment. Make it a subclass of text_envs.TextGenerationEnv."
        )
    return env


def make_task(run: Run) -> TextTask:
    """What the run is judged by: the held-out split and its reward model."""
    return make_env(run, "train" if run.tuning else "held_out").task


@functools.lru_cache(
    maxsize=4
)  # what is costly is the task, which never changes: its prompts are encoded once
def _make(env: str, kwargs: str) -> gym.Env:
    look_here()
    return gym.make(env, **json.loads(kwargs)).unwrapped


def entry_point(env: str) -> Any:
    """The class behind an id; "module:id" imports the module first."""
    look_here()
    module, _, name = env.rpartition(":")
    if module:
        import_module(module)
    made = gym.spec(name).entry_point
    if isinstance(made, str):
        module, _, name = made.partition(":")
        made = getattr(import_module(module), name)
    return made


def has_split(env: str) -> bool:
    """Whether the environment takes `split`: its prompts are divided."""
    return "split" in inspect.signature(entry_point(env)).parameters


def held_out_prompts(task: TextTask, n: int) -> list[dict[str, Any]]:
    """`n` prompts with their columns, the same in every run: drawn without repetition as long as there are enough."""
    source, rng = task.prompts, np.random.default_rng(DRAWN_WITH)
    if source.endless is not None:
        stream = text_envs.PromptStream(source, rng)
        drawn = [stream.draw() for _ in range(n)]
    else:
        rounds = [rng.permutation(len(source)) for _ in range(-(-n // len(source)))]
        drawn = [source[int(i)] for i in np.concatenate(rounds)[:n]]
    return [{source.prompt_field: prompt.text, **prompt.columns} for prompt in drawn]


def start_of(run: Run, folder: Path) -> Any:
    """The language model that a run starts from: named by the suite, the task's own, fine-tuned for this benchmark, or None,
    the small random one."""
    if run.start is not None:
        return run.start
    task = make_env(run, "train").task
    if task.default_model is not None:
        return task.default_model
    return str(start_folder(run, folder)) if demonstrations(run.env) is not None else None


def start_folder(run: Run, folder: Path) -> Path:
    """Where the fine-tuned model of a run's task lies."""
    return folder / STARTS / filename(run.task)


def demonstrations(env: str) -> Any:
    """The function `demonstrations(split, n, seed)` of the module that defines the environment; None where it has none."""
    return getattr(import_module(entry_point(env).__module__), "demonstrations", None)


def make_start(run: Run, folder: Path) -> bool:
    """Fine-tune the model that the runs of a task start from, unless it is there already; returns whether it was made."""
    target = start_folder(run, folder)
    if start_of(run, folder) != str(target) or (target / "config.json").is_file():
        return False
    import torch

    from agents.sft import finetune

    torch.set_num_threads(1)
    task, settings = make_env(run, "train").task, SFT | run.sft
    rows = demonstrations(run.env)("train", settings.pop("demonstrations"), seed=0)
    architecture: Mapping[str, Any] = TINY | settings.pop("model", {})
    config = dict(
        architecture,
        vocab_size=task.vocab_size,
        max_position_embeddings=2 * task.max_length,
        pad_token_id=task.tokenizer.pad_token_id,
        eos_token_id=task.eos_token_ids[0] if task.eos_token_ids else None,
    )
    finetune(config, rows, task.tokenizer, target, seed=0, device="cpu", progress=None, **settings)
    return True
