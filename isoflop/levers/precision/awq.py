"""AWQ: weights of the channels that matter are scaled up before rounding."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from isoflop.levers.precision._apply import Job, SiteData, Target, Treatment, quantise_sites
from isoflop.levers.precision._calibrate import reduced
from isoflop.levers.precision._report import Report
from isoflop.levers.precision._search import salience_scale, search_clips, weight_error
from isoflop.levers.precision._work import Work

_TARGET = Target()
_UNCLIPPED = (
    "q_proj",
    "k_proj",
    "query",
    "key",
    "c_attn",
)  # their product is what counts; the released code skips them


def awq(
    model: nn.Module, calibration: Sequence[Any], *, target: Target = _TARGET, heldout: Any = None,
    work: Work | None = None, grid: int = 20, clip: bool = True,
) -> tuple[nn.Module, Report]:  # fmt: skip
    """W_q = Q(W s) / s with s_j = (mean|X_j|)^r, r of 0, 1/grid, ... chosen by |X W - X W_q|^2 on calibration; 1 / s is
    folded into what makes X. Then, with `clip`, the range of each group is shrunk where that lowers the error.

    r = 0 is rounding to nearest, so the error of a site never exceeds it. Errors are those of the layers that share an
    input (the released code measures a whole attention block for query, key and value).

    Source: arXiv:2306.00978, eq. 4-5; the released auto_scale.py and auto_clip.py.
    """
    decide = partial(_decide, grid=grid, clip=clip)
    job = Job("awq", target, {"grid": grid, "clip": clip})
    return quantise_sites(model, calibration, decide, job=job, heldout=heldout, work=work)


def _decide(data: SiteData, *, grid: int, clip: bool) -> Treatment:
    x = data.seen.rows
    root = reduced(x)
    errors = [weight_error(data, salience_scale(x, r / grid), root) for r in range(grid)]
    best = min(range(grid), key=errors.__getitem__)
    scale = salience_scale(x, best / grid)
    clips = search_clips(data, scale, never=_UNCLIPPED) if clip else ()
    return Treatment(scale=scale if best else torch.ones_like(scale), clips=clips, facts={"power": best / grid})
