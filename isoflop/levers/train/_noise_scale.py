"""The gradient noise scale from the micro-batches of a step: no pass more than the step takes anyway."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

WINDOW = 25  # measurements behind a curve row's noise scale: it moves while a model learns

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
Measurement = list[float]  # squared norms of the small and the big gradient, and their batches in tokens


def by_micro_batches(
    model: nn.Module, batch: Tensor, *, parts: int, objective: Objective
) -> tuple[Tensor, float, float]:
    """Set the gradients of a batch (windows, tokens), taken in `parts` of one size.

    objective: a batch -> (what is differentiated, what is reported), both means over it.
    Returns the mean of what is reported, the mean squared norm of the parts' gradients, and that of the whole's.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    whole = [torch.zeros_like(p) for p in parameters]
    reported, small = torch.zeros((), device=batch.device), 0.0
    for part in batch.chunk(parts):
        goal, value = objective(part)
        gradients = torch.autograd.grad(goal, parameters)
        small += _square(gradients) / parts
        for total, gradient in zip(whole, gradients, strict=True):
            total.add_(gradient, alpha=1 / parts)
        reported += value.detach() / parts
    for parameter, gradient in zip(parameters, whole, strict=True):
        parameter.grad = gradient
    return reported, small, _square(whole)


def _square(tensors: Sequence[Tensor]) -> float:
    return float(torch.nn.utils.get_total_norm(tensors)) ** 2


def noise_columns(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """What a curve row says of the noise scale: in tokens, the last `WINDOW` measurements' and its 90 % interval.

    noise_scale, noise_low, noise_high: tr(Sigma) / |G|^2, both averaged before one is divided by the other, and
    Fieller's interval; noise_latest: by running means with decay .9. See the meter `gradient_noise_scale`.
    An end that is infinite, or a noise scale that is, is None: the gradient is lost in its noise.
    """
    from isoflop.meters.gradient_noise_scale import gradient_noise_scale

    if len(measurements) < 2:
        return {}
    small, big, batch_small, batch_big = zip(*measurements, strict=True)
    found = gradient_noise_scale.function(small, big, batch_small, batch_big, decay=0.9)
    names = {"noise_scale": "noise_scale", "noise_low": "low", "noise_high": "high", "noise_latest": "latest"}
    figures = {name: float(found[key]) for name, key in names.items()}
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
