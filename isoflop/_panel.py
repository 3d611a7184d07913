"""One law on many tables at once: posterior modes and draws, with a prior that the tables share.

Every table's fit is the mode of a Student-t likelihood with its own scale and a normal prior on the unconstrained
coefficients: the law's plausible ranges, or, of five tables or more, what the tables have in common (empirical Bayes:
EM on the Laplace approximations). The scale's degrees of freedom are those the coefficients leave over (restricted
likelihood), so that five rows under four coefficients do not pass for exact. All tables are solved in one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from isoflop._fit import Setup, prepare
from isoflop._law import Law
from isoflop._newton import Evaluator, Options, Solutions, solve
from isoflop._objective import Objective
from isoflop._problem import Moved, Prior, Problem
from isoflop._runs import Table
from isoflop._seed import starts

POOL_FROM = 5  # fewer tables say little about how tables differ
_WIDE = 8.0  # least sd of the log of an amplitude: its unit depends on the columns' units
_FEW_ROWS = 50  # below, outliers cannot be told from noise, and heavy tails cost precision
_SCALE = (np.log(0.01), 1.5)  # prior of the log of the scale of log residuals


@dataclass(frozen=True)
class Panel:
    """Tables under one law. problem: stacked; default: the prior of each from plausible ranges; sd (q,): its spread."""

    law: Law
    setups: tuple[Setup, ...]
    problem: Problem
    default: np.ndarray  # (tables, q)
    sd: np.ndarray

    def __len__(self) -> int:
        return len(self.setups)


@dataclass(frozen=True)
class Modes:
    """theta (tables, q): coefficients and log scale; prior: as used, with the scale's correction in its centre."""

    theta: np.ndarray
    prior: Prior
    shared: Prior  # without the correction


def panel(law: Law, tables: Sequence[Table]) -> Panel:
    """A law on tables. Row weights: a column `weight`, and standard errors of the target in `<target>_se`.

    Raises RunsError where a table cannot be used.
    """
    df = 4.0 if np.median([len(t) for t in tables]) >= _FEW_ROWS else 10.0
    setups = tuple(prepare(law, t, objective=Objective("student_t", df=df), least=2) for t in tables)
    default, sds = zip(*(_plausible(s) for s in setups), strict=True)
    sd = np.mean(sds, axis=0)
    precision = np.broadcast_to(np.diag(1.0 / sd**2), (len(setups), len(sd), len(sd)))
    problem = replace(_stack(setups), prior=Prior(np.array(default), precision))
    return Panel(setups[0].law, setups, problem, np.array(default), sd)


def _plausible(setup: Setup) -> tuple[np.ndarray, np.ndarray]:
    """Centre and spread of the prior from the declared ranges, 90 % inside; the scale's last."""
    middle, spread = [], []
    for support, (low, high) in zip(setup.law.coefs.values(), setup.ranges, strict=True):
        inset = 0.02 * (high - low) if support.kind == "unit" else 0.0
        ends = support.inward(np.array([low + inset, high - inset]))
        sd = float(ends[1] - ends[0]) / 3.3
        if support.kind == "positive":
            middle.append(float(support.inward(np.sqrt(low * high))))
            sd = max(sd, _WIDE) if high > 1e3 * low else sd
        else:
            middle.append(float(ends.mean()))
        spread.append(sd)
    return np.array([*middle, _SCALE[0]]), np.array([*spread, _SCALE[1]])


def _stack(setups: Sequence[Setup]) -> Problem:
    first = setups[0].problem
    n = max(s.problem.n_rows for s in setups)
    index = np.array([np.minimum(np.arange(n), s.problem.n_rows - 1) for s in setups])
    rows = np.stack([s.problem.rows[:, i] for s, i in zip(setups, index, strict=True)], axis=1)
    target = np.stack([s.problem.target[i] for s, i in zip(setups, index, strict=True)])
    weights = np.stack([_weights(s)[i] for s, i in zip(setups, index, strict=True)])
    weights[np.arange(n) >= np.array([[s.problem.n_rows] for s in setups])] = 0.0
    return replace(first, rows=rows, target=target, weights=weights)


def _weights(setup: Setup) -> np.ndarray:
    table, target = setup.table, setup.law.target
    out = np.asarray(table["weight"], float) if "weight" in table.columns else np.ones(len(table))
    if f"{target}_se" in table.columns:
        relative = np.asarray(table[f"{target}_se"], float) / setup.problem.target
        good = np.isfinite(relative) & (relative > 0)
        if good.all():
            out = out * np.clip((np.median(relative) / relative) ** 2, 0.05, 20.0)
    return out


