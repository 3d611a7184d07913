"""Figures of the kinds that scaling papers show, drawn with matplotlib.

Each function draws one panel, on `ax` or on a figure of its own, and returns the Axes. Neither pyplot nor rcParams nor
the backend is touched. `save` writes a panel to a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from isoflop import _curves
from isoflop._curves import Curve, Frontier, Rows, amount, label
from isoflop._isoflops import IsoFlops
from isoflop._meter import Meter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

    from isoflop._fit import Fit

INK, MUTED, GRID = "#1b1f24", "#667080", "#e6e8ec"
HELD, SECOND = "#d55e00", "#0072b2"  # vermilion and blue of Okabe and Ito, told apart by every common colour vision
SHADES = ("#4ac16d", "#1fa187", "#277f8e", "#365c8d", "#46327e", "#440154")  # viridis, small to large, without yellow
_FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}
_TEXT = 9.5


def loss_vs_compute(
    fit: Fit, table: Any, *, held_out: Any = None, frontier: Frontier | None = None,
    meter: str | Meter = "train_flops", fixed: Mapping[str, float] | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Measured target against compute, sizes joined and coloured, under the fitted law's compute-optimal frontier.

    The frontier is solid over the fitted rows and dashed beyond, with its band. held_out: rows that the fit has not
    seen. frontier: as `frontier_of` made it, to save making it again; an empty one draws none. Raises ValueError where
    the rows have no compute.
    """
    rows, held = _rows(fit, table, meter), _unseen(fit, held_out, meter)
    if rows.cost is None:
        raise ValueError("loss against compute needs a compute column, or params and tokens to fill it from")
    if frontier is None:
        frontier = _curves.frontier_of(fit, _curves.frontier_span(rows, held), meter=meter, fixed=fixed)
    ax = _panel(ax)
    _sized_points(ax, rows, rows.cost)
    if frontier:
        curve = _curves.frontier_curve(frontier, fit.law.target, fit.level)
        _solid_then_dashed(ax, curve, float(rows.cost.max()), f"best at each budget, by the law ({fit.level:g} % band)")
    if held is not None and held.cost is not None:
        _held_out(ax, held.cost, held.target)
    _logs(ax, x="flops", y=fit.law.target)
    _legend(ax, loc="upper right")
    return ax


