"""Losses of a next token: cross entropy, the same with StableMax for softmax, and the z-loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-log softmax of the target, of logits (rows, vocab) and targets (rows); nats."""
    return F.cross_entropy(logits, targets, reduction="none")


def stablemax(logits: Tensor, targets: Tensor) -> Tensor:
    """-log(s(x_target) / sum s(x)), s(x) = x + 1 for x >= 0, else 1 / (1 - x); nats.

    It falls as a power of the logits, not exponentially, so that it is not lost in rounding.
    Source: Prieto et al. 2025 (arXiv:2501.04697); by log1p of the other tokens' share.
    """
    raised = torch.where(logits >= 0, logits + 1, 1 / (1 - logits.clamp(max=0)))
    target = targets.unsqueeze(-1)
    others = raised.scatter(-1, target, 0.0).sum(dim=-1)
    return torch.log1p(others / raised.gather(-1, target).squeeze(-1))


LOSSES = {"softmax": cross_entropy, "stablemax": stablemax}


def z_loss(logits: Tensor) -> Tensor:
    """mean of (log Z)^2, Z = sum exp(logits): its gradient draws log Z to 0, which softmax leaves free.

    Source: Chowdhery et al. 2022 (arXiv:2204.02311), with the factor 1e-4; Wortsman et al. 2023
    (arXiv:2309.14322), section 3.1.2.
    """
    return torch.logsumexp(logits, dim=-1).square().mean()
