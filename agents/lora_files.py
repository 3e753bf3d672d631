"""Adapters in files: what a checkpoint tells of the model below one, and how that model is found again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from agents.loading import load_causal_lm
from agents.lora import (
    SETTINGS,
    adapter_config,
    adapter_weights,
    has_adapter,
    names_of_base,
    put_adapter,
)
from agents.packing import CheckpointError
from reward_models.reward_head import load_classifier

HOW = "Give the base model: load(path, policy_kwargs=dict(model=...))."
HOW_CRITIC = "Give the reward model: load(path, policy_kwargs=dict(reward_model=...))."


def adapter_record(model: Any) -> dict[str, Any] | None:
    """What a checkpoint tells of a model's adapter and of what lies below it, JSON values; None without one."""
    if not has_adapter(model):
        return None
    base, config = model.name_or_path, adapter_config(model).to_dict()
    return {
        "config": json.loads(json.dumps({name: config[name] for name in SETTINGS}, default=sorted)),
        "base": os.path.abspath(base) if base and os.path.exists(base) else base or None,
    }


def hash_of_base(module: nn.Module) -> str:
    """sha256 of the weights below the adapters of a module: names, types, shapes and bytes."""
    state, digest = module.state_dict(), hashlib.sha256()
    for name in sorted(names_of_base(module)):
        weight = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.flatten().view(torch.uint8).numpy())  # type: ignore[arg-type]
    return digest.hexdigest()


def model_of_record(
    record: Mapping[str, Any], given: Any, vocab_size: int, max_length: int
) -> dict[str, Any]:
    """The policy_kwargs ``model`` and ``lora`` of a policy as a checkpoint's record tells.

    Args:
        given: the base model, as of `load_causal_lm`, which may hold an adapter of the same kind; None: the recorded one.

    Raises:
        CheckpointError: none is given, and there is none where the recorded one lay.
    """
    with _explained("holds an adapter, and the model below it", HOW):
        model = load_causal_lm(_base(record, given), vocab_size, max_length)
    return {"model": model, "lora": None if has_adapter(model) else record["config"]}


def reward_model_of_record(record: Mapping[str, Any], given: Any) -> PreTrainedModel:
    """The policy_kwargs ``reward_model`` of a policy whose critic has an adapter, as a checkpoint's record tells.

    Args:
        given: the reward model, as of `agents.critics.critic_from`; None: the recorded one.

    Raises:
        CheckpointError: none is given, and there is none where the recorded one lay.
    """
    with _explained("has a critic with an adapter, and the reward model below it", HOW_CRITIC):
        classifier = load_classifier(_base(record, getattr(given, "model", given)))
    if not has_adapter(classifier):
        put_adapter(classifier, record["config"])
    return classifier


def _base(record: Mapping[str, Any], given: Any) -> Any:
    base = record["base"] if given is None else given
    if base is None:
        raise ValueError("it had no folder.")
    return base


@contextmanager
def _explained(what: str, how: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise CheckpointError(f"The checkpoint {what} is not to be had: {error} {how}") from error


def check_base(policy: nn.Module, settings: Mapping[str, Any], path: Any) -> None:
    """Raise CheckpointError unless the weights below the policy's adapters, its critic's too, are those that they were
    trained on, as a checkpoint's settings tell."""
    record = settings.get("lora")
    if record is None or hash_of_base(policy) == record["sha256"]:
        return
    critic = (settings.get("critic") or {}).get("lora")
    below = "" if critic is None else f", and {critic['base'] or 'a module'} below the critic's"
    raise CheckpointError(
        f"This is not the base model that the adapter was trained on (that was {record['base'] or 'a module'}{below}), or "
        f"its weights have changed since: in {path}. {HOW}" + ("" if critic is None else f" {HOW_CRITIC}")
    )


def save_adapter(model: Any, folder: str | os.PathLike[str]) -> None:
    """Write the adapter alone, as ``peft.PeftModel.from_pretrained(base, folder)`` reads it."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    adapter_config(model).save_pretrained(folder)
    (name,) = model.peft_config
    state: dict[str, Tensor] = {
        f"base_model.model.{key.replace(f'.{name}.', '.')}": weight.detach().cpu().contiguous()
        for key, weight in adapter_weights(model)
    }
    save_file(state, Path(folder) / "adapter_model.safetensors", {"format": "pt"})
