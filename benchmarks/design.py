"""Does the design save compute? next_runs against an equal ladder, the largest affordable run, and chance.

    python benchmarks/design.py [--replicates 20] [--refits 20] [--only plant|replay] [--data DIR] [--json FILE]

plant: a law with known coefficients, 14 small runs with 0.7 % scatter; each way spends a budget on at most 6 further
runs, chosen from the fit alone. sd: standard deviation of the target, four decades above, that the runs lead to by the
law's information at the planted coefficients, over the same before: free of the luck of one refit. saves: how many
times the compute the ladder needs for the same sd, from its own curve over budgets. At one budget the law is also
fitted again: width of its 90 % interval and error at the target, both over those before.
replay: rows of a public table; 12 of the cheaper half are known, the rest of what lies below the held-out largest runs
is the pool that each way may reveal from; width and error at the held-out runs.

All are geometric means over replicates (replay, last rows: over tables), brackets hold 90 % of their bootstrap. Errors
have a floor of half the scatter of a run. "design": next_runs that trusts the form (kind="law"), "design, form": one
that counts with it being wrong beyond the rows (kind="run"). Exit code 0.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import isoflop
from isoflop._beliefs import beliefs
from isoflop._design import _candidates, choose
from isoflop._fit import fitted, prepare
from isoflop._law import get_law
from isoflop._runs import load

NOISE, RUNS, DRAWS = 0.007, 6, 120
BUDGETS = (3e18, 1e19, 3e19, 1e20)
WAYS = ("design", "design, form", "ladder", "largest", "random")
REFITTED = 1  # of the budgets: where the law is fitted again
PLANTS = {
    "chinchilla": {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28},
    "kaplan": {"Nc": 6.4e13, "Dc": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103},
    "power_offset": {"E": 1.7, "A": 1500.0, "alpha": 0.16},
    "data_constrained": {"E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.353, "beta": 0.353, "R_N": 5.31, "R_D": 15.39},
}
ONE_COLUMN = {"power_offset": "flops"}


def first_rows(name: str, law, rng) -> dict[str, np.ndarray]:
    """Fourteen small runs: 1e16 to 1e18 FLOPs about 20 tokens a parameter."""
    c = np.geomspace(1e16, 1e18, 14)
    ratio = 20 * 4 ** rng.uniform(-1, 1, 14)
    n = np.sqrt(c / 6 / ratio)
    rows = {"params": n, "tokens": c / 6 / n, "flops": c}
    if "unique" in law.table_columns:
        rows["unique"] = rows["tokens"] / rng.choice([1, 2, 4, 16, 40], 14)
    return rows


def target_of(law) -> dict[str, float]:
    """Four decades above the largest first run."""
    c = 1e22
    n = float(np.sqrt(c / 120))
    at = {"params": n, "tokens": 20 * n, "flops": c, "unique": 5 * n}
    return {k: at[k] for k in law.table_columns}


def measured(law, truth, rows, rng):
    """The rows with a loss, 0.7 % lognormal."""
    value = law(**{c: rows[c] for c in law.table_columns}, **truth)
    return rows | {"loss": value * np.exp(NOISE * rng.standard_normal(len(value)))}


def refit(law, rows):
    """A fit without the record of its rolling forecasts, which only the first one needs."""
    return fitted(prepare(law, rows), law=law, draws=DRAWS, seed=0, by=None)


def picked(way: str, fit, at, pool, budget: float, rng, once: bool = False) -> np.ndarray:
    """Candidates that one way spends the budget on."""
    cost = pool["flops"]
    if way.startswith("design"):
        known = beliefs(fit, at, {c: pool[c] for c in fit.law.table_columns}, kind="run" if "form" in way else "law")
        return np.array(choose(known, cost, budget=budget, k=RUNS, once=once), int)
    if way == "random":
        picks, left = [], budget
        for c in rng.permutation(len(cost)):
            if cost[c] <= left and len(picks) < RUNS:
                picks.append(c)
                left -= cost[c]
        return np.array(picks, int)
    usual = np.abs(np.log(pool["tokens"] / pool["params"] / 20)) if "tokens" in pool and "params" in pool else 0 * cost
    fresh = np.log(pool["tokens"] / pool["unique"]) if "unique" in pool else 0 * cost
    wanted = [budget] if way == "largest" else budget * _ladder_shares()
    picks = []
    for amount in wanted:
        off = np.abs(np.log(cost / amount)) * 3 + usual + fresh + 1e6 * (cost > amount * 1.0001)
        if once and picks:
            off[picks] = np.inf
        c = int(np.argmin(off))
        if np.isfinite(off[c]) and off[c] < 1e6:
            picks.append(c)
    return np.array(picks, int)


def _ladder_shares() -> np.ndarray:
    """Six budgets a factor two apart that add up to one."""
    steps = 2.0 ** np.arange(RUNS)
    return steps / steps.sum()


def width_error(fit, at: dict, truth: np.ndarray) -> tuple[float, float]:
    """Mean log width of the 90 % interval of the law over the points, and mean |log error| of its best fit."""
    draws = np.log(np.maximum(fit.predict_draws(**at), 1e-9))
    low, high = np.percentile(draws, [5, 95], axis=0)
    error = np.abs(np.log(fit.predict(**{c: np.atleast_1d(v) for c, v in at.items()}) / truth))
    return float(np.mean(high - low)), float(np.mean(error))


def information(law, truth: dict, rows) -> np.ndarray:
    """Derivatives of the log target in the logs of the coefficients, over the scatter, (coefficients, rows)."""

    def logs(change: dict) -> np.ndarray:
        return np.log(law(**{c: np.asarray(rows[c]) for c in law.table_columns}, **(truth | change)))

    step = 1e-4
    slopes = [logs({c: v * np.exp(step)}) - logs({c: v * np.exp(-step)}) for c, v in truth.items()]
    return np.array(slopes) / (2 * step * NOISE)


def plant(name: str, replicates: int, refits: int) -> dict:
    """For each way (budgets, replicates, 3): log of sd, width and error over those at the start; nan: not fitted."""
    law = get_law(name, axis=ONE_COLUMN.get(name))
    truth, at = PLANTS[name], target_of(law)
    real = np.atleast_1d(law(**at, **truth))
    towards = information(law, truth, {c: np.atleast_1d(v) for c, v in at.items()})[:, 0]
    out = {w: np.full((len(BUDGETS), replicates, 3), np.nan) for w in WAYS}
    for r in range(replicates):
        rng = np.random.default_rng(r)
        rows = measured(law, truth, first_rows(name, law, rng), rng)
        begin = isoflop.fit(law, rows, draws=DRAWS, seed=0)
        start, known = width_error(begin, at, real), information(law, truth, rows)
        before = towards @ np.linalg.solve(known @ known.T, towards)
        for b, budget in enumerate(BUDGETS):
            pool = dict(_candidates(begin, None, budget))
            for way in WAYS:
                picks = picked(way, begin, at, pool, budget, np.random.default_rng([r, b]))
                both = np.hstack([known, information(law, truth, {c: v[picks] for c, v in pool.items()})])
                out[way][b, r, 0] = 0.5 * np.log(towards @ np.linalg.solve(both @ both.T, towards) / before)
                if b == REFITTED and r < refits:
                    more = measured(law, truth, {c: v[picks] for c, v in pool.items()}, np.random.default_rng([r, 7]))
                    whole = {c: np.concatenate([rows[c], more[c]]) for c in (*law.table_columns, "loss")}
                    out[way][b, r, 1:] = ratios(width_error(refit(law, whole), at, real), start)
    return out


def ratios(after: tuple[float, float], before: tuple[float, float]) -> list[float]:
    """Logs of width and error over those before."""
    floor = NOISE / 2
    return [np.log(after[0] / before[0]), np.log(np.hypot(after[1], floor) / np.hypot(before[1], floor))]


def summarise(title: str, made: dict, budgets) -> list[dict]:
    """One row a way and budget."""
    lines = []
    for way in made:
        for b, budget in enumerate(budgets):
            sd, width, error = made[way][b].T
            row = {"data": title, "way": way, "budget": float(budget), "n": len(sd)}
            row |= {"sd": _spread(sd), "width": _spread(width), "error": _spread(error)}
            row["saves"] = _saving(made["ladder"][:, :, 0], sd, budgets, b) if len(budgets) > 1 else None
            lines.append(row)
    return lines


def _spread(logs: np.ndarray) -> list[float] | None:
    """Geometric mean with the 90 % interval of its bootstrap."""
    logs = logs[np.isfinite(logs)]
    if not logs.size:
        return None
    means = np.random.default_rng(0).choice(logs, (2000, len(logs))).mean(axis=1)
    return [float(np.exp(v)) for v in (logs.mean(), *np.percentile(means, [5, 95]))]


def _saving(ladder: np.ndarray, width: np.ndarray, budgets, b: int) -> list[float]:
    """Compute that the ladder's mean curve needs for the same mean width, over this budget; open ends are clipped."""
    rng, logs, out = np.random.default_rng(0), np.log(budgets), []
    for k in range(400):
        pick = np.arange(len(width)) if k == 0 else rng.integers(0, len(width), len(width))
        curve = np.minimum.accumulate(np.nanmean(ladder[:, pick], axis=1))
        slope = min((curve[-1] - curve[0]) / (logs[-1] - logs[0]), -1e-3)
        goal = float(np.nanmean(width[pick]))
        if goal < curve[-1]:
            need = logs[-1] + (goal - curve[-1]) / slope
        elif goal > curve[0]:
            need = logs[0] + (goal - curve[0]) / slope
        else:
            need = np.interp(-goal, -curve, logs)
        out.append(np.exp(np.clip(need - logs[b], -7, 7)))
    return [float(out[0]), *(float(v) for v in np.percentile(out[1:], [5, 95]))]


