"""LRQ: learned low-rank divisors of the weights, so that each block's output survives the rounding."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from isoflop.levers.precision._apply import Job, Target, make_report
from isoflop.levers.precision._calibrate import collect
from isoflop.levers.precision._inject import channel_ratio, kurtosis, token_ratio
from isoflop.levers.precision._linear import QuantLinear
from isoflop.levers.precision._plain import part, plain, put
from isoflop.levers.precision._reconstruct import Call, Learned, Learning, calls, find_blocks, first, relative_error
from isoflop.levers.precision._report import Report
from isoflop.levers.precision._sites import Site
from isoflop.levers.precision._work import Parts, Work

_TARGET = Target("int4", 0)
_LEARNING = Learning(steps=300, rate=1e-3, seed=0)


def lrq(
    model: nn.Module, calibration: Sequence[Any], *, target: Target = _TARGET, heldout: Any = None,
    work: Work | None = None, rank: int = 16, learning: Learning = _LEARNING,
) -> tuple[nn.Module, Report]:  # fmt: skip
    """W_q = d (clamp(round(W / (d e^S)) + z) - z) with S = L U + r + c of rank `rank`, learned by |block(X_q) -
    block(X)|^2, where X_q comes from the blocks already rounded. rank 0: a full matrix S (FlexRound). Only whole
    numbers.

    The paper takes Adam at 5e-4 for 5000 steps on 512 sequences and rank 1024 or more; the defaults are for small
    models on a CPU. S costs nothing at run time: codes and scales are all that is stored.

    Source: arXiv:2407.11534; the released UniformAffineQuantizer.py.
    """
    began, work = time.perf_counter(), work or Work()
    knobs = {"rank": rank, "steps": learning.steps, "rate": learning.rate, "seed": learning.seed}
    job, made, exact = Job("lrq", target, knobs, channels=False), plain(model), plain(model)
    job.claim(work, model, calibration)
    blocks = find_blocks(made, target.skip)
    if not blocks:
        raise ValueError(f"{type(model).__name__} has no linear layer to quantise")
    seen = collect(exact, [Site(b, (names[0],)) for b, names in blocks.items()], calibration)
    rows = []
    with work.shown("lrq", len(blocks)) as tick:
        for block, names in blocks.items():
            facts = _block(made, exact, block, names, calibration, job=job, learn=(rank, learning), work=work)
            x = seen[block].rows
            shape = {"channel_ratio": channel_ratio(x), "token_ratio": token_ratio(x), "kurtosis": kurtosis(x)}
            rows.append(_row(made, block, names) | shape | facts)
            tick(1)
    return made, make_report(model, made, tuple(rows), job=job, heldout=heldout, gap=0.0, began=began)


def _block(
    made: nn.Module, exact: nn.Module, block: str, names: list[str], calibration: Sequence[Any], *,
    job: Job, learn: tuple[int, Learning], work: Work,
) -> dict[str, Any]:  # fmt: skip
    """Learn one block, or take it up, and put its rounded layers in place; the errors of the report."""
    target, (rank, learning) = job.target, learn
    linears = {name: part(made, name) for name in names}
    if kept := work.load(block):
        for name in names:
            put(made, name, _kept_layer(kept, name))
        return kept[1]["report"]
    inputs, wanted = calls(made, block, calibration), _wanted(exact, block, calibration)
    learned = {
        name: Learned(linear, target.stored(linear.in_features), target.rounding, rank=rank, seed=learning.seed)
        for name, linear in linears.items()
    }
    measure = partial(_measured, made, block, names, inputs=inputs, wanted=wanted)
    nearest = measure({name: one.finished() for name, one in learned.items()})[0]
    for name, one in learned.items():
        put(made, name, one)
    learning.fit(part(made, block), inputs, wanted)
    error, weight_error = measure({name: one.finished() for name, one in learned.items()})
    count = sum(one.learned for one in learned.values())
    facts = {"error": error, "weight_error": weight_error, "error_nearest": nearest, "learned": count}
    layers = {name: part(made, name) for name in names}
    tensors = {f"{name}:{key}": value for name, one in layers.items() for key, value in one.state_dict().items()}
    work.keep(block, (tensors, {"report": facts, "layers": {name: one.facts() for name, one in layers.items()}}))
    return facts


def _kept_layer(kept: Parts, name: str) -> QuantLinear:
    layer = QuantLinear.empty(kept[1]["layers"][name])
    layer.load_state_dict({k.removeprefix(f"{name}:"): v for k, v in kept[0].items() if k.startswith(f"{name}:")})
    return layer.requires_grad_(False)


@torch.no_grad()
def _wanted(exact: nn.Module, block: str, calibration: Sequence[Any]) -> list[Tensor]:
    """The block's outputs in the full-precision model."""
    module = part(exact, block)
    return [first(module(*args, **named)) for args, named in calls(exact, block, calibration)]


def _measured(
    made: nn.Module, block: str, names: list[str], layers: dict[str, QuantLinear], *, inputs: list[Call],
    wanted: list[Tensor],
) -> tuple[float, float]:  # fmt: skip
    """Put layers in place; the block's error with and without rounding of inputs."""
    for name in names:
        put(made, name, layers[name])
    error = relative_error(part(made, block), inputs, wanted)
    acts = {name: layers[name].acts for name in names}
    for layer in layers.values():
        layer.acts = None
    exact_inputs = relative_error(part(made, block), inputs, wanted)
    for name, layer in layers.items():
        layer.acts = acts[name]
    return error, exact_inputs


def _row(made: nn.Module, block: str, names: list[str]) -> dict[str, Any]:
    layers = [part(made, name) for name in names]
    weights = sum(layer.weight.numel() for layer in layers)
    bits = sum(layer.stored.bits(layer.in_features, layer.out_features) * layer.weight.numel() for layer in layers)
    inputs, acts = sum(layer.in_features for layer in layers), layers[0].acts
    rounded = sum(layer.acts.bits(layer.in_features) * layer.in_features for layer in layers) if acts else 0.0
    return {
        "site": block, "linears": names, "bits_weights": bits / weights, "bits_acts": rounded / inputs if acts else
        None, "weights": weights, "inputs": inputs, "flops": 2 * weights, "explicit": False, "extra_bytes": 0,
        "extra_flops": sum(layer.extra_flops() for layer in layers),
    }  # fmt: skip
