"""Training with all three products in 4 bits: the design space, and what each choice costs."""

from __future__ import annotations

from isoflop.levers.precision.training._cast import SCALES, Cast
from isoflop.levers.precision.training._layers import Recipe


def fp4_training(
    *, scale: str = "ue5m3", tensor_scale: bool = True, hadamard: bool = True, stochastic: bool = True,
    smooth_gradient: bool = False, group: int = 16,
) -> Recipe:  # fmt: skip
    """E2M1 in blocks of `group` for weights, inputs and gradients, in all three products.

    scale: format of the block scales, e8m0, e4m3 or ue5m3; tensor_scale: one number a tensor before them; hadamard:
    both operands rotated in blocks of `group`; stochastic: gradients are rounded so; smooth_gradient: gradients of
    weights times the slope of a smooth stand-in for rounding, instead of straight through.

    Source: Hu et al. 2025 (arXiv:2509.17791). Its corrections of the gradient for the scale's own
    derivative are not here; E8M0 scales are floored as arXiv:2310.10537 says.
    """
    if scale not in SCALES:
        raise ValueError(f"scale is {scale!r}; it can be {', '.join(SCALES)}")
    forward = Cast("fp4_e2m1", group, scale, tensor_scale)
    backward = Cast("fp4_e2m1", group, scale, tensor_scale, stochastic)
    return Recipe(
        forward, forward, backward, hadamard=group if hadamard else 0, smooth_gradient=5.0 if smooth_gradient else 0.0
    )
