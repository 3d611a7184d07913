"""What a claim runs, kind by kind: from its settings and a folder of data sets to figures by name.

docs/papers.md says which figures each kind finds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from isoflop._columns import Table
from isoflop._fit import describe, fit, prepare
from isoflop._law import Law, get_law
from isoflop._meter import derive
from isoflop._objective import Objective, get_objective
from isoflop._paper_rows import kept, rows_of, series
from isoflop._where import parse_where

Settings = Mapping[str, Any]
Figures = dict[str, Any]  # numbers, and for `trend` a word


def figures(kind: str, settings: Settings, folder: Path) -> Figures:
    """Run one claim on data. Raises as reading and fitting do, and FileNotFoundError without the data."""
    return _KINDS[kind](settings, folder)


def _fit(s: Settings, folder: Path) -> Figures:
    law, goal = _law(s)
    parts = list(series(rows_of(s, folder), s.get("by"), s.get("shared")))
    if len(parts) > 1:
        each = [_one(s, law, goal, part) for part in parts]
        return {k: float(np.mean([e[k] for e in each])) for k in ("n", "r2", "rms")}
    return _one(s, law, goal, parts[0])


def _one(s: Settings, law: Law, goal: Objective, rows: Table) -> Figures:
    made = fit(law, _plain(derive(rows, law.table_columns)[0]), objective=goal, draws=0)
    found = _scores(law, rows, lambda **at: made.predict(**at))
    if "at" in s:
        found["predicted"] = float(made.predict(**s["at"]))
    return found | {"n": made.n, "objective": made.objective["value"]} | made.coef


def _published(s: Settings, folder: Path) -> Figures:
    """The paper's own coefficients on the rows; of several series (`by`) the means over them."""
    law, goal = _law(s)
    rows = _measured(law, rows_of(s, folder))
    setup = prepare(law, _plain(rows), objective=goal)
    theta = law.inward(np.array([float(s["coef"][c]) for c in law.coefs]))
    value = describe(setup.problem, theta)["value"]
    each = [_scores(law, part, lambda **at: law(**at, **s["coef"])) for part in series(rows, s.get("by"))]
    return {k: float(np.mean([e[k] for e in each])) for k in each[0]} | {"n": len(rows), "objective": value}


def _forecast(s: Settings, folder: Path) -> Figures:
    """Rows held out, forecast from the rest: errors over all held rows, rmsle as the mean over the series.

    run_error is the mean over runs of each run's error; best the share of series in which it beats all rivals.
    """
    parts = list(series(rows_of(s, folder), s.get("by"), s.get("shared")))
    held = [_held(s, part, str(k)) for k, part in enumerate(parts)]
    truths, ahead, run = (np.concatenate(column) for column in zip(*held, strict=True))
    off, logs = ahead / truths - 1.0, np.array([_rmsle(*h[:2]) for h in held])
    by_run = [np.mean(np.abs(off[run == name])) for name in np.unique(run)]
    rivals = [[_rmsle(*_held({**s, "law": name}, part, "")[:2]) for part in parts] for name in s.get("rivals", ())]
    found = {"best": float(np.mean(logs < np.min(rivals, axis=0)))} if rivals else {}
    return found | {
        "held": len(off), "series": len(parts), "bias": float(np.mean(off)), "error": float(np.mean(np.abs(off))),
        "median_error": float(np.median(np.abs(off))), "worst_error": float(np.max(np.abs(off))),
        "run_error": float(np.mean(by_run)), "rmsle": float(np.mean(logs)),
        "predicted": float(np.mean(ahead)), "observed": float(np.mean(truths)),
    }  # fmt: skip


