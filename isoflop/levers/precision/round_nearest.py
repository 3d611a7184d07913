"""Rounding to nearest: what every other method is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from isoflop.levers.precision._apply import Job, SiteData, Target, Treatment, quantise_sites
from isoflop.levers.precision._report import Report
from isoflop.levers.precision._work import Work

_TARGET = Target()


def round_nearest(
    model: nn.Module,
    calibration: Sequence[Any],
    *,
    target: Target = _TARGET,
    heldout: Any = None,
    work: Work | None = None,
) -> tuple[nn.Module, Report]:
    """Each weight and each input to the nearest value of its format, with the range of its group. Nothing is searched.

    Calibration is only used for the errors of the report, and for ranges where target.act_range is "static".
    """
    job = Job("round_nearest", target, channels=False)
    return quantise_sites(model, calibration, _decide, job=job, heldout=heldout, work=work)


def _decide(data: SiteData) -> Treatment:
    return Treatment()
