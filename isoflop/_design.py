"""next_runs: which runs, within a small budget, narrow the interval at the target most, and when to stop."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop._answer import Answer, finite, interval
from isoflop._beliefs import Beliefs, Learning, beliefs, is_log
from isoflop._columns import RunsError
from isoflop._display import Sheet, Shown
from isoflop._stopping import Stop, allocation_stop, width_stop

if TYPE_CHECKING:
    import os

    from isoflop._fit import Fit

_POINTS = 2000  # candidates, where none are given
_BEYOND = 30.0  # factor above the fitted rows that a candidate may lie in, and off their middle in tokens a parameter
_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the cost that a gain is divided by
_STARTS, _EXCHANGES = 12, 4  # designs that begin with a run of another class of cost; exchanges, times k
_LEAST = 1e-4  # of the target's variance: a run that teaches less is not worth a row


@dataclass(frozen=True)
class NextRun:
    """One run to make: its columns, FLOPs of one seed, seeds, and what is then expected of the target."""

    columns: dict[str, float]
    flops: float
    seeds: int
    low: float  # the interval of the target after this run and those above it, about today's median
    high: float
    narrowed: float  # share of today's width that is gone by then
    gain: float  # share of today's width that these seeds take away, per FLOP

    def to_dict(self) -> dict[str, Any]:
        """One row, plain."""
        kept = {k: getattr(self, k) for k in ("flops", "seeds", "low", "high", "narrowed", "gain")}
        return self.columns | kept


@dataclass(frozen=True, repr=False)
class NextRuns(Shown):
    """The batch, in the order of what it teaches per FLOP; `low`, `median`, `high`: of the target today."""

    runs: tuple[NextRun, ...]
    target: str
    at: dict[str, float]
    low: float
    median: float
    high: float
    level: float
    budget: float
    stop: Stop
    kind: str
    candidates: int
    warnings: tuple[str, ...] = ()

    @property
    def flops(self) -> float:
        """What the whole batch costs."""
        return sum(r.flops * r.seeds for r in self.runs)

    @property
    def narrowed(self) -> float:
        """Share of today's width that the whole batch is expected to take away."""
        return self.runs[-1].narrowed if self.runs else 0.0

    def _sheet(self) -> Sheet:
        words = f"The runs that narrow {self.target} most per FLOP, {self.flops:.4g} FLOPs in all."
        return Sheet(words, [r.to_dict() for r in self.runs], self.warnings)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the batch as CSV: the law's columns, flops, seeds, and what is expected."""
        from isoflop._fit import write_whole

        write_whole(path, self.to_frame().to_csv(index=False))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, as `isoflop next --json` prints them."""
        names = ("target", "at", "level", "kind", "budget", "flops", "narrowed", "candidates")
        kept = {k: getattr(self, k) for k in names}
        today = {"low": self.low, "median": self.median, "high": self.high}
        more = {"today": today, "runs": [r.to_dict() for r in self.runs], "stop": self.stop.to_dict()}
        plain: dict[str, Any] = finite(kept | more | {"warnings": list(self.warnings)})
        return plain

    def table(self) -> str:
        """The batch without its doubts."""
        where = ", ".join(f"{c} {v:.4g}" for c, v in self.at.items())
        lines = [f"{self.target} at {where}: {self.median:.5g} [{self.low:.5g}, {self.high:.5g}] ({self.level:g} %)"]
        if self.runs:
            names = list(self.runs[0].columns)
            lines.append("  ".join(f"{c:<10}" for c in (*names, "flops", "seeds")) + "  then            narrowed")
        for r in self.runs:
            cells = [*(f"{v:<10.4g}" for v in r.columns.values()), f"{r.flops:<10.3g}", f"{r.seeds:<10d}"]
            lines.append("  ".join(cells) + f"  [{r.low:.5g}, {r.high:.5g}]  {100 * r.narrowed:.0f} %")
        spent = f"{self.flops:.3g} of {self.budget:.3g} FLOPs"
        lines.append(f"{spent}: the interval is expected to be {100 * self.narrowed:.0f} % narrower")
        return "\n".join([*lines, str(self.stop)])

    def __str__(self) -> str:
        return "\n".join([self.table(), *(f"warning: {w}" for w in self.warnings)])


def next_runs(
    fit: Fit,
    *,
    budget: Mapping[str, float] | float,
    about: Answer | Mapping[str, Any],
    k: int = 4,
    candidates: Any = None,
    kind: str = "run",
    level: float = 90,
    seed: int = 0,
) -> NextRuns:
    """The runs, within a budget, that narrow the interval of the target most: Bayesian optimal design on the draws.

    budget: {"flops": 3e20}, of all runs together. about: the point to be sure of: columns of the law, an allocation,
    or {"flops": 1e24}, which is allocated first (then `stop` is about that choice). k: most runs, repeats included.
    candidates: a table of the law's columns, with `flops` where these do not say it; by default 2000 settings between
    the smallest fitted row and 30 times the largest. kind "run" counts with the form being wrong beyond the rows, as
    forecasts of new runs do, and so goes for larger runs; "law" with the coefficients alone.

    A run at x lowers the target's variance by cov(t, x)^2 / (var(x) + noise^2), over the draws, noise being the
    scatter of the fitted rows. Designs are grown run by run from several beginnings, their runs exchanged for better
    ones until there are none, and the best design is kept. Make the runs, fit again, ask again.

    Source: Chaloner and Verdinelli 1995, "Bayesian experimental design: a review", section 2.2 (linear model);
    exchange: Fedorov 1972. Raises ValueError where nothing is affordable, a column is unknown or missing, or the fit
    has fewer than 20 draws.
    """
    fit, flops = _single(fit), _budget(budget)
    if k < 1:
        raise ValueError(f"k is how many runs to make, 1 or more; got {k}")
    if kind not in ("law", "run"):
        raise ValueError(f"kind is 'law' or 'run', got {kind!r}")
    point, decision = _about(fit, about)
    pool = _candidates(fit, candidates, flops)
    known = beliefs(fit, point, {c: pool[c] for c in fit.law.table_columns}, kind=kind)
    picks = choose(known, pool["flops"], budget=flops, k=k)
    low, median, high = _today(fit, point, known, level)
    made = _runs(fit, pool, known, picks, (low, median, high))
    told = (fit, known, pool["flops"], picks)
    stop = allocation_stop(*told, decision=decision, seed=seed) if decision else width_stop(known, pool["flops"], picks)
    return NextRuns(tuple(made), fit.law.target, point, low, median, high, level, flops, stop, kind,
                    len(pool["flops"]), tuple(_doubts(fit, kind, made)))  # fmt: skip


# ---- the choice ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pool:
    """What may be chosen from. once: a candidate can be run once only, as where the runs exist already."""

    known: Beliefs
    cost: np.ndarray
    budget: float
    once: bool
    products: dict[int, np.ndarray] = field(default_factory=dict)

    def gains(self, state: Learning, picks: Sequence[int]) -> np.ndarray:
        """Of one more run at each candidate; 0 where it is not affordable beside the picks."""
        left = self.budget - self.cost[list(picks)].sum()
        out = np.where(self.cost <= left + 1e-12 * self.budget, state.gains(), 0.0)
        if self.once:
            out[list(picks)] = 0.0
        return out

    def learnt(self, picks: Sequence[int]) -> Learning:
        """The beliefs after these runs."""
        state = Learning(self.known)
        for c in picks:
            state.add(c, self.products)
        return state


def choose(known: Beliefs, cost: np.ndarray, *, budget: float, k: int, once: bool = False) -> list[int]:
    """Candidates of the best design found, a repeat being a second pick; in the order of gain per cost."""
    pool = _Pool(known, cost, budget, once)
    starts = [_grown(pool, [], k, power) for power in _POWERS]
    starts += [_grown(pool, [c], k, 0.5) for c in _firsts(pool)]
    designs = [_exchanged(pool, start, k) for start in {tuple(sorted(s)): s for s in starts}.values()]
    best = min(designs, key=lambda d: (pool.learnt(d).variance * (1 + 1e-9 * len(d)), cost[d].sum()))
    return _ordered(pool, best)


def _firsts(pool: _Pool) -> list[int]:
    """Candidates to begin a design with: of each of so many classes of cost, the one that teaches most alone."""
    gains, place = pool.gains(Learning(pool.known), []), np.log(pool.cost)
    edges = np.linspace(place.min(), place.max() + 1e-9, _STARTS + 1)
    classes = [np.flatnonzero((place >= low) & (place < high)) for low, high in itertools.pairwise(edges)]
    return [int(c[np.argmax(gains[c])]) for c in classes if c.size and gains[c].max() > 0]


def _grown(pool: _Pool, begin: Sequence[int], k: int, power: float) -> list[int]:
    """A design with runs added one by one, each by its gain / cost^power."""
    state, picks = pool.learnt(begin), list(begin)
    scaled = (pool.cost / pool.budget) ** power
    while len(picks) < k:
        gains = pool.gains(state, picks)
        c = int(np.argmax(gains / scaled))
        if gains[c] <= _LEAST * pool.known.variance:
            break
        state.add(c, pool.products)
        picks.append(c)
    return picks


def _exchanged(pool: _Pool, picks: Sequence[int], k: int) -> list[int]:
    """The one exchange of a run for an affordable candidate that helps most, again and again, until none does."""
    out = list(picks)
    for _ in range(_EXCHANGES * k):
        found = [_best_instead(pool, out, place) for place in range(len(out))]
        if not any(more > 1e-3 * kept for more, kept, _, _ in found):
            break
        _, _, place, c = max(one for one in found if one[0] > 1e-3 * one[1])
        out[place] = c
    return _grown(pool, out, k, 0.0)


def _best_instead(pool: _Pool, picks: list[int], place: int) -> tuple[float, float, int, int]:
    """Beside the other runs: what the best candidate teaches more than the run at `place`, what that teaches; both."""
    others = picks[:place] + picks[place + 1 :]
    gains = pool.gains(pool.learnt(others), others)
    c, kept = int(np.argmax(gains)), float(gains[picks[place]])
    return float(gains[c]) - kept, kept, place, c


def _ordered(pool: _Pool, picks: Sequence[int]) -> list[int]:
    state, left, out = Learning(pool.known), list(picks), list[int]()
    while left:
        each = state.gains() / pool.cost
        c = max(left, key=lambda i: float(each[i]))
        state.add(c, pool.products)
        left.remove(c)
        out.append(c)
    return out


def _runs(
    fit: Fit, pool: Mapping[str, np.ndarray], known: Beliefs, picks: Sequence[int], today: tuple[float, float, float]
) -> list[NextRun]:
    """Rows for people: repeats as seeds, each with the interval that is then expected."""
    state, seen, rows = Learning(known), 0.0, list[NextRun]()
    for c in dict.fromkeys(picks):
        seeds = list(picks).count(c)
        for _ in range(seeds):
            state.add(c)
        share = float(np.sqrt(state.variance / known.variance))
        low, high = _narrowed(today, share, known.log)
        cost = float(pool["flops"][c])
        columns = {name: float(pool[name][c]) for name in fit.law.table_columns}
        rows.append(NextRun(columns, cost, seeds, low, high, 1 - share, (1 - share - seen) / (cost * seeds)))
        seen = 1 - share
    return rows


def _narrowed(today: tuple[float, float, float], share: float, log: bool) -> tuple[float, float]:
    low, median, high = today
    if log:
        return median * (low / median) ** share, median * (high / median) ** share
    return median + share * (low - median), median + share * (high - median)


# ---- what is asked ---------------------------------------------------------------------------------------------------


def _single(fit: Any) -> Fit:
    from isoflop._auto import Stack
    from isoflop._fit import Fit

    if isinstance(fit, Stack):
        part = fit.parts[0]  # a Stack keeps its noise with its draws, as the log of the scale of Student's t
        spread = float(np.exp(np.median(part.draws[:, -1]))) * np.sqrt(part.df / (part.df - 2))
        return replace(fit.leading, residuals=spread * np.array([-1.0, 1.0]))
    if not isinstance(fit, Fit):
        raise ValueError("next_runs takes a fit, as isoflop.fit makes it")
    return fit


def _budget(budget: Any) -> float:
    given = dict(budget) if isinstance(budget, Mapping) else {"flops": budget}
    if set(given) != {"flops"}:
        raise ValueError(f'the budget is {{"flops": NUMBER}}, of all runs together; got {", ".join(given)}')
    flops = float(given["flops"])
    if not (np.isfinite(flops) and flops > 0):
        raise ValueError(f"the budget must be a finite number of FLOPs above zero, got {flops}")
    return flops


def _about(fit: Fit, about: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """The point, and the decision that stands behind it: the amounts of an allocation, or nothing."""
    from isoflop._plan import _point, allocate

    columns = fit.law.table_columns
    given = {c: q.best for c, q in about.items() if c in columns} if isinstance(about, Answer) else dict(about)
    if isinstance(about, Answer) or "flops" not in given or "flops" in columns:
        return _point(fit.law, given), {}
    best = allocate(fit, **given)
    return {c: float(best[c].best) for c in columns}, given


def _today(fit: Fit, point: Mapping[str, float], known: Beliefs, level: float) -> tuple[float, float, float]:
    """Low, middle and high of the law there: of the draws, wider where the error of form counts."""
    low, high = interval(fit.predict_draws(**point)[:, 0], level)
    today = (low, float(np.nanmedian(fit.predict_draws(**point)[:, 0])), high)
    ends = _narrowed(today, float(np.sqrt(known.variance / known.plain)), known.log)
    return ends[0], today[1], ends[1]


def _candidates(fit: Fit, given: Any, budget: float) -> dict[str, np.ndarray]:
    """The law's columns and flops of every candidate that the budget pays for. Raises where there is none."""
    columns = fit.law.table_columns
    pool = _grid(fit) if given is None else _given(fit, given)
    if "flops" not in pool:
        pool["flops"] = _flops(fit, pool)
    with np.errstate(all="ignore"):
        value = fit.predict(**{c: pool[c] for c in columns})
    good = np.isfinite(value) & ((value > 0) | (not is_log(fit)))
    good &= (pool["flops"] > 0) & (pool["flops"] <= budget * (1 + 1e-12))
    if not good.any():
        least = float(np.min(pool["flops"][pool["flops"] > 0], initial=np.inf))
        raise ValueError(f"the budget of {budget:.4g} FLOPs pays for no candidate; the cheapest takes {least:.4g}")
    return {c: pool[c][good] for c in (*columns, *(["flops"] if "flops" not in columns else []))}


