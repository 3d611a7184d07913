"""Compare laws by what they forecast for held-out larger runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isoflop import _runs
from isoflop._fit import Fit, fit, usable_rows
from isoflop._law import Law, get_law
from isoflop._objective import Objective, get_objective
from isoflop._plan import with_scatter


@dataclass(frozen=True)
class Score:
    """One law on the held-out rows: relative errors in per cent, and how the 90 % intervals of new runs did."""

    law: str
    error: float  # median of |forecast / truth - 1|, per cent
    worst: float  # 90th percentile of it
    bias: float  # median of forecast / truth - 1, per cent
    coverage: float  # share of truths inside the 90 % interval, per cent
    width: float  # mean width of it relative to the truth, per cent
    bic: float  # of the fitted rows, from squared residuals: lower is better
    fit: Fit


@dataclass(frozen=True)
class Ranking:
    """Scores, best forecast first."""

    scores: tuple[Score, ...]
    n_fitted: int
    n_held_out: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        keys = ("law", "error", "worst", "bias", "coverage", "width", "bic")
        rows = [{k: getattr(s, k) for k in keys} for s in self.scores]
        return {"rows": rows, "n_fitted": self.n_fitted, "n_held_out": self.n_held_out, "warnings": list(self.warnings)}

    def __str__(self) -> str:
        width = max(len("law"), *(len(s.law) for s in self.scores))
        lines = [
            f"fitted on {self.n_fitted} rows, forecast of {self.n_held_out} held out (errors and widths in %)",
            f"{'law':<{width}}  {'median':>7} {'p90':>7} {'bias':>7} {'cover90':>8} {'width':>7} {'BIC':>9}",
        ]
        for s in self.scores:
            numbers = f"{s.error:7.2f} {s.worst:7.2f} {s.bias:+7.2f} {s.coverage:8.0f} {s.width:7.2f} {s.bic:9.1f}"
            lines.append(f"{s.law:<{width}}  {numbers}")
        return "\n".join(lines)


def compare(
    laws: Sequence[str | Law], runs: Any, *, hold_out: str | None = None,
    axis: str | Mapping[str, str] | None = None, target: str | None = None, objective: str | Objective | None = None,
    draws: int = 200, seed: int = 0,
) -> Ranking:  # fmt: skip
    """Fit each law without the held-out rows and score its forecasts of them.

    hold_out: an expression such as "flops > 1e21"; where absent, the rows of the largest fifth by flops, else by the
    law's first column. Raises as `fit` does, and ValueError where nothing is held out or nothing is left.
    """
    if isinstance(laws, str):
        laws = [laws]
    found = [get_law(law, axis=axis, target=target) for law in laws]
    table = _runs.load(runs)
    for law in found:
        table, _ = usable_rows(law, table, get_objective(objective or law.objective))
    held = _held_out(table, hold_out, found[0])
    rest, test = table.select(~held), table.select(held)
    scores = [_score(law, rest, test, objective, draws, seed) for law in found]
    scores.sort(key=lambda s: s.error)
    doubts = [f"{len(test)} held-out rows tell little"] if len(test) < 5 else []
    return Ranking(tuple(scores), len(rest), len(test), tuple(doubts))


def _held_out(table: _runs.Table, hold_out: str | None, law: Law) -> np.ndarray:
    if hold_out:
        from isoflop._where import parse_where

        held = parse_where(hold_out).mask(table.columns)
        what = f"hold-out {hold_out!r}"
    else:
        column = "flops" if "flops" in table.columns else law.table_columns[0]
        values = np.asarray(table[column], float)
        held = values > np.quantile(values, 0.8)
        what = f"the largest fifth by {column}"
    if not held.any() or held.all():
        raise ValueError(
            f"{what} holds out {int(held.sum())} of {len(table)} rows of {table.name}; need some on each side"
        )
    return held


def _score(law: Law, rest: _runs.Table, test: _runs.Table, objective: Any, draws: int, seed: int) -> Score:
    fitted = fit(law, rest, objective=objective, draws=draws, seed=seed)
    points = {c: np.asarray(test[c], float) for c in law.table_columns}
    truth = np.asarray(test[law.target], float)
    relative = fitted.predict(**points) / truth - 1.0
    sample = with_scatter(fitted, fitted.predict_draws(**points))
    low, high = np.nanpercentile(sample, [5, 95], axis=0) if len(sample) else (truth * np.nan, truth * np.nan)
    n, p = fitted.n, len(fitted.coef)
    return Score(
        law=law.name,
        error=float(100 * np.median(np.abs(relative))),
        worst=float(100 * np.percentile(np.abs(relative), 90)),
        bias=float(100 * np.median(relative)),
        coverage=float(100 * np.mean((low <= truth) & (truth <= high))),
        width=float(100 * np.mean((high - low) / np.abs(truth))),
        bic=float(n * np.log(max(np.mean(fitted.residuals**2), 1e-300)) + p * np.log(n)),
        fit=fitted,
    )
