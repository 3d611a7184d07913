"""A linear layer in simulated low precision: its weights are what the format can hold, its inputs are rounded as they
come.

The arithmetic itself is that of the model (float32 or what it was): nothing here is faster than before.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.precision._blocks import Scheme, decode, encode, quantise, scales, scheme, split
from isoflop.levers.precision._formats import get_format
from isoflop.levers.precision._hadamard import rotate, rotation_flops

EXTRAS = ("scale", "zero", "divide", "shift", "limit")
RANGES = ("token", "tensor", "static", "channel")


@dataclass(frozen=True)
class Acts:
    """How the inputs of a layer are rounded.

    range: what shares a scale: "token" (each row, as it comes), "tensor" (all rows, as they come), "static" (all rows,
    by the range of the calibration), "channel" (each column over all rows, as they come). smooth: with a number,
    channels sorted by their maxima are divided in groups of so many by the group's maximum before rounding, and
    multiplied back.
    """

    format: str
    range: str = "token"
    symmetric: bool = True
    smooth: int = 0

    def __post_init__(self) -> None:
        scheme(self.format)
        if self.range not in RANGES:
            raise ValueError(f"range of activations is {self.range!r}; it can be {', '.join(RANGES)}")

    def bits(self, length: int) -> float:
        """Bits per value of a row, scales included where a row has its own."""
        how = self._scheme()
        if how.group > 0:
            return how.fitted(length).bits(length)
        return how.bits(length) if self.range == "token" else float(get_format(how.format).bits)

    def _scheme(self) -> Scheme:
        how = scheme(self.format, symmetric=self.symmetric)
        return how if how.group > 0 else replace(how, scale="fp32")

    def round(self, x: Tensor, limit: Tensor | None = None) -> Tensor:
        """x (..., channels) as it would be stored; limit: (low, high) of the calibration, for the range "static"."""
        if self.smooth:
            level = shared_maxima(x, self.smooth)
            return replace(self, smooth=0).round(x / level, limit) * level
        how = self._scheme()
        if how.group > 0:
            return quantise(x, how.fitted(x.shape[-1]))
        if self.range == "channel":
            return quantise(x.reshape(-1, x.shape[-1]).T, how).T.reshape(x.shape)
        if self.range == "static":
            return _in_range(x, how, limit)
        return quantise(x, replace(how, group=0 if self.range == "token" else -1))


def limits(x: Tensor) -> Tensor:
    """(lowest, highest): the static range of inputs."""
    return torch.stack((x.min(), x.max()))


def _in_range(x: Tensor, how: Scheme, limit: Tensor | None) -> Tensor:
    """x rounded with one scale from a range known beforehand."""
    if limit is None:
        raise ValueError("a static range needs the limits that calibration found")
    s, z = scales(limit.to(x), replace(how, group=0))
    return decode(encode(x, s, z, how), s, z)


def shared_maxima(x: Tensor, group: int) -> Tensor:
    """Per channel: the largest |x| over all rows among the `group` channels next to it in order of their maxima.

    Source: Rotated Runtime Smooth (arXiv:2409.20361), section on runtime smooth; the released quant_utils.py.
    """
    peaks = x.detach().abs().reshape(-1, x.shape[-1]).amax(dim=0)
    order = peaks.argsort(descending=True)
    size = Scheme("int8", group).fitted(len(peaks)).group
    level = split(peaks[order], size).amax(dim=-1, keepdim=True).expand(-1, size).reshape(-1)
    out = torch.empty_like(peaks)
    out[order] = level
    return torch.where(out > 0, out, torch.ones_like(out))


class QuantLinear(nn.Module):
    """y = round(rotate((x - shift) / divide)) W^T + b, each step only where it is set.

    weight is the rounded one, already multiplied by `divide` and rotated; scale and zero (rows, groups, 1) are what its
    codes have, weight = scale (code - zero). limit: range of the calibration (low, high).
    """

    weight: Tensor
    bias: Tensor | None
    scale: Tensor | None
    zero: Tensor | None
    divide: Tensor | None
    shift: Tensor | None
    limit: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, *, stored: Scheme, acts: Acts | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        for name in EXTRAS:
            self.register_buffer(name, None)
        self.stored, self.acts, self.rotated = stored, acts, False

    @property
    def in_features(self) -> int:
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        return self.weight.shape[0]

    def prepare(self, x: Tensor) -> Tensor:
        """What the product is taken with."""
        if self.shift is not None:
            x = x - self.shift
        if self.divide is not None:
            x = x / self.divide
        if self.rotated:
            x = rotate(x)
        return self.acts.round(x, self.limit) if self.acts else x

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.prepare(x), self.weight, self.bias)

    def facts(self) -> dict[str, Any]:
        """How it rounds, as JSON values; `empty` is the way back."""
        extras = {name: list(value.shape) for name in EXTRAS if (value := getattr(self, name)) is not None}
        return {
            "shape": list(self.weight.shape), "bias": self.bias is not None, "stored": asdict(self.stored),
            "acts": asdict(self.acts) if self.acts else None, "rotated": self.rotated, "extras": extras,
        }  # fmt: skip

    @classmethod
    def empty(cls, facts: dict[str, Any]) -> QuantLinear:
        """A layer of these facts with zeros, to be filled."""
        bias = torch.zeros(facts["shape"][0]) if facts["bias"] else None
        acts = Acts(**facts["acts"]) if facts["acts"] else None
        made = cls(torch.zeros(facts["shape"]), bias, stored=Scheme(**facts["stored"]), acts=acts)
        made.rotated = facts["rotated"]
        for name, shape in facts["extras"].items():
            setattr(made, name, torch.zeros(shape))
        return made

    def extra_flops(self) -> int:
        """FLOPs per token that the plain layer has not: rounding counts as two per input, smoothing as three more."""
        n = self.in_features
        steps = n * ((self.shift is not None) + (self.divide is not None))
        rounding = (2 + 3 * (self.acts.smooth > 0)) * n if self.acts else 0
        return steps + (rotation_flops(n) if self.rotated else 0) + rounding

    def extra_bytes(self) -> int:
        """Bytes of run-time vectors, in 16 bits: what is subtracted, divided by, and the limits."""
        return sum(2 * t.numel() for t in (self.divide, self.shift, self.limit) if t is not None)
