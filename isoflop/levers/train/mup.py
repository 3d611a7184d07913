"""Maximal update parametrisation, for Adam."""

from __future__ import annotations

from dataclasses import replace

from isoflop.levers.train._rules import Place, Rule
from isoflop.levers.train._shape import default_heads
from isoflop.levers.train.standard import standard


def mup(place: Place) -> Rule:
    """Hidden matrices learn at lr / ratio, and the readout is multiplied by 1 / ratio; all else as `standard`.

    Equal to `standard` where the width is the base width. Attention scores are divided by the head size, times its
    root at the base width.
    Source: Yang et al. 2022 (arXiv:2203.03466), table 8, Adam.
    """
    rule = standard(place)
    if place.role == "scores":
        return replace(rule, multiplier=(place.base_width / default_heads(place.base_width)) ** 0.5 / place.fan_in)
    if place.role in ("hidden", "branch"):
        return replace(rule, lr=1 / place.ratio)
    return replace(rule, multiplier=1 / place.ratio) if place.role == "readout" else rule
