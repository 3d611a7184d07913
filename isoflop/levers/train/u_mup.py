"""Unit scaling with the width rules of maximal updates."""

from __future__ import annotations

from isoflop.levers.train._rules import Place, Rule


def u_mup(place: Place) -> Rule:
    """Weights N(0, 1); multiplier, and factor on Adam's rate:

        embedding, input   1, fan_in^-1/2     width^-1/2
        hidden             fan_in^-1/2        (fan_in depth)^-1/2
        readout            1 / fan_in         1
        gain               1                  depth^-1/2

    Weight decay is independent of the rate. Attention scores are divided by the head size. Residual branches are
    weighed so that each adds as much to the stream (`_units.residual_weights`).
    Source: Blake et al. 2024 (arXiv:2407.17465), table 2 and appendix G.
    """
    if place.role == "gain":
        return Rule(std=0.0, lr=place.depth**-0.5, decay=0.0, unit=True)
    if place.role in ("readout", "scores"):
        return Rule(std=1.0, multiplier=1 / place.fan_in, unit=True)
    if place.role in ("embedding", "input"):
        multiplier, lr = 1.0 if place.role == "embedding" else place.fan_in**-0.5, place.fan_out**-0.5
    else:
        multiplier, lr = place.fan_in**-0.5, (place.fan_in * place.depth) ** -0.5
    return Rule(std=1.0, multiplier=multiplier, lr=lr, decay=1 / lr, unit=True)
