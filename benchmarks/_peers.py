"""What scaling laws are fitted with today, each on the same problem; fit.py runs one a process:

    python benchmarks/_peers.py NAME problem.npz answer.npz

A peer is a function of the rows (log N, log D, log L) that returns `solve(starts, picks)`: starts (k, 5) in the
published coordinates (log A, log B, log E, alpha, beta), picks (k, n) the rows of each problem, the result (k, 5). What
a peer does once (import, compile) belongs before `solve`. All minimise the sum of Huber losses (delta 1e-3) of log
residuals, in one vectorised pass over the rows. Tolerances are the tool's own unless a comment says why not.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

DELTA = 1e-3
Solve = Callable[[np.ndarray, np.ndarray], np.ndarray]
One = Callable[[np.ndarray, np.ndarray], np.ndarray]  # start (5,), rows (3, n) -> end (5,)


# ---- the problem -----------------------------------------------------------------------------------------------------


def residuals(theta: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log prediction - log loss (n,), and each term's share of the prediction (3, n)."""
    a, b, e, alpha, beta = theta
    terms = np.stack([a - alpha * rows[0], b - beta * rows[1], np.full_like(rows[0], e)])
    top = terms.max(axis=0)
    terms = np.exp(terms - top)
    total = terms.sum(axis=0)
    return top + np.log(total) - rows[2], terms / total


def objective(theta: np.ndarray, rows: np.ndarray) -> float:
    """Sum of Huber losses: what every contestant is scored by."""
    size = np.abs(residuals(theta, rows)[0])
    return float(np.where(size <= DELTA, 0.5 * size * size, DELTA * (size - 0.5 * DELTA)).sum())


def with_gradient(theta: np.ndarray, rows: np.ndarray) -> tuple[float, np.ndarray]:
    """The objective and its gradient (5,)."""
    r, share = residuals(theta, rows)
    psi = np.clip(r, -DELTA, DELTA)
    pull = psi * share
    slopes = [pull[0].sum(), pull[1].sum(), pull[2].sum(), -pull[0] @ rows[0], -pull[1] @ rows[1]]
    return float((psi * (r - 0.5 * psi)).sum()), np.array(slopes)


def grid() -> np.ndarray:
    """The published 4500 starts (Hoffmann et al. 2022, arXiv 2203.15556, appendix D.3), (4500, 5)."""
    amplitude, exponent = np.arange(0, 26, 5.0), np.arange(0, 2.1, 0.5)
    axes = np.meshgrid(amplitude, amplitude, np.arange(-1, 1.1, 0.5), exponent, exponent, indexing="ij")
    return np.stack([axis.ravel() for axis in axes], axis=1)


# ---- peers -----------------------------------------------------------------------------------------------------------


def one_by_one(one: One, rows: np.ndarray) -> Solve:
    """A solver of single problems, in a loop."""

    def solve(starts: np.ndarray, picks: np.ndarray) -> np.ndarray:
        return np.array([one(start, rows[:, pick]) for start, pick in zip(starts, picks, strict=True)])

    return solve


def scipy_minimize(rows: np.ndarray, *, method: str, gradient: bool, tight: bool = False) -> Solve:
    """scipy.optimize.minimize; L-BFGS-B with a numeric gradient is how the published notebook searches its grid.

    Its tolerance is absolute for values below 1, and this objective is 1e-3: `tight` multiplies it by 1e6 and asks for
    all digits, which few people do.
    """
    from scipy.optimize import minimize

    scale = 1e6 if tight else 1.0
    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 10_000} if tight else None

    def function(theta: np.ndarray, mine: np.ndarray) -> Any:
        if not gradient:
            return scale * objective(theta, mine)
        value, slope = with_gradient(theta, mine)
        return scale * value, scale * slope

    def one(start: np.ndarray, mine: np.ndarray) -> np.ndarray:
        found = minimize(function, start, args=(mine,), method=method, jac=gradient or None, options=options)
        return np.asarray(found.x)

    return one_by_one(one, rows)


def scipy_least_squares(rows: np.ndarray) -> Solve:
    """scipy.optimize.least_squares with its Huber loss, numeric Jacobian."""
    from scipy.optimize import least_squares

    def one(start: np.ndarray, mine: np.ndarray) -> np.ndarray:
        return np.asarray(least_squares(lambda t: residuals(t, mine)[0], start, loss="huber", f_scale=DELTA).x)

    return one_by_one(one, rows)


