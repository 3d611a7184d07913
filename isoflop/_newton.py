"""Many small robust fits of one law at once: damped Newton with the exact robust Hessian, batched in numpy.

Each problem is the same law on the same rows with its own start and, for bootstraps, its own row weights. A step solves
(H + lambda diag(G)) d = -g with H the exact Hessian and G the iterated-least-squares matrix; where that is not positive
definite, G takes the place of H. Steps count only if the objective falls. Problems that are done leave the block and
the next ones enter, and rows are taken in blocks, so that the working set stays in the cache and memory is bounded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isoflop._objective import Objective
from isoflop._problem import Moved, Problem

_TINY = 1e-300


@dataclass(frozen=True)
class Solutions:
    """Ends of all problems: theta (problems, free), value (problems,), converged (problems,), steps (problems,)."""

    theta: np.ndarray
    value: np.ndarray
    converged: np.ndarray
    steps: np.ndarray


@dataclass(slots=True)
class Local:
    """Value and derivatives at some points: value (b,), gradient (b, q), hessian and gauss (b, q, q)."""

    value: np.ndarray
    gradient: np.ndarray
    hessian: np.ndarray
    gauss: np.ndarray

    def take(self, keep: np.ndarray) -> Local:
        return Local(self.value[keep], self.gradient[keep], self.hessian[keep], self.gauss[keep])

    def put(self, where: np.ndarray, other: Local) -> None:
        self.value[where], self.gradient[where] = other.value[where], other.gradient[where]
        self.hessian[where], self.gauss[where] = other.hessian[where], other.gauss[where]


class Evaluator:
    """Objective, gradient, Hessian at blocks of points, with reused buffers (one per thread)."""

    def __init__(self, problem: Problem, batch: int) -> None:
        self.problem = problem
        n = problem.n_rows
        self.width = min(n, max(64, problem.block // batch))
        tape = problem.tape
        self._work = np.empty((1 + tape.n_out, batch, self.width))
        self._scratch = np.empty((max(0, tape.n_registers - 1 - tape.n_out), batch, self.width))
        self._weighted = np.empty((1 + problem.n_coef, batch, self.width))
        self._log_target = np.log(problem.target) if problem.objective.log else problem.target
        p = problem.n_coef
        self._i, self._j = np.triu_indices(p)
        pairs = list(zip(self._i.tolist(), self._j.tolist(), strict=True))
        self._has = np.array([ij in tape.second for ij in pairs])
        self._index = np.array([tape.second.get(ij, 0) for ij in pairs])
        self._even = bool((problem.weights == 1.0).all())

    def __call__(self, theta: np.ndarray, weights: np.ndarray | None, moved: Moved | None = None,
                 of: np.ndarray | None = None) -> Local:  # fmt: skip
        """weights: (b, n) extra row weights, or None; moved: of these b problems; of: (b,) each one's table."""
        b, q, n = len(theta), self.problem.n_free, self.problem.n_rows
        total = Local(np.zeros(b), np.zeros((b, q)), np.zeros((b, q, q)), np.zeros((b, q, q)))
        p, own = self.problem.n_coef, self.problem.weights if of is None else self.problem.weights[of]
        with np.errstate(all="ignore"):
            inner, slope, bend = self.problem.half_way(theta[:, :p])
            if q > p:
                inner, slope, bend = np.column_stack([inner, theta[:, p]]), _append(slope, 1.0), _append(bend, 0.0)
            for start in range(0, n, self.width):
                rows = slice(start, min(n, start + self.width))
                w = own[..., rows]
                if weights is not None:
                    w = weights[:, rows] if self._even else weights[:, rows] * w
                self._add(total, inner, rows, w, None if moved is None else moved.targets[:, rows], of)
            outer = slope[:, :, None] * slope[:, None, :]
            total.hessian *= outer
            total.hessian[:, range(q), range(q)] += bend * total.gradient
            total.gauss *= outer
            total.gradient *= slope
            if self.problem.prior is not None:
                self._add_prior(total, theta, moved, of)
        bad = ~(np.isfinite(total.value) & np.isfinite(total.hessian).all(axis=(1, 2)))
        if bad.any():  # no step may end where the next could not start
            total.value[bad] = np.inf
        return total

    def _add_prior(self, total: Local, theta: np.ndarray, moved: Moved | None, of: np.ndarray | None) -> None:
        prior = self.problem.prior
        assert prior is not None
        centre, precision = (prior.centre, prior.precision) if of is None else (prior.centre[of], prior.precision[of])
        away = theta - centre if moved is None else theta - centre - moved.centres
        pull = np.matmul(precision, away[:, :, None])[:, :, 0]
        total.value += 0.5 * np.einsum("bq,bq->b", away, pull)
        total.gradient += pull
        total.hessian += precision
        total.gauss += precision

    def _add(self, total: Local, theta: np.ndarray, rows: slice, w: np.ndarray, shift: np.ndarray | None,
             of: np.ndarray | None) -> None:  # fmt: skip
        problem, p, b, m = self.problem, self.problem.n_coef, len(theta), rows.stop - rows.start
        work = self._work[:, :b, :m]
        given = problem.rows[:, rows] if of is None else problem.rows[:, of, rows]
        problem.tape.run(theta, given, work, self._scratch[:, :b, :m])
        value, outputs = work[0], work[1:]
        log, scaled = problem.objective.log, problem.objective.scaled
        r = (np.log(value) if log else value) - (self._log_target[rows] if of is None else self._log_target[of, rows])
        if shift is not None:
            r -= shift
        unit = np.reciprocal(value) if log else np.ones_like(value)  # d residual / d prediction
        scale = np.exp(-theta[:, p, None]) if scaled else 1.0
        if scaled:
            r, unit = r * scale, unit * scale
        size, psi, bend, soft = problem.objective.weighed(r, w)
        total.value += size
        square = unit * unit
        first, across, weighted = outputs[:p], outputs.swapaxes(0, 1), self._weighted[:, :b, :m]
        np.multiply(psi, unit, out=weighted[0])  # d objective / d prediction
        curve = bend - psi / scale if scaled else bend - psi if log else bend
        np.multiply(first, curve * square, out=weighted[1:])
        sums = np.matmul(across, weighted.transpose(1, 2, 0))  # (b, n_out, 1 + p)
        total.gradient[:, :p] += sums[:, :p, 0]
        hessian = sums[:, :p, 1:]
        hessian[:, self._i, self._j] += np.where(self._has, sums[:, self._index, 0], 0.0)
        hessian[:, self._j, self._i] = hessian[:, self._i, self._j]
        total.hessian[:, :p, :p] += hessian
        np.multiply(first, soft * square, out=weighted[1:])
        total.gauss[:, :p, :p] += np.matmul(across[:, :p], weighted[1:].transpose(1, 2, 0))
        if scaled:
            self._add_scale(total, (first / value).swapaxes(0, 1), r, psi, bend, w, scale)

    def _add_scale(self, total: Local, u: np.ndarray, r: np.ndarray, psi: np.ndarray, bend: np.ndarray,
                   w: np.ndarray, scale: Any) -> None:  # fmt: skip
        """The log of the scale as one more coordinate s: objective + sum(w) s, residuals r = e^-s (...)."""
        p, mass = self.problem.n_coef, np.broadcast_to(w, r.shape).sum(axis=1)
        s = -np.log(scale[:, 0])
        total.value += mass * s
        total.gradient[:, p] += mass - (psi * r).sum(axis=1)
        own = (bend * r * r + psi * r).sum(axis=1)
        cross = -np.matmul(u, ((bend * r + psi) * scale)[:, :, None])[:, :, 0]
        total.hessian[:, p, p] += own
        total.hessian[:, :p, p] += cross
        total.hessian[:, p, :p] += cross
        total.gauss[:, p, p] += 2.0 * mass  # expected curvature of log-scale, Gaussian


