"""Choices of parametrisation and architecture that a ladder holds fixed (needs no PyTorch)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from isoflop.levers.train._rules import DECAY_RULES, Place, Rule, parametrisation, with_decay

CHOICES = {
    "norm": ("rms", "scale"),
    "norm_place": ("pre", "post"),
    "attention": ("softmax", "relu", "relu_sum", "triadic"),
    "decay_rule": (None, *DECAY_RULES),
}


@dataclass(frozen=True)
class Design:
    """What of a model is not its size. The defaults are the ladder's own.

    parametrisation, base_width: see `_rules`; decay_rule: "independent" or "sqrt_width", for weight decay
    activation: of the gate, a name in `_activations.activation_names()`
    norm: "rms", or "scale" (ScaleNorm: one gain a site); norm_place: "pre" or "post"
    qk_norm: queries and keys of length sqrt(head size)
    fix_norm: rows of the tables of length 1, and sqrt(width) where they enter
    attention: "softmax"; "relu" (relu(scores) / keys seen); "relu_sum" (relu(scores), not divided);
        "triadic" (queries, keys and values change each other first, then softmax)
    residual_scale: c in x + c F(x); depth_scale: every branch times (2 depth)^-1/2, and none starts smaller
    long_skip: kappa: block i's output, times kappa^i, is added to the input of block depth - 1 - i (i from 0)
    """

    parametrisation: str = "standard"
    base_width: int = 64
    decay_rule: str | None = None
    activation: str = "silu"
    norm: str = "rms"
    norm_place: str = "pre"
    qk_norm: bool = False
    fix_norm: bool = False
    attention: str = "softmax"
    residual_scale: float = 1.0
    depth_scale: bool = False
    long_skip: float = 0.0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, and should be one of {', '.join(map(str, allowed))}"
                )
        parametrisation(self.parametrisation)
        if not (self.base_width >= 1 and 0 < self.residual_scale < math.inf and 0 <= self.long_skip < math.inf):
            raise ValueError("base_width is at least 1, residual_scale above 0, long_skip not below 0")

    def rule(self, place: Place) -> Rule:
        """The rule of a tensor, with this design's weight decay."""
        return with_decay(parametrisation(self.parametrisation)(place), place, self.decay_rule)


DESIGN_FIELDS = tuple(f.name for f in fields(Design))
