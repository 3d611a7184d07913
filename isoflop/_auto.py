"""fit("auto", ...): several laws, weighed by how they forecast larger runs from smaller ones, in one forecast.

Inside the rows given, and nowhere else: each law is fitted below several cuts along scale and forecasts what lies
above (rolling hold-out). From these forecasts come the laws' weights (predictive stacking, held towards what all tables
say of a law and towards fewer coefficients), and what the laws' own uncertainty leaves out: by how much errors exceed
the posterior's spread, and how an error of form grows with the distance from the rows, as sd = growth x distance^1.25
with the distance in natural logs of scale. Forecasts of tables that stand together share all of that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import lgamma
from typing import Any

import numpy as np

import isoflop
from isoflop import _meter, _panel, _runs
from isoflop._answer import Answer, Quantity
from isoflop._columns import Table
from isoflop._display import ShownStack
from isoflop._fit import Fit, write_whole
from isoflop._law import Law, bind, get_law
from isoflop._panel import Modes, Panel
from isoflop._progress import progress

_ONE_COLUMN = ("power_offset", "power", "power_shift", "bnsl")
_SIZE_AND_DATA = ("chinchilla", "kaplan", "overtraining")
_CUTS = (0.5, 0.65, 0.8)  # of the range of log scale
_INNER_DRAWS = 16
_POWER = 1.25  # an error of form grows a little faster than the distance
_STRETCH = np.array([1.0, 1.4, 2.0])
_GROWTH = np.array([0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.13])
_USUAL_GROWTH = (0.008, 0.6)  # median, sd of its log
_WORTH = 2.0  # rows of one cut say about as much as two: their errors go together
_PARSIMONY = 0.5  # of the log weight, a coefficient
_BORROWED = 2.0
_SIZES = ("params", "params_active", "params_nonembed", "tokens")
_ARRAYS = ("mode", "draws", "stretch", "growth")
_MOST_ROWS = 3000
_LEAST = 0.005  # weights below are not worth their draws
_PER_RUN, _RUN_WORTH = 48, 12.0  # checkpoints kept of a run, and how many independent rows they are worth


@dataclass(frozen=True)
class Part:
    """One law in a Stack. draws (k, p + 1): unconstrained coefficients and log scale; mode: their centre."""

    law: Law
    weight: float
    coef: dict[str, float]
    mode: np.ndarray = field(repr=False)
    draws: np.ndarray = field(repr=False)
    stretch: np.ndarray = field(repr=False)  # of the spread, a draw
    growth: np.ndarray = field(repr=False)  # of the error of form, a draw
    df: float = 4.0


@dataclass(frozen=True, repr=False)
class Stack(ShownStack):
    """Laws that forecast together. What `Fit` has: predict, predict_draws, forecast."""

    parts: tuple[Part, ...]
    target: str
    scale: str  # the column, or "a x b", that orders the rows from small to large
    largest: float
    n: int
    warnings: tuple[str, ...]
    seed: int
    spans: dict[str, tuple[float, float]]
    everything: tuple[Part, ...] = ()  # parts, and the laws of next to no weight

    @property
    def law(self) -> Law:
        """The law of most weight."""
        return self.parts[0].law

    def alone(self, law: str) -> Stack:
        """One of the candidate laws by itself. Raises LookupError where it is not one of them."""
        for part in self.everything:
            if part.law.name == law:
                return replace(self, parts=(replace(part, weight=1.0),), everything=())
        raise LookupError(f"{law!r} is not one of {', '.join(p.law.name for p in self.everything)}")

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of the laws and of scale."""
        return tuple(dict.fromkeys([*self.columns, *_scale_columns(self.scale)]))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that a forecast needs."""
        return tuple(dict.fromkeys(c for p in self.parts for c in p.law.table_columns))

    def predict(self, **columns: Any) -> np.ndarray:
        """The median forecast; columns as arrays of one shape."""
        points = _points(columns)
        logs = sum(p.weight * self._centre(p, points) for p in self.parts)
        return np.exp(np.asarray(logs)).reshape(np.shape(next(iter(columns.values()))))

    def predict_draws(self, *, kind: Any = "run", count: Any = 1000, **columns: Any) -> np.ndarray:
        """Draws (count, points) of what a new run measures (kind "run") or of where the curve passes ("law")."""
        if kind not in ("run", "law"):
            raise ValueError(f"kind is 'run' or 'law', got {kind!r}")
        points = _points(columns)
        rng = np.random.default_rng([self.seed, count])
        distance = self._distance(points)
        shares = _apportion([p.weight for p in self.parts], count)
        middle = np.log(self.predict(**points))
        out = [
            self._part_draws(p, k, points, distance, kind, rng) for p, k in zip(self.parts, shares, strict=True) if k
        ]
        logs = np.vstack(out)
        return np.exp(logs + middle - np.median(logs, axis=0))

    def _centre(self, part: Part, points: Mapping[str, np.ndarray]) -> np.ndarray:
        """Half way between the mode, which no draw's luck moves, and the draws' median, which its curvature does."""
        logs = _panel.log_predictions(part.law, np.vstack([part.mode, part.draws]), points)
        return 0.5 * (logs[0] + np.median(logs[1:], axis=0))

    def _part_draws(self, part: Part, count: int, points: Mapping[str, np.ndarray], distance: np.ndarray, kind: str,
                    rng: np.random.Generator) -> np.ndarray:  # fmt: skip
        pick = rng.integers(0, len(part.draws), count)
        logs = _panel.log_predictions(part.law, part.draws, points)
        middle = np.median(logs, axis=0)
        which = rng.integers(0, len(part.stretch), count)
        out = middle + part.stretch[which, None] * (logs[pick] - middle)
        out = out + rng.standard_t(4, (count, 1)) * part.growth[which, None] * distance
        if kind == "run":
            out = out + rng.standard_t(part.df, out.shape) * np.exp(part.draws[pick, -1])[:, None]
        return out

    def _distance(self, points: Mapping[str, np.ndarray]) -> np.ndarray:
        return distance(scale_values(self.scale, points), self.largest)

    def forecast(self, *, level: float | Sequence[float] = 90, kind: str = "run", **columns: float) -> Answer:
        """The target at one point, with intervals: see isoflop.forecast."""
        given = {c: float(v) for c, v in columns.items()}
        missing = [c for c in (*self.columns, *_scale_columns(self.scale)) if c not in given]
        if missing:
            raise ValueError(f"column {missing[0]!r} is not given; the forecast takes {', '.join(self.columns)}")
        sample = self.predict_draws(kind=kind, count=2000, **given)[:, 0]
        levels = (float(level),) if isinstance(level, int | float) else tuple(float(v) for v in level)
        from isoflop._plan import beyond

        best = float(np.ravel(self.predict(**given))[0])
        doubts = tuple(beyond(self.spans, {c: v for c, v in given.items() if c in self.spans}))
        return Answer({self.target: Quantity(best, sample)}, levels, doubts)

    @property
    def leading(self) -> Fit:
        """The law of most weight as a Fit, for plans, which follow one law."""
        part = self.parts[0]
        return Fit(
            law=part.law, coef=part.coef, draws=part.law.outward(part.draws[:, :-1]), n=self.n, starts=0, agreeing=0,
            objective={"name": "student_t"}, warnings=self.warnings, spans=self.spans, residuals=np.zeros(1),
            made={"law": part.law.name, "uncertainty": "posterior draws", "seed": self.seed, "by": None, "filled": {},
                  "left_out": {}, "data_hash": "", "isoflops": None, "weight": part.weight})  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, whole or not at all. `Fit.load` reads it back."""

        def plain(part: Part) -> dict[str, Any]:
            arrays = {k: getattr(part, k).tolist() for k in _ARRAYS}
            return {"law": part.law.name, "axis": dict(part.law.axis), "weight": part.weight, "coef": part.coef,
                    "df": part.df, **arrays}  # fmt: skip

        whole = {"format": 1, "kind": "stack", "isoflop": isoflop.__version__, "parts": [plain(p) for p in self.parts]}
        whole |= {k: getattr(self, k) for k in ("target", "scale", "largest", "n", "warnings", "seed", "spans")}
        write_whole(path, json.dumps(whole, indent=1))

    @classmethod
    def from_dict(cls, whole: Mapping[str, Any]) -> Stack:
        """What `save` wrote. Raises KeyError or TypeError where it is not that."""
        parts = tuple(
            Part(get_law(p["law"], axis=p["axis"] or None, target=whole["target"]), p["weight"], p["coef"], df=p["df"],
                 **{k: np.array(p[k], float) for k in _ARRAYS}) for p in whole["parts"])  # fmt: skip
        spans = {k: (float(v[0]), float(v[1])) for k, v in whole["spans"].items()}
        kept = {k: whole[k] for k in ("target", "scale", "largest", "n", "seed")}
        return cls(parts, warnings=tuple(whole["warnings"]), spans=spans, **kept)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers: the laws with their weights and coefficients."""
        laws = [{"law": p.law.name, "weight": p.weight, "coef": p.coef, "growth": float(np.median(p.growth)),
                 "noise": float(np.exp(np.median(p.draws[:, -1])))} for p in self.parts]  # fmt: skip
        return {"law": "auto", "target": self.target, "laws": laws, "n": self.n, "scale": self.scale,
                "warnings": list(self.warnings)}  # fmt: skip

    def __str__(self) -> str:
        lines = [f"auto, {self.target} from {self.n} rows ordered by {self.scale}", f"{'law':<18} weight  coefficients"]
        for p in self.parts:
            coefs = "  ".join(f"{k} {v:.4g}" for k, v in p.coef.items())
            lines.append(f"{p.law.name:<18} {p.weight:6.2f}  {coefs}")
        return "\n".join([*lines, *(f"warning: {w}" for w in self.warnings)])


def _points(columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {c: np.atleast_1d(np.asarray(v, float)).ravel() for c, v in columns.items()}


def _apportion(weights: Sequence[float], count: int) -> list[int]:
    """Whole shares of count, by largest remainder."""
    exact = np.asarray(weights) * count
    out = np.floor(exact).astype(int)
    out[np.argsort(out - exact, kind="stable")[: count - int(out.sum())]] += 1
    return [int(k) for k in out]


# ---- scale -----------------------------------------------------------------------------------------------------------


def scale_of(table: Table, laws: Sequence[Law]) -> str:
    """What orders runs from small to large: the laws' sizes multiplied, else flops, else their first column."""
    own = own_scale(laws[0])
    return "flops" if own not in _SIZES and " x " not in own and "flops" in table.columns else own


