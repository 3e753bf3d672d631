"""One run: train an algorithm on a task for its budget of tokens, and let it answer the held-out prompts."""

from __future__ import annotations

import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import set_random_seed

from agents.bench.algorithms import BASELINES, make_model
from agents.bench.evaluation import Answers, RandomPolicy, answer, judged, kl_to, lengths
from agents.bench.records import Record, UpdateWriter, forget_peak, gpu_memory_mb, peak_memory_mb
from agents.bench.suite import Run
from agents.bench.tasks import held_out_prompts, make_env, make_task, start_of
from agents.generation import policy_for
from agents.policy import CausalLMPolicy
from reward_models.files import replacing
from reward_models.quiet import quiet_transformers

EVALUATED_WITH = 1_000_003  # added to a run's seed for the sampling of its held-out answers
LINES = 60  # of an off-policy algorithm, which would log every few episodes


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its mean score; or the error, and its traceback, that ended it."""

    run: Run
    seconds: float
    score: float | None = None
    error: str = ""
    trace: str = ""


def perform(run: Run, folder: Path, threads: int, device: str = "cpu") -> Outcome:
    """Do one run and write its file; an error that it raises is written beside, and does not end the benchmark."""
    started, path = time.perf_counter(), run.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    failed = path.with_suffix(".error")
    try:
        with replacing(path) as file, quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            score = _perform(run, folder, Record(file), threads, device)
    except Exception as error:
        trace = traceback.format_exc()
        failed.write_text(trace)
        return Outcome(
            run, time.perf_counter() - started, error=f"{type(error).__name__}: {error}", trace=trace
        )
    failed.unlink(missing_ok=True)
    return Outcome(run, time.perf_counter() - started, score)


def _perform(run: Run, folder: Path, record: Record, threads: int, device: str) -> float:
    record.begin(run, threads, device)
    forget_peak()
    task, start = make_task(run), start_of(run, folder)
    prompts = held_out_prompts(task, run.prompts)
    tokens, seconds = 0, 0.0
    if run.algorithm in BASELINES:
        answers = _baseline(run, task, prompts, start, device)
    else:
        model = make_model(
            run.target, run.arguments, make_env(run, "train", training=True), start, run.seed, device
        )
        seconds = _learn(model, run, record, task.max_new_tokens)
        tokens = model.num_timesteps
        answers = _evaluate(run, model, task, prompts, start, device)
    record.end(
        scores=answers.scores.tolist(),
        kl=None if answers.kl is None else answers.kl.tolist(),
        lengths=None if answers.lengths is None else answers.lengths.tolist(),
        optimum=task.optimum,
        tokens=tokens,
        seconds=seconds,
        peak_memory_mb=peak_memory_mb(),
        gpu_memory_mb=gpu_memory_mb(),
    )
    return float(answers.scores.mean())


def _learn(model: Any, run: Run, record: Record, longest: int) -> float:
    """Train until the budget is generated; a rollout that has begun is finished. Returns seconds."""
    off_policy = isinstance(model, OffPolicyAlgorithm)
    log_interval = max(1, run.budget // (longest * LINES)) if off_policy else 1
    writer = UpdateWriter(record)
    model.set_logger(Logger(None, [writer]))
    model.learn(run.budget, log_interval=log_interval)
    return time.perf_counter() - writer.start


def _evaluate(run: Run, model: Any, task: Any, prompts: list[Any], start: Any, device: str) -> Answers:
    # What a value-based algorithm learned is which token is best: its sampling is but noise for exploring.
    greedy = isinstance(model, OffPolicyAlgorithm)
    set_random_seed(run.seed + EVALUATED_WITH)
    completions = answer(model, task, prompts, greedy)
    kl = None
    if isinstance(model.policy, CausalLMPolicy):
        kl = kl_to(_start_policy(run, task, start, device).lm, model.policy.lm, task, completions)
    return Answers(judged(task, completions), kl, lengths(completions))


def _baseline(run: Run, task: Any, prompts: list[Any], start: Any, device: str) -> Answers:
    if run.algorithm == "random":
        completions = answer(RandomPolicy(task.action_space(), run.seed), task, prompts)
        return Answers(judged(task, completions), None, lengths(completions))
    policy = _start_policy(run, task, start, device)
    set_random_seed(run.seed + EVALUATED_WITH)
    if run.algorithm == "start":
        completions = answer(policy, task, prompts)
        return Answers(judged(task, completions), np.zeros(len(prompts)), lengths(completions))
    from agents.best_of_n import best_of_n, best_of_n_kl

    n = int(run.algorithm.removeprefix("best_of_"))
    samples = max(n, run.best_of_samples)
    completions = answer(policy, task, [prompt for prompt in prompts for _ in range(samples)])
    scores = judged(task, completions).reshape(len(prompts), samples)
    per_prompt = np.array([np.mean(best_of_n(row[None], n)) for row in scores])
    return Answers(per_prompt, np.full(len(prompts), best_of_n_kl(n)), None)


def _start_policy(run: Run, task: Any, start: Any, device: str) -> CausalLMPolicy:
    """The policy that the text algorithms with this seed start from."""
    set_random_seed(run.seed)
    return policy_for(task, start, device=device)
