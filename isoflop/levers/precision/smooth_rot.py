"""SmoothRot: scales per channel before a Hadamard rotation of the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from isoflop.levers.precision._apply import Job, SiteData, Target, Treatment, quantise_sites
from isoflop.levers.precision._report import Report
from isoflop.levers.precision._search import smooth_scale
from isoflop.levers.precision._work import Work

_TARGET = Target("int4", acts="int4")
_WHERE = ("gated", "all", "none")


def smooth_rot(
    model: nn.Module, calibration: Sequence[Any], *, target: Target = _TARGET, heldout: Any = None,
    work: Work | None = None, alpha: float = 0.5, where: str = "gated",
) -> tuple[nn.Module, Report]:  # fmt: skip
    """X W^T = (X / s) R (W s R)^T: SmoothQuant's s where `where` says, then a rotation R, at every site.

    where: "gated" is the paper's (the input of the down-projection, s folded into the up-projection), "all" every site,
    "none" rotation alone. All rotations are made at run time here and counted so; the released code folds those of the
    residual stream into the weights. Weights of the smoothing are their absolute values (the released code omits that).

    Source: arXiv:2506.05413; the released smooth.py and rotation.py.
    """
    if where not in _WHERE:
        raise ValueError(f"where is {where!r}; it can be {', '.join(_WHERE)}")
    job = Job("smooth_rot", target, {"alpha": alpha, "where": where})
    decide = partial(_decide, alpha=alpha, where=where)
    return quantise_sites(model, calibration, decide, job=job, heldout=heldout, work=work)


def _decide(data: SiteData, *, alpha: float, where: str) -> Treatment:
    if where == "all" or (where == "gated" and data.site.gated):
        return Treatment(scale=smooth_scale(data.seen.peaks, data.columns, alpha), rotated=True)
    return Treatment(rotated=True)
