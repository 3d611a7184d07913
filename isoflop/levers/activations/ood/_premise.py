"""How well a score tells two sets apart, and whether scaling can help at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isoflop.levers.activations.ood._arrays import Array, double, is_torch, ratio
from isoflop.levers.activations.ood.energy import energy
from isoflop.levers.activations.ood.scale import scale


def _numbers(x: Any) -> np.ndarray:
    return np.asarray(x.detach().cpu() if is_torch(x) else x, float)


def auroc(known: Any, other: Any) -> float:
    """Probability that a known row scores above another one, ties half."""
    k, o = np.sort(_numbers(known)), _numbers(other)
    if not len(k) or not len(o):
        raise ValueError("auroc needs scores of both sets")
    above = len(k) - np.searchsorted(k, o, side="right")
    ties = np.searchsorted(k, o, side="right") - np.searchsorted(k, o, side="left")
    return float((above + ties / 2).mean() / len(k))


def fpr95(known: Any, other: Any) -> float:
    """Share of the other rows that score at least as high as the threshold that 95 % of the known rows reach."""
    k = np.sort(_numbers(known))
    return float((_numbers(other) >= k[int(np.floor(0.05 * len(k)))]).mean())


@dataclass(frozen=True)
class Premise:
    """auroc: of S alone, known against other rows; scaling by S helps only where it is above a half."""

    auroc: float
    percentile: float

    @property
    def holds(self) -> bool:
        return self.auroc > 0.5

    def __str__(self) -> str:
        if self.holds:
            return f"S tells known from other rows (AUROC {self.auroc:.3f}): scaling can help"
        return f"S is not larger on known rows (AUROC {self.auroc:.3f}): scaling would hurt, the plain energy is used"


def premise(known: Array, other: Array, *, percentile: float = 85.0) -> Premise:
    """AUROC of S(f, p) between features of known validation rows and of cheap stand-ins for other data, such as the
    same images with their pixels shuffled.

    SCALE rests on S being larger on known data. Source: Xu et al. 2024 (arXiv 2310.00227); the check is ours.
    """
    return Premise(auroc(ratio(double(known), percentile), ratio(double(other), percentile)), percentile)


def guarded_scale(features: Array, *, weight: Array, bias: Array, premise: Premise) -> Array:
    """SCALE where its premise holds, else the plain energy."""
    if premise.holds:
        return scale(features, weight=weight, bias=bias, percentile=premise.percentile)
    return energy(features, weight=weight, bias=bias)
