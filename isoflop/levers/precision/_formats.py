"""Number formats of few bits: what values they have, and rounding to them.

    int2 ... int8        whole numbers -2^(b-1) .. 2^(b-1) - 1
    dint4                whole numbers with two small values more, arXiv:2311.05161
    fp8_e4m3, fp8_e5m2   OCP 8-bit floats (arXiv:2209.05433): E4M3 has no infinity, E5M2 is IEEE-like
    fp6_e2m3, fp6_e3m2, fp4_e2m1   OCP microscaling elements (arXiv:2310.10537): no infinity, no NaN
    fp4_e1m2, fp4_e3m0   the two other ways to part 4 bits (arXiv:2310.16836)
    e8m0, ue5m3          formats of scales: powers of two 2^-127 .. 2^127, and 8 bits without sign
    fp16, bf16, fp32     for comparison, and as formats of scales

A float of `exponent` and `mantissa` bits with this bias is (1 + m / 2^mantissa) 2^(e - bias) for e > 0, and
m / 2^mantissa 2^(1 - bias) for e = 0. Values agree bit by bit with ml_dtypes and gfloat, where those have the format.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from isoflop.levers.precision._rounding import Array, library, to_float, to_integer


@dataclass(frozen=True)
class Format:
    """One format. specials: what codes of the highest exponent hold: "ieee" (infinity, NaN), "nan" (one NaN), ""."""

    name: str
    kind: str  # "int", "float" or "table"
    bits: int
    exponent: int = 0
    mantissa: int = 0
    bias: int = 0
    specials: str = ""
    signed: bool = True
    table: tuple[float, ...] = ()

    @property
    def least(self) -> int:
        """Exponent of the smallest normal number."""
        return -127 if self.name == "e8m0" else 1 - self.bias

    @cached_property
    def values(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The value of each code, 0 .. 2^bits - 1; signed floats have the sign in the highest bit. Up to 16 bits."""
        if self.bits > 16:
            raise ValueError(f"{self.name} has 2^{self.bits} codes; values are listed up to 16 bits")
        codes = np.arange(2**self.bits)
        if self.kind == "table":
            return np.array(self.table)
        if self.kind == "int":
            return np.where(codes < 2 ** (self.bits - 1), codes, codes - 2**self.bits).astype(np.float64)
        return self._decoded(codes)

    def _decoded(self, codes: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
        if self.name == "e8m0":
            return np.where(codes == 255, np.nan, np.ldexp(1.0, codes - 127))
        power = self.exponent + self.mantissa
        m, e = codes % 2**self.mantissa, (codes >> self.mantissa) % 2**self.exponent
        size = np.ldexp(m + np.where(e > 0, 2.0**self.mantissa, 0.0), np.maximum(e, 1) - self.bias - self.mantissa)
        top = e == 2**self.exponent - 1
        if self.specials == "ieee":
            size = np.where(top, np.where(m == 0, np.inf, np.nan), size)
        elif self.specials == "nan":
            size = np.where(top & (m == 2**self.mantissa - 1), np.nan, size)
        return np.where((codes >> power) % 2 == 1, -size, size) if self.signed else size

    @cached_property
    def largest(self) -> float:
        """The largest finite value."""
        if self.kind == "int":
            return 2.0 ** (self.bits - 1) - 1
        if self.bits > 16:
            return (2 - 2.0**-self.mantissa) * 2.0 ** (2**self.exponent - 2 - self.bias)
        return float(np.max(self.values[np.isfinite(self.values)]))

    @cached_property
    def lowest(self) -> float:
        """The lowest finite value."""
        if self.kind == "int" or self.bits > 16:
            return -(2.0 ** (self.bits - 1)) if self.kind == "int" else -self.largest
        return float(np.min(self.values[np.isfinite(self.values)]))


def _float(name: str, exponent: int, mantissa: int, specials: str = "", *, signed: bool = True) -> Format:
    bits = exponent + mantissa + signed
    return Format(name, "float", bits, exponent, mantissa, 2 ** (exponent - 1) - 1, specials, signed)


# Sixteen codes: the two outermost of INT4 (-8 and 7) are given up for +-1/2, half a step. The split is not verified:
# the abstract and a review of arXiv:2311.05161 could be read (uniform integers, a special value for small ones), not
# its table.
_DINT4 = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, -0.5)