def _grid(fit: Fit) -> dict[str, np.ndarray]:
    """Settings log-spaced over the fitted rows and, in the columns that scale, beyond."""
    columns = fit.law.table_columns
    if any(fit.spans[c][0] <= 0 for c in columns):
        raise ValueError(f"a column of law {fit.law.name!r} is not above zero: give candidates")
    if len(columns) > 3:
        raise ValueError(f"law {fit.law.name!r} has {len(columns)} columns: give candidates")
    scaling = {"params", "tokens", "flops", "params_nonembed", "params_active", "x"} | set(dict(fit.law.axis).values())
    each = max(2, round((2 * _POINTS) ** (1 / len(columns))))
    axes = [np.geomspace(fit.spans[c][0], fit.spans[c][1] * (_BEYOND if c in scaling else 1.0), each) for c in columns]
    pool = {c: v.ravel() for c, v in zip(columns, np.meshgrid(*axes, indexing="ij"), strict=True)}
    if "unique" in pool and "tokens" in pool:
        keep = pool["unique"] <= pool["tokens"]
        pool = {c: v[keep] for c, v in pool.items()}
    if "params" in pool and "tokens" in pool:
        keep = _usual_ratio(fit, pool["tokens"] / pool["params"])
        pool = {c: v[keep] for c, v in pool.items()}
    return pool


