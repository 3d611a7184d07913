"""What the figures show, as arrays: measured rows, the law's curves with bands, the frontier, budgets' rows.

Shared by the matplotlib figures and the HTML page; needs neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop import _meter, _runs
from isoflop._answer import Answer
from isoflop._columns import COLUMNS, METRICS
from isoflop._meter import Meter, get_meter
from isoflop._plan import _LOWER_IS_BETTER, allocate, forecast

if TYPE_CHECKING:
    from isoflop._fit import Fit

_WORDS = {
    "params": "parameters N",
    "params_nonembed": "non-embedding parameters N",
    "tokens": "training tokens D",
    "flops": "training compute C (FLOP)",
    "unique": "distinct training tokens",
}
_MANTISSAS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
BAND_DRAWS = 500  # enough for a 90 % band; more only cost time
_NEAR = 0.2  # a row stands at a budget within this in log cost
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Rows:
    """Measured rows, checked: the law's columns, the target, what each cost (None where nothing says), and names."""

    table: _runs.Table
    columns: dict[str, np.ndarray]
    target: np.ndarray
    cost: np.ndarray | None
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.target)

    def size(self) -> np.ndarray | None:
        """What the rows are coloured by: params where the table has them."""
        for name in ("params", "params_nonembed", "params_active"):
            if name in self.table.columns and self.table[name].dtype != object:
                values = np.asarray(self.table[name], float)
                return values if np.all(values > 0) else None
        return None


@dataclass(frozen=True)
class Curve:
    """A line at the best fit and the band of the draws about it (nan where there are no draws)."""

    x: np.ndarray
    best: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def where(self, keep: np.ndarray) -> Curve:
        """The part of the curve that a mask picks."""
        return Curve(self.x[keep], self.best[keep], self.low[keep], self.high[keep])


Frontier = Sequence[tuple[float, Answer]]


def rows_of(fit: Fit, source: Any, meter: str | Meter = "train_flops") -> Rows:
    """The usable rows of a table for this law. Raises RunsError where a column is missing or holds what it may not."""
    law = fit.law
    table, _ = _meter.derive(_runs.load(source), law.table_columns)
    table = _runs.check(table, need=law.table_columns, target=law.target)
    columns = {c: np.asarray(table[c], float) for c in law.table_columns}
    table, cost = _costed(table, get_meter(meter))
    return Rows(table, columns, np.asarray(table[law.target], float), cost, _names(table))


def _costed(table: _runs.Table, meter: Meter) -> tuple[_runs.Table, np.ndarray | None]:
    """The cost column, filled by the meter where it is not there; None where it cannot be."""
    if all(c in table.columns for c in meter.needs):
        table = _meter.fill(table, meter)
    if meter.column not in table.columns or table[meter.column].dtype == object:
        return table, None
    cost = np.asarray(table[meter.column], float)
    return table, cost if np.all(cost > 0) else None


def _names(table: _runs.Table) -> tuple[str, ...]:
    for column in ("run", "model", "name"):
        if column in table.columns:
            values = table[column]
            return tuple(v if isinstance(v, str) else f"{v:g}" for v in values)
    return tuple(table.place(i) for i in range(len(table)))


# ---- curves ----------------------------------------------------------------------------------------------------------


def law_curve(fit: Fit, x: np.ndarray, columns: Mapping[str, np.ndarray]) -> Curve:
    """The law along points, with a band where it passes."""
    best = fit.predict(**columns)
    if not len(fit.draws):
        empty = np.full(len(x), np.nan)
        return Curve(x, best, empty, empty)
    return Curve(x, best, *band(thinned(fit).predict_draws(**columns), fit.level))


def thinned(fit: Fit) -> Fit:
    """The fit with no more draws than a band needs; draws are exchangeable, so the first will do."""
    return fit if len(fit.draws) <= BAND_DRAWS else replace(fit, draws=fit.draws[:BAND_DRAWS])


