"""Hidden units that climb their energy on modular addition: each ends as one Fourier mode."""

from __future__ import annotations

import numpy as np

from isoflop._simulated import Claim, Simulated, columns, need, simulated


def feature_emergence(
    *, smallest: int = 11, sizes: int = 3, units: int = 24, steps: int = 80, repeats: int = 5, seed: int = 0
) -> Simulated:
    """Share of a unit's power that is in its strongest frequency: 1 at the maxima of the energy with all M^2 pairs.

    A unit with weights w reads u = w . (one-hot a, one-hot b) and has the energy E(w) = |Y' (u^2 - mean)|^2 / 2 over
    the pairs, Y the centred one-hot a + b mod M. It climbs E on the unit sphere from a random start. Part `units`:
    concentration, all pairs seen, M odd from `smallest` on. Part `kept`: the number of pairs, of a grid of .05 M^2,
    from which on at least half of the Fourier modes, taken as starts, stay where they are.

    Source: Tian 2025 (arXiv 2509.21519), energy of independent feature learning, and a threshold of order M log M; from
    memory. Raises ValueError for too small settings.
    """
    settings = dict(locals())
    need("feature_emergence", smallest=(smallest, 5), sizes=(sizes, 1), units=(units, 2), steps=(steps, 1),
         repeats=(repeats, 2))  # fmt: skip
    rng = np.random.default_rng(seed)
    rows: dict[str, list[dict[str, float]]] = {"units": [], "kept": []}
    for draw in range(repeats):
        for order in np.round(smallest * 1.4 ** np.arange(sizes)).astype(int) // 2 * 2 + 1:
            every = np.arange(order**2)
            end = _climb(rng.standard_normal((units, 2 * order)), every, int(order), steps)
            power = _power(end)
            top = float((power.max(axis=1) / power.sum(axis=1)).mean())
            rows["units"].append({"seed": draw, "order": order, "concentration": top})
            rows["kept"].append({"seed": draw, "order": order, "pairs": _threshold(int(order), units, steps, rng)})
    return simulated(
        "feature_emergence",
        {part: columns(lines) for part, lines in rows.items()},
        {"concentration": Claim(1.0, "concentration", "units", within=0.02)},
        source="arXiv 2509.21519",
        status="energy from memory, its maxima simulated; modes stay from .57 M^2 pairs on, not M log M",
        settings=settings,
    )


def _climb(w: np.ndarray, pairs: np.ndarray, order: int, steps: int) -> np.ndarray:
    """Units (n, 2 M) after ascents to the direction of the gradient: the energy is convex in w and rises with each."""
    one = np.eye(order)
    first, second = np.divmod(pairs, order)
    x, y = np.hstack([one[first], one[second]]), one[(first + second) % order]
    y = y - y.mean(axis=0)
    for _ in range(steps):
        u = w @ x.T
        u2 = u * u - (u * u).mean(axis=1, keepdims=True)
        w = (u2 @ y @ y.T * u) @ x
        w /= np.linalg.norm(w, axis=1, keepdims=True)
    return w


def _power(w: np.ndarray) -> np.ndarray:
    """Power by frequency 1, 2, ... of both inputs together."""
    waves = np.fft.rfft(w.reshape(len(w), 2, -1), axis=2)[:, :, 1:]
    return np.asarray((np.abs(waves) ** 2).sum(axis=1))


def _threshold(order: int, units: int, steps: int, rng: np.random.Generator) -> float:
    """The least number of random pairs at which half of the Fourier modes keep more than half of their power."""
    for pairs in (0.05 * np.arange(6, 21) * order**2).astype(int):
        wave = rng.integers(1, (order + 1) // 2, units)
        mode = np.cos(2 * np.pi * wave[:, None] * np.arange(order) / order + rng.uniform(0, 2 * np.pi, (units, 1)))
        end = _climb(np.hstack([mode, mode]), rng.choice(order**2, pairs, replace=False), order, steps)
        power = _power(end)
        if (power[np.arange(units), wave - 1] > 0.5 * power.sum(axis=1)).mean() >= 0.5:
            return float(pairs)
    return float(order**2)
