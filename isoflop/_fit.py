"""fit(law, runs): the best coefficients, how sure, and what is doubtful about them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import isoflop
from isoflop import _checklist, _doubts, _isoflops, _meter, _runs
from isoflop._answer import Answer, interval
from isoflop._display import ShownFit
from isoflop._law import Law, get_law
from isoflop._newton import Evaluator, Options, Solutions, solve_stages
from isoflop._objective import Objective, get_objective
from isoflop._problem import Problem
from isoflop._profile import Profile, loose_profiles, profile_draws
from isoflop._progress import progress
from isoflop._seed import middles, starts
from isoflop._tape import Node
from isoflop._uncertainty import MAX_REFIT_ROWS, Draws, bootstrap

_FORMAT = 1
_KEEP_RESIDUALS = 1000
_ENDS = 3  # distinct optima of a part of the rows that are taken on to all of them
_ENOUGH_ROWS = 10_000  # up to twice as many, every start is solved on all rows
_LEADING_ROWS = 1_000  # beyond, a random part of so many leads each start close to where all of them end it


_FEW = (  # 1 / degrees of freedom, and by how much Student's 90 % interval is wider than the normal's
    np.array([0.0, 1 / 20, 1 / 10, 1 / 5, 1 / 3, 1 / 2, 1.0]),
    np.array([1.645, 1.725, 1.812, 2.015, 2.353, 2.920, 6.314]) / 1.645,
)


@dataclass(frozen=True)
class Setup:
    """A law on checked rows, ready to solve."""

    law: Law
    columns: dict[str, np.ndarray]
    problem: Problem
    ranges: np.ndarray
    groups: np.ndarray | None
    table: _runs.Table
    made: dict[str, str]

    def coefs(self, theta: np.ndarray) -> dict[str, float]:
        """Coefficients by name at one point (free,)."""
        values = self.law.outward(theta[: self.problem.n_coef])
        return {c: float(v) for c, v in zip(self.law.coefs, values, strict=True)}

    def residuals(self, coef: dict[str, float]) -> np.ndarray:
        """log(target / prediction) under a log objective, else target - prediction."""
        predicted = self.law(**{c: self.columns[c] for c in self.law.table_columns}, **coef)
        target = self.problem.target
        return np.log(target / predicted) if self.problem.objective.log else target - predicted


@dataclass(frozen=True, repr=False)
class Fit(ShownFit):
    """A fitted law. `draws` (draws, p) carries all uncertainty; plans and forecasts read nothing else."""

    law: Law
    coef: dict[str, float]
    draws: np.ndarray
    objective: dict[str, Any]
    n: int
    starts: int
    agreeing: int
    warnings: tuple[str, ...]
    spans: dict[str, tuple[float, float]]
    residuals: np.ndarray
    made: dict[str, Any]
    level: float = 90

    def interval(self, level: float | None = None) -> dict[str, tuple[float, float]]:
        """Each coefficient's central interval over the draws, level in per cent."""
        at = self.level if level is None else level
        return {name: interval(self.draws[:, i], at) for i, name in enumerate(self.coef)}

    def predict(self, **columns: Any) -> np.ndarray:
        """The law at the best fit; columns as arrays of one shape."""
        return np.asarray(self.law(**{c: np.asarray(v, float) for c, v in columns.items()}, **self.coef))

    def predict_draws(self, **columns: Any) -> np.ndarray:
        """The law at every draw, (draws, points); columns as 1-D arrays."""
        coefs = {name: self.draws[:, i, None] for i, name in enumerate(self.coef)}
        points = {c: np.atleast_1d(np.asarray(v, float))[None] for c, v in columns.items()}
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            shape = np.broadcast_shapes((len(self.draws), 1), *(p.shape for p in points.values()))
            return np.broadcast_to(self.law(**points, **coefs), shape)

    def forecast(self, *, level: float | Sequence[float] = 90, kind: str = "run", **columns: float) -> Answer:
        """The target at one point, with intervals: see isoflop.forecast."""
        from isoflop._plan import forecast

        return forecast(self, columns, level=level, kind=kind)

    def to_dict(self) -> dict[str, Any]:
        """The stable summary that `isoflop fit --json` prints."""
        return {
            "law": self.law.name,
            "target": self.law.target,
            "axis": dict(self.law.axis),
            "coef": self.coef,
            "interval": {k: list(v) for k, v in self.interval().items()},
            "level": self.level,
            "objective": self.objective,
            "n": self.n,
            "starts": self.starts,
            "agreeing": self.agreeing,
            "draws": len(self.draws),
            "warnings": list(self.warnings),
        } | {k: self.made[k] for k in ("uncertainty", "seed", "by", "filled", "left_out", "data_hash")}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, whole or not at all. `Fit.load` reads it back."""
        whole = {"format": _FORMAT, "isoflop": isoflop.__version__, **self.to_dict()}
        whole |= {"draws": self.draws.tolist(), "residuals": self.residuals.tolist(), "spans": self.spans}
        whole |= {"made": self.made}
        write_whole(path, json.dumps(whole, indent=1))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, law: str | Law | None = None) -> Any:
        """A saved Fit, or Stack. `law` is needed where it was fitted with a law that is no file of isoflop's.

        Raises ValueError where the file is not a saved fit, or of a later format.
        """
        try:
            whole = json.loads(Path(path).read_text())
            if whole["format"] > _FORMAT:
                raise ValueError(f"{path} has format {whole['format']}; this isoflop reads up to {_FORMAT}: upgrade it")
            if whole.get("kind") == "stack":
                from isoflop._auto import Stack

                return Stack.from_dict(whole)
            found = get_law(law or whole["made"]["law"], axis=whole["axis"] or None, target=whole["target"])
            return cls(
                law=found,
                coef={k: float(v) for k, v in whole["coef"].items()},
                draws=np.array(whole["draws"], float).reshape(-1, len(whole["coef"])),
                objective=whole["objective"],
                n=whole["n"],
                starts=whole["starts"],
                agreeing=whole["agreeing"],
                warnings=tuple(whole["warnings"]),
                spans={k: (float(v[0]), float(v[1])) for k, v in whole["spans"].items()},
                residuals=np.array(whole["residuals"], float),
                made=whole["made"],
                level=whole["level"],
            )
        except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a fit that isoflop saved ({error}); make one with fit --out") from error

    def __str__(self) -> str:
        from isoflop._text import fit_text

        return fit_text(self)


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write a file whole or not at all."""
    import tempfile  # 10 ms that a fit which is not saved need not pay

    target = Path(path)
    with tempfile.NamedTemporaryFile("w", dir=target.resolve().parent, suffix=".part", delete=False) as part:
        part.write(text)
    os.replace(part.name, target)


