"""Rounding operands of a product along the axis that is summed over, in blocks, for training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.levers.precision._blocks import Scheme, scales, split
from isoflop.levers.precision._formats import Format, get_format, round_to
from isoflop.levers.precision._hadamard import rotate

SCALES = {"e8m0": "e8m0", "e4m3": "fp8_e4m3", "ue5m3": "ue5m3"}


@dataclass(frozen=True)
class Cast:
    """How one kind of operand is rounded.

    format, group: element format, and how many values along the summed axis share a scale (0: all of them, -1: the
    whole tensor). scale: "fp32", or a format of few bits for the scales: "e8m0", "e4m3", "ue5m3".
    tensor_scale: the tensor is first divided by one number, so that its largest value meets the top of both formats.
    stochastic: rounding up with the probability of the fraction, instead of to nearest.
    """

    format: str
    group: int = -1
    scale: str = "fp32"
    tensor_scale: bool = False
    stochastic: bool = False

    def __post_init__(self) -> None:
        get_format(self.format)
        if self.scale != "fp32" and self.scale not in SCALES:
            raise ValueError(f"scale is {self.scale!r}; it can be fp32, {', '.join(SCALES)}")

    def round(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """x (..., summed axis) as it would be stored. Stochastic rounding draws from the generator."""
        length = x.shape[-1]
        blocks = _blocks(x, self.group)
        noise = torch.rand(blocks.shape, generator=generator).to(blocks) if self.stochastic else None
        rounded = self._plain_round(blocks, noise) if self.scale == "fp32" else self._scaled_round(blocks, noise)
        return _joined(rounded, x.shape, length)

    def _plain_round(self, blocks: Tensor, noise: Tensor | None) -> Tensor:
        f = get_format(self.format)
        s = blocks.abs().amax(dim=-1, keepdim=True) / min(f.largest, -f.lowest)
        s = torch.where(s > 0, s, torch.ones_like(s))
        if f.kind == "float":
            return quick_round(blocks / s, f, noise=noise) * s
        return round_to(blocks / s, f, noise=noise).clamp(min=-f.largest) * s

    def _scaled_round(self, blocks: Tensor, noise: Tensor | None) -> Tensor:
        f, whole = get_format(self.format), self._whole(blocks)
        blocks = blocks / whole
        amax = blocks.abs().amax(dim=-1, keepdim=True)
        if self.scale == "e8m0":
            s = scales(blocks, Scheme(self.format, 0, scale="e8m0"))[0]
        else:
            s = round_to(amax / f.largest, SCALES[self.scale])
        safe = torch.where(s > 0, s, torch.ones_like(s))
        return quick_round(blocks / safe, f, noise=noise) * s * whole

    def _whole(self, blocks: Tensor) -> Tensor:
        """The tensor's own scale; 1 without one. With E8M0 the largest block then ends at a power of two."""
        amax = blocks.abs().amax()
        if not self.tensor_scale or not float(amax) > 0:
            return torch.ones_like(amax)
        f = get_format(self.format)
        top = 1.0 if self.scale == "e8m0" else get_format(SCALES[self.scale]).largest
        return amax / (f.largest * top)

    def bits(self) -> float:
        """Bits per value with the block's scale; that of a whole tensor is left out."""
        f = get_format(self.format)
        shared = 32 if self.scale == "fp32" else 8
        return f.bits + (shared / self.group if self.group > 0 else 0.0)


def quick_round(x: Tensor, f: Format, *, noise: Tensor | None = None) -> Tensor:
    """What `round_to` makes of finite float32 numbers, for floats with a sign and a mantissa: several times faster, as
    the step is read off the bits of the exponent.
    """
    power = (x.contiguous().view(torch.int32) & 0x7F800000).view(torch.float32)
    step = power.clamp(min=2.0**f.least) * 2.0**-f.mantissa
    if noise is None:
        rounded = torch.round(x / step) * step
    else:
        size = (x / step).abs()
        low = size.floor()
        rounded = torch.copysign((low + (noise < size - low)) * step, x)
    return rounded.clamp(f.lowest, f.largest)


def _blocks(x: Tensor, group: int) -> Tensor:
    if group == -1:
        return x.reshape(1, 1, -1)
    short = -x.shape[-1] % group if group else 0
    return split(F.pad(x, (0, short)) if short else x, group)


def _joined(blocks: Tensor, shape: torch.Size, length: int) -> Tensor:
    if blocks.numel() == math.prod(shape):
        return blocks.reshape(shape)
    return blocks.reshape(*shape[:-1], -1)[..., :length]


def mixed(x: Tensor, size: int) -> Tensor:
    """x with each `size` neighbours of the last axis rotated; zeros fill up. Products stay what they were."""
    short = -x.shape[-1] % size
    padded = F.pad(x, (0, short)) if short else x
    made: Tensor = rotate(padded.reshape(*padded.shape[:-1], -1, size))
    return made.reshape(padded.shape)


def slope(x: Tensor, cast: Cast, power: float) -> Tensor:
    """Derivative of a smooth stand-in for rounding: (1/p) |2 u - 1|^(1/p - 1), at most 3, u where x lies in its step.

    Source: Wang et al. 2025 (arXiv:2501.17116), the baseline of arXiv:2509.17791; p = 5 and the limit are from memory.
    """
    blocks = _blocks(x, cast.group)
    f = get_format(cast.format)
    s = blocks.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30) / f.largest
    grid = torch.tensor(sorted({float(v) for v in f.values}), dtype=x.dtype)
    inside = (blocks / s).clamp(float(grid[0]), float(grid[-1]))
    above = torch.searchsorted(grid, inside).clamp(1, len(grid) - 1)
    u = (inside - grid[above - 1]) / (grid[above] - grid[above - 1])
    made = ((2 * u - 1).abs().clamp(min=1e-6) ** (1 / power - 1) / power).clamp(max=3.0)
    return _joined(made, x.shape, x.shape[-1])


def generator_of(seed: int) -> torch.Generator:
    """A generator of one's own."""
    return torch.Generator().manual_seed(seed)
