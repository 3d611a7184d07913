"""Everything of size one at the start: weights, activations and gradients."""

from __future__ import annotations

from isoflop.levers.train._rules import Place, Rule


def unit_scaling(place: Place) -> Rule:
    """Weights N(0, 1), used times fan_in^-1/2; every gradient has a scale of its own; one rate for all.

    Source: Blake et al. 2023 (arXiv:2303.11257), table 1.
    """
    if place.role == "gain":
        return Rule(std=0.0, decay=0.0, unit=True)
    multiplier = 1.0 if place.role == "embedding" else place.fan_in**-0.5
    return Rule(std=1.0, multiplier=multiplier, unit=True)