def lmfit_least_squares(rows: np.ndarray) -> Solve:
    """lmfit over the same: named parameters, the same solver beneath."""
    import lmfit

    names = ("a", "b", "e", "alpha", "beta")

    def one(start: np.ndarray, mine: np.ndarray) -> np.ndarray:
        begin = lmfit.Parameters()
        for name, value in zip(names, start, strict=True):
            begin.add(name, value=value)

        def gap(p: Any) -> np.ndarray:
            return residuals(np.array([p[name].value for name in names]), mine)[0]

        found = lmfit.minimize(gap, begin, method="least_squares", loss="huber", f_scale=DELTA)
        return np.array([found.params[name].value for name in names])

    return one_by_one(one, rows)


def chinchilla_package(rows: np.ndarray) -> Solve:
    """The `chinchilla` package with the papers' loss.

    It takes the axes of a grid, uses all cores and returns the best only: `solve` wants a full grid, and gives one row.
    """
    import tempfile

    import pandas
    from chinchilla import Chinchilla
    from chinchilla._metrics import log_huber

    def solve(starts: np.ndarray, picks: np.ndarray) -> np.ndarray:
        n, d, loss = np.exp(rows[:, picks[0]])
        axes = {name: np.unique(starts[:, i]) for i, name in ((2, "e"), (0, "a"), (1, "b"), (3, "alpha"), (4, "beta"))}
        with tempfile.TemporaryDirectory() as folder:
            scaling = Chinchilla(folder, param_grid=axes, loss_fn=partial(log_huber, delta=DELTA), log_level=50)
            scaling.database.df = pandas.DataFrame({"C": 6 * n * d, "N": n, "D": d, "loss": loss})
            scaling.visualizer.optim = lambda *args, **settings: None  # its picture is not part of the fit
            scaling.fit()
        found = scaling.get_params()
        return np.array([[*(np.log(found[k]) for k in "ABE"), found["alpha"], found["beta"]]])

    return solve


@contextmanager
def double_precision() -> Iterator[None]:
    """float64 inside, the user's JAX settings untouched outside."""
    import jax

    if hasattr(jax, "enable_x64"):
        with jax.enable_x64(True):
            yield
    else:
        from jax.experimental import enable_x64

        with enable_x64():
            yield


def optimistix_map(rows: np.ndarray, *, method: str, starts: np.ndarray, picks: np.ndarray) -> Solve:
    """optimistix BFGS, or Levenberg-Marquardt on signed square roots of the losses; one after another under lax.map.

    Mapping is faster here than vmap, in which all problems wait for the slowest. Tolerance 1e-10: the default of its
    examples, 1e-3 to 1e-8, stops short of the optimum.
    """
    import jax
    import jax.numpy as jnp
    import optimistix as optx

    def log_residuals(theta: Any, mine: Any) -> Any:
        a, b, e, alpha, beta = theta
        terms = jnp.stack([a - alpha * mine[0], b - beta * mine[1], jnp.full_like(mine[0], e)])
        return jax.nn.logsumexp(terms, axis=0) - mine[2]

    def loss(theta: Any, mine: Any) -> Any:
        size = jnp.abs(log_residuals(theta, mine))
        return jnp.where(size <= DELTA, 0.5 * size**2, DELTA * (size - 0.5 * DELTA)).sum()

    def roots(theta: Any, mine: Any) -> Any:
        r = log_residuals(theta, mine)
        far = jnp.maximum(jnp.abs(r), DELTA)
        return jnp.where(jnp.abs(r) <= DELTA, r, jnp.sign(r) * jnp.sqrt(2 * DELTA * (far - 0.5 * DELTA)))

    def one(problem: Any) -> Any:
        start, pick = problem
        mine = jnp.asarray(rows)[:, pick]
        how = {"args": mine, "max_steps": 2000, "throw": False}
        if method == "BFGS":
            return optx.minimise(loss, optx.BFGS(rtol=1e-10, atol=1e-12), start, **how).value
        return optx.least_squares(roots, optx.LevenbergMarquardt(rtol=1e-10, atol=1e-12), start, **how).value

    with double_precision():
        compiled = jax.jit(lambda s, p: jax.lax.map(one, (s, p))).lower(starts, picks).compile()

    def solve(starts: np.ndarray, picks: np.ndarray) -> np.ndarray:
        with double_precision():
            return np.asarray(compiled(starts, picks))

    return solve


