"""AdaSCALE's percentile of each row: how far the largest features move under a small change of the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isoflop.levers.activations.ood._arrays import Array, double, is_torch, ranks, where


@dataclass(frozen=True)
class Calibration:
    """Shifts of known inputs, sorted, and how they were made.

    moved, valued: shares of the units, by size of feature, whose movement and whose perturbed value are summed;
    movement counts `weigh` times. low, high: percentiles between which a row's lies.
    """

    shifts: tuple[float, ...]
    moved: float = 0.01
    valued: float = 0.05
    weigh: float = 10.0
    low: float = 60.0
    high: float = 85.0


def calibrate(features: Array, *, perturbed: Array, **settings: float) -> Calibration:
    """The calibration from features of known inputs (never trained on) and of the same inputs perturbed.

    settings: fields of `Calibration`. Raises ValueError where the percentiles are out of order.
    """
    made = Calibration((), **settings)
    if not 0 <= made.low <= made.high < 100:
        raise ValueError(f"low={made.low}, high={made.high}: percentiles from 0 to below 100, low first")
    shifts = shift(features, perturbed=perturbed, calibration=made)
    return Calibration(tuple(sorted(float(x) for x in shifts)), **settings)


def shift(features: Array, *, perturbed: Array, calibration: Calibration) -> Array:
    """Q' = sum over the valued share of relu(f_pert) + weigh x sum over the moved share of |f - f_pert|

    Source: Regmi 2025 (AdaSCALE), from its code; which share belongs to which sum is taken from there alike in
    calibration and in use, which one published snapshot does not do.
    """
    f, g = double(features), double(perturbed)
    if f.shape != g.shape:
        raise ValueError(f"features {tuple(f.shape)} and perturbed features {tuple(g.shape)} do not fit")
    place, n = ranks(f), f.shape[1]
    moved = where(place < max(1, round(n * calibration.moved)), abs(f - g), 0.0).sum(-1)
    valued = where((place < max(1, round(n * calibration.valued))) & (g > 0), g, 0.0).sum(-1)
    return valued + calibration.weigh * moved


def percentiles(features: Array, *, perturbed: Array, calibration: Calibration) -> Array:
    """p(x) = low + (1 - u) (high - low), u the share of known inputs with at most the row's shift."""
    if not calibration.shifts:
        raise ValueError("the calibration holds no shifts; make it with calibrate(features, perturbed=...)")
    q = shift(features, perturbed=perturbed, calibration=calibration)
    known = np.asarray(calibration.shifts)
    u = np.searchsorted(known, q.detach().cpu().numpy() if is_torch(q) else q, side="right") / len(known)
    p = calibration.low + (1 - u) * (calibration.high - calibration.low)
    return q.new_tensor(p) if is_torch(q) else p


def perturb(model: Any, x: Any, *, eps: float = 0.5, share: float = 0.05) -> Any:
    """x + eps sign(g) on the `share` of each input's numbers with the smallest |g|, g the gradient of the top logit.

    model: inputs -> logits, in evaluation mode. eps: in units of the inputs as the model takes them (after
    normalising). Needs PyTorch. Source: Regmi 2025 (AdaSCALE), from its code.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ImportError("perturb needs PyTorch: pip install 'isoflop[torch]'") from error
    with torch.enable_grad():
        at = x.detach().clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(model(at).amax(dim=-1).sum(), at)
    flat = slope.flatten(1)
    few = flat.abs().argsort(dim=1, stable=True)[:, : max(1, int(flat.shape[1] * share))]
    mask = torch.zeros_like(flat).scatter_(1, few, 1.0)
    return (x + eps * (flat.sign() * mask).view_as(x)).detach()
