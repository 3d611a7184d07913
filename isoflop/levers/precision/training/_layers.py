"""Linear layers whose three products are taken with rounded operands, and models made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.precision._hadamard import rotation_flops
from isoflop.levers.precision._plain import put
from isoflop.levers.precision.training._cast import Cast, generator_of, mixed, slope
from isoflop.levers.precision.training._learned import through


@dataclass(frozen=True)
class Recipe:
    """What a training rounds.

    weights, acts: operands of the forward product; grads: incoming gradients, and with them both products of the
        backward pass (None: gradients are not rounded, and go straight through the rounding of the others)
    hadamard: rotate both operands of each product in blocks of so many first (0: not)
    smooth_gradient: power of the smooth stand-in for rounding weights (see `_cast.slope`; 0: straight through)
    smooth_swiglu: inputs of `down_proj` are scaled by channel (see `smooth_swiglu`)
    nonlinear: inputs of norms and of the gate (the outputs of gate_proj and up_proj), which the backward pass keeps;
        gradients go straight through
    moments: how Adam's two moments are stored: "" (as they are), "fp8", "coat"
    keep: last parts of the names of layers that stay as they are
    """

    weights: Cast | None = None
    acts: Cast | None = None
    grads: Cast | None = None
    hadamard: int = 0
    smooth_gradient: float = 0.0
    smooth_swiglu: bool = False
    nonlinear: Cast | None = None
    moments: str = ""
    keep: tuple[str, ...] = ("lm_head",)


class _Product(torch.autograd.Function):
    """y = Q(x) Q(w)^T; dx = Q(dy) Q(w), dw = Q(dy)^T Q(x), each rounded along the axis that is summed over."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
        qx = _cast(x, recipe.acts, recipe, generator)
        qw = _cast(w, recipe.weights, recipe, generator)
        ctx.recipe, ctx.generator = recipe, generator
        ctx.save_for_backward(*((x, w) if recipe.grads else (_back(qx, x, recipe), _back(qw, w, recipe))), w)
        return F.linear(qx, qw)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, w, weight = ctx.saved_tensors
        recipe, generator, dy = ctx.recipe, ctx.generator, grads[0]
        rows, flat = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
        if recipe.grads is None:
            dx, dw = dy @ w, rows.T @ flat
        else:
            dx = F.linear(_cast(dy, recipe.grads, recipe, generator), _cast(w.T, recipe.weights, recipe, generator))
            dw = F.linear(_cast(rows.T, recipe.grads, recipe, generator), _cast(flat.T, recipe.acts, recipe, generator))
        if recipe.smooth_gradient and recipe.weights:
            dw = dw * slope(weight, recipe.weights, recipe.smooth_gradient)
        return dx, dw, None, None


def _cast(x: Tensor, cast: Cast | None, recipe: Recipe, generator: torch.Generator) -> Tensor:
    if recipe.hadamard:
        x = mixed(x, recipe.hadamard)
    return x if cast is None else cast.round(x, generator)


def _back(rounded: Tensor, x: Tensor, recipe: Recipe) -> Tensor:
    """The rounded operand as the backward pass needs it: not rotated."""
    return mixed(rounded, recipe.hadamard)[..., : x.shape[-1]] if recipe.hadamard else rounded


class LowLinear(nn.Module):
    """A linear layer under a recipe; the weight itself stays in float32 and is what the optimiser moves."""

    def __init__(
        self, linear: nn.Linear, recipe: Recipe, *, seed: int, smooth: bool = False, gate: bool = False
    ) -> None:
        super().__init__()
        self.weight, self.bias, self.recipe, self.smooth = linear.weight, linear.bias, recipe, smooth
        self.out = recipe.nonlinear if gate else None
        self.generator = generator_of(seed)

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        if self.smooth:
            s = channel_scale(x)
            x, w = x / s, w * s
        y: Tensor = _Product.apply(x, w, self.recipe, self.generator)
        y = y if self.bias is None else y + self.bias
        return y if self.out is None else through(y, self.out.round(y.detach(), self.generator))


class LowNorm(nn.Module):
    """A norm of rounded inputs."""

    def __init__(self, norm: nn.Module, cast: Cast, *, seed: int) -> None:
        super().__init__()
        self.norm, self.cast, self.generator = norm, cast, generator_of(seed)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.norm(through(x, self.cast.round(x.detach(), self.generator)))
        return made


def channel_scale(x: Tensor) -> Tensor:
    """Powers of two (channels,), near the largest |x| of each channel over all rows: dividing by them is exact."""
    peak = x.detach().abs().reshape(-1, x.shape[-1]).amax(dim=0)
    power = torch.frexp(peak).exponent.clamp(-100, 100)
    return torch.where(peak > 0, torch.ldexp(torch.ones_like(peak), power), torch.ones_like(peak))


def lower(model: nn.Module, recipe: Recipe, *, seed: int = 0) -> nn.Module:
    """The model itself, with its linear layers under the recipe; one noise generator a layer."""
    found = [
        (n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.split(".")[-1] not in recipe.keep
    ]
    if not found:
        raise ValueError(f"{type(model).__name__} has no nn.Linear that the recipe does not keep as it is")
    for index, (name, linear) in enumerate(found):
        smooth, gate = recipe.smooth_swiglu and name.endswith("down_proj"), name.endswith(("gate_proj", "up_proj"))
        put(model, name, LowLinear(linear, recipe, seed=seed * 1000 + index, smooth=smooth, gate=gate))
    if recipe.nonlinear is not None:
        norms = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.RMSNorm | nn.LayerNorm)]
        for index, (name, norm) in enumerate(norms, start=len(found)):
            put(model, name, LowNorm(norm, recipe.nonlinear, seed=seed * 1000 + index))
    return model


def extra_flops(recipe: Recipe, *, inputs: int, outputs: int, rows: int) -> float:
    """FLOPs of a recipe over those of one layer's three products, 6 inputs outputs rows; rounding counts 2 a value,
    a scale of the tensor 1, noise 1, the smooth gradient 6 a weight.
    """
    operands = [
        (recipe.acts, rows * inputs, 2),
        (recipe.weights, inputs * outputs, 2),
        (recipe.grads, rows * outputs, 2),
    ]
    total = 0.0
    for cast, values, times in operands:
        if cast is None:
            continue
        times = times if recipe.grads else 1
        each = 2.0 + cast.tensor_scale + cast.stochastic
        each += rotation_flops(recipe.hadamard) / recipe.hadamard if recipe.hadamard else 0.0
        total += values * times * each
    total += 6 * inputs * outputs * bool(recipe.smooth_gradient)
    return total / (6 * inputs * outputs * rows)
