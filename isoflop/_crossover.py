"""Where one recipe overtakes another: the scale at which two fitted curves meet, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop._answer import Quantity, finite
from isoflop._columns import RunsError, Table
from isoflop._law import Law, get_law
from isoflop._meter import get_meter
from isoflop._plan import _LOWER_IS_BETTER, allocate

if TYPE_CHECKING:
    from isoflop._fit import Fit

_REACH = 1e3  # how far beyond the rows a crossing is looked for, as a factor on both sides
_POINTS, _METERED_POINTS = 481, 97  # of the curves; each metered point is an allocation of its own
_PAIRS = 2000  # draws of one fit meet draws of the other at random
_WIDE = 3.0  # decades: an interval wider than this locates nothing


@dataclass(frozen=True)
class Root:
    """One meeting point. `draws` has one number a pair of draws: 0 or inf where the two meet, if at all, beyond the
    span on that side; nan where they meet only the other way round."""

    at: float
    before: str  # who is better at smaller scales
    after: str
    draws: np.ndarray = field(repr=False)

    @property
    def quantity(self) -> Quantity:
        """The scale with the draws that meet inside the span."""
        return Quantity(self.at, np.where(self.draws > 0, self.draws, np.nan))

    def interval(self, level: float = 90) -> tuple[float, float]:
        """Central interval over the draws, in per cent; an end is 0 or inf where it lies beyond the span."""
        if not 0 < level < 100:
            raise ValueError(f"level is in per cent, between 0 and 100; got {level:g}")
        good = self.draws[~np.isnan(self.draws)]
        if not good.size:
            return (float("nan"), float("nan"))
        tail = (100 - level) / 200
        low, high = np.quantile(good, [tail, 1 - tail], method="inverted_cdf")
        return float(low), float(high)


@dataclass(frozen=True)
class Distinct:
    """The smallest scale at which runs of both recipes show the winner; nan where none in the span does."""

    winner: str
    target: float
    sure: float  # share of draws in which the winner wins at the target
    scale: float
    power: float  # asked for
    runs: int  # of each recipe

    def __str__(self) -> str:
        who = f"{self.winner} is better at {self.target:.4g} in {100 * self.sure:.0f} % of the draws"
        each = f"{self.runs} run{'s' if self.runs > 1 else ''} of each"
        if np.isnan(self.scale):
            return f"{who}; nowhere in the span would {each} show it with power {self.power:g}"
        return f"{who}; {each} at {self.scale:.4g} would show it with power {self.power:g}"


@dataclass(frozen=True)
class Crossing:
    """Two curves along one axis. `gaps` (pairs of draws, points of `scale`) is above zero where the first is better."""

    names: tuple[str, str]
    axis: str
    target: str
    roots: tuple[Root, ...]
    share: float  # of the draws that meet anywhere in the span; nan without draws
    warnings: tuple[str, ...]
    level: float
    scale: np.ndarray = field(repr=False)
    gap: np.ndarray = field(repr=False)  # of the best fits
    gaps: np.ndarray = field(repr=False)
    noise: np.ndarray = field(repr=False)  # standard deviation of the difference of two single runs

    def better(self, at: float) -> tuple[str, float]:
        """Who is better at one scale inside the span, and in which share of the draws."""
        sure = float(np.mean(self._column(self.gaps, at) > 0)) if len(self.gaps) else float("nan")
        first = bool(self._column(self.gap[None], at)[0] > 0)
        return self.names[0 if first else 1], sure if first else 1 - sure

    def distinguishable(self, at: float, *, power: float = 0.8, runs: int = 1) -> Distinct:
        """The smallest scale at which `runs` runs of each recipe show, one-sided at 5 %, who is better at `at`.

        Power is the mean over the draws of Phi(gap / (noise / sqrt(runs)) - 1.645), the noise being the scatter of the
        fitted rows about each law. Raises ValueError outside the span or for a power outside (0, 1).
        """
        if not 0 < power < 1 or runs < 1:
            raise ValueError(f"power lies between 0 and 1 and runs is 1 or more; got {power:g} and {runs}")
        winner, sure = self.better(at)
        sign = 1.0 if winner == self.names[0] else -1.0
        gaps = self.gaps if len(self.gaps) else self.gap[None]
        with np.errstate(divide="ignore", invalid="ignore"):
            seen = np.nanmean(_phi(sign * gaps * np.sqrt(runs) / self.noise - 1.645), axis=0)
        enough = np.flatnonzero((seen >= power) & (sign * self.gap > 0))
        where = float(self.scale[enough[0]]) if enough.size else float("nan")
        return Distinct(winner, float(at), sure, where, power, runs)

    def _column(self, rows: np.ndarray, at: float) -> np.ndarray:
        if not self.scale[0] <= at <= self.scale[-1]:
            raise ValueError(f"{self.axis} {at:.4g} lies outside the span {self.scale[0]:.4g} to {self.scale[-1]:.4g}")
        logs, x = np.log(self.scale), np.log(at)
        k = int(np.clip(np.searchsorted(logs, x) - 1, 0, len(logs) - 2))
        part = (x - logs[k]) / (logs[k + 1] - logs[k])
        return (1 - part) * rows[:, k] + part * rows[:, k + 1]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers; an interval's end that lies beyond the span is null."""
        roots = [{"at": r.at, "median": r.quantity.median, "interval": _open(r.interval(self.level)),
                  "before": r.before, "after": r.after} for r in self.roots]  # fmt: skip
        return finite({"first": self.names[0], "second": self.names[1], "axis": self.axis, "target": self.target,
                       "level": self.level, "crossings": roots, "share": self.share,
                       "span": [self.scale[0], self.scale[-1]], "warnings": list(self.warnings)})  # fmt: skip

    def table(self) -> str:
        """What was found, without the doubts."""
        first, second = self.names
        span = f"{self.axis} {self.scale[0]:.4g} to {self.scale[-1]:.4g}"
        lines = [f"{first} against {second} in {self.target}, {span}"]
        for r in self.roots:
            low, high = r.interval(self.level)
            ends = f"[{'below the span' if low == 0 else f'{low:.4g}'}, " + (
                f"{'above the span' if np.isinf(high) else f'{high:.4g}'}]")  # fmt: skip
            ends = "" if np.isnan(low) else f" {ends} ({self.level:g} % interval)"
            lines.append(f"cross at {self.axis} {r.at:.5g}{ends}: {r.before} is better before, {r.after} after")
        if not self.roots:
            lines.append(f"the best fits do not cross: {self.better(self.scale[len(self.scale) // 2])[0]} is better")
        if len(self.gaps):
            lines.append(f"{100 * self.share:.0f} % of the draws cross in this span")
        return "\n".join(lines)

    def __str__(self) -> str:
        return "\n".join([self.table(), *(f"warning: {w}" for w in self.warnings)])