# ---- modes -----------------------------------------------------------------------------------------------------------


def modes(panel: Panel, *, seed: int, count: int = 6, pooled: bool = True) -> Modes:
    """The posterior mode of each table, and the prior they share."""
    q, tables = len(panel.sd), len(panel)
    begin = np.stack([_begin(s, panel.default[g], seed, count) for g, s in enumerate(panel.setups)])
    of = np.repeat(np.arange(tables), begin.shape[1])
    found = solve_many(panel.problem, begin.reshape(-1, q), of, Options(damping=1.0, rtol=1e-8, revivals=0,
                                                                         max_steps=50))  # fmt: skip
    theta = _best(found, begin)
    at = Modes(theta, panel.problem.prior, panel.problem.prior)  # type: ignore[arg-type]
    for _ in range(2):
        at = refit(panel.problem, at.theta, at.shared)
    return share(panel, at) if pooled and tables >= POOL_FROM else at


def _begin(setup: Setup, centre: np.ndarray, seed: int, count: int) -> np.ndarray:
    spread = starts(setup.law, setup.problem, setup.columns, count=count, tries=64, rng=np.random.default_rng(seed))
    coefs = np.vstack([spread, centre[:-1]])
    return np.column_stack([coefs, np.full(len(coefs), np.log(0.02))])


def _best(found: Solutions, begin: np.ndarray) -> np.ndarray:
    tables, count, q = begin.shape
    value = np.where(np.isfinite(found.theta).all(axis=1), found.value, np.inf).reshape(tables, count)
    best = np.argmin(value, axis=1)
    theta = found.theta.reshape(tables, count, q)[np.arange(tables), best]
    lost = ~np.isfinite(value.min(axis=1))
    theta[lost] = begin[lost, -1]  # the prior's centre, where nothing is finite
    return theta


def refit(problem: Problem, theta: np.ndarray, shared: Prior) -> Modes:
    """Modes from near ones under a shared prior, each with the correction of its scale's degrees of freedom."""
    p, tables = problem.n_coef, len(theta)
    hessian = _likelihood(problem, theta)[1][:, :p, :p]
    precision = shared.precision[:, :p, :p]
    try:
        fitted = np.trace(np.linalg.solve(hessian + precision, hessian), axis1=1, axis2=2)
    except np.linalg.LinAlgError as error:
        raise ValueError("the rows are too alike to weigh laws on; give rows that differ in size and data") from error
    step = np.zeros_like(theta)
    step[:, p] = np.minimum(fitted, 0.9 * (problem.weights > 0).sum(axis=1))
    prior = Prior(shared.centre + np.linalg.solve(shared.precision, step[:, :, None])[:, :, 0], shared.precision)
    both = np.stack([theta, shared.centre], axis=1)
    found = solve_many(replace(problem, prior=prior), both.reshape(-1, theta.shape[1]), np.repeat(np.arange(tables), 2),
                       Options(damping=0.1, rtol=1e-8, revivals=0, max_steps=40))  # fmt: skip
    return Modes(_best(found, both), prior, shared)


