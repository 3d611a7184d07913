"""Profile likelihood: how far a coefficient can be moved, the others refitted, before the rows object.

Resampling shows how the best fit scatters. Where the rows hardly identify a coefficient (an asymptote seen only from
below its midpoint), the best fit may scatter little and yet be far from the truth; the profile shows that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from isoflop._newton import Options, solve
from isoflop._problem import Problem
from isoflop._uncertainty import at_optimum, resample_weights

_DEVIANCE = 2.706  # 90 % point of chi-squared with one degree of freedom
_REACH = 0.5 * 1.5 ** np.arange(16)  # distances looked at, in half-widths of the 90 % interval
_FAR = 60.0  # in unconstrained units: beyond e^60 nothing changes
_JUMP, _MOST = 1.0, 60  # most between neighbours of a path, in roots of the deviance; refits on one side
_EDGE = 7.0  # logit of .999
_SHARES = np.array([1e-4, 0.003, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45])
_SHARES = np.concatenate([_SHARES, [0.5], 1 - _SHARES[::-1]])  # where a coefficient between 0 and 1 is looked at


@dataclass(frozen=True)
class Profile:
    """One coefficient's path: theta (points, free), signed root of the deviance (points,), rising along it."""

    index: int
    theta: np.ndarray
    root: np.ndarray

    def at(self, roots: np.ndarray) -> np.ndarray:
        """Points of the path at given signed roots, (len(roots), p); flat beyond its ends."""
        return np.stack([np.interp(roots, self.root, self.theta[:, k]) for k in range(self.theta.shape[1])], axis=1)

    def width(self) -> float:
        """Width of the 90 % interval of its own coefficient."""
        return float(np.ptp(self.at(np.array([-1.645, 1.645]))[:, self.index]))


def loose_profiles(problem: Problem, best: np.ndarray, half_width: np.ndarray, shares: np.ndarray) -> list[Profile]:
    """Profiles of coefficients that can move twice their bootstrap interval at 90 % and the rows do not object.

    best (free,); half_width (p,): half of the 90 % interval, unconstrained; shares (p,): which lie between 0 and 1.
    """
    final, p = at_optimum(problem), problem.n_coef
    base = _refit(final, best[None], None)[1][0]
    index = np.repeat(np.arange(p), 2)
    sign = np.tile([-1.0, 1.0], p)
    _, value = _refit(final, _moved(best, index, 2.0 * sign * half_width[index]), index)
    at_edge = np.flatnonzero(shares & (np.abs(best[:p]) > _EDGE))
    loose = np.unique([*index[_deviance(final, value, base) < _DEVIANCE], *at_edge])
    return [_path(final, best, int(i), _targets(best[i], half_width[i], bool(shares[i])), base) for i in loose]


def _targets(best: float, half_width: float, share: bool) -> np.ndarray:
    """Values of one coordinate to look at, rising."""
    if share:
        return np.log(_SHARES) - np.log1p(-_SHARES)
    steps = _REACH[_REACH * half_width < _FAR] * half_width
    return best + np.concatenate([-steps[::-1], steps])


def _moved(theta: np.ndarray, index: np.ndarray, by: np.ndarray) -> np.ndarray:
    out = np.tile(theta, (len(index), 1))
    out[np.arange(len(index)), index] += by
    return out


def _refit(problem: Problem, starts: np.ndarray, index: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    pinned = None
    if index is not None:
        pinned = np.zeros(starts.shape, bool)
        pinned[np.arange(len(index)), index] = True
    found = solve(problem, starts, pinned=pinned, options=Options(damping=0.1, rtol=1e-9, max_steps=100, revivals=0))
    return found.theta, found.value


def _deviance(problem: Problem, value: np.ndarray, base: float) -> np.ndarray:
    """Twice the loss of log-likelihood with the scale profiled out: Gaussian for squares, Laplace for the robust."""
    if problem.objective.scaled:
        return 2.0 * (value - base)
    mass = problem.weights.sum() * (1.0 if np.isinf(problem.objective.delta) else 2.0)
    return mass * np.log(np.maximum(value, 1e-300) / max(base, 1e-300))


def _path(problem: Problem, best: np.ndarray, i: int, targets: np.ndarray, base: float) -> Profile:
    """Refits at values of coordinate i on both sides of the best fit, in order."""
    left = list(_side(problem, best, i, targets[targets < best[i]][::-1], base))
    right = list(_side(problem, best, i, targets[targets > best[i]], base))
    theta = np.array([*(t for t, _ in left[::-1]), best, *(t for t, _ in right)])
    root = np.maximum.accumulate([*(-r for _, r in left[::-1]), 0.0, *(r for _, r in right)])
    return Profile(i, theta, root + 1e-9 * np.arange(len(root)))


def _side(
    problem: Problem, best: np.ndarray, i: int, targets: np.ndarray, base: float
) -> Iterator[tuple[np.ndarray, float]]:
    """Refit outward, each point from the last, half way first where the rows object too suddenly; until they do."""
    last, before, todo = best, 0.0, list(targets[::-1])
    for _ in range(_MOST):
        if not todo:
            return
        start = last.copy()
        start[i] = todo[-1]
        theta, value = _refit(problem, start[None], np.array([i]))
        deviance = float(_deviance(problem, value, base)[0])
        root = np.sqrt(max(deviance, 0.0)) if np.isfinite(deviance) else np.inf
        if root - before > _JUMP and abs(start[i] - last[i]) > 1e-3:
            todo.append(0.5 * (start[i] + last[i]))
            continue
        if not np.isfinite(root):
            return
        yield theta[0], root
        if deviance > 12.0:
            return
        last, before = theta[0], root
        todo.pop()


def profile_draws(
    profile: Profile, problem: Problem, draws: int, *, seed: int, groups: np.ndarray | None
) -> np.ndarray:
    """Bootstrap refits (draws, free), each with this coefficient held where a standard normal falls on its profile."""
    roots = np.random.default_rng([seed, 1]).standard_normal(draws)
    pinned = np.zeros((draws, problem.n_free), bool)
    pinned[:, profile.index] = True
    return solve(at_optimum(problem), profile.at(roots), resample_weights(problem.target.size, seed, groups),
                 pinned=pinned, options=Options(damping=0.01, rtol=1e-10, revivals=0)).theta  # fmt: skip
