"""LoRA (Hu et al. 2021) through peft: small matrices beside the weights are trained, the weights stay as they are.

The layers stand in the Hugging Face module itself, which is called as ever. The weights below them exist once: reference,
separate critic and whatever else is made from the policy share them.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

# What makes an adapter, in peft.LoraConfig, and what it notes besides.
SETTINGS = (
    "r", "lora_alpha", "target_modules", "exclude_modules", "lora_dropout", "use_rslora", "use_dora", "rank_pattern",
    "alpha_pattern", "layers_to_transform", "layers_pattern", "fan_in_fan_out",
)  # fmt: skip
NOTES = (
    "peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode",
    "init_lora_weights",
)  # fmt: skip
PART = ".lora_"  # in the name of every weight of an adapter, and of no other


def put_adapter(model: nn.Module, lora: Mapping[str, Any]) -> None:
    """Put a new adapter into a module. Its layers add 0 at first, so that nothing changes yet.

    Args:
        model: a Hugging Face module.
        lora: arguments of ``peft.LoraConfig``, such as ``dict(r=16, target_modules="all-linear")``; the default targets are
            peft's for the architecture.

    Raises:
        ImportError: the package peft is missing.
        ValueError: arguments that peft, or the reference, cannot do with; a module that has an adapter.
    """
    try:
        import peft
    except ImportError as error:
        raise ImportError(
            "LoRA needs the package peft: in policy_kwargs=dict(lora=...). Install it: pip install 'text-envs[lora]'."
        ) from error
    if has_adapter(model):
        raise ValueError(
            "The model has an adapter already: in CausalLMPolicy, with lora. Leave lora out to go on with that one, or give "
            "the model without it."
        )
    try:
        config = peft.LoraConfig(**lora)
        _check_base_stays(config)
        with warnings.catch_warnings():  # GPT-2's layers store their weights transposed, and peft sees to it
            warnings.filterwarnings("ignore", message="fan_in_fan_out")
            peft.inject_adapter_in_model(config, model)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"No adapter can be made of lora={dict(lora)!r}: in CausalLMPolicy. It takes the arguments of peft.LoraConfig, "
            f'such as dict(r=16, target_modules="all-linear"). The reason: {error}'
        ) from error
    for _, weight in adapter_weights(model):
        weight.data = weight.data.float()  # whatever the base is stored in


def of_rank(r: int | None) -> dict[str, Any] | None:
    """The adapter that the command line means by a rank: on all linear layers, scaled by 2; None for none.

    All layers, because attention alone learns less (Schulman et al. 2025, "LoRA Without Regret").
    """
    return None if r is None else {"r": r, "lora_alpha": 2 * r, "target_modules": "all-linear"}


def plain_module(model: Any) -> Any:
    """The Hugging Face module in a ``PeftModel``, its adapter in place; any other module as it is.

    Raises:
        ValueError: an adapter of another kind than LoRA, or several.
    """
    if not (has_adapter(model) and hasattr(model, "get_base_model")):
        return model
    kinds = {name: getattr(config, "peft_type", None) for name, config in model.peft_config.items()}
    if list(kinds.values()) != ["LORA"]:
        listed = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise ValueError(
            f"The PeftModel's adapters are {listed}: in CausalLMPolicy. Give a model with one adapter, of LoRA."
        )
    _check_base_stays(adapter_config(model))
    return model.get_base_model()


def _check_base_stays(config: Any) -> None:
    """Raise ValueError where an adapter is more than matrices beside the weights: switched off, it must leave the base model,
    and a checkpoint that names modules to import must find nobody who does."""
    usual = type(config)().to_dict()
    strange = [
        n for n, value in config.to_dict().items() if n not in (*SETTINGS, *NOTES) and value != usual[n]
    ]
    if config.init_lora_weights not in (True, False, "gaussian"):
        strange.append("init_lora_weights")
    if strange:
        raise ValueError(
            f"{', '.join(strange)} would change the base model, which reference and checkpoints share: in the adapter's "
            f"configuration. Leave it out; the adapter may have {', '.join(SETTINGS)}."
        )


# --- what is there ---------------------------------------------------------------------------------------------


def has_adapter(model: Any) -> bool:
    return hasattr(model, "peft_config")


def adapter_config(model: Any) -> Any:
    """peft's configuration of the adapter."""
    (config,) = model.peft_config.values()
    return config


def settings_elsewhere(model: Any) -> dict[str, Any]:
    """The arguments of ``peft.LoraConfig`` for an adapter like the model's, on all linear layers of another model."""
    config = adapter_config(model).to_dict()
    named = ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora")
    return {name: config[name] for name in named} | {"target_modules": "all-linear"}


def adapter_weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, weight) for name, weight in model.named_parameters() if PART in name)


def names_of_base(module: nn.Module) -> set[str]:
    """Which names of the state of a module, and of those in it, lie below an adapter."""
    prefixes = tuple(f"{name}." if name else "" for name, part in module.named_modules() if has_adapter(part))
    return {name for name in module.state_dict() if name.startswith(prefixes) and PART not in name}


def train_adapter_only(model: nn.Module) -> None:
    """Let the adapter learn and nothing else; all of a module without one."""
    for name, weight in model.named_parameters():
        weight.requires_grad_(PART in name or not has_adapter(model))


def adds_nothing(model: nn.Module) -> bool:
    """Whether the adapter, if there is one, still leaves the model as it was: a product with 0."""
    return not any(weight.any() for name, weight in adapter_weights(model) if ".lora_B." in name)


# --- modules made from it --------------------------------------------------------------------------------------


def twin(module: nn.Module) -> Any:
    """A copy that may be changed on its own; weights that are not trained are shared with it."""
    return _copy_sharing(module, (weight for weight in module.parameters() if not weight.requires_grad))


def base_of(model: nn.Module) -> Any:
    """The same model with the adapter switched off for good. It shares all weights."""
    return _unwrap(_copy_sharing(model, model.parameters()))


def merged(model: nn.Module) -> Any:
    """A plain model in which the adapter is added to the weights; a model without one as it is. ``model`` stays as it was.

    Weights that have no adapter beside them are shared.
    """
    if not has_adapter(model):
        return model
    beside = {id(weight) for _, layer in _layers(model) for weight in layer.parameters()}
    plain = _copy_sharing(model, (weight for weight in model.parameters() if id(weight) not in beside))
    for _, layer in _layers(plain):
        layer.merge()
    return _unwrap(plain)


def _copy_sharing(module: nn.Module, shared: Iterable[nn.Parameter]) -> nn.Module:
    return copy.deepcopy(module, {id(weight): weight for weight in shared})


def _layers(model: nn.Module) -> list[tuple[str, Any]]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(name, part) for name, part in model.named_modules() if isinstance(part, BaseTunerLayer)]


def _unwrap(model: nn.Module) -> nn.Module:
    for name, layer in _layers(model):
        model.set_submodule(name, layer.get_base_layer())
    for part in model.modules():
        if has_adapter(part):
            del part.peft_config
    return model