def crossover(
    first: Fit, second: Fit, *, axis: str | None = None, at: Mapping[str, Any] | None = None, meter: Any = None,
    span: tuple[float, float] | None = None, level: float = 90, names: tuple[str, str] = ("first", "second"),
) -> Crossing:  # fmt: skip
    """The scale at which one fitted curve overtakes another, with its interval over the draws of both.

    axis: the column to compare along; needed where a law has several, the others being held at `at`. meter: instead,
    compare at equal cost, each law at its own best allocation of every budget (`at`: columns held fixed, settings of
    the meter). span: where to look; by default the rows of both and three decades beyond. Draws of the two fits are
    paired at random, as of independent runs.

    All meeting points of the best fits are found, save two between neighbours of the span's 481 points (97 with meter).
    Source: crossover of scaling laws, the idea of arXiv 2409.15156; root and interval are ours.

    Raises ValueError where the fits differ in target or lack the axis, a column is not held, or the span is empty.
    """
    from isoflop._fit import Fit

    if not (isinstance(first, Fit) and isinstance(second, Fit)):
        raise ValueError("a crossover is of two fits of one law each; fit each recipe with a law of its own")
    if first.law.target != second.law.target:
        raise ValueError(
            f"one fit is of {first.law.target!r}, the other of {second.law.target!r}: compare like with like"
        )
    if names[0] == names[1]:
        raise ValueError(f"both recipes are called {names[0]!r}; give two names")
    pair = [_Curve(fit, *_along(fit, axis, meter, at or {}, first, second)) for fit in (first, second)]
    low, high = span or (min(c.rows[0] for c in pair) / _REACH, max(c.rows[1] for c in pair) * _REACH)
    if not 0 < low < high < np.inf:
        raise ValueError(f"span runs from a scale above zero to a larger one, got {low:g} to {high:g}")
    scale = np.geomspace(low, high, _METERED_POINTS if meter else _POINTS)
    return crossed(pair, names, scale, [c.values(scale) for c in pair], level)


def crossed(
    pair: list[_Curve], names: tuple[str, str], scale: np.ndarray, values: list[np.ndarray], level: float
) -> Crossing:
    """Where two curves meet whose values along `scale`, (1 + draws, points), are at hand.

    Draws of one and the same fit are compared one by one; those of two are paired at random.
    """
    first, second = (c.fit for c in pair)
    sign = 1.0 if _LOWER_IS_BETTER.search(first.law.target) else -1.0
    one, other = values
    gap = sign * (other[0] - one[0])
    gaps = sign * ((other - one)[1:] if first is second else _paired(one[1:], other[1:], first, second))
    ends = [_polished(pair, sign, scale[k], scale[k + 1]) for k in _changes(gap)]
    found = _draw_roots(np.log(scale), gaps)
    rough = _draw_roots(np.log(scale), gap[None])[0]
    roots = tuple(_root(x, *near, names, gaps, found, len(ends) == 1) for x, near in zip(ends, rough, strict=True))
    share = float(np.mean([len(r) > 0 for r in found])) if len(gaps) else float("nan")
    noise = np.hypot(_scatter(first, one[0]), _scatter(second, other[0]))
    made = Crossing(names, pair[0].axis, first.law.target, roots, share, (), level, scale, gap, gaps, noise)
    return replace(made, warnings=tuple(_doubts(made, pair)))


