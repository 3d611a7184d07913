"""Sizes of what leaves each part of a model over a few training steps, and spectral norms of its matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.train._gpt import GPT
from isoflop.levers.train._mlp import MLP, digits

if TYPE_CHECKING:
    from isoflop.levers.train import Train
    from isoflop.levers.train._design import Design
    from isoflop.levers.train._transfer import Transfer


def rms(x: Tensor) -> float:
    """Root of the mean square."""
    return float(x.detach().double().square().mean().sqrt())


def sizes_of_digits(design: Design, sweep: Transfer, width: int, *, lr: float, seed: int, steps: int) -> dict[str, Any]:
    """See `Coordinates`: the MLP on digits, its first `batch` images at every step."""
    images, labels = (part[: sweep.batch] for part in digits())
    model = MLP(design, width=width, depth=sweep.depth, seed=seed)
    optimizer = torch.optim.Adam(model.groups(), lr=0.0)
    row = _steps(model, optimizer, lambda: model(images), labels, model_sites=list(model.layers), lr=lr, steps=steps)
    return {"width": width, "loss": row.pop("loss"), "flops": 6 * steps * sweep.batch * _count(model), **row}


def sizes_of_ladder(lever: Train, setting: dict[str, Any], *, lr: float, seed: int, steps: int) -> dict[str, Any]:
    """See `Coordinates`: a ladder's model, one batch at every step."""
    count = lever.batch_tokens // lever.context
    batch = torch.from_numpy(lever.text.batch(seed=seed, step=0, count=count, context=lever.context))
    model = GPT(lever.shape(setting), context=lever.context, seed=seed)
    optimizer = torch.optim.AdamW(model.groups(weight_decay=lever.weight_decay), lr=0.0, betas=lever.betas)
    row = _steps(model, optimizer, lambda: model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten(),
                 model_sites=list(model.blocks), lr=lr, steps=steps)  # fmt: skip
    return {
        "width": setting["width"],
        "loss": row.pop("loss"),
        "flops": 6 * steps * lever.batch_tokens * _count(model),
        **row,
    }


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, logits: Callable[[], Tensor], labels: Tensor, *,
    model_sites: list[nn.Module], lr: float, steps: int,
) -> dict[str, float]:  # fmt: skip
    """Sizes before the first step and after each, and the last loss."""
    seen: list[Tensor] = []
    hooks = [site.register_forward_hook(lambda _, __, out: seen.append(out.detach())) for site in model_sites]
    row: dict[str, float] = {}
    first: list[Tensor] = []
    loss = torch.zeros(())
    try:
        for step in range(steps + 1):
            seen.clear()
            out = logits()
            first = first or [*seen, out.detach()]
            for i, (before, now) in enumerate(zip(first, [*seen, out], strict=True)):
                site = "logits" if i == len(seen) else f"layer{i}"
                row |= {f"{site}_{step}": rms(now), f"{site}_moved_{step}": rms(now - before)}
            loss = F.cross_entropy(out, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = lr * group["factor"]
            optimizer.step()
    finally:
        for hook in hooks:
            hook.remove()
    return {"loss": float(loss.detach()), **row}


def spectral_norms(model: GPT) -> dict[str, dict[str, float]]:
    """For each hidden matrix: its spectral norm as used (times its multiplier), and (fan_out / fan_in)^1/2.

    Source of the condition: arXiv:2310.17813, condition 1.
    """
    found = {}
    for i, block in enumerate(model.blocks):
        for name in ("qkv", "out", "gate_up", "down"):
            weight, use = getattr(block, name).detach(), getattr(block, f"use_{name}")
            norm = float(torch.linalg.matrix_norm(weight, 2)) * use.rule.multiplier
            found[f"{i}.{name}"] = {"norm": norm, "wanted": (weight.shape[0] / weight.shape[1]) ** 0.5}
    return found
