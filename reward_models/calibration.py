"""Puts a learned reward model on a scale: a Bradley-Terry score has no zero and no unit of its own."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from reward_models.classifier import Classifier, Stored
from reward_models.completion import Completion, RewardError
from reward_models.files import write_json

CONFIG = "config.json"


def calibrate(
    folder: str | os.PathLike[str], completions: Sequence[Completion], device: str = "auto"
) -> Stored:
    """Let a reward model's scores have mean 0 and standard deviation 1 on these completions.

    Both numbers are written into the folder's config.json, and whoever loads the folder with `reward_models.make` gets
    scores on that scale; the weights are not touched. As in Ziegler et al. 2019, section 2, and Stiennon et al. 2020,
    appendix C.4, which normalise on the reference policy's samples or on demonstrations.

    Args:
        folder: what `reward_models.learning.train` wrote. One that is calibrated already is calibrated anew.
        completions: at least two, whose scores differ.
        device: "auto" takes CUDA where there is one.

    Returns:
        What is stored now.

    Raises:
        RewardError: too few completions, scores that are all the same, or a folder that holds no reward model.
    """
    if len(completions) < 2:
        raise RewardError(f"{len(completions)} completions are too few to calibrate on. Give hundreds.")
    classifier = Classifier(Path(folder), device=device)
    classifier.mean, classifier.std = 0.0, 1.0
    logits = classifier(completions)
    if not logits.std() > 0:
        raise RewardError(
            f"The reward model in {os.fspath(folder)} scores all {len(completions)} completions {logits[0]:.3g}: it learned "
            "nothing that could be put on a scale. Train it longer, or calibrate on completions that differ."
        )
    stored = dataclasses.replace(
        Stored.of(classifier.model.config), mean=float(logits.mean()), std=float(logits.std())
    )
    path = Path(folder) / CONFIG
    config = json.loads(path.read_text())
    config["text_envs_reward"] = dataclasses.asdict(stored)
    write_json(path, config)
    return stored