def fit_each(
    law: str | Law, table: Table, by: str, *, axis: str | Mapping[str, str] | None = None,
    target: str | None = None, objective: Any = None, draws: int = 200, seed: int = 0,
) -> dict[str, Fit]:  # fmt: skip
    """One fit for each value of the column `by`, by name, in the table's order. Raises as `fit` does."""
    from isoflop._fit import fit

    found = get_law(law)
    axis = axis if not isinstance(axis, str) or len(found.columns) == 1 else None  # else: a column to compare along
    values = (
        table[by].astype(str) if table[by].dtype == object else np.array([f"{v:g}" for v in table[by]], dtype=object)
    )
    names = list(dict.fromkeys(values.tolist()))
    if len(names) < 2:
        raise RunsError(
            f"column {by!r} of {table.name} has one value only, {names[0]!r}: a crossover needs two recipes"
        )
    how: dict[str, Any] = {"axis": axis, "target": target, "objective": objective, "draws": draws}
    # a seed of its own each: the same seed would weigh the same rows alike in all fits
    return {n: fit(found, table.select(values == n), seed=seed + k, **how) for k, n in enumerate(names)}


# ---- the curves ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Curve:
    """A fit along one column, the others held, or along a budget."""

    fit: Fit
    axis: str
    held: dict[str, Any]
    meter: Any

    @property
    def rows(self) -> tuple[float, float]:
        """From where to where the fitted rows reach."""
        if self.meter is None:
            return self.fit.spans[self.axis]
        counted = get_meter(self.meter)
        ends = [{c: self.fit.spans[c][k] for c in self.fit.law.table_columns} | self.held for k in (0, 1)]
        low, high = (float(np.asarray(counted(**end))) for end in ends)
        return low, high

    def values(self, scale: np.ndarray, *, draws: bool = True) -> np.ndarray:
        """The target along `scale`, (1 + draws, points): the best fit first."""
        fit = self.fit if draws else replace(self.fit, draws=self.fit.draws[:0])
        if self.meter is None:
            columns = {c: scale if c == self.axis else np.full_like(scale, self.held[c]) for c in fit.law.table_columns}
            return np.vstack([fit.predict(**columns)[None], fit.predict_draws(**columns)])
        answers = [allocate(fit, meter=self.meter, **self.held, **{self.axis: x})[fit.law.target] for x in scale]
        return np.stack([np.concatenate([[q.best], q.draws]) for q in answers], axis=1)


def _along(
    fit: Fit, axis: str | None, meter: Any, at: Mapping[str, Any], *both: Fit
) -> tuple[str, dict[str, Any], Any]:
    law = fit.law
    known = {c for f in both for c in f.law.table_columns}
    if meter is not None:
        if axis is not None:
            raise ValueError("give axis or meter, not both: a meter compares along what it counts")
        return get_meter(meter).column, dict(at), meter
    if axis is None and len(law.table_columns) > 1:
        raise ValueError(
            f"law {law.name!r} has columns {', '.join(law.table_columns)}: say which with axis, or a meter"
        )
    name = axis or law.table_columns[0]
    if name not in law.table_columns:
        raise ValueError(
            f"law {law.name!r} has no column {name!r} to compare along; it has {', '.join(law.table_columns)}"
        )
    if unknown := [c for c in at if c not in known or c == name]:
        raise ValueError(
            f"{unknown[0]!r} cannot be held: it is {'the axis' if unknown[0] == name else 'in neither law'}"
        )
    if missing := [c for c in law.table_columns if c not in at and c != name]:
        raise ValueError(f"hold column {missing[0]!r} of law {law.name!r} fixed ({missing[0]}=...), or give a meter")
    return name, {c: float(v) for c, v in at.items()}, None


def _paired(one: np.ndarray, other: np.ndarray, first: Fit, second: Fit) -> np.ndarray:
    """Differences second - first of draws met at random, (pairs, points)."""
    if not len(one) or not len(other):
        return np.empty((0, one.shape[1]))
    rng = np.random.default_rng([int(first.made["seed"]), int(second.made["seed"]), len(one), len(other)])
    return other[rng.integers(len(other), size=_PAIRS)] - one[rng.integers(len(one), size=_PAIRS)]


