"""Spectral norms of weights and of their updates at sqrt(fan_out / fan_in)."""

from __future__ import annotations

from isoflop.levers.train._rules import Place, Rule


def spectral(place: Place) -> Rule:
    """std = fan_in^-1/2 min(1, (fan_out / fan_in)^1/2); Adam's rate 1 / fan_in, here base width / fan_in.

    A Gaussian matrix of that std has spectral norm about (fan_out / fan_in)^1/2 within a factor of 2, and an Adam
    step, whose entries are about lr, lr (fan_in fan_out)^1/2. One-hot inputs have entries of size one and a constant
    rate. What adds to the stream is smaller by (2 depth)^1/2, as in `standard`; that is no part of the condition.
    Source: Yang, Simon and Bernstein 2023 (arXiv:2310.17813), condition 1 and section 4; constants from memory.
    """
    if place.role == "gain":
        return Rule(std=0.0, decay=0.0)
    if place.role == "scores":
        return Rule(std=0.0, multiplier=place.fan_in**-0.5)
    if place.role == "embedding":
        return Rule(std=1.0)
    shrink = (2 * place.depth) ** -0.5 if place.role == "branch" else 1.0
    std = place.fan_in**-0.5 * min(1.0, (place.fan_out / place.fan_in) ** 0.5) * shrink
    return Rule(std=std, lr=place.base_width / place.fan_in)
