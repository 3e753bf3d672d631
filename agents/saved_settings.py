"""The settings in a checkpoint: what is kept of models, schedules and options as JSON, and how they are made of it again."""

import warnings
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedModel,
)

from agents.lm import LanguageModel
from agents.lora_files import model_of_record, reward_model_of_record


def architecture_of(lm: LanguageModel) -> dict[str, Any]:
    model = lm.model
    generation = getattr(model, "generation_config", None)  # a classifier has none
    return {
        "config": model.config.to_dict(),
        # The configuration's own JSON leaves it out, and another one gives other sums.
        "attention": None
        if lm.attention_written_out
        else getattr(model.config, "_attn_implementation", None),
        "generation_config": None if generation is None else generation.to_dict(),
    }


def models_of_settings(settings: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The policy_kwargs that are made anew: the model; of an adapter the model below it, which may be ``given``."""
    record, critic = settings.get("lora"), settings.get("critic")
    if record is None:
        made = {"model": given.get("model") or model_of_architecture(settings["model"])}
    else:
        size = settings["spaces"]
        made = model_of_record(record, given.get("model"), size["vocab_size"], size["max_length"])
        _set_up(made["model"], settings["model"])
    if critic is not None:
        made["reward_model"] = _critic_of(critic, given.get("reward_model"))
    return made


def _critic_of(settings: dict[str, Any], given: Any) -> PreTrainedModel:
    if settings.get("lora") is None:
        return model_of_architecture(settings, AutoModelForSequenceClassification)
    model = reward_model_of_record(settings["lora"], given)
    _set_up(model, settings)
    return model


def model_of_architecture(
    architecture: dict[str, Any], auto_class: Any = AutoModelForCausalLM
) -> PreTrainedModel:
    config = without_code(architecture["config"])
    model = auto_class.from_config(
        AutoConfig.for_model(config.pop("model_type"), **config), dtype=torch.float32, trust_remote_code=False
    )
    _set_up(model, architecture)
    return model


def _set_up(model: PreTrainedModel, architecture: dict[str, Any]) -> None:
    """What of an architecture a configuration's own JSON leaves out."""
    attention = architecture.get("attention")
    if attention in ("eager", "sdpa") and model.config._attn_implementation != attention:
        model.set_attn_implementation(attention)
    if architecture["generation_config"] is not None:
        model.generation_config = GenerationConfig.from_dict(architecture["generation_config"])


def without_code(config: Any) -> Any:
    """A configuration less what makes transformers fetch and run code: a model's own files, kernels of the hub."""
    if not isinstance(config, dict):
        return config
    return {
        name: without_code(value)
        for name, value in config.items()
        if name != "auto_map" and not name.endswith("_implementation")
    }


def schedule_to_json(name: str, schedule: Any, progress: float) -> Any:
    while isinstance(schedule, FloatSchedule):
        schedule = schedule.value_schedule
    if schedule is None or isinstance(schedule, int | float):
        return schedule
    if isinstance(schedule, ConstantSchedule):
        return schedule.val
    if isinstance(schedule, LinearSchedule):
        return {"start": schedule.start, "end": schedule.end, "end_fraction": schedule.end_fraction}
    warnings.warn(
        f"{name} is a function, which a checkpoint cannot hold: its present value is saved. Give it again to go on: "
        f"load(path, {name}=...).",
        stacklevel=3,
    )
    return float(schedule(progress))


def schedule_from_json(value: Any) -> Any:
    return LinearSchedule(**value) if isinstance(value, dict) else value


def plain_value(name: str, value: Any) -> Any:
    """A JSON value; numpy scalars become Python's."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}, which a checkpoint cannot hold.")


def json_only(settings: dict[str, Any]) -> dict[str, Any]:
    kept, dropped = {}, []
    for name, value in settings.items():
        try:
            kept[name] = plain_value(name, value)
        except TypeError:
            dropped.append(name)
    if dropped:
        warnings.warn(
            f"policy_kwargs {', '.join(dropped)} cannot be saved: give them again with load(path, policy_kwargs=...).",
            stacklevel=3,
        )
    return kept
