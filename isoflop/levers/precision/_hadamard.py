"""Orthogonal rotations that spread one large entry over all: Hadamard where the length is a power of two, and near it
else.

For n = 2^k m with m odd the rotation is kron(H(2^k), C(m)), with the Sylvester matrix H and Hartley's C_jl =
(cos + sin)(2 pi j l / m) / sqrt(m). Both are symmetric and orthogonal, so the rotation R is its own inverse, and no
entry is larger than sqrt(2 / n). (The released codes of the rotation papers use stored Hadamard or random matrices for
m.)

Source of the use: QuaRot, arXiv:2404.00456: x W^T = (x R)(W R)^T.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from isoflop.levers.precision._rounding import Array, library


def parts(n: int) -> tuple[int, int]:
    """(2^k, m) with n = 2^k m and m odd."""
    power = n & -n
    return power, n // power


def rotate(x: Array) -> Array:
    """x R along the last axis, as an array like x; rotate(rotate(x)) is x."""
    power, odd = parts(x.shape[-1])
    xp = library(x)
    y, half = x.reshape(*x.shape[:-1], power, odd), 1
    while half < power:
        pairs = y.reshape(*x.shape[:-1], power // (2 * half), 2, half, odd)
        a, b = pairs[..., 0, :, :], pairs[..., 1, :, :]
        y, half = xp.stack((a + b, a - b), -3), 2 * half
    y = y.reshape(*x.shape[:-1], power, odd) / math.sqrt(power)
    if odd > 1:
        mixer = hartley(odd)
        y = y @ (mixer.astype(x.dtype) if xp is np else xp.as_tensor(mixer, dtype=x.dtype, device=x.device))
    return y.reshape(x.shape)


@lru_cache(maxsize=32)
def hartley(m: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """C (m, m), symmetric and orthogonal."""
    angle = 2 * np.pi * (np.outer(np.arange(m), np.arange(m)) % m) / m
    return (np.cos(angle) + np.sin(angle)) / math.sqrt(m)


def rotation_flops(n: int) -> int:
    """FLOPs of one rotation of n numbers: additions, and products with the m x m part."""
    power, odd = parts(n)
    return n * (power.bit_length() - 1) + (2 * n * odd if odd > 1 else 0) + n
