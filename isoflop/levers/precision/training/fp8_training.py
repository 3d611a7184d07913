"""Training with products in 8 bits."""

from __future__ import annotations

from isoflop.levers.precision.training._cast import Cast
from isoflop.levers.precision.training._layers import Recipe


def fp8_training(*, smooth: bool = True, moments: str = "fp8", nonlinear: int | None = None) -> Recipe:
    """E4M3 for weights and inputs, E5M2 for gradients, one scale a tensor from its own largest value (the paper takes
    it from earlier steps); `smooth`: Smooth-SwiGLU; moments: see `LowAdamW`. nonlinear: inputs of norms and of the gate
    in E4M3 too, so many values a scale (COAT's mixed granularity: 16; -1: one scale a tensor; None: as they are).

    Source: Micikevicius et al. 2022 (arXiv:2209.05433); Fishman et al. 2024 (arXiv:2409.12517); Xi et al. 2024
    (arXiv:2410.19313).
    """
    forward = Cast("fp8_e4m3")
    kept = None if nonlinear is None else Cast("fp8_e4m3", nonlinear)
    return Recipe(
        weights=forward, acts=forward, grads=Cast("fp8_e5m2"), smooth_swiglu=smooth, nonlinear=kept, moments=moments
    )
