"""What the recorded experiments share: seeds in, one CSV file a table out."""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def main(about: str | None, experiment: Callable[[int], Iterable[tuple[str, Row]]], *, seeds: int) -> None:
    """The command line of an experiment, whose rows of a seed come with the name of their table: --out FOLDER."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder for the CSV files")
    out, began = parser.parse_args().out, time.process_time()
    tables: dict[str, list[Row]] = {}
    for seed in range(seeds):
        for name, row in experiment(seed):
            tables.setdefault(name, []).append(row)
    for name, rows in tables.items():
        write(rows, out / f"{name}.csv")
    print(f"{', '.join(tables)}: {time.process_time() - began:.0f} CPU s")


def write(rows: list[Row], path: Path) -> None:
    """Rows with the same columns as CSV, numbers to six digits."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
