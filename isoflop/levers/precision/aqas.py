"""AQAS: the scale per channel that loses least when inputs and weights are both rounded; SLAC: at the task's length."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from isoflop.levers.precision._apply import Job, SiteData, Target, Treatment, quantise_sites
from isoflop.levers.precision._calibrate import cut, reduced
from isoflop.levers.precision._report import Report
from isoflop.levers.precision._search import joint_error, salience_scale, smooth_scale, weight_error
from isoflop.levers.precision._work import Work

_TARGET = Target("int4", acts="int8")


def aqas(
    model: nn.Module, calibration: Sequence[Any], *, target: Target = _TARGET, heldout: Any = None,
    work: Work | None = None, grid: int = 10, length: int | None = None,
) -> tuple[nn.Module, Report]:  # fmt: skip
    """s that lowers |X W - Q_a(X / s) Q_w(s W)|^2 most, of SmoothQuant's scales with alpha 0, 1/grid, ..., 1 and of
    AWQ's with powers 0, 1/grid, ...; so its calibration error is never above either's at those points, nor above
    rounding.

    length: cut the calibration into sequences of so many tokens, those of the task (SLAC). Inputs that are not rounded
    leave the weights' error alone.

    Source: arXiv:2311.05161: the objective as in its abstract and reviews; the family of scales searched is ours.
    """
    batches = calibration if length is None else cut(calibration, length)
    job = Job("aqas", target, {"grid": grid, "length": length})
    return quantise_sites(model, batches, partial(_decide, grid=grid), job=job, heldout=heldout, work=work)


def _decide(data: SiteData, *, grid: int) -> Treatment:
    x, peaks, acts = data.seen.rows, data.seen.peaks, data.target.rounding
    named = {("salience", r / grid): salience_scale(x, r / grid) for r in range(grid)}
    named |= {("smooth", a / grid): smooth_scale(peaks, data.columns, a / grid) for a in range(grid + 1)}
    root = reduced(x)
    errors = {
        key: joint_error(data, scale, x, acts) if acts else weight_error(data, scale, root)
        for key, scale in named.items()
    }
    best = min(errors, key=errors.__getitem__)
    scale = named[best] if best != ("salience", 0.0) else torch.ones_like(peaks)
    return Treatment(scale=scale, facts={"family": best[0], "power": best[1]})