def own_scale(law: Law) -> str:
    """The law's sizes multiplied, else its first column."""
    return " x ".join(c for c in _SIZES if c in law.table_columns) or law.table_columns[0]


def distance(size: np.ndarray, largest: float) -> np.ndarray:
    """How far beyond the rows, as an error of form sees it: natural logs of scale, to the power 1.25."""
    return np.maximum(np.log(size / largest), 0.0) ** _POWER


def _scale_columns(scale: str) -> list[str]:
    return scale.split(" x ")


def scale_values(scale: str, columns: Any) -> np.ndarray:
    """The scale of each row: one column, or several multiplied."""
    out = np.ones(1)
    for name in _scale_columns(scale):
        out = out * np.asarray(columns[name], float)
    return out


# ---- many tables -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cut:
    """One rolling hold-out: errors of log forecasts above a cut (rows,), their variance, noise, distance."""

    table: int
    error: np.ndarray
    variance: np.ndarray
    noise: float
    distance: np.ndarray


@dataclass(frozen=True)
class _Entry:
    """A law on all tables."""

    panel: Panel
    modes: Modes
    draws: np.ndarray
    cuts: list[_Cut]


def fit_auto(runs: Any, *, axis: Any = None, target: str | None = None, by: str | None = None, draws: int = 200,
             seed: int = 0) -> Stack:  # fmt: skip
    """What fit("auto", ...) does: the usual laws for the table's columns, weighed inside it.

    With params and tokens: chinchilla, kaplan, overtraining; with an axis (or flops alone): the laws of one column.
    Raises RunsError where the table has neither.
    """
    table = _runs.load(runs)
    if by and by != "run":
        table = table.with_column("run", table[by].astype(str).astype(object))
    both = {"params", "tokens"} <= set(table.columns)
    single = axis if isinstance(axis, str) else None
    if single is None and not both:
        if "flops" not in table.columns:
            raise _runs.RunsError(
                f"{table.name} has neither params and tokens nor flops; say which column to fit along (axis=...)"
            )
        single = "flops"
    laws = [(name, single) for name in _ONE_COLUMN] if single else list(_SIZE_AND_DATA)
    return auto({"": table}, laws, target=target or "loss", scale=single, draws=draws, seed=seed)[""]