PEERS: dict[str, Callable[..., Solve]] = {
    "scipy L-BFGS-B, numeric gradient": partial(scipy_minimize, method="L-BFGS-B", gradient=False),
    "scipy L-BFGS-B, exact gradient": partial(scipy_minimize, method="L-BFGS-B", gradient=True),
    "scipy L-BFGS-B, exact gradient, tight": partial(scipy_minimize, method="L-BFGS-B", gradient=True, tight=True),
    "scipy BFGS, exact gradient": partial(scipy_minimize, method="BFGS", gradient=True),
    "scipy least_squares (huber)": scipy_least_squares,
    "lmfit least_squares (huber)": lmfit_least_squares,
    "chinchilla package": chinchilla_package,
    "optimistix BFGS": partial(optimistix_map, method="BFGS"),
    "optimistix LM": partial(optimistix_map, method="LM"),
}


# ---- derivatives, the other way --------------------------------------------------------------------------------------


class Jet:
    """A value with its first and second derivatives, carried forward: (b, n), (p, b, n), (p, p, b, n)."""

    def __init__(self, value: Any, first: Any, second: Any) -> None:
        self.value, self.first, self.second = value, first, second

    @classmethod
    def coefs(cls, theta: np.ndarray) -> list[Jet]:
        """The coefficients (b, p) as jets."""
        p = theta.shape[1]
        unit = np.eye(p)[:, :, None, None]
        return [cls(theta[:, i, None], unit[i], np.zeros((p, p, 1, 1))) for i in range(p)]

    def __add__(self, other: Jet) -> Jet:
        return Jet(self.value + other.value, self.first + other.first, self.second + other.second)

    def __sub__(self, other: Jet) -> Jet:
        return Jet(self.value - other.value, self.first - other.first, self.second - other.second)

    def times(self, column: np.ndarray) -> Jet:
        """A product with a column of the rows."""
        return Jet(self.value * column, self.first * column, self.second * column)

    def exp(self) -> Jet:
        """e to it."""
        value = np.exp(self.value)
        return Jet(value, value * self.first, value * (self.second + self.first[:, None] * self.first[None]))


def jet_evaluate(theta: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Objective (b,), gradient (b, 5) and Hessian (b, 5, 5) at theta (b, 5) by second-order forward jets."""
    a, b, e, alpha, beta = Jet.coefs(theta)
    law = e.exp() + (a - alpha.times(rows[0])).exp() + (b - beta.times(rows[1])).exp()
    r = np.log(law.value) - rows[2]
    psi, inside = np.clip(r, -DELTA, DELTA), np.abs(r) <= DELTA
    slope = psi / law.value
    curve = (inside - psi) / law.value**2
    hessian = np.einsum("ibn,jbn,bn->bij", law.first, law.first, curve, optimize=True)
    hessian += np.einsum("ijbn,bn->bij", law.second, slope)
    return (psi * (r - 0.5 * psi)).sum(axis=1), np.einsum("ibn,bn->bi", law.first, slope), hessian


# ---- one peer in a process of its own --------------------------------------------------------------------------------


def cpu_seconds() -> float:
    """CPU time of this process and of the children that it has waited for."""
    import resource

    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))


def main(name: str, problem: str, answer: str) -> None:
    """Solve the problems of one file, write the ends to another, print the seconds."""
    given = np.load(problem)
    rows, starts, picks = given["rows"], given["starts"], given["picks"]
    compiled = name.startswith("optimistix")
    if compiled:
        import optimistix  # noqa: F401  # so that `compile` is without it
    began = time.perf_counter()
    solve = PEERS[name](rows, starts=starts, picks=picks) if compiled else PEERS[name](rows)
    ready, spent = time.perf_counter(), cpu_seconds()
    with np.errstate(all="ignore"):
        ends = solve(starts, picks)
    seconds = {"wall": time.perf_counter() - ready, "cpu": cpu_seconds() - spent}
    np.save(answer, ends)
    print(json.dumps(seconds | {"compile": ready - began if compiled else 0.0}))


if __name__ == "__main__":
    main(*sys.argv[1:])
