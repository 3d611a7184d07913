"""The league: hide the largest runs of public data sets, forecast them from the rest, and score every method alike.

Methods: "auto" (isoflop's default, one setting for all), "law NAME" (each candidate law by itself, same intervals),
"paper" (the protocol of the paper that the data came from, bootstrap intervals), and what is used today: "curve_fit"
(one power law by scipy) and "chinchilla" (that package), where they are installed and apply.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from isoflop._auto import Stack, auto
from isoflop._columns import RunsError, Table
from isoflop._display import ShownLeague
from isoflop._fit import fitted, prepare
from isoflop._law import get_law
from isoflop._meter import derive
from isoflop._objective import get_objective
from isoflop._tasks import Group, Task, read_tasks
from isoflop._where import parse_where

_HERE = Path(__file__).parent / "league"
_LEVELS = (5.0, 25.0, 75.0, 95.0)
_PAPER_DRAWS = 50
_DRAWS = 1000


@dataclass(frozen=True)
class Forecasts:
    """One method on held-out rows: truth, point and the ends of the 50 and 90 % intervals, all (rows,)."""

    truth: np.ndarray
    point: np.ndarray
    ends: np.ndarray  # (4, rows): the 5th, 25th, 75th and 95th percentiles


@dataclass(frozen=True)
class Score:
    """How one method did on one task. Errors, widths and interval scores are in per cent of the truth."""

    task: str
    method: str
    rows: int
    groups: int
    median: float  # of the absolute relative error
    p90: float
    bias: float  # share of rows forecast too high
    coverage50: float
    coverage90: float
    width90: float  # mean
    interval_score90: float  # mean of width + 20 x distance outside
    zero_width: int  # intervals without width
    seconds: float  # of processor time
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return dict(vars(self))


def score(task: str, method: str, made: Iterable[Forecasts], seconds: float, note: str = "") -> Score:
    """Score forecasts of one task.

    Rows whose interval is not finite stay out of coverage, width and interval score; `note` says how many. Raises
    ValueError where a forecast or every interval is not finite, or a truth not above zero, which has no relative error.
    """
    parts = list(made)
    truth = np.concatenate([p.truth for p in parts])
    if not (truth > 0).all():
        raise ValueError(f"{int((~(truth > 0)).sum())} held-out values are not above zero; relative errors need that")
    point = np.concatenate([p.point for p in parts]) / truth
    if not np.isfinite(point).all():
        raise ValueError(f"{int((~np.isfinite(point)).sum())} forecasts are not finite")
    ends = np.concatenate([p.ends for p in parts], axis=1) / truth
    good = np.isfinite(ends).all(axis=0)
    if not good.any():
        raise ValueError("no interval is finite")
    if not good.all():
        note = "; ".join([*([note] if note else []), f"{int((~good).sum())} intervals are not finite"])
    low, inner_low, inner_high, high = ends[:, good]
    outside = np.maximum(low - 1.0, 0.0) + np.maximum(1.0 - high, 0.0)
    error, width = np.abs(point - 1.0), high - low
    return Score(
        task, method, len(truth), len(parts), float(100 * np.median(error)), float(100 * np.percentile(error, 90)),
        float(np.mean(point > 1.0)), float(np.mean((inner_low <= 1.0) & (inner_high >= 1.0))),
        float(np.mean(outside == 0.0)), float(100 * np.mean(width)), float(100 * np.mean(width + 20.0 * outside)),
        int((width <= 0.0).sum()), seconds, note)  # fmt: skip


# ---- which tasks -----------------------------------------------------------------------------------------------------


def find_tasks(public: str | Path | None = None, data: str | Path | None = None) -> tuple[list[Task], list[str]]:
    """Tasks of the package on `public` (a folder of data sets), and those of every league.toml below `data`.

    The second list says what was left out and why. Raises ValueError where a file is wrong or nothing is found.
    """
    tasks: list[Task] = []
    left: list[str] = []
    if public:
        for path in sorted(_HERE.glob("*.toml")):
            folder = Path(public) / path.stem
            if folder.is_dir():
                tasks += read_tasks(path, folder)
            else:
                left.append(f"{path.stem} is left out: no folder of that name in {public}")
    if data:
        found = sorted(Path(data).rglob("league.toml"))
        if not found:
            raise ValueError(f"no league.toml below {data}; docs/league.md gives its format")
        for path in found:
            tasks += read_tasks(path, path.parent)
    if not tasks:
        raise ValueError("no data: set ISOFLOP_DATA to a folder of public data sets, or give --data DIR")
    names = [t.name for t in tasks]
    for name in {n for n in names if names.count(n) > 1}:
        raise ValueError(f"task {name!r} is declared {names.count(name)} times; give each its own name")
    return tasks, left


# ---- methods ---------------------------------------------------------------------------------------------------------


def play(task: Task, *, seed: int = 0, peers: bool = True) -> tuple[list[Score], list[str]]:
    """All methods on one task: scores, and what could not be run and why."""
    if task.kind == "pass_at_k":
        return _play_pass_at_k(task, seed)
    began = time.process_time()
    groups = task.groups()
    loading = time.process_time() - began
    scores, left = _play_auto(task, groups, loading, seed)
    methods: list[tuple[str, Callable[[], list[Forecasts]]]] = []
    if task.paper:
        methods.append(("paper", lambda: [_paper(task, g, seed) for g in groups]))
    if peers:
        methods += _today(task, groups)
    for name, run in methods:
        began = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # peers warn a lot; what they forecast is scored
                scores.append(score(task.name, name, run(), time.process_time() - began))
        except (ValueError, RuntimeError, TypeError, np.linalg.LinAlgError) as error:
            left.append(f"{task.name}: {name} gave nothing ({error})")
    return scores, left


def _play_auto(task: Task, groups: list[Group], loading: float, seed: int) -> tuple[list[Score], list[str]]:
    began = time.process_time()
    stacks = auto({g.name: g.fit for g in groups}, task.laws, target=task.target, scale=task.size, seed=seed)
    made = [_stack_forecasts(stacks[g.name], g, task.target) for g in groups]
    scores = [score(task.name, "auto", made, loading + time.process_time() - began)]
    left = sorted({f"{task.name}: {w}" for s in stacks.values() for w in s.warnings if "left out" in w})
    for law in dict.fromkeys(p.law.name for s in stacks.values() for p in s.everything):
        alone = [_stack_forecasts(stacks[g.name].alone(law), g, task.target) for g in groups]
        scores.append(score(task.name, f"law {law}", alone, float("nan"), "fitted together with auto"))
    return scores, left


def _stack_forecasts(stack: Stack, group: Group, target: str) -> Forecasts:
    columns = stack.needs
    held, _ = derive(group.held, columns)
    points = {c: np.asarray(held[c], float) for c in columns}
    sample = stack.predict_draws(count=_DRAWS, **points)
    return Forecasts(np.asarray(held[target], float), stack.predict(**points), np.percentile(sample, _LEVELS, axis=0))


def _paper(task: Task, group: Group, seed: int) -> Forecasts:
    """The paper's form, objective and rows, with bootstrap intervals of the curve, as papers give them."""
    paper = task.paper or {}
    law = get_law(paper["law"], axis=paper.get("axis"), target=task.target)
    rows = group.fit
    if "fit" in paper:
        rows = rows.select(parse_where(paper["fit"]).mask(rows.columns))
    goal = get_objective(paper.get("objective", law.objective), paper.get("delta"))
    if "run" in rows.columns:  # a paper's checkpoints may repeat a place; rows are rows to it
        rows = replace(rows, columns={c: v for c, v in rows.columns.items() if c != "run"})
    setup = prepare(law, rows, objective=goal)
    made = fitted(setup, law=law, draws=_PAPER_DRAWS, seed=seed, by=None)
    held, _ = derive(group.held, law.table_columns)
    points = {c: np.asarray(held[c], float) for c in law.table_columns}
    ends = np.nanpercentile(made.predict_draws(**points), _LEVELS, axis=0)
    return Forecasts(np.asarray(held[task.target], float), made.predict(**points), ends)