_FORMATS = {
    f.name: f
    for f in (
        *(Format(f"int{b}", "int", b) for b in range(2, 9)),
        Format("dint4", "table", 4, table=_DINT4),
        _float("fp8_e4m3", 4, 3, "nan"),
        _float("fp8_e5m2", 5, 2, "ieee"),
        _float("fp6_e2m3", 2, 3),
        _float("fp6_e3m2", 3, 2),
        _float("fp4_e2m1", 2, 1),
        _float("fp4_e1m2", 1, 2),
        _float("fp4_e3m0", 3, 0),
        Format("e8m0", "float", 8, 8, 0, 127, "nan", signed=False),
        _float("ue5m3", 5, 3, "nan", signed=False),
        _float("fp16", 5, 10, "ieee"),
        _float("bf16", 8, 7, "ieee"),
        _float("fp32", 8, 23, "ieee"),
    )
}


def formats() -> list[str]:
    """Names of the formats."""
    return list(_FORMATS)


def get_format(name: str | Format) -> Format:
    """The format of a name. Raises LookupError for another."""
    if isinstance(name, Format):
        return name
    if name not in _FORMATS:
        raise LookupError(f"no number format named {name!r} (there are {', '.join(_FORMATS)})")
    return _FORMATS[name]


def round_to(x: Array, name: str | Format, *, noise: Array | None = None, saturate: bool = True) -> Array:
    """x to the values of a format, as an array like x (numpy or torch).

    noise: uniform numbers in [0, 1), of x's shape: rounding is then stochastic; without them ties go to the even code.
    saturate: what lies outside goes to the end of the range, infinities too; else to infinity, or to NaN in a format
    without one, or to the end in a format with neither. NaN stays NaN.
    """
    f = get_format(name)
    if f.kind == "int":
        return to_integer(x, noise).clip(f.lowest, f.largest)
    if f.kind == "table":
        return _to_table(x, f, noise)
    first = f.least if f.name == "e8m0" else f.least - 1
    rounded = to_float(x, mantissa=f.mantissa, least=f.least, first=first, noise=noise)
    if f.name == "e8m0":
        return _to_power(x, rounded, saturate=saturate)
    if not f.signed:
        rounded = library(x).where(rounded < 0, 0.0, rounded + 0.0)  # no negative zero
    if saturate or not f.specials:
        return rounded.clip(f.lowest, f.largest)
    xp = library(x)
    beyond = math.inf if f.specials == "ieee" else math.nan
    over = xp.abs(rounded) > f.largest
    return xp.where(over, xp.copysign(xp.full_like(rounded, beyond), rounded), rounded)


def _to_power(x: Array, rounded: Array, *, saturate: bool) -> Array:
    """E8M0: no zero and no sign. What is not above zero goes to the smallest power, or to NaN."""
    xp = library(x)
    low, high = 2.0**-127, 2.0**127
    if saturate:
        return rounded.clip(low, high)
    good = (x > 0) & (rounded <= high)
    return xp.where(good, rounded.clip(low), xp.full_like(x, math.nan))


@lru_cache(maxsize=8)
def _sorted_table(f: Format) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.sort(np.unique(np.asarray(f.table)))


def _to_table(x: Array, f: Format, noise: Array | None) -> Array:
    """To the nearest entry of a table (ties to the smaller in size), or to one of its neighbours by distance."""
    xp, table = library(x), _sorted_table(f)
    grid = table.astype(x.dtype) if xp is np else xp.tensor(table, dtype=x.dtype, device=x.device)
    inside = x.clip(float(table[0]), float(table[-1]))
    above = xp.searchsorted(grid, inside).clip(1, len(table) - 1)
    low, high = grid[above - 1], grid[above]
    share = (inside - low) / (high - low)
    up = noise < share if noise is not None else (share > 0.5) | ((share == 0.5) & (xp.abs(high) < xp.abs(low)))
    return xp.where(xp.isnan(x), x, xp.where(up, high, low))
