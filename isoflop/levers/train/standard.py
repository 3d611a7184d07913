"""The ladder's own parametrisation."""

from __future__ import annotations

from isoflop.levers.train._rules import Place, Rule


def standard(place: Place) -> Rule:
    """std = fan_in^-1/2 (smaller by (2 depth)^1/2 where it adds to the stream), tables 0.02; one rate for all.

    Source: the usual start of pre-norm transformers (GPT-2); parameter-wise constant Adam rates.
    """
    if place.role == "gain":
        return Rule(std=0.0, decay=0.0)
    if place.role == "scores":
        return Rule(std=0.0, multiplier=place.fan_in**-0.5)
    if place.role in ("embedding", "readout"):
        return Rule(std=0.02)
    return Rule(std=(place.fan_in * (2 * place.depth if place.role == "branch" else 1)) ** -0.5)
