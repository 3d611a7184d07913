"""SmoothRot: scales per channel before a Hadamard rotation of the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from isoflop.levers.precision._apply import Job, SiteData, Target, Treatment, quantise_sites
from isoflop.levers.precision._report import Report
from isoflop.levers.precision._residual import rotate_residual
from isoflop.levers.precision._search import smooth_scale
from isoflop.levers.precision._work import Work

_TARGET = Target("int4", acts="int4")
_WHERE = ("gated", "all", "none")


def smooth_rot(
    model: nn.Module, calibration: Sequence[Any], *, target: Target = _TARGET, heldout: Any = None,
    work: Work | None = None, alpha: float = 0.5, where: str = "gated", residual: bool = True,
) -> tuple[nn.Module, Report]:  # fmt: skip
    """X W^T = (X / s) R (W s R)^T: SmoothQuant's s where `where` says, then a rotation R, at every site.

    where: "gated" is the paper's (the input of the down-projection, s folded into the up-projection), "all" every site,
    "none" rotation alone. residual: rotations of the residual stream are folded into the weights where the model's
    names allow it (see `_residual`; not with "all", whose scales the folding takes away, nor where target.fold is
    False); all others are made at run time and counted so. Weights of the smoothing are their absolute values (the
    released code omits that).

    Source: arXiv:2506.05413; the released smooth.py and rotation.py.
    """
    if where not in _WHERE:
        raise ValueError(f"where is {where!r}; it can be {', '.join(_WHERE)}")
    fold = residual and target.fold and where != "all" and calibration
    start, done = (rotate_residual(model, calibration[0]) if fold else None) or (None, frozenset())
    job = Job("smooth_rot", target, {"alpha": alpha, "where": where, "residual": bool(done)})
    decide = partial(_decide, alpha=alpha, where=where, done=done)
    return quantise_sites(model, calibration, decide, job=job, heldout=heldout, work=work, start=start)


def _decide(data: SiteData, *, alpha: float, where: str, done: frozenset[str]) -> Treatment:
    scaled = where == "all" or (where == "gated" and data.site.gated)
    scale = smooth_scale(data.seen.peaks, data.columns, alpha) if scaled else None
    return Treatment(scale=scale, rotated=data.site.linears[0] not in done)
