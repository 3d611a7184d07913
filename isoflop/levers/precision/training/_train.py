"""Models of the ladder trained under a recipe."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.levers.precision._measure import losses
from isoflop.levers.precision._plain import PlainGPT, from_ladder
from isoflop.levers.precision.training._layers import Recipe, lower
from isoflop.levers.precision.training.coat import LowAdamW

if TYPE_CHECKING:
    from isoflop.levers.train import Train


def trained(lever: Train, setting: dict[str, Any], recipe: Recipe, *, seed: int) -> tuple[PlainGPT, dict[str, Any]]:
    """The standard model of a setting trained from its start under a recipe, and its row: loss, costs, curve.

    Of `Train` this uses the model, the text, the rate and its schedule, AdamW's settings and the clipping. Raises
    RunFailed where the loss is no longer finite.
    """
    from isoflop._lever import RunFailed
    from isoflop.levers.train._run import make_plan

    plan = make_plan(lever, setting, seed=seed)
    model = new_model(lever, setting, seed=seed)
    if recipe != Recipe():
        lower(model, recipe, seed=seed)
    optimizer, began, curve = _optimizer(model, lever, recipe), time.process_time(), []
    params, marks = plan.shape.params, {round(plan.steps * share / 8) for share in range(1, 9)}
    row: dict[str, Any] = {"params": params, "params_nonembed": plan.shape.params_nonembed, "lr": plan.peak}
    for step in range(plan.steps):
        loss = _step(model, optimizer, _batch(lever, step, seed), lr=plan.rate(step), clip=lever.clip)
        tokens = (step + 1) * lever.batch_tokens
        row |= {"tokens": tokens, "flops": 6 * params * tokens, "cpu_seconds": time.process_time() - began}
        if step + 1 in marks:
            if not math.isfinite(loss):
                raise RunFailed(f"the training loss is not finite at step {step + 1}", row=row)
            curve.append({"step": step + 1, "tokens": tokens, "params": params, "train_loss": float(loss)})
    windows, _ = lever.text.held_out(count=lever.eval_tokens // lever.context, context=lever.context)
    held, _ = losses(model, torch.from_numpy(windows), batch=64)
    row |= {"loss": float(held.mean()), "loss_se": float(held.std() / math.sqrt(len(held))), "curve": curve}
    return model, row | {"cpu_seconds": time.process_time() - began}


def new_model(lever: Train, setting: dict[str, Any], *, seed: int) -> PlainGPT:
    """The ladder's model at its start, with linear layers."""
    from isoflop.levers.train._gpt import GPT

    model = from_ladder(GPT(lever.shape(setting), context=lever.context, seed=seed))
    return model.train().requires_grad_(True)


def _batch(lever: Train, step: int, seed: int) -> Tensor:
    count = lever.batch_tokens // lever.context
    return torch.from_numpy(lever.text.batch(seed=seed, step=step, count=count, context=lever.context))


def _step(model: PlainGPT, optimizer: torch.optim.Optimizer, windows: Tensor, *, lr: float, clip: float) -> float:
    """One step; the mean loss before it, in nats/token."""
    optimizer.zero_grad(set_to_none=True)
    loss = F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].reshape(-1))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return float(loss.detach())


def _optimizer(model: PlainGPT, lever: Train, recipe: Recipe) -> torch.optim.Optimizer:
    parts = [p for p in model.parameters() if p.ndim == 2], [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": parts[0], "weight_decay": lever.weight_decay}, {"params": parts[1], "weight_decay": 0.0}]
    made = partial(LowAdamW, moments=recipe.moments) if recipe.moments else partial(torch.optim.AdamW, fused=True)
    return made(groups, lr=0.0, betas=lever.betas, eps=1e-8)
