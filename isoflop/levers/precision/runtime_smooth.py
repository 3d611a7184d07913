"""Rotated runtime smooth: rotate, then divide by maxima of the channels as they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from isoflop.levers.precision._apply import Job, SiteData, Target, Treatment, quantise_sites
from isoflop.levers.precision._linear import Acts
from isoflop.levers.precision._report import Report
from isoflop.levers.precision._residual import rotate_residual
from isoflop.levers.precision._work import Work

_TARGET = Target("int4", acts="int4")


def runtime_smooth(
    model: nn.Module, calibration: Sequence[Any], *, target: Target = _TARGET, heldout: Any = None,
    work: Work | None = None, group: int = 128, rotated: bool = True,
    residual: bool = True,
) -> tuple[nn.Module, Report]:  # fmt: skip
    """x is rotated, its channels sorted by c_j = max over the tokens at hand of |x_j|, the largest c of `group`
    neighbours is divided out before rounding by token, and multiplied back inside the product. No calibration is
    needed.

    What a token becomes depends on the tokens it is computed with, later ones too: measured on whole windows, as in a
    prefill. rotated False is the paper's runtime smooth alone; residual: as of `smooth_rot`. Needs target.acts.

    Source: arXiv:2409.20361; the released quant_utils.py.
    """
    acts = target.rounding
    if acts is None:
        raise ValueError("runtime_smooth rounds inputs; give a target with acts, as Target('int4', acts='int4')")
    fold = residual and rotated and target.fold and calibration
    start, done = (rotate_residual(model, calibration[0]) if fold else None) or (None, frozenset())
    knobs = {"group": group, "rotated": rotated, "residual": bool(done)}
    job = Job("runtime_smooth", target, knobs, channels=False)
    decide = partial(_decide, acts=replace(acts, range="token", smooth=group), rotated=rotated, done=done)
    return quantise_sites(model, calibration, decide, job=job, heldout=heldout, work=work, start=start)


def _decide(data: SiteData, *, acts: Acts, rotated: bool, done: frozenset[str]) -> Treatment:
    return Treatment(rotated=rotated and data.site.linears[0] not in done, acts=acts)
