"""From observations to the next tokens: sequences laid out for the model, and the draw from its logits."""

import numpy as np
import torch
from torch import Tensor


def right_padded(ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same sequences with their padding on the right, shape [n, L], and their lengths, shape [n]."""
    mask = mask.astype(bool)
    lengths = mask.sum(axis=1)
    if not (mask == (np.arange(mask.shape[1]) < lengths[:, None])).all():
        ids = np.take_along_axis(ids, np.argsort(~mask, axis=1, kind="stable"), axis=1)
    return ids, lengths


def choose(logits: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor]:
    """One token per row of ``logits``, shape [n, V], and its log-probability; both of shape [n].

    A token of probability 0 is never drawn. On a CPU the draw is by inverse CDF, one uniform number and a binary search per
    row: ``torch.multinomial`` draws from the same distribution several times slower. The uniform number is kept just below
    the sum of the probabilities. A GPU adds up in parallel, so its CDF may rise by a rounding error where a probability is
    0: there the draw is a race of exponential times, which the token of probability p wins with probability p.

    Raises:
        ValueError: NaN, on a CPU. A GPU would have to be waited for; there it is the gradient that is refused.
    """
    probabilities = torch.softmax(logits, dim=-1)
    if probabilities.device.type == "cpu" and probabilities[:, 0].isnan().any():  # one NaN makes the row NaN
        raise ValueError(
            "The policy's probabilities are NaN: in the choice of the next token. If it was trained, a step was too large: "
            "begin anew and lower learning_rate. If it was not, raise temperature, or take other weights."
        )
    if deterministic:
        actions = logits.argmax(dim=-1, keepdim=True)
    elif probabilities.device.type == "cpu":
        cdf = probabilities.cumsum(dim=-1)
        uniform = torch.rand(len(cdf), 1) * (1 - 1e-6)
        actions = torch.searchsorted(cdf, uniform * cdf[:, -1:], right=True)
    else:
        times = torch.empty_like(probabilities).exponential_()
        actions = (probabilities / times).argmax(dim=-1, keepdim=True)
    return actions.squeeze(1), probabilities.gather(1, actions).log().squeeze(1)