def _usual_ratio(fit: Fit, ratio: np.ndarray) -> np.ndarray:
    """Within a factor 30 of the tokens a parameter in the middle of the rows: laws are not trusted further off."""
    middle = np.sqrt(np.prod(fit.spans["tokens"]) / np.prod(fit.spans["params"]))
    return (ratio >= middle / _BEYOND) & (ratio <= middle * _BEYOND)


def _given(fit: Fit, given: Any) -> dict[str, np.ndarray]:
    from isoflop import _runs

    table = _runs.load(given)
    missing = [c for c in fit.law.table_columns if c not in table.columns]
    if missing:
        raise RunsError(f"the candidates have no column {missing[0]!r}, which law {fit.law.name!r} takes")
    names = dict.fromkeys([*fit.law.table_columns, *(["flops"] if "flops" in table.columns else [])])
    return {c: np.asarray(table[c], float) for c in names}


def _flops(fit: Fit, pool: Mapping[str, np.ndarray]) -> np.ndarray:
    size = next((c for c in ("params", "params_active", "params_nonembed") if c in pool), None)
    if size is None or "tokens" not in pool:
        raise ValueError(f"the columns of law {fit.law.name!r} do not say what a run costs: give candidates with flops")
    return 6.0 * pool[size] * pool["tokens"]


def _doubts(fit: Fit, kind: str, made: Sequence[NextRun]) -> list[str]:
    out = []
    if not made:
        out.append("no affordable run would teach anything about the target")
    if kind == "run" and not fit.made.get("calibration"):
        out.append("the fit has no record of how it forecast inside its rows: the form is taken to be right")
    if fit.made.get("weight", 1.0) < 0.8:
        out.append(f"follows {fit.law.name} alone, which has {fit.made['weight']:.0%} of the forecast's weight")
    return out