def isoflop_curves(
    fit: Fit | IsoFlops, table: Any, *, isoflops: IsoFlops | None = None, held_out: Any = None,
    budgets: Sequence[float] | None = None, fixed: Mapping[str, float] | None = None, band: bool = False,
    ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Target against params at each budget: measured, the law's curve (solid), the parabola (dotted), both minima.

    fit: a Fit, or IsoFlops alone for parabolas without a law. budgets: where the rows do not come in clear budgets,
    those to gather them at. band: shade the law's interval too. Raises ValueError where no budget has three sizes.
    """
    if isinstance(fit, IsoFlops):
        return _parabolas_alone(fit, ax)
    rows, held = _rows(fit, table), _unseen(fit, held_out)
    pieces = _curves.slices(rows, held, budgets)
    if not pieces:
        raise ValueError("the rows do not come in budgets with three or more sizes; give budgets=[...] to gather them")
    ax = _panel(ax)
    best = []
    for piece, colour in zip(pieces, _shades(len(pieces)), strict=True):
        curve = _curves.slice_curve(fit, piece, rows, held, fixed)
        ax.plot(curve.x, curve.best, color=colour, lw=1.4, zorder=3)
        if band:
            ax.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, lw=0)
        ax.plot(rows.columns["params"][piece.rows], rows.target[piece.rows], "o", color=colour, ms=4, zorder=4)
        if held is not None:
            _held_out(ax, held.columns["params"][piece.held_out], held.target[piece.held_out])
        _end_label(ax, curve, piece.cost, colour, last=piece is pieces[-1])
        best.append(_curves.slice_minimum(curve))
    ax.plot([], [], color=MUTED, lw=1.4, label=f"{fit.law.name} at each budget")
    _minima(ax, best, "D", INK, "-", "its lowest points")
    if isoflops:
        _parabolas(ax, isoflops, [p.cost for p in pieces])
    _logs(ax, x="params", y=fit.law.target)
    _fit_window(ax, rows, held, pieces)
    _legend(ax, loc="lower left")
    return ax


def residuals(fit: Fit, table: Any, *, x: str | None = None, held_out: Any = None, ax: Axes | None = None) -> Axes:
    """How far each row lies from the law, against a column `x` (the fitted target unless told).

    Under a log objective in 100 log(measured / fitted), about per cent. The band would hold 90 % of normally spread
    rows with these rows' robust spread (1.4826 times the median absolute deviation).
    """
    rows, held = _rows(fit, table), _unseen(fit, held_out)
    ax = _panel(ax)
    values = _curves.residual(fit, rows)
    half, middle = _curves.robust_spread(values), float(np.median(values))
    ax.axhspan(middle - half, middle + half, color=INK, alpha=0.07, lw=0, label=f"robust 90 % band, ±{half:.2g}")
    ax.axhline(0, color=MUTED, lw=1)
    ax.plot(_along(fit, rows, x), values, "o", color=SHADES[2], ms=4, alpha=0.8, mew=0, label="fitted rows")
    if held is not None and len(held):
        _held_out(ax, _along(fit, held, x), _curves.residual(fit, held))
    _tidy(ax, f"fitted {label(fit.law.target)}" if x is None else label(x),
          "log residual (%)" if _curves.is_log(fit) else f"measured − fitted {label(fit.law.target)}")  # fmt: skip
    if x is not None and np.all(_along(fit, rows, x) > 0):
        ax.set_xscale("log")
        _count_ticks(ax, x)
    return ax


def forecast_vs_truth(fit: Fit, held_out: Any, *, ax: Axes | None = None) -> Axes:
    """Forecasts with their intervals against what held-out rows measured; on the line they would be exact."""
    held = _rows(fit, held_out)
    answers = [answer[fit.law.target] for answer in _curves.forecasts(fit, held)]
    middle = np.array([q.median for q in answers])
    ends = np.array([q.interval(fit.level) for q in answers])
    return parity(held.target, middle, ends, level=fit.level, target=fit.law.target, ax=ax)


def parity(
    measured: np.ndarray, middle: np.ndarray, ends: np.ndarray, *, level: float, target: str, ax: Axes | None = None
) -> Axes:
    """Medians of forecasts, with the ends (rows, 2) of their intervals at `level` per cent, against measurements."""
    ax = _panel(ax, width=4.6, height=4.4)
    inside = (ends[:, 0] <= measured) & (measured <= ends[:, 1])
    known = np.isfinite(ends).all(axis=1)
    everything = np.concatenate([middle, measured, ends[known].ravel()])
    low, high = everything.min(), everything.max()
    pad = 0.04 * (high - low) or 0.01 * abs(high)
    ax.plot([low - pad, high + pad], [low - pad, high + pad], color=MUTED, lw=1, zorder=1)
    for mask, colour, marker, words in (
        (inside, SHADES[2], "o", f"inside its {level:g} % interval"),
        (known & ~inside, HELD, "s", "outside"),
        (~known, SHADES[2], "o", "no interval"),
    ):
        if mask.any():
            bars = np.abs(np.nan_to_num(ends[mask].T - middle[mask]))
            ax.errorbar(measured[mask], middle[mask], yerr=bars, fmt=marker, color=colour, ms=5, lw=1.3,
                        label=f"{words}: {mask.sum()} of {len(measured)}")  # fmt: skip
    ax.set_xlim(low - pad, high + pad)
    ax.set_ylim(low - pad, high + pad)
    ax.set_aspect("equal")
    _tidy(ax, f"measured {label(target)}", f"forecast {label(target)}")
    _legend(ax, loc="upper left")
    return ax


def one_axis(fit: Fit, table: Any, *, held_out: Any = None, upto: float | None = None, ax: Axes | None = None) -> Axes:
    """A law of one column: rows, curve, band, and its continuation (dashed) to `upto`, or half a decade further.

    The band is where the law passes. Raises ValueError for a law of several columns.
    """
    if len(fit.law.table_columns) != 1:
        columns = ", ".join(fit.law.table_columns)
        raise ValueError(f"one_axis draws laws of one column; law {fit.law.name!r} has {columns}")
    rows, held = _rows(fit, table), _unseen(fit, held_out)
    column = fit.law.table_columns[0]
    curve = _curves.axis_curve(fit, rows, held, upto)
    ax = _panel(ax)
    ax.plot(rows.columns[column], rows.target, "o", color=SHADES[2], ms=4.5, mew=0, alpha=0.85, label="measured")
    _solid_then_dashed(ax, curve, float(rows.columns[column].max()), f"{fit.law.name} ({fit.level:g} % band)")
    if held is not None:
        _held_out(ax, held.columns[column], held.target)
    _logs(ax, x=column, y=fit.law.target, log_x=bool(curve.x[0] > 0))
    _legend(ax, loc="best")
    return ax


def residual_panels(fit: Fit, table: Any, *, held_out: Any = None) -> Axes:
    """Residuals against every column of the law and against the fitted target, side by side; the first panel."""
    _matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns: list[str | None] = [*fit.law.table_columns, None][-4:]
    figure = Figure(figsize=(3.1 * len(columns) + 0.4, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for k, (panel, column) in enumerate(zip(panels, columns, strict=True)):
        residuals(fit, table, x=column, held_out=held_out, ax=panel)
        if k:
            panel.set_ylabel("")
    handles, words = panels[0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside lower center", ncols=len(words), frameon=False, fontsize=_TEXT - 0.5)
    return panels[0]


def save(ax: Axes, path: str | os.PathLike[str]) -> Path:
    """Write the figure that holds `ax` as PNG (150 dpi), SVG or PDF by the suffix, whole or not at all."""
    import matplotlib

    target = Path(path)
    kind = _FORMATS.get(target.suffix.lower())
    if kind is None:
        raise ValueError(f"cannot write {target.name!r}: figures are saved as {', '.join(_FORMATS)}")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    dated = {} if kind == "png" else {"Date" if kind == "svg" else "CreationDate": None}
    try:
        with matplotlib.rc_context({"svg.hashsalt": "isoflop"}):  # the same figure is the same file
            ax.figure.figure.savefig(part, format=kind, dpi=150, metadata=dated)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target


# ---- parts of a panel ------------------------------------------------------------------------------------------------


def _matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ImportError("figures need matplotlib: pip install 'isoflop[plot]'") from error


def _rows(fit: Fit, source: Any, meter: str | Meter = "train_flops") -> Rows:
    return source if isinstance(source, Rows) else _curves.rows_of(fit, source, meter)


def _unseen(fit: Fit, source: Any, meter: str | Meter = "train_flops") -> Rows | None:
    return None if source is None else _rows(fit, source, meter)


def _panel(ax: Axes | None, width: float = 6.8, height: float = 4.4) -> Axes:
    _matplotlib()
    if ax is not None:
        return ax
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def _colours() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("isoflop", SHADES)


def _shades(count: int) -> list[Any]:
    return [_colours()(v) for v in np.linspace(0, 1, count)] if count > 1 else [SHADES[2]]


def _tidy(ax: Axes, x: str, y: str) -> None:
    """Quiet axes: two spines, a faint grid behind, plain labels (a $ in a column's name is no formula)."""
    ax.set_facecolor("white")
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)
        spine.set_linewidth(0.8)
    ax.tick_params(which="both", color=MUTED, labelcolor=INK, labelsize=_TEXT - 0.5, width=0.8)
    ax.grid(True, which="major", color=GRID, lw=0.7)
    ax.set_axisbelow(True)
    ax.set_xlabel(_short(x), fontsize=_TEXT + 1, color=INK, parse_math=False)
    ax.set_ylabel(_short(y), fontsize=_TEXT + 1, color=INK, parse_math=False)


def _short(text: str, limit: int = 60) -> str:
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _logs(ax: Axes, *, x: str, y: str, log_x: bool = True) -> None:
    """Log axes for compute or counts and for a loss, ticked with numbers that people read."""
    _tidy(ax, label(x), label(y))
    if log_x:
        ax.set_xscale("log")
        _count_ticks(ax, x)
    low, high = ax.get_ylim()
    values = np.concatenate([np.ravel(line.get_ydata()) for line in ax.lines] or [np.ones(1)])
    if _curves.is_loss(y) and np.nanmin(values) > 0:
        from matplotlib.ticker import FixedLocator, FormatStrFormatter, MaxNLocator, NullLocator

        ax.set_yscale("log")
        low, high = ax.get_ylim()
        ax.yaxis.set_major_locator(FixedLocator([v for v in MaxNLocator(7).tick_values(low, high) if v > 0]))
        ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_ylim(low, high)


def _count_ticks(ax: Axes, column: str) -> None:
    """Ticks 1, 2, 5 with short numbers for counts that span little; powers of ten for compute."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = ax.get_xlim()
    decades = np.log10(high / low)
    if decades < 4:
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0), numticks=20))
        ax.xaxis.set_minor_formatter(NullFormatter())
    if column != "flops":
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: amount(column, v)))
    elif decades < 4:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: _curves.sci(v)))


def _legend(ax: Axes, loc: Literal["upper left", "upper right", "lower left", "best"]) -> None:
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc=loc, frameon=False, fontsize=_TEXT - 0.5, labelcolor=INK, handlelength=1.8)


def _sized_points(ax: Axes, rows: Rows, x: np.ndarray) -> None:
    """Rows joined by size, dark for large, with a colour bar; plain points where the table has no sizes."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    size = rows.size()
    if size is None or size.min() == size.max():
        ax.plot(x, rows.target, "o", color=SHADES[2], ms=4, mew=0, alpha=0.85, label="measured")
        return
    norm, cmap = LogNorm(size.min(), size.max()), _colours()
    distinct = np.unique(size)
    if len(distinct) <= max(12, len(rows) / 3):
        for one in distinct:
            at = np.flatnonzero(size == one)
            at = at[np.lexsort((rows.target[at], x[at]))]
            ax.plot(x[at], rows.target[at], "-", color=cmap(norm(one)), lw=0.8, alpha=0.5, zorder=2)
    ax.plot([], [], "o", color=SHADES[2], ms=4, mew=0, label="measured")  # the legend's dot, in the middle of the map
    dots = ax.scatter(x, rows.target, c=size, norm=norm, cmap=cmap, s=18, lw=0, zorder=3)
    dots.set_rasterized(len(rows) > 5000)
    bar = ax.figure.colorbar(ScalarMappable(norm, cmap), ax=ax, pad=0.02, aspect=32)
    bar.outline.set_visible(False)
    bar.set_label(label("params"), fontsize=_TEXT, color=INK)
    _bar_ticks(bar, distinct)


def _bar_ticks(bar: Any, distinct: np.ndarray) -> None:
    """The sizes themselves where they are few and apart, else round numbers."""
    low, high = distinct[0], distinct[-1]
    if len(distinct) <= 12:
        gap = np.log(high / low) / 16
        ticks = [low]
        for v in distinct[1:]:
            if np.log(v / ticks[-1]) > gap:
                ticks.append(v)
    else:
        powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        ticks = [m * 10.0**k for k in powers for m in (1, 3) if low <= m * 10.0**k <= high]
    bar.set_ticks(ticks, labels=[amount("params", v) for v in ticks])
    bar.ax.tick_params(which="minor", size=0)
    bar.ax.tick_params(which="major", labelsize=_TEXT - 1, size=0, labelcolor=INK)


def _solid_then_dashed(ax: Axes, curve: Curve, measured: float, words: str) -> None:
    """A curve with its band: solid as far as something was measured, dashed beyond."""
    inside, beyond = curve.x <= measured, curve.x >= measured
    if inside.any() and beyond.any():
        beyond[np.flatnonzero(inside)[-1]] = True  # no gap between the two
    part = curve.where(inside)
    ax.plot(part.x, part.best, color=INK, lw=1.8, zorder=5, label=words)
    if beyond.any():
        part = curve.where(beyond)
        ax.plot(part.x, part.best, color=INK, lw=1.8, ls=(0, (4, 2)), zorder=5, label="beyond the fitted rows")
    if np.isfinite(curve.low).any():
        ax.fill_between(curve.x, curve.low, curve.high, color=INK, alpha=0.13, lw=0, zorder=1)


def _held_out(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    seen = ax.get_legend_handles_labels()[1]
    words = "held out" if "held out" not in seen and len(x) else None
    ax.plot(x, y, "o", mfc="white", mec=HELD, mew=1.4, ms=5.5, ls="none", zorder=6, label=words)


def _end_label(ax: Axes, curve: Curve, cost: float, colour: Any, last: bool) -> None:
    """The budget at the right end of its curve; the last one says the unit for all."""
    text = _curves.sci(cost, 2) + (" FLOP" if last else "")
    ax.annotate(text, (curve.x[-1], curve.best[-1]), xytext=(4, 0), textcoords="offset points", va="center",
                fontsize=_TEXT - 1.5, color=colour, annotation_clip=False)  # fmt: skip


def _minima(ax: Axes, best: list[tuple[float, float]], marker: str, colour: str, style: str, words: str) -> None:
    points = np.array([b for b in best if np.isfinite(b[0])]).reshape(-1, 2)
    if len(points):
        face = colour if marker == "D" else "white"
        ax.plot(points[:, 0], points[:, 1], style, marker=marker, color=colour, mfc=face, mec=colour, ms=5, mew=1.3,
                lw=1, zorder=7, label=words)  # fmt: skip


def _parabolas(ax: Axes, isoflops: IsoFlops, budgets: Sequence[float]) -> None:
    shown = [p for p in isoflops.profiles if any(abs(np.log(p.flops / b)) < 0.2 for b in budgets)]
    for profile in shown:
        grid = np.geomspace(profile.params.min() / 1.15, profile.params.max() * 1.15, 61)
        ax.plot(grid, profile.at(grid), ":", color=SECOND, lw=1.3, zorder=3)
    if shown:
        ax.plot([], [], ":", color=SECOND, lw=1.3, label="parabola through its rows")
    _minima(ax, [(p.best_params.best, p.best_loss.best) for p in shown], "o", SECOND, ":", "its lowest points")


def _parabolas_alone(isoflops: IsoFlops, ax: Axes | None) -> Axes:
    ax = _panel(ax)
    for profile, colour in zip(isoflops.profiles, _shades(len(isoflops.profiles)), strict=True):
        ax.plot(profile.params, profile.loss, "o", color=colour, ms=4, zorder=4)
        end = profile.params.max() * 1.15
        tip = Curve(*(np.array([v]) for v in (end, profile.at(end), 0.0, 0.0)))
        _end_label(ax, tip, profile.flops, colour, last=profile is isoflops.profiles[-1])
    _parabolas(ax, isoflops, [p.flops for p in isoflops.profiles])
    _logs(ax, x="params", y="loss")
    _legend(ax, loc="lower left")
    return ax


def _fit_window(ax: Axes, rows: Rows, held: Rows | None, pieces: list[_curves.Slice]) -> None:
    """The measured range, with room: curves may run out of the window, the measured points decide it."""
    y = [rows.target[p.rows] for p in pieces]
    y += [held.target[p.held_out] for p in pieces] if held is not None else []
    values = np.log(np.concatenate(y))
    room = 0.08 * float(np.ptp(values)) + 1e-6
    ax.set_ylim(float(np.exp(values.min() - room)), float(np.exp(values.max() + 1.5 * room)))


def _along(fit: Fit, rows: Rows, x: str | None) -> np.ndarray:
    if x is None:
        return fit.predict(**rows.columns)
    return rows.columns[x] if x in rows.columns else np.asarray(rows.table[x], float)
