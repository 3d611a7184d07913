"""Stationary loss of SGD above the minimum, set by learning rate / batch."""

from __future__ import annotations

import numpy as np

from isoflop._simulated import Claim, Simulated, columns, need, simulated


def sgd_temperature(
    *, dim: int = 8, noise: float = 1.0, coldest: float = 0.002, sizes: int = 4, largest: int = 16, chains: int = 24,
    repeats: int = 8, seed: int = 0,
) -> Simulated:  # fmt: skip
    """Excess loss of SGD at rest: ~ T = learning rate / batch, whichever of the two sets it.

    Regression on x ~ N(0, 1) in `dim` dimensions with label noise: in the limit of a small learning rate the excess
    loss at rest is T noise^2 dim / 4. Temperatures double from `coldest`; batches are 1, 4, ... `largest`, each with
    the learning rate that gives T. Part `loss`: relative = excess / that limit. The next term, left in: a factor
    1 / (1 - lr (1 + (dim + 1) / batch) / 2), which `corrected` divides out.

    Source: temperature lr / batch as in Sclocchi, Geiger and Wyart 2023 (arXiv 2301.13703); algebra derived here.
    Raises ValueError for settings at which SGD is not stable.
    """
    settings = dict(locals())
    need("sgd_temperature", dim=(dim, 1), noise=(noise, 1e-6), coldest=(coldest, 1e-5), sizes=(sizes, 3),
         largest=(largest, 4), chains=(chains, 2), repeats=(repeats, 1))  # fmt: skip
    hottest = coldest * 2.0 ** (sizes - 1)
    if hottest * (largest + dim + 2) > 1:
        raise ValueError(f"sgd_temperature: SGD is not stable at T = {hottest:g} and batch {largest}; lower coldest")
    rng = np.random.default_rng(seed)
    rows = []
    for heat in coldest * 2.0 ** np.arange(sizes):
        for batch in 4 ** np.arange(int(np.log(largest) / np.log(4)) + 1):
            shift = 1 - 0.5 * heat * (batch + dim + 1)
            for draw, excess in enumerate(_at_rest((repeats, chains, dim), noise, heat * batch, int(batch), rng)):
                relative = excess / (heat * noise**2 * dim / 4)
                rows.append({"seed": draw, "temperature": heat, "batch": batch, "excess": excess,
                             "relative": relative, "corrected": relative * shift})  # fmt: skip
    claims = {
        "alpha_temperature": Claim(1.0, "excess", "loss", axis="temperature", rises=True, within=0.1),
        "corrected": Claim(1.0, "corrected", "loss", within=0.02),
    }
    return simulated(
        "sgd_temperature",
        {"loss": columns(rows)},
        claims,
        source="arXiv 2301.13703 for the temperature; Gaussian regression derived here",
        status="exponent and its first correction derived and simulated; onset in networks not tested",
        settings=settings,
    )


def _at_rest(
    shape: tuple[int, int, int], noise: float, rate: float, batch: int, rng: np.random.Generator
) -> np.ndarray:
    """Mean excess loss of each repeat; shape: repeats, chains, dimensions. The start is at rest to first order."""
    repeats, chains, dim = shape
    w = noise * np.sqrt(0.5 * rate / batch) * rng.standard_normal((repeats * chains, dim))
    steps, settle, total = int(20 / rate), int(3 / rate), np.zeros(repeats)
    for step in range(steps):
        x = rng.standard_normal((len(w), batch, dim))
        error = (x @ w[..., None])[..., 0] - noise * rng.standard_normal((len(w), batch))
        w -= rate / batch * (error[:, None] @ x)[:, 0]
        if step >= settle:
            total += (w * w).reshape(repeats, -1).sum(axis=1)
    return np.asarray(0.5 * total / chains / (steps - settle))
