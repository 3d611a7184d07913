"""The few array functions that the scores need, the same for NumPy and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any  # a NumPy array or a PyTorch tensor


def is_torch(x: Array) -> bool:
    return type(x).__module__.startswith("torch")


def double(x: Array) -> Array:
    """x in float64, of the kind that it is."""
    return x.double() if is_torch(x) else np.asarray(x, float)


def exp(x: Array) -> Array:
    return x.exp() if is_torch(x) else np.exp(x)


def where(condition: Array, x: Array, other: float) -> Array:
    if is_torch(x):
        import torch

        return torch.where(condition, x, other)
    return np.where(condition, x, other)


def largest(x: Array) -> Array:
    """The largest of each row."""
    return x.amax(-1) if is_torch(x) else x.max(-1)


def logsumexp(x: Array) -> Array:
    """ln sum exp of each row, for any size of number."""
    top = largest(x)
    total = exp(x - top[:, None]).sum(-1)
    return top + (total.log() if is_torch(x) else np.log(total))


def ranks(x: Array) -> Array:
    """Place of each entry in its row, 0 for the largest; of equal ones the first comes first."""
    if is_torch(x):
        return x.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return np.argsort(np.argsort(-x, axis=-1, kind="stable"), axis=-1)


def rounded(x: Array) -> Array:
    """To the nearest whole number, halves to even."""
    return x.round() if is_torch(x) else np.round(x)


def features_of(name: str, features: Array, *, weight: Array, bias: Array, positive: bool = False) -> tuple[Array, ...]:
    """features (rows, units), weight (classes, units) and bias (classes) in float64.

    Raises ValueError where the shapes do not fit, a number is not finite, or one is below 0 and may not be.
    """
    f, w, b = double(features), double(weight), double(bias)
    if f.ndim != 2 or w.ndim != 2 or f.shape[1] != w.shape[1] or tuple(b.shape) != (w.shape[0],):
        raise ValueError(
            f"{name}: features (rows, units), weight (classes, units) and bias (classes) do not fit: "
            f"{tuple(f.shape)}, {tuple(w.shape)}, {tuple(b.shape)}"
        )
    if not bool((abs(f) < np.inf).all()):
        raise ValueError(f"{name}: features hold a number that is not finite")
    if positive and bool((f < 0).any()):
        raise ValueError(
            f"{name} scales by the share of large features, and there are some below 0; pass them through a ReLU"
        )
    return f, w, b


def kept(f: Array, percentile: Array | float) -> Array:
    """Which units of each row are above its percentile: n - round(n percentile / 100) of n, at least one.

    percentile: one number, or one a row.
    """
    n = f.shape[1]
    if hasattr(percentile, "shape"):
        count = n - rounded(double(percentile) * n / 100)
        return ranks(f) < where(count >= 1, count, 1.0)[:, None]
    if not 0 <= percentile < 100:
        raise ValueError(f"percentile={percentile}: at least 0 and below 100")
    return ranks(f) < max(n - round(n * percentile / 100), 1)


def ratio(f: Array, percentile: Array | float) -> Array:
    """S(f, p) = sum f / sum of its largest (100 - p) %, at least 1; 1 for a row of zeros.

    Source: Xu et al. 2024 (SCALE, arXiv 2310.00227), equation for r.
    """
    large = where(kept(f, percentile), f, 0.0).sum(-1)
    some = large > 0
    return where(some, f.sum(-1) / where(some, large, 1.0), 1.0)


def energy_of(f: Array, w: Array, b: Array) -> Array:
    """ln sum exp of the logits."""
    return logsumexp(f @ w.T + b)
