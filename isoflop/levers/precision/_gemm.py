"""Times of matrix products learnt from measured ones: what a format or shape costs where the FLOPs do not say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Gemm:
    """A fitted predictor of the seconds of a product of m x k with k x n, on the machine it was measured on."""

    forest: Any

    def seconds(self, m: Sequence[int], n: Sequence[int], k: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Forecast seconds, one a shape. Outside the measured shapes rates stay at their edge."""
        made: np.ndarray[Any, np.dtype[np.float64]] = np.exp(self.forest.predict(_features(m, n, k)))
        return made


def fit_gemm(table: pd.DataFrame, *, seed: int = 0, trees: int = 200) -> Gemm:
    """A random forest of ln(rate) over sizes, bytes, shape and remainders by 8 and 16, times the FLOPs.

    table: columns m, n, k, seconds. Raises ValueError for a missing column or times that are not above 0.

    Source: the paper of the catalogue's entry `gemm_performance_model` as its abstract tells it (a random forest over
    shapes and tiles); the features here are ours.
    """
    try:
        from sklearn.ensemble import RandomForestRegressor
    except ModuleNotFoundError as error:
        raise ImportError("the predictor needs scikit-learn: pip install 'isoflop[sklearn]'") from error
    if missing := [c for c in ("m", "n", "k", "seconds") if c not in table]:
        raise ValueError(f"the table of products lacks column {missing[0]}")
    if not (table["seconds"] > 0).all():
        raise ValueError("the table of products has times that are none; it needs seconds above 0")
    forest = RandomForestRegressor(trees, min_samples_leaf=1, random_state=seed)
    x = _features(table["m"], table["n"], table["k"])
    return Gemm(_PerFlop(forest.fit(x, np.log(table["seconds"]) - x[:, 3])))


@dataclass(frozen=True)
class _PerFlop:
    """ln(seconds) from a forest of ln(seconds per FLOP)."""

    forest: Any

    def predict(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        made: np.ndarray[Any, Any] = self.forest.predict(x) + x[:, 3]
        return made


def _features(m: Any, n: Any, k: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    m, n, k = (np.asarray(v, dtype=np.float64) for v in (m, n, k))
    logs = [np.log(v) for v in (m, n, k, 2 * m * n * k, m * k + k * n + m * n)]
    left = [v % base for v in (m, n, k) for base in (2, 8, 16)]
    return np.stack([*logs, *left, np.log(m / n)], axis=1)


def compared_rules(table: pd.DataFrame, *, seed: int = 0, folds: int = 5) -> dict[str, dict[str, float]]:
    """Error of each rule's held-out forecasts: the mean of |forecast / measured - 1|, median_error; r2 of seconds and
    r2_log of their logarithms.
    """
    made, seconds = held_out_forecasts(table, seed=seed, folds=folds), table["seconds"].to_numpy(np.float64)
    return {str(name): _scores(made[name].to_numpy(), seconds) for name in made}


def held_out_forecasts(table: pd.DataFrame, *, seed: int = 0, folds: int = 5) -> pd.DataFrame:
    """Seconds by the forest, by FLOPs over one rate (`flops`), and by a fixed cost and FLOPs over a rate
    (`fixed_and_flops`); each fold in turn is forecast from the others.
    """
    order = np.random.default_rng(seed).permutation(len(table)) % folds
    seconds = table["seconds"].to_numpy(np.float64)
    flops = 2.0 * table["m"].to_numpy(np.float64) * table["n"].to_numpy() * table["k"].to_numpy()
    got = {name: np.empty(len(table)) for name in ("forest", "flops", "fixed_and_flops")}
    for fold in range(folds):
        held, rest = order == fold, order != fold
        part = table[held]
        got["forest"][held] = fit_gemm(table[rest], seed=seed).seconds(part["m"], part["n"], part["k"])
        got["flops"][held] = flops[held] * np.median(seconds[rest] / flops[rest])
        got["fixed_and_flops"][held] = _line(flops[rest], seconds[rest], flops[held])
    return pd.DataFrame(got, index=table.index)


def _line(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], at: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """a + b x with the least squared relative errors, a not below 0."""
    columns = np.stack([1 / y, x / y], axis=1)
    a, b = np.linalg.lstsq(columns, np.ones(len(y)), rcond=None)[0]
    return np.maximum(a, 0.0) + b * at


def _scores(got: np.ndarray[Any, Any], true: np.ndarray[Any, Any]) -> dict[str, float]:
    off, logs = np.abs(got / true - 1), np.log(got / true)
    return {
        "error": float(off.mean()),
        "median_error": float(np.median(off)),
        "r2": float(1 - ((got - true) ** 2).sum() / ((true - true.mean()) ** 2).sum()),
        "r2_log": float(1 - (logs**2).sum() / ((np.log(true) - np.log(true).mean()) ** 2).sum()),
    }
