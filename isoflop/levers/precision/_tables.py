"""The tables of a recorded sweep: one row a run, and one row a (seed, bits, outliers) with a column for each method.

python -m isoflop.levers.precision._tables runs/ --out isoflop/recorded/quantised
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas as pd

from isoflop._lever import record

_DROPPED = (  # the same in every row, or of the machine alone
    "knobs", "width", "depth", "budget_flops", "source", "isoflop_version", "status", "perplexity", "run", "bytes",
)  # fmt: skip
_BY = ["bits_weights", "bits_acts", "outliers", "seed"]


def tables(folder: str | Path, out: str | Path) -> None:
    """Write runs.csv and wide.csv (loss_increase in nats per token by method) of a finished sweep into `out`.

    Raises ValueError where a run failed: a table of what is left would hide it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        record(folder, scratch)
        runs = pd.read_csv(Path(scratch) / "runs.csv")
    if (runs["status"] != "ok").any():
        raise ValueError(f"{folder} holds failed runs; resume the sweep first")
    runs = runs.drop(columns=[c for c in _DROPPED if c in runs]).sort_values([*_BY[:3], "label", "seed"])
    wide = runs.pivot_table(index=_BY, columns="label", values="loss_increase").reset_index()
    for name, table in (("runs", runs), ("wide", wide)):
        table.to_csv(Path(out) / f"{name}.csv", index=False, float_format="%.5g", lineterminator="\n")


def markdown(wide: pd.DataFrame) -> str:
    """Mean increase of the loss over seeds, +- half a 90 % interval (Student t), by method and bits."""
    methods = [c for c in wide.columns if c not in _BY]
    groups = list(wide.groupby(_BY[:3]))
    heads = [rows[_BY[:3]].iloc[0].tolist() for _, rows in groups]
    titles = [f"W{w:g}A{a:g}{'' if f == 1 else f' x{f:g}'}" for w, a, f in heads]
    lines = ["| method | " + " | ".join(titles) + " |", "|---|" + "---|" * len(titles)]
    for method in methods:
        cells = [_cell(rows[method].dropna()) for _, rows in groups]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


_T90 = {2: 6.314, 3: 2.920, 4: 2.353, 5: 2.132}  # two-sided 90 % quantile of Student t, by the number of seeds


def _cell(values: pd.Series) -> str:
    if values.empty:
        return ""
    if len(values) not in _T90:
        return f"{values.mean():.4f}"
    return f"{values.mean():.4f} +- {_T90[len(values)] * values.std() / len(values) ** 0.5:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", help="folder of the sweep")
    parser.add_argument("--out", required=True, help="folder for runs.csv and wide.csv")
    given = parser.parse_args()
    tables(given.runs, given.out)
    print(markdown(pd.read_csv(Path(given.out) / "wide.csv")))


if __name__ == "__main__":
    main()
