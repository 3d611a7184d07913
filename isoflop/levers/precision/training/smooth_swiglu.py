"""Smooth-SwiGLU: the last product of a gated block with its inputs scaled by channel, and what makes that needed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.precision.training._cast import Cast
from isoflop.levers.precision.training._layers import channel_scale


def smooth_swiglu(gate: Tensor, up: Tensor, *, cast: Cast | None, smooth: bool = True) -> Tensor:
    """s Q(silu(gate) up / s), gate and up (..., channels): the gated product as it comes back from storage.

    s_j is near the largest value of channel j over all rows. The paper takes that maximum; here it is rounded up to a
    power of two, so that without `cast` the result is the plain product bit by bit. In a layer s is multiplied into
    the columns of the next weight matrix before that is rounded.

    Source: Fishman et al. 2024 (arXiv:2409.12517).
    """
    h = F.silu(gate) * up
    s = channel_scale(h) if smooth else torch.ones_like(h[..., 0, :])
    return (h / s if cast is None else cast.round(h / s)) * s


def alignment(gate: Tensor, up: Tensor) -> Tensor:
    """Cosine of each channel's gate and up weights (channels,): the product grows as the square of x where it is
    near 1 or -1.

    Source: arXiv:2409.12517: with weight decay and long training they align.
    """
    return F.cosine_similarity(gate, up, dim=-1)


def swiglu_alignment(model: nn.Module) -> dict[str, float]:
    """Largest and mean |cosine| over all gated blocks: modules with gate_proj and up_proj, or the ladder's gate_up.

    Raises ValueError where there is none.
    """
    found = [_pair(m) for m in model.modules()]
    each = [alignment(*pair).abs() for pair in found if pair is not None]
    if not each:
        raise ValueError(f"{type(model).__name__} has no gated block (gate_proj and up_proj, or gate_up)")
    together = torch.cat(each).detach()
    return {"largest": float(together.max()), "mean": float(together.mean()), "channels": float(len(together))}


def _pair(module: nn.Module) -> tuple[Tensor, Tensor] | None:
    gate, up = getattr(module, "gate_proj", None), getattr(module, "up_proj", None)
    if isinstance(gate, nn.Module) and isinstance(up, nn.Module):
        return gate.get_parameter("weight"), up.get_parameter("weight")
    both = getattr(module, "gate_up", None)
    if isinstance(both, Tensor):
        first, second = both.chunk(2)
        return first, second
    return None