def _scatter(fit: Fit, value: np.ndarray) -> np.ndarray:
    """Standard deviation of a new run about the law where it has this value."""
    spread = float(np.std(fit.residuals)) * np.sqrt(fit.n / max(fit.n - len(fit.coef), 1))
    log = fit.objective["name"].endswith("_log") or fit.objective["name"] == "student_t"
    return spread * (np.abs(value) if log else np.ones_like(value))


def _phi(z: np.ndarray) -> np.ndarray:
    """Cumulative normal distribution, to 1e-7 (Abramowitz and Stegun 1964, 26.2.17)."""
    t = 1 / (1 + 0.2316419 * np.abs(z))
    tail = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    upper = tail * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    return np.where(z > 0, 1 - upper, upper)


# ---- the roots -------------------------------------------------------------------------------------------------------


def _changes(gap: np.ndarray) -> np.ndarray:
    """Places k where a curve changes sign from point k to the next."""
    up = gap > 0
    return np.flatnonzero((up[1:] != up[:-1]) & np.isfinite(gap[1:]) & np.isfinite(gap[:-1]))


def _polished(pair: list[_Curve], sign: float, low: float, high: float) -> float:
    """The root of the best fits between two points, to about ten digits."""
    for _ in range(7):
        fine = np.geomspace(low, high, 33)
        gap = sign * (pair[1].values(fine, draws=False)[0] - pair[0].values(fine, draws=False)[0])
        places = _changes(gap)
        if not places.size:
            break
        low, high = fine[places[0]], fine[places[0] + 1]
    return float(np.sqrt(low * high))


def _draw_roots(logs: np.ndarray, gaps: np.ndarray) -> list[list[tuple[float, bool]]]:
    """For each draw its roots, log scale, and whether the first is better before it."""
    found = []
    for gap in gaps:
        places = _changes(gap)
        part = gap[places] / (gap[places] - gap[places + 1])
        at = logs[places] + part * (logs[places + 1] - logs[places])
        found.append(list(zip(at.tolist(), (gap[places] > 0).tolist(), strict=True)))
    return found


def _root(
    x: float, rough: float, first_before: bool, names: tuple[str, str], gaps: np.ndarray,
    found: list[list[tuple[float, bool]]], lone: bool,
) -> Root:  # fmt: skip
    """One root x of the best fits with the draws that meet the same way round, each at its nearest.

    rough: the same root between two points, log scale, as those of the draws are: they are moved by what it is off.
    lone: there is no other root, so that a draw without any meets beyond the span.
    """
    before, after = names if first_before else names[::-1]
    draws = np.full(len(gaps), np.nan)
    off = np.log(x) - rough
    for i, roots in enumerate(found):
        same = [at for at, way in roots if way == first_before]
        if same:
            draws[i] = np.exp(off + min(same, key=lambda at: abs(at - rough)))
        elif lone and not roots and np.isfinite(gaps[i]).all():
            draws[i] = np.inf if (gaps[i, 0] > 0) == first_before else 0.0
    return Root(x, before, after, draws)


def _open(ends: tuple[float, float]) -> list[float | None]:
    return [None if end == 0 or not np.isfinite(end) else end for end in ends]


# ---- what is doubtful ------------------------------------------------------------------------------------------------


def _doubts(made: Crossing, pair: list[_Curve]) -> Iterator[str]:
    for name, curve in zip(made.names, pair, strict=True):
        yield from (f"{name}: {w}" for w in curve.fit.warnings if w.startswith(("few rows", "few clusters")))
    if not len(made.gaps):
        yield "a fit has no draws, so the crossing has no interval: fit with draws"
    if len(made.roots) > 1:
        yield f"the best fits cross {len(made.roots)} times: who is better changes back"
    for root in made.roots:
        for name, curve in zip(made.names, pair, strict=True):
            low, high = curve.rows
            far = max(np.log10(root.at / high), np.log10(low / root.at))
            if far > 0:
                side = "above" if root.at > high else "below"
                yield f"the crossing at {root.at:.4g} lies {far:.1f} decades {side} the rows of {name}"
        low, high = root.interval(made.level)
        if low == 0 or np.isinf(high):
            yield f"the interval of the crossing at {root.at:.4g} is open: draws do not cross inside the span"
        elif low > 0 and np.log10(high / low) > _WIDE:
            wide = f"{made.level:g} % interval spans {np.log10(high / low):.1f} decades"
            yield f"the crossing at {root.at:.4g} is hardly located: its {wide}"
    if not made.roots and made.share > 0:
        yield f"the best fits do not cross in this span, and yet {100 * made.share:.0f} % of the draws do"
    if np.isnan(made.gap).any():
        yield "a curve is not finite in part of the span; crossings there would not be seen"