def fit(
    law: str | Law,
    runs: Any,
    *,
    axis: str | Mapping[str, str] | None = None,
    target: str | None = None,
    objective: str | Objective | None = None,
    by: str | None = None,
    draws: int = 200,
    seed: int = 0,
) -> Any:
    """Fit a law to a table of runs: a Fit; with law "auto" a Stack of the laws that the table's columns allow.

    law: a name (`isoflop list laws`), "file.py:name", a Law, or "auto". runs: anything that `isoflop.read` takes.
    axis: the table's column for a law of one column x, or {law's column: table's column}. target: the metric's column.
    objective: huber_log, squares_log, absolute_log, student_t, squares or huber, or an Objective (its delta, its
    weights); the law's own unless told. by: the column whose rows stand or fall together (checkpoints of one run) in
    the bootstrap. draws: bootstrap refits. Columns that a meter of the same name makes are derived and marked.

    Raises LookupError for an unknown law, RunsError (a ValueError) where the rows cannot be used.
    """
    if draws < 0:
        raise ValueError(f"draws must be 0 or more, got {draws}")
    if law == "auto":
        from isoflop._auto import fit_auto

        return fit_auto(runs, axis=axis, target=target, by=by, draws=max(draws, 100), seed=seed)
    setup = prepare(law, runs, axis=axis, target=target, objective=objective, by=by)
    made = fitted(setup, law=law, draws=draws, seed=seed, by=by)
    return replace(made, made=made.made | {"calibration": _calibration(setup, seed)}) if draws else made


