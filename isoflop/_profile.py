"""Profile likelihood: how far a coefficient can be moved, the others refitted, before the rows object.

Resampling shows how the best fit scatters. Where the rows hardly identify a coefficient (an asymptote seen only from
below its midpoint), the best fit may scatter little and yet be far from the truth; the profile shows that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isoflop._newton import Options, Problem, solve
from isoflop._uncertainty import at_optimum, resample_weights

_DEVIANCE = 2.706  # 90 % point of chi-squared with one degree of freedom
_REACH = 0.5 * 1.5 ** np.arange(16)  # distances looked at, in half-widths of the 90 % interval
_FAR = 60.0  # in unconstrained units: beyond e^60 nothing changes
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
    """Refit outward from the best fit, each point from the last, until the rows object strongly."""
    points: list[np.ndarray] = [best]
    roots = [0.0]
    for sign, side in ((-1.0, targets[targets < best[i]][::-1]), (1.0, targets[targets > best[i]])):
        last = best
        for target in side:
            start = last.copy()
            start[i] = target
            theta, value = _refit(problem, start[None], np.array([i]))
            deviance = float(_deviance(problem, value, base)[0])
            if not np.isfinite(deviance):
                break
            last = theta[0]
            points.append(last)
            roots.append(sign * np.sqrt(max(deviance, 0.0)))
            if deviance > 12.0:
                break
    order = np.argsort([point[i] for point in points], kind="stable")
    root = np.maximum.accumulate(np.array(roots)[order])
    return Profile(i, np.array(points)[order], root + 1e-9 * np.arange(len(root)))


def profile_draws(
    profile: Profile, problem: Problem, draws: int, *, seed: int, groups: np.ndarray | None
) -> np.ndarray:
    """Bootstrap refits (draws, free), each with this coefficient held where a standard normal falls on its profile."""
    roots = np.random.default_rng([seed, 1]).standard_normal(draws)
    pinned = np.zeros((draws, problem.n_free), bool)
    pinned[:, profile.index] = True
    return solve(at_optimum(problem), profile.at(roots), resample_weights(problem.target.size, seed, groups),
                 pinned=pinned, options=Options(damping=0.01, rtol=1e-10, revivals=0)).theta  # fmt: skip