def band(draws: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Central interval at each point of draws (draws, points)."""
    tail = (100 - level) / 2
    low, high = np.nanpercentile(np.where(np.isfinite(draws), draws, np.nan), [tail, 100 - tail], axis=0)
    return low, high


def axis_curve(fit: Fit, rows: Rows, held_out: Rows | None = None, upto: float | None = None) -> Curve:
    """The curve of a law of one column over its rows and half a decade (or `upto`) beyond."""
    column = fit.law.table_columns[0]
    x = np.concatenate([rows.columns[column], *([held_out.columns[column]] if held_out else [])])
    top = max(float(x.max()), upto or 0.0)
    if x.min() > 0:
        grid = np.geomspace(x.min() / 1.2, max(top * 1.2, x.max() * 10**0.5), 160)
    else:
        grid = np.linspace(x.min(), top + 0.3 * float(np.ptp(x)), 160)
    return law_curve(fit, grid, {column: grid})


def budget_grid(low: float, high: float, extra: Iterable[float] = ()) -> list[float]:
    """Round budgets (1, 1.5, 2, 3, 5, 7 times powers of ten) that cover low to high, and the extra ones."""
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    marks = [float(f"{m}e{k}") for k in range(first, last + 1) for m in _MANTISSAS]
    inside = [m for i, m in enumerate(marks) if marks[min(i + 1, len(marks) - 1)] > low and marks[max(i - 1, 0)] < high]
    return sorted({*inside, *map(float, extra)})


def frontier_of(fit: Fit, budgets: Iterable[float], *, meter: str | Meter = "train_flops",
                fixed: Mapping[str, float] | None = None) -> Frontier:  # fmt: skip
    """The allocation at each budget. Raises ValueError where the law has none."""
    column = get_meter(meter).column
    return [(b, allocate(fit, meter=meter, level=fit.level, **{column: b}, **(fixed or {}))) for b in budgets]


def frontier_span(rows: Rows, held_out: Rows | None = None, budgets: Iterable[float] = ()) -> list[float]:
    """Budgets from the cheapest row to two decades beyond the dearest fitted one, and at least to the largest asked."""
    if rows.cost is None:
        return []
    asked = list(budgets)
    top = max([rows.cost.max() * 100, *asked, *(held_out.cost * 1.5 if held_out and held_out.cost is not None else [])])
    return budget_grid(float(rows.cost.min()), float(top), asked)


def frontier_curve(frontier: Frontier, target: str, level: float) -> Curve:
    """The target along the frontier."""
    quantities = [answer[target] for _, answer in frontier]
    ends = np.array([q.interval(level) for q in quantities])
    return Curve(np.array([b for b, _ in frontier]), np.array([q.best for q in quantities]), ends[:, 0], ends[:, 1])


# ---- budgets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slice:
    """The rows at one budget: indices into the fitted and the held-out rows, and params x tokens there."""

    cost: float
    rows: np.ndarray
    held_out: np.ndarray
    product: float


def slices(rows: Rows, held_out: Rows | None = None, budgets: Sequence[float] | None = None,
           most: int = 9) -> list[Slice]:  # fmt: skip
    """Budgets at which three or more sizes were measured, cheapest first, at most `most` evenly chosen ones."""
    if rows.cost is None or not {"params", "tokens"} <= set(rows.columns):
        return []
    parts = [r for r in (rows, held_out) if r is not None and len(r) and r.cost is not None]
    cost = np.concatenate([np.asarray(r.cost) for r in parts])
    params = np.concatenate([r.columns["params"] for r in parts])
    tokens = np.concatenate([r.columns["tokens"] for r in parts])
    groups = _near(cost, budgets) if budgets is not None else _gathered(cost)
    found = []
    for k, group in enumerate(groups):
        if len(np.unique(params[group])) >= 3:
            product = float(np.exp(np.log(params[group] * tokens[group]).mean()))
            at = sorted(budgets)[k] if budgets is not None else float(np.exp(np.log(cost[group]).mean()))
            found.append(Slice(at, group[group < len(rows)], group[group >= len(rows)] - len(rows), product))
    return [found[i] for i in np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int))]


def _gathered(cost: np.ndarray) -> list[np.ndarray]:
    """Rows that cost about the same; a chain of costs without gaps is no budget."""
    order = np.argsort(cost, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(np.log(cost[order])) > 0.75 * _NEAR) + 1)
    return [p for p in parts if cost[p].max() < cost[p].min() * np.exp(2 * _NEAR)]


def _near(cost: np.ndarray, budgets: Sequence[float]) -> list[np.ndarray]:
    gap = np.abs(np.log(cost[:, None] / np.sort(np.asarray(budgets, float))))
    closest = np.argmin(gap, axis=1)
    return [np.flatnonzero((closest == k) & (gap[:, k] < _NEAR)) for k in range(len(budgets))]


def slice_curve(fit: Fit, piece: Slice, rows: Rows, held_out: Rows | None = None,
                fixed: Mapping[str, float] | None = None) -> Curve:  # fmt: skip
    """The law at one budget over the sizes measured there and a little beyond."""
    sizes = [rows.columns["params"][piece.rows]]
    sizes += [held_out.columns["params"][piece.held_out]] if held_out is not None else []
    n = np.concatenate(sizes)
    grid = np.geomspace(n.min() / 1.5, n.max() * 1.5, 81)
    return law_curve(fit, grid, {"params": grid, "tokens": piece.product / grid, **constants(fit, fixed, grid)})


def constants(fit: Fit, fixed: Mapping[str, float] | None, like: np.ndarray) -> dict[str, np.ndarray]:
    """The law's other columns at the values they are held at. Raises ValueError where one has none."""
    others = [c for c in fit.law.table_columns if c not in ("params", "tokens")]
    for c in others:
        if c not in (fixed or {}):
            raise ValueError(f"hold column {c!r} fixed to draw law {fit.law.name!r} at a budget: fixed={{{c!r}: ...}}")
    return {c: np.full(like.shape, float((fixed or {})[c])) for c in others}


def slice_minimum(curve: Curve) -> tuple[float, float]:
    """Size and target at the lowest point of a law's curve; nan where it lies at an end."""
    i = int(np.argmin(curve.best))
    if i in (0, len(curve.x) - 1):
        return (float("nan"), float("nan"))
    left, middle, right = curve.best[i - 1 : i + 2]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend > 0 else 0.0  # vertex of the parabola through three points
    step = np.log(curve.x[i + 1] / curve.x[i])
    return float(curve.x[i] * np.exp(shift * step)), float(middle - 0.25 * (left - right) * shift)


# ---- forecasts and residuals -----------------------------------------------------------------------------------------


def forecasts(fit: Fit, held_out: Rows) -> list[Answer]:
    """What a new run at each held-out row should have measured."""
    points = [{c: float(v[i]) for c, v in held_out.columns.items()} for i in range(len(held_out))]
    return [forecast(fit, point, level=fit.level) for point in points]


def residual(fit: Fit, rows: Rows) -> np.ndarray:
    """Measured over fitted: 100 log(measured / fitted), about per cent, under a log objective; else the difference."""
    fitted = fit.predict(**rows.columns)
    return 100 * np.log(rows.target / fitted) if is_log(fit) else rows.target - fitted


def is_log(fit: Fit) -> bool:
    """Whether the fit was made on the log of the target."""
    return fit.objective["name"].endswith("_log") or fit.objective["name"] == "student_t"


def robust_spread(values: np.ndarray) -> float:
    """Half width of the 90 % band of a normal law whose spread is 1.4826 times the median absolute deviation."""
    return 1.645 * 1.4826 * float(np.median(np.abs(values - np.median(values))))


# ---- words -----------------------------------------------------------------------------------------------------------


def is_loss(column: str) -> bool:
    """Whether less of it is better, by its name."""
    return bool(_LOWER_IS_BETTER.search(column))


def label(column: str) -> str:
    """What an axis is called: words, the field's letter, the unit."""
    if column in _WORDS:
        return _WORDS[column]
    known = COLUMNS.get(column)
    words = column.replace("_", " ") if known else column
    unit = known.unit if known and known.unit not in ("count", "label", "tokens", "fraction") else ""
    return f"{words} ({unit})" if unit else words


def human(value: float, digits: int = 3) -> str:
    """1234567 as 1.23M: counts as people write them; small and huge numbers as they are."""
    size = abs(value)
    for at, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if at <= float(f"{size:.{digits}g}") < 1000 * at:
            return f"{float(f'{value / at:.{digits}g}'):g}{letter}"
    return f"{value:.{digits}g}"


def sci(value: float, digits: int = 3) -> str:
    """6e18 as 6 × 10¹⁸."""
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    if abs(int(power)) < 4:
        return f"{value:.4g}"
    raised = f"10{str(int(power)).translate(_SUPERSCRIPT)}"
    return raised if float(mantissa) == 1 else f"{float(mantissa):g} × {raised}"


def amount(column: str, value: float) -> str:
    """A number as a reader of this column expects it: counts short, compute as 6e18, metrics to four digits."""
    if not np.isfinite(value):
        return "-"
    if column in METRICS or is_loss(column):
        return f"{value:#.4g}".rstrip(".")
    if column == "flops":
        return f"{value:.3g}".replace("e+", "e")
    return human(value)
