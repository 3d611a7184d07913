"""Oscillation-free quantisation: scales from statistics, the meter of swings, annealing, query-key products."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isoflop.levers.precision.training._learned import (
    Block,
    QuantisedLinear,
    QueryKey,
    Vision,
    products,
    quantised,
    through,
)


class StatsStep(nn.Module):
    """w as s (floor(n clip(w / s, -1, 1)) + 1/2) / n with n = 2^(b-1) and s = 2 mean|w| of its row, not learned.

    Source: Liu et al. 2023 (arXiv:2302.02210), and its released quantiser (mid-rise, detached scale).
    """

    def __init__(self, *, bits: int) -> None:
        super().__init__()
        self.levels = 2 ** (bits - 1)

    def step(self, x: Tensor) -> Tensor:
        return 2 * x.detach().abs().mean(dim=-1, keepdim=True).clamp(min=1e-8) / self.levels

    def forward(self, x: Tensor) -> Tensor:
        s = self.step(x)
        y = (x / s).clamp(-self.levels, self.levels)
        return through(y, self.codes(x) + 0.5) * s

    def codes(self, x: Tensor) -> Tensor:
        """The whole numbers below the values, -n .. n - 1."""
        return (x / self.step(x)).detach().floor().clamp(-self.levels, self.levels - 1)

    def margin(self, x: Tensor) -> Tensor:
        """Distance of x to the nearest place where its code changes, in steps."""
        y = (x / self.step(x)).detach().clamp(0.5 - self.levels, self.levels - 0.5)
        return (y - y.round()).abs()


def ofq(model: nn.Module, *, bits: int = 2, query_key: bool = False) -> nn.Module:
    """The model itself, the weights of its QuantisedLinear layers rounded with `StatsStep` (not the first and last of a
    `Vision`).

    query_key: in each `Block` the product Wq^T Wk of every head is rounded instead of its factors, by rows, and its
    gradient goes straight through to them: factors cannot swing against each other. It holds only where nothing is done
    to q and k between, so not with rotary positions or QK-norm; what is stored has width / head size times the numbers.

    Source: arXiv:2302.02210, query-key reparametrisation; the released attention.py.
    """
    ends = (model.first, model.last) if isinstance(model, Vision) else ()
    for layer in list(model.modules()):
        if isinstance(layer, QuantisedLinear) and layer not in ends:
            layer.weight_rounding = StatsStep(bits=bits)
    for block in model.modules():
        if query_key and isinstance(block, Block):
            block.query.weight_rounding = block.key.weight_rounding = None
            block.product = QueryKey(block.query, block.key, heads=block.heads)
            block.product.weight_rounding = StatsStep(bits=bits)
    return model


class Oscillation:
    """Share of weights whose code moved against its last move, step by step, and its moving average.

    Source: the meter of Nagel et al. 2022 (arXiv:2203.11086), which arXiv:2302.02210 uses.
    """

    def __init__(self, model: nn.Module, *, momentum: float = 0.01) -> None:
        self.layers: list[QuantisedLinear | QueryKey] = [*quantised(model), *products(model)]
        self.momentum = momentum
        self.codes = [_codes(layer) for layer in self.layers]
        self.moved = [torch.zeros_like(c) for c in self.codes]
        self.rates = [torch.zeros_like(c) for c in self.codes]

    def update(self) -> float:
        """After an optimiser's step: the share of weights that swung back in it."""
        swung = 0.0
        for i, layer in enumerate(self.layers):
            now = _codes(layer)
            move = (now - self.codes[i]).sign()
            back = (move * self.moved[i] < 0).to(move)
            self.rates[i].lerp_(back, self.momentum)
            self.moved[i] = torch.where(move != 0, move, self.moved[i])
            self.codes[i] = now
            swung += float(back.sum())
        return swung / sum(c.numel() for c in self.codes)

    def share(self, threshold: float = 0.005) -> float:
        """Share of weights that swing back more often than the threshold, by their moving averages."""
        return float(torch.cat([r.flatten() for r in self.rates]).gt(threshold).double().mean())


def confident(model: nn.Module, *, band: float = 0.1) -> list[Tensor]:
    """1 where a weight lies within `band` steps of where its code changes, 0 where it is sure: confidence-guided
    annealing goes on with the first kind alone, at a rate that falls to zero (`hold`).

    Source: arXiv:2302.02210, confidence-guided annealing, as its abstract and README tell it; band is ours.
    """
    return [(layer.weight_rounding.margin(layer.weight) <= band).to(layer.weight) for layer in quantised(model)]  # type: ignore[union-attr,operator]


def hold(model: nn.Module, free: Sequence[Tensor]) -> None:
    """Set the gradients of sure weights to zero; call it before each step of the annealing."""
    for layer, mask in zip(quantised(model), free, strict=True):
        if layer.weight.grad is not None:
            layer.weight.grad.mul_(mask)


def _codes(layer: QuantisedLinear | QueryKey) -> Tensor:
    made: Tensor = layer.weight_rounding.codes(layer.weight)  # type: ignore[union-attr,operator]
    return made
