"""The page's figures as plain Plotly specifications (dicts): data and layout, colours by the name of a CSS variable.

A colour "@ink" (or "@t0.5", halfway along the map) is looked up when the page is drawn, so that figures follow the
reader's light or dark scheme. Nothing
here imports plotly. Texts that come from the user's table are escaped: Plotly reads hover texts as HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop import _curves
from isoflop._columns import METRICS
from isoflop._curves import Curve, Rows, amount, is_loss, label, sci
from isoflop._figures import _short

if TYPE_CHECKING:
    from isoflop._report import Report

Spec = dict[str, Any]
_MOST_POINTS = 4000  # beyond, points are thinned evenly: a page must stay light
_DETAILS = 10


def specs(report: Report) -> list[Spec]:
    """Every figure that this report allows: {id, caption, alt, data, layout} and, with choices, {choices}."""
    out = []
    if len(report.fit.law.table_columns) == 1:
        out.append(_one_axis(report))
    elif report.rows.cost is not None:
        out.append(_loss_vs_compute(report))
    if report.slices():
        out.append(_isoflop_curves(report))
    if report.checks:
        out.append(_forecast_vs_truth(report))
    return [*out, _residuals(report)]


def _loss_vs_compute(report: Report) -> Spec:
    rows, held, target = report.rows, report.held_out, report.fit.law.target
    assert rows.cost is not None
    data = _size_lines(rows)
    data.append(_dots(report, rows, rows.cost, "measured", _by_size(rows)))
    if report.frontier:
        curve = _curves.frontier_curve(report.frontier, target, report.level)
        hover = [_answer_text(report, b, answer) for b, answer in report.frontier]
        data += _law_lines(curve, float(np.max(rows.cost)), "best at each budget, by the law", hover, report.level)
    if held is not None and held.cost is not None:
        data.append(_dots(report, held, held.cost, "held out", _OPEN))
    mark = {"size": 13, "symbol": "diamond", "color": "@accent", "line": {"width": 2, "color": "@page"}}
    chosen = {"x": [], "y": [], "mode": "markers", "marker": mark, "hoverinfo": "skip", "showlegend": False}
    caption = (
        f"Each point is one run, joined to the others of its size. The line is the best {escape(target)} that the "
        f"fitted law allows at each budget, dashed beyond the dearest fitted run{_band_words(report)}."
    )
    layout = _layout(_axis(report.meter.column, over=_extent(data, "x")), _axis(target, over=_extent(data, "y")))
    return _figure("compute", caption, [*data, chosen], layout, chosen=len(data))


def _isoflop_curves(report: Report) -> Spec:
    fit, rows, held = report.fit, report.rows, report.held_out
    pieces, data, best = report.slices(), [], []
    for piece, colour in zip(pieces, shades(len(pieces)), strict=True):
        curve = _curves.slice_curve(fit, piece, rows, held, report.fixed)
        name = f"{sci(piece.cost, 2)} FLOP"
        data += [_band(curve, colour, group=name), _line(curve, name, {"color": colour, "width": 2}, group=name)]
        part = _dots(report, rows, rows.columns["params"], name, {"size": 7, "color": colour}, keep=piece.rows)
        data.append(part | {"legendgroup": name, "showlegend": False})
        if held is not None and len(piece.held_out):
            part = _dots(report, held, held.columns["params"], "held out", _OPEN, keep=piece.held_out)
            data.append(part | {"legendgroup": name, "showlegend": False})
        best.append(_curves.slice_minimum(curve))
    data.append(_joined(best, "lowest, by the law", "@ink", "diamond", "solid"))
    if report.isoflops:
        data += _parabolas(report, [p.cost for p in pieces])
    second = " and, as a second opinion that knows no law, a parabola through the budget's own rows (dotted)"
    caption = (
        f"At each budget, {escape(fit.law.target)} against size: the fitted law (solid, with its band)"
        f"{second if report.isoflops else ''}. The lines that join the budgets run through the lowest points. Click a "
        "budget in the legend to hide it."
    )
    dots = [trace for trace in data if trace["mode"] == "markers"]
    x, y = _axis("params", over=_extent(data, "x")), _axis(fit.law.target, over=_extent(dots, "y"))
    return _figure("isoflop", caption, data, _layout(x, y, height=520))


def _parabolas(report: Report, budgets: Sequence[float]) -> list[Spec]:
    assert report.isoflops is not None
    out, best = [], []
    for p in report.isoflops.profiles:
        if any(abs(np.log(p.flops / b)) < 0.2 for b in budgets):
            x = np.geomspace(p.params.min() / 1.15, p.params.max() * 1.15, 41)
            line = {"color": "@second", "width": 1.6, "dash": "dot"}
            out.append({"x": _numbers(x), "y": _numbers(p.at(x)), "mode": "lines", "line": line, "showlegend": False,
                        "hoverinfo": "skip"})  # fmt: skip
            best.append((p.best_params.best, p.best_loss.best))
    return [*out, _joined(best, "lowest, by the parabolas", "@second", "circle-open", "dot")]


def _forecast_vs_truth(report: Report) -> Spec:
    target, level = report.fit.law.target, report.level
    middle = np.array([c.forecast.median for c in report.checks])
    ends = np.array([c.forecast.interval(level) for c in report.checks])
    truth = np.array([c.measured for c in report.checks])
    every = np.concatenate([middle, truth, ends[np.isfinite(ends)]])
    pad = 0.05 * float(np.ptp(every)) or 0.01
    line = [float(every.min() - pad), float(every.max() + pad)]
    data: list[Spec] = [{"x": line, "y": line, "mode": "lines", "line": {"color": "@muted", "width": 1},
                         "hoverinfo": "skip", "showlegend": False}]  # fmt: skip
    inside, hover = [c.inside(level) for c in report.checks], _check_texts(report)
    groups = ((True, f"inside its {level:g} % interval", "@data", "circle"), (False, "outside", "@held", "square"),
              (None, "no interval", "@data", "circle"))  # fmt: skip
    for verdict, name, colour, symbol in groups:
        at = [i for i, v in enumerate(inside) if v is verdict][:_MOST_POINTS]
        if at:
            bars = {"type": "data", "symmetric": False, "thickness": 1.5, "width": 0, "color": colour,
                    "array": _numbers(ends[at, 1] - middle[at]),
                    "arrayminus": _numbers(middle[at] - ends[at, 0])}  # fmt: skip
            data.append({"x": _numbers(truth[at]), "y": _numbers(middle[at]), "mode": "markers", "error_y": bars,
                         "name": f"{name}: {len(at)} of {len(inside)}", "hoverinfo": "text",
                         "hovertext": [hover[i] for i in at],
                         "marker": {"size": 8, "color": colour, "symbol": symbol}})  # fmt: skip
    caption = (
        "Runs that the fit has not seen. On the line a forecast would be exact; bars are "
        f"{level:g} % intervals for a new run, so they hold the law's uncertainty and the scatter of runs about it."
    )
    x, y = _axis(target, f"measured {label(target)}", log=False), _axis(target, f"forecast {label(target)}", log=False)
    return _figure("truth", caption, data, _layout(x | {"range": line}, y | {"range": line}))


def _residuals(report: Report) -> Spec:
    fit, rows, held = report.fit, report.rows, report.held_out
    values = _curves.residual(fit, rows)
    middle, half = float(np.median(values)), _curves.robust_spread(values)
    names: list[str | None] = [None, *fit.law.table_columns]
    fitted = [_dots(report, r, fit.predict(**r.columns), name, marker, y=_curves.residual(fit, r))
              for r, name, marker in ((rows, "fitted rows", {"size": 7, "color": "@data", "opacity": 0.8}),
                                      (held, "held out", _OPEN)) if r is not None]  # fmt: skip
    choices: list[Spec] = []
    for name in names:
        along = [fit.predict(**r.columns) if name is None else r.columns[name] for r in (rows, held) if r is not None]
        log = name is not None and all(bool(np.all(x > 0)) for x in along)
        words = label(name) if name else f"fitted {label(fit.law.target)}"
        axis = _axis(name or fit.law.target, words, over=np.concatenate(along), log=log)
        choices.append({"name": words, "x": [_thin(x) for x in along], "axis": axis})
    words = "log residual (%)" if _curves.is_log(fit) else f"measured − fitted {label(fit.law.target)}"
    box = {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": middle - half, "y1": middle + half,
           "line": {"width": 0}, "fillcolor": "@band", "layer": "below"}  # fmt: skip
    y = _axis(fit.law.target, words, log=False) | {"zeroline": True, "zerolinecolor": "@muted"}
    caption = (
        "How far each run lies from the fitted law. The band is robust: ±1.645 × 1.4826 × the median absolute "
        "deviation, which would hold 90 % of normally spread rows. A trend along any axis is what the law misses."
    )
    layout = _layout(choices[0]["axis"], y, height=380) | {"shapes": [box]}
    return _figure("residuals", caption, fitted, layout, choices=choices)


def _one_axis(report: Report) -> Spec:
    fit, rows, held = report.fit, report.rows, report.held_out
    column = fit.law.table_columns[0]
    upto = max((p.budget for p in report.plans), default=None)
    curve = _curves.axis_curve(fit, rows, held, upto)
    hover = [f"{escape(column)} {amount(column, x)}<br>{escape(fit.law.target)} {amount(fit.law.target, y)}"
             for x, y in zip(curve.x, curve.best, strict=True)]  # fmt: skip
    data = [_dots(report, rows, rows.columns[column], "measured", {"size": 7, "color": "@data"})]
    data += _law_lines(curve, float(rows.columns[column].max()), fit.law.name, hover, report.level)
    if held is not None:
        data.append(_dots(report, held, held.columns[column], "held out", _OPEN))
    caption = f"The fitted law over the rows and, dashed, beyond them{_band_words(report)}."
    x, y = _axis(column, over=curve.x, log=bool(curve.x[0] > 0)), _axis(fit.law.target, over=_extent(data, "y"))
    return _figure("curve", caption, data, _layout(x, y))


# ---- parts -----------------------------------------------------------------------------------------------------------

_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif'
_OPEN = {"size": 9, "color": "@page", "line": {"width": 2, "color": "@held"}}


def _figure(name: str, caption: str, data: list[Spec], layout: Spec, **more: Any) -> Spec:
    return {"id": name, "caption": caption, "data": data, "layout": layout, **more}


def _band_words(report: Report) -> str:
    where = f"; its band is where the law passes in {report.level:g} % of the draws"
    return where if len(report.fit.draws) else ""


def _axis(column: str, words: str | None = None, *, over: np.ndarray | None = None, log: bool | None = None) -> Spec:
    """Log for counts, compute and losses unless told, ticked with numbers that people read; `over`: what to show."""
    is_metric = column in METRICS or is_loss(column)
    if log is None:
        log = is_loss(column) if is_metric else True
    out: Spec = {"title": {"text": escape(_short(words or label(column)))}, "type": "log" if log else "linear",
                 "gridcolor": "@grid", "linecolor": "@muted", "tickcolor": "@muted", "zeroline": False,
                 "ticks": "outside", "ticklen": 4, "automargin": True, "nticks": 8}  # fmt: skip
    if over is None:
        return out
    low, high = float(np.nanmin(over)), float(np.nanmax(over))
    if not log:
        room = 0.04 * (high - low) or 0.01
        return out | {"range": [low - room, high + room]}
    low, high = np.log10(low), np.log10(high)
    room = 0.04 * (high - low) or 0.01
    out["range"] = [low - room, high + room]
    return out if is_metric else out | _ticks(column, low, high)


def _ticks(column: str, low: float, high: float) -> Spec:
    """Round numbers on a log axis, a decade beyond it too for those who zoom out; finer marks between them."""
    steps = (1, 2, 5) if high - low < 1.5 else (1, 3) if high - low < 4 else (1,)
    values = [m * 10.0**k for k in range(int(np.floor(low)) - 1, int(np.ceil(high)) + 2) for m in steps]
    texts = [sci(v).replace(" ", "") if column == "flops" else amount(column, v) for v in values]
    return {"tickvals": values, "ticktext": texts, "minor": {"ticks": "outside", "ticklen": 2, "dtick": "D1"}}


def _layout(x: Spec, y: Spec, height: int = 460) -> Spec:
    return {"xaxis": x, "yaxis": y, "height": height, "hovermode": "closest", "paper_bgcolor": "@page",
            "plot_bgcolor": "@page", "font": {"color": "@ink", "size": 12.5, "family": _FONT},
            "margin": {"l": 58, "r": 14, "t": 14, "b": 50},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
            "hoverlabel": {"bgcolor": "@card", "bordercolor": "@muted", "align": "left",
                           "font": {"color": "@ink", "size": 12, "family": _FONT}}}  # fmt: skip


def _dots(report: Report, rows: Rows, x: Any, name: str, marker: Spec, *, y: np.ndarray | None = None,
          keep: np.ndarray | None = None) -> Spec:  # fmt: skip
    """Measured rows with all their numbers on hover."""
    at = even(np.arange(len(rows)) if keep is None else keep)
    y = rows.target if y is None else y
    if isinstance(marker.get("color"), list):
        marker = marker | {"color": [marker["color"][i] for i in at]}
    return {"x": _numbers(np.asarray(x)[at]), "y": _numbers(y[at]), "mode": "markers", "name": name, "marker": marker,
            "hoverinfo": "text", "hovertext": [_row_text(report, rows, int(i)) for i in at]}  # fmt: skip


def even(at: np.ndarray) -> np.ndarray:
    """At most so many of the rows, evenly chosen."""
    return at if len(at) <= _MOST_POINTS else at[np.linspace(0, len(at) - 1, _MOST_POINTS).astype(int)]


def _thin(values: np.ndarray) -> list[float | None]:
    return _numbers(values[even(np.arange(len(values)))])


def _row_text(report: Report, rows: Rows, i: int) -> str:
    """One run's numbers: its name, the law's columns, measured and fitted, and what else the table says."""
    fit = report.fit
    first = [*fit.law.table_columns, fit.law.target, report.meter.column]
    fitted = float(fit.predict(**{c: v[i : i + 1] for c, v in rows.columns.items()})[0])
    lines = [f"<b>{escape(_short(rows.names[i], 48))}</b>"]
    for column in first:
        if column in rows.table.columns:
            lines.append(f"{escape(_short(column, 32))} {amount(column, float(rows.table[column][i]))}")
            if column == fit.law.target:
                lines[-1] += f", fitted {amount(column, fitted)}"
    for column, values in list(rows.table.columns.items())[: 3 * _DETAILS]:
        if column not in first and column not in ("run", "model", "name", "status") and len(lines) <= _DETAILS:
            text = _short(values[i], 32) if isinstance(values[i], str) else amount(column, float(values[i]))
            if text not in ("", "-"):
                lines.append(f"{escape(_short(column, 32))} {escape(text)}")
    return "<br>".join(lines)


def _check_texts(report: Report) -> list[str]:
    grid = report.check_grid()
    return [
        "<br>".join([f"<b>{escape(_short(row[0], 48))}</b>",
                     *(f"{escape(_short(k, 32))} {escape(v)}" for k, v in zip(grid.header[1:], row[1:], strict=True))])
        for row in grid.rows
    ]  # fmt: skip


def _answer_text(report: Report, budget: float, answer: Mapping[str, Any]) -> str:
    from isoflop._report import both

    lines = [f"<b>{sci(budget)} {'FLOP' if report.meter.column == 'flops' else escape(report.meter.column)}</b>"]
    return "<br>".join([*lines, *(f"{escape(k)} {both(k, q, report.level)}" for k, q in answer.items())])


def _by_size(rows: Rows) -> Spec:
    """Markers coloured by the log of params, with a slim colour bar."""
    size = rows.size()
    if size is None or size.min() == size.max():
        return {"size": 7, "color": "@data"}
    logs = np.log10(size)
    low, high = float(logs.min()), float(logs.max())
    halves = [k for k in np.arange(np.floor(low), np.ceil(high) + 0.5, 0.5) if low <= k <= high]
    ticks = [float(np.log10(float(f"{10**k:.1g}"))) for k in halves]
    bar = {"title": {"text": "N", "side": "top"}, "thickness": 10, "outlinewidth": 0, "tickvals": ticks, "len": 1.0,
           "ticktext": [amount("params", 10**k) for k in ticks], "ticks": "", "tickfont": {"size": 11},
           "xpad": 6}  # fmt: skip
    scale = [[k / 10, f"@t{k / 10}"] for k in range(11)]
    return {"size": 7, "color": _numbers(logs), "colorscale": scale, "colorbar": bar}


def _size_lines(rows: Rows) -> list[Spec]:
    size = rows.size()
    distinct = np.unique(size) if size is not None else np.empty(0)
    if rows.cost is None or size is None or not 1 < len(distinct) <= max(12, len(rows) / 3):
        return []
    span = np.log(distinct[-1] / distinct[0])
    out: list[Spec] = []
    for one in distinct:
        at = np.flatnonzero(size == one)
        at = at[np.lexsort((rows.target[at], rows.cost[at]))]
        line = {"color": f"@t{np.log(one / distinct[0]) / span:.3f}", "width": 1}
        out.append({"x": _numbers(rows.cost[at]), "y": _numbers(rows.target[at]), "mode": "lines", "line": line,
                    "opacity": 0.5, "hoverinfo": "skip", "showlegend": False})  # fmt: skip
    return out


def _law_lines(curve: Curve, measured: float, name: str, hover: list[str], level: float) -> list[Spec]:
    """Band, solid line over what was measured, dashed line beyond."""
    inside, beyond = curve.x <= measured, curve.x >= measured
    if inside.any() and beyond.any():
        beyond[np.flatnonzero(inside)[-1]] = True
    out = [_band(curve, "@ink", group="law")]
    for keep, words, dash in ((inside, name, "solid"), (beyond, "beyond the fitted rows", "dash")):
        line = _line(curve.where(keep), words, {"color": "@ink", "width": 2.4, "dash": dash}, group="law")
        out.append(line | {"hoverinfo": "text", "hovertext": [hover[i] for i in np.flatnonzero(keep)]})
    return out


def _line(curve: Curve, name: str, line: Spec, group: str = "") -> Spec:
    return {"x": _numbers(curve.x), "y": _numbers(curve.best), "mode": "lines", "name": name, "line": line,
            "legendgroup": group, "hoverinfo": "name"}  # fmt: skip


def _band(curve: Curve, colour: str, group: str) -> Spec:
    curve = curve.where(np.isfinite(curve.low))
    x, y = np.concatenate([curve.x, curve.x[::-1]]), np.concatenate([curve.high, curve.low[::-1]])
    return {"x": _numbers(x), "y": _numbers(y), "mode": "lines", "line": {"width": 0, "color": colour},
            "fill": "toself", "fillcolor": colour, "opacity": 0.16, "hoverinfo": "skip", "showlegend": False,
            "legendgroup": group}  # fmt: skip


def _joined(best: list[tuple[float, float]], name: str, colour: str, symbol: str, dash: str) -> Spec:
    points = np.array([b for b in best if np.isfinite(b[0])]).reshape(-1, 2)
    hover = [f"{name}<br>params {amount('params', n)}<br>loss {amount('loss', y)}" for n, y in points]
    return {"x": _numbers(points[:, 0]), "y": _numbers(points[:, 1]), "mode": "lines+markers", "name": name,
            "line": {"color": colour, "width": 1.4, "dash": dash}, "hoverinfo": "text", "hovertext": hover,
            "marker": {"size": 9, "symbol": symbol, "color": colour}}  # fmt: skip


def _extent(data: list[Spec], key: str) -> np.ndarray:
    """All that some traces show along an axis."""
    return np.array([v for trace in data for v in trace[key] if v is not None], float)


def _numbers(values: np.ndarray) -> list[float | None]:
    """As JSON holds them: six digits, null for what is not finite."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in np.asarray(values, float)]


def shades(count: int) -> list[str]:
    """So many colours along the map, small to large: the page knows the map for each scheme."""
    return [f"@t{v:.3f}" for v in np.linspace(0, 1, count)] if count > 1 else ["@data"]
