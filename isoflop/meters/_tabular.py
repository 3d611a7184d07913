"""Predict one column of a small table from others, the known rows being all the training there is."""

from __future__ import annotations

from typing import Any

import numpy as np

METHODS = ("kernel", "knn", "tabpfn")


def predict(method: Any, x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """What `method` predicts for the rows `new` from rows x with values y; columns are scaled to spread 1 first.

    method: "kernel", "knn", "tabpfn", or any object with fit(x, y) and predict(new). Raises ValueError for another.
    """
    middle, width = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-12)
    x, new = (x - middle) / width, (new - middle) / width
    if method == "kernel":
        return _kernel(x, y, new)
    if method == "knn":
        return _nearest(x, y, new)
    if method == "tabpfn":
        try:
            from tabpfn import TabPFNRegressor  # type: ignore[import-not-found]
        except ImportError as error:
            raise ImportError("method 'tabpfn' needs the package of that name: pip install tabpfn") from error
        method = TabPFNRegressor()
    if not (hasattr(method, "fit") and hasattr(method, "predict")):
        raise ValueError(f"no method {method!r}; there are {', '.join(METHODS)}, or an object with fit and predict")
    method.fit(x, y)
    return np.asarray(method.predict(new), float)


def _kernel(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Gaussian-kernel ridge: width and ridge by the leave-one-out error, which has a closed form."""
    apart, middle = _apart(x, x), y.mean()
    scale = float(np.median(apart[apart > 0])) if (apart > 0).any() else 1.0
    best, chosen = np.inf, (scale, 1.0)
    for width in scale * np.array([0.25, 1.0, 4.0, 16.0]):
        values, vectors = np.linalg.eigh(np.exp(-apart / (2 * width)))
        turned = vectors.T @ (y - middle)
        for ridge in (1e-3, 1e-2, 0.1, 1.0, 10.0):
            inverse = 1.0 / (np.maximum(values, 0) + ridge)
            error = (vectors @ (inverse * turned)) / ((vectors**2) @ inverse)
            if (total := float(error @ error)) < best:
                best, chosen = total, (float(width), ridge)
    width, ridge = chosen
    weights = np.linalg.solve(np.exp(-apart / (2 * width)) + ridge * np.eye(len(x)), y - middle)
    return np.asarray(middle + np.exp(-_apart(new, x) / (2 * width)) @ weights)


def _nearest(x: np.ndarray, y: np.ndarray, new: np.ndarray, k: int = 5) -> np.ndarray:
    """The mean of the k nearest rows, weighed by one over their distance."""
    apart = np.sqrt(_apart(new, x))
    near = np.argsort(apart, axis=1, kind="stable")[:, :k]
    weight = 1.0 / (np.take_along_axis(apart, near, axis=1) + 1e-9)
    return np.asarray((weight * y[near]).sum(axis=1) / weight.sum(axis=1))


def _apart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(((x[:, None] - y) ** 2).sum(axis=-1))


def weighted_tau(truth: np.ndarray, guess: np.ndarray) -> float:
    """Weighted Kendall tau: pairs weighed by 1 / (1 + rank) of both in truth, hyperbolic and added; ties count 0.

    The mean of what truth's and guess's ranks give, as in scipy.stats.weightedtau. nan where either is constant.
    """
    return 0.5 * (_tau_by(truth, guess, truth) + _tau_by(truth, guess, guess))


def _tau_by(x: np.ndarray, y: np.ndarray, by: np.ndarray) -> float:
    other = y if by is x else x
    rank = np.empty(len(x))
    rank[np.lexsort((other, by))[::-1]] = np.arange(len(x))
    weight = 1.0 / (1.0 + rank)
    pair = np.triu(weight[:, None] + weight, 1)
    dx, dy = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
    scale = np.sqrt((pair * dx**2).sum() * (pair * dy**2).sum())
    return float((pair * dx * dy).sum() / scale) if scale > 0 else float("nan")
