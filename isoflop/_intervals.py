"""One forecast with the intervals of several methods side by side, and why they differ where they do.

"law" intervals say where the law's curve passes, "run" intervals what a new run will measure. Those that take one noise
level for all rows (residual bootstrap, posterior) are too narrow where the noise changes with scale or a few rows carry
the forecast; those that know no error of form are too narrow beyond the rows. So widths that differ are a finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isoflop import _panel, _runs
from isoflop._answer import interval
from isoflop._auto import scale_of, scale_values
from isoflop._fit import Fit, Setup, fit, prepare
from isoflop._law import Law, bind
from isoflop._newton import Options, solve_stages
from isoflop._plan import with_scatter
from isoflop._problem import Moved
from isoflop._uncertainty import MAX_REFIT_ROWS, influence

_DIFFERENT = 1.3  # ratio of widths that is worth a sentence
_MOST_LEVELS = 12  # of scale, one held-out fit each
_SPREAD_DRAWS = 32
_FEW = 0.02  # share of the rows that should not carry a forecast, as in _doubts
_CARRIED = 0.3  # of its variance
_NO_REASON = "no reason is seen in the rows: likelihoods and priors differ, and the widest is safest"
_WORDS = {"law": "where the curve passes", "run": "what a new run measures"}


@dataclass(frozen=True)
class Method:
    """What one method says. kind: "law" (where the curve passes) or "run" (what a new run measures)."""

    name: str
    kind: str
    low: float
    high: float

    @property
    def width(self) -> float:
        """high - low."""
        return self.high - self.low


@dataclass(frozen=True)
class Intervals:
    """The same forecast by several methods."""

    law: str
    target: str
    at: dict[str, float]
    best: float
    level: float
    methods: tuple[Method, ...]
    flags: tuple[str, ...]  # methods that differ, with the likely reason
    left_out: tuple[str, ...]  # methods that could not be used, with the reason
    fit: Fit = field(repr=False)

    def __getitem__(self, name: str) -> Method:
        for method in self.methods:
            if method.name == name:
                return method
        raise LookupError(f"no interval by {name!r}; there are {', '.join(m.name for m in self.methods)}")

    def ratio(self, kind: str) -> float:
        """Of the widest to the narrowest interval of one kind; nan where there is none."""
        widths = [m.width for m in self.methods if m.kind == kind]
        return max(widths) / max(min(widths), 1e-300) if widths else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        rows = [{"method": m.name, "kind": m.kind, "low": m.low, "high": m.high, "width": m.width}
                for m in self.methods]  # fmt: skip
        return {"law": self.law, "target": self.target, "at": self.at, "best": self.best, "level": self.level,
                "rows": rows, "ratio": {k: self.ratio(k) for k in _WORDS}, "flags": list(self.flags),
                "left_out": list(self.left_out)}  # fmt: skip

    def __str__(self) -> str:
        place = ", ".join(f"{k} {v:.4g}" for k, v in self.at.items())
        lines = [f"{self.target} at {place}: {self.best:.5g} by {self.law}, {self.level:g} % intervals"]
        for kind, words in _WORDS.items():
            of_kind = [m for m in self.methods if m.kind == kind]
            least = max(min((m.width for m in of_kind), default=1.0), 1e-300)
            lines.append(words)
            lines += [f"  {m.name:<22} {m.low:>10.5g} {m.high:>10.5g}   width {m.width:<9.3g} x {m.width / least:.2f}"
                      for m in of_kind]  # fmt: skip
        return "\n".join(lines)


def intervals(
    law: str | Law | Any, runs: Any, *, at: Mapping[str, float], level: float = 90, draws: int = 200, seed: int = 0,
    by: str | None = None, nuts: bool = False,
) -> Intervals:  # fmt: skip
    """The forecast of one law at one point, with the interval of every method.

    law: a name, a Law, or (name, axis). at: the law's columns at the point. by: rows that stand or fall together.
    Of the curve: `bootstrap` (cases, or clusters with `by`), `residual bootstrap` (rows as they are, residuals
    exchanged between them), `posterior` (randomise-then-optimise draws of a Student-t posterior), `nuts` (NumPyro,
    where asked for). Of a new run: `bootstrap + residuals`, `posterior + noise`, `calibrated` (isoflop.forecast, kind
    "run"), `split conformal` and `jackknife+`.

    The two last are distribution-free over held-out scales. Scale is cut into at most twelve levels; above the smallest
    few each is forecast from those below it (split) or from all others (jackknife+). With m held-out runs, scores
    R_i = |log y_i - log f(x_i)| / s(x_i) and s the predicted spread of a run there, split conformal is
    f(x) exp(+- q s(x)) with q the ceil((1 - a)(m + 1))-th smallest score, and jackknife+ runs from the
    floor(a (m + 1))-th smallest of log f_-i(x) - R_i s_-i(x) to the ceil((1 - a)(m + 1))-th smallest of
    log f_-i(x) + R_i s_-i(x), a = 1 - level / 100. That holds 1 - 2 a of new runs that are exchangeable with those held
    out; runs beyond the rows are not, and there it promises nothing.

    Source: jackknife+ and its cross-validation form CV+, Barber et al. 2021 (arXiv 1905.02928); scores over a spread,
    Lei et al. 2018 (arXiv 1604.04173); levels of scale in place of random folds are ours.

    Raises as `fit` and `isoflop.forecast` do; ValueError where draws are fewer than 50; ImportError for `nuts` without
    the extra `bayes`.
    """
    if draws < 50:
        raise ValueError(f"intervals need 50 draws or more, got {draws}")
    found = bind(law)
    table = _runs.load(runs)
    made = fit(found, table, by=by, draws=draws, seed=seed)
    setup = prepare(found, table, by=by)
    answers = {kind: made.forecast(**at, level=level, kind=kind)[found.target] for kind in _WORDS}
    point = {c: np.array([float(v)]) for c, v in at.items()}
    plain = with_scatter(made, made.predict_draws(**point))[:, 0]
    ends = {
        ("bootstrap", "law"): answers["law"].interval(level),
        ("bootstrap + residuals", "run"): interval(plain, level),
        ("calibrated", "run"): answers["run"].interval(level),
    }
    if nuts:
        ends["nuts", "law"] = interval(_sampled(setup, made, point, draws, seed), level)
    left: list[str] = []
    if made.n > MAX_REFIT_ROWS:
        left.append(f"residual bootstrap, posterior and conformal are left out: {made.n} rows, past {MAX_REFIT_ROWS}")
    else:
        ends["residual bootstrap", "law"] = interval(_exchanged(setup, made, point, draws, seed), level)
        more, left = _in_logs(setup, point, level, draws, seed)
        ends |= more
    left += [f"{name} is left out: its interval is not finite" for (name, _), both in ends.items() if not _finite(both)]
    methods = [Method(name, kind, *ends[name, kind]) for name, kind in ends if _finite(ends[name, kind])]
    methods.sort(key=lambda m: (m.kind, m.width))
    flags = tuple(_flags(methods, setup, made, point))
    return Intervals(found.name, found.target, {k: float(v) for k, v in at.items()}, answers["law"].best, level,
                     tuple(methods), flags, tuple(left), made)  # fmt: skip


def _finite(ends: tuple[float, float]) -> bool:
    return bool(np.isfinite(ends).all())


def _exchanged(setup: Setup, made: Fit, point: Mapping[str, np.ndarray], draws: int, seed: int) -> np.ndarray:
    """The curve under refits to the fitted values plus residuals drawn from all rows, as if all were alike."""
    problem, n, p = setup.problem, setup.problem.target.size, len(made.coef)
    rng = np.random.default_rng([seed, 1])
    residuals = setup.residuals(made.coef) * np.sqrt(n / max(n - p, 1))
    shift = rng.choice(residuals, (draws, n)) - setup.residuals(made.coef)
    theta = np.tile(setup.law.inward(np.array(list(made.coef.values()))), (draws, 1))
    stages = problem.objective.stages
    found = solve_stages(problem, theta, stages[1:] or stages, moved=Moved(shift, np.zeros((draws, 1))),
                         options=Options(damping=1e-3, revivals=0))  # fmt: skip
    return _curve(setup.law, setup.law.outward(found.theta[:, :p]), point)


def _sampled(setup: Setup, made: Fit, point: Mapping[str, np.ndarray], draws: int, seed: int) -> np.ndarray:
    from isoflop._bayes import posterior

    theta = setup.law.inward(np.array(list(made.coef.values())))
    return _curve(setup.law, posterior(setup, theta, draws=draws, seed=seed).coef, point)


def _curve(law: Law, coef: np.ndarray, point: Mapping[str, np.ndarray]) -> np.ndarray:
    """The law at draws of its coefficients (draws, p) and one point: (draws,)."""
    named = {c: coef[:, k] for k, c in enumerate(law.coefs)}
    with np.errstate(all="ignore"):
        return np.broadcast_to(law(**{c: point[c] for c in law.table_columns}, **named), len(coef))


# ---- in logs: posterior and conformal --------------------------------------------------------------------------------


def _in_logs(
    setup: Setup, point: Mapping[str, np.ndarray], level: float, draws: int, seed: int
) -> tuple[dict[tuple[str, str], tuple[float, float]], list[str]]:
    """Methods that take logs of the target, and what was left out."""
    names = "posterior, split conformal and jackknife+"
    if not (setup.problem.target > 0).all():
        return {}, [
            f"{names} are left out: they take the log of {setup.law.target}, which is not above zero everywhere"
        ]
    rng = np.random.default_rng([seed, 2])
    panel = _panel.panel(setup.law, [setup.table])
    modes = _panel.modes(panel, seed=seed)
    sample = _panel.draws(panel.problem, modes, count=draws, rng=rng)[0]
    logs = _panel.log_predictions(setup.law, sample, point)[:, 0]
    noise = rng.standard_t(panel.problem.objective.df, (10, draws)) * np.exp(sample[:, -1])
    out = {
        ("posterior", "law"): interval(np.exp(logs), level),
        ("posterior + noise", "run"): interval(np.exp(logs + noise).ravel(), level),
    }
    here = np.array([_middle(setup.law, modes.theta, sample, point)[0], _spread(setup.law, sample, point)[0]])
    try:
        out |= _conformal(setup, panel, modes, here, point, level, rng)
    except _runs.RunsError as error:
        return out, [f"split conformal and jackknife+ are left out: {error}"]
    return out, []


def _middle(law: Law, mode: np.ndarray, sample: np.ndarray, points: Mapping[str, np.ndarray]) -> np.ndarray:
    """Log forecast (points,): half way between the mode and the draws' median, as in _auto."""
    logs = _panel.log_predictions(law, np.vstack([mode, sample]), points)
    return np.asarray(0.5 * (logs[0] + np.median(logs[1:], axis=0)))