def _append(columns: np.ndarray, value: float) -> np.ndarray:
    return np.column_stack([columns, np.full(len(columns), value)])


def cholesky_solve(matrix: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve many small symmetric systems at once, (b, q, q) and (b, q); also which of them are positive definite."""
    b, q = right.shape
    rest = matrix.transpose(1, 2, 0).copy()  # problems last: every operation runs along them
    x = right.T.copy()
    inverse = np.empty((q, b))
    good = np.ones(b, dtype=bool)
    least = 1e-14 * np.einsum("iib->ib", rest)
    for k in range(q):
        good &= rest[k, k] > least[k]
        inverse[k] = 1.0 / np.where(good, rest[k, k], 1.0)
        column = rest[k + 1 :, k]
        scaled = column * inverse[k]
        rest[k + 1 :, k + 1 :] -= scaled[:, None] * column
        x[k + 1 :] -= scaled * x[k]
        rest[k + 1 :, k] = scaled
    x *= inverse
    for k in range(q - 1, 0, -1):
        x[:k] -= rest[k, :k] * x[k]
    return x.T, good & np.isfinite(x).all(axis=0)


def _step(at: Local, damping: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Damped Newton steps and the decrease that the quadratic model predicts."""
    size = np.abs(np.einsum("bii->bi", at.gauss))
    floor = 1e-12 * size.max(axis=1, keepdims=True) + _TINY
    metric = damping[:, None] * np.maximum(size, floor)
    diagonal = np.arange(size.shape[1])
    system = at.hessian.copy()
    system[:, diagonal, diagonal] += metric
    step, good = cholesky_solve(system, -at.gradient)
    if not good.all():
        bad = ~good
        system = at.gauss[bad]
        system[:, diagonal, diagonal] += metric[bad] + floor[bad]
        step[bad], good[bad] = cholesky_solve(system, -at.gradient[bad])
        step[~good] = 0.0  # stay, with more damping and the gauss matrix next time
    decrease = -0.5 * np.einsum("bi,bi->b", at.gradient, step)
    return step, np.where(good & np.isfinite(decrease), decrease, np.inf)


@dataclass(frozen=True)
class Options:
    """How long and how hard to try. damping: at the start (large from far, small from a good guess)."""

    damping: float = 100.0
    max_steps: int = 300
    rtol: float = 1e-13
    max_move: float = 6.0  # in log units a step: keeps exp from overflowing on the way
    revivals: int = 2


def _hold(at: Local, pin: np.ndarray) -> None:
    """Make the pinned coordinates (b, q) still: no gradient, no coupling."""
    at.gradient[pin] = 0.0
    for matrix in (at.hessian, at.gauss):
        size = np.abs(np.einsum("bii->bi", matrix))
        matrix[pin] = 0.0
        matrix.swapaxes(1, 2)[pin] = 0.0
        rows, columns = np.nonzero(pin)
        matrix[rows, columns, columns] = np.maximum(size[rows, columns], _TINY)


def revive(problem: Problem, theta: np.ndarray, gauss: np.ndarray) -> np.ndarray:
    """Move coefficients that no row feels back to where they count; returns which problems were moved (in place).

    A vanished term has no gradient, so no solver leaves it by itself, and no good fit has one. An amplitude is raised
    until its term is a tenth of the largest; the exponent of a term that has vanished stays, as it is felt again then;
    any other coefficient goes to the middle of its plausible range.
    """
    p = problem.n_coef
    felt = np.sqrt(np.maximum(np.einsum("bii->bi", gauss)[:, :p], 0.0))
    top = felt.max(axis=1, keepdims=True)
    vanished = (felt <= 1e-6 * top) & np.isfinite(top) & (top > 0)
    if not vanished.any():
        return np.zeros(len(theta), bool)
    largest = np.where(problem.log_scaled, felt, 0.0).max(axis=1, keepdims=True)
    raised = theta[:, :p] + np.log(0.1 * np.maximum(largest, _TINY) / np.maximum(felt, 1e-30 * top))
    lost = vanished & problem.log_scaled & (largest > 0)
    moved = np.where(lost, raised, np.where(lost.any(axis=1, keepdims=True), theta[:, :p], problem.middle))
    theta[:, :p] = np.where(vanished, moved, theta[:, :p])
    return vanished.any(axis=1)


def solve(
    problem: Problem,
    starts: np.ndarray,
    weights: Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    pinned: np.ndarray | None = None,
    moved: Moved | None = None,
    of: np.ndarray | None = None,
    options: Options | None = None,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Solutions:
    """Minimise from each start (problems, free).

    weights(indices) gives the extra row weights of those problems; pinned (problems, free) are coordinates to hold;
    moved is for randomised problems; of (problems,) says which table each is about, where the problem is stacked.
    """
    options = options or Options()
    count = len(starts)
    out = Solutions(
        starts.astype(float, copy=True), np.full(count, np.inf), np.zeros(count, bool), np.zeros(count, np.int64)
    )
    workers = min(workers or os.cpu_count() or 1, max(1, count // 64))
    parts = np.array_split(np.arange(count), workers)
    if workers == 1:
        _solve_part(problem, parts[0], out, weights, pinned, moved, of, options, progress)
        return out
    from concurrent.futures import ThreadPoolExecutor  # 10 ms that one fit need not pay

    with ThreadPoolExecutor(workers) as pool:
        for future in [
            pool.submit(_solve_part, problem, part, out, weights, pinned, moved, of, options, progress)
            for part in parts
        ]:
            future.result()
    return out


def _solve_part(
    problem: Problem,
    todo: np.ndarray,
    out: Solutions,
    weights: Callable[[np.ndarray], np.ndarray] | None,
    pinned: np.ndarray | None,
    moved: Moved | None,
    of: np.ndarray | None,
    options: Options,
    progress: Callable[[int], None] | None,
) -> None:
    batch = int(np.clip(problem.block // max(problem.n_rows, 1), 4, 512))
    batch = max(1, min(len(todo), batch))
    pool = _Pool(Evaluator(problem, batch), todo, out, weights, pinned, moved, of, options, batch)
    while pool.active.size:
        done = pool.advance()
        if progress and done:
            progress(done)


class _Pool:
    """The problems in the block: advance all by one step, retire the finished, admit the waiting."""

    def __init__(
        self,
        evaluate: Evaluator,
        todo: np.ndarray,
        out: Solutions,
        weights: Callable[[np.ndarray], np.ndarray] | None,
        pinned: np.ndarray | None,
        moved: Moved | None,
        of: np.ndarray | None,
        options: Options,
        batch: int,
    ) -> None:
        self.evaluate, self.out, self.weights, self.options, self.batch = evaluate, out, weights, options, batch
        self.waiting = todo
        self.active = todo[:0]
        q, n = evaluate.problem.n_free, evaluate.problem.n_rows
        self.theta = np.empty((0, q))
        self.at = Local(np.empty(0), np.empty((0, q)), np.empty((0, q, q)), np.empty((0, q, q)))
        self.step, self.predicted = np.empty((0, q)), np.empty(0)
        self.damping, self.steps, self.lives = np.empty(0), np.empty(0, int), np.empty(0, int)
        self.w = np.empty((0, n)) if weights else None
        self.pinned, self.pin = pinned, None if pinned is None else pinned[:0]
        self.moved, self.of = moved, of
        self._admit()

    def _admit(self) -> None:
        """Fill the block. A new problem stands at infinity with a step of zero: its first trial is its start."""
        new = self.waiting[: self.batch - self.active.size]
        if not new.size:
            return
        self.waiting = self.waiting[new.size :]
        b, q = new.size, self.theta.shape[1]
        eye = np.broadcast_to(np.eye(q), (b, q, q))
        fresh = Local(np.full(b, np.inf), np.zeros((b, q)), eye, eye)
        mine = self.at
        self.at = Local(*(np.concatenate([getattr(mine, k), getattr(fresh, k)]) for k in Local.__slots__))
        self.active = np.concatenate([self.active, new])
        self.theta = np.concatenate([self.theta, self.out.theta[new]])
        self.step = np.concatenate([self.step, np.zeros((b, q))])
        self.predicted = np.concatenate([self.predicted, np.full(b, np.inf)])
        self.damping = np.concatenate([self.damping, np.full(b, self.options.damping)])
        self.steps = np.concatenate([self.steps, np.zeros(b, int)])
        self.lives = np.concatenate([self.lives, np.full(b, self.options.revivals)])
        if self.weights is not None:
            self.w = np.concatenate([self.w, self.weights(new)])
        if self.pinned is not None:
            self.pin = np.concatenate([self.pin, self.pinned[new]])

    def advance(self) -> int:
        """One trial step of every active problem; returns how many are done with."""
        with np.errstate(all="ignore"):  # what overflows on the way is refused by its value
            return self._advance()

    def _advance(self) -> int:
        options, first = self.options, ~np.isfinite(self.at.value)
        trial = self.theta + self.step
        moved = None if self.moved is None else self.moved.take(self.active)
        new = self.evaluate(trial, self.w, moved, None if self.of is None else self.of[self.active])
        if self.pin is not None:
            _hold(new, self.pin)
        better = new.value <= self.at.value
        ratio = np.where(better, self.at.value - new.value, 0.0) / np.maximum(self.predicted, _TINY)
        self.theta[better] = trial[better]
        self.at.put(better, new)
        factor = np.where(ratio > 0.75, 0.2, np.where(ratio > 0.25, 0.6, 2.0))
        factor = np.where(first, 1.0, np.where(better, factor, 5.0))
        self.damping = np.clip(self.damping * factor, 1e-12, 1e18)
        self.steps += 1
        small = self._plan()
        lost = ~np.isfinite(self.at.value)
        finished = small | lost | (self.damping > 1e15) | (self.steps >= options.max_steps)
        if finished.any() or first.any():
            finished &= ~self._revive((finished | first) & (self.lives > 0))
            self._retire(finished, small)
        return int(finished.sum())

    def _plan(self) -> np.ndarray:
        """Next steps; which problems have converged: the model, undamped, sees no decrease worth a digit."""
        step, self.predicted = _step(self.at, self.damping)
        longest = np.abs(step).max(axis=1, keepdims=True)
        self.step = step * np.minimum(1.0, self.options.max_move / np.maximum(longest, _TINY))
        worth = self.options.rtol * np.abs(self.at.value) + _TINY
        return np.isfinite(self.at.value) & (self.predicted * (1.0 + self.damping) <= worth)

    def _revive(self, candidates: np.ndarray) -> np.ndarray:
        """Of these problems, those that had a vanished coefficient and go on from a better place."""
        where = np.flatnonzero(candidates)
        theta = self.theta[where]
        moved = revive(self.evaluate.problem, theta, self.at.gauss[where]) if where.size else np.zeros(0, bool)
        where = where[moved]
        self.theta[where] = theta[moved]
        self.at.value[where], self.at.gradient[where] = np.inf, 0.0
        self.at.hessian[where] = self.at.gauss[where] = np.eye(self.theta.shape[1])
        self.damping[where] = self.options.damping
        self.step[where], self.predicted[where] = 0.0, np.inf
        self.lives[where] -= 1
        return np.isin(np.arange(candidates.size), where)

    def _retire(self, finished: np.ndarray, converged: np.ndarray) -> None:
        where = self.active[finished]
        self.out.theta[where] = self.theta[finished]
        self.out.value[where] = self.at.value[finished]
        self.out.converged[where] = converged[finished]
        self.out.steps[where] = self.steps[finished]
        keep = ~finished
        self.active, self.theta, self.at = self.active[keep], self.theta[keep], self.at.take(keep)
        self.step, self.predicted = self.step[keep], self.predicted[keep]
        self.damping, self.steps, self.lives = self.damping[keep], self.steps[keep], self.lives[keep]
        if self.w is not None:
            self.w = self.w[keep]
        if self.pin is not None:
            self.pin = self.pin[keep]
        if self.active.size < 0.75 * self.batch:
            self._admit()


def solve_stages(
    problem: Problem, starts: np.ndarray, stages: list[Objective], *, options: Options | None = None, **how: Any
) -> Solutions:
    """Minimise through a sequence of objectives, each from where the last one ended; the last to full precision."""
    options = options or Options()
    theta, steps = starts, np.zeros(len(starts), np.int64)
    for k, objective in enumerate(stages):
        stage = replace(problem, objective=objective)
        theta = theta[:, : problem.n_coef] if not objective.scaled else theta
        if theta.shape[1] < stage.n_free:
            theta = np.column_stack([theta, np.full(len(theta), np.log(_rms(stage, theta)))])
        rough = options if k == 0 else replace(options, damping=min(0.1, options.damping))
        if k < len(stages) - 1:
            rough = replace(rough, rtol=1e-3, max_steps=100)
        found = solve(stage, theta, options=rough, **how)
        theta, steps = found.theta, steps + found.steps
    return replace(found, steps=steps)


def _rms(problem: Problem, theta: np.ndarray) -> float:
    """Smallest root mean square residual among these points: where the estimate of a scale starts."""
    plain = replace(problem, objective=Objective("squares_log" if problem.objective.log else "squares"))
    evaluate = Evaluator(plain, 1)
    best = min(evaluate(t[None, : problem.n_coef], None).value[0] for t in theta[:64])
    return float(np.sqrt(max(2.0 * best / problem.weights.sum(), 1e-24)))