def nuts(
    law: str | Law,
    runs: Any,
    *,
    axis: str | Mapping[str, str] | None = None,
    target: str | None = None,
    objective: str | Objective | None = None,
    draws: int = 4000,
    seed: int = 0,
) -> Fit:
    """`fit` with draws from the posterior, by the No-U-Turn sampler, in place of bootstrap refits.

    Priors are the law's plausible ranges; the noise is Student-t with a scale that may grow with the runs. Takes about
    20 s, most of it compilation. Raises ImportError without NumPyro (pip install 'isoflop[bayes]'), else as `fit`.
    """
    from isoflop._bayes import posterior

    def sampler(setup: Setup, theta: np.ndarray) -> tuple[Draws, tuple[str, ...]]:
        found = posterior(setup, theta, draws=draws, seed=seed)
        return Draws(setup.law.inward(found.coef), found.method, 1.0), tuple(found.doubts)

    setup = prepare(law, runs, axis=axis, target=target, objective=objective)
    made = fitted(setup, law=law, draws=draws, seed=seed, by=None, sampler=sampler)
    return replace(made, made=made.made | {"calibration": _calibration(setup, seed)})


def fitted(
    setup: Setup,
    *,
    law: str | Law,
    draws: int,
    seed: int,
    by: str | None,
    sampler: Callable[[Setup, np.ndarray], tuple[Draws, tuple[str, ...]]] | None = None,
) -> Fit:
    """The fit of a prepared law, without how its forecasts did inside the rows. sampler: in place of the bootstrap."""
    problem = setup.problem
    found = search(setup, seed=seed)
    best, agreeing = pick(found)
    theta = polished(problem, found.theta[best])
    doubts: tuple[str, ...] = ()
    if sampler is None:
        with progress(f"bootstrap of {setup.law.name}", draws) as tick:
            made = bootstrap(problem, theta, draws=draws, seed=seed, groups=setup.groups, progress=tick)
        sample, loose = loosened(setup, theta, widened(made.theta, theta, setup), seed)
    else:
        (made, doubts), loose = sampler(setup, theta), []
        sample = made.theta
    coef = setup.coefs(theta)
    return Fit(
        law=setup.law,
        coef=coef,
        draws=setup.law.outward(sample),
        objective=describe(problem, theta),
        n=problem.target.size,
        starts=len(found.value),
        agreeing=agreeing,
        warnings=(*_doubts.about_fit(setup, found, best, made, loose), *doubts),
        spans={c: (float(v.min()), float(v.max())) for c, v in setup.columns.items()},
        residuals=_thinned(setup.residuals(coef)),
        made=provenance(law, setup, made.method + ", along a profile" * bool(loose), seed, by),
    )


def _calibration(setup: Setup, seed: int) -> dict[str, Any]:
    """How wrong the law's own forecasts were inside the rows; {} where target or scale is not positive."""
    from isoflop._auto import calibration, own_scale, scale_values

    if not ((setup.problem.target > 0).all() and (scale_values(own_scale(setup.law), setup.columns) > 0).all()):
        return {}
    return calibration(setup.law, setup.table, seed=seed)


def prepare(
    law: str | Law,
    runs: Any,
    *,
    axis: str | Mapping[str, str] | None = None,
    target: str | None = None,
    objective: str | Objective | None = None,
    by: str | None = None,
    least: int | None = None,
) -> Setup:
    """A law and a table, checked at the door and traced; least: fewest rows, one a coefficient unless told.

    Raises as `fit` does.
    """
    found = get_law(law, axis=axis, target=target)
    goal = get_objective(objective or found.objective)
    table, made = usable_rows(found, _runs.load(runs), goal)
    p = len(found.coefs)
    if len(table) < (p if least is None else least):
        raise _runs.RunsError(
            f"law {found.name!r} has {p} coefficients and {table.name} has {len(table)} usable rows; "
            f"it needs at least {p}, and about {3 * p} to say how sure it is"
        )
    columns = {c: np.asarray(table[c], float) for c in dict.fromkeys([*found.table_columns, found.target])}
    tape = found.tape({c for c in found.table_columns if np.all(columns[c] > 0)})
    ranges = found.ranges(columns)
    kinds = list(found.coefs.values())
    problem = Problem(
        tape=tape,
        half_way=found.half_way,
        n_coef=p,
        rows=tape.rows(columns),
        target=columns[found.target],
        weights=_row_weights(table, goal, found.target),
        objective=goal,
        middle=found.inward(middles(found, ranges)),
        log_scaled=np.array([s.kind == "positive" and not s.narrow for s in kinds]),
    )
    return Setup(found, columns, problem, ranges, _groups(table, by), table, made)


