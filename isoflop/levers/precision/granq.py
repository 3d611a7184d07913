"""GranQ: a range per input channel, found in one pass over the batch at hand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from isoflop.levers.precision._apply import Job, SiteData, Target, Treatment, quantise_sites
from isoflop.levers.precision._linear import Acts
from isoflop.levers.precision._report import Report
from isoflop.levers.precision._work import Work

_TARGET = Target("int4", acts="int4")


def granq(
    model: nn.Module, calibration: Sequence[Any], *, target: Target = _TARGET, heldout: Any = None,
    work: Work | None = None, symmetric: bool = False,
) -> tuple[nn.Module, Report]:  # fmt: skip
    """x_j rounded with scale and zero point from min and max of channel j over the batch, all channels at once.

    No data is needed beforehand (calibration, which may be noise, only fills the report's errors), and what comes out
    depends on the batch. The paper's setting is quantisation-aware training of convolutional nets on generated images;
    this is its rounding of activations, on linear layers, without the training. Needs target.acts of whole numbers.

    Source: arXiv:2503.18339, as its abstracts tell it; the released QuantAct is layer-wise.
    """
    if target.acts is None or not target.acts.startswith("int"):
        raise ValueError(
            "granq rounds inputs to whole numbers; give a target with acts, as Target('int4', acts='int4')"
        )
    job = Job("granq", target, {"symmetric": symmetric})
    acts = Acts(target.acts, "channel", symmetric)
    return quantise_sites(model, calibration, partial(_decide, acts=acts), job=job, heldout=heldout, work=work)


def _decide(data: SiteData, *, acts: Acts) -> Treatment:
    return Treatment(acts=acts)
