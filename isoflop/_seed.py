"""Where fits start: quasi-random nonlinear coefficients, with the linear ones solved for in closed form.

Variable projection (Golub and Pereyra 1973): a coefficient in which the law is linear (an amplitude, an offset) needs
no search. Which ones these are is read off the law's own second derivatives, so laws need not say. Of a law of many
coefficients the best tries are then compared by where a few steps lead them, as few points of so large a space are near
an optimum.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from isoflop._law import Law
from isoflop._newton import Options, solve
from isoflop._problem import Problem
from isoflop._tape import Tape

_MAX_ROWS = 400  # enough rows to rank starting points
_FEW = 5  # coefficients up to which a ranked point is near enough
_LED, _STEPS = 4, 20  # points of a group that are led downhill, and how far


def linear_coefs(tape: Tape, n_coef: int) -> list[int]:
    """Coefficients in which the law is jointly linear, given a tape in the coefficients themselves."""
    chosen: list[int] = []
    for i in range(n_coef):
        if all((min(i, j), max(i, j)) not in tape.second for j in [*chosen, i]):
            chosen.append(i)
    return chosen


def quasi_random(count: int, dims: int, rng: np.random.Generator) -> np.ndarray:
    """Evenly spread points in the unit cube, (count, dims): additive recurrence on the generalised golden ratio."""
    ratio = 2.0
    for _ in range(50):  # the root of x^(dims+1) = x + 1
        ratio = (1.0 + ratio) ** (1.0 / (dims + 1))
    steps = (1.0 / ratio) ** np.arange(1, dims + 1)
    return (rng.random(dims) + np.arange(1, count + 1)[:, None] * steps) % 1.0


def middles(law: Law, ranges: np.ndarray) -> np.ndarray:
    """Middle of each plausible range: geometric for positive coefficients."""
    kinds = [s.kind for s in law.coefs.values()]
    low, high = ranges[:, 0], ranges[:, 1]
    positive = np.array([k == "positive" for k in kinds])
    return np.where(positive, np.sqrt(np.abs(low * high)), 0.5 * (low + high))


def starts(law: Law, problem: Problem, columns: dict[str, np.ndarray], *, count: int = 16, tries: int = 512,
           rng: np.random.Generator) -> np.ndarray:  # fmt: skip
    """Starting points, unconstrained, (count, p): of `tries` points the best in each of `count` interleaved groups.

    For more than five coefficients: of each group the one of its best four that is lowest after twenty steps, there.
    """
    ranges = law.ranges(columns)
    positive = {c for c in law.table_columns if np.all(columns[c] > 0)}
    raw = law.tape(positive, inward=False)
    linear = linear_coefs(raw, len(ranges))
    n = problem.target.size
    pick = np.arange(n) if n <= _MAX_ROWS else np.sort(rng.choice(n, _MAX_ROWS, replace=False))
    target, weights = problem.target[pick], problem.weights[pick]
    rows = raw.rows({c: columns[c][pick] for c in law.table_columns})
    u = quasi_random(tries, len(ranges), rng)
    coef = _spread(law, ranges, u)
    score = np.empty(tries)
    for block in np.array_split(np.arange(tries), max(1, tries * target.size // 50_000)):
        coef[block], score[block] = _project(law, raw, rows, coef[block], linear, target, weights, problem, ranges)
    groups = np.arange(tries) % count
    order = np.argsort(score, kind="stable")
    led = min(_LED, tries // count) if len(ranges) > _FEW else 1
    first = np.concatenate([order[groups[order] == g][:led] for g in range(count)])
    begin = law.inward(coef[first])
    return begin if led == 1 else _lowest(problem.take(pick), begin, count)


def _lowest(problem: Problem, begin: np.ndarray, count: int) -> np.ndarray:
    """Of each of `count` groups of equally many points, the one that a few steps lead lowest, where they lead it."""
    coarse = replace(problem, objective=problem.objective.stages[0])
    found = solve(coarse, begin, options=Options(damping=1.0, max_steps=_STEPS, rtol=1e-3, revivals=0))
    value = found.value.reshape(count, -1)
    return found.theta[np.argmin(value, axis=1) + value.shape[1] * np.arange(count)]


def _spread(law: Law, ranges: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Unit cube -> plausible ranges, log-uniform for positive coefficients."""
    out = np.empty_like(u)
    for i, support in enumerate(law.coefs.values()):
        low, high = ranges[i]
        if support.kind == "positive":
            low, high = np.log(low), np.log(high)
            out[:, i] = np.exp(low + u[:, i] * (high - low))
        else:
            inset = 0.02 if support.kind == "unit" else 0.0
            out[:, i] = low + (inset + u[:, i] * (1 - 2 * inset)) * (high - low)
    return out


