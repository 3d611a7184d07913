"""OutlierTune: static scales per input channel, folded into the weights before rounding, and balanced ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from isoflop.levers.precision._apply import Job, SiteData, Target, Treatment, quantise_sites
from isoflop.levers.precision._linear import Acts
from isoflop.levers.precision._report import Report
from isoflop.levers.precision._work import Work

_TARGET = Target("int6", acts="int6")


def outlier_tune(
    model: nn.Module, calibration: Sequence[Any], *, target: Target = _TARGET, heldout: Any = None,
    work: Work | None = None, symmetrise: bool = True,
) -> tuple[nn.Module, Report]:  # fmt: skip
    """x_j = z_j + d_j c_j with z_j = (max_j + min_j) / 2 and d_j the half range of channel j, both of the calibration:
    the codes c share one range [-1, 1], d goes into the weights (W d, rounded after that) and W z into the bias.

    So inputs have a scale per channel, and the product none inside. Without `symmetrise`, z = 0 and d_j = max|x_j|.
    Where no bias comes before the site (RMSNorm), x - z is taken at run time. Done at every site; needs target.acts.

    Source: arXiv:2406.18832, as its abstract and reviews tell it; the paper's equations were not read.
    """
    acts = target.rounding
    if acts is None:
        raise ValueError("outlier_tune rounds inputs; give a target with acts, as Target('int6', acts='int6')")
    job = Job("outlier_tune", target, {"symmetrise": symmetrise})
    return quantise_sites(
        model,
        calibration,
        partial(_decide, acts=replace(acts, range="static", symmetric=True), symmetrise=symmetrise),
        job=job,
        heldout=heldout,
        work=work,
    )


def _decide(data: SiteData, *, acts: Acts, symmetrise: bool) -> Treatment:
    low, high = data.seen.low, data.seen.high
    middle = (high + low) / 2
    half = (high - low) / 2 if symmetrise else data.seen.peaks
    scale = torch.where(half > 0, half, torch.ones_like(half))
    limit = torch.tensor([-1.0, 1.0]).to(scale)
    facts = {"skew": float((middle.abs() / scale).mean())}
    return Treatment(scale=scale, shift=middle if symmetrise else None, acts=acts, limit=limit, facts=facts)
