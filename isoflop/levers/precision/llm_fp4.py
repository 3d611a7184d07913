"""LLM-FP4: floats whose parting of bits and whose range are searched, with powers of two per input channel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from isoflop.levers.precision._apply import Job, SiteData, Target, Treatment, quantise_sites, store
from isoflop.levers.precision._blocks import Scheme, quantise, split
from isoflop.levers.precision._formats import Format, get_format
from isoflop.levers.precision._linear import Acts
from isoflop.levers.precision._report import Report
from isoflop.levers.precision._work import Work

_TARGET = Target("fp4_e2m1", 0, acts="fp4_e2m1")
_PARTINGS = {4: ("fp4_e2m1", "fp4_e1m2", "fp4_e3m0"), 6: ("fp6_e2m3", "fp6_e3m2"), 8: ("fp8_e4m3", "fp8_e5m2")}
_ROWS = 256  # output rows and input rows that the search looks at
_CLIPS = tuple(i / 10 for i in range(2, 12))


def llm_fp4(
    model: nn.Module, calibration: Sequence[Any], *, target: Target = _TARGET, heldout: Any = None,
    work: Work | None = None, shift: bool = True,
) -> tuple[nn.Module, Report]:  # fmt: skip
    """Weights and inputs as floats of 4 (6, 8) bits with real-valued exponent biases, that is, clipped ranges. Parting
    into exponent and mantissa, and range, are searched by |X W - X_q W_q|^2, first for the weights, then for the
    inputs, then for the weights again. With `shift`, inputs have a factor 2^k_j per channel, 0 <= -k_j < 2^exponent,
    folded away.

    Weights have a range per row (target.group 0, as in the paper) or per group; inputs one range, known beforehand.
    Only the bits of the target's formats count. The grids are coarser than the paper's (10 ranges, not 100, on 256
    rows).

    Source: arXiv:2310.16836, section 3; the released fp_linear.py, where the exponents to try are listed.
    """
    for name in filter(None, (target.weights, target.acts)):
        if get_format(name).bits not in _PARTINGS:
            raise ValueError(f"llm_fp4 has floats of 4, 6 and 8 bits, and {name} has {get_format(name).bits}")
    job = Job("llm_fp4", target, {"shift": shift})
    return quantise_sites(model, calibration, partial(_decide, shift=shift), job=job, heldout=heldout, work=work)


def _decide(data: SiteData, *, shift: bool) -> Treatment:
    acts = get_format(data.target.acts) if data.target.acts else None
    scale = _powers(data.seen.peaks, acts) if acts and shift else torch.ones_like(data.seen.peaks)
    x = data.seen.rows[:: max(1, len(data.seen.rows) // _ROWS)] / scale
    weights = [w * scale for w in data.weights]
    some = [w[torch.linspace(0, len(w) - 1, min(_ROWS, len(w))).round().long()] for w in weights]
    found = [_weights(w, x, x, data) for w in some]
    limit, rounded = None, None
    if acts:
        rounded, limit = _inputs(x, some, found, acts)
        found = [_weights(w, x, _static(x, rounded, limit), data) for w in some]
    clips = tuple(
        torch.full((*split(w, s.group).shape[:-1], 1), c).to(w) for w, (s, c) in zip(weights, found, strict=True)
    )
    facts = {"formats": [s.format for s, _ in found], "clip": [c for _, c in found], "acts": rounded and rounded.format}
    stored = tuple(s for s, _ in found)
    return Treatment(scale=scale, clips=clips, stored=stored, acts=rounded, limit=limit, facts=facts)


def _powers(peaks: Tensor, acts: Format) -> Tensor:
    """2^k_j, at most 1, that brings the channels' ranges together as far as the format's exponents reach."""
    below = torch.log2(peaks.max() / peaks.clamp(min=1e-30)).round()
    return 2.0 ** -below.clamp(0, 2 ** max(acts.exponent, 1) - 1)


def _weights(w: Tensor, x: Tensor, rounded: Tensor, data: SiteData) -> tuple[Scheme, float]:
    """Format and clip of a layer's weights that lose least."""
    wanted, group = x @ w.T, data.stored.group
    tries = [(Scheme(name, group), c) for name in _PARTINGS[get_format(data.target.weights).bits] for c in _CLIPS]
    return min(tries, key=lambda t: float(((rounded @ store(w, t[0], t[1]).T - wanted) ** 2).sum()))


def _inputs(
    x: Tensor, weights: Sequence[Tensor], found: Sequence[tuple[Scheme, float]], acts: Format
) -> tuple[Acts, Tensor]:
    """Format and range of a site's inputs that lose least under its rounded weights."""
    wanted = [x @ w.T for w in weights]
    stored = [quantise(w, s, clip=c) for w, (s, c) in zip(weights, found, strict=True)]
    peak = x.abs().max()
    tries = [(Acts(name, "static"), torch.stack((-peak, peak)) * c) for name in _PARTINGS[acts.bits] for c in _CLIPS]

    def error(one: tuple[Acts, Tensor]) -> float:
        rounded = _static(x, *one)
        return sum(float(((rounded @ w.T - y) ** 2).sum()) for w, y in zip(stored, wanted, strict=True))

    return min(tries, key=error)


def _static(x: Tensor, acts: Acts, limit: Tensor) -> Tensor:
    return acts.round(x, limit)
