"""Rebuild a run's learning rate at every step from what was logged, and sum over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np


def per_run(step: np.ndarray, run: np.ndarray | None) -> Iterator[np.ndarray]:
    """Row indices of each run, by step."""
    keys = np.zeros(len(step), int) if run is None else np.unique(run.astype(str), return_inverse=True)[1]
    order = np.lexsort((step, keys))
    yield from np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)


def whole_schedule(step: np.ndarray, lr: np.ndarray) -> np.ndarray:
    """Learning rate at steps 1..last of one run from its logged steps: straight lines between them, flat before them.

    Exact for constant, linear and piecewise-linear schedules that are logged at their corners.
    """
    every = np.arange(1, int(step[-1]) + 1)
    return np.interp(every, step, lr)


def at_logged_steps(step: np.ndarray, lr: np.ndarray, run: np.ndarray | None,
                    total: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:  # fmt: skip
    """`total` of each run's whole schedule (one value a step), read off at the logged steps."""
    out = np.empty(len(step))
    for group in per_run(step, run):
        steps = step[group].astype(int)
        sums = total(whole_schedule(step[group], lr[group]))
        out[group] = np.where(steps > 0, sums[np.maximum(steps, 1) - 1], 0.0)
    return out
