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
from isoflop._paper_rows import kept, keys_of, rows_of, series
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
    """The paper's own coefficients on the rows."""
    law, goal = _law(s)
    rows, _ = derive(rows_of(s, folder), law.table_columns)
    setup = prepare(law, _plain(rows), objective=goal)
    theta = law.inward(np.array([float(s["coef"][c]) for c in law.coefs]))
    value = describe(setup.problem, theta)["value"]
    return _scores(law, rows, lambda **at: law(**at, **s["coef"])) | {"n": len(rows), "objective": value}


def _forecast(s: Settings, folder: Path) -> Figures:
    """Rows held out, forecast from the rest: errors over all held rows, rmsle as the mean over the series.

    run_error is the mean over runs of each run's error.
    """
    law, goal = _law(s)
    truths: list[np.ndarray] = []
    ahead: list[np.ndarray] = []
    runs: list[np.ndarray] = []
    for part in series(rows_of(s, folder), s.get("by"), s.get("shared")):
        rows, _ = derive(part, law.table_columns)
        rows = rows.select(np.isfinite(np.asarray(rows[law.target], float)))
        held = parse_where(s["hold_out"]).mask(rows.columns)
        early = parse_where(s["fit"]).mask(rows.columns) & ~held if "fit" in s else ~held
        made = fit(law, _plain(rows.select(early)), objective=goal, draws=0)
        runs.append(rows["run"][held] if "run" in rows.columns else np.full(held.sum(), str(len(runs))))
        truths.append(np.asarray(rows[law.target], float)[held])
        ahead.append(made.predict(**{c: np.asarray(rows[c], float)[held] for c in law.table_columns}))
    off, run = np.concatenate(ahead) / np.concatenate(truths) - 1.0, np.concatenate(runs)
    logs = [np.sqrt(np.mean(np.log(a / t) ** 2)) for a, t in zip(ahead, truths, strict=True)]
    by_run = [np.mean(np.abs(off[run == name])) for name in np.unique(run)]
    return {
        "held": len(off), "series": len(truths), "bias": float(np.mean(off)), "error": float(np.mean(np.abs(off))),
        "median_error": float(np.median(np.abs(off))), "worst_error": float(np.max(np.abs(off))),
        "run_error": float(np.mean(by_run)), "rmsle": float(np.mean(logs)),
        "predicted": float(np.mean(np.concatenate(ahead))), "observed": float(np.mean(np.concatenate(truths))),
    }  # fmt: skip


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
    return found


def _votes(s: Settings, folder: Path) -> Figures:
    """Selectors over the first samples of each problem; the plurality's ties go to the answer seen first."""
    table = rows_of(s, folder)
    keys, right = keys_of(table, s["unit"]), np.asarray(table["correct"], float)
    answers = table["answer"].astype(str)
    score = np.asarray(table["score"], float) if "score" in table.columns else None
    groups = [np.flatnonzero(keys == key)[: int(s["first"])] for key in dict.fromkeys(keys)]
    found = {
        "problems": len(groups),
        "pass_1": float(np.mean([right[g].mean() for g in groups])),
        "coverage": float(np.mean([right[g].max() for g in groups])),
        "majority": float(np.mean([_majority(answers[g], right[g]) for g in groups])),
    }
    if score is not None:
        found["best"] = float(np.mean([right[g[np.argmax(score[g])]] for g in groups]))
    return found


def _majority(answers: np.ndarray, right: np.ndarray) -> float:
    spoken = [a for a in answers if a not in ("", "nan", "invalid")]
    if not spoken:
        return 0.0
    winner = max(dict.fromkeys(spoken), key=spoken.count)
    return float(right[np.argmax(answers == winner)])


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


def _plain(rows: Table) -> Table:
    """Without the run's name: a paper's checkpoints are rows to it."""
    return replace(rows, columns={c: v for c, v in rows.columns.items() if c != "run"})


def _scores(law: Law, rows: Table, predict: Callable[..., Any]) -> Figures:
    rows, _ = derive(rows, law.table_columns)
    truth = np.asarray(rows[law.target], float)
    ahead = np.asarray(predict(**{c: np.asarray(rows[c], float) for c in law.table_columns}))
    good = np.isfinite(truth)
    truth, ahead = truth[good], ahead[good]
    left, off = ahead - truth, ahead / truth - 1.0
    found = {
        "r2": 1.0 - float(np.sum(left**2) / np.sum((truth - truth.mean()) ** 2)), "mae": float(np.mean(np.abs(left))),
        "rmse": float(np.sqrt(np.mean(left**2))), "error": float(np.mean(np.abs(off))),
        "median_error": float(np.median(np.abs(off))), "worst_error": float(np.max(np.abs(off))),
    }  # fmt: skip
    rms = float(np.sqrt(np.mean(np.log(ahead / truth) ** 2))) if (ahead > 0).all() and (truth > 0).all() else np.nan
    return found | {"rms": rms}


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
