"""Learning rates as pure functions of the step, so that every rate of a run can be rebuilt from its columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

SCHEDULES = ("wsd", "cosine")
DECAYS = ("sqrt", "linear")


def rate(
    step: int,
    *,
    peak: float,
    steps: int,
    warmup_steps: int,
    decay_start: int,
    schedule: str = "wsd",
    decay: str = "sqrt",
    decay_to: float = 0.0,
) -> float:
    """Learning rate of one optimizer step, counted from 0.

        warmup   peak (step + 1) / warmup_steps                       step < warmup_steps
        wsd      peak                                                 step < decay_start
                 peak (decay_to + (1 - decay_to) (1 - sqrt(u)))       after, decay="sqrt";  1 - u for "linear"
        cosine   peak (decay_to + (1 - decay_to) (1 + cos(pi u)) / 2) with decay_start = warmup_steps

    where u = (step - decay_start + 1) / (steps - decay_start + 1), so that the last step still learns a little.
    Source: arXiv:2404.06395, section 4 (warmup-stable-decay); arXiv:2405.18392 (1-sqrt cooldown).
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if step < decay_start:
        return peak
    u = (step - decay_start + 1) / (steps - decay_start + 1)
    if schedule == "cosine":
        shape = 0.5 * (1.0 + math.cos(math.pi * u))
    else:
        shape = 1.0 - (math.sqrt(u) if decay == "sqrt" else u)
    return peak * (decay_to + (1.0 - decay_to) * shape)


def rates(run: Mapping[str, Any]) -> list[float]:
    """The learning rate of every step of a run, rebuilt from the columns of its row (a mapping or a table's row)."""
    return [
        rate(
            step, peak=float(run["lr"]), steps=int(run["steps"]), warmup_steps=int(run["warmup_steps"]),
            decay_start=int(run["decay_start"]), schedule=run["schedule"], decay=run["decay"],
            decay_to=float(run["decay_to"]),
        )
        for step in range(int(run["steps"]))
    ]  # fmt: skip


def decay_start(steps: int, *, schedule: str, decay_fraction: float, warmup_steps: int) -> int:
    """First decaying step: `warmup_steps` for cosine, else the last `decay_fraction` of `steps` decays."""
    if schedule == "cosine":
        return warmup_steps
    return steps - max(1, round(decay_fraction * steps))


def log_points(steps: int, *, per_decade: int = 10, first: int = 10) -> list[int]:
    """Steps at which a curve is written: `per_decade` to each factor of ten from `first`, the same for every run."""
    points, k = [], 0
    while (point := round(first * 10 ** (k / per_decade))) <= steps:
        points.append(point)
        k += 1
    return sorted(set(points))


def even_points(start: int, steps: int, *, count: int = 8) -> list[int]:
    """`count` evenly spaced steps after `start`, the last of them `steps`: the curve of a cooldown."""
    return sorted({start + math.ceil(k * (steps - start) / count) for k in range(1, count + 1)})
