"""ISH: a linear layer that learns more from samples whose features carry much of their sum in few units."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.activations.ood._arrays import ratio


class _Shaped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, percentile: float) -> Tensor:
        with torch.no_grad():
            factor = ratio(x.double().clamp_min(0), percentile).exp().to(x.dtype)
        ctx.save_for_backward(x * factor[:, None], weight)
        ctx.biased = bias is not None
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        shaped, weight = ctx.saved_tensors
        return grad @ weight, grad.T @ shaped, grad.sum(0) if ctx.biased else None, None


class Ish(nn.Module):
    """The linear layer itself, whose weights' gradient is made from x exp(S(x, p)) instead of x.

    Forward pass, gradient of the input and of the bias are as they were; in evaluation mode everything is. Use it for
    a few epochs of fine-tuning: `model.head = Ish(model.head)`, then `model.head = model.head.linear`.

    Source: Xu et al. 2024 (arXiv 2310.00227), ISH; the form is that of their trainer's "expscale" on the last layer.
    """

    def __init__(self, linear: nn.Linear, *, percentile: float = 85.0) -> None:
        super().__init__()
        self.linear, self.percentile = linear, percentile

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            out: Tensor = self.linear(x)
            return out
        shaped: Tensor = _Shaped.apply(x, self.linear.weight, self.linear.bias, self.percentile)
        return shaped
