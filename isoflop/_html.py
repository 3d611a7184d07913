"""The report as one page: words, tables, interactive figures, and nothing that is loaded from anywhere.

Every text of the user's passes through html.escape, the data sit in a JSON block that no tag can end, and a content
security policy allows only the two scripts whose hashes it names: a page made of hostile data runs nothing of theirs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import isoflop
from isoflop import _plotly
from isoflop._answer import finite
from isoflop._curves import BAND_DRAWS, amount, sci
from isoflop._page_parts import CSS, JS
from isoflop._report import Grid, both, span

if TYPE_CHECKING:
    from isoflop._report import Report

_MOST_ROWS = 300
_ORDER = ("curve", "truth", "compute", "isoflop", "residuals")  # as they stand on the page
_POWER = re.compile(r"(?<![\w.-])(\d(?:\.\d+)?)e\+?(-?\d+)(?![\w-])")
_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "eta": "η", "lambda": "λ", "mu": "μ", "rho": "ρ",
          "sigma": "σ", "tau": "τ", "phi": "φ"}  # fmt: skip


def page(report: Report, extra: Iterable[tuple[str, str, Grid]] = ()) -> str:
    """The whole page; extra: tables to stand before the provenance, (title, caption, grid).

    Raises ImportError with the install line where plotly is missing.
    """
    library = _library()
    figures = _plotly.specs(report)
    data = {"figures": [{k: v for k, v in f.items() if k != "caption"} for f in figures], "budgets": budgets(report)}
    order = [name for name in _ORDER if any(f["id"] == name for f in figures)]
    drawn = {f["id"]: _figure(f, order.index(f["id"]) + 1) for f in figures}
    body = [_header(report), _law(report, drawn), *_forecasts(report, drawn), *_plans(report, drawn)]
    body += [*_equal_compute(drawn), _misses(drawn)]
    body += [_section(f"more-{k}", escape(title), _table(grid, escape(caption)))
             for k, (title, caption, grid) in enumerate(extra, 1)]  # fmt: skip
    body.append(_provenance(report))
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"script-src {_hash(library)} {_hash(JS)}"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(report.title)}</title>
<style>{CSS}</style>
</head>
<body>
<main>
{"".join(body)}
</main>
<script type="application/json" id="data">{_json(data)}</script>
<script>{library}</script>
<script>{JS}</script>
</body>
</html>
"""