def usable_rows(
    law: Law, table: _runs.Table, objective: Objective, *, skip_bad: bool = False
) -> tuple[_runs.Table, dict[str, str]]:
    """The rows that this law and objective can use, and which missing columns a meter filled. Raises RunsError."""
    table, made = _meter.derive(table, law.table_columns)
    extra = [objective.weights] if objective.weights else []
    positive = [*on_log_axis(law), *([law.target] if objective.log else []), *extra]
    need = [*law.table_columns, *extra]
    return _runs.check(table, need=need, target=law.target, positive=positive, skip_bad=skip_bad), made


def on_log_axis(law: Law) -> list[str]:
    """The table's columns whose logarithm the law takes: these must be above zero."""
    seen: set[str] = set()
    stack: list[Node] = [law.trace(set(law.table_columns))]
    visited: set[int] = set()
    while stack:
        node = stack.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        if node.op == "log" and node.args[0].op == "col":
            seen.add(node.args[0].value)
        stack.extend(node.args)
    return [c for c in law.table_columns if c in seen]


def search(setup: Setup, *, seed: int, count: int | None = None) -> Solutions:
    """Fits from `count` well-spread starts."""
    count = count or (16 if setup.problem.n_coef <= 5 else 32)
    rng = np.random.default_rng(seed)
    tries = 512 if setup.problem.n_coef <= 5 else 2048
    problem, stages, far = setup.problem, setup.problem.objective.stages, Options(damping=1.0)
    begin = starts(setup.law, problem, setup.columns, count=count, tries=tries, rng=rng)
    with progress(f"fit of {setup.law.name}", count) as tick:
        if problem.target.size <= 2 * _ENOUGH_ROWS:
            return solve_stages(problem, begin, stages, options=far, progress=tick)
        some = np.sort(rng.choice(problem.target.size, _LEADING_ROWS, replace=False))
        near = solve_stages(problem.take(some), begin, stages, options=far)
    return _on_all_rows(problem, near)


def _on_all_rows(problem: Problem, near: Solutions) -> Solutions:
    """Ends found on some rows, taken on to all: the best few that differ, and with each those that had met it."""
    order = np.argsort(near.value, kind="stable")
    ranked = near.value[order]
    end = np.empty(len(order), int)
    end[order] = np.cumsum(np.diff(ranked, prepend=ranked[0]) > 1e-6 * np.abs(ranked))
    first = [order[np.flatnonzero(end[order] == k)[0]] for k in range(min(_ENDS, int(end.max()) + 1))]
    final = solve_stages(problem, near.theta[first], problem.objective.stages[-1:], options=Options(damping=1e-3))
    theta, value, converged = near.theta.copy(), np.full(len(order), np.inf), np.zeros(len(order), bool)
    for k in range(len(first)):
        theta[end == k], value[end == k], converged[end == k] = final.theta[k], final.value[k], final.converged[k]
    return Solutions(theta, value, converged, near.steps)


def pick(found: Solutions) -> tuple[int, int]:
    """The best solution, and how many starts agree with it in the objective. Raises ValueError where none is finite."""
    if not np.isfinite(found.value).any():
        raise ValueError(
            "no start gave a finite objective: the law is not finite (or not above zero, for a log objective) on these "
            "rows at any plausible coefficients; check the columns' units and the law's ranges"
        )
    best = int(np.argmin(found.value))
    near = found.value - found.value[best] <= 1e-6 * abs(found.value[best]) + 1e-18
    return best, int(near.sum())


