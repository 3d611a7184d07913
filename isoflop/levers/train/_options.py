"""How a ladder takes its steps, beyond the plain one, and what it watches (needs no PyTorch)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

CHOICES = {"loss_kind": ("softmax", "stablemax"), "batch": ("fixed", "adaptive")}


@dataclass(frozen=True)
class Options:
    """What of a training is not its schedule. The defaults are the ladder's own, and cost nothing.

    noise_every, micro_batches: every so many updates (0: never) the batch is taken in so many parts, and the curve
        has the gradient noise scale in tokens (see `_noise_scale`)
    watch: the curve has the largest attention logit, log Z and the largest logit; the row, what went wrong (where
        attention is a softmax)
    loss_kind: "softmax", or "stablemax" (see `_losses`); z_loss: so many times mean(log Z)^2 is added (1e-4 is usual)
    perp_grad: gradients without the part that only scales the weights
    batch: "fixed", or "adaptive": whole multiples of batch_tokens, up to batch_most of them, that grow with the norm
        test at batch_theta (see `_batch`)
    """

    noise_every: int = 0
    micro_batches: int = 4
    watch: bool = False
    loss_kind: str = "softmax"
    z_loss: float = 0.0
    perp_grad: bool = False
    batch: str = "fixed"
    batch_theta: float = 0.7
    batch_most: int = 64

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, and should be one of {', '.join(allowed)}")
        if self.noise_every < 0 or self.micro_batches < 2 or self.batch_most < 1:
            raise ValueError("noise_every is at least 0, micro_batches at least 2, batch_most at least 1")
        if not 0 <= self.z_loss < math.inf or not 0 < self.batch_theta < 1:
            raise ValueError(f"z_loss {self.z_loss} is not below 0, batch_theta {self.batch_theta} between 0 and 1")
        if self.batch == "adaptive" and not self.noise_every:
            raise ValueError('batch = "adaptive" needs noise_every, how often its test is made, in updates')
        if self.z_loss and self.loss_kind != "softmax":
            raise ValueError(f"z_loss is for the softmax, whose log Z it holds near 0; loss_kind is {self.loss_kind!r}")

    @property
    def adaptive(self) -> bool:
        return self.batch == "adaptive"


OPTION_FIELDS = tuple(f.name for f in fields(Options))
