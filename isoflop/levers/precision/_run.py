"""One run of the precision lever: the trained model, outliers put in, quantised, measured."""

from __future__ import annotations

import hashlib
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isoflop import _find
from isoflop.levers.precision._apply import Target
from isoflop.levers.precision._inject import inject_outliers
from isoflop.levers.precision._reconstruct import Learning
from isoflop.levers.precision._report import Report

if TYPE_CHECKING:
    from isoflop.levers.precision import Precision
    from isoflop.levers.train import Train

_FLOATS = {4: "fp4_e2m1", 6: "fp6_e2m3", 8: "fp8_e4m3"}
_CALIBRATION_SEED = 1_000_003  # training windows in another order than any training run's


def run(lever: Precision, setting: dict[str, Any], *, seed: int, cache: Path | None) -> dict[str, Any]:
    """See `Precision.run`."""
    began = time.perf_counter()
    model, facts, calibration, heldout = _material(lever, setting, seed=seed, cache=cache)
    if setting["outliers"] != 1:
        model = inject_outliers(model, calibration[0], channels=lever.channels, factor=setting["outliers"], seed=seed)
    quantise = _find.get("levers/precision", setting["method"])
    knobs = json.loads(setting["knobs"])
    if "learning" in knobs:
        knobs["learning"] = Learning(**knobs["learning"])
    target = wanted(lever, setting)
    _, report = quantise(model, calibration, target=target, heldout=heldout, **knobs)
    return {**facts, **_row(report), "seconds": time.perf_counter() - began}


def wanted(lever: Precision, setting: dict[str, Any]) -> Target:
    """The target of a setting: whole numbers, or floats for the methods that take floats."""
    weights, acts = setting["bits_weights"], setting["bits_acts"]
    floats = setting["method"] in lever.floats
    names = [_FLOATS[b] if floats else f"int{b}" for b in (weights, acts) if b < 16]
    return Target(names[0], lever.group, lever.symmetric, names[1] if acts < 16 else None, act_range=lever.act_range)


def _row(report: Report) -> dict[str, Any]:
    said = report.plain()
    copied = ("loss", "loss_se", "loss_before", "perplexity", "bits_params", "bytes", "extra_bytes", "fold_error")
    return {
        **{key: said[key] for key in copied},
        "loss_increase": said["loss"] - said["loss_before"],
        "stored_bits_weights": report.bits_weights,
        "stored_bits_acts": report.bits_acts,
        "extra_flops_share": report.extra_flops / report.flops,
        "error": report.error,
        "weight_error": report.weight_error,
        "channel_ratio": max(layer["channel_ratio"] for layer in report.layers),
        "premise": report.premise is None,
        "quantise_seconds": report.seconds,
    }


def _material(
    lever: Precision, setting: dict[str, Any], *, seed: int, cache: Path | None
) -> tuple[nn.Module, dict[str, Any], list[Tensor], Tensor]:
    """The model, what a row says of it, calibration batches and held-out windows."""
    if lever.folder:
        from isoflop.levers.precision._folder import load_model, parted, windows

        model, read = load_model(lever.folder)
        found = windows(read, Path(lever.text), context=read.context)
        calibration, held = parted(found, calibration=lever.calibration_windows, heldout=lever.heldout_windows)
        return model, {"params": sum(p.numel() for p in model.parameters())}, calibration, held
    train = lever.ladder_of_models
    model, facts = trained(train, setting, seed=seed, cache=cache)
    text, context = train.text, train.context
    drawn = text.batch(seed=_CALIBRATION_SEED, step=0, count=lever.calibration_windows, context=context)
    kept, _ = text.held_out(count=lever.heldout_windows, context=context)
    return model, facts, [b[:, :-1] for b in torch.from_numpy(drawn).split(4)], torch.from_numpy(kept)


def trained(
    train: Train, setting: dict[str, Any], *, seed: int, cache: Path | None
) -> tuple[nn.Module, dict[str, Any]]:
    """A model of the ladder trained from its start with the ladder's own loop, and the facts of its row.

    Kept in `cache` by everything that decides its weights.
    """
    from safetensors.torch import load_file, save_file

    from isoflop.levers.train._loop import HeldOut, start
    from isoflop.levers.train._loop import train as advance
    from isoflop.levers.train._run import make_plan

    own: dict[str, Any] = {k: setting[k] for k in ("width", "depth", "heads", "tokens", "budget_flops") if k in setting}
    plan = make_plan(train, own, seed=seed)
    state = start(plan.shape, plan.settings)
    tokens = plan.steps * train.batch_tokens
    facts = {"params": plan.shape.params, "tokens": tokens, "flops": 6 * plan.shape.params * tokens}
    key = hashlib.sha256(f"{plan.trunk} {plan.steps} {plan.decay_start} {train.decay}".encode()).hexdigest()[:8]
    path = cache / f"model-{plan.trunk}-{key}.safetensors" if cache else None
    if path and path.exists():
        state.model.load_state_dict(load_file(path), strict=False)
        return state.model.eval(), facts
    advance(
        state, train.text, plan.settings, until=plan.steps, rate=plan.rate, points=[plan.steps],
        held_out=HeldOut(train.text, plan.settings), save=lambda state: None,
    )  # fmt: skip
    if not math.isfinite(state.curve[-1]["loss"]):
        raise ValueError("the model's training diverged; lower the learning rate")
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        save_file({name: p.detach().clone() for name, p in state.model.named_parameters()}, temporary)
        temporary.replace(path)
    return state.model.eval(), facts
