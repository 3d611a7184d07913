"""One run of the architecture lever, and what is looked at beyond its loss."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch

from isoflop._lever import RunFailed
from isoflop.levers.architecture._denoiser import Denoiser
from isoflop.levers.train import Train
from isoflop.levers.train import _run as ladder
from isoflop.levers.train._loop import Diverged, HeldOut
from isoflop.levers.train._mlp import CLASSES, HELD_OUT, MLP, DigitsRun, digits
from isoflop.levers.train._sizes import spectral_norms

if TYPE_CHECKING:
    from isoflop.levers.architecture import Architecture


def run(sweep: Architecture, setting: dict[str, Any], *, seed: int) -> dict[str, Any]:
    """See `Architecture.run`."""
    made, lr, began = sweep.made(setting), setting["lr"], time.process_time()
    size = {k: v for k, v in setting.items() if k not in ("arm", "lr", *sweep.grid)}
    head: dict[str, Any] = {"start_loss": start_loss(made)}
    try:
        if isinstance(made, Train):
            head |= _transformer(made, size, seed=seed)
        else:
            head |= at_start(made, seed=seed) if isinstance(made, DigitsRun) else {}
            head |= made.train(lr=lr, seed=seed)
    except RunFailed as error:
        raise RunFailed(str(error), row=head | error.row | _spent(began)) from error
    return {**head, **setting, **_spent(began)}


def _spent(began: float) -> dict[str, float]:
    return {"cpu_seconds": round(time.process_time() - began, 3)}


def start_loss(made: Train | DigitsRun | Denoiser) -> float:
    """The loss of knowing nothing: all symbols or classes alike, or no noise seen."""
    if isinstance(made, Denoiser):
        return 1.0
    return math.log(made.text.vocab if isinstance(made, Train) else CLASSES)


def _transformer(lever: Train, size: dict[str, Any], *, seed: int) -> dict[str, Any]:
    """A ladder's run, with the gains of its matrices at the end: largest singular values, geometric means by kind.

    Each is as used (times its multiplier) and over (fan_out / fan_in)^1/2, so that 1 is the spectral condition.
    """
    plan = ladder.make_plan(lever, size, seed=seed)
    held_out, state = HeldOut(lever.text, plan.settings), ladder._take_up(plan, None)
    try:
        ladder._advance(plan, state, held_out, None)
    except Diverged as error:
        raise RunFailed(str(error), row=ladder._row(plan, state)) from error
    found: dict[str, list[float]] = {}
    for name, norm in spectral_norms(state.model).items():
        found.setdefault(f"gain_{name.split('.')[1]}", []).append(math.log(norm["norm"] / norm["wanted"]))
    gains = {name: math.exp(sum(logs) / len(logs)) for name, logs in found.items()}
    return ladder._finish(plan, state, held_out, None) | gains


def at_start(run: DigitsRun, *, seed: int) -> dict[str, float]:
    """Mean and variance of what leaves the first and the last layer of an MLP while it trains, before its first step.

    Over all numbers of a layer on 1,437 images, dropout on.
    """
    model, images = MLP.of(run, seed=seed), digits()[0][HELD_OUT:]
    seen: list[torch.Tensor] = []
    hooks = [layer.register_forward_hook(lambda _, __, out: seen.append(out)) for layer in model.layers]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    ends = {"first": seen[0].double(), "last": seen[-1].double()}
    return {
        f"{k}_{n}": float(f(x)) for n, x in ends.items() for k, f in (("mean", torch.mean), ("variance", torch.var))
    }
