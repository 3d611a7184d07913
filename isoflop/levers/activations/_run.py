"""One run of the activations lever: train, and measure at every checkpoint."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop._lever import RunFailed
from isoflop.levers.activations._model import make
from isoflop.levers.activations.massive import attention_maps, interventions, massive, outliers, sink_share
from isoflop.levers.activations.sparsity import sparsity
from isoflop.levers.precision._inject import inject_outliers
from isoflop.levers.train._run import Plan, make_plan
from isoflop.levers.train._schedule import log_points

if TYPE_CHECKING:
    from isoflop.levers.activations import Activations
    from isoflop.levers.precision._plain import PlainGPT

_FIRST, _PER_DECADE = 20, 8
_PROBED = 8  # windows for hidden states and attention


def run(lever: Activations, setting: dict[str, Any], *, seed: int) -> dict[str, Any]:
    """See `Activations.run`."""
    began, spent = time.perf_counter(), time.process_time()
    ladder = lever.models
    own: dict[str, Any] = {k: setting[k] for k in ("width", "depth", "heads", "tokens", "budget_flops") if k in setting}
    plan = make_plan(ladder, own, seed=seed)
    model = make(
        plan.shape, context=ladder.context, seed=seed, function=setting["function"], start_unit=setting["start_unit"]
    )
    held, _ = ladder.text.held_out(count=ladder.eval_tokens // ladder.context, context=ladder.context)
    picked = torch.linspace(0, len(held) - 1, min(lever.windows, len(held))).long()
    windows = torch.from_numpy(held)[picked]
    curve: list[dict[str, Any]] = []
    optimizer, done = _optimizer(plan, model), 0
    for step in sorted({*log_points(plan.steps, per_decade=_PER_DECADE, first=_FIRST), plan.steps}):
        _advance(plan, model, optimizer, steps=range(done, step))
        curve.append({"step": step, "tokens": step * ladder.batch_tokens, **measure(lever, model, windows)})
        done = step
    tokens = plan.steps * ladder.batch_tokens
    row = {
        **curve[-1],
        "params": plan.shape.params,
        "tokens": tokens,
        "flops": 6 * plan.shape.params * tokens,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - spent,
        "curve": curve,
    }
    row.pop("step")
    if setting["start_unit"]:
        row |= interventions(model, windows, layer="layers.0", token=0, dimension=0)
    return row


def measure(lever: Activations, model: PlainGPT, windows: Tensor) -> dict[str, Any]:
    """One checkpoint."""
    model.eval()
    sparse = sparsity(model, windows, rise=lever.perplexity_rise)
    probed = windows[:_PROBED, :-1]
    big = massive(model, probed)
    share = [sink_share(maps, token=0) for maps in attention_maps(model, probed)]
    return {
        "loss": sparse.loss_before,
        "activation_ratio": sparse.activation_ratio,
        "nonzero": _nonzero(model, probed),
        "cett": sparse.cett,
        "perplexity_ratio": sparse.perplexity_ratio,
        "massive": big.count,
        "massive_ratio": big.ratio,
        "top": max(layer.top for layer in big.layers),
        **{f"ratio_{i}": layer.ratio for i, layer in enumerate(big.layers)},
        "sink_share": sum(share) / len(share),
        **_outliers(model, probed),
        **{f"{k}_injected": v for k, v in _outliers(inject_outliers(model, probed), probed).items()},
    }


def _outliers(model: nn.Module, tokens: Tensor) -> dict[str, float]:
    found = outliers(model, tokens)
    return {"outliers": found["outlier_dimensions"], "read_ratio": found["ratio"]}


@torch.no_grad()
def _nonzero(model: nn.Module, tokens: Tensor) -> float:
    """Share of the feed-forward neurons that are not exactly 0."""
    shares: list[float] = []
    handles = [
        m.register_forward_pre_hook(lambda m, args: shares.append(float((args[0] != 0).double().mean())))
        for n, m in model.named_modules()
        if n.endswith("mlp.down_proj")
    ]
    try:
        model(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return sum(shares) / len(shares)


def _optimizer(plan: Plan, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW with the ladder's settings: weight decay on matrices only."""
    decayed = [p for p in model.parameters() if p.ndim == 2]
    free = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": plan.settings.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=plan.settings.betas, eps=1e-8)


def _advance(plan: Plan, model: nn.Module, optimizer: torch.optim.Optimizer, *, steps: range) -> None:
    """So many optimizer steps, with the ladder's batches and rates. Raises RunFailed where the loss is not finite."""
    settings, loss = plan.settings, torch.zeros(())
    model.train()
    for step in steps:
        batch = plan.lever.text.batch(seed=settings.seed, step=step, count=settings.count, context=settings.context)
        windows = torch.from_numpy(batch)
        loss = F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        optimizer.step()
    if not math.isfinite(float(loss.detach())):
        raise RunFailed(f"the training loss is not finite by step {steps.stop}", row={"params": plan.shape.params})
