"""Batches, weight decay and instabilities on a small ladder; writes what isoflop/recorded/batch holds.

python benchmarks/batch.py --work runs/ --out isoflop/recorded/batch         # about 4 minutes on one core; resumes
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import isoflop
from isoflop.levers.train import Train
from isoflop.levers.train._batch import least_tokens

SEEDS = 3
BASE = Train(
    source="zipf_words",
    source_settings={"words": 65_536, "exponent": 1.4, "word_length": 8, "letters": 26},
    sizes=({"width": 16, "depth": 2},), context=32, warmup_steps=10, decay_fraction=0.001,
    eval_tokens=16_384, curve_tokens=4096, device="cpu", checkpoint_seconds=1e9,
)  # fmt: skip
MENDS: dict[str, dict[str, Any]] = {"plain": {}, "qk_norm": {"qk_norm": True}}


def with_rate(lever: Train, rate: float, **fields: Any) -> Train:
    return replace(lever, lr={"base": rate, "width": 16, "power": 0.0}, **fields)


def critical() -> Iterator[tuple[dict[str, Any], Train]]:
    """Constant rates at five batches, with the noise scale."""
    high = (1.6e-2, 3.2e-2, 6.4e-2)
    low = (8e-3, 1.6e-2, 3.2e-2)
    tried = ((256, low), (1024, high), (4096, high), (512, high), (2048, high), (256, (6.4e-2,)))
    lengths = {256: 2**16, 512: 3 * 2**15, 1024: 2**17, 2048: 3 * 2**16, 4096: 80 * 2**12}
    for batch, rates in tried:
        for rate in rates:
            yield {}, with_rate(BASE, rate, batch_tokens=batch, tokens=(lengths[batch],), noise_every=2)


def unstable() -> Iterator[tuple[dict[str, Any], Train]]:
    """Five rates over two decades, plain and mended."""
    for arm, fields in MENDS.items():
        for k in range(1, 6):
            lever = with_rate(BASE, 10 ** (-3 + k / 2), batch_tokens=512, tokens=(512 * 120,), watch=True, **fields)
            yield {"arm": arm}, replace(lever, schedule="cosine", sizes=({"width": 32, "depth": 2, "heads": 2},))


def adaptive() -> Iterator[tuple[dict[str, Any], Train]]:
    """One number of tokens in small batches, in large ones, and in batches that grow with the norm test."""
    grows = {"batch": "adaptive", "noise_every": 4, "batch_most": 8}
    for arm, batch, fields in (("small", 256, {}), ("large", 2048, {}), ("adaptive", 256, grows)):
        yield {"arm": arm}, with_rate(BASE, 8e-3, batch_tokens=batch, tokens=(2**17,), schedule="cosine", **fields)


def decay() -> Iterator[tuple[dict[str, Any], Train]]:
    """Weight decays at two batches, 20 tokens a parameter, rates falling to zero in a straight line."""
    for batch in (512, 2048):
        for k in range(5):
            fields = {"weight_decay": 10 ** (-1.5 + k / 2), "decay": "linear", "decay_fraction": 0.8}
            tokens = batch * round(20 * 6400 / batch)
            yield {}, with_rate(BASE, 8e-3, batch_tokens=batch, tokens=(tokens,), **fields)


EXPERIMENTS = {f.__name__: f for f in (unstable, critical, adaptive, decay)}
KEPT = ("experiment", "arm", "run", "seed", "batch_tokens", "last_batch_tokens", "updates", "tokens", "lr",
        "weight_decay", "timescale", "loss", "loss_se", "noise_scale", "unstable", "unstable_step",
        "max_attention_logit", "log_z", "seconds")  # fmt: skip
CURVE = ("experiment", "arm", "run", "seed", "batch_tokens", "lr", "step", "tokens", "loss", "noise_scale",
         "max_attention_logit", "log_z")  # fmt: skip
TARGETS = (2.2, 2.0, 1.8, 1.6)


def run(name: str, work: Path, *, seeds: int = SEEDS) -> None:
    """All sweeps of one experiment, a folder each."""
    for i, (_, lever) in enumerate(EXPERIMENTS[name]()):
        isoflop.sweep(lever, out=work / name / f"{i:03d}", seeds=seeds, progress=False)


def tables(work: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs and curves of all experiments; lr is the peak in both."""
    runs, curves = [], []
    for name, made in EXPERIMENTS.items():
        for i, (label, lever) in enumerate(made()):
            folder, facts = work / name / f"{i:03d}", {"experiment": name, "arm": "", **label}
            rows = pd.read_json(folder / "runs.jsonl", lines=True)
            points = pd.read_json(folder / "curves" / "curves.jsonl", lines=True)
            points = points.assign(**facts, seed=points["run"].map(rows.set_index("run")["seed"]))
            points = points.assign(lr=lever.lr["base"], batch_tokens=points.get("batch_tokens", lever.batch_tokens))
            for part in (rows, points):
                part["run"] = f"{name}-{i:03d}-s" + part["seed"].astype(str)
            wait = lever.batch_tokens / (lever.lr["base"] * lever.weight_decay * rows["tokens"])
            runs.append(rows.assign(**facts, weight_decay=lever.weight_decay, timescale=wait))
            curves.append(points)
    both = pd.concat(runs), pd.concat(curves)
    return both[0].reindex(columns=KEPT), both[1].reindex(columns=CURVE)


