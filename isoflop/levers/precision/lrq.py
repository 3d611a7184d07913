"""LRQ: learned low-rank divisors of the weights, so that each block's output survives the rounding."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from isoflop.levers.precision._apply import Job, Target, make_report
from isoflop.levers.precision._calibrate import collect
from isoflop.levers.precision._inject import channel_ratio, kurtosis, token_ratio
from isoflop.levers.precision._linear import QuantLinear
from isoflop.levers.precision._plain import part, plain, put
from isoflop.levers.precision._reconstruct import (
    Call,
    Learned,
    Learning,
    block_outputs,
    calls,
    find_blocks,
    relative_error,
)
from isoflop.levers.precision._report import Report
from isoflop.levers.precision._sites import Site
from isoflop.levers.precision._work import Parts, Work

_TARGET = Target("int4", 0)
_LEARNING = Learning(steps=100, rate=5e-3, seed=0)


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
    knobs = {"rank": rank, **asdict(learning)}
    job, made, exact = Job("lrq", target, knobs, channels=False), plain(model), plain(model)
    job.claim(work, model, calibration)
    blocks = find_blocks(made, target.skip)
    if not blocks:
        raise ValueError(f"{type(model).__name__} has no linear layer to quantise")
    seen = collect(exact, [Site(b, (names[0],)) for b, names in blocks.items()], calibration)
    wanted, done, rows = block_outputs(exact, blocks, calibration), dict[str, list[Any]](), []
    with work.shown("lrq", len(blocks)) as tick:
        for block, names in blocks.items():
            inputs = calls(made, block, calibration, done=done)
            facts = _block(made, block, names, (inputs, wanted.pop(block)), job=job, learn=(rank, learning), work=work)
            done[block] = _given_outputs(part(made, block), inputs)
            x = seen[block].rows
            shape = {"channel_ratio": channel_ratio(x), "token_ratio": token_ratio(x), "kurtosis": kurtosis(x)}
            rows.append(_row(made, block, names) | shape | facts)
            tick(1)
    return made, make_report(model, made, tuple(rows), job=job, heldout=heldout, gap=0.0, began=began)


def _block(
    made: nn.Module, block: str, names: list[str], data: tuple[list[Call], list[Tensor]], *, job: Job,
    learn: tuple[int, Learning], work: Work,
) -> dict[str, Any]:  # fmt: skip
    """Learn one block from (inputs, wanted outputs), or take it up, and put its rounded layers in place; the errors of
    the report.
    """
    target, (rank, learning) = job.target, learn
    linears = {name: part(made, name) for name in names}
    if kept := work.load(block):
        for name in names:
            put(made, name, _kept_layer(kept, name))
        return kept[1]["report"]
    learned = {
        name: Learned(linear, target.stored(linear.in_features), target.rounding, rank=rank, seed=learning.seed)
        for name, linear in linears.items()
    }
    measure = partial(_measured, made, block, data)
    nearest = measure({name: one.finished() for name, one in learned.items()})[0]
    for name, one in learned.items():
        put(made, name, one)
    steps = learning.fit(part(made, block), *data)
    layers = {name: one.finished() for name, one in learned.items()}
    error, weight_error = measure(layers)
    count = sum(one.learned for one in learned.values())
    facts = {"error": error, "weight_error": weight_error, "error_nearest": nearest, "learned": count, "steps": steps}
    tensors = {f"{name}:{key}": value for name, one in layers.items() for key, value in one.state_dict().items()}
    work.keep(block, (tensors, {"report": facts, "layers": {name: one.facts() for name, one in layers.items()}}))
    return facts


def _kept_layer(kept: Parts, name: str) -> QuantLinear:
    layer = QuantLinear.empty(kept[1]["layers"][name])
    layer.load_state_dict({k.removeprefix(f"{name}:"): v for k, v in kept[0].items() if k.startswith(f"{name}:")})
    return layer.requires_grad_(False)


@torch.no_grad()
def _given_outputs(block: nn.Module, inputs: list[Call]) -> list[Any]:
    """What the rounded block passes on, so that the blocks before the next one need not run again."""
    return [block(*args, **named) for args, named in inputs]


def _measured(
    made: nn.Module, block: str, data: tuple[list[Call], list[Tensor]], layers: dict[str, QuantLinear]
) -> tuple[float, float]:
    """Put layers in place; the block's error with and without rounding of inputs."""
    for name, layer in layers.items():
        put(made, name, layer)
    error = relative_error(part(made, block), *data)
    acts = {name: layer.acts for name, layer in layers.items()}
    if not any(acts.values()):
        return error, error
    for layer in layers.values():
        layer.acts = None
    exact_inputs = relative_error(part(made, block), *data)
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