def _held(s: Settings, part: Table, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one series the held rows: what was measured, what the law says of it, and the run (`name` without one)."""
    law, goal = _law(s)
    rows = _measured(law, part)
    held = parse_where(s["hold_out"]).mask(rows.columns)
    early = parse_where(s["fit"]).mask(rows.columns) & ~held if "fit" in s else ~held
    made = fit(law, _plain(rows.select(early)), objective=goal, draws=0)
    run = rows["run"][held] if "run" in rows.columns else np.full(held.sum(), name)
    ahead = made.predict(**{c: np.asarray(rows[c], float)[held] for c in law.table_columns})
    return np.asarray(rows[law.target], float)[held], np.asarray(ahead), run


def _rmsle(truth: np.ndarray, ahead: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.log(ahead / truth) ** 2)))


def _chain(s: Settings, folder: Path) -> Figures:
    """Two laws, one on the other's forecast: `first` and `second` hold law, objective and the rows to fit."""
    rows, value = rows_of(s, folder), {k: float(v) for k, v in s["at"].items()}
    for step, target in (("first", s.get("loss", "loss")), ("second", s["target"])):
        how = {"target": target, **s[step]}
        law, goal = _law(how)
        made = fit(law, _plain(kept(rows, how["fit"])), objective=goal, draws=0)
        value = {target: float(made.predict(**value))}
    return {"predicted": value[s["target"]]}


def _rows(s: Settings, folder: Path) -> Figures:
    table = rows_of(s, folder)
    values = parse_where(s["column"]).values(table.columns)
    if "sort" in s:
        values = values[np.argsort(np.asarray(table[s["sort"]], float), kind="stable")]
    values = values[np.isfinite(values)]
    spread = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return {
        "n": len(values), "mean": float(values.mean()), "se": spread,
        "median": float(np.median(values)), "sum": float(values.sum()),
        "low": float(values.min()), "high": float(values.max()), "first": float(values[0]), "last": float(values[-1]),
    }  # fmt: skip


def _pass_at_k(s: Settings, folder: Path) -> Figures:
    """Coverage over problems, and the line through ln(-ln coverage) on ln k: its slope, and where it leads."""
    from isoflop.levers.think._estimators import pass_at_k

    table, ks = rows_of(s, folder), np.asarray(s["ks"], int)
    each = pass_at_k(np.asarray(table["n"], int), np.asarray(table["c"], int), ks)
    cover = each.mean(axis=0)
    found = {"problems": len(table)} | {f"pass_{k}": float(v) for k, v in zip(ks, cover, strict=True)}
    if len(ks) > 1 and (cover > 0).all() and (cover < 1).all():
        slope, start = np.polyfit(np.log(ks), np.log(-np.log(cover)), 1)
        found["slope"] = float(slope)
        if "line_at" in s:
            found["line"] = float(np.exp(-np.exp(start + slope * np.log(s["line_at"]))))
    return found | (_few(table, **s["few"]) if "few" in s else {})


def _few(table: Table, *, samples: int, at: int, by: str, repeats: int) -> Figures:
    """Coverage `at` so many samples, forecast from so few of those recorded, in `repeats` drawings of each series."""
    from isoflop.levers.think._estimators import pass_at_k
    from isoflop.levers.think._forecast_coverage import coverage_draws

    rng, missed, held = np.random.default_rng(0), [], []
    for part in series(table, by):
        n, c = (np.asarray(part[x], int) for x in ("n", "c"))
        truth = float(pass_at_k(n, c, [at]).mean())
        for seed in range(repeats):
            few = rng.hypergeometric(c, n - c, samples)
            best, draws = coverage_draws(np.full(len(n), samples), few, [at], draws=200, seed=seed)
            low, high = np.percentile(draws[:, 0], [5, 95])
            missed.append(abs(best[0] - truth))
            held.append(low <= truth <= high)
    return {"missed": float(np.mean(missed)), "held": float(np.mean(held))}


def _votes(s: Settings, folder: Path) -> Figures:
    """Selectors over the first samples of each problem, ties to the answer first seen; with `stop`, voting that stops.

    silent: the share of samples without an answer; drawn, lost: over random orders, samples and accuracy.
    """
    from isoflop.levers.think._replay import Settings as How
    from isoflop.levers.think._replay import replay
    from isoflop.levers.think._samples import read_samples

    samples, first = read_samples(rows_of(s, folder).columns, unit=s["unit"], same=_spoken), [int(s["first"])]
    cost = float(s.get("score_cost", 0))
    curves = dict(replay(samples, budgets=first, score_cost=cost, settings=How(subsets="first", tie="first")).items())
    found = {name: float(curves[key].accuracy[0]) for key, name in _SELECTORS.items() if key in curves}
    for key, name in (("single", "tokens"), ("best_of_n", "tokens_best")):
        if key in curves and "gen_tokens" in curves[key].cost:
            found[name] = float(curves[key].mean_cost("gen_tokens")[0])
    if "answer" in samples.columns:
        found["silent"] = float(np.mean([(samples.table("answer", rows) < 0).mean() for _, rows in samples.blocks()]))
    if "stop" in s:
        how = How(rule="beta", risk=float(s["stop"]))
        early = replay(samples, strategies=["majority", "adaptive"], budgets=first, settings=how)
        found["drawn"] = float(early["adaptive"].mean_cost("samples")[0])
        found["lost"] = float(early["majority"].accuracy[0] - early["adaptive"].accuracy[0])
    return {"problems": len(samples.problems)} | found


def _spoken(answer: str) -> str:
    return "" if answer in ("nan", "invalid") else answer


def _trend(s: Settings, folder: Path) -> Figures:
    from isoflop._trend import trend

    found = trend(rows_of(s, folder), axis=s["axis"], metric=s["metric"])
    return {"verdict": found.verdict, "change": found.change[0], "rows": found.rows}


def _components(s: Settings, folder: Path) -> Figures:
    """Principal capabilities: shares of variance, and how straight the first is in log FLOPs, by family."""
    from isoflop._observational import observe

    found = observe(rows_of(s, folder), columns=s["columns"], family=s["family"], flops=s["flops"], draws=0)
    shares = {"first": float(found.explained[0]), "three": float(found.explained[:3].sum())}
    return shares | {f"r2_{name}": f.r2 for name, f in found.families.items()}


def _meter(s: Settings, folder: Path) -> Figures:
    """A meter's answer; of several runs (`by`) each figure as <figure>_<run>; of a number a row its mean and ends."""
    from isoflop._meter import measure

    made = measure(s["meter"], rows_of(s, folder), by=s.get("by"), **s.get("set", {}))
    if made.per == "row":
        values = np.array([row[made.column] for row in made.rows], float)
        return {"n": len(values), "mean": values.mean(), "low": values.min(), "high": values.max()}
    if made.by is None:
        return dict(made.rows[0])
    label = {id(row): f"{row[made.by]:g}" if isinstance(row[made.by], float) else row[made.by] for row in made.rows}
    return {f"{k}_{label[id(row)]}": v for row in made.rows for k, v in row.items() if k != made.by}


def _law(s: Settings) -> tuple[Law, Objective]:
    law = get_law(s["law"], axis=s.get("axis"), target=s.get("target"))
    return law, get_objective(s.get("objective", law.objective), s.get("delta"), s.get("weights"))


def _measured(law: Law, rows: Table) -> Table:
    """With the law's columns, first made from whole runs, then without the rows that have no metric."""
    made, _ = derive(rows, law.table_columns)
    return made.select(np.isfinite(np.asarray(made[law.target], float)))


def _plain(rows: Table) -> Table:
    """Without the run's name: a paper's checkpoints are rows to it."""
    return replace(rows, columns={c: v for c, v in rows.columns.items() if c != "run"})


def _scores(law: Law, rows: Table, predict: Callable[..., Any]) -> Figures:
    rows = _measured(law, rows)
    truth = np.asarray(rows[law.target], float)
    ahead = np.asarray(predict(**{c: np.asarray(rows[c], float) for c in law.table_columns}))
    left, off = ahead - truth, ahead / truth - 1.0
    found = {
        "r2": 1.0 - float(np.sum(left**2) / np.sum((truth - truth.mean()) ** 2)), "mae": float(np.mean(np.abs(left))),
        "rmse": float(np.sqrt(np.mean(left**2))), "error": float(np.mean(np.abs(off))),
        "median_error": float(np.median(np.abs(off))), "worst_error": float(np.max(np.abs(off))),
    }  # fmt: skip
    rms = float(np.sqrt(np.mean(np.log(ahead / truth) ** 2))) if (ahead > 0).all() and (truth > 0).all() else np.nan
    return found | {"rms": rms}


_SELECTORS = {
    "single": "pass_1", "coverage": "coverage", "majority": "majority", "best_of_n": "best", "weighted_exp": "weighted",
}  # fmt: skip
_KINDS: dict[str, Callable[[Settings, Path], Figures]] = {
    "fit": _fit,
    "forecast": _forecast,
    "published": _published,
    "chain": _chain,
    "rows": _rows,
    "meter": _meter,
    "pass_at_k": _pass_at_k,
    "votes": _votes,
    "trend": _trend,
    "components": _components,
}
