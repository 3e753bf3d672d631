"""Log-probabilities of chosen tokens, and entropies, from logits that are read twice and never copied whole.

``log_softmax`` and its backward hold five float32 tensors of shape [tokens, V] on the way, each larger than a CPU's cache.
Here what is kept is the logits themselves, in the dtype in which the output layer gave them, and two numbers per token; all
else is computed for few tokens at a time, in memory that is used again.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits that are worked on at once: float32, one MiB for each thread, so that they stay in its cache; a GPU's 64 MiB.
LOGITS_PER_THREAD = 2**18
LOGITS_ON_GPU = 2**24
LEAST = -1e30  # stands for a logit of -inf where 0 * -inf would be NaN


def token_log_probs(logits: Tensor, actions: Tensor, entropies: bool = False) -> tuple[Tensor, Tensor | None]:
    """log softmax(logits)[actions] and, where asked for, the entropies of softmax(logits) in nats; float32, shape [tokens].

    Both have gradients of first order: with p = softmax(logits) and H the entropy they are onehot(action) - p and
    -p * (log p + H).

    Args:
        logits: shape [tokens, V], float32 or bfloat16; -inf for tokens that cannot be chosen. All arithmetic is in float32.
        actions: int64, shape [tokens].
    """
    log_probs, nats = _TokenLogProbs.apply(logits, actions, entropies)
    return log_probs, nats if entropies else None


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, actions: Tensor, entropies: bool) -> tuple[Tensor, Tensor]:
        log_sums = torch.empty(len(logits), 1, dtype=torch.float32, device=logits.device)
        nats = torch.zeros_like(log_sums)
        for rows, shifted in _in_float32(logits):
            highest = shifted.amax(dim=-1, keepdim=True)
            shifted -= highest
            weights = shifted.exp() if entropies else shifted.exp_()
            sums = weights.sum(dim=-1, keepdim=True)
            log_sum = sums.log()
            if entropies:
                nats[rows] = (
                    log_sum - weights.mul_(shifted.clamp_(min=LEAST)).sum(dim=-1, keepdim=True) / sums
                )
            log_sums[rows] = highest + log_sum
        ctx.save_for_backward(logits, actions, log_sums, nats)
        ctx.set_materialize_grads(False)
        log_probs = logits.gather(-1, actions[:, None]).float() - log_sums
        return log_probs.squeeze(-1), nats.squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_log_probs: Tensor | None, of_nats: Tensor | None) -> Any:
        logits, actions, log_sums, nats = ctx.saved_tensors
        of_chosen = torch.zeros_like(log_sums) if of_log_probs is None else of_log_probs[:, None]
        gradient = torch.empty_like(logits)
        for rows, log_p in _in_float32(logits):
            log_p -= log_sums[rows]
            weight = -of_chosen[rows]
            if of_nats is not None:
                weight = weight - (log_p.clamp(min=LEAST) + nats[rows]).mul_(of_nats[rows, None])
            of_logits = log_p.exp_().mul_(weight)
            gradient[rows] = of_logits.scatter_add_(-1, actions[rows, None], of_chosen[rows])
        return gradient, None, None


def _in_float32(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Few rows at a time: which, and a float32 copy of them, good until the next."""
    at_once = LOGITS_PER_THREAD * torch.get_num_threads() if logits.device.type == "cpu" else LOGITS_ON_GPU
    n_rows = max(1, at_once // logits.shape[-1])
    shape = (min(n_rows, len(logits)), logits.shape[-1])
    buffer = torch.empty(shape, dtype=torch.float32, device=logits.device)
    for start in range(0, len(logits), n_rows):
        rows = slice(start, start + n_rows)
        yield rows, buffer[: len(logits[rows])].copy_(logits[rows])
