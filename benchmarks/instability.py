"""A softmax that rounds to 0, output logits that drift, what mends them, and the largest stable rates by batch.

python benchmarks/instability.py --out isoflop/recorded/instability      # about 4 minutes on one core
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.levers.train._design import Design
from isoflop.levers.train._losses import LOSSES, z_loss
from isoflop.levers.train._mlp import MLP, digits
from isoflop.levers.train._optim import perp_grad
from isoflop.levers.train._watch import watched

SEEDS = 5  # of modular addition; the drift has three
MODULUS, WIDTH, SHARE, RATE, STEPS, EVERY = 31, 128, 0.6, 0.01, 1500, 10
ARMS = ("softmax", "softmax_float64", "stablemax", "perp_grad", "weight_decay")


class Adder(nn.Module):
    """Pairs (rows, 2) below the modulus -> logits of what follows, (rows, 1, modulus); squares between two layers."""

    def __init__(self, *, seed: int, kind: torch.dtype) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first, self.second = (
            nn.Parameter((torch.randn(rows, columns, generator=generator) / rows**0.5).to(kind))
            for rows, columns in ((2 * MODULUS, WIDTH), (WIDTH, MODULUS))
        )

    def forward(self, pairs: Tensor) -> Tensor:
        hidden = self.first[pairs[:, 0]] + self.first[MODULUS + pairs[:, 1]]
        return (hidden.square() @ self.second)[:, None]


def sums(seed: int) -> tuple[Tensor, Tensor]:
    """Rows (a, b, (a + b) mod the modulus): those to train on, and those left out."""
    numbers = torch.arange(MODULUS)
    pairs = torch.cartesian_prod(numbers, numbers)
    rows = torch.cat((pairs, pairs.sum(dim=1, keepdim=True) % MODULUS), dim=1)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(1000 + seed))]
    cut = int(SHARE * len(rows))
    return rows[:cut], rows[cut:]


@torch.no_grad()
def accuracy(model: Adder, rows: Tensor) -> float:
    return float((model(rows[:, :2])[:, 0].argmax(dim=1) == rows[:, 2]).double().mean())


def train(arm: str, seed: int) -> pd.DataFrame:
    """Full batches by AdamW; what the watch says of the training rows, and accuracies, every so many steps."""
    model = Adder(seed=seed, kind=torch.float64 if arm == "softmax_float64" else torch.float32)
    decay = 1.0 if arm == "weight_decay" else 0.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=decay)
    loss_of = LOSSES["stablemax" if arm == "stablemax" else "softmax"]
    rows, rest = sums(seed)
    curve: list[dict[str, Any]] = []
    began = time.process_time()
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            seen = {"fitted": accuracy(model, rows), "accuracy": accuracy(model, rest), **watched(model, rows)}
            curve.append({"arm": arm, "seed": seed, "step": step, **seen})
        optimizer.zero_grad()
        loss_of(model(rows[:, :2])[:, 0], rows[:, 2]).mean().backward()
        if arm == "perp_grad":
            perp_grad(model.parameters())
        optimizer.step()
    return pd.DataFrame(curve).assign(cpu_seconds=time.process_time() - began)


def first(curve: pd.DataFrame, column: str, least: float) -> float:
    """The first step at which a column is at least so much; NaN where it never is."""
    return float(curve.loc[curve[column] >= least, "step"].min())


def ends(curves: pd.DataFrame) -> pd.DataFrame:
    """A row a training: its end, and the steps at which it fitted all, knew half of the rest, and was lost."""
    rows = []
    for (arm, seed), curve in curves.groupby(["arm", "seed"], sort=False):
        last = curve.iloc[-1]
        rows.append({"arm": arm, "seed": seed, **{k: last[k] for k in ("fitted", "accuracy", "lost", "max_logit")},
                     "fitted_step": first(curve, "fitted", 1.0), "half_step": first(curve, "accuracy", 0.5),
                     "lost_step": first(curve, "lost", 0.5), "cpu_seconds": last["cpu_seconds"]})  # fmt: skip
    return pd.DataFrame(rows)


TOKENS, STREAM, DRIFT_STEPS, DRIFT_EVERY = 256, 32, 4000, 100
DRIFT_ARMS = {  # peak rate, weight of the z-loss, weight decay
    "low_rate": (0.01, 0.0, 0.0), "high_rate": (0.1, 0.0, 0.0), "z_loss": (0.1, 1e-4, 0.0),
    "z_loss_large": (0.1, 1e-2, 0.0), "decay": (0.1, 0.0, 0.1),
}  # fmt: skip


class Bigram(nn.Module):
    """Tokens (rows, 1) -> logits of the next, (rows, 1, TOKENS): a table, RMSNorm with a gain, a readout."""

    def __init__(self, *, generator: torch.Generator) -> None:
        super().__init__()
        self.table, self.readout = (
            nn.Parameter(torch.randn(TOKENS, STREAM, generator=generator) * 0.02) for _ in range(2)
        )
        self.gain = nn.Parameter(torch.ones(STREAM))

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(F.rms_norm(self.table[tokens], (STREAM,), self.gain), self.readout)


def followers(generator: torch.Generator) -> Tensor:
    """p(next | token) ~ r^-1.2 s^-0.6: r the next token's rank, s one drawn for each token before it."""
    rank = torch.arange(1, TOKENS + 1) ** -1.2
    own = torch.stack([rank[torch.randperm(TOKENS, generator=generator)] for _ in range(TOKENS)]).sqrt()
    return rank * own / (rank * own).sum(dim=1, keepdim=True)


