"""FSDP2: each process keeps a part of the policy's weights, of their gradients and of the optimiser's state.

`accelerate launch --use_fsdp --fsdp_version 2` asks for it. The update gathers one layer after another; a rollout gathers the
whole policy before it begins, because processes do not decode the same number of tokens. The reference is not trained, and
each process has a whole one.
"""

from __future__ import annotations

import warnings

import torch
from accelerate.utils import parse_flag_from_env
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from agents import processes
from agents.lora import has_adapter
from agents.policy import CausalLMPolicy
from reward_models.sharding import settings, units


def is_asked_for() -> bool:
    """Whether the processes were started to shard the weights."""
    return parse_flag_from_env("ACCELERATE_USE_FSDP") and processes.count() > 1


def shard(policy: CausalLMPolicy) -> None:
    """Leave this process its part of the policy: each of the model's layers is a unit, and so is what remains.

    Of accelerate's settings, ``fsdp_reshard_after_forward`` and ``fsdp_transformer_layer_cls_to_wrap`` are heeded.

    Raises:
        ValueError: for FSDP 1; for a policy with an adapter, whose weights the reference shares.
    """
    if has_adapter(policy.lm.model):
        raise ValueError(
            "use_fsdp is set: in accelerate's settings, for a policy with a LoRA adapter, whose weights the reference "
            "shares. Start it without, data parallel: an adapter's gradients and optimiser state are small."
        )
    plugin = settings()
    kinds = plugin.transformer_cls_names_to_wrap or policy.lm.model._no_split_modules or ()
    names = {parameter: name for name, parameter in policy.named_parameters()}
    mesh = init_device_mesh(policy.device.type, (processes.count(),))
    for module in list(policy.modules()):
        if type(module).__name__ in kinds:
            fully_shard(module, mesh=mesh, reshard_after_forward=plugin.reshard_after_forward)
    fully_shard(policy, mesh=mesh, reshard_after_forward=False)
    parts = dict(policy.named_parameters())
    for group in policy.optimizer.param_groups:
        group["params"] = [parts[names[parameter]] for parameter in group["params"]]
    for unit in units(policy):
        # Losses are divided by what all processes have, so that their gradients add up; gloo has no other sums.
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    for name in ("evaluate_sequences", "act", "predict_values", "get_distribution"):
        register_fsdp_forward_method(policy, name)
    # Nothing is done to it in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
    with torch.no_grad():  # the first that runs is the outermost unit
        policy.predict_values({"input_ids": torch.zeros(1, 1), "attention_mask": torch.ones(1, 1)})
