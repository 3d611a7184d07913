"""Linear layers whose weights are whole numbers times a scale, learned or from statistics, and their codes."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.precision.training._cast import generator_of


def through(x: Tensor, rounded: Tensor) -> Tensor:
    """The rounded values, with the gradient of x."""
    return x + (rounded - x).detach()


class LearnedStep(nn.Module):
    """w as s round(clip(w / s, -2^(b-1), 2^(b-1) - 1)), s learned with its gradient over sqrt(numbers 2^(b-1)).

    Source: Esser et al. 2020, learned step size quantisation (arXiv:1902.08153).
    """

    def __init__(self, like: Tensor, *, bits: int) -> None:
        super().__init__()
        self.low, self.high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        self.scale = nn.Parameter((2 * like.detach().abs().mean() / self.high**0.5).clamp(min=1e-8))

    def forward(self, x: Tensor) -> Tensor:
        share = (x.numel() * self.high) ** -0.5
        s = (self.scale * share + (self.scale * (1 - share)).detach()).clamp(min=1e-8)
        y = (x / s).clamp(self.low, self.high)
        return through(y, y.round()) * s

    def codes(self, x: Tensor) -> Tensor:
        """The whole numbers."""
        return (x / self.scale.clamp(min=1e-8)).clamp(self.low, self.high).round().detach()

    def margin(self, x: Tensor) -> Tensor:
        """Distance of x to the nearest place where its code changes, in steps."""
        y = (x / self.scale.clamp(min=1e-8)).detach().clamp(self.low, self.high)
        return (y - y.floor() - 0.5).abs()


class QuantisedLinear(nn.Module):
    """y = act(x) weight(W)^T + b; `weight_rounding` and `act_rounding` are modules such as LearnedStep (None: not)."""

    def __init__(self, inputs: int, outputs: int, *, seed: int) -> None:
        super().__init__()
        drawn = torch.empty(outputs, inputs).normal_(0.0, inputs**-0.5, generator=generator_of(seed))
        self.weight, self.bias = nn.Parameter(drawn), nn.Parameter(torch.zeros(outputs))
        self.weight_rounding: nn.Module | None = None
        self.act_rounding: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.act_rounding(x) if self.act_rounding is not None else x
        w = self.weight_rounding(self.weight) if self.weight_rounding is not None else self.weight
        return F.linear(x, w, self.bias)


def classifier(sizes: tuple[int, ...], *, seed: int) -> nn.Sequential:
    """Layers of these sizes with ReLU between them."""
    layers: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        layers += [QuantisedLinear(inputs, outputs, seed=1000 * seed + index), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def quantised(model: nn.Module) -> list[QuantisedLinear]:
    """Its layers whose weights are rounded."""
    return [m for m in model.modules() if isinstance(m, QuantisedLinear) and m.weight_rounding is not None]