def _today(task: Task, groups: list[Group]) -> list[tuple[str, Callable[[], list[Forecasts]]]]:
    from importlib.util import find_spec

    out: list[tuple[str, Callable[[], list[Forecasts]]]] = []
    if find_spec("scipy"):
        from isoflop._league_peers import curve_fit

        out.append(("curve_fit", lambda: [curve_fit(task, g) for g in groups]))
        both = {"params", "tokens"}
        if find_spec("chinchilla") and all(both <= set(g.fit.columns) for g in groups) and len(groups) < 10:
            from isoflop._league_peers import chinchilla

            out.append(("chinchilla", lambda: [chinchilla(task, g) for g in groups]))
    return out


# ---- pass@k from few samples -----------------------------------------------------------------------------------------


def _play_pass_at_k(task: Task, seed: int) -> tuple[list[Score], list[str]]:
    """pass@k of many samples from few: `samples` drawn of each problem's, without putting back, `repeats` times."""
    table = task.table()
    series = [(key, rows) for key, rows in task.series(table)]
    draws = [(rows, _subsample(rows, task, [seed, k, i]))
             for k, (_, rows) in enumerate(series) for i in range(task.repeats)]  # fmt: skip
    scores: list[Score] = []
    for name, method in (("auto", _coverage), *((("paper", _straight_line),) if task.paper else ())):
        began = time.process_time()
        made = [method(rows, some, task, seed) for rows, some in draws]
        scores.append(score(task.name, name, made, time.process_time() - began))
    return scores, []


