"""A perceptron trained by SGD until all rows are fitted: the signal that its noise demands."""

from __future__ import annotations

import numpy as np

from isoflop._simulated import Claim, Simulated, columns, doubling, need, simulated


def noisy_perceptron(
    *,
    chi: int = 1,
    dim: int = 16,
    smallest: int = 128,
    sizes: int = 5,
    share: int = 64,
    repeats: int = 24,
    seed: int = 0,
) -> Simulated:
    """Signal over noise of the weights when P rows are fitted: ~ P^(1 / (1 + chi)).

    The label is the sign of one coordinate, whose density near 0 is |x|^chi; `dim` others are Gaussian and carry noise
    only. SGD on the hinge loss without margin, batches of P / `share`, stops when no row is wrong. The row closest to
    the boundary lies at P^(-1 / (1 + chi)), so that the informative weight must exceed the others by its inverse. The
    temperature, learning rate / batch, only scales the weights here. Column `seen` is the number of rows drawn till
    then.

    Source: Sclocchi, Geiger and Wyart 2023 (arXiv 2301.13703), perceptron model; the exponent re-derived here. Raises
    ValueError for too small settings.
    """
    settings = dict(locals())
    need("noisy_perceptron", chi=(chi, 0), dim=(dim, 1), smallest=(smallest, 4 * dim), sizes=(sizes, 3),
         share=(share, 1), repeats=(repeats, 2))  # fmt: skip
    rng = np.random.default_rng(seed)
    rows: list[dict[str, float]] = []
    for count in doubling(smallest, sizes):
        signal, seen = _fitted(chi, dim, int(count), max(1, int(count) // share), repeats, rng)
        rows += [{"seed": k, "rows": count, "signal": signal[k], "seen": seen[k]} for k in range(repeats)]
    return simulated(
        "noisy_perceptron",
        {"signal": columns(rows)},
        {"alpha_signal": Claim(1 / (1 + chi), "signal", "signal", axis="rows", rises=True, within=0.1)},
        source="arXiv 2301.13703",
        status="exponent of the signal re-derived, simulated; that of the training time is not reached at these sizes",
        settings=settings,
    )


def _fitted(
    chi: int, dim: int, count: int, batch: int, repeats: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Signal over noise, and rows drawn, when each of `repeats` perceptrons has fitted its own rows."""
    near = np.sqrt(rng.chisquare(chi + 1, (repeats, count, 1)))  # density ~ x^chi at 0; the label is folded in
    x = np.concatenate([near, rng.standard_normal((repeats, count, dim))], axis=2)
    w, signal, seen = np.zeros((repeats, dim + 1)), np.full(repeats, np.nan), np.full(repeats, np.nan)
    pick = np.arange(repeats)[:, None]
    for step in range(1, 1_000_001):
        drawn = x[pick, rng.integers(0, count, (repeats, batch))]
        wrong = (drawn @ w[..., None])[..., 0] <= 0
        w += (wrong[:, None] @ drawn)[:, 0]
        if step % 4 == 0:
            done = np.isnan(seen) & ((x @ w[..., None])[..., 0] > 0).all(axis=1)
            signal[done], seen[done] = w[done, 0] / np.linalg.norm(w[done, 1:], axis=1), step * batch
            if not np.isnan(seen).any():
                return signal, seen
    raise ValueError(f"noisy_perceptron: {count} rows were not fitted in 10^6 steps; take fewer rows or a larger chi")
