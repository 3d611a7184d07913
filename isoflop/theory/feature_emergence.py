"""Hidden units that climb their energy on modular addition: each ends as one Fourier mode."""

from __future__ import annotations

import numpy as np

from isoflop._simulated import Claim, Simulated, columns, need, simulated

_STEP = 0.02  # of ln pairs, to which the number of pairs that keeps the modes is found


def feature_emergence(
    *, smallest: int = 11, sizes: int = 3, units: int = 24, steps: int = 100, repeats: int = 5, seed: int = 0
) -> Simulated:
    """Share of a unit's power that is in its strongest frequency: 1 at the maxima of the energy with all M^2 pairs.

    A unit with weights w reads u = w . (one-hot a, one-hot b) and has the energy E(w) = |Y' (u^2 - mean)|^2 / 2 over
    the pairs, Y the centred one-hot a + b mod M. It climbs E on the unit sphere from a random start. Part `units`:
    concentration, all pairs seen, M odd from `smallest` on, each 1.4 times the last. Part `kept`: the random pairs from
    which on at least half of the Fourier modes, taken as starts, keep more than half of their power; ratio: pairs / M.

    Source: Tian 2025 (arXiv 2509.21519), energy of independent feature learning (read in public notes on the paper),
    and a threshold of order M log M, from memory. Raises ValueError for too small settings.
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
            pairs = _threshold(int(order), units, steps, rng)
            rows["kept"].append({"seed": draw, "order": order, "pairs": pairs, "ratio": pairs / order})
    return simulated(
        "feature_emergence",
        {part: columns(lines) for part, lines in rows.items()},
        {"concentration": Claim(1.0, "concentration", "units", within=0.02)},
        source="arXiv 2509.21519",
        status="energy as in notes on the paper, its maxima simulated; M log M from memory, seen at larger M",
        settings=settings,
    )


def _climb(w: np.ndarray, pairs: np.ndarray, order: int, steps: int) -> np.ndarray:
    """Units (n, 2 M) after `steps` towards the gradient on the sphere, each half-way, so that none is overshot."""
    first, second = np.divmod(pairs, order)
    total = (first + second) % order
    often = np.bincount(total, minlength=order) / len(pairs)
    w = w / np.linalg.norm(w, axis=1, keepdims=True)
    for _ in range(steps):
        u = w[:, first] + w[:, order + second]
        drive = np.stack([np.bincount(total, row, order) for row in u * u - (u * u).mean(axis=1, keepdims=True)])
        felt = (drive - (drive @ often)[:, None])[:, total] * u
        slope = np.stack([np.concatenate([np.bincount(k, row, order) for k in (first, second)]) for row in felt])
        w = w + slope / np.linalg.norm(slope, axis=1, keepdims=True)
        w /= np.linalg.norm(w, axis=1, keepdims=True)
    return w


def _power(w: np.ndarray) -> np.ndarray:
    """Power by frequency 1, 2, ... of both inputs together."""
    waves = np.fft.rfft(w.reshape(len(w), 2, -1), axis=2)[:, :, 1:]
    return np.asarray((np.abs(waves) ** 2).sum(axis=1))


def _threshold(order: int, units: int, steps: int, rng: np.random.Generator) -> float:
    """The number of random pairs from which on half of the Fourier modes keep more than half of their power."""
    low, high = np.log(2.0 * order), 2 * np.log(order)
    while high - low > _STEP:
        middle = (low + high) / 2
        wave = rng.integers(1, (order + 1) // 2, units)
        turn = rng.uniform(0, 2 * np.pi, (2, units, 1))
        mode = np.cos(2 * np.pi * wave[:, None] * np.arange(order) / order + turn)
        pairs = rng.choice(order**2, int(np.exp(middle)), replace=False)
        power = _power(_climb(np.hstack(list(mode)), pairs, order, steps))
        kept = power[np.arange(units), wave - 1] > 0.5 * power.sum(axis=1)
        low, high = (low, middle) if kept.mean() >= 0.5 else (middle, high)
    return float(np.exp(high))