def _subsample(rows: Table, task: Task, seed: list[int]) -> np.ndarray:
    n, c = np.asarray(rows["n"], int), np.asarray(rows["c"], int)
    rng = np.random.default_rng(seed)
    return rng.hypergeometric(c, n - c, np.minimum(task.samples, n))


def _truth(rows: Table, k: int) -> np.ndarray:
    from isoflop.levers.think._estimators import pass_at_k

    return np.array([float(np.mean(pass_at_k(np.asarray(rows["n"], int), np.asarray(rows["c"], int), k)))])


def _coverage(rows: Table, correct: np.ndarray, task: Task, seed: int) -> Forecasts:
    from isoflop.levers.think._forecast_coverage import coverage_draws

    best, sample = coverage_draws(np.full(len(correct), task.samples), correct, task.at, draws=400, seed=seed)
    ends = np.percentile(np.ravel(sample), _LEVELS)[:, None]
    return Forecasts(_truth(rows, task.at), np.array([float(np.ravel(best)[0])]), ends)


def _straight_line(rows: Table, correct: np.ndarray, task: Task, seed: int) -> Forecasts:
    """log(-log coverage) straight in log k up to the samples drawn; bootstrap over problems."""
    from isoflop.levers.think._estimators import pass_at_k

    ks = np.unique(np.geomspace(1, task.samples, 12).round().astype(int))
    each = pass_at_k(np.full(len(correct), task.samples), correct, ks).T  # (ks, problems)
    rng = np.random.default_rng([seed, int(correct.sum())])
    pick = rng.integers(0, len(correct), (200, len(correct)))
    curves = np.vstack([each.mean(axis=1), each[:, pick].mean(axis=2).T])
    heights = np.log(-np.log(np.clip(curves, 1e-9, 1 - 1e-9)))
    design = np.column_stack([np.ones(len(ks)), np.log(ks)])
    line = np.linalg.lstsq(design, heights.T, rcond=None)[0]
    far = np.exp(-np.exp(line[0] + line[1] * np.log(task.at)))
    return Forecasts(_truth(rows, task.at), far[:1], np.percentile(far[1:], _LEVELS)[:, None])


