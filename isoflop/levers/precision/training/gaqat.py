"""Sharpness-aware training of quantised models, with the gradients of scales frozen where they are in disorder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from isoflop.levers.precision.training._learned import LearnedStep


@dataclass
class Gaqat:
    """State of the freezing, by scale: signs of the last window, who is frozen, and what was seen.

    radius: of the sharpness step (arXiv:2010.01412; 0: plain training); window: steps between decisions; threshold:
    scales whose disorder is above it are frozen for the next window (1: never).
    """

    model: nn.Module
    radius: float = 0.05
    window: int = 25
    threshold: float = 0.3
    signs: list[list[Tensor]] = field(default_factory=list)
    frozen: list[bool] = field(default_factory=list)
    disorder: list[float] = field(default_factory=list)
    conflicts: list[float] = field(default_factory=list)

    def gradients(self, loss: Callable[[], Tensor]) -> float:
        """Fill the gradients for one step of any optimiser, and return the loss before it.

        The gradient at w + radius g / |g| stands for task and flatness together; what it adds to g at a scale is the
        flatness part. A conflict is a scale whose two parts have opposite signs; disorder is the share of successive
        steps of a window in which the sign of a scale's whole gradient flips.

        Source: Jiang et al. 2024 (arXiv:2412.05551), as its abstract and a summary of it tell it: the window, the
        threshold and which gradient's sign is counted are ours (form unverified).
        """
        self.model.zero_grad(set_to_none=True)
        first = loss()
        first.backward()
        if self.radius:
            self._sharpen(loss)
        self._note()
        for scale, frozen in zip(self._scales(), self.frozen, strict=True):
            if frozen and scale.grad is not None:
                scale.grad.zero_()
        return float(first.detach())

    def _scales(self) -> list[nn.Parameter]:
        return [m.scale for m in self.model.modules() if isinstance(m, LearnedStep)]

    def _sharpen(self, loss: Callable[[], Tensor]) -> None:
        held = [(p, p.detach().clone(), p.grad.clone()) for p in self.model.parameters() if p.grad is not None]
        norm = torch.stack([g.norm() for _, _, g in held]).norm().clamp(min=1e-12)
        with torch.no_grad():
            for p, _, g in held:
                p.add_(g, alpha=float(self.radius / norm))
        self.model.zero_grad(set_to_none=True)
        loss().backward()
        with torch.no_grad():
            for p, before, _ in held:
                p.copy_(before)
        before_grad = {id(p): g for p, _, g in held}
        pairs = [(before_grad[id(s)], s.grad - before_grad[id(s)]) for s in self._scales() if s.grad is not None]
        self.conflicts.append(sum(float(task * flat) < 0 for task, flat in pairs) / max(1, len(pairs)))

    def _note(self) -> None:
        self.frozen = self.frozen or [False] * len(self._scales())
        self.signs.append([torch.zeros(()) if s.grad is None else s.grad.sign() for s in self._scales()])
        if len(self.signs) < self.window or not self.signs[0]:
            return
        table = torch.tensor([[float(v) for v in row] for row in self.signs])
        flips = (table[1:] * table[:-1] < 0).double().mean(dim=0)
        self.disorder = [float(v) for v in flips]
        self.frozen = [v > self.threshold for v in self.disorder]
        self.signs = []


def gaqat(model: nn.Module, *, radius: float = 0.05, window: int = 25, threshold: float = 0.3) -> Gaqat:
    """Sharpness-aware gradients with selective freezing for a model with `LearnedStep` scales.

    Raises ValueError where there is no such scale.
    """
    if not any(isinstance(m, LearnedStep) for m in model.modules()):
        raise ValueError(f"{type(model).__name__} has no learned scales (LearnedStep); there is nothing to freeze")
    return Gaqat(model, radius, window, threshold)
