"""Sets the scale of a learned reward model: preferences leave it open, and PPO's coefficients depend on it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from reward_models.classifier import Classifier, Stored
from reward_models.completion import Completion, RewardError, score
from reward_models.files import write_json


@dataclass(frozen=True)
class Calibration:
    """Mean and standard deviation of a model's logits on `n` texts."""

    mean: float
    std: float
    n: int


def calibrate(model: Any, completions: Sequence[Any], device: str = "auto") -> Calibration:
    """Make a learned reward model score in standard deviations from the mean of these texts.

    The two numbers go into the model's config, where `Classifier`, and so `reward_models.make(folder)`, finds them; the
    weights stay as they are, so that other libraries get the logits. Calibrating again replaces the numbers. As in Ziegler
    et al. 2019, section 2, and Stiennon et al. 2020, appendix C.4, which normalise on the reference policy's samples or on
    demonstrations: 0 is then what the policy earns before it learns, or what people write.

    Args:
        model: the folder of a learned reward model, whose config.json is rewritten; or a `Classifier`, or what has a method
            `reward`, such as `TrainedReward`: then the module's config is changed, and saving it keeps the numbers.
        completions: `Completion`s, or records or dicts with a prompt and a response: demonstrations, or samples of the
            reference policy.
        device: of a folder's model; "auto" takes CUDA where there is one.

    Raises:
        RewardError: fewer than two texts, or texts that all score the same; a model with several labels.
    """
    folder = Path(model) if isinstance(model, str | os.PathLike) else None
    classifier = _classifier(model, device)
    if classifier.model.config.num_labels != 1 or classifier.output != "logit":
        raise RewardError(
            f"calibrate: {classifier!r} gives no single logit. Calibrate a reward model of one label, with output 'logit'."
        )
    before = classifier.mean, classifier.std
    classifier.mean, classifier.std = 0.0, 1.0
    logits = score(classifier, [_completion(value) for value in completions])
    found = Calibration(float(logits.mean()), float(logits.std()), len(logits)) if len(logits) > 1 else None
    if found is None or not found.std > 1e-6 * max(1.0, abs(found.mean)):  # below it is rounding
        classifier.mean, classifier.std = before
        raise RewardError(
            f"calibrate: the scores of {len(logits)} texts do not differ, so there is no scale. Give hundreds of different "
            "texts; if these are, the model learned nothing: train it longer."
        )
    classifier.mean, classifier.std = found.mean, found.std
    stored = replace(Stored.of(classifier.model.config), mean=found.mean, std=found.std)
    stored.put_into(classifier.model.config)
    if folder is not None:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        write_json(folder / "config.json", config | {"text_envs_reward": asdict(stored)})
    return found


def _classifier(model: Any, device: str) -> Classifier:
    if isinstance(model, str | os.PathLike):
        return Classifier(Path(model), device=device)
    return model if isinstance(model, Classifier) else model.reward()


def _completion(value: Any) -> Completion:
    if isinstance(value, Completion):
        return value
    if isinstance(value, Mapping):
        return Completion(value["prompt"], value["response"])
    return Completion(value.prompt, value.response)