# ---- all of it -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class League(ShownLeague):
    """Scores of all tasks and methods."""

    scores: tuple[Score, ...]
    left_out: tuple[str, ...]
    seconds: float  # of wall time

    def best(self, task: str, column: str, but: str = "auto") -> float:
        """The best score of any method other than `but` and single laws, nan where there is none."""
        rivals = [
            getattr(s, column) for s in self.scores if s.task == task and s.method != but and "law " not in s.method
        ]
        return min(rivals, default=float("nan"))

    @property
    def tasks(self) -> list[str]:
        """Names in order."""
        return list(dict.fromkeys(s.task for s in self.scores))

    def ratio(self, column: str) -> float:
        """Geometric mean over tasks of auto's score over the best of paper, curve_fit and chinchilla."""
        mine = {s.task: getattr(s, column) for s in self.scores if s.method == "auto"}
        logs = [np.log(mine[t] / self.best(t, column)) for t in mine if self.best(t, column) > 0]
        return float(np.exp(np.mean(logs))) if logs else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        auto_rows = [s for s in self.scores if s.method == "auto"]
        return {
            "scores": [s.to_dict() for s in self.scores],
            "ratio": {c: self.ratio(c) for c in ("median", "interval_score90")},
            "coverage90": float(np.mean([s.coverage90 for s in auto_rows])) if auto_rows else None,
            "left_out": list(self.left_out),
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        head = f"{'task':<34} {'method':<20} {'rows':>5} {'median':>7} {'p90':>6} {'high':>5} {'cov50':>6} {'cov90':>6} {'width':>7} {'score':>7} {'CPU s':>6}"  # noqa: E501
        lines = ["errors, widths and interval scores in % of the truth; high: share of forecasts above it", head]
        for task in self.tasks:
            for k, s in enumerate(s for s in self.scores if s.task == task):
                cpu = "" if np.isnan(s.seconds) else f"{s.seconds:.1f}"
                lines.append(
                    f"{task if k == 0 else '':<34} {s.method:<20} {s.rows:>5} {s.median:>7.2f} {s.p90:>6.1f} "
                    f"{s.bias:>5.2f} {s.coverage50:>6.2f} {s.coverage90:>6.2f} {_short(s.width90):>7} "
                    f"{_short(s.interval_score90):>7} {cpu:>6}")  # fmt: skip
        mine = [s for s in self.scores if s.method == "auto"]
        if mine:
            ratios = "" if np.isnan(self.ratio("median")) else (
                f"auto over the best of the others, geometric mean: median error {self.ratio('median'):.2f}, "
                f"interval score {self.ratio('interval_score90'):.2f}; ")  # fmt: skip
            lines += ["", f"{ratios}auto's mean coverage of 90 % intervals over {len(mine)} tasks "
                      f"{np.mean([s.coverage90 for s in mine]):.2f} (lowest {min(s.coverage90 for s in mine):.2f}); "
                      f"{self.seconds:.0f} s"]  # fmt: skip
        return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 9999 else f"{value:.0e}"


def league(tasks: list[Task], *, seed: int = 0, peers: bool = True, workers: int | None = None,
           left: Iterable[str] = ()) -> League:  # fmt: skip
    """Play all tasks, in as many processes as there are cores, the long ones first. Deterministic under the seed."""
    import os

    from isoflop._progress import progress

    began = time.perf_counter()
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    order = sorted(range(len(tasks)), key=lambda i: -_bytes(tasks[i]))
    results: dict[int, tuple[list[Score], list[str]]] = {}
    with progress("league", len(tasks)) as tick:
        if workers == 1:
            for i in order:
                results[i] = _safely(tasks[i], seed, peers)
                tick(1)
        else:
            from concurrent.futures import ProcessPoolExecutor, as_completed
            from multiprocessing import get_context

            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                waiting = {pool.submit(_safely, tasks[i], seed, peers): i for i in order}
                for done in as_completed(waiting):
                    results[waiting[done]] = done.result()
                    tick(1)
    scores = [s for i in range(len(tasks)) for s in results[i][0]]
    notes = [*left, *(n for i in range(len(tasks)) for n in results[i][1])]
    if not scores:
        raise RunsError(f"no task could be played; the first: {notes[0]}")
    return League(tuple(scores), tuple(notes), time.perf_counter() - began)


def _bytes(task: Task) -> int:
    path = task.folder / task.file
    return path.stat().st_size * max(1, len(task.laws)) if path.is_file() else 0


def _safely(task: Task, seed: int, peers: bool) -> tuple[list[Score], list[str]]:
    """One task; a data set that cannot be read is said, and does not stop the others."""
    try:
        return play(task, seed=seed, peers=peers)
    except (ValueError, LookupError, OSError) as error:
        return [], [f"{task.name} is left out: {error}"]
