"""Where the best learning rate lies at each width, how far it moves, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

AROUND = 2  # grid points on each side of the lowest that a parabola is fitted to


@dataclass(frozen=True)
class BestRate:
    """One parametrisation at one width: best rate with its interval, the loss there, and whether the grid held it."""

    parametrisation: str
    width: int
    lr: float
    low: float
    high: float
    loss: float
    seeds: int
    inside: bool


@dataclass(frozen=True)
class Drift:
    """One parametrisation: best rate ~ width^exponent, and its largest over its smallest value (factor).

    low, high: interval of the exponent; factor_low, factor_high: of the factor, which noise alone moves up from 1.
    widths: widest over narrowest.
    """

    parametrisation: str
    exponent: float
    low: float
    high: float
    factor: float
    factor_low: float
    factor_high: float
    widths: float


@dataclass(frozen=True)
class Moved:
    """What a transfer sweep found."""

    best: tuple[BestRate, ...]
    drift: tuple[Drift, ...]
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"level": self.level, "best": [vars(b) for b in self.best], "drift": [vars(d) for d in self.drift]}

    def __str__(self) -> str:
        lines = [
            f"{'parametrisation':<16}{'width':>6}  {'best rate':>10}  "
            f"{f'{self.level:g} % interval':<22}{'loss':>8}  seeds"
        ]
        for b in self.best:
            note = "" if b.inside else "  at the end of the grid"
            interval = "one seed: none" if math.isnan(b.low) else f"[{b.low:.3g}, {b.high:.3g}]"
            lines.append(
                f"{b.parametrisation:<16}{b.width:>6}  {b.lr:>10.3g}  {interval:<22}{b.loss:>8.4f}  {b.seeds}{note}"
            )
        for d in self.drift:
            ends = [""] * 2
            if not math.isnan(d.low):
                ends = [f" [{d.low:.2f}, {d.high:.2f}]", f" [{d.factor_low:.2f}, {d.factor_high:.2f}]"]
            lines.append(
                f"{d.parametrisation}: best rate ~ width^{d.exponent:.2f}{ends[0]}; over "
                f"{d.widths:g}x width it moves by a factor of {d.factor:.2f}{ends[1]}"
            )
        return "\n".join(lines)


def moved(rows: pd.DataFrame, *, level: float = 90.0, draws: int = 1000, seed: int = 0) -> Moved:
    """Best rate by parametrisation and width, from columns parametrisation, width, lr, seed, loss, status.

    At each width a parabola in ln(rate) is fitted to ln(loss), averaged over seeds, at the lowest rate of the grid
    and two on each side; its vertex, within those points, is the best rate. Intervals: seeds drawn anew, the same
    ones for all widths of as many seeds. A rate at which any seed of the width failed is left out, and so is a seed
    that was not run at every rate of its width; where a width has one seed the ends are NaN. Raises ValueError for
    fewer than three rates.
    """
    rng = np.random.default_rng(seed)
    best, drifts = [], []
    for name, part in _whole_seeds(rows).groupby("parametrisation", sort=False):
        widths = sorted(map(int, part["width"].unique()))
        grids = {w: _grid(part[part["width"] == w], f"{name}, width {w}") for w in widths}
        counts = [len(table) for _, table in grids.values()]
        times = draws if min(counts) > 1 else 0
        picks = {n: [np.arange(n), *rng.integers(n, size=(times, n))] for n in sorted(set(counts))}
        found = np.array([
            [_vertex(x, table[picks[len(table)][i]].mean(axis=0))[0] for x, table in grids.values()]
            for i in range(times + 1)
        ])  # fmt: skip
        best += [_best(str(name), w, *grids[w], found[:, i], level) for i, w in enumerate(grids)]
        if len(grids) > 1:
            drifts.append(_drift(str(name), np.log(list(grids)), found, level))
    return Moved(tuple(best), tuple(drifts), level)


def _whole_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Without the seeds that were not run at every rate of their parametrisation and width."""
    place = [rows["parametrisation"], rows["width"]]
    count = rows.groupby([*place, rows["seed"]])["status"].transform("size")
    return rows[count == count.groupby(place).transform("max")]


def _grid(group: pd.DataFrame, where: str) -> tuple[np.ndarray, np.ndarray]:
    """ln of the rates at which no seed failed, and ln of the losses there, (seeds, rates)."""
    table = group[group["status"] == "ok"].pivot_table(index="seed", columns="lr", values="loss").dropna(axis=1)
    if table.shape[1] < 3:
        raise ValueError(f"{where}: {table.shape[1]} rates at which no seed failed; a best rate needs three at least")
    return np.log(table.columns.to_numpy(float)), np.log(table.to_numpy(float))


def _vertex(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Lowest point (x, y) of a parabola through the points around the lowest of them, within those points."""
    at = int(np.argmin(y))
    near = slice(max(0, at - AROUND), at + AROUND + 1)
    bend, slope, level = np.polyfit(x[near] - x[at], y[near], 2)
    if bend <= 0:
        return float(x[at]), float(y[at])
    low, high = x[near][[0, -1]] - x[at]
    step = float(np.clip(-slope / (2 * bend), low, high))
    return float(x[at]) + step, float(level + slope * step + bend * step**2)


def _ends(values: np.ndarray, level: float) -> tuple[float, float]:
    if len(values) == 1:
        return math.nan, math.nan
    low, high = np.percentile(values, [50 - level / 2, 50 + level / 2])
    return float(low), float(high)


def _best(name: str, width: int, x: np.ndarray, table: np.ndarray, found: np.ndarray, level: float) -> BestRate:
    low, high = np.exp(_ends(found, level))
    _, loss = _vertex(x, table.mean(axis=0))
    at = int(np.argmin(table.mean(axis=0)))
    return BestRate(name, width, math.exp(found[0]), float(low), float(high), math.exp(loss), len(table),
                    0 < at < len(x) - 1)  # fmt: skip


def _drift(name: str, x: np.ndarray, found: np.ndarray, level: float) -> Drift:
    slopes = (found - found.mean(axis=1, keepdims=True)) @ (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    factors = np.exp(found.max(axis=1) - found.min(axis=1))
    return Drift(name, float(slopes[0]), *_ends(slopes, level), float(factors[0]), *_ends(factors, level),
                 widths=float(np.exp(x[-1] - x[0])))  # fmt: skip


def plot_rates(rows: pd.DataFrame, answer: Moved) -> Any:
    """Loss against learning rate, a panel a parametrisation, a line a width, best rates marked; returns the axes."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError("figures need matplotlib: pip install 'isoflop[plot]'") from error
    names = list(dict.fromkeys(b.parametrisation for b in answer.best))
    axes = Figure(figsize=(4 * len(names), 3.4), layout="constrained").subplots(
        1, len(names), sharey=True, squeeze=False
    )[0]
    for axis, name in zip(axes, names, strict=True):
        for b in (b for b in answer.best if b.parametrisation == name):
            part = rows[(rows["parametrisation"] == name) & (rows["width"] == b.width) & (rows["status"] == "ok")]
            mean = part.groupby("lr")["loss"].mean()
            (line,) = axis.plot(mean.index, mean, label=f"width {b.width}", marker=".", lw=1)
            axis.plot([b.lr], [b.loss], "o", color=line.get_color(), mfc="none", ms=9)
        axis.set(xscale="log", yscale="log", title=name, xlabel="learning rate")
    axes[0].set_ylabel("held-out loss, nats")
    axes[-1].legend(fontsize=8)
    return axes
