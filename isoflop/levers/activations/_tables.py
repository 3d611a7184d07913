"""The tables of recorded/activations with one row a seed, from the sweeps' folders and the experiments' CSV files.

    python -m isoflop.levers.activations._tables --functions functions/ --start-unit start_unit/ --out .

--out is the folder that holds ood_digits.csv, controller.csv, hypernetwork.csv, sae.csv and ssl.csv already.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import isoflop
from isoflop._lever import _read_lines

_EARLY = 114_688  # tokens: from here on the loss has left its first plateau
_WEIGHTS = {0.0: "without", 0.1: "light", 1.0: "heavy"}
_ASKED = 64  # width of the perceptrons that are also trained with the energy in their loss
_SERIES = ("massive_ratio", "read_ratio_injected")
Frame = pd.DataFrame


def checkpoints(folder: Path) -> Frame:
    """A row a checkpoint, with the function and the seed of its run."""
    runs = Frame(_read_lines(folder / "runs.jsonl")[0])[["run", "function", "seed", "cpu_seconds"]]
    curves = Frame(_read_lines(folder / "curves" / "curves.jsonl")[0])
    whole = runs.merge(curves, on="run").drop(columns="run")
    return whole[["function", "seed", *(c for c in whole.columns if c not in ("function", "seed"))]]


def functions_by_seed(rows: Frame) -> Frame:
    """Both functions side by side: at the end, and `_early`."""
    at = {t: rows[rows.tokens == t].pivot(index="seed", columns="function") for t in sorted(rows.tokens.unique())}
    first, early, end = at[min(at)], at[_EARLY], at[max(at)]
    made: dict[str, Any] = {}
    for f in ("relu", "silu"):
        made |= {
            f"{f}_ratio": end["activation_ratio"][f], f"{f}_ratio_early": early["activation_ratio"][f],
            f"{f}_loss": end["loss"][f], f"{f}_massive_ratio": end["massive_ratio"][f],
            f"{f}_massive": end["massive"][f], f"{f}_cpu_seconds": end["cpu_seconds"][f],
        }  # fmt: skip
    made |= {"relu_nonzero": end["nonzero"]["relu"], "relu_nonzero_early": first["nonzero"]["relu"]}
    return Frame(made).reset_index()


def emergence(rows: Frame) -> Frame:
    """The five-parameter curve fitted to the checkpoints of all seeds of a function: its coefficients with their 90 %
    intervals, R2, and the mean ratio at the last checkpoint, forecast from the first two thirds of the steps in log."""
    return Frame([
        {"function": function, "series": series, **row}
        for function, run in rows.groupby("function")
        for series in _SERIES
        for row in _emerged(run, series)
    ])  # fmt: skip


def _emerged(run: Frame, series: str) -> Iterator[dict[str, Any]]:
    fitted = partial(isoflop.fit, "massive_activations", axis="step", target=series, draws=100, seed=0)
    whole, (first, end) = fitted(run), (run.step.min(), run.step.max())
    for name, (low, high) in whole.interval(90).items():
        yield {"figure": name, "value": whole.coef[name], "low": low, "high": high}
    left = run[series] - whole.predict(step=run.step.to_numpy())
    yield {"figure": "r2", "value": 1 - float((left**2).mean() / run[series].var(ddof=0))}
    early = fitted(run[run.step <= first * (end / first) ** (2 / 3)])
    said = early.forecast(step=float(end), kind="law")[series]
    low, high = said.interval(90)
    yield {
        "figure": "forecast", "value": said.median, "low": low, "high": high,
        "observed": run[run.step == end][series].mean(),
    }  # fmt: skip


def ssl_by_seed(rows: Frame) -> Frame:
    """Of the runs without labels: whether the last layer is the most diverse, the slope of its diversity in ln width at
    the end, how it and the error changed from the first epoch to the last, and what the energy in the loss did."""
    made = []
    for seed, run in rows.groupby("seed"):
        plain, end = run[(run.weight == 0) & (run.epoch > 0)], run[run.epoch == run.epoch.max()]
        above = (plain.diversity_3 - plain[["diversity_1", "diversity_2"]].max(axis=1)).groupby(plain.epoch).mean()
        ends = end[end.weight == 0]
        begun = plain[plain.epoch == plain.epoch.min()].set_index("width")
        by_weight = end[end.width == _ASKED].set_index("weight")
        made.append({
            "seed": seed, "above_others_first": above.iloc[0], "above_others_last": above.iloc[-1],
            "slope": np.polyfit(np.log(ends.width), ends.diversity_3, 1)[0],
            **{f"{c}_change": (ends.set_index("width")[c] - begun[c]).mean() for c in ("diversity_3", "error")},
            **{f"{c}_{k}": by_weight[c][w] for w, k in _WEIGHTS.items() for c in ("diversity_3", "error")},
            "cpu_seconds": run.groupby(["width", "weight"]).cpu_seconds.max().sum(),
        })  # fmt: skip
    return Frame(made)


def start_units(folder: Path) -> Frame:
    """The runs with and without a planted activation."""
    keep = ("start_unit", "seed", "loss", "loss_zero", "loss_mean", "mean", "massive", "massive_ratio", "sink_share",
            "activation_ratio", "params", "tokens", "flops", "cpu_seconds")  # fmt: skip
    return Frame(_read_lines(folder / "runs.jsonl")[0])[list(keep)]


def scores_by_seed(rows: Frame) -> Frame:
    """Mean AUROC over the kinds of other data, a column a score; FPR@95 of four of them; after five more epochs."""
    mean = rows.groupby(["net", "seed", "tuned", "score"])[["auroc", "fpr95"]].mean().unstack()
    first = mean.xs("no", level="tuned")
    made = first["auroc"].copy()
    for tuned in ("plain", "ish"):
        for score in ("energy", "scale"):
            made[f"{tuned}_{score}"] = mean.xs(tuned, level="tuned")["auroc"][score]
    about = rows[rows.tuned == "no"].groupby(["net", "seed"])
    made["premise"], made["accuracy"] = about.premise.first(), about.accuracy.first()
    for score in ("energy", "scale", "adascale_a", "adascale_l"):
        made[f"fpr95_{score}"] = first["fpr95"][score]
    made["cpu_seconds"] = rows.groupby(["net", "seed"]).cpu_seconds.max()
    return made.reset_index()


def steering_by_seed(controller: Frame, hypernetwork: Frame) -> Frame:
    """Controller against constant strength, hypernetworks against means."""
    one = controller.pivot(index="seed", columns="method")
    name = hypernetwork.method + hypernetwork.styles.map(lambda n: f"_{n}" if n else "")
    two = hypernetwork.assign(name=name).pivot(index="seed", columns="name", values="kl")
    made = {
        "target_before": one["target"]["none"], "target": one["target"]["controller"],
        "benign_kl": one["benign_kl"]["controller"], "constant_kl": one["benign_kl"]["constant"],
    }  # fmt: skip
    return Frame(made).join(two.add_prefix("kl_")).reset_index()


def dead_by_seed(sae: Frame) -> Frame:
    """Dead share and error of the largest autoencoders with the auxiliary loss and without it."""
    large = sae[sae.latents == sae.latents.max()].pivot(index=["seed", "active_latents"], columns="auxiliary")
    made = {f"{c}_{word}": large[c][k] for c in ("dead", "mse") for k, word in ((1, "with"), (0, "without"))}
    return Frame(made).reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--functions", required=True, type=Path)
    parser.add_argument("--start-unit", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    told = parser.parse_args()
    rows = checkpoints(told.functions)
    read = {
        name: pd.read_csv(told.out / f"{name}.csv")
        for name in ("ood_digits", "controller", "hypernetwork", "sae", "ssl")
    }
    tables = {
        "functions": rows.drop(columns="cpu_seconds"),
        "functions_seeds": functions_by_seed(rows),
        "emergence": emergence(rows),
        "start_unit": start_units(told.start_unit),
        "ood_seeds": scores_by_seed(read["ood_digits"]),
        "steering_seeds": steering_by_seed(read["controller"], read["hypernetwork"]),
        "dead_seeds": dead_by_seed(read["sae"]),
        "ssl_seeds": ssl_by_seed(read["ssl"]),
    }
    for name, table in tables.items():
        table.to_csv(told.out / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    main()
