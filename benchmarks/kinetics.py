"""Which model reaches a coverage at least cost, counted with and without memory access, from public counts.

    nice python benchmarks/kinetics.py --data ../shared/data --out FOLDER

writes cheapest.csv; isoflop/recorded/kinetics/README.md says what it holds.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from isoflop._meter import get_meter
from isoflop.levers.think._replay import replay, resampling
from isoflop.levers.think._samples import read_samples

MODELS = {  # parameters, layers, width; every head has keys and values of its own
    "pythia-70m": (70_426_624, 6, 512),
    "pythia-160m": (162_322_944, 12, 768),
    "pythia-410m": (405_334_016, 24, 1024),
    "pythia-1b": (1_011_781_632, 16, 2048),
    "pythia-2.8b": (2_775_208_960, 32, 2560),
    "pythia-6.9b": (6_857_302_016, 32, 4096),
    "pythia-12b": (11_846_072_320, 36, 5120),
}
PROMPT = 700  # tokens: four worked examples and the problem
LENGTHS = (100, 250, 500, 1000)  # tokens of a sample, which the counts do not tell
COVERAGE = (0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7)
INTENSITY = 562.5  # FLOPs that an H100 does while it reads a byte
BUDGETS = np.unique(np.geomspace(1, 10_000, 120).astype(int))
DRAWS = 40


def curves(path):
    """Coverage (draws, budgets) of each model; draw 0 has every problem once, the others resample them alike."""
    table = pd.read_csv(path)
    out = {}
    for model, rows in table.groupby("model"):
        curve = replay(read_samples(rows.sort_values("problem")), strategies=["coverage"], budgets=BUDGETS)["coverage"]
        weight = resampling(curve.cluster, DRAWS, 0)
        out[model] = np.vstack([curve.accuracy, weight @ curve.value])
    return out


def costs(model, samples, length, intensity):
    """FLOPs of so many samples of so many tokens."""
    params, depth, width = MODELS[model]
    return get_meter("kinetics_flops")(
        params=params, prompt_tokens=PROMPT, gen_tokens=length, depth=depth, width=width, kv_width=width,
        samples=samples, intensity=intensity,
    )  # fmt: skip


def cheapest(needed, length, intensity):
    """The cheapest model, its samples and its cost."""
    price = {m: float(costs(m, n, length, intensity)) for m, n in needed.items()}
    best = min(price, key=price.get)
    return best, needed[best], price[best]


def rows_of(coverage):
    """A row per length, coverage and draw."""
    for length in LENGTHS:
        for goal in COVERAGE:
            for draw in range(DRAWS + 1):
                reached = {m: c[draw] for m, c in coverage.items() if c[draw][-1] >= goal}
                needed = {m: float(np.exp(np.interp(goal, c, np.log(BUDGETS)))) for m, c in reached.items()}
                plain, n, _ = cheapest(needed, length, 0.0)
                counted, k, price = cheapest(needed, length, INTENSITY)
                yield {
                    "gen_tokens": length, "coverage": goal, "draw": draw,
                    "params_flops": MODELS[plain][0], "samples_flops": round(n, 1),
                    "params_kinetics": MODELS[counted][0], "samples_kinetics": round(k, 1),
                    "memory": round(1 - float(costs(counted, k, length, 0.0)) / price, 3),
                }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    made = pd.DataFrame(rows_of(curves(given.data / "repeated-sampling" / "math_10k.csv")))
    made.to_csv(given.out / "cheapest.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
