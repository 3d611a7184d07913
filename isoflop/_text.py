"""Fits and plans as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isoflop._fit import Fit


def fit_text(fit: Fit) -> str:
    """The law, its coefficients with intervals, how the optimum was found, and every doubt."""
    o = fit.objective
    settings = "".join(f", {k} {v}" for k, v in o.items() if k not in ("name", "value"))
    lines = [
        f"{fit.law.name}: {fit.law.formula}",
        f"{fit.n} rows, {o['name']}{settings}: {o['value']:.10g}; {fit.agreeing} of {fit.starts} starts agree",
        "",
    ]
    width = max(map(len, fit.coef))
    intervals = fit.interval()
    for name, value in fit.coef.items():
        low, high = intervals[name]
        ends = f" [{low:.5g}, {high:.5g}]" if len(fit.draws) else ""
        lines.append(f"  {name:<{width}}  {value:<12.6g}{ends}".rstrip())
    if len(fit.draws):
        lines.append(f"  ({fit.level:g} % intervals, {len(fit.draws)} draws of a {fit.made['uncertainty']})")
    return "\n".join([*lines, *(f"warning: {w}" for w in fit.warnings)])
