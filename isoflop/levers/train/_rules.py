"""What a parametrisation is: for each tensor of a model, how it starts, how it is used and how fast it learns.

A parametrisation is one function, Place -> Rule, in the file of its name: `standard`, `mup`, `spectral`,
`unit_scaling`, `u_mup`, or one of your own, as "file.py:name".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from isoflop import _find

ROLES = ("embedding", "input", "hidden", "branch", "readout", "scores", "gain")
DECAY_RULES = ("independent", "sqrt_width")


@dataclass(frozen=True)
class Place:
    """Where a tensor stands.

    role: "embedding" (one-hot inputs), "input" (real inputs), "hidden", "branch" (hidden, and adds to the residual
        stream), "readout", "gain" (vectors), "scores" (no tensor: its multiplier scales attention's scores, and
        fan_in is the head size)
    fan_in, fan_out: numbers summed over, and made; width, base_width: of the model, and where rates were found
    depth: residual blocks
    """

    role: str
    fan_in: int
    fan_out: int
    width: int
    base_width: int
    depth: int = 1

    @property
    def ratio(self) -> float:
        """Width over base width."""
        return self.width / self.base_width


@dataclass(frozen=True)
class Rule:
    """How a tensor starts (std), is used (multiplier), and learns (lr, decay: factors on rate and weight decay).

    unit: backward passes have scales of their own, so that gradients have size one (arXiv:2303.11257).
    """

    std: float
    multiplier: float = 1.0
    lr: float = 1.0
    decay: float = 1.0
    unit: bool = False


Parametrisation = Callable[[Place], Rule]


def parametrisation(name: str) -> Parametrisation:
    """The parametrisation called `name`, or "file.py:name". Raises ValueError for any other."""
    known = _find.names("levers/train")
    if ".py:" not in name and name not in known:
        raise ValueError(f"unknown parametrisation {name!r}; known: {', '.join(known)}, or FILE.py:NAME")
    found: Parametrisation = _find.get("levers/train", name)
    return found


def with_decay(rule: Rule, place: Place, decay_rule: str | None) -> Rule:
    """The rule with another weight decay for matrices, as AdamW counts it (shrinking by lr x decay a step).

    independent: decay = 1 / lr, so that lr x decay does not depend on width.
    sqrt_width: decay = sqrt(ratio) for hidden matrices, where lr falls as 1 / ratio (arXiv:2510.15262,
        abstract: sqrt(d)).
    """
    if decay_rule is None or rule.decay == 0:
        return rule
    if decay_rule == "independent":
        return replace(rule, decay=1 / rule.lr)
    return replace(rule, decay=place.ratio**0.5 if place.role in ("hidden", "branch") else 1.0)
