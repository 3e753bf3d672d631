"""The reference: the language model that the policy stays near."""

from typing import Any

import torch

from agents import processes
from agents.lm import LanguageModel
from agents.loading import load_causal_lm
from agents.lora import merged


def make_reference(
    own: LanguageModel,
    model: Any,
    kwargs: dict[str, Any] | None,
    max_length: int,
    device: torch.device,
    algorithm: str,
) -> LanguageModel:
    """What the policy stays near, never trained.

    Args:
        own: the policy's language model.
        model: what it stays near, as of `load_causal_lm`; None: the policy as it is now.
        kwargs: how the reference is held, see `check_reference_kwargs`.
        max_length: L of the environment, in tokens.
        device: the policy's.
        algorithm: its name, for errors.

    Raises:
        ValueError: nothing can be made of ``model`` or ``kwargs``; or they would change what the policy shares.
    """
    kwargs = check_reference_kwargs(kwargs)
    if model is None:
        reference = own.frozen_copy()
    else:
        loaded = merged(load_causal_lm(model, own.vocab_size, max_length))
        # On the policy's device first, on which the processes can exchange it.
        reference = LanguageModel(loaded, own.vocab_size, own.temperature, own.dtype_name).to(device)
        processes.share_weights(reference)
        reference.requires_grad_(False)
    own_weights = {parameter.data_ptr() for parameter in own.parameters()}
    if kwargs and any(parameter.data_ptr() in own_weights for parameter in reference.parameters()):
        raise ValueError(
            f"reference_kwargs is {kwargs}, but the reference is the model below the policy's own adapter: in {algorithm}. "
            "It takes no memory of its own: leave reference_kwargs out."
        )
    if kwargs.get("dtype") == "bfloat16":
        reference.hold_in_bfloat16()
    return reference.to(kwargs.get("device", device))


def check_reference_kwargs(kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """How the reference is held: ``dtype`` and ``device``, if they are to be others than the policy's.

    Raises:
        ValueError: for another name, or another dtype than "float32" and "bfloat16".
    """
    kwargs = dict(kwargs or {})
    dtype = kwargs.get("dtype", "float32")
    if set(kwargs) - {"dtype", "device"} or dtype not in ("float32", "bfloat16"):
        raise ValueError(
            f"reference_kwargs is {kwargs}: it may hold dtype, which is float32 or bfloat16, and device. Leave out the rest."
        )
    return kwargs
