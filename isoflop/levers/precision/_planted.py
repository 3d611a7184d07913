"""Small experiments whose inputs are made, not trained: what a rounding does to data of a known shape.

    python -m isoflop.levers.precision._planted --out planted.csv

writes the rows of recorded/quantised/planted.csv. `error` is |y_q - y|^2 / |y|^2 of a product of 256 inputs with 64
rows of weights, 128 channels, unless the experiment says otherwise.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isoflop.levers.precision._apply import Target
from isoflop.levers.precision._blocks import Scheme, quantise
from isoflop.levers.precision._hadamard import rotate
from isoflop.levers.precision._linear import Acts
from isoflop.levers.precision._search import smooth_scale
from isoflop.levers.precision.granq import granq
from isoflop.levers.precision.llm_fp4 import llm_fp4
from isoflop.levers.precision.outlier_tune import outlier_tune
from isoflop.levers.precision.round_nearest import round_nearest

SEEDS = 5
Row = dict[str, Any]


def _tensor(x: Any) -> Tensor:
    return torch.tensor(np.asarray(x), dtype=torch.float32)


def _error(got: Tensor, wanted: Tensor) -> float:
    return float(((got - wanted) ** 2).sum().detach() / (wanted**2).sum().detach())


def runtime_smooth_rows(seed: int) -> Iterator[Row]:
    """W16A4: 8 of 256 rows have one entry 300 times larger, 4 of 128 channels are 30 times larger, or both."""
    rng = np.random.default_rng(seed)
    w = _tensor(rng.standard_normal((64, 128)))
    for data, spikes, large in (("channels", 0, 4), ("spikes", 8, 0), ("both", 8, 4)):
        x = rng.standard_normal((256, 128))
        x[:, rng.choice(128, large, replace=False)] *= 30
        x[rng.choice(256, spikes, replace=False), rng.choice(128, spikes, replace=False)] *= 300
        given, scale = _tensor(x), smooth_scale(_tensor(np.abs(x).max(0)), w.abs().amax(0), 0.5)
        acts, smoothed = Acts("int4"), Acts("int4", smooth=32)
        ways = {
            "round_nearest": acts.round(given) @ w.T,
            "smoothquant": acts.round(given / scale) @ (w * scale).T,
            "runtime_smooth_only": smoothed.round(given) @ w.T,
            "rotation": acts.round(rotate(given)) @ rotate(w).T,
            "runtime_smooth": smoothed.round(rotate(given)) @ rotate(w).T,
        }
        for method, got in ways.items():
            yield {"experiment": "runtime_smooth", "data": data, "method": method, "error": _error(got, given @ w.T)}


def format_rows(seed: int) -> Iterator[Row]:
    """W4A4 by rows, inputs and weights of one distribution: floats whose parting is searched against whole numbers."""
    rng = np.random.default_rng(seed)
    draws: dict[str, Any] = {
        "student_t3": lambda n: rng.standard_t(3, n),
        "normal": rng.standard_normal,
        "uniform": rng.random,
    }
    for data, draw in draws.items():
        linear = nn.Linear(128, 64, bias=False)
        linear.weight.data = _tensor(draw((64, 128)) - (0.5 if data == "uniform" else 0.0))
        x = _tensor(draw((256, 128)) - (0.5 if data == "uniform" else 0.0))
        model = nn.Sequential(linear)
        for method, target in (
            ("int4", Target("int4", 0, symmetric=True, acts="int4", act_range="static")),
            ("fp4_e2m1", Target("fp4_e2m1", 0, acts="fp4_e2m1", act_range="static")),
        ):
            made, _ = round_nearest(model, [x], target=target)
            yield {"experiment": "formats", "data": data, "method": method, "error": _error(made(x), model(x))}
        made, _ = llm_fp4(model, [x], target=Target("fp4_e2m1", 0, acts="fp4_e2m1"))
        yield {"experiment": "formats", "data": data, "method": "llm_fp4", "error": _error(made(x), model(x))}


def dint_rows(seed: int) -> Iterator[Row]:
    """W4A16 by rows, weights of a Student t with 5 degrees of freedom; `zeros`: share of weights rounded to 0."""
    rng = np.random.default_rng(seed)
    w, x = _tensor(rng.standard_t(5, (64, 128))), _tensor(rng.standard_normal((256, 128)))
    for method in ("int4", "dint4", "fp4_e2m1"):
        got = quantise(w, Scheme(method, 0))
        zeros = float((got == 0).float().mean())
        yield {"experiment": "dint", "method": method, "error": _error(x @ got.T, x @ w.T), "zeros": zeros}


def outlier_tune_rows(seed: int) -> Iterator[Row]:
    """W6A6: 4 of 128 channels 30 times larger, all channels off zero by up to 3 of their deviations."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((512, 128)) + rng.uniform(-3, 3, 128)
    x[:, rng.choice(128, 4, replace=False)] *= 30
    model = nn.Sequential(nn.Linear(128, 64))
    model[0].weight.data = _tensor(rng.standard_normal((64, 128)))
    fit, given = [_tensor(x[:256])], _tensor(x[256:])
    wide: dict[str, Any] = {"weights": "int6", "group": 0, "acts": "int6"}
    ways = {name: round_nearest(model, fit, target=Target(**wide, act_range=name))[0] for name in ("token", "tensor")}
    ways["outlier_tune"] = outlier_tune(model, fit, target=Target(**wide))[0]
    ways["outlier_tune_unbalanced"] = outlier_tune(model, fit, target=Target(**wide), symmetrise=False)[0]
    for method, made in ways.items():
        yield {"experiment": "outlier_tune", "method": method, "error": _error(made(given), model(given))}


