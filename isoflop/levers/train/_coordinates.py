"""Coordinate check: whether activations, and how far training moves them, keep their size as the width grows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop.levers.train._transfer import Transfer

if TYPE_CHECKING:
    import pandas as pd

STEPS = 5


@dataclass(frozen=True)
class Coordinates(Transfer):
    """A few steps at the rates of a transfer sweep, each size of each step in a column of its own.

    Columns: <site>_<step> is the RMS of what leaves a site after so many steps, and <site>_moved_<step> that of its
    change since the start, on one batch. Sites: layer0, layer1, ... (blocks, or layers of the MLP) and logits.
    """

    def run(self, setting: dict[str, Any], *, seed: int, cache: Path | None = None) -> dict[str, Any]:
        """Train one setting for STEPS steps and measure; flops counts the steps alone."""
        from isoflop.levers.train._sizes import sizes_of_digits, sizes_of_ladder

        name, lr = setting["parametrisation"], setting["lr"]
        if self.train is None:
            return sizes_of_digits(self._design(name), self, setting["width"], lr=lr, seed=seed, steps=STEPS)
        return sizes_of_ladder(self._train(name, lr=lr), setting, lr=lr, seed=seed, steps=STEPS)


@dataclass(frozen=True)
class Growth:
    """Size of one site after so many steps ~ width^exponent, with an interval over seeds."""

    parametrisation: str
    lr: float
    site: str
    step: int
    exponent: float
    low: float
    high: float


@dataclass(frozen=True)
class Grown:
    """What a coordinate check found."""

    growth: tuple[Growth, ...]
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"level": self.level, "growth": [vars(g) for g in self.growth]}

    def __str__(self) -> str:
        lines = [
            f"size ~ width^exponent, with {self.level:g} % intervals over seeds; 0 is what a parametrisation wants"
        ]
        for g in self.growth:
            if g.step == STEPS:
                lines.append(
                    f"{g.parametrisation:<14} lr {g.lr:<8.3g} {g.site:<14} {g.exponent:+.2f} "
                    f"[{g.low:+.2f}, {g.high:+.2f}]"
                )
        return "\n".join(lines)


def grown(rows: pd.DataFrame, *, level: float = 90.0, draws: int = 500, seed: int = 0) -> Grown:
    """Exponents of every site and step by parametrisation and rate, over the widths; failed runs are left out.

    Intervals: seeds drawn anew. Raises ValueError for fewer than two widths.
    """
    columns = [c for c in rows.columns if c.rpartition("_")[2].isdigit() and c.startswith(("layer", "logits"))]
    found = []
    for (name, lr), part in rows[rows["status"] == "ok"].groupby(["parametrisation", "lr"], sort=False):
        if part["width"].nunique() < 2:
            raise ValueError(f"{name}, lr {lr:g}: a coordinate check needs two widths at least")
        for column in columns:
            site, _, step = column.rpartition("_")
            ends = _exponent(part, column, level=level, draws=draws, seed=seed)
            if ends is not None:
                found.append(Growth(str(name), float(str(lr)), site, int(step), *ends))
    return Grown(tuple(found), level)


def _exponent(
    part: pd.DataFrame, column: str, *, level: float, draws: int, seed: int
) -> tuple[float, float, float] | None:
    """Slope of ln size in ln width, and its interval; None where the size is 0 at the start, as of what moved."""
    table = part.pivot_table(index="seed", columns="width", values=column).dropna()
    if table.empty or not (table.to_numpy() > 0).all():
        return None
    x, y = np.log(table.columns.to_numpy(float)), np.log(table.to_numpy(float))
    slopes = (y - y.mean(axis=1, keepdims=True)) @ (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    drawn = np.random.default_rng(seed).choice(slopes, size=(draws, len(slopes))).mean(axis=1)
    low, high = np.percentile(drawn, [50 - level / 2, 50 + level / 2])
    return float(slopes.mean()), float(low), float(high)


def plot_sizes(rows: pd.DataFrame, answer: Grown) -> Any:
    """Size against width, one panel a parametrisation, one line a site and step; returns the axes."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError("figures need matplotlib: pip install 'isoflop[plot]'") from error
    names = list(dict.fromkeys(g.parametrisation for g in answer.growth))
    figure = Figure(figsize=(4 * len(names), 3.4), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        part = rows[(rows["parametrisation"] == name) & (rows["status"] == "ok")]
        for site in dict.fromkeys(g.site for g in answer.growth if not g.site.endswith("_moved")):
            for step, alpha in ((0, 0.35), (STEPS, 1.0)):
                mean = part.groupby("width")[f"{site}_{step}"].mean()
                axis.plot(mean.index, mean, marker=".", alpha=alpha, label=f"{site}, step {step}")
        axis.set(xscale="log", yscale="log", title=name, xlabel="width")
    axes[0].set_ylabel("RMS")
    axes[-1].legend(fontsize=7)
    return axes