def _likelihood(problem: Problem, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and positive part of the Hessian of each table's likelihood."""
    evaluate = Evaluator(replace(problem, prior=None), len(theta))
    at = evaluate(theta, None, None, np.arange(len(theta)))
    hessian = np.nan_to_num(at.hessian, nan=0.0, posinf=0.0, neginf=0.0)
    values, vectors = np.linalg.eigh(hessian)
    return np.nan_to_num(at.gradient), (vectors * np.maximum(values, 0.0)[:, None, :]) @ vectors.swapaxes(1, 2)


def share(panel: Panel, at: Modes, rounds: int = 3) -> Modes:
    """Empirical Bayes: one normal prior for all tables, from what they say of its centre and spread."""
    tables = len(at.theta)
    centre, cover = panel.default.mean(axis=0), np.diag(panel.sd**2)
    for _ in range(rounds):
        gradient, hessian = _likelihood(panel.problem, at.theta)
        moved = np.matmul(at.prior.precision, (at.prior.centre - at.shared.centre)[:, :, None])[:, :, 0]
        gradient -= moved  # the scale's correction belongs to the likelihood
        pull = np.matmul(hessian, at.theta[:, :, None])[:, :, 0] - gradient
        centre, cover = _population(pull, hessian, centre, cover, panel.default.mean(axis=0), panel.sd)
        shared = Prior(np.tile(centre, (tables, 1)), np.tile(np.linalg.inv(cover), (tables, 1, 1)))
        at = refit(panel.problem, at.theta, shared)
    return at


def _population(pull: np.ndarray, hessian: np.ndarray, centre: np.ndarray, cover: np.ndarray, default: np.ndarray,
                sd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """EM for a normal population of normal likelihoods, held by a weak inverse-Wishart prior a fifth as wide."""
    tables, q = pull.shape
    weak = q + 1.0
    for _ in range(60):
        precision = np.linalg.inv(cover)
        spread = np.linalg.inv(hessian + precision)
        mean = np.matmul(spread, (pull + precision @ centre)[:, :, None])[:, :, 0]
        centre = (mean.sum(axis=0) + 0.5 * default) / (tables + 0.5)
        away = mean - centre
        cover = (away.T @ away + spread.sum(axis=0) + weak * np.diag((0.2 * sd) ** 2)) / (tables + weak)
    return centre, cover


# ---- draws -----------------------------------------------------------------------------------------------------------


def draws(problem: Problem, at: Modes, *, count: int, rng: np.random.Generator) -> np.ndarray:
    """Posterior draws (tables, count, q) by randomise-then-optimise: targets move as the noise does, the prior too."""
    tables, q = at.theta.shape
    of = np.repeat(np.arange(tables), count)
    noise = np.sqrt(problem.objective.df / (problem.objective.df + 3.0))  # from the scale of t to that of its score
    scale = np.exp(at.theta[of, -1])[:, None] * noise / np.sqrt(np.maximum(problem.weights[of], 1e-6))
    targets = rng.standard_t(problem.objective.df, (len(of), problem.n_rows)) * np.minimum(scale, 1.0)
    root = np.linalg.cholesky(np.linalg.inv(at.prior.precision))
    centres = np.matmul(root[of], rng.standard_normal((len(of), q, 1)))[:, :, 0]
    found = solve_many(replace(problem, prior=at.prior), at.theta[of], of,
                       Options(damping=1e-2, rtol=1e-4, revivals=0, max_steps=20), Moved(targets, centres))  # fmt: skip
    theta = np.where(np.isfinite(found.theta), found.theta, at.theta[of])
    return theta.reshape(tables, count, q)


def solve_many(problem: Problem, begin: np.ndarray, of: np.ndarray, options: Options,
               moved: Moved | None = None) -> Solutions:  # fmt: skip
    """`solve` for a stacked problem, tables of like length together, so that little is spent on padding."""
    length = (problem.weights > 0).cumsum(axis=1).argmax(axis=1)[of] + 1
    out = Solutions(begin.copy(), np.full(len(begin), np.inf), np.zeros(len(begin), bool), np.zeros(len(begin), int))
    left = np.argsort(length, kind="stable")
    while left.size:
        some = left[length[left] <= max(2.5 * length[left[0]], 24)]
        left = left[len(some) :]
        n = int(length[some].max())
        part = replace(
            problem, rows=problem.rows[:, :, :n], target=problem.target[:, :n], weights=problem.weights[:, :n]
        )
        shift = None if moved is None else Moved(moved.targets[some, :n], moved.centres[some])
        found = solve(part, begin[some], moved=shift, of=of[some], options=options, workers=1)
        out.theta[some], out.value[some] = found.theta, found.value
        out.converged[some], out.steps[some] = found.converged, found.steps
    return out


def some_rows(panel: Panel, tables: Sequence[int], masks: Sequence[np.ndarray]) -> Problem:
    """The stacked problem of parts of tables: each of `tables` with the rows of its mask alone."""
    whole, index = panel.problem, np.asarray(tables)
    weights = whole.weights[index].copy()
    for k, mask in enumerate(masks):
        weights[k, : len(mask)] *= mask
    prior = whole.prior
    assert prior is not None
    return replace(whole, rows=whole.rows[:, index], target=whole.target[index], weights=weights,
                   prior=Prior(prior.centre[index], prior.precision[index]))  # fmt: skip


def log_predictions(law: Law, theta: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """log of the law at draws theta (k, q) and points: (k, points)."""
    coef = law.outward(theta[:, : len(law.coefs)])
    named = {c: coef[:, i, None] for i, c in enumerate(law.coefs)}
    points = {c: np.asarray(columns[c], float)[None] for c in law.table_columns}
    with np.errstate(all="ignore"):
        n = next(iter(points.values())).shape[1]
        return np.broadcast_to(np.log(law(**points, **named)), (len(theta), n))