# ---- replay ----------------------------------------------------------------------------------------------------------


def replay_tables(folder: Path):
    """(name, law, rows, held out): rows that one law can be fitted to, and the largest runs, to be forecast."""
    rows = load(folder / "chinchilla" / "points.csv", rename={"train_flop": "flops"}, where="point_id > 4 and loss < 4")
    yield "chinchilla", "chinchilla", rows, np.asarray(rows["flops"]) > 1e21
    rows = load(folder / "porian" / "isoflop_points.csv", rename={"flop": "flops"})
    for name in list(dict.fromkeys(rows["experiment"].tolist()))[::4][:6]:
        part = rows.select(rows["experiment"] == name)
        near = np.asarray(part["loss"], float)
        c = np.asarray(part["flops"], float)
        least = np.array([near[c == v].min() for v in c])
        part = part.select(near < 1.1 * least)
        c = np.asarray(part["flops"], float)
        yield f"porian {name}", "chinchilla", part, c >= np.unique(c)[-2]
    rows = load(folder / "gadre" / "models.csv", rename={"flop_6nd": "flops", "loss_c4_val": "loss"})
    for name in dict.fromkeys(rows["train_dataset"].tolist()):
        part = rows.select(rows["train_dataset"] == name)
        c = np.asarray(part["flops"], float)
        yield f"gadre {name}", "chinchilla", part, c >= np.sort(c)[-3]
    for name in ("python_source", "zipf_words"):
        part = load(isoflop.recorded(name))
        c = np.asarray(part["flops"], float)
        yield f"recorded {name}", "chinchilla", part, c >= np.unique(c)[-1] * 0.5