def _project(law: Law, raw: Tape, rows: np.ndarray, coef: np.ndarray, linear: list[int], target: np.ndarray,
             weights: np.ndarray, problem: Problem, ranges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    b, n = len(coef), target.size
    work = np.empty((1 + raw.n_out, b, n))
    scratch = np.empty((max(0, raw.n_registers - 1 - raw.n_out), b, n))
    log = problem.objective.log
    with np.errstate(all="ignore"):
        raw.run(coef, rows, work, scratch)
        value = work[0].copy()
        if linear:
            basis = work[1 + np.array(linear)].transpose(1, 2, 0)  # (b, n, l)
            rest = value - np.einsum("bnl,bl->bn", basis, coef[:, linear])
            scale = np.sqrt(weights) / (np.abs(target) if log else 1.0)
            solved = _supports(law, linear, basis * scale[:, None], (target - rest) * scale)
            solved = _inside(law, linear, solved, ranges)
            good = np.isfinite(solved).all(axis=1)
            coef = coef.copy()
            coef[np.ix_(good, linear)] = solved[good]
            value = rest + np.einsum("bnl,bl->bn", basis, coef[:, linear])
        residual = np.log(value) - np.log(target) if log else value - target
        score = np.einsum("bn,n->b", residual * residual, weights)
    return coef, np.where(np.isfinite(score), score, np.inf)


def _supports(law: Law, linear: list[int], basis: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Least squares with the positive coefficients held at or above zero: the best over all subsets of active ones."""
    gram = np.einsum("bnl,bnm->blm", basis, basis)
    moment = np.einsum("bnl,bn->bl", basis, right)
    kinds = [list(law.coefs.values())[i].kind for i in linear]
    free = [k for k, kind in enumerate(kinds) if kind == "real"]
    bound = [k for k, kind in enumerate(kinds) if kind != "real"]
    best = np.zeros_like(moment)
    best_gain = np.full(len(moment), -np.inf)
    sizes = range(len(bound) + 1) if len(bound) <= 4 else [len(bound)]
    for subset in itertools.chain.from_iterable(itertools.combinations(bound, k) for k in sizes):
        active = [*free, *subset]
        if not active:
            continue
        scale = np.sqrt(np.maximum(np.einsum("bkk->bk", gram[:, active][:, :, active]), 1e-300))
        system = gram[:, active][:, :, active] / (scale[:, :, None] * scale[:, None, :])
        system = np.nan_to_num(system, nan=0.0, posinf=0.0, neginf=0.0) + 1e-10 * np.eye(len(active))
        part = np.nan_to_num(moment[:, active] / scale, nan=0.0, posinf=0.0, neginf=0.0)
        found = np.linalg.solve(system, part[:, :, None])[:, :, 0]
        gain = np.einsum("bk,bk->b", found, part)
        ok = (found[:, len(free) :] >= 0).all(axis=1) if len(bound) <= 4 else np.ones(len(found), bool)
        better = ok & (gain > best_gain)
        best[better] = 0.0
        best[np.ix_(better, active)] = (found / scale)[better]
        best_gain[better] = gain[better]
    return best


def _inside(law: Law, linear: list[int], solved: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Solved coefficients, moved inside their support where they lie at its edge."""
    out = solved.copy()
    for k, i in enumerate(linear):
        kind = list(law.coefs.values())[i].kind
        if kind == "positive":
            out[:, k] = np.maximum(solved[:, k], 1e-3 * ranges[i, 0])
        elif kind == "unit":
            out[:, k] = np.clip(solved[:, k], 0.02, 0.98)
    return out
