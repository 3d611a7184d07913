"""What is done to a gradient before the optimizer sees it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


@torch.no_grad()
def perp_grad(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient g of a tensor w by g - (g.w / w.w) w, scaled back to the size of g.

    What is taken out only scales the weights. Where w is 0, or nothing would be left, g stays.
    Source: Prieto et al. 2025 (arXiv:2501.04697); the scaling back is that of the authors' code.
    """
    for w in parameters:
        if w.grad is None:
            continue
        g = w.grad
        size = (w * w).sum()
        across = g - torch.where(size > 0, (g * w).sum() / size.clamp(min=torch.finfo(w.dtype).tiny), 0.0) * w
        before, after = g.norm(), across.norm()
        # Below rounding nothing but noise is left, and blown up it would be a step in a random direction.
        keep = after > 1e-5 * before
        g.copy_(torch.where(keep, across * (before / after.clamp(min=torch.finfo(w.dtype).tiny)), g))
