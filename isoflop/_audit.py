"""How many of thousands of far starts reach the optimum: a check that the optimum is the optimum."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from isoflop._fit import Setup, prepare
from isoflop._law import Law
from isoflop._newton import Options, solve_stages
from isoflop._objective import Objective
from isoflop._progress import progress
from isoflop._seed import quasi_random


@dataclass(frozen=True)
class Audit:
    """Ends of many starts. at_optimum: share within 1e-9 relative of the lowest objective; near: within 1e-6."""

    coef: dict[str, float]
    value: float
    starts: int
    at_optimum: float
    near: float
    values: np.ndarray

    def __str__(self) -> str:
        coefs = ", ".join(f"{c} {v:.6g}" for c, v in self.coef.items())
        return (
            f"{100 * self.at_optimum:.1f} % of {self.starts} starts reach the lowest objective {self.value:.10g} "
            f"({100 * self.near:.1f} % within 1e-6): {coefs}"
        )


def audit(
    law: str | Law, runs: Any, *, starts: int = 4500, axis: str | Mapping[str, str] | None = None,
    target: str | None = None, objective: str | Objective | None = None, seed: int = 0,
) -> Audit:  # fmt: skip
    """Fit from `starts` points spread far beyond the plausible ranges, with no help from variable projection.

    For chinchilla with 4500 starts these are the published grid: log A, log B in 0, 5..25, log E in -1, -.5..1, alpha
    and beta in 0, .5..2 (Hoffmann et al. 2022, arXiv 2203.15556, appendix D.3); 0 stands as .001.
    """
    setup = prepare(law, runs, axis=axis, target=target, objective=objective)
    begin = (
        published_grid(setup.law) if setup.law.name == "chinchilla" and starts == 4500 else _wide(setup, starts, seed)
    )
    with progress(f"audit of {setup.law.name}", len(begin)) as tick:
        found = solve_stages(setup.problem, begin, setup.problem.objective.stages, options=Options(damping=300.0),
                             progress=tick)  # fmt: skip
    best = int(np.argmin(found.value))
    gap = found.value / found.value[best] - 1.0
    return Audit(
        coef=setup.coefs(found.theta[best]),
        value=float(found.value[best]),
        starts=len(begin),
        at_optimum=float((gap < 1e-9).mean()),
        near=float((gap < 1e-6).mean()),
        values=found.value,
    )


def published_grid(law: Law) -> np.ndarray:
    """The 4500 starts of Hoffmann et al. in the law's unconstrained coordinates."""
    amplitude, exponent = np.arange(0, 26, 5.0), np.array([1e-3, 0.5, 1.0, 1.5, 2.0])
    offset = np.array([-1, -0.5, 0, 0.5, 1.0])
    grid = np.array(list(itertools.product(offset, amplitude, amplitude, exponent, exponent)))
    return law.inward(np.column_stack([np.exp(grid[:, :3]), grid[:, 3:]]))


def _wide(setup: Setup, count: int, seed: int) -> np.ndarray:
    """Quasi-random points over the plausible ranges, stretched by half at each end in unconstrained coordinates."""
    ends = np.sort(setup.law.inward(setup.ranges.T), axis=0)
    ends = np.clip(ends, -60.0, 60.0)
    u = quasi_random(count, ends.shape[1], np.random.default_rng(seed))
    return ends[0] + (2.0 * u - 0.5) * (ends[1] - ends[0])
