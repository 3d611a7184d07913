"""One more round of the recorded grid of quantised trainings, its runs chosen by `next_runs`.

    python benchmarks/qat_next.py --runs isoflop/recorded/qat/runs.csv --more more.csv --seconds 400

fits `qat_error` to the increases of 3-bit weights and inputs in both files, asks which further runs narrow its forecast
most at two far points, half of the processor seconds each, makes them, each with its plain partner, and appends every
run to `more.csv` as it ends; increases.csv beside it then has all increases. Call it again for another round; with
--seconds 0 there is none.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import isoflop
from isoflop._lever import run_id
from isoflop.levers.precision.training.qat import Qat, increases

BITS, GROUPS = 3, (4, 8, 16, 32, 64)
TOKENS = [2**k for k in range(15, 21)]
FAR = ({"params": 1e6, "tokens": 1e7, "group_size": 64}, {"params": 1e4, "tokens": 1e7, "group_size": 16})
SAME = ["width", "tokens", "bits_weights", "bits_acts", "group_size", "seed"]


def read(paths: list[Path]) -> pd.DataFrame:
    """All runs so far."""
    return pd.concat([pd.read_csv(p) for p in paths if p.exists()], ignore_index=True)


def candidates(runs: pd.DataFrame) -> pd.DataFrame:
    """Settings to choose from; `flops` is what a run and its plain partner take, in processor seconds as measured."""
    rows = []
    for width, part in runs.groupby("width"):
        low = part["bits_acts"] == BITS
        each = sum((p["cpu_seconds"] / p["tokens"]).median() for p in (part[low], part[part["bits_weights"] == 16]))
        params = part["params"].iloc[0]
        rows += [{"params": params, "tokens": t, "group_size": g, "flops": each * t, "width": width}
                 for t, g in itertools.product(TOKENS, GROUPS) if g <= width]  # fmt: skip
    return pd.DataFrame(rows)


def chosen(runs: pd.DataFrame, *, seconds: float) -> Iterator[dict[str, Any]]:
    """Settings of the next runs, with their seeds: those that the setting has not had."""
    low = increases(runs).query(f"bits_acts == {BITS}")
    fit = isoflop.fit("qat_error", low, objective="squares", draws=200, seed=0)
    print(fit, flush=True)
    pool, taken = candidates(runs), {}
    for about in FAR:
        found = isoflop.next_runs(fit, budget=seconds / len(FAR), about=about, k=6, candidates=pool, kind="law")
        print(found.table(), flush=True)
        for run in found.runs:
            at = {k: int(v) for k, v in run.columns.items()}
            width = int(pool.loc[pool["params"] == at.pop("params"), "width"].iloc[0])
            key = (width, *at.values())
            had = len(low.query(f"width == {width} and tokens == {key[1]} and group_size == {key[2]}"))
            for _ in range(run.seeds):
                yield {"width": width, **at, "seed": had + taken.get(key, 0)}
                taken[key] = taken.get(key, 0) + 1


def made(sweep: Path, choice: dict[str, Any], runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The quantised run of a choice, after its plain partner where there is none yet."""
    train = tomllib.loads(sweep.read_text(encoding="utf-8"))["train"]
    train |= {"sizes": ({"width": choice["width"], "depth": 2},), "tokens": (choice["tokens"],)}
    for setting in Qat(train=train, cells=((16, 16, 0), (BITS, BITS, choice["group_size"]))).ladder():
        key = setting | {"seed": choice["seed"]}
        if not (runs[SAME] == [key[c] for c in SAME]).all(axis=1).any():
            row = Qat(train=train, cells=((16, 16, 0),)).run(setting, seed=choice["seed"])
            row.pop("curve")
            yield {
                "run": run_id(setting, seed=choice["seed"]),
                **setting,
                **row,
                "seed": choice["seed"],
                "status": "ok",
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", required=True, type=Path, help="the recorded grid, with sweep.toml beside it")
    parser.add_argument("--more", required=True, type=Path, help="further runs, appended to")
    parser.add_argument("--seconds", type=float, default=400.0, help="processor seconds of the round")
    given = parser.parse_args()
    torch.set_num_threads(1)
    began, paths = time.process_time(), [given.runs, given.more]
    for choice in list(chosen(read(paths), seconds=given.seconds)) if given.seconds else ():
        for row in made(given.runs.parent / "sweep.toml", choice, read(paths)):
            frame = pd.DataFrame([row])
            frame.to_csv(given.more, mode="a", header=not given.more.exists(), index=False, float_format="%.7g")
            print(json.dumps({k: row[k] for k in (*SAME, "loss", "cpu_seconds")}, default=float), flush=True)
    table = increases(read(paths)).query(f"bits_acts == {BITS}")
    columns = ["width", "params", "tokens", "group_size", "seed", "loss_increase"]
    table[columns].to_csv(given.more.with_name("increases.csv"), index=False, float_format="%.6g", lineterminator="\n")
    print(f"{time.process_time() - began:.0f} CPU s")


if __name__ == "__main__":
    main()