def auto(tables: Mapping[str, Table], laws: Sequence[Any], *, target: str | None = None, scale: str | None = None,
         draws: int = 120, seed: int = 0) -> dict[str, Stack]:  # fmt: skip
    """A Stack for each table, with strength borrowed between them.

    laws: candidates, as names, Laws or (law, axis) pairs. scale: the column that orders the rows. A column `run` makes
    rows of one run stand together: it is thinned, and counts as a few rows. Raises RunsError where no law can be used.
    """
    found = [bind(law, target) for law in laws]
    if not found:
        raise ValueError("give at least one candidate law")
    keys = list(tables)
    first = tables[keys[0]]
    scale = scale or scale_of(first, found)
    for table in tables.values():
        _runs.check(table, need=_scale_columns(scale), target=found[0].target, positive=[*_scale_columns(scale),
                    found[0].target], unique=())  # fmt: skip
    tidy = [_tidy(t, found[0], scale) for t in tables.values()]
    entries, refused = [], []
    with progress("candidate laws", len(found)) as tick:
        for law in found:
            try:
                entries.append(_entry(law, tidy, scale, draws, seed))
            except _runs.RunsError as error:
                refused.append(f"{law.name} is left out: {error}")
            tick(1)
    if not entries:
        raise _runs.RunsError(refused[0].replace(" is left out", ""))
    weights, posteriors = _weigh(entries)
    return {key: _stacked(entries, weights[g], posteriors, g, scale, tidy[g], tuple(refused), seed)
            for g, key in enumerate(keys)}  # fmt: skip


