"""What calibration sees: inputs of every site, a sample of rows and the whole range, from one pass of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from isoflop.levers.precision._plain import part
from isoflop.levers.precision._sites import Site, outputs

ROWS = 512  # input rows kept per site, spread evenly over the calibration


@dataclass
class Seen:
    """Inputs of a site: kept rows (n, channels), and each channel's lowest and highest value over all rows."""

    parts: list[Tensor] = field(default_factory=list)
    low: Tensor = field(default_factory=lambda: torch.tensor(torch.inf))
    high: Tensor = field(default_factory=lambda: torch.tensor(-torch.inf))

    def add(self, x: Tensor, keep: int) -> None:
        rows = x.detach().reshape(-1, x.shape[-1])
        self.low = torch.minimum(self.low.to(rows), rows.amin(dim=0))
        self.high = torch.maximum(self.high.to(rows), rows.amax(dim=0))
        picked = torch.linspace(0, len(rows) - 1, min(keep, len(rows)), device=x.device).round().long()
        self.parts.append(rows[picked])

    @property
    def rows(self) -> Tensor:
        return torch.cat(self.parts)

    @property
    def peaks(self) -> Tensor:
        """max |x| of each channel over all rows."""
        return torch.maximum(self.high, -self.low)


@torch.no_grad()
def collect(
    model: nn.Module, sites: Sequence[Site], calibration: Sequence[Any], *, rows: int = ROWS
) -> dict[str, Seen]:
    """Site name -> what its layers read. Raises ValueError where calibration is empty or misses a layer."""
    if not len(calibration):
        raise ValueError("calibration is empty; give at least one batch of inputs")
    seen = {site.name: Seen() for site in sites}
    keep = max(1, rows // len(calibration))
    hooks = [
        part(model, site.linears[0]).register_forward_pre_hook(partial(_note, seen[site.name], keep)) for site in sites
    ]
    try:
        for batch in calibration:
            outputs(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    if unread := [name for name, one in seen.items() if not one.parts]:
        raise ValueError(f"calibration never reached {unread[0]}; skip that layer, or give other inputs")
    if bad := [name for name, one in seen.items() if not torch.isfinite(one.peaks).all()]:
        raise ValueError(f"calibration inputs of {bad[0]} are not finite; check the model and the inputs")
    return seen


def _note(seen: Seen, keep: int, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    seen.add(inputs[0], keep)


def cut(calibration: Sequence[Any], length: int) -> list[Any]:
    """The same tokens in sequences of `length`: ids (batch, time) become (batch time / length, length), a rest is left
    out.

    Raises ValueError where a batch is no tensor of ids or is shorter than that.
    """
    made = []
    for batch in calibration:
        if not isinstance(batch, Tensor) or batch.ndim != 2 or batch.shape[1] < length:
            raise ValueError(f"calibration batches should be ids (batch, time) of at least {length} tokens to be cut")
        whole = batch.shape[1] // length * length
        made.append(batch[:, :whole].reshape(-1, length))
    return made


def reduced(x: Tensor) -> Tensor:
    """A matrix R of at most as many rows as columns with |R d| = |x d| for every d, over the last two axes."""
    if x.shape[-2] <= x.shape[-1]:
        return x
    return torch.linalg.qr(x, mode="r").R
