"""SmoothQuant: part of the inputs' range per channel is moved into the weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from isoflop.levers.precision._apply import Job, SiteData, Target, Treatment, quantise_sites
from isoflop.levers.precision._report import Report
from isoflop.levers.precision._search import smooth_scale
from isoflop.levers.precision._work import Work

_TARGET = Target("int8", acts="int8")


def smoothquant(
    model: nn.Module, calibration: Sequence[Any], *, target: Target = _TARGET, heldout: Any = None,
    work: Work | None = None, alpha: float = 0.5,
) -> tuple[nn.Module, Report]:  # fmt: skip
    """Y = (X / s)(s W) with s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), at every site (the paper: where a norm comes
    before).

    Source: arXiv:2211.10438, eq. 3-4.
    """
    job = Job("smoothquant", target, {"alpha": alpha})
    return quantise_sites(model, calibration, partial(_decide, alpha=alpha), job=job, heldout=heldout, work=work)


def _decide(data: SiteData, *, alpha: float) -> Treatment:
    return Treatment(scale=smooth_scale(data.seen.peaks, data.columns, alpha))
