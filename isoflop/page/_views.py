"""What the page shows, as plain values: of a fit, a crossing, suggestions. Made in worker processes."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from isoflop import _plotly
from isoflop._curves import amount, sci
from isoflop._report import Grid, Report, both

_MOST_ROWS = 300


def fitted(report: Report, stack: Any, shown: str) -> dict[str, Any]:
    """A fit with its report: words, tables, figures."""
    fit = report.fit
    return {
        "law": fit.law.name,
        "formula": fit.law.formula,
        "target": fit.law.target,
        "columns": list(fit.law.table_columns),
        "table": shown,
        "title": report.title,
        "n": fit.n,
        "level": report.level,
        "spans": {c: list(fit.spans[c]) for c in fit.law.table_columns},
        "cost_span": _cost_span(report),
        "fixed": report.fixed,
        "coef": grid(report.coef_grid()),
        "doubts": [*_left_out(report.rows.table.refused), *report.doubts],
        "verdict": report.verdict(),
        "checks": grid(report.check_grid()) if report.checks else None,
        "profiles": _profiles(report),
        "figures": _plotly.specs(report),
        "frontier": _frontier(report),
        "auto": _weights(stack) if stack is not None else None,
        "made": {
            "objective": f"{fit.objective['name']}: {fit.objective['value']:.10g}",
            "search": f"{fit.agreeing} of {fit.starts} starts agree on the optimum",
            "draws": f"{len(fit.draws)} draws, {fit.made['uncertainty']}, seed {fit.made['seed']}",
            "rows": fit.made["data_hash"],
        },
    }


def grid(made: Grid) -> dict[str, Any]:
    """A table of words."""
    return {"header": list(made.header), "rows": [list(r) for r in made.rows[:_MOST_ROWS]], "count": len(made.rows)}


def _left_out(refused: Any) -> list[str]:
    """That bad rows were left out, as the reader chose."""
    return [f"bad rows were left out: {len(refused)}, the first being {refused[0]}"] if refused else []


def _cost_span(report: Report) -> list[float] | None:
    cost = report.rows.cost
    return None if cost is None else [float(cost.min()), float(cost.max())]


def _frontier(report: Report) -> dict[str, Any] | None:
    """The law's best at each budget: numbers for a table of figures and its CSV."""
    if not report.frontier:
        return None
    names = [n for n in report.frontier[0][1] if n not in report.fixed]
    rows = [[sci(b), *(both(n, answer[n], report.level) for n in names)] for b, answer in report.frontier]
    return {"header": [report.meter.column, *names], "rows": rows, "count": len(rows)}


def _profiles(report: Report) -> dict[str, Any] | None:
    found = report.isoflops
    if found is None:
        return None
    rows = [[sci(p.flops), both("params", p.best_params, report.level), both("loss", p.best_loss, report.level)]
            for p in found.profiles]  # fmt: skip
    low, high = found.a.interval(report.level)
    words = f"The optimal size grows as compute to the power {found.a.median:.3f} ({low:.3f} to {high:.3f})."
    return {"header": ["budget (FLOP)", "best params", "loss there"], "rows": rows, "count": len(rows), "words": words}


def _weights(stack: Any) -> dict[str, Any]:
    rows = [[p.law.name, f"{p.weight:.2f}", p.law.formula] for p in stack.parts]
    words = (
        "Laws weighed by their forecasts of larger runs inside this table. Figures and plans follow the first of them, "
        "fitted alone."
    )
    return {"header": ["law", "weight", "form"], "rows": rows, "count": len(rows), "words": words}


# ---- two recipes -----------------------------------------------------------------------------------------------------


def crossing(found: Any) -> dict[str, Any]:
    """A crossing in words, and the gap between the two curves as a figure."""
    low, high = _band(found)
    keep = np.isfinite(found.gap)
    x, names = found.scale[keep], [escape(_plotly._short(n, 40)) for n in found.names]
    data: list[dict[str, Any]] = []
    if low is not None and high is not None:
        both_ways = np.concatenate([high[keep], low[keep][::-1]])
        data.append({"x": _plotly._numbers(np.concatenate([x, x[::-1]])), "y": _plotly._numbers(both_ways),
                     "mode": "lines", "line": {"width": 0, "color": "@data"}, "fill": "toself", "fillcolor": "@data",
                     "opacity": 0.18, "hoverinfo": "skip", "showlegend": True,
                     "name": f"{found.level:g} % interval"})  # fmt: skip
    hover = [f"{escape(found.axis)} {amount(found.axis, a)}<br>gap {g:+.4g}" for a, g in
             zip(x, found.gap[keep], strict=True)]  # fmt: skip
    data.append({"x": _plotly._numbers(x), "y": _plotly._numbers(found.gap[keep]), "mode": "lines",
                 "name": f"{escape(found.target)}: {names[1]} less {names[0]}", "hoverinfo": "text", "hovertext": hover,
                 "line": {"color": "@ink", "width": 2.2}})  # fmt: skip
    for root in found.roots:
        data.append({"x": [root.at], "y": [0], "mode": "markers", "hoverinfo": "x", "name": f"cross at {sci(root.at)}",
                     "marker": {"size": 12, "symbol": "diamond", "color": "@accent"}})  # fmt: skip
    y = _plotly._axis(found.target, f"lead of {found.names[0]}", log=False)
    y |= {"zeroline": True, "zerolinecolor": "@muted"}
    layout = _plotly._layout(_plotly._axis(found.axis, over=x), y, height=420)
    caption = f"Above zero {names[0]} is better, below zero {names[1]}. The band holds {found.level:g} % of the draws."
    return {
        "words": found.table().split("\n"),
        "doubts": list(found.warnings),
        "roots": found.to_dict()["crossings"],
        "figure": {"id": "crossing", "caption": caption, "data": data, "layout": layout},
    }


def _band(found: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    if not len(found.gaps):
        return None, None
    tail = (100 - found.level) / 2
    low, high = np.nanpercentile(np.where(np.isfinite(found.gaps), found.gaps, np.nan), [tail, 100 - tail], axis=0)
    return low, high


# ---- the next runs ---------------------------------------------------------------------------------------------------


def suggestions(found: Any, save: str) -> dict[str, Any]:
    """Suggested runs as words, and as a CSV file at `save`."""
    found.save(save)
    names = list(found.runs[0].columns) if found.runs else []
    rows = [
        [*(amount(c, r.columns[c]) for c in names), sci(r.flops), str(r.seeds),
         f"{amount(found.target, r.low)} to {amount(found.target, r.high)}", f"{100 * r.narrowed:.0f} %"]
        for r in found.runs
    ]  # fmt: skip
    median, low, high = (amount(found.target, v) for v in (found.median, found.low, found.high))
    said = [
        f"Today {found.target} there is {median} ({low} to {high}, at {found.level:g} %).",
        f"These runs cost {sci(found.flops)} of {sci(found.budget)} FLOP and are expected to make the interval "
        f"{100 * found.narrowed:.0f} % narrower.",
        str(found.stop),
    ]
    header = [*names, "FLOP of one", "seeds", f"{found.target} then", "narrower by"]
    return {"header": header, "rows": rows, "count": len(rows), "words": said, "doubts": list(found.warnings)}