def _tidy(table: Table, law: Law, scale: str) -> Table:
    """Of each run at most so many checkpoints, evenly placed, close ones by their median, worth a few rows together."""
    if "run" not in table.columns:
        return table
    target = law.target
    order = next((c for c in ("step", "tokens") if c in table.columns), _scale_columns(scale)[0])
    place, value = np.asarray(table[order], float), np.asarray(table[target], float).copy()
    runs, weight, keep = table["run"].astype(str), np.ones(len(table)), []
    for run in np.unique(runs):
        rows = np.flatnonzero(runs == run)
        rows = rows[np.argsort(place[rows], kind="stable")]
        at = place[rows]
        edges = np.floor((at - at[0]) / max(at[-1] - at[0], 1e-300) * _PER_RUN) if len(np.unique(at)) > _PER_RUN else at
        chosen = []
        for edge in np.unique(edges):
            near = rows[edges == edge]
            middle = near[len(near) // 2]
            value[middle] = np.median(value[near])
            chosen.append(middle)
        weight[chosen] = min(1.0, _RUN_WORTH / len(chosen))
        keep += chosen
    return table.with_column(target, value).with_column("weight", weight).select(np.sort(np.array(keep)))


def _entry(law: Law, tables: Sequence[Table], scale: str, count: int, seed: int) -> _Entry:
    rng = np.random.default_rng(seed)
    panel = _panel.panel(law, tables)
    at = _panel.modes(panel, seed=seed)
    sample = _panel.draws(panel.problem, at, count=count, rng=rng)
    return _Entry(panel, at, sample, _rolling(panel, at, scale, rng))


def _rolling(panel: Panel, at: Modes, scale: str, rng: np.random.Generator) -> list[_Cut]:
    """Forecasts above every cut of every table from the rows below it."""
    sizes = [scale_values(scale, s.table.columns) for s in panel.setups]
    todo = [(g, below) for g, size in enumerate(sizes) for below in _cuts(size, len(panel.law.coefs))]
    if not todo:
        return []
    index, masks = np.array([g for g, _ in todo]), [below for _, below in todo]
    part = _panel.some_rows(panel, list(index), masks)
    shared = type(at.shared)(at.shared.centre[index], at.shared.precision[index])
    found = _panel.refit(part, at.theta[index], shared)
    sample = _panel.draws(part, found, count=_INNER_DRAWS, rng=rng)
    out = []
    for k, (g, below) in enumerate(todo):
        setup = panel.setups[g]
        above = {c: v[~below] for c, v in setup.columns.items()}
        logs = _panel.log_predictions(panel.law, np.vstack([found.theta[k], sample[k]]), above)
        middle = 0.5 * (logs[0] + np.median(logs[1:], axis=0))
        error = np.log(above[panel.law.target]) - middle
        if np.isfinite(error).all():
            distance = np.log(sizes[g][~below] / sizes[g][below].max()) ** _POWER
            out.append(_Cut(g, error, logs[1:].var(axis=0), float(np.exp(2 * found.theta[k, -1])), distance))
    return out


def _cuts(size: np.ndarray, coefs: int) -> Iterator[np.ndarray]:
    """Masks of the rows below each cut: between levels of scale, enough rows below, no cut twice."""
    log = np.log(size)
    levels = np.unique(log)
    least = 4 if len(size) <= 6 else max(4, coefs, int(0.3 * len(size)))
    done: set[int] = set()
    if len(levels) < 3:
        return
    for share in _CUTS:
        place = int(np.clip(np.searchsorted(levels, levels[0] + share * (levels[-1] - levels[0]), side="right"), 1,
                            len(levels) - 1))  # fmt: skip
        while (log <= levels[place - 1] + 1e-12).sum() < least and place < len(levels) - 1:
            place += 1
        below = log <= levels[place - 1] + 1e-12
        if below.sum() >= min(least, len(size) - 1) and place not in done:
            done.add(place)
            yield below


def _weigh(entries: Sequence[_Entry]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Weights (tables, laws), and of each law the posterior over stretch and growth."""
    tables = len(entries[0].panel)
    scores, worth, posteriors = np.zeros((len(entries), tables)), np.zeros((len(entries), tables)), []
    for k, entry in enumerate(entries):
        each = np.zeros((tables, len(_STRETCH), len(_GROWTH)))
        for cut in entry.cuts:
            count = min(len(cut.error), _WORTH)
            each[cut.table] += count * _log_score(cut)
            worth[k, cut.table] += count
        log = _log_prior() + each.sum(axis=0)
        posterior = np.exp(log - log.max())
        posteriors.append(posterior / posterior.sum())
        scores[k] = np.einsum("gks,ks->g", each, posteriors[-1])
    log = scores.copy()
    if tables > 1:  # a law's mean score elsewhere, as so many rows more
        others = (scores.sum(axis=1, keepdims=True) - scores) / np.maximum(
            worth.sum(axis=1, keepdims=True) - worth, 1.0
        )
        log += _BORROWED * min(tables - 1, 5) * others
    log -= _PARSIMONY * np.array([[len(e.panel.law.coefs)] for e in entries])
    weights = np.exp(log - log.max(axis=0))
    return (weights / weights.sum(axis=0)).T, posteriors


def calibration(law: Law, table: Table, *, seed: int) -> dict[str, Any]:
    """What a law's own uncertainty leaves out, by forecasts inside the rows: see the top of this file. Plain numbers.

    stretch and growth: 50 draws of each from what the cuts say; noise_slope: by how much the log of the noise grows
    with the log of scale; scale, largest, middle: where the rows lie.
    """
    scale = own_scale(law)
    tidy = _tidy(table, law, scale)
    if len(tidy) > _MOST_ROWS:
        tidy = tidy.select(np.sort(np.random.default_rng(seed).choice(len(tidy), _MOST_ROWS, replace=False)))
    panel = _panel.panel(law, [tidy])
    modes = _panel.modes(panel, seed=seed)
    cuts = _rolling(panel, modes, scale, np.random.default_rng(seed))
    log = _log_prior() + sum((min(len(c.error), _WORTH) * _log_score(c) for c in cuts), np.zeros(()))
    posterior = np.exp(log - log.max())
    pick = np.random.default_rng(seed).choice(posterior.size, 50, p=(posterior / posterior.sum()).ravel())
    sizes = scale_values(scale, tidy.columns)
    return {
        "scale": scale,
        "largest": float(sizes.max()),
        "middle": float(np.exp(np.log(sizes).mean())),
        "stretch": _STRETCH[pick // len(_GROWTH)].tolist(),
        "growth": _GROWTH[pick % len(_GROWTH)].tolist(),
        "noise_slope": _noise_slope(np.log(sizes), panel.setups[0].residuals(_coefs(law, modes.theta[0]))),
        "cuts": len(cuts),
    }


def _coefs(law: Law, theta: np.ndarray) -> dict[str, float]:
    return dict(zip(law.coefs, map(float, law.outward(theta[: len(law.coefs)])), strict=True))


def _noise_slope(size: np.ndarray, residual: np.ndarray) -> float:
    """Slope of log |residual| in log scale, held towards zero (sd .2 a unit) and within .5 of it."""
    away = size - size.mean()
    height = np.log(np.maximum(np.abs(residual), 1e-3 * np.median(np.abs(residual)) + 1e-300))
    spread = 1.6  # sd of log |t|
    slope = (away @ (height - height.mean())) / (away @ away + (spread / 0.2) ** 2)
    return float(np.clip(slope, -0.5, 0.5)) if np.isfinite(slope) else 0.0


def _log_prior() -> np.ndarray:
    usual, spread = _USUAL_GROWTH
    return -0.5 * (np.log(_STRETCH[:, None]) / 0.3) ** 2 - 0.5 * (np.log(_GROWTH / usual) / spread) ** 2


def _log_score(cut: _Cut) -> np.ndarray:
    """Mean log density of the errors, (stretch, growth), as Student-t with 4 degrees of freedom."""
    variance = _STRETCH[:, None, None] ** 2 * cut.variance + cut.noise + (_GROWTH[:, None] * cut.distance) ** 2
    constant = lgamma(2.5) - lgamma(2.0) - 0.5 * np.log(4.0 * np.pi)
    density = constant - 0.5 * np.log(variance) - 2.5 * np.log1p(cut.error**2 / variance / 4.0)
    return np.asarray(density.mean(axis=-1))


def _stacked(entries: Sequence[_Entry], weights: np.ndarray, posteriors: Sequence[np.ndarray], g: int, scale: str,
             table: Table, refused: tuple[str, ...], seed: int) -> Stack:  # fmt: skip
    parts = []
    rng = np.random.default_rng([seed, g])
    for entry, weight, posterior in zip(entries, weights, posteriors, strict=True):
        law, theta = entry.panel.law, entry.modes.theta[g]
        pick = rng.choice(posterior.size, 200, p=posterior.ravel())
        coef = _coefs(law, theta)
        parts.append(Part(law, float(weight), coef, theta, entry.draws[g], _STRETCH[pick // len(_GROWTH)],
                          _GROWTH[pick % len(_GROWTH)], entry.panel.problem.objective.df))  # fmt: skip
    parts.sort(key=lambda p: -p.weight)
    kept = [p for p in parts if p.weight >= _LEAST]
    total = sum(p.weight for p in kept)
    kept = [replace(p, weight=p.weight / total) for p in kept]
    largest = float(scale_values(scale, table.columns).max())
    columns = dict.fromkeys([*(c for p in kept for c in p.law.table_columns), *_scale_columns(scale)])
    derived, _ = _meter.derive(table, tuple(columns))
    spans = {c: (float(np.min(v)), float(np.max(v))) for c in columns if (v := np.asarray(derived[c], float)).size}
    doubts = list(refused)
    if not any(c.table == g for e in entries for c in e.cuts):
        doubts.append("too few levels of scale to try a forecast inside the rows: how errors grow is assumed, not seen")
    return Stack(tuple(kept), entries[0].panel.law.target, scale, largest, len(table), tuple(doubts), seed, spans,
                 tuple(parts))  # fmt: skip