def _library() -> str:
    """Plotly's script. The package ships one bundle only; a smaller one would have to be fetched."""
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise ImportError("the HTML report needs plotly: pip install 'isoflop[plot]'") from error
    return re.sub(r"</(script)", r"<\\/\1", get_plotlyjs(), flags=re.IGNORECASE)


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _json(value: Any) -> str:
    """JSON that may stand inside a script element: neither a tag nor a comment can begin in it."""
    text = json.dumps(finite(value), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def budgets(report: Report) -> list[dict[str, Any]]:
    """What the slider shows at each budget: numbers as `allocate` gives them, and the words for them."""
    column, out = report.meter.column, []
    for budget, answer in report.frontier:
        parts = [
            {
                "name": name,
                "median": q.median,
                "interval": list(q.interval(report.level)),
                "text": amount(name, q.median),
                "span": span(name, q, report.level).strip("-"),
            }
            for name, q in answer.items()
            if name not in report.fixed
        ]
        label = f"{sci(budget)} {'FLOP' if column == 'flops' else column}"
        out.append({"budget": budget, "label": label, "best": answer[report.fit.law.target].best, "parts": parts,
                    "second": _second(report, budget), "beyond": list(answer.warnings)})  # fmt: skip
    return out


def _second(report: Report, budget: float) -> str:
    if not report.isoflops or report.fixed or report.meter.column != "flops":
        return ""
    params = report.isoflops.allocate(budget, level=report.level)["params"]
    return both("params", params, report.level)


# ---- sections --------------------------------------------------------------------------------------------------------


def _header(report: Report) -> str:
    fit, rows = report.fit, report.rows
    spans = ", ".join(f"{escape(c)} {amount(c, low)} to {amount(c, high)}" for c, (low, high) in fit.spans.items()
                      if c in rows.columns)  # fmt: skip
    lede = f"The {escape(fit.law.name)} law, fitted to {fit.n} runs ({_powers(spans)})."
    if report.verdict():
        lede += f" {escape(report.verdict())}."
    return f"""<header>
<h1>{escape(report.title)}</h1>
<p class="lede">{lede}</p>
<p class="fine">In the figures: rest on a point for its numbers, drag to zoom, double-click to return.</p>
{_doubts(report)}</header>
"""


def _doubts(report: Report) -> str:
    if not report.doubts:
        return '<p class="fine">Nothing was found that casts doubt on the fit.</p>\n'
    items = "".join(f"<li>{_powers(escape(d))}</li>" for d in report.doubts)
    return f'<aside class="doubts" aria-labelledby="doubts"><h2 id="doubts">Doubts</h2><ul>{items}</ul></aside>\n'


def _law(report: Report, drawn: dict[str, str]) -> str:
    fit = report.fit
    draws = f"{len(fit.draws)} draws of a {escape(fit.made['uncertainty'])}" if len(fit.draws) else "no draws were made"
    caption = f"Coefficients at the best fit, with central {report.level:g} % intervals ({draws})."
    return _section("law", "The law", f'<p class="formula">{_typeset(fit.law.formula)}</p>\n'
                    + _table(report.coef_grid(), caption, "narrow") + drawn.pop("curve", ""))  # fmt: skip


def _forecasts(report: Report, drawn: dict[str, str]) -> Iterable[str]:
    if report.checks:
        caption = f"Held-out runs: forecasts (medians, {report.level:g} % intervals for a new run) and measurements."
        yield _section("forecasts", "Forecast against truth", drawn.pop("truth") + _table(report.check_grid(), caption))


def _plans(report: Report, drawn: dict[str, str]) -> Iterable[str]:
    inside = drawn.pop("compute", "") + (_slider(report) if report.frontier else "")
    if report.plans:
        caption = f"Plans: {escape(report.plan_words())}. Medians and {report.level:g} % intervals of the draws."
        inside += _table(report.plan_grid(), caption)
    if inside:
        yield _section("plans", "What a budget buys", inside)


def _equal_compute(drawn: dict[str, str]) -> Iterable[str]:
    if "isoflop" in drawn:
        yield _section("isoflop", "At equal compute", drawn.pop("isoflop"))


def _misses(drawn: dict[str, str]) -> str:
    choose = '<label class="choose">against <select id="residual-axis"></select></label>'
    return _section("residuals", "What the law misses", choose + drawn.pop("residuals"))


def _section(name: str, title: str, inside: str) -> str:
    return f'<section aria-labelledby="h-{name}">\n<h2 id="h-{name}">{title}</h2>\n{inside}</section>\n'


def _figure(spec: dict[str, Any], number: int) -> str:
    style = f"min-height:{spec['layout']['height']}px"
    return f"""<figure>
<div class="plot" id="plot-{spec["id"]}" style="{style}"><noscript>Figures need JavaScript.</noscript></div>
<figcaption><b>Figure {number}.</b> {spec["caption"]}</figcaption>
</figure>
"""


def _slider(report: Report) -> str:
    """A budget to choose; the numbers of the middle one stand there for readers without scripts."""
    marks = budgets(report)
    at = _first_choice(report, [m["budget"] for m in marks])
    stats = "".join(
        f'<div><dt>{escape(p["name"])}</dt><dd><output class="value">{escape(p["text"])}</output>'
        f'<output class="span">{escape(p["span"])}</output></dd></div>'
        for p in marks[at]["parts"]
    )
    second = '<p id="second" hidden></p>' if report.isoflops else ""
    return f"""<div class="budget">
<label for="budget">Budget <output id="budget-label" for="budget">{escape(marks[at]["label"])}</output></label>
<input type="range" id="budget" min="0" max="{len(marks) - 1}" value="{at}" step="1">
<dl id="budget-stats">{stats}</dl>
{second}<p id="beyond" hidden></p>
</div>
"""


def _first_choice(report: Report, marks: list[float]) -> int:
    if report.plans:
        return marks.index(min(p.budget for p in report.plans))
    top = float(report.rows.cost.max()) if report.rows.cost is not None else marks[-1]
    return sum(m < 10 * top for m in marks[:-1])


def _table(grid: Grid, caption: str, kind: str = "") -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in grid.header)
    rows = "".join(
        f'<tr><th scope="row">{_cell(row[0])}</th>' + "".join(f"<td>{_cell(c)}</td>" for c in row[1:]) + "</tr>\n"
        for row in grid.rows[:_MOST_ROWS]
    )
    more = f" The first {_MOST_ROWS} of {len(grid.rows)}." if len(grid.rows) > _MOST_ROWS else ""
    return f"""<div class="scroll {kind}" tabindex="0"><table><caption>{caption}{more}</caption>
<thead><tr>{head}</tr></thead><tbody>
{rows}</tbody></table></div>
"""