def replay(law: str, rows, held: np.ndarray, replicates: int, share: float) -> dict | None:
    """As `plant`, without sd: each way reveals a share of the pool's compute. None where the pool is too small."""
    table = {c: np.asarray(rows[c], float) for c in ("params", "tokens", "flops", "loss")}
    inside = np.flatnonzero(~held)
    at = {c: table[c][held] for c in ("params", "tokens")}
    middle = {c: float(np.exp(np.log(v).mean())) for c, v in at.items()}
    out = {w: np.full((1, replicates, 3), np.nan) for w in WAYS}
    cheap = inside[np.argsort(table["flops"][inside])][: max(len(inside) // 2, 12)]
    if len(inside) < 12 + 2 * RUNS:
        return None
    for r in range(replicates):
        rng = np.random.default_rng(r)
        first = rng.choice(cheap, 12, replace=False)
        rest = np.setdiff1d(inside, first)
        budget = share * table["flops"][rest].sum()
        pool = {c: v[rest[table["flops"][rest] <= budget]] for c, v in table.items()}
        begin = isoflop.fit(law, {c: v[first] for c, v in table.items()}, draws=DRAWS, seed=0)
        start = width_error(begin, at, table["loss"][held])
        for way in WAYS:
            picks = picked(way, begin, middle, pool, budget, rng, once=True)
            whole = {c: np.concatenate([v[first], pool[c][picks]]) for c, v in table.items()}
            out[way][0, r, 1:] = ratios(width_error(refit(law, whole), at, table["loss"][held]), start)
    return out


def show(lines: list[dict]) -> None:
    """A table on stdout."""
    for row in lines:
        cells = [f"{f'{v[0]:.2f} [{v[1]:.2f}, {v[2]:.2f}]' if v else '':<18}"
                 for v in (row[k] for k in ("sd", "saves", "width", "error"))]  # fmt: skip
        print(f"{row['data'][:30]:<30} {row['way']:<13} {row['budget']:<7.2g} {' '.join(cells)}".rstrip(), flush=True)


def main() -> int:
    """Run both parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=20)
    parser.add_argument("--refits", type=int, default=20, help="replicates of plant that are also fitted again")
    parser.add_argument("--only", choices=["plant", "replay"])
    parser.add_argument("--law", action="append", choices=list(PLANTS))
    parser.add_argument("--share", type=float, default=0.1, help="of the pool's compute that a replay reveals")
    parser.add_argument("--data", default=os.environ.get("ISOFLOP_DATA", "../shared/data"))
    parser.add_argument("--json")
    args = parser.parse_args()
    lines: list[dict] = []
    print(f"{'':<30} {'':<13} {'FLOPs':<7} {'sd':<18} {'saves':<18} {'width':<18} error")
    if args.only != "replay":
        for name in args.law or PLANTS:
            began = time.process_time()
            rows = summarise(name, plant(name, args.replicates, args.refits), BUDGETS)
            show(rows)
            print(f"{'':<30} {args.replicates} replicates, {time.process_time() - began:.0f} CPU s")
            lines += rows
    if args.only != "plant" and Path(args.data).is_dir():
        together: dict[str, list] = {}
        for name, law, rows, held in replay_tables(Path(args.data)):
            made = replay(law, rows, held, max(args.replicates // 2, 3), args.share)
            if made is None:
                print(f"{name}: too few rows")
                continue
            show(part := summarise(name, made, [args.share]))
            lines += part
            for row in part:
                together.setdefault(row["way"], []).append(row)
        for way, rows in together.items():
            mean = {k: _spread(np.log([row[k][0] for row in rows])) for k in ("width", "error")}
            show(
                [
                    {
                        "data": f"all {len(rows)} tables",
                        "way": way,
                        "budget": args.share,
                        "sd": None,
                        "saves": None,
                        **mean,
                    }
                ]
            )
    if args.json:
        Path(args.json).write_text(json.dumps(lines, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
