"""What `.plot()` draws: the figure that fits a result, on axes that were given or on a new pyplot figure.

The functions of `_figures` leave pyplot alone, so that reports and servers may call them; these are for people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop import _figures
from isoflop._answer import Answer, Quantity
from isoflop._curves import Curve, amount, band, budget_grid, frontier_curve, frontier_of, label, law_curve
from isoflop._meter import get_meter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from isoflop._auto import Stack
    from isoflop._fit import Fit
    from isoflop._select import Ranking

_MOST_BARS = 200  # forecasts with bars; more could not be told apart
_DRAWS = 500


def current(ax: Axes | None) -> Axes:
    """The axes as given, else those of a new pyplot figure, which notebooks show. The backend stays what it is."""
    if ax is not None:
        return ax
    _figures._matplotlib()
    from matplotlib import pyplot

    return pyplot.figure(figsize=(6.8, 4.4), layout="constrained").add_subplot()


def fit_panel(fit: Fit, runs: Any, *, held_out: Any, ax: Axes) -> Axes:
    """One column: the curve; rows with compute: the frontier; else residuals. Without runs: the law alone."""
    if runs is None:
        if held_out is not None:
            raise ValueError("plot held-out runs beside the fitted ones: fit.plot(runs, held_out=held)")
        return _law_alone(fit, ax)
    if len(fit.law.table_columns) == 1:
        return _figures.one_axis(fit, runs, held_out=held_out, ax=ax)
    rows = _figures._rows(fit, runs)
    if rows.cost is None or not _priced(fit):
        return _figures.residuals(fit, rows, held_out=held_out, ax=ax)
    return _figures.loss_vs_compute(fit, rows, held_out=held_out, ax=ax)


def _priced(fit: Fit) -> bool:
    """Whether train_flops counts exactly what the law takes, so that there is a frontier to draw."""
    return set(fit.law.table_columns) == set(get_meter("train_flops").needs)


def _law_alone(fit: Fit, ax: Axes) -> Axes:
    columns, spans = fit.law.table_columns, fit.spans
    if len(columns) == 1:
        low, high = spans[columns[0]]
        x = np.geomspace(low, high, 160) if low > 0 else np.linspace(low, high, 160)
        curve, words = law_curve(fit, x, {columns[0]: x}), fit.law.name
    elif _priced(fit):
        meter = get_meter("train_flops")
        low, high = (float(meter(**{c: spans[c][k] for c in meter.needs})) for k in (0, 1))
        found = frontier_of(fit, budget_grid(low, high))
        curve, words = frontier_curve(found, fit.law.target, fit.level), f"best at each budget, by {fit.law.name}"
    else:
        raise ValueError(f"law {fit.law.name!r} has columns {', '.join(columns)}: give the runs, as in fit.plot(runs)")
    _figures._solid_then_dashed(ax, curve, np.inf, f"{words} ({fit.level:g} % band)")
    _figures._logs(ax, x=columns[0] if len(columns) == 1 else "flops", y=fit.law.target, log_x=bool(curve.x[0] > 0))
    _figures._legend(ax, loc="best")
    return ax


def stack_panel(stack: Stack, runs: Any, *, ax: Axes) -> Axes:
    """Along the column where the laws and their scale have one, else forecasts of the runs against what they measured.

    Of more than 200 runs every k-th is drawn.
    """
    rows = _figures._rows(stack.leading, runs)
    names = stack.needs
    if len(names) > 1:
        some = slice(None, None, -(-len(rows) // _MOST_BARS))
        points = {c: np.asarray(rows.table[c], float)[some] for c in names}
        draws = stack.predict_draws(kind="run", count=_DRAWS, **points)
        ends = np.stack(band(draws, 90.0), axis=1)
        middle = np.median(draws, axis=0)
        return _figures.parity(rows.target[some], middle, ends, level=90, target=stack.target, ax=ax)
    x = rows.columns[names[0]]
    grid = np.geomspace(x.min() / 1.2, x.max() * 10**0.5, 160)
    draws = stack.predict_draws(kind="law", count=_DRAWS, **{names[0]: grid})
    curve = Curve(grid, stack.predict(**{names[0]: grid}), *band(draws, 90.0))
    ax.plot(x, rows.target, "o", color=_figures.SHADES[2], ms=4.5, mew=0, alpha=0.85, label="measured")
    _figures._solid_then_dashed(ax, curve, float(x.max()), "auto (90 % band)")
    _figures._logs(ax, x=names[0], y=stack.target)
    _figures._legend(ax, loc="best")
    return ax


def answer_panel(answer: Answer, *, ax: Axes) -> Axes:
    """Each quantity's intervals relative to its median, the widest level thinnest; the numbers stand at the left."""
    names = list(answer)
    for k, name in enumerate(names):
        q = answer[name]
        for level in sorted(answer.levels, reverse=True):
            low, high = 100 * (np.array(q.interval(level)) / (q.median or np.nan) - 1)
            width = 2.0 + 4.0 * (1 - level / 100)
            ax.plot([low, high], [k, k], "-", color=_figures.INK, lw=width, solid_capstyle="butt")
        ax.plot([0], [k], "o", color=_figures.HELD, ms=6, zorder=3)
    levels = ", ".join(f"{level:g} %" for level in answer.levels)
    _figures._tidy(ax, f"off the median (%), intervals {levels}", "")
    ax.set_yticks(range(len(names)), [_words(name, answer[name]) for name in names], parse_math=False)
    ax.set_ylim(len(names) - 0.4, -0.6)
    return ax


def _words(name: str, q: Quantity) -> str:
    return f"{_figures._short(label(name), 30)}\n{amount(name, q.median)}"


def ranking_panel(ranking: Ranking, *, ax: Axes) -> Axes:
    """Each law's median error, with a line to the 90th percentile; the best at the top."""
    scores = ranking.scores
    rows = np.arange(len(scores))
    error, worst = np.array([[s.error, s.worst] for s in scores]).T
    ax.hlines(rows, error, worst, color=_figures.MUTED, lw=1.5, label="to the 90th percentile")
    ax.plot(error, rows, "o", color=_figures.HELD, ms=6, label="median", zorder=3)
    _figures._tidy(ax, "error of the forecast (%)", "")
    ax.set_yticks(rows, [_figures._short(s.law) for s in scores], parse_math=False)
    ax.set_ylim(len(scores) - 0.5, -0.5)
    ax.set_xlim(left=0)
    _figures._legend(ax, loc="best")
    return ax
