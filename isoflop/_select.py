"""Compare laws by what they forecast for larger runs that were held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import numpy as np

from isoflop import _runs
from isoflop._auto import scale_of, scale_values
from isoflop._display import ShownRanking
from isoflop._fit import Fit, fit, usable_rows
from isoflop._law import Law, bind, get_law
from isoflop._objective import Objective, get_objective
from isoflop._plan import with_scatter

_ROLLING = (0.5, 0.6, 0.7, 0.8, 0.9)  # cuts, as shares of the rows below


@dataclass(frozen=True)
class Score:
    """One law on the held-out rows: relative errors in per cent, and how the 90 % intervals of new runs did."""

    law: str
    error: float  # median of |forecast / truth - 1|, per cent
    worst: float  # 90th percentile of it
    bias: float  # median of forecast / truth - 1, per cent
    coverage: float  # share of truths inside the 90 % interval, per cent
    width: float  # mean width of it relative to the truth, per cent
    wins: float  # share of resamples in which this law's median error is the smallest, per cent
    bic: float  # of the fitted rows, from squared residuals: lower is better
    aicc: float  # the same with Akaike's penalty, corrected for few rows; inf where there are too few
    fit: Fit  # of the last cut


@dataclass(frozen=True, repr=False)
class Ranking(ShownRanking):
    """Scores, best forecast first."""

    scores: tuple[Score, ...]
    n_fitted: int  # of the last cut
    n_held_out: int  # all cuts together
    cuts: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        keys = ("law", "error", "worst", "bias", "coverage", "width", "wins", "bic", "aicc")
        rows = [{k: getattr(s, k) for k in keys} for s in self.scores]
        return {"rows": rows, "n_fitted": self.n_fitted, "n_held_out": self.n_held_out, "cuts": self.cuts,
                "warnings": list(self.warnings)}  # fmt: skip

    def __str__(self) -> str:
        width = max(len("law"), *(len(s.law) for s in self.scores))
        cuts = f" at {self.cuts} cuts" if self.cuts > 1 else ""
        lines = [
            f"fitted on {self.n_fitted} rows, forecast of {self.n_held_out} held out{cuts} (errors and widths in %)",
            f"{'law':<{width}}  {'median':>7} {'p90':>7} {'bias':>7} {'cover90':>8} {'width':>7} {'wins':>5} "
            f"{'BIC':>9} {'AICc':>9}",
        ]
        for s in self.scores:
            numbers = f"{s.error:7.2f} {s.worst:7.2f} {s.bias:+7.2f} {s.coverage:8.0f} {s.width:7.2f} {s.wins:5.0f}"
            lines.append(f"{s.law:<{width}}  {numbers} {s.bic:9.1f} {s.aicc:9.1f}")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Held:
    """A law on one cut: relative errors of its best fit (rows,), of each draw (draws, rows), inside, width."""

    fit: Fit
    relative: np.ndarray
    of_draws: np.ndarray
    inside: np.ndarray
    width: np.ndarray


class _HowFitted(TypedDict, total=False):
    """What `fit` takes besides the law, the rows and the seed; absent where its own default will do."""

    objective: str | Objective | None
    by: str | None
    draws: int


def compare(
    laws: Sequence[str | Law], runs: Any, *, hold_out: str | None = None, axis: str | Mapping[str, str] | None = None,
    target: str | None = None, seed: int = 0, **how: Unpack[_HowFitted],
) -> Ranking:  # fmt: skip
    """Fit each law without the held-out rows and score its forecasts of them.

    hold_out: an expression such as "flops > 1e21"; "rolling": below each of five cuts along scale, what lies above;
    "each COLUMN": every value of a column in turn ("each family"); absent: the largest fifth along scale (flops, else
    the laws' sizes multiplied). objective, by, draws: of each fit, as `fit` takes them.
    Wins count resamples of the held-out rows and draws of each fit, the same resamples for every law.
    Raises as `fit` does, and ValueError where nothing is held out or nothing is left.
    """
    if isinstance(laws, str):
        laws = [laws]
    found = [get_law(law, axis=axis, target=target) if axis else bind(law, target) for law in laws]
    table = _runs.load(runs)
    if len({law.name for law in found}) < len(found):
        raise ValueError("each law may be named once; compare one law on two axes in two calls")
    for law in found:
        table, _ = usable_rows(law, table, get_objective(how.get("objective") or law.objective))
    masks = _masks(table, hold_out, found)
    held = {
        law.name: [_forecast(fit(law, table.select(~m), seed=seed, **how), table.select(m)) for m in masks]
        for law in found
    }
    wins = _wins(list(held.values()), seed)
    scores = [_score(name, parts, share) for (name, parts), share in zip(held.items(), wins, strict=True)]
    scores.sort(key=lambda s: s.error)
    count = int(sum(m.sum() for m in masks))
    doubts = [f"{count} held-out rows tell little"] if count < 5 else []
    if len(scores) > 1 and scores[0].wins < 80:
        doubts.append(f"no clear winner: {scores[0].law} is best in {scores[0].wins:.0f} % of the resamples")
    return Ranking(tuple(scores), int((~masks[-1]).sum()), count, len(masks), tuple(doubts))


def _masks(table: _runs.Table, hold_out: str | None, laws: Sequence[Law]) -> list[np.ndarray]:
    """Held-out rows of each cut."""
    if hold_out and hold_out.startswith("each "):
        values = table[hold_out.removeprefix("each ").strip()].astype(str)
        names = np.unique(values)
        if len(names) < 2:
            raise ValueError(f"{hold_out!r}: the column has one value in {table.name}; nothing would be left to fit")
        return [values == name for name in names]
    if hold_out and hold_out != "rolling":
        from isoflop._where import parse_where

        return [_some(parse_where(hold_out).mask(table.columns), f"hold-out {hold_out!r}", table)]
    scale = "flops" if "flops" in table.columns else scale_of(table, laws)
    values = scale_values(scale, table.columns)
    shares = _ROLLING if hold_out else (0.8,)
    cuts = {tuple(_above(values, share)) for share in shares}
    masks = sorted((np.array(m) for m in cuts), key=lambda m: -int(m.sum()))
    return [_some(m, f"the largest rows by {scale}", table) for m in masks]


def _above(values: np.ndarray, share: float) -> np.ndarray:
    """Rows above a quantile of scale; those at it too where none lie above, as in a ladder's top budget."""
    cut = np.quantile(values, share)
    return values > cut if (values > cut).any() else values >= cut


def _some(held: np.ndarray, what: str, table: _runs.Table) -> np.ndarray:
    if not held.any() or held.all():
        raise ValueError(
            f"{what} holds out {int(held.sum())} of {len(table)} rows of {table.name}; need some on each side"
        )
    return held


def _forecast(fitted: Fit, test: _runs.Table) -> _Held:
    points = {c: np.asarray(test[c], float) for c in fitted.law.table_columns}
    truth = np.asarray(test[fitted.law.target], float)
    sample = fitted.predict_draws(**points)
    none = np.full(len(truth), np.nan)
    low, high = np.nanpercentile(with_scatter(fitted, sample, points), [5, 95], axis=0) if len(sample) else (none, none)
    return _Held(fitted, fitted.predict(**points) / truth - 1.0, sample / truth - 1.0, (low <= truth) & (truth <= high),
                 (high - low) / np.abs(truth))  # fmt: skip


def _wins(held: list[list[_Held]], seed: int, resamples: int = 400) -> list[float]:
    """Share of resamples, in per cent, in which each law's median error is the smallest."""
    rng = np.random.default_rng(seed)
    count = min((len(part.of_draws) for parts in held for part in parts), default=0)
    rows = sum(part.relative.size for part in held[0])
    every = [np.concatenate([p.of_draws[:count] if count else p.relative[None] for p in parts], axis=1)
             for parts in held]  # fmt: skip
    most = min(rows, 2000)  # a median of so many is known well enough
    best = np.zeros(len(held))
    for _ in range(resamples):
        draw, pick = rng.integers(0, max(count, 1)), rng.integers(0, rows, most)
        best[int(np.argmin([np.nanmedian(np.abs(e[draw, pick])) for e in every]))] += 1
    return [float(100 * b / resamples) for b in best]


def _score(law: str, parts: list[_Held], wins: float) -> Score:
    relative = np.concatenate([p.relative for p in parts])
    last = parts[-1].fit
    n, p = last.n, len(last.coef)
    deviance = n * np.log(max(np.mean(last.residuals**2), 1e-300))
    return Score(
        law=law,
        error=float(100 * np.median(np.abs(relative))),
        worst=float(100 * np.percentile(np.abs(relative), 90)),
        bias=float(100 * np.median(relative)),
        coverage=float(100 * np.mean(np.concatenate([p.inside for p in parts]))),
        width=float(100 * np.mean(np.concatenate([p.width for p in parts]))),
        wins=wins,
        bic=float(deviance + p * np.log(n)),
        aicc=float(deviance + 2 * p + 2 * p * (p + 1) / (n - p - 1)) if n > p + 1 else float("inf"),
        fit=last,
    )