def _cell(text: str) -> str:
    """A cell, its interval in smaller type below the number."""
    number, _, interval = text.partition(" (")
    if interval.endswith(")") and " to " in interval:
        return f'{_powers(escape(number))} <small class="span">{_powers(escape(interval[:-1]))}</small>'
    return _powers(escape(text))


def _typeset(formula: str) -> str:
    """A formula in ASCII with its exponents raised and its Greek letters as such."""
    out = re.sub(r"\^(\([^()]*\)|-?\w+)", lambda m: f"<sup>{m[1].strip('()').replace('-', '−')}</sup>", escape(formula))
    out = re.sub(rf"\b({'|'.join(_GREEK)})(?=\b|_)", lambda m: _GREEK[m[1]], out)
    return re.sub(r"(?<![\w&])([A-ZΑ-ω])_([A-Za-z0-9]+)", r"\1<sub>\2</sub>", out)


def _powers(escaped: str) -> str:
    """6e18 as 6 × 10 to the 18, in text that is escaped already."""

    def raised(m: re.Match[str]) -> str:
        return ("" if m[1] == "1" else f"{m[1]} × ") + f"10<sup>{int(m[2])}</sup>".replace("-", "−")

    return _POWER.sub(raised, escaped)


def _provenance(report: Report) -> str:
    fit, made = report.fit, report.fit.made
    settings = "".join(f", {k} {v}" for k, v in fit.objective.items() if k not in ("name", "value"))
    files = ", ".join(Path(f).name for f in report.rows.table.where_from.files[:5])
    by = f" over clusters of {made['by']}" if made["by"] else ""
    draws = (
        f"central {report.level:g} % of {len(fit.draws)} draws of a {made['uncertainty']}{by}, seed {made['seed']}; a "
        "forecast of a run adds the scatter of the fitted rows, a plan does not"
    )
    facts = {
        "Rows": f"{fit.n} of {files}" + "".join(f"; {n} left out ({why})" for why, n in made["left_out"].items()),
        "SHA-256 of the rows": made["data_hash"],
        "Objective": f"{fit.objective['name']}{settings}: {fit.objective['value']:.10g} (sum over rows)",
        "Search": f"{fit.agreeing} of {fit.starts} starts agree on the optimum",
        "Intervals": draws if len(fit.draws) else "none: no draws were made",
        "Cost": f"{report.meter.name}: {report.meter.formula}" if report.frontier else "",
        "Filled in": "; ".join(f"{column} by {meter}" for column, meter in made["filled"].items()),
        "Made by": f"isoflop {isoflop.__version__}",
    }
    if report.frontier and len(fit.draws) > BAND_DRAWS:
        facts["Slider"] = f"budgets that were not asked for use {BAND_DRAWS} of the draws"
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items() if v)
    return f"<footer><h2>Provenance</h2><dl>{items}</dl></footer>\n"