def granq_rows(seed: int) -> Iterator[Row]:
    """A digits classifier (64-128-128-10, ReLU), W4: inputs at 3 bits, with one range per layer from noise that has the
    training data's mean and deviation, one range per layer as inputs come, or one per channel as they come.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    x, y = _tensor(images[order] / 16.0), torch.tensor(labels[order])
    model = _classifier(x[:1300], y[:1300], seed=seed)
    held = (x[1300:], y[1300:])
    generator = torch.Generator().manual_seed(seed)
    noise = x[:1300].mean(0) + x[:1300].std(0) * torch.randn(512, 64, generator=generator)
    low: dict[str, Any] = {"weights": "int4", "group": 0, "acts": "int3"}
    for method, (_, report) in {
        "layer_static": round_nearest(model, [noise], target=Target(**low, act_range="static"), heldout=held),
        "layer": round_nearest(model, [noise], target=Target(**low, act_range="tensor"), heldout=held),
        "granq": granq(model, [noise], target=Target(**low), heldout=held),
    }.items():
        yield {"experiment": "granq", "method": method, "accuracy": report.accuracy}
    yield {"experiment": "granq", "method": "full", "accuracy": report.accuracy_before}


def _classifier(x: Tensor, y: Tensor, *, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(600):
        batch = torch.randint(len(x), (128,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return model.eval()


EXPERIMENTS = (runtime_smooth_rows, format_rows, dint_rows, outlier_tune_rows, granq_rows)


def table() -> list[Row]:
    """One row an experiment, data, figure and seed, with a column for each method."""
    made: dict[tuple[Any, ...], Row] = {}
    for experiment in EXPERIMENTS:
        for seed in range(SEEDS):
            for row in experiment(seed):
                name, data, method = row.pop("experiment"), row.pop("data", ""), row.pop("method")
                for figure, value in row.items():
                    key = {"experiment": name, "data": data, "figure": figure, "seed": seed}
                    made.setdefault(tuple(key.values()), key)[method] = f"{value:.6g}"
    return list(made.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="CSV file to write")
    out = parser.parse_args().out
    began, rows = time.process_time(), table()
    columns = dict.fromkeys(column for row in rows for column in row)
    with open(out, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{out}: {time.process_time() - began:.0f} CPU s")


if __name__ == "__main__":
    main()
