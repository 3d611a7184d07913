"""Scales per input channel, and what a site's outputs lose under them; shared by the quantisers that search."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isoflop.levers.precision._apply import SiteData, store
from isoflop.levers.precision._blocks import Scheme, quantise, split
from isoflop.levers.precision._calibrate import reduced
from isoflop.levers.precision._linear import Acts, limits

_CLIP_STEPS = tuple(1 - i / 20 for i in range(1, 10))  # .95 to .55, as the released auto_clip.py


def smooth_scale(peaks: Tensor, columns: Tensor, alpha: float) -> Tensor:
    """s_j = max|X_j|^alpha / max|W_j|^(1 - alpha); 1 where either is zero.

    Source: SmoothQuant, arXiv:2211.10438, eq. 4.
    """
    live = (peaks > 0) & (columns > 0)
    scale = peaks.clamp(min=1e-30) ** alpha / columns.clamp(min=1e-30) ** (1 - alpha)
    return torch.where(live, scale.clamp(1e-5, 1e5), torch.ones_like(scale))


def salience_scale(x: Tensor, power: float) -> Tensor:
    """s_j = (mean|X_j|)^power, divided by the geometric mean of its largest and smallest.

    Source: AWQ, arXiv:2306.00978, eq. 5; the released auto_scale.py, from which the last step and the floor are.
    """
    scale = (x.abs().mean(dim=0) ** power).clamp(min=1e-4)
    return scale / (scale.max() * scale.min()).sqrt()


def weight_error(data: SiteData, scale: Tensor, root: Tensor) -> float:
    """Sum over the layers of |X (W - Q(W s) / s)^T|^2; root: `reduced` inputs."""
    total = 0.0
    for w, unit in zip(data.weights, data.units, strict=True):
        gap = store(w * scale, data.stored) / scale - w
        total += float((((root @ gap.T) * unit) ** 2).sum())
    return total


def joint_error(data: SiteData, scale: Tensor, x: Tensor, acts: Acts) -> float:
    """Sum over the layers of |X W^T - Q_a(X / s) Q_w(W s)^T|^2: what both roundings lose together."""
    rounded, total = acts.round(x / scale, limits(x / scale)), 0.0
    for w, unit in zip(data.weights, data.units, strict=True):
        gap = rounded @ store(w * scale, data.stored).T - x @ w.T
        total += float(((gap * unit) ** 2).sum())
    return total


def search_clips(data: SiteData, scale: Tensor, *, never: Sequence[str]) -> tuple[Tensor, ...]:
    """Per layer, the share of each group's range that loses least on the inputs / scale, (out, groups, 1).

    never: parts of names of layers that keep their whole range. A row keeps it too where clipping group by group makes
    the whole row worse, so a search never raises the error.
    """
    x = data.seen.rows / scale
    clips = []
    for name, w in zip(data.site.linears, data.weights, strict=True):
        whole = torch.ones(*split(w, data.stored.group).shape[:-1], 1).to(w)
        tried = data.stored.group != -1 and not any(part in name for part in never)
        clips.append(_search_clip(w * scale, x, data.stored, whole) if tried else whole)
    return tuple(clips)


def _search_clip(w: Tensor, x: Tensor, stored: Scheme, whole: Tensor) -> Tensor:
    roots = reduced(split(x, stored.group).transpose(0, 1))  # (groups, rows, values)
    best, least = whole, _group_errors(w, roots, stored, whole)
    for step in _CLIP_STEPS:
        error = _group_errors(w, roots, stored, whole * step)
        better = error < least
        best, least = torch.where(better, whole * step, best), torch.where(better, error, least)
    root = reduced(x)
    worse = _row_errors(w, root, stored, best) > _row_errors(w, root, stored, whole)
    return torch.where(worse[:, None, None], whole, best)


def _group_errors(w: Tensor, roots: Tensor, stored: Scheme, clip: Tensor) -> Tensor:
    """Error of each group of each row by itself, (out, groups, 1)."""
    gap = split(quantise(w, stored, clip=clip) - w, stored.group).transpose(0, 1)
    return ((gap @ roots.transpose(1, 2)) ** 2).sum(dim=-1).T[..., None]


def _row_errors(w: Tensor, root: Tensor, stored: Scheme, clip: Tensor) -> Tensor:
    return (((quantise(w, stored, clip=clip) - w) @ root.T) ** 2).sum(dim=1)