def drift(arm: str, seed: int) -> pd.DataFrame:
    """AdamW (betas .9, .95) at a constant rate on 32 pairs a step; log Z, logits, and nats above the entropy."""
    rate, z, decay = DRIFT_ARMS[arm]
    generator = torch.Generator().manual_seed(seed)
    model, law = Bigram(generator=generator), followers(generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=decay)
    tokens, curve, began = torch.arange(TOKENS)[:, None], [], time.process_time()
    for step in range(DRIFT_STEPS + 1):
        if step % DRIFT_EVERY == 0:
            with torch.no_grad():
                logits = model(tokens)[:, 0]
            excess = float((law * (law.log() - logits.log_softmax(dim=1))).sum(dim=1).mean())
            seen = watched(model, torch.cat((tokens, tokens), dim=1))
            curve.append({"arm": arm, "seed": seed, "step": step, "excess": excess, "mean_logit": float(logits.mean()),
                          "log_z": seen["log_z"], "max_logit": seen["max_logit"]})  # fmt: skip
        before = torch.randint(TOKENS, (32, 1), generator=generator)
        after = torch.multinomial(law[before[:, 0]], 1, generator=generator)[:, 0]
        logits = model(before)[:, 0]
        optimizer.zero_grad()
        (F.cross_entropy(logits, after) + z * z_loss(logits)).backward()
        optimizer.step()
    return pd.DataFrame(curve).assign(cpu_seconds=time.process_time() - began)


def drifted(curves: pd.DataFrame) -> pd.DataFrame:
    """A row a training: the least log Z, its mean and that of the loss over the last quarter, the largest logit."""
    late = curves[curves["step"] > 0.75 * DRIFT_STEPS].groupby(["arm", "seed"], sort=False)
    least = curves.groupby(["arm", "seed"], sort=False)["log_z"].min().rename("least_log_z")
    return pd.concat(
        [least, late[["log_z", "excess", "mean_logit", "max_logit", "cpu_seconds"]].mean()], axis=1
    ).reset_index()


OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
BATCHES = (2, 8, 32, 128, 512)


def learns(optimizer: str, batch: int, rate: float, *, seed: int, steps: int = 100) -> bool:
    """Whether an MLP of two hidden layers of 64 ends below .8 ln 10 nats on all digits: a dead one is at ln 10."""
    images, labels = digits()
    model = MLP(Design(), width=64, depth=2, seed=seed)
    chosen = OPTIMIZERS[optimizer](model.parameters(), lr=rate)
    drawn = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        picked = torch.randint(len(images), (batch,), generator=drawn)
        chosen.zero_grad()
        F.cross_entropy(model(images[picked]), labels[picked]).backward()
        chosen.step()
    with torch.no_grad():
        return bool(F.cross_entropy(model(images), labels) < 0.8 * np.log(10))


def largest(optimizer: str, batch: int, *, seed: int, halvings: int = 9) -> float:
    """The largest rate at which it learns, between 1e-4 and 100 and to 3 %, by bisection in its logarithm."""
    low, high = np.log([1e-4, 100.0])
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if learns(optimizer, batch, float(np.exp(middle)), seed=seed) else (low, middle)
    return float(np.exp((low + high) / 2))


def stable(seeds: int = 3) -> pd.DataFrame:
    """The largest stable rate of each optimiser, batch and seed."""
    return pd.DataFrame([
        {"optimizer": name, "batch": batch, "seed": seed, "lr": largest(name, batch, seed=seed)}
        for name in OPTIMIZERS for batch in BATCHES for seed in range(seeds)
    ])  # fmt: skip


def half(made: pd.DataFrame) -> pd.DataFrame:
    """The arms in which every seed came to know half of the rest, a column each: the step at which it did."""
    return made.pivot(index="seed", columns="arm", values="half_step").dropna(axis=1).reset_index()


def thin(curves: pd.DataFrame, every: int) -> pd.DataFrame:
    """Some rows of the curves, without what has no value in them."""
    return curves[curves["step"] % every == 0].drop(columns="cpu_seconds").dropna(axis=1, how="all")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the small runs of docs/batch.md on modular addition.")
    parser.add_argument("--out", required=True, type=Path, help="folder for the tables")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds of each arm")
    parser.add_argument("--only", choices=("grokking", "drift", "stable"), help="one experiment")
    given = parser.parse_args()
    torch.set_num_threads(1)
    made: dict[str, pd.DataFrame] = {}
    if given.only in (None, "grokking"):
        curves = pd.concat([train(arm, seed) for arm in ARMS for seed in range(given.seeds)])
        made |= {"grokking": ends(curves), "half": half(ends(curves)), "grokking_curves": thin(curves, 5 * EVERY)}
    if given.only in (None, "stable"):
        made["stable"] = stable()
    if given.only in (None, "drift"):
        curves = pd.concat([drift(arm, seed) for arm in DRIFT_ARMS for seed in range(3)])
        made |= {"drift": drifted(curves), "drift_curves": thin(curves, DRIFT_EVERY)}
    for name, table in made.items():
        table.to_csv(given.out / f"{name}.csv", index=False, float_format="%.5g", lineterminator="\n")


if __name__ == "__main__":
    main()
