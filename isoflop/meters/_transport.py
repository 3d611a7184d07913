"""Optimal transport between two small sets of points, between bounds that are proved."""

from __future__ import annotations

import numpy as np


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|x_i - y_j|^2."""
    return np.asarray(np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T, 0.0))


def class_distances(x: np.ndarray, kx: np.ndarray, y: np.ndarray, ky: np.ndarray) -> np.ndarray:
    """Squared 2-Wasserstein distance between the classes of points, each class taken as a Gaussian, point by point."""
    here, there = (
        [(k, p[of == k].mean(axis=0), _covariance(p[of == k])) for k in np.unique(of)] for p, of in ((x, kx), (y, ky))
    )
    out = np.empty((len(x), len(y)))
    for a, m, s in here:
        for b, n, t in there:
            out[np.ix_(kx == a, ky == b)] = float(((m - n) ** 2).sum()) + _bures(s, t)
    return out


def transport(cost: np.ndarray, tolerance: float, rounds: int = 400) -> tuple[float, float, np.ndarray]:
    """Bounds of the least cost of moving one uniform set onto the other, and the dual potential of the first.

    Sinkhorn's steps in the log domain under a penalty that is halved: any plan rounded to the marginals gives a cost
    from above, any pair of potentials made feasible one from below. Stops where they are within `tolerance` of each
    other.
    """
    n, m = cost.shape
    f, g = np.zeros(n), np.zeros(m)
    low, high, best = -np.inf, np.inf, f
    penalty, least = max(float(cost.max()), 1e-300), negligible(cost)
    for _ in range(rounds):
        f, g = _sinkhorn(cost, f, g, penalty)
        high = min(high, _rounded(np.exp((f[:, None] + g - cost) / penalty), cost))
        dual = (cost - g).min(axis=1)
        value = float(dual.mean() + (cost - dual[:, None]).min(axis=0).mean())
        if value > low:
            low, best = value, dual
        if high - low <= tolerance * max(high, least):
            break
        penalty = max(penalty / 2, 0.4 * tolerance * max(high, 1e-300) / np.log(n + m))
    return max(low, 0.0), max(high, 0.0), best


def negligible(cost: np.ndarray) -> float:
    """A transport cost that is nothing beside the distances: bounds as near as this are as good as equal."""
    return 1e-6 * float(cost.mean())


def _sinkhorn(cost: np.ndarray, f: np.ndarray, g: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Potentials after some steps, the shifts taken out first so that few steps need logarithms."""
    n, m = cost.shape
    f = penalty * (-np.log(n) - _lse((g - cost) / penalty, 1))
    g = penalty * (-np.log(m) - _lse((f[:, None] - cost) / penalty, 0))
    kernel = np.exp((f[:, None] + g - cost) / penalty)  # its columns sum to 1 / m: no step overflows at once
    u, v = np.ones(n), np.ones(m)
    for _ in range(100):
        u = 1 / n / np.maximum(kernel @ v, 1e-290)
        v = 1 / m / np.maximum(kernel.T @ u, 1e-290)
        if max(u.max(), v.max()) > 1e60:
            break
    return f + penalty * np.log(u), g + penalty * np.log(v)


def _rounded(plan: np.ndarray, cost: np.ndarray) -> float:
    """The cost of a plan after it was made to have uniform marginals (Altschuler et al. 2017, algorithm 2)."""
    n, m = plan.shape
    plan = plan * np.minimum(1 / n / np.maximum(plan.sum(axis=1), 1e-300), 1.0)[:, None]
    plan = plan * np.minimum(1 / m / np.maximum(plan.sum(axis=0), 1e-300), 1.0)
    rows, columns = 1 / n - plan.sum(axis=1), 1 / m - plan.sum(axis=0)
    left = rows.sum()
    return float((plan * cost).sum() + (rows @ cost @ columns / left if left > 1e-15 else 0.0))


def _lse(x: np.ndarray, axis: int) -> np.ndarray:
    top = x.max(axis=axis, keepdims=True)
    return np.asarray(np.log(np.exp(x - top).sum(axis=axis)) + np.squeeze(top, axis))


def _covariance(x: np.ndarray) -> np.ndarray:
    return np.atleast_2d(np.cov(x.T)) if len(x) > 1 else np.zeros((x.shape[1], x.shape[1]))


def _bures(s: np.ndarray, t: np.ndarray) -> float:
    """tr s + tr t - 2 tr (s^1/2 t s^1/2)^1/2"""
    values, vectors = np.linalg.eigh(s)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ t @ root), 0)).sum()
    return max(float(np.trace(s) + np.trace(t) - 2 * cross), 0.0)
