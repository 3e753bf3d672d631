"""The loss of fine-tuning, computed where it stands: on the tokens of responses.

The last layer and the output layer see only what predicts one: less time, and no logits of the prompts in memory, nor all
those of the responses at once, where they are many.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from agents.demonstrations import IGNORED
from agents.memory import of_logits
from agents.token_log_probs import token_log_probs
from reward_models.last_layer import hidden_at


def response_losses(lm: Any, input_ids: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihoods of the tokens that have a label, in nats; float32, shape [tokens].

    Args:
        lm: a causal LM of which `is_output_of_hidden` is true.
        input_ids, labels: int64, shape [sequences, length], right-padded; labels are the ids, or ``IGNORED``.
    """
    labels = labels[:, 1:]
    rows, columns = torch.where(labels != IGNORED)
    hidden = hidden_at(lm.base_model, lm.get_input_embeddings()(input_ids), rows, columns)
    output = lm.get_output_embeddings()

    def compute(hidden: Tensor, labels: Tensor) -> tuple[Tensor]:
        return (-token_log_probs(output(hidden), labels)[0],)

    (losses,) = of_logits(compute, output.weight.shape[0], hidden, labels[rows, columns])
    assert losses is not None
    return losses


@contextmanager
def called_for_losses(trainer: Any) -> Iterator[None]:
    """While the block runs, a call of the trainer's ``model`` gives the loss alone, as Trainer asks for it.

    By the call itself, because that is what wraps the model: data parallel, FSDP2 and mixed precision see to weights,
    gradients and dtypes there.
    """
    model: nn.Module = trainer.model
    model.forward = MethodType(_loss, model)  # type: ignore[method-assign]  # a method, so that a copied model runs its own
    try:
        yield
    finally:
        for module in (model, trainer.model):  # FSDP2's is another one afterwards
            module.__dict__.pop("forward", None)


def _loss(
    model: nn.Module, input_ids: Tensor, labels: Tensor, num_items_in_batch: Any = None, **_: Any
) -> dict[str, Tensor]:
    losses = response_losses(model, input_ids, labels)
    return {"loss": losses.sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)}


@torch.no_grad()
def is_output_of_hidden(model: Any) -> bool:
    """Whether a model's logits are its output layer of its last hidden states, and nothing more; tried on four tokens."""
    was_training = model.training
    model.eval()
    ids = torch.arange(4, device=model.device)[None] % model.get_input_embeddings().num_embeddings
    whole = model(input_ids=ids, use_cache=False).logits
    trunk = model.base_model(inputs_embeds=model.get_input_embeddings()(ids), use_cache=False)
    model.train(was_training)
    hidden, output = getattr(trunk, "last_hidden_state", None), model.get_output_embeddings()
    return (
        hidden is not None
        and output is not None
        and torch.allclose(whole, output(hidden), atol=1e-3, rtol=1e-3)
    )
