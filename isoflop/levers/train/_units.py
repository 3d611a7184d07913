"""Tensors made and used by the rule of a parametrisation, with scales of their own on the way back."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.train._rules import Rule


class _Scale(torch.autograd.Function):
    """x times `forward` on the way there, gradients times `backward` on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: float, backward: float) -> Tensor:
        ctx.backward_scale = backward
        return x * forward

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] * ctx.backward_scale, None, None


def scaled(x: Tensor, *, forward: float = 1.0, backward: float = 1.0) -> Tensor:
    """x times `forward`, whose gradient is multiplied by `backward` instead (arXiv:2303.11257, section 3)."""
    made: Tensor = _Scale.apply(x, forward, backward)
    return made


class Weight:
    """How one tensor is made and used under its rule; `free` says that no later gradient depends on its input's."""

    def __init__(self, rule: Rule, *, free: bool = False) -> None:
        self.rule, self.free = rule, free

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """x W^T times the multiplier; with unit scaling, gradients of W times rows^-1/2.

        The input's gradient has the multiplier, as it must where branches meet, or fan_out^-1/2 where it is free.
        """
        rule = self.rule
        if not rule.unit:
            y = F.linear(x, weight)
            return y if rule.multiplier == 1.0 else y * rule.multiplier
        rows = x.numel() // x.shape[-1]
        x = scaled(x, backward=weight.shape[0] ** -0.5 if self.free else rule.multiplier)
        return scaled(F.linear(x, scaled(weight, backward=rows**-0.5)), forward=rule.multiplier)

    def look_up(self, tokens: Tensor, table: Tensor) -> Tensor:
        """Rows of the table; with unit scaling, its gradients times (vocabulary / tokens)^1/2."""
        if self.rule.unit:
            table = scaled(table, backward=(table.shape[0] / tokens.numel()) ** 0.5)
        x = F.embedding(tokens, table)
        return x if self.rule.multiplier == 1.0 else x * self.rule.multiplier


def matrix(rows: int, columns: int, *, std: float, generator: torch.Generator) -> nn.Parameter:
    """Independent normal numbers, (rows, columns)."""
    return nn.Parameter(torch.empty(rows, columns).normal_(0.0, std, generator=generator))


def residual_weights(index: int, depth: int) -> tuple[float, float]:
    """Weights of the stream and of branch `index` (from 0; two a block): 1 and tau over (1 + tau^2)^1/2.

    tau^2 = 1 / (depth + index): all branches add the same, and together, half by half, as much as the embedding.
    Source: arXiv:2407.17465, appendix G, with both of its multipliers 1.
    """
    tau = (depth + index) ** -0.5
    return (1 + tau * tau) ** -0.5, tau * (1 + tau * tau) ** -0.5


def logits_scale(logits: Tensor) -> Tensor:
    """Logits whose gradient of a mean cross entropy has size one at the start: times rows V / (V - 1)^1/2."""
    vocab = logits.shape[-1]
    return scaled(logits, backward=logits.numel() / vocab * vocab / math.sqrt(vocab - 1))


def attention_size(context: int, *, flat: bool) -> float:
    """RMS over positions of causal attention's output at the start, for values of size one.

    The t keys that position t sees have weights near 1 / t where scores are `flat`, and their squares sum to about
    e / t (at most 1) where scores are N(0, 1). Made here for `context` positions.
    """
    seen = torch.arange(1, context + 1, dtype=torch.float64)
    return float((1 / seen if flat else (math.e / seen).clamp(max=1)).mean().sqrt())
