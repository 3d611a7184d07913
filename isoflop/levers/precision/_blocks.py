"""Values that share a scale: whole numbers with or without a zero point, floats, MX and NV blocks; bits with all
overhead.

symmetric      x ~ s c,        s = clip max|x| / largest code
asymmetric     x ~ s (c - z),  s = clip (max - min) / (2^b - 1), zero always among the values
scale "e8m0"   s = 2^(floor(log2 max|x|) - floor(log2 largest)), arXiv:2310.10537, section 5.2.1
scale "e4m3", "ue5m3"   s = t q(max|x| / (largest t)), q that format, t = max|tensor| / (largest largest_q): NVFP4
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from isoflop.levers.precision._formats import Format, get_format, round_to
from isoflop.levers.precision._rounding import Array, library

_SCALES = {"fp32": "fp32", "fp16": "fp16", "e8m0": "e8m0", "e4m3": "fp8_e4m3", "ue5m3": "ue5m3"}


@dataclass(frozen=True)
class Scheme:
    """How values are stored: the format, and how many of the last axis share a scale.

    group: so many values; 0: the whole last axis; -1: the whole tensor. scale: format of the scales, one of fp32, fp16,
    e8m0, e4m3, ue5m3. symmetric False: whole numbers with a zero point of as many bits.
    """

    format: str
    group: int = 0
    symmetric: bool = True
    scale: str = "fp16"

    def __post_init__(self) -> None:
        f = get_format(self.format)
        if self.scale not in _SCALES:
            raise ValueError(f"scale is {self.scale!r}; it can be {', '.join(_SCALES)}")
        if not self.symmetric and (f.kind != "int" or self.scale not in ("fp32", "fp16")):
            raise ValueError(f"a zero point needs whole numbers and a scale of fp32 or fp16, not {self}")

    def bits(self, length: int, rows: int = 1) -> float:
        """Bits per value of a tensor (rows, length), scales and zero points included."""
        f, s = get_format(self.format), get_format(_SCALES[self.scale])
        share = {0: length, -1: rows * length}.get(self.group, self.group)
        two_levels = 32 / (rows * length) if self.scale in ("e4m3", "ue5m3") else 0.0
        return f.bits + (s.bits + (0 if self.symmetric else f.bits)) / share + two_levels

    def fitted(self, length: int) -> Scheme:
        """With the largest group that divides `length` and is no larger than asked for."""
        if self.group <= 0 or length % self.group == 0:
            return self
        return replace(self, group=max(g for g in range(1, min(self.group, length) + 1) if length % g == 0))


NAMED = {
    "mxfp4": Scheme("fp4_e2m1", 32, scale="e8m0"),
    "mxfp6_e2m3": Scheme("fp6_e2m3", 32, scale="e8m0"),
    "mxfp6_e3m2": Scheme("fp6_e3m2", 32, scale="e8m0"),
    "mxfp8_e4m3": Scheme("fp8_e4m3", 32, scale="e8m0"),
    "mxfp8_e5m2": Scheme("fp8_e5m2", 32, scale="e8m0"),
    "mxint8": Scheme("int8", 32, scale="e8m0"),
    "nvfp4": Scheme("fp4_e2m1", 16, scale="e4m3"),
    "nvfp4_ue5m3": Scheme("fp4_e2m1", 16, scale="ue5m3"),
}


def scheme(name: str | Scheme, *, group: int = 0, symmetric: bool = True) -> Scheme:
    """The scheme of a block format's name, or that of a format with this group. Raises LookupError for another name."""
    if isinstance(name, Scheme):
        return name
    if name in NAMED:
        return NAMED[name]
    return Scheme(name, group, symmetric)


def quantise(x: Array, how: Scheme, *, clip: Array | float = 1.0, noise: Array | None = None) -> Array:
    """x rounded to what the scheme can hold, as an array like x: the simulated value of what would be stored.

    clip: share of the range that is kept, one number or an array over (..., groups, 1). noise: stochastic rounding.
    Raises ValueError where the last axis is no multiple of the group.
    """
    blocks = split(x, how.group)
    s, z = scales(blocks, how, clip=clip)
    noise = split(noise, how.group) if noise is not None else None
    return decode(encode(blocks, s, z, how, noise=noise), s, z).reshape(x.shape)


