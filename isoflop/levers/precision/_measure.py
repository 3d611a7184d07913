"""Loss of a model on held-out data: windows of tokens, or inputs with labels."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.precision._sites import outputs


@torch.no_grad()
def losses(model: nn.Module, heldout: Any, *, batch: int = 16) -> tuple[Tensor, float | None]:
    """Loss of each window or example in nats, and the accuracy where there are labels.

    heldout: ids (windows, time + 1), inputs and one token further targets; or a pair (inputs, labels).
    """
    if isinstance(heldout, Tensor):
        parts = [_window_losses(model, windows) for windows in heldout.split(batch)]
        return torch.cat(parts), None
    inputs, labels = heldout
    logits = torch.cat([outputs(model, x).double() for x in inputs.split(1024)])
    right = (logits.argmax(dim=-1) == labels).double().mean()
    return F.cross_entropy(logits, labels, reduction="none"), float(right)


def _window_losses(model: nn.Module, windows: Tensor) -> Tensor:
    logits = outputs(model, windows[:, :-1]).float()
    each = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].reshape(-1), reduction="none")
    return each.view(len(windows), -1).double().mean(dim=1)


def compared(before: nn.Module, after: nn.Module, heldout: Any) -> dict[str, Any]:
    """Fields of a Report: losses before and after, and the standard error of their difference over windows."""
    if heldout is None:
        return {}
    (one, right), (two, also) = losses(before, heldout), losses(after, heldout)
    gap = two - one
    return {
        "loss_before": float(one.mean()),
        "loss": float(two.mean()),
        "loss_se": float(gap.std() / math.sqrt(len(gap))) if len(gap) > 1 else None,
        "perplexity": math.exp(min(float(two.mean()), 700.0)),
        "accuracy_before": right,
        "accuracy": also,
    }
