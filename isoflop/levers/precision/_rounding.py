"""Rounding to a grid of numbers: nearest (ties to even) or stochastic, for numpy arrays and torch tensors alike.

Stochastic rounding takes its uniform numbers as an argument, so that it is a pure function, and the same on every
device: x goes up where noise < frac(x / step), so a number of the grid stays what it is, and E[round(x)] = x.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

Array = Any  # a numpy array or a torch tensor; what comes out is of the kind, type and device that went in


def library(x: Array) -> ModuleType:
    """numpy or torch, whichever made x."""
    if isinstance(x, np.ndarray | np.generic):
        return np
    import torch

    return torch


def uniform(shape: tuple[int, ...], *, seed: int, like: Array) -> Array:
    """Uniform numbers in [0, 1) of 24 bits, by a seed, as an array like `like` (the same on every device)."""
    drawn = np.random.default_rng(seed).integers(2**24, size=shape).astype(np.float32) / 2**24
    if isinstance(like, np.ndarray | np.generic):
        return drawn.astype(like.dtype)
    import torch

    return torch.from_numpy(drawn).to(like)


def to_integer(x: Array, noise: Array | None = None) -> Array:
    """x to a whole number: ties to even, or up with the probability of its fraction."""
    xp = library(x)
    if noise is None:
        return xp.round(x)
    low = xp.floor(x)
    with np.errstate(invalid="ignore"):  # infinity less infinity: it stays where it is
        return low + (noise < x - low)


def to_float(x: Array, *, mantissa: int, least: int, first: int, noise: Array | None = None) -> Array:
    """x to the nearest m 2^e of `mantissa` bits after the leading one, without an upper limit.

    least: exponent of the smallest normal number; below it steps stay as they are there (subnormals). Infinities and
    NaN stay. Ties go to the even code, which without mantissa bits is the even exponent counted from `first`, the
    exponent of code 0 (least - 1 where code 0 is zero).
    """
    xp = library(x)
    size = xp.abs(x)
    whole = xp.isfinite(x)
    size = xp.where(whole, size, xp.zeros_like(size))
    exponent = _exponent(size, least)
    step = exponent - mantissa
    scaled = _times_power(size, -step)
    rounded = to_integer(scaled, noise)
    if mantissa == 0 and noise is None:
        tie = scaled == 1.5
        rounded = xp.where(tie, xp.where((exponent - first) % 2 == 1, xp.full_like(scaled, 2), scaled - 0.5), rounded)
    return xp.where(whole, xp.copysign(_times_power(rounded, step), x), x)


def _exponent(size: Array, least: int) -> Array:
    """floor(log2(size)) exactly, at least `least`."""
    xp = library(size)
    exponent = xp.frexp(size)[1] - 1
    return xp.where(size > 0, exponent, exponent * 0 + least).clip(least)


def _times_power(x: Array, exponent: Array) -> Array:
    """x 2^exponent in two exact halves: 2^exponent alone may lie outside the type."""
    xp = library(x)
    half = exponent // 2
    with np.errstate(over="ignore"):  # beyond the type is infinity, as wanted
        return xp.ldexp(xp.ldexp(x, half), exponent - half)