def _spread(law: Law, sample: np.ndarray, points: Mapping[str, np.ndarray]) -> np.ndarray:
    """Standard deviation of a run's log (points,): of the curve's draws and of the noise."""
    logs = _panel.log_predictions(law, sample, points)
    return np.asarray(np.sqrt(logs.var(axis=0) + np.exp(2.0 * np.median(sample[:, -1]))))


def _conformal(
    setup: Setup, panel: _panel.Panel, modes: _panel.Modes, here: np.ndarray, point: Mapping[str, np.ndarray],
    level: float, rng: np.random.Generator,
) -> dict[tuple[str, str], tuple[float, float]]:  # fmt: skip
    of_row, unit_row = _levels(setup)
    first = _first_level(of_row, len(setup.law.coefs))
    held = range(first, int(of_row.max()) + 1)
    masks = [of_row < k for k in held] + [of_row != k for k in held]
    index = np.zeros(len(masks), int)
    part = _panel.some_rows(panel, list(index), masks)
    shared = type(modes.shared)(modes.shared.centre[index], modes.shared.precision[index])
    found = _panel.refit(part, modes.theta[index], shared)
    sample = _panel.draws(part, found, count=_SPREAD_DRAWS, rng=rng)
    scores: list[list[np.ndarray]] = [[], []]
    sides = []
    for k in range(len(masks)):
        rows = unit_row[of_row[unit_row] == first + k % len(held)]
        points = {c: setup.columns[c][rows] for c in setup.law.table_columns}
        error = np.log(setup.problem.target[rows]) - _middle(setup.law, found.theta[k], sample[k], points)
        score = np.abs(error) / _spread(setup.law, sample[k], points)
        scores[k // len(held)].append(score)
        if k >= len(held):
            far = _middle(setup.law, found.theta[k], sample[k], point)[0]
            reach = score * _spread(setup.law, sample[k], point)[0]
            sides.append(np.stack([far - reach, far + reach]))
    split = here[0] + np.array([-1.0, 1.0]) * quantile(np.concatenate(scores[0]), level) * here[1]
    low, high = np.concatenate(sides, axis=1)
    jackknife = np.array([-quantile(-low, level), quantile(high, level)])
    ends = {"split conformal": np.exp(split), "jackknife+": np.exp(jackknife)}
    return {(name, "run"): (float(a), float(b)) for name, (a, b) in ends.items()}


def quantile(values: np.ndarray, level: float) -> float:
    """The ceil((m + 1) level / 100)-th smallest of m values. Raises RunsError where m is too small for that."""
    m = values.size
    rank = int(np.ceil((m + 1) * level / 100 - 1e-9))
    if rank > m:
        need = int(np.ceil(level / (100 - level) - 1e-9))
        raise _runs.RunsError(f"{m} held-out runs are too few for {level:g} %, which needs {need}")
    return float(np.sort(values)[rank - 1])


def _levels(setup: Setup) -> tuple[np.ndarray, np.ndarray]:
    """The level of scale of each row, rows of a cluster together; and the row that stands for each cluster."""
    sizes = scale_values(scale_of(setup.table, [setup.law]), setup.table.columns)
    if not (sizes > 0).all():
        raise _runs.RunsError("the column that orders the rows by scale is not above zero everywhere")
    groups = np.arange(sizes.size) if setup.groups is None else setup.groups
    order = np.lexsort((sizes, groups))
    last = order[np.append(np.diff(groups[order]) != 0, True)]  # the largest row of each cluster, by group
    logs = np.log(sizes[last])
    distinct = np.unique(logs)
    if distinct.size > _MOST_LEVELS:
        edges = np.unique(np.quantile(logs, np.arange(1, _MOST_LEVELS) / _MOST_LEVELS))
        level = np.searchsorted(edges, logs, side="right")
    else:
        level = np.searchsorted(distinct, logs)
    level = np.unique(level, return_inverse=True)[1]
    return level[np.searchsorted(groups[last], groups)], last


def _first_level(of_row: np.ndarray, coefs: int) -> int:
    """The smallest level that is held out: two below it, with more rows than coefficients and at least a fifth."""
    below = np.cumsum(np.bincount(of_row))
    first = max(int((below < max(coefs + 1, 4, 0.2 * of_row.size)).sum()) + 1, 2)
    if first > int(of_row.max()):
        raise _runs.RunsError("the rows have too few levels of scale to hold any out")
    return first


# ---- why they differ -------------------------------------------------------------------------------------------------


def _flags(methods: list[Method], setup: Setup, made: Fit, point: Mapping[str, np.ndarray]) -> Iterator[str]:
    """A sentence for each kind whose widths differ."""
    for kind, words in _WORDS.items():
        some = sorted((m for m in methods if m.kind == kind), key=lambda m: m.width)
        if len(some) < 2 or some[-1].width <= _DIFFERENT * some[0].width:
            continue
        reasons = list(_reasons(setup, made, point, kind)) or [_NO_REASON]
        times = some[-1].width / max(some[0].width, 1e-3 * some[-1].width)
        often = f"{times:.1f} times" if times < 999 else "a thousand times or more"
        yield f"{words}: {some[-1].name} is {often} wider than {some[0].name}; " + "; ".join(reasons)


def _reasons(setup: Setup, made: Fit, point: Mapping[str, np.ndarray], kind: str) -> Iterator[str]:
    n, p = made.n, len(made.coef)
    if setup.groups is not None:
        yield f"rows of one {made.made['by']} go together, which only the bootstrap, and conformal intervals, know"
    if n < 3 * p:
        yield f"{n} rows for {p} coefficients leave priors and corrections to decide"
    known = made.made.get("calibration") or {}
    if known:
        sizes = scale_values(known["scale"], setup.table.columns)
        change = float((sizes.max() / sizes.min()) ** known["noise_slope"])
        if max(change, 1 / change) > _DIFFERENT:
            way = "grows" if change > 1 else "falls"
            yield f"the noise {way} {max(change, 1 / change):.1f} times over the rows' scale, and some take it as even"
    carried, few = _carried(setup, made, point)
    if carried > _CARRIED:
        yield f"{few} of {n} rows carry {100 * carried:.0f} % of the forecast's variance"
    loose = [w.split(" is ")[0] for w in made.warnings if "not identified" in w or "felt by no row" in w]
    if loose:
        yield f"the rows do not identify {' or '.join(loose)}, and a prior stands in for them in some"
    if kind == "run" and known and (far := float(scale_values(known["scale"], point)[0] / known["largest"])) > 1:
        yield f"the point lies {np.log10(far):.1f} decades beyond the rows, where only calibrated counts errors of form"


def _carried(setup: Setup, made: Fit, point: Mapping[str, np.ndarray]) -> tuple[float, int]:
    """Share of the forecast's first-order variance that comes from the few rows with most influence; how many."""
    problem, p = setup.problem, setup.problem.n_coef
    best = np.array(list(made.coef.values()))
    theta = setup.law.inward(best)
    if problem.objective.scaled:
        theta = np.append(theta, np.log(max(float(np.std(setup.residuals(made.coef))), 1e-12)))
    step = 1e-5 * np.eye(p)
    ahead, behind = (_curve(setup.law, setup.law.outward(theta[:p] + way * step), point) for way in (1, -1))
    moves = np.sort((influence(problem, theta)[:, :p] @ ((ahead - behind) / 2e-5)) ** 2)[::-1]
    few = max(1, round(_FEW * moves.size))
    return float(moves[:few].sum() / max(moves.sum(), 1e-300)), few
