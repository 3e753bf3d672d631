"""Reward models that learn SupportReply from simulated comparisons: made once, kept in a cache that runs share."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import text_envs  # noqa: F401  registers the ids
from agents.stages import answer, read_completions, write_completions
from reward_models import Completion, make, score
from reward_models.calibration import calibrate
from reward_models.files import replacing
from reward_models.learning import train
from reward_models.preferences.entries import Assignment
from reward_models.preferences.raters import SimulatedRater
from reward_models.preferences.records import Comparison
from text_envs.tasks import support_reply

LEARNING = {"learning_rate": 2e-4, "weight_decay": 0.05, "dropout": 0.1}
CALIBRATED_ON = 400  # replies of the start: a proxy's 0 is their mean, its 1 their standard deviation


def replies(prompts: int, each: int, seed: int, cache: Path) -> list[Completion]:
    """Replies of the shipped model to training prompts, `each` in a row to the same one."""
    path = cache / f"replies-{_digest(prompts, each, seed)}.jsonl"
    if not path.is_file():
        rows = support_reply.prompts("train")
        chosen = np.random.default_rng(seed).permutation(len(rows))[:prompts]
        task = gym.make("text_envs/SupportReply-v0").get_wrapper_attr("task")
        answers = answer(support_reply.FOLDER, task, [rows[i] for i in chosen], each, 1.0, seed, "cpu")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_completions(path, [completion for of_prompt in answers for completion in of_prompt])
    return read_completions(path)


def comparisons(pairs: Sequence[Completion], flip: float, seed: int) -> list[Comparison]:
    """The votes of a rater who follows the gold judge, on neighbours in `pairs`, turned round with probability `flip`."""
    rater, made = SimulatedRater(support_reply.judge, temperature=0.0, flip=flip, seed=seed), []
    for number, (left, right) in enumerate(zip(pairs[::2], pairs[1::2])):
        responses = (left.response, right.response)
        asked = Assignment(number, number, 0, "comparison", left.prompt, responses, left.columns, 0.0)
        made.append(
            Comparison(
                left.prompt, responses, rater.answer(asked)["choice"], "simulated", columns=left.columns
            )
        )
    return made


def proxy(size: int, flip: float, epochs: float, most: int, seed: int, member: int, cache: Path) -> Path:
    """The folder of a reward model that learned `size` comparisons, its scores in standard deviations of the start's.

    Args:
        most: comparisons of the largest set, of which smaller ones are the beginning.
        member: of an ensemble: another order, dropout and head on the same comparisons.
    """
    folder = cache / f"reward-{_digest(size, flip, epochs, most, seed, member, LEARNING)}"
    if not folder.is_dir():
        pairs = replies(most, 2, 1000 + seed, cache)
        votes = comparisons(pairs[: 2 * size], flip, seed)
        scratch = Path(tempfile.mkdtemp(dir=cache))
        train(
            str(support_reply.REWARD_START), votes, scratch, epochs=epochs, label_smoothing=min(flip, 0.15),
            seed=100 * seed + member, device="cpu", progress=None, **LEARNING,
        )  # fmt: skip
        calibrate(scratch, pairs[-CALIBRATED_ON:], device="cpu")
        try:
            os.rename(scratch, folder)
        except OSError:  # another run made it meanwhile: the same
            shutil.rmtree(scratch)
    return folder


class Remembered:
    """A proxy whose scores of one list of replies are kept in a file, for it is asked for them alone and in ensembles."""

    def __init__(self, folder: Path, replies_are: tuple[int, int, int]):
        self.folder, self.path = folder, folder.with_name(f"{folder.name}-{_digest(*replies_are)}.npy")

    def __call__(self, completions: Sequence[Completion]) -> np.ndarray:
        """Scores, float64, shape [n]."""
        if not self.path.is_file():
            scores = score(make(str(self.folder)), completions)
            with replacing(self.path) as file:
                np.save(file, scores)
        return np.load(self.path)


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
