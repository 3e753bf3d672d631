"""`transformers.Trainer` under FSDP2.

accelerate does it. What is added: it does so on CPUs too, and the model is whole before and after.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import Any

import torch
from accelerate import DistributedType
from accelerate.utils import broadcast, parse_flag_from_env
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainingArguments

from reward_models.sharding import settings, units


class ShardingTrainer(Trainer):
    """`Trainer` that shards the model where accelerate was told to; each of its layers is a unit.

    Attributes:
        model: before and after `train` whole, in each process; where it was sharded, another module afterwards.

    Raises:
        ValueError: for FSDP 1.
    """

    model: Any

    def __init__(self, model: nn.Module, args: TrainingArguments, **more: Any) -> None:
        self.layers = _names_of_layers(model)
        super().__init__(model=model, args=args, **more)
        if self.is_fsdp_enabled:  # else Trainer has done it
            model.to(args.device)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        state = self.accelerator.state
        if parse_flag_from_env("ACCELERATE_USE_FSDP") and state.distributed_type != DistributedType.NO:
            plugin = settings()
            plugin.transformer_cls_names_to_wrap = plugin.transformer_cls_names_to_wrap or self.layers
            if state.mixed_precision != "no":
                plugin.set_mixed_precision(state.mixed_precision)
                # Losses and gradients stay float32; accelerate would round them, too.
                plugin.mixed_precision_policy = replace(
                    plugin.mixed_precision_policy, reduce_dtype=torch.float32, output_dtype=None
                )
            # On GPUs accelerate has come to the same, with layers of its own choice; on CPUs it does not look.
            state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, plugin
            self.is_fsdp_enabled = True

    def train(self, *args: Any, **named: Any) -> Any:
        if not self.is_fsdp_enabled:
            return super().train(*args, **named)
        model = self.model
        # All begin with the first one's weights, as in data parallel.
        broadcast([tensor.data for tensor in (*model.parameters(), *model.buffers())])
        empty = _without_weights(model)
        output = super().train(*args, **named)
        self.model = self.model_wrapped = _filled(empty, model)
        return output

    def _prepare_for_training(self, *args: Any, **named: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **named)
        for unit in units(self.model):
            unit.set_force_sum_reduction_for_comms(True)  # and then divide: gloo has no mean
        # Nothing is done to it in place.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
        return prepared


def _names_of_layers(model: nn.Module) -> list[str]:
    """The classes that transformers names as a model's layers, as far as it has any of them."""
    named = {name for part in model.modules() for name in getattr(part, "_no_split_modules", None) or ()}
    return sorted(named & {type(part).__name__ for part in model.modules()})


def _without_weights(module: nn.Module) -> Any:
    """A copy whose weights are empty; what was tied is tied."""
    empty = {
        id(weight): nn.Parameter(weight.new_empty(0), weight.requires_grad) for weight in module.parameters()
    }
    return copy.deepcopy(module, empty)


def _filled(module: nn.Module, sharded: nn.Module) -> nn.Module:
    """The module that `_without_weights` gave, with the weights put together from what the processes have of each."""
    state = sharded.state_dict()
    for name, weight in module.named_parameters():
        found = state[name]
        weight.data = found.full_tensor() if isinstance(found, DTensor) else found
    return module
