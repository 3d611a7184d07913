"""Arms side by side, from the rows of an architecture sweep.

    python -m isoflop.levers.architecture._compare attention/ norms/ --out .

writes attention.csv (the runs), attention_arms.csv (what `compared` finds in them) and attention_pairs.csv (its ratios
of every arm to every other), and so on; with --over weight_decay also NAME_best.csv (`optima`) and
NAME_slopes.csv (`slopes` of the gains).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isoflop.levers.train._best_rate import moved

# Student's t that 5 % lie above, by degrees of freedom; that of nine for more, a little wide.
_T = (math.nan, 6.3138, 2.9200, 2.3534, 2.1318, 2.0150, 1.9432, 1.8946, 1.8595, 1.8331)
HELD = ("width", "depth", "tokens")  # what may tell sizes apart, where it differs
KEPT = (
    "arm", "lr", "seed", "status", "width", "depth", "params", "tokens", "flops", "weight_decay", "loss", "start_loss",
    "entropy_rate", "train_loss", "cpu_seconds",
)  # fmt: skip
LOOKED = ("gain_", "feature_", "gradient_", "sensitivity", "mean_", "variance_", "reached_")


def compared(
    rows: pd.DataFrame, *, over: str = "lr", by: Sequence[str] | None = None, first: str | None = None
) -> pd.DataFrame:
    """One row an arm and size, each arm at the value of `over` (learning rates) where its mean loss is lowest.

    by: the columns that tell sizes apart; None: width, depth and tokens, where there are several.
    best, inside: that value, at which no seed failed, and whether it is not at the end of its list
    loss, loss_sd: mean over seeds, and deviation; every other measured column: its mean there
    trains, diverges: shares of all runs of the arm whose loss came at least half-way from start_loss to the lowest
        loss of any arm at that size; or ended above start_loss or not finite
    trains_from, trains_to, trains_at: lowest and highest value, and their number, at which all seeds train
    ratio, ratio_low, ratio_high: loss above entropy_rate (0 where it is not known) over that of the arm `first` (None:
        the table's first), seed by seed: geometric mean with a 90 % interval by Student's t

    Raises ValueError where an arm has no value at which all seeds ended.
    """
    by = [c for c in HELD if c in rows and rows[c].nunique() > 1] if by is None else list(by)
    made: list[dict[str, Any]] = []
    for size, group in rows.groupby(by, sort=False) if by else [((), rows)]:
        head = dict(zip(by, size, strict=True)) if by else {}
        arms = {str(arm): part for arm, part in group.groupby("arm", sort=False)}
        best = {arm: _best(part, over, f"arm {arm}") for arm, part in arms.items()}
        lowest = min(float(b["loss"].mean()) for b in best.values())
        base = best[first or next(iter(best))]
        made += [
            {"arm": arm, **head, **_at_best(best[arm], part, over), **_trained(part, over, lowest),
             **_ratio(best[arm], base)}
            for arm, part in arms.items()
        ]  # fmt: skip
    return pd.DataFrame(made)


def pairs(rows: pd.DataFrame, **settings: Any) -> pd.DataFrame:
    """The ratios of `compared`, every arm `against` every other."""
    made = [compared(rows, first=arm, **settings).assign(against=arm) for arm in rows["arm"].unique()]
    whole = pd.concat(made, ignore_index=True)
    kept = ["arm", "against", *(c for c in HELD if c in whole), "ratio", "ratio_low", "ratio_high"]
    return whole.loc[whole["arm"] != whole["against"], kept]


def optima(rows: pd.DataFrame, *, over: str) -> pd.DataFrame:
    """The best `over` of each arm by width, and how it moves: `moved` of a sweep of learning rates, for another field.

    Rows of the arms by width (best, low, high), then one an arm (exponent: best ~ width^exponent, and its interval).
    """
    found = moved(rows.rename(columns={"arm": "parametrisation", "lr": "rate", over: "lr"}))
    best = [{"arm": b.parametrisation, "width": b.width, "best": b.lr, "low": b.low, "high": b.high, "loss": b.loss,
             "inside": b.inside} for b in found.best]  # fmt: skip
    drift = [{"arm": d.parametrisation, "exponent": d.exponent, "low": d.low, "high": d.high} for d in found.drift]
    return pd.DataFrame([*best, *drift])


def slopes(rows: pd.DataFrame, *, over: str, column: str) -> pd.DataFrame:
    """How a measured column goes with the width: column ~ width^exponent, at each value of `over`, seed by seed."""
    made = []
    for (arm, at), part in rows.groupby(["arm", over], sort=False):
        table = part.pivot_table(index="width", columns="seed", values=column)
        x = np.log(table.index.to_numpy(float))
        x = x - x.mean()
        middle, low, high = _interval((x @ np.log(table.to_numpy(float))) / (x @ x))
        made.append({"arm": arm, over: at, "of": column, "exponent": middle, "low": low, "high": high})
    return pd.DataFrame(made)


def _best(part: pd.DataFrame, over: str, where: str) -> pd.DataFrame:
    """The rows, by seed, at the value whose mean loss is lowest."""
    whole = part.groupby(over)["loss"].agg(lambda losses: losses.mean(skipna=False))
    if whole.isna().all():
        raise ValueError(f"{where}: no {over} at which all seeds ended; give lower ones")
    return part[part[over] == whole.idxmin()].set_index("seed").sort_index()


def _at_best(best: pd.DataFrame, part: pd.DataFrame, over: str) -> dict[str, Any]:
    values = sorted(part[over].unique())
    at = best[over].iloc[0]
    looked = {str(c): float(best[c].mean()) for c in best if str(c).startswith(LOOKED) and best[c].notna().all()}
    return {
        "seeds": len(best), "best": at, "inside": at not in (values[0], values[-1]), "loss": best["loss"].mean(),
        "loss_sd": best["loss"].std(), **looked, "cpu_seconds": part["cpu_seconds"].sum(),
    }  # fmt: skip


def _trained(part: pd.DataFrame, over: str, lowest: float) -> dict[str, Any]:
    start = part["start_loss"].max()
    trains = part["loss"] <= (start + lowest) / 2  # an empty loss is no training
    diverges = ~(part["loss"] <= start)
    whole = trains.groupby(part[over]).all()
    at = whole.index[whole]
    ends = (at.min(), at.max()) if len(at) else (math.nan, math.nan)
    return {"trains": trains.mean(), "diverges": diverges.mean(), "trains_from": ends[0], "trains_to": ends[1],
            "trains_at": len(at)}  # fmt: skip


def _ratio(best: pd.DataFrame, base: pd.DataFrame) -> dict[str, float]:
    floor = best.get("entropy_rate", 0.0)
    logs = np.log((best["loss"] - floor) / (base["loss"] - floor)).dropna().to_numpy(float)
    return {name: math.exp(x) for name, x in zip(("ratio", "ratio_low", "ratio_high"), _interval(logs), strict=True)}


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, and the ends of its 90 % interval by Student's t; of one value they are NaN."""
    middle, n = float(values.mean()), len(values)
    wide = float(_T[min(n, len(_T)) - 1] * values.std(ddof=1) / n**0.5) if n > 1 else math.nan
    return middle, middle - wide, middle + wide


def read_runs(folder: Path) -> pd.DataFrame:
    """The runs of a sweep's folder: the columns that say something about the arms.

    Where the model is the denoiser: `reached_step`, the first looked-at step whose held-out loss is no higher than
    where the worst seed of the first arm ends, at that arm's best rate (empty where there is none).
    """
    rows = pd.read_json(folder / "runs.jsonl", lines=True)
    if "feature_range" in rows:
        goal = _best(rows[rows["arm"] == rows["arm"].iloc[0]], "lr", "the first arm")["loss"].max()
        points = pd.read_json(folder / "curves" / "curves.jsonl", lines=True)
        reached = points[points["loss"] <= goal].groupby("run")["step"].min().rename("reached_step")
        rows = rows.merge(reached, how="left", on="run")
    kept = [c for c in (*KEPT, *(c for c in rows if str(c).startswith(LOOKED))) if c in rows]
    return rows[list(dict.fromkeys(kept))]


def main() -> None:
    """Write the tables of several sweeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--over", default="lr", help="the swept column at whose best value arms are compared")
    given = parser.parse_args()
    for folder in given.runs:
        rows = read_runs(folder)
        tables = {"": rows, "_arms": compared(rows, over=given.over), "_pairs": pairs(rows, over=given.over)}
        if given.over != "lr":
            tables["_best"] = optima(rows, over=given.over)
            gains = [c for c in map(str, rows) if c.startswith("gain_")]
            tables["_slopes"] = pd.concat([slopes(rows, over=given.over, column=c) for c in gains])
        for name, table in tables.items():
            path = given.out / f"{folder.name}{name}.csv"
            table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    main()
