"""Optimiser states in 8 bits with their range expanded to that of the format, and what a training keeps in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from isoflop.levers.precision._formats import get_format
from isoflop.levers.precision.training._cast import quick_round

_RANGE = {"fp8_e4m3": 448 / 2**-9, "fp8_e5m2": 57344 / 2**-16}  # largest over smallest positive value
_MOST = 32.0  # of the power, for groups whose values are all alike


def coat(x: Tensor, *, format: str = "fp8_e4m3", group: int = 128, expand: bool = True) -> Tensor:
    """x as it comes back from 8 bits, with dynamic range expansion by groups of the flattened tensor:

        g = sqrt(max|x| min|x|),   k = floor(8 log R / log(max|x| / min|x|)) / 8,   stored sign(x) (|x| / g)^k

    with R the range of the format; divided by the group's largest and read back with 1/k. Zeros stay zeros and do not
    count for the smallest. expand False: k = 1. The power is at least 1/8, which compresses wider ranges than R.

    Source: Xi et al. 2024 (arXiv:2410.19313), and its released kernel.
    """
    f = get_format(format)
    flat = x.reshape(-1)
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % group)).reshape(-1, group)
    size = blocks.abs()
    high = size.amax(dim=1, keepdim=True)
    some = torch.where(high > 0, high, torch.ones_like(high))
    unit = size / some
    if expand:
        low = torch.where(unit > 0, unit, torch.ones_like(unit)).amin(dim=1, keepdim=True)
        k = power(low, format)
        unit = unit**k
    back = quick_round(unit * f.largest, f) / f.largest
    if expand:
        back = back ** (1 / k)
    return (torch.copysign(back, blocks) * some * (high > 0)).reshape(-1)[: len(flat)].reshape(x.shape)


def power(low: Tensor, format: str = "fp8_e4m3") -> Tensor:
    """k of a group whose smallest value is `low` times its largest.

    The factor g^k of the paper cancels against the scale of the group, so it is not needed here.
    """
    wide = -torch.log(low.double())
    k = torch.floor(8 * torch.log(torch.tensor(_RANGE[format])).double() / wide.clamp(min=1e-12)) / 8
    return k.clamp(1 / 8, _MOST).to(low)


class LowAdamW(torch.optim.Optimizer):
    """AdamW (arXiv:1711.05101) whose two moments are rounded after every step.

    moments: "" keeps float32; "fp8" is E4M3 for the first and E5M2 for the second, one scale a tensor
    (arXiv:2409.12517); "fp8_group" is E4M3 for both in groups of 128; "coat" is that, expanded.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float = 0.0, betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8,
        weight_decay: float = 0.0, moments: str = "",
    ) -> None:  # fmt: skip
        if moments not in ("", "fp8", "fp8_group", "coat"):
            raise ValueError(f"moments is {moments!r}; it can be '', fp8, fp8_group or coat")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.moments = moments

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, group)

    def _move(self, p: Tensor, group: dict[str, Any]) -> None:
        state, (b1, b2) = self.state[p], group["betas"]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        state["step"] += 1
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.lerp_(p.grad, 1 - b1)
        v.mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
        p.mul_(1 - group["lr"] * group["weight_decay"])
        mean, root = m / (1 - b1 ** state["step"]), (v / (1 - b2 ** state["step"])).sqrt()
        p.sub_(group["lr"] * mean / (root + group["eps"]))
        if self.moments:
            m.copy_(stored(m, self.moments, first=True))
            v.copy_(stored(v, self.moments, first=False))


def stored(x: Tensor, moments: str, *, first: bool) -> Tensor:
    """A moment as it comes back from storage."""
    if moments == "fp8":
        return coat(x, format="fp8_e4m3" if first else "fp8_e5m2", group=max(1, x.numel()), expand=False)
    return coat(x, expand=moments == "coat")


def memory(
    *, width: int, depth: int, hidden: int, vocab: int, tokens: int, method: str = "bf16", group: int = 128,
    act_group: int = 16,
) -> dict[str, float]:  # fmt: skip
    """Bytes of a training of a pre-norm SwiGLU transformer, tokens at once on the device, without recomputation.

    method: "bf16" (float32 moments), "fp8_matmul" (only what enters products is in 8 bits, a copy more) or "coat"
    (moments in 8 bits; what enters products by tensor, what enters norms, attention and the gate by groups of
    act_group). Weights and gradients have 16 bits, with a float32 copy of the weights. Returns weights, gradients,
    moments, activations, total. The list of activations is ours: per layer, the inputs of two norms, four products
    (the gate's two share one), attention's q, k, v, the gate's two.

    Source of the mixed granularity: arXiv:2410.19313.
    """
    per = {
        "bf16": (2.0, 2.0, 8.0),
        "fp8_matmul": (2.0, 1.0, 8.0),
        "coat": (1 + 2 / act_group, 1.0, 2 * (1 + 8 / group)),
    }
    if method not in per:
        raise ValueError(f"method is {method!r}; it can be {', '.join(per)}")
    other, product, moments = per[method]
    weights = depth * (4 * width**2 + 3 * width * hidden + 2 * width) + (vocab + 1) * width
    acts = tokens * depth * (product * (3 * width + hidden) + other * (5 * width + 2 * hidden))
    parts = {"weights": 6.0 * weights, "gradients": 2.0 * weights, "moments": moments * weights, "activations": acts}
    return {**parts, "total": sum(parts.values())}