def split(x: Array, group: int) -> Array:
    """x as (..., groups, values of a group)."""
    if group == -1:
        return x.reshape(*(1 for _ in x.shape), -1)
    if group == 0:
        return x[..., None, :]
    if x.shape[-1] % group:
        raise ValueError(f"the last axis has {x.shape[-1]} values, no multiple of the group {group}")
    return x.reshape(*x.shape[:-1], -1, group)


def scales(blocks: Array, how: Scheme, *, clip: Array | float = 1.0) -> tuple[Array, Array | None]:
    """Scale of each block (..., groups, 1), and its zero point where there is one."""
    f = get_format(how.format)
    if not how.symmetric:
        high, low = _most(blocks).clip(0.0) * clip, -_most(-blocks).clip(0.0) * clip
        s = stored_scale((high - low) / (2**f.bits - 1), how)
        return s, -library(s).round(low / _safe(s))
    amax = _most(library(blocks).abs(blocks)) * clip
    if how.scale == "e8m0":
        return _power_scale(amax, f), None
    if how.scale in ("e4m3", "ue5m3"):
        return _two_level(amax, f, get_format(_SCALES[how.scale])), None
    return stored_scale(amax / _end(f), how), None


def encode(blocks: Array, s: Array, z: Array | None, how: Scheme, *, noise: Array | None = None) -> Array:
    """Codes of the values, as numbers; a block whose scale is zero has zeros."""
    f = get_format(how.format)
    scaled = blocks / _safe(s)
    if z is not None:
        return (round_to(scaled, _wide(f), noise=noise) + z).clip(0.0, 2.0**f.bits - 1)
    codes = round_to(scaled, f, noise=noise)
    return codes.clip(-f.largest) if f.kind == "int" else codes


def decode(codes: Array, s: Array, z: Array | None) -> Array:
    """Values of codes."""
    return (codes - z) * s if z is not None else codes * s


def _wide(f: Format) -> Format:
    """Whole numbers without an end: the zero point shifts them before they are cut."""
    return replace(f, bits=30)


def _end(f: Format) -> float:
    """The code that the largest value goes to: the range is used evenly on both sides."""
    return min(f.largest, -f.lowest)


def _most(x: Array) -> Array:
    return x.max(axis=-1, keepdims=True) if library(x) is np else x.amax(dim=-1, keepdim=True)


def _safe(s: Array) -> Array:
    xp = library(s)
    return xp.where(s > 0, s, xp.ones_like(s))


def stored_scale(s: Array, how: Scheme) -> Array:
    """The scale as its format holds it; a positive one never becomes zero."""
    if how.scale == "fp32":
        return s
    xp, f = library(s), get_format(how.scale)
    rounded = round_to(s, f).clip(2.0 ** (f.least - f.mantissa))
    return xp.where(s > 0, rounded, s)


def _power_scale(amax: Array, f: Format) -> Array:
    """2^(floor(log2 amax) - emax) within E8M0, and its least power for a block of zeros."""
    xp = library(amax)
    exponent = xp.frexp(amax)[1] - 1 - math.floor(math.log2(f.largest))
    exponent = xp.where(amax > 0, exponent, exponent * 0 - 127).clip(-127, 127)
    half = exponent // 2
    return xp.ldexp(xp.ldexp(xp.ones_like(amax), half), exponent - half)


def _two_level(amax: Array, f: Format, q: Format) -> Array:
    """Block scales in a format of few bits, times one float32 number of the whole tensor."""
    xp = library(amax)
    whole = amax.max() / (f.largest * q.largest)
    whole = xp.where(whole > 0, whole, xp.ones_like(whole))
    return round_to(amax / f.largest / whole, q) * whole
