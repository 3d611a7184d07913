"""Compute at test time: a metric against what it cost, one line a strategy, and the front that no cheaper row beats."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from isoflop import _plotly
from isoflop._columns import closest
from isoflop._curves import amount, label
from isoflop._plan import _LOWER_IS_BETTER, front

_METRICS = ("accuracy", "coverage", "pass_rate", "solved", "score", "pass_at_k")
_COSTS = ("gen_tokens", "tokens_used", "avg_tokens_used", "samples", "token_limit", "k", "n", "think_flops")
_GROUPS = ("strategy", "method", "model", "family")
_COLOURS = ("@data", "@held", "@second", "@accent", "@t0.1", "@t0.9", "@t0.5", "@muted")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "triangle-down")
_LINES = 24


def figure(table: Any) -> dict[str, Any] | None:
    """The figure and the front as rows; None where the table has no accuracy with a cost of generation."""
    metric, cost = _first(table, _METRICS), _first(table, _COSTS)
    if metric is None or cost is None:
        return None
    x, y = np.asarray(table[cost], float), np.asarray(table[metric], float)
    keep = np.isfinite(x) & np.isfinite(y) & (x > 0)
    if keep.sum() < 2:
        return None
    by = next((g for g in _GROUPS if g in table.columns and table[g].dtype == object), None)
    groups = table[by].astype(str) if by else np.full(len(table), "runs", dtype=object)
    sign = 1.0 if _LOWER_IS_BETTER.search(metric) else -1.0
    at = np.flatnonzero(keep)
    best = at[front(x[at], sign * y[at])]
    names = list(dict.fromkeys(groups[at].tolist()))[:_LINES]
    data = [_line(x, y, at[groups[at] == n], n, k, cost, metric) for k, n in enumerate(names)]
    data.append(_front_line(x, y, best, cost, metric))
    layout = _plotly._layout(_plotly._axis(cost, over=x[at], log=True), _plotly._axis(metric, over=y[at], log=False))
    layout["xaxis"]["title"]["text"] = escape(label(cost))
    words = f"{label(metric)} against {label(cost)}" + (f", a line for each {by}" if by else "")
    caption = f"{words}. The heavy line is the front: rows that no cheaper row beats."
    rows = [[str(groups[i]), amount(cost, float(x[i])), f"{y[i]:.4g}"] for i in best]
    return {
        "figure": {"id": "testtime", "caption": escape(caption), "data": data, "layout": layout},
        "header": [by or "rows", cost, metric], "rows": rows, "lines": len(names), "metric": metric, "cost": cost,
    }  # fmt: skip


def _first(table: Any, wanted: tuple[str, ...]) -> str | None:
    """The first of some columns that the table has as numbers, under a known other spelling too."""
    numeric = [n for n, v in table.columns.items() if v.dtype != object]
    for name in wanted:
        if name in numeric:
            return name
    near = [c for c in closest(wanted[0], numeric) if wanted[0] in c.casefold()]
    return near[0] if near else None


def _line(x: np.ndarray, y: np.ndarray, rows: np.ndarray, name: str, k: int, cost: str, metric: str) -> dict[str, Any]:
    rows = _plotly.even(rows[np.argsort(x[rows], kind="stable")])
    shown = escape(_plotly._short(name, 40))
    colour, symbol = _COLOURS[k % len(_COLOURS)], _SYMBOLS[(k // len(_COLOURS) + k) % len(_SYMBOLS)]
    hover = [f"<b>{shown}</b><br>{escape(cost)} {amount(cost, x[i])}<br>{escape(metric)} {y[i]:.4g}" for i in rows]
    return {"x": _plotly._numbers(x[rows]), "y": _plotly._numbers(y[rows]), "mode": "lines+markers", "name": shown,
            "line": {"color": colour, "width": 1.4}, "marker": {"size": 7, "color": colour, "symbol": symbol},
            "hoverinfo": "text", "hovertext": hover}  # fmt: skip


def _front_line(x: np.ndarray, y: np.ndarray, rows: np.ndarray, cost: str, metric: str) -> dict[str, Any]:
    return {"x": _plotly._numbers(x[rows]), "y": _plotly._numbers(y[rows]), "mode": "lines", "name": "front",
            "line": {"color": "@ink", "width": 3, "shape": "hv"}, "opacity": 0.55, "hoverinfo": "skip"}  # fmt: skip