def reached(curves: pd.DataFrame) -> pd.DataFrame:
    """At each target and batch the tokens that the best rate took, and the noise scale there."""
    out = []
    for target in TARGETS:
        table = least_tokens(curves, target).assign(target=target)
        noise = [
            curve.loc[curve["loss"] <= target, "noise_scale"].iloc[0]
            for row in table.itertuples()
            for _, curve in curves[(curves["batch_tokens"] == row.batch_tokens) & (curves["lr"] == row.lr)
                                   & (curves["seed"] == row.seed)].groupby("run")
        ]  # fmt: skip
        out.append(table.assign(noise_scale=noise))
    return pd.concat(out, ignore_index=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """The critical batch of each target, its 90 % interval, the mean noise scale there, and how the best rate grows."""
    rows = []
    for target, part in table.groupby("target", sort=False):
        fit = isoflop.fit("batch_tradeoff", part, draws=400, seed=0)
        low, high = fit.interval(90)["B_crit"]
        best = part.groupby("batch_tokens")["lr"].first()
        power = np.polyfit(np.log(best.index), np.log(best), 1)[0]
        noise = part["noise_scale"].mean()
        rows.append({"target": target, "B_crit": fit.coef["B_crit"], "low": low, "high": high, "noise_scale": noise,
                     "ratio": noise / fit.coef["B_crit"], "lr_power": round(power, 6) + 0.0})  # fmt: skip
    return pd.DataFrame(rows)


def paired(runs: pd.DataFrame) -> pd.DataFrame:
    """The growing batch against the small and the large one, seed by seed."""
    part = runs[runs["experiment"] == "adaptive"].set_index(["arm", "seed"])
    loss, grown = part["loss"].unstack("arm"), part.loc["adaptive"]
    return pd.DataFrame({
        "above_small": loss["adaptive"] - loss["small"], "below_large": loss["large"] - loss["adaptive"],
        "updates_share": grown["updates"] / (grown["tokens"] / grown["batch_tokens"]),
    }).reset_index()  # fmt: skip


def best_decay(runs: pd.DataFrame) -> pd.DataFrame:
    """The best weight decay of each batch and seed: the foot of a parabola in ln decay around the least loss.

    inside is 0 where the least loss is at an end of the decays tried, which then stands for the best.
    """
    rows = []
    for (batch, seed), part in runs[runs["experiment"] == "decay"].groupby(["batch_tokens", "seed"]):
        part = part.sort_values("weight_decay").reset_index(drop=True)
        at = min(max(int(part["loss"].idxmin()), 1), len(part) - 2)
        inside, near = at == int(part["loss"].idxmin()), part.iloc[at - 1 : at + 2]
        a, b, _ = np.polyfit(np.log(near["weight_decay"]), near["loss"], 2)
        decay = float(np.exp(-b / (2 * a)) if inside else part["weight_decay"][part["loss"].idxmin()])
        tau = batch / (part["lr"][0] * decay * part["tokens"][0])
        gain = part["loss"].iloc[0] - part["loss"].min()
        rows.append({"batch_tokens": batch, "seed": seed, "weight_decay": decay, "timescale": tau,
                     "inverse": 1 / decay, "inside": int(inside), "gain": gain})  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the small runs of docs/batch.md.")
    parser.add_argument("--work", required=True, type=Path, help="folder for the sweeps, taken up where they stopped")
    parser.add_argument("--out", type=Path, help="folder for runs.csv and the curves")
    parser.add_argument("--only", choices=EXPERIMENTS, action="append", help="not all experiments")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds of each run")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.only or EXPERIMENTS:
        run(name, given.work, seeds=given.seeds)
    if given.out:
        runs, curves = tables(given.work)
        table = reached(curves[curves["experiment"] == "critical"])
        made = {"runs": runs, "curves": curves, "reached": table, "critical": summary(table),
                "paired": paired(runs), "decay": best_decay(runs)}  # fmt: skip
        for name, part in made.items():
            part.to_csv(given.out / f"{name}.csv", index=False, float_format="%.5g", lineterminator="\n")


if __name__ == "__main__":
    main()
