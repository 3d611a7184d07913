"""Do 90 % intervals hold the truth? Every law, planted with its own coefficients, over 200 noisy data sets.

    python benchmarks/coverage.py [--data-sets 200] [--law NAME ...] [--json FILE]

Each data set: 20 rows a coefficient, log-spaced over the law's usual span, 1 % scatter (lognormal under log
objectives), 200 bootstrap draws. Prints the share of data sets whose 90 % interval holds each planted coefficient;
with n data sets that share is known to about 1.96 sqrt(.09 / n), 4 points for 200. Exit 1 where a share is outside
85 to 95 % by more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one process a core instead

import numpy as np

from isoflop import _find
from isoflop._check import coverage, plant_coefs, plant_columns
from isoflop._law import get_law


def part(name: str, data_sets: int, seed: int, noise: float) -> dict[str, float]:
    """Counts of held intervals for some of a law's data sets."""
    law = get_law(name)
    design = plant_columns(law, np.random.default_rng(0))
    truth = plant_coefs(law, design)
    held = coverage(law, design, truth, noise=noise, data_sets=data_sets, seed=seed)
    return {c: share * data_sets for c, share in held.items()}


def main() -> int:
    """Count, print a table, and say what is outside."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=200)
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument("--law", action="append", choices=_find.names("laws"))
    parser.add_argument("--json")
    args = parser.parse_args()
    chunk = 10
    margin = 1.96 * (0.9 * 0.1 / args.data_sets) ** 0.5
    results, outside = {}, []
    with ProcessPoolExecutor() as pool:
        for name in args.law or _find.names("laws"):
            began = time.perf_counter()
            jobs = [pool.submit(part, name, chunk, seed, args.noise) for seed in range(args.data_sets // chunk)]
            counts = [job.result() for job in jobs]
            shares = {c: sum(k[c] for k in counts) / (chunk * len(jobs)) for c in counts[0]}
            outside += [f"{name}.{c}" for c, v in shares.items() if not 0.85 - margin <= v <= 0.95 + margin]
            results[name] = shares
            words = "  ".join(f"{c} {100 * v:.1f}" for c, v in shares.items())
            print(f"{name:<18} {words}   ({time.perf_counter() - began:.0f} s)", flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"data_sets": args.data_sets, "noise": args.noise, "coverage": results}, file, indent=1)
    print(
        f"share of {args.data_sets} data sets whose 90 % interval holds the planted value, in %; "
        f"{len(outside)} outside 85 to 95 by more than {100 * margin:.1f}"
        + (f": {', '.join(outside)}" if outside else "")
    )
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
