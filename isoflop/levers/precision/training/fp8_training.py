"""Training with products in 8 bits."""

from __future__ import annotations

from isoflop.levers.precision.training._cast import Cast
from isoflop.levers.precision.training._layers import Recipe


def fp8_training(*, smooth: bool = True, moments: str = "fp8") -> Recipe:
    """E4M3 for weights and inputs, E5M2 for gradients, one scale a tensor from its own largest value (the paper takes
    it from earlier steps); `smooth`: Smooth-SwiGLU; moments: see `LowAdamW`.

    Source: Micikevicius et al. 2022 (arXiv:2209.05433); Fishman et al. 2024 (arXiv:2409.12517).
    """
    forward = Cast("fp8_e4m3")
    return Recipe(weights=forward, acts=forward, grads=Cast("fp8_e5m2"), smooth_swiglu=smooth, moments=moments)