def polished(problem: Problem, theta: np.ndarray) -> np.ndarray:
    """The solution under the objective's last refinements, where it has any."""
    stages = problem.objective.polish
    return (
        solve_stages(problem, theta[None], stages, options=Options(damping=1e-3, revivals=0)).theta[0]
        if stages
        else theta
    )


def describe(problem: Problem, theta: np.ndarray) -> dict[str, Any]:
    """The objective by name, with its settings and its value at theta (a sum over rows, not a mean)."""
    if problem.objective.name == "absolute_log":
        final = replace(problem, objective=problem.objective.polish[-1])
        value = float(Evaluator(final, 1)(theta[None], None).value[0]) / final.objective.delta
    else:
        value = float(Evaluator(problem, 1)(theta[None], None).value[0])
    out: dict[str, Any] = {"name": problem.objective.name, "value": value}
    if problem.objective.name.startswith("huber"):
        out["delta"] = problem.objective.delta
    if problem.objective.weights:
        out["weights"] = problem.objective.weights
    return out


def widened(theta: np.ndarray, best: np.ndarray, setup: Setup) -> np.ndarray:
    """Draws spread by sqrt(n / (n - p)) about the best fit: resampling n rows of a p-coefficient fit is too sure."""
    p = setup.problem.n_coef
    n = setup.problem.target.size if setup.groups is None else len(np.unique(setup.groups))
    factor = np.sqrt(n / max(n - p, 1))
    if setup.groups is None:  # clusters are wide already
        factor *= float(np.interp(1.0 / max(n - p, 1), *_FEW))
    return best[:p] + factor * (theta[:, :p] - best[:p])


def loosened(setup: Setup, theta: np.ndarray, sample: np.ndarray, seed: int) -> tuple[np.ndarray, list[Profile]]:
    """Draws, made as wide as the profile likelihood of the coefficients that the rows hardly identify; and these."""
    if len(sample) < 20 or setup.problem.target.size > MAX_REFIT_ROWS:
        return sample, []
    low, high = np.nanpercentile(sample, [5, 95], axis=0)
    half_width = np.clip(0.5 * (high - low), 1e-6, 5.0)
    shares = np.array([s.kind == "unit" for s in setup.law.coefs.values()])
    loose = loose_profiles(setup.problem, theta, half_width, shares)
    if loose:  # one path carries the coefficients that trade off with it; following several would count it twice
        widest = max(loose, key=lambda profile: profile.width() / half_width[profile.index])
        again = profile_draws(widest, setup.problem, len(sample), seed=seed, groups=setup.groups)
        sample = again[:, : setup.problem.n_coef]
    return sample, loose


def provenance(law: str | Law, setup: Setup, uncertainty: str, seed: int, by: str | None) -> dict[str, Any]:
    """What was done to which rows, as it is saved with the fit."""
    return {
        "law": law if isinstance(law, str) else setup.law.name,
        "uncertainty": uncertainty,
        "seed": seed,
        "by": by,
        "filled": setup.made,
        "left_out": dict(setup.table.left_out),
        "data_hash": setup.table.hash_of(setup.columns),
        "isoflops": _isoflops.summary(setup.table, setup.law.table_columns),
    } | _checklist.record(setup.table, setup.columns)


def _row_weights(table: _runs.Table, objective: Objective, target: str) -> np.ndarray:
    if objective.weights is None:
        return np.ones(len(table))
    column = np.asarray(table[objective.weights], float)
    if not objective.weights.endswith("_se"):
        return column / column.mean()
    relative = column / np.asarray(table[target], float) if objective.log else column
    weights = 1.0 / relative**2
    return weights / weights.mean()


def _groups(table: _runs.Table, by: str | None) -> np.ndarray | None:
    if by is None:
        return None
    groups = np.unique(table[by].astype(str), return_inverse=True)[1]
    if groups.max() < 2:
        raise _runs.RunsError(
            f"column {by!r} of {table.name} has {groups.max() + 1} values; clusters to resample need at least 3"
        )
    return groups


def _thinned(residuals: np.ndarray) -> np.ndarray:
    if residuals.size <= _KEEP_RESIDUALS:
        return residuals
    return np.quantile(residuals, (np.arange(_KEEP_RESIDUALS) + 0.5) / _KEEP_RESIDUALS)
