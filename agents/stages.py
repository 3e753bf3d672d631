"""What the stages of the loop do: answer, improve, evaluate. Fine-tuning is `agents.sft`, comparing `agents.comparing`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from agents.generation import complete, log_likelihoods, policy_for
from agents.runs import clock, plain
from reward_models import Completion, RewardModel, score
from reward_models.files import replacing
from reward_models.lexical import DistinctN
from text_envs.task import TextTask


class Stopped(Exception):
    """Ctrl-C or SIGTERM ended a stage; what is there, the next run goes on from. May hold the signal's number."""


class Pace:
    """Says every few seconds how far a stage is, and how long it still takes.

    Args:
        say: where; None: nowhere.
        what: is counted: "answers".
        total: so many of it there will be; `done`: so many there are at the start.
    """

    def __init__(self, say: Console | None, what: str, total: int, done: int = 0, every: float = 5.0):
        self.say, self.what, self.total, self.first, self.every = say, what, total, done, every
        self.began = self.told = time.monotonic()

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if self.say is None or now - self.told < self.every or not self.first < done < self.total:
            return
        self.told = now
        left = (now - self.began) / (done - self.first) * (self.total - done)
        self.say.print(f"  {done:,} of {self.total:,} {self.what}, {clock(left)} to go", highlight=False)


def answer(
    model: str | Path,
    task: TextTask,
    rows: Sequence[Mapping[str, Any]],
    n: int,
    temperature: float,
    seed: int,
    device: str,
    should_stop: Callable[[], bool] = lambda: False,
    batch: int = 64,
    say: Console | None = None,
) -> list[list[Completion]]:
    """`n` sampled answers of a model to each prompt, shape [prompts][n].

    Raises:
        Stopped: `should_stop` said so.
    """
    policy = policy_for(task, str(model), temperature, device)
    torch.manual_seed(seed)
    repeated = [row for row in rows for _ in range(n)]
    completions: list[Completion] = []
    tell = Pace(say, "answers", len(repeated))
    for start in range(0, len(repeated), batch):
        if should_stop():
            raise Stopped
        completions += complete(policy, task, repeated[start : start + batch])
        tell(len(completions))
    return [completions[i : i + n] for i in range(0, len(completions), n)]


@dataclass
class Evaluation:
    """How a policy answers the held-out prompts.

    Attributes:
        completions: one to each prompt.
        scores: by name ("gold", and the rewards), float64, shape [prompts].
        components: of the gold judge, means; empty where it has none.
        kl: from the fine-tuned model, nats per reply, one sample each (k1), shape [prompts].
    """

    completions: list[Completion]
    scores: dict[str, np.ndarray]
    components: dict[str, float]
    kl: np.ndarray

    def summary(self, others: Mapping[str, Evaluation], by: str, seed: int = 0) -> dict[str, Any]:
        """Means with 95 % intervals over prompts, and win rates against other policies by the score named `by`."""
        lengths = np.array([len(c.response_ids) for c in self.completions], dtype=np.float64)
        ended = np.array([c.finish_reason != "length" for c in self.completions], dtype=np.float64)
        return {
            "prompts": len(self.completions),
            "scores": {name: interval(values, seed) for name, values in self.scores.items()},
            "components": self.components,
            "kl": interval(self.kl, seed),
            "length": interval(lengths, seed),
            "ended": float(ended.mean()),
            "distinct_2": float(np.mean(score(DistinctN(n=2), self.completions))),
            "win_rate": {
                name: interval(wins(self.scores[by], other.scores[by]), seed)
                for name, other in others.items()
            },
        }


def evaluate(
    model: str | Path,
    reference: str | Path,
    task: TextTask,
    rows: Sequence[Mapping[str, Any]],
    judges: Mapping[str, RewardModel],
    temperature: float,
    seed: int,
    device: str,
    should_stop: Callable[[], bool] = lambda: False,
    say: Console | None = None,
) -> Evaluation:
    """Sample one answer to each held-out prompt, score it by each of `judges`, and measure its KL from the reference."""
    answers = answer(model, task, rows, 1, temperature, seed, device, should_stop, say=say)
    completions = [one for (one,) in answers]
    own, other = (policy_for(task, str(folder), temperature, device).lm for folder in (model, reference))
    components = getattr(judges.get("gold"), "components", None)
    judged = [components(completion) for completion in completions] if components else []
    return Evaluation(
        completions=completions,
        scores={name: score(judge, completions) for name, judge in judges.items()},
        components={
            name: float(np.mean([c[name] for c in judged])) for name in (judged[0] if judged else ())
        },
        kl=log_likelihoods(own, completions) - log_likelihoods(other, completions),
    )


def wins(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """1 where ours is higher, 0.5 where equal (to rounding), 0 where lower; shape of both."""
    difference = np.where(np.isclose(ours, theirs, rtol=0, atol=1e-9), 0.0, ours - theirs)
    return 0.5 + 0.5 * np.sign(difference)


def interval(values: np.ndarray, seed: int = 0, n: int = 2000) -> dict[str, float]:
    """Mean, and its 95 % bootstrap interval (Efron 1979, percentiles) over the values, shape [values]."""
    means = np.random.default_rng(seed).choice(values, (n, len(values))).mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def write_completions(
    path: Path, completions: Sequence[Completion], **more: Sequence[Any] | np.ndarray
) -> None:
    """Completions as JSON lines, each with its value of every sequence in `more`; atomic."""
    with replacing(path) as file:
        for index, completion in enumerate(completions):
            row = {
                "prompt": completion.prompt,
                "response": completion.response,
                "prompt_ids": list(completion.prompt_ids),
                "response_ids": list(completion.response_ids),
                "finish_reason": completion.finish_reason,
                "columns": dict(completion.columns),
                **{name: values[index] for name, values in more.items()},
            }
            file.write((json.dumps(plain(row), ensure_ascii=True) + "\n").encode())


def read_completions(path: Path) -> list[Completion]:
    """What `write_completions` wrote."""
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [
        Completion(
            prompt=row["prompt"],
            response=row["response"],
            prompt_ids=tuple(row["prompt_ids"]),
            response_ids=tuple(row["response_ids"]),
            finish_reason=row["finish_reason"],
            columns=row["columns"],
        )
        for row in rows
    ]
