"""A two-layer network that fits before it learns features: how long test error lags, by the scale of its output."""

from __future__ import annotations

import numpy as np

from isoflop._simulated import Claim, Simulated, columns, need, simulated

_SCALES = (0.5, 1.0, 2.0)  # of the output, where all networks learn the test rows
_LAZY = (4.0, 8.0, 16.0, 32.0)  # where the kernel hardly moves
_FITTED, _LEARNT = 0.02, 0.15  # error over the error of 0: on training rows, on test rows


def lazy_to_rich(
    *, dim: int = 20, rows: int = 120, width: int = 40, bend: float = 0.6, rate: float = 0.03, steps: int = 400,
    repeats: int = 8, seed: int = 0,
) -> Simulated:  # fmt: skip
    """Change of the kernel when the training rows are fitted: ~ 1 / scale of the output; the test rows come later.

    f(x) = s (mean phi(w_i . x) - its value at the start), phi(h) = h + bend h^2 / 2, learns y = (b . x)^2 / 2 by full
    gradient descent at learning rate / s^2, so that all scales s fit at alike speed. The start's kernel is mostly
    linear and y quadratic: misaligned. Part `kernel`: |K - K_0| / |K_0| of the tangent kernel at the step when the
    training error is below .02 of that of 0, s = 4 to 32. Part `delay`: steps until the test error is below .15, over
    that step, s = 1/2 to 2; those not there after `steps` count as there. later: 1 where delays rise with s throughout.

    Source: Kumar, Bordelon, Gershman and Pehlevan 2023 (arXiv 2310.06110) for the model and the delay; 1 / s of the
    kernel is lazy training's, Chizat, Oyallon and Bach 2018 (arXiv 1812.07956). Raises ValueError for settings at which
    the training rows are not fitted.
    """
    settings = dict(locals())
    need("lazy_to_rich", dim=(dim, 2), rows=(rows, dim), width=(width, dim), bend=(bend, 0.01), rate=(rate, 1e-6),
         steps=(steps, 10), repeats=(repeats, 2))  # fmt: skip
    made: dict[str, list[dict[str, float]]] = {"kernel": [], "delay": [], "order": []}
    for draw in range(repeats):
        rng = np.random.default_rng([seed, draw])
        fitted, learnt, moved = _train(dim, rows, width, bend, rate, steps, rng)
        if not np.isfinite(fitted).all():
            raise ValueError(f"lazy_to_rich: training rows are not fitted after {steps} steps; take more, or more bend")
        delay = np.where(np.isnan(learnt), steps, learnt) / fitted[: len(_SCALES)]
        made["kernel"] += [
            {"seed": draw, "scale": s, "moved": m} for s, m in zip(_LAZY, moved[len(_SCALES) :], strict=True)
        ]
        made["delay"] += [{"seed": draw, "scale": s, "delay": d} for s, d in zip(_SCALES, delay, strict=True)]
        made["order"].append({"seed": draw, "later": float((np.diff(delay) > 0).all())})
    return simulated(
        "lazy_to_rich",
        {part: columns(lines) for part, lines in made.items()},
        {
            "alpha_kernel": Claim(1.0, "moved", "kernel", axis="scale", within=0.05),
            "later": Claim(1.0, "later", "order"),
        },
        source="arXiv 2310.06110; 1 / scale from arXiv 1812.07956",
        status="model from memory; the kernel's change re-derived, simulated; of the delay the order alone",
        settings=settings,
    )


def _train(
    dim: int, rows: int, width: int, bend: float, rate: float, steps: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By scale, all trained at once: step at which training and test rows are learnt, and the kernel's change."""
    first, teacher = rng.standard_normal((width, dim)), rng.standard_normal(dim)
    x, asked = rng.standard_normal((2, rows, dim)) / np.sqrt(dim)
    teacher *= np.sqrt(dim) / np.linalg.norm(teacher)
    y, truth = 0.5 * (x @ teacher) ** 2, 0.5 * (asked @ teacher) ** 2
    scale = np.array(_SCALES + _LAZY)[:, None]
    w = np.repeat(first[None], len(scale), axis=0)
    (fitted, moved), learnt = np.full((2, len(scale)), np.nan), np.full(len(_SCALES), np.nan)
    start = _kernel(x, x @ first.T, bend)
    for step in range(1, steps + 1):
        before = x @ w.transpose(0, 2, 1)
        error = scale * _rise(before, x, first, bend) - y
        new = np.isnan(fitted) & ((error**2).mean(axis=1) < _FITTED * (y**2).mean())
        for k in np.flatnonzero(new):
            moved[k] = np.linalg.norm(_kernel(x, before[k], bend) - start) / np.linalg.norm(start)
        fitted[new] = step
        off = scale[: len(_SCALES)] * _rise(asked @ w[: len(_SCALES)].transpose(0, 2, 1), asked, first, bend) - truth
        learnt[np.isnan(learnt) & ((off**2).mean(axis=1) < _LEARNT * (truth**2).mean())] = step
        w -= rate / scale[..., None] * ((error[..., None] * (1 + bend * before)).transpose(0, 2, 1) @ x)
    return fitted, learnt, moved


def _rise(before: np.ndarray, x: np.ndarray, first: np.ndarray, bend: float) -> np.ndarray:
    """Mean activation (scales, rows), less that of the first weights."""
    start = x @ first.T
    return np.asarray((before + 0.5 * bend * before**2).mean(axis=2) - (start + 0.5 * bend * start**2).mean(axis=1))


def _kernel(x: np.ndarray, before: np.ndarray, bend: float) -> np.ndarray:
    slope = 1 + bend * before
    return np.asarray((x @ x.T) * (slope @ slope.T) / before.shape[1])
