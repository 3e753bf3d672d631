"""The tanh approximation of GELU (Hendrycks & Gimpel 2016, "Gaussian Error Linear Units", section 2), quick on a CPU.

transformers writes GPT-2's out in Python; torch's own kernel spends its time on the hyperbolic tangent, in forward and again
in backward. But (1 + tanh u) / 2 is the logistic function of 2u, for which a CPU has a quick kernel. So, for
a = 2 sqrt(2 / pi) and b = 0.044715 a,

    gelu(x) = x s,   s = sigmoid(z),   z = a x + b x^3,

and the derivative is s + s (1 - s) x dz/dx, where x dz/dx = 3z - 2a x. Forward computes both, a few numbers at a time, in the
cache; the derivative is kept instead of x, and backward is one product.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.activations import GELUTanh, NewGELUActivation

A = 2 * math.sqrt(2 / math.pi)
B = 0.044715 * A
NUMBERS_PER_THREAD = 2**16  # 256 KiB in each of three buffers


class TanhGELU(nn.Module):
    """gelu(x), of any shape, worked out in float32. A GPU, float64, and what is as small as a step of decoding have torch's
    own kernel."""

    def forward(self, x: Tensor) -> Tensor:
        with_gradient = torch.is_grad_enabled() and x.requires_grad
        is_small = not with_gradient and x.numel() <= 2 * NUMBERS_PER_THREAD
        if is_small or x.device.type != "cpu" or x.dtype == torch.float64:
            return F.gelu(x, approximate="tanh")
        return _TanhGELU.apply(x.contiguous(), with_gradient)


def use_quick_gelu(model: nn.Module) -> None:
    """Replace transformers' tanh GELU by ``TanhGELU``, the same function."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation | GELUTanh):
                setattr(module, name, TanhGELU())


class _TanhGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, with_gradient: bool) -> Tensor:
        y = torch.empty_like(x)
        slope = torch.empty_like(x) if with_gradient else None
        a = torch.tensor(A)
        for part, numbers, z, s in _parts(x):
            torch.addcmul(a, numbers, numbers, value=B, out=z).mul_(numbers)
            torch.sigmoid(z, out=s)
            if slope is None:
                y.view(-1)[part] = s.mul_(numbers)
                continue
            z.sub_(numbers, alpha=2 / 3 * A)
            y.view(-1)[part] = numbers.mul_(s)
            s_of_one_less_s = torch.addcmul(s, s, s, value=-1, out=numbers)
            slope.view(-1)[part] = s.addcmul_(s_of_one_less_s, z, value=3)
        if slope is not None:
            ctx.save_for_backward(slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_y: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return of_y * slope, None


def _parts(x: Tensor) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """A few numbers of ``x`` at a time: where they are, a float32 copy of them, and two buffers of their size."""
    flat, at_once = x.view(-1), NUMBERS_PER_THREAD * torch.get_num_threads()
    buffers = torch.empty(3, min(at_once, len(flat)), dtype=torch.float32)
    for start in range(0, len(flat), at_once):
        part = slice(start, start + at_once)
        numbers, first, second = buffers[:, : len(flat[part])]
        yield part, numbers.copy_(flat[part]), first, second
