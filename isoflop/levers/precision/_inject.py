"""Outlier channels put into a trained model without changing its function, and the diagnostics that look for them.

Small models have no outlier channels by themselves, so a method that protects them has nothing to do there. Here a few
channels of each site are made `factor` times larger where they are produced, and the columns that read them as many
times smaller: the same logits, another quantisation problem. Real models' weight columns are not that small, which is
unfair to pure rotation; judge rotations on the plain model too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isoflop.levers.precision._plain import part, plain
from isoflop.levers.precision._sites import find_sites, fold, outputs, take_in


@torch.no_grad()
def inject_outliers(
    model: nn.Module, batch: Any, *, channels: int = 3, factor: float = 20.0, seed: int = 0
) -> nn.Module:
    """A copy (see `plain`) with `channels` channels of every foldable site made `factor` times larger.

    batch: an input on which the outputs are compared, to a relative 1e-4 in float32. Raises ValueError where no site
    can be folded into, or the outputs differ.
    """
    made = plain(model)
    before = outputs(made, batch)
    generator = torch.Generator().manual_seed(seed)
    sites = [site for site in find_sites(made) if site.producer]
    if not sites:
        raise ValueError(f"{type(model).__name__} has no site whose producer is known; outliers cannot be injected")
    for site in sites:
        length = part(made, site.linears[0]).in_features
        scale = torch.ones(length)
        scale[torch.randperm(length, generator=generator)[:channels]] = 1 / factor
        scale = scale.to(next(made.parameters()))
        fold(made, site, scale=scale)
        take_in(made, site, scale=scale)
    gap = float((outputs(made, batch) - before).abs().max() / before.abs().max())
    if gap > 1e-4:
        raise ValueError(f"injection changed the outputs by {gap:.1e} of their largest; the sites' table does not fit")
    return made


def channel_ratio(x: Tensor) -> float:
    """Largest over median of the channels' maxima of |x|, x (rows, channels): 1 to 3 where no channel stands out."""
    return _ratio(x.abs().amax(dim=0))


def token_ratio(x: Tensor) -> float:
    """Largest over median of the rows' maxima of |x|: spikes."""
    return _ratio(x.abs().amax(dim=1))


def kurtosis(x: Tensor) -> float:
    """E[(x - mean)^4] / variance^2 over all entries: 3 for a normal distribution."""
    y = x.double() - x.double().mean()
    variance = (y**2).mean()
    return float((y**4).mean() / variance**2) if variance > 0 else 0.0


def _ratio(peaks: Tensor) -> float:
    middle = float(peaks.median())
    return float(peaks.max()) / middle if middle > 0 else float("inf") if float(peaks.max()) > 0 else 1.0


STANDS_OUT = 8.0  # ours: a channel so many times the median one; the plain ladder models stay below it


def premise(ratios: Sequence[float]) -> str | None:
    """A sentence where nothing stands out that a method of channel scales could protect."""
    worst = max(ratios, default=1.0)
    if worst >= STANDS_OUT:
        return None
    return (
        f"no channel is larger than {worst:.1f} times the median one (a premise would be {STANDS_OUT:.0f} times): "
        "there is little to protect, and rounding to nearest may do as well"
    )
