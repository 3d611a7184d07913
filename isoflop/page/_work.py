"""What worker processes do: open a table, fit it, compare fits, suggest runs, check a paper, write the page as a file.

Each job is a function of plain values that returns plain values; errors are ValueError, LookupError, ImportError or
OSError with one sentence. Paths come from the server, never from the browser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from isoflop._answer import finite
from isoflop._columns import RunsError
from isoflop.page import _papers, _slide, _testtime, _views

_HEAD_ROWS = 8
_MOST_COLUMNS = 200
_CELL = 60
_DISTINCT = 40
_OF_A_SHELL = re.compile(r" \((?:try )?--rename [^)]*\)|--(?=rename|where)")  # hints that mean nothing on the page


def run(what: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Do one job. Raises LookupError for a job that there is not."""
    if what not in _JOBS:
        raise LookupError(f"no job named {what!r}")
    try:
        found: dict[str, Any] = finite(_JOBS[what](**args))
    except RunsError as error:
        raise RunsError(_OF_A_SHELL.sub("", str(error)).replace("pass --skip-bad", "leave bad rows out")) from error
    return found


def warm() -> None:
    """Import what nearly every job needs."""
    import isoflop._auto
    import isoflop._constraints
    import isoflop._fit  # noqa: F401


def open_table(path: str, shown: str) -> dict[str, Any]:
    """A table's columns, first rows, which column may be meant by which name, and its test-time figure.

    Bad rows are told and left out; a fit refuses them unless it is asked to leave them out.
    """
    table = _load(path, shown, {}, True)
    names = list(table.columns)
    if len(names) > _MOST_COLUMNS:
        raise ValueError(f"{shown} has {len(names)} columns; the page shows tables of up to {_MOST_COLUMNS}")
    return {
        "name": shown,
        "rows": len(table),
        "columns": [_column(name, table[name]) for name in names],
        "head": [[_cell(table[name][i]) for name in names] for i in range(min(_HEAD_ROWS, len(table)))],
        "meant": _meant(names),
        "refused": [str(r) for r in table.refused[:20]],
        "refused_count": len(table.refused),
        "left_out": dict(table.left_out),
        "testtime": _testtime.figure(table),
    }


@dataclass(frozen=True)
class Asked:
    """What to fit: a table (`shown` is its name on the page), its rows and columns, a law, how many draws."""

    path: str
    shown: str
    law: str
    rename: Mapping[str, str]
    where: str
    skip_bad: bool
    axis: Mapping[str, str]
    target: str | None
    hold_out: str
    draws: int
    seed: int
    fixed: Mapping[str, float]
    derive: bool  # tokens as flops / (6 params)

    def rows(self) -> Any:
        """The table. Raises LookupError for a law that is not the package's: "file.py:name" would run code."""
        from isoflop._find import names
        from isoflop._runs import load

        if self.law not in ("auto", *names("laws")):
            raise LookupError(f"no law named {self.law[:60]!r}")
        table = _load(self.path, self.shown, self.rename, self.skip_bad)
        return load(_with_tokens(table) if self.derive else table, where=self.where or None, skip_bad=self.skip_bad)


def fit_table(asked: Mapping[str, Any], save: str) -> dict[str, Any]:
    """Fit a law to a table: everything that the page shows of it. The fit is saved at `save`."""
    wanted = Asked(**asked)
    return _saved(wanted, wanted.rows(), save)


def page_file(asked: Mapping[str, Any], save: str, sections: Sequence[Mapping[str, Any]],
              budgets: Sequence[float]) -> dict[str, Any]:  # fmt: skip
    """The whole view as one self-contained HTML file at `save`; the fit is made again from the same rows and seed."""
    from isoflop._html import page
    from isoflop._report import Grid

    wanted = Asked(**asked)
    made, _ = _reported(wanted, wanted.rows(), budgets)
    extra = [
        (str(s["title"]), str(s["caption"]), Grid(tuple(s["header"]), [tuple(r) for r in s["rows"]])) for s in sections
    ]
    Path(save).write_text(page(made, extra), encoding="utf-8", errors="backslashreplace")
    return {"bytes": Path(save).stat().st_size}


def fit_groups(asked: Mapping[str, Any], by: str, saves: Sequence[str]) -> dict[str, Any]:
    """One fit for each value of the column `by`: the recipes of one table. Saved at `saves`, in their order."""
    from isoflop._progress import progress

    wanted = Asked(**asked)
    table = wanted.rows()
    values = table[by].astype(str) if table[by].dtype == object else np.array([f"{v:g}" for v in table[by]])
    groups = list(dict.fromkeys(values.tolist()))
    if not 2 <= len(groups) <= len(saves):
        raise ValueError(
            f"column {by!r} has {len(groups)} values; recipes are compared where there are 2 to {len(saves)}"
        )
    views = []
    with progress("recipes", len(groups)) as tick:
        for k, (group, save) in enumerate(zip(groups, saves, strict=False)):
            one = replace(wanted, shown=f"{wanted.shown}, {by} {group}", seed=wanted.seed + k)
            views.append(_saved(one, table.select(values == group), save))
            tick(1)
    return {"groups": groups, "views": views}


def compare_fits(first: str, second: str, names: Sequence[str], *, axis: str | None = None,
                 at: Mapping[str, float] | None = None) -> dict[str, Any]:  # fmt: skip
    """Where one fit overtakes another: along `axis`, or at equal training compute where none is given."""
    from isoflop._crossover import crossover
    from isoflop._fit import Fit

    pair = (Fit.load(first), Fit.load(second))
    how: dict[str, Any] = (
        {"axis": axis, "at": dict(at or {})} if axis else {"meter": "train_flops", "at": dict(at or {})}
    )
    if all(len(f.law.table_columns) == 1 for f in pair):
        how = {"axis": pair[0].law.table_columns[0]}
    return _views.crossing(crossover(*pair, names=(names[0], names[1]), **how))


def suggest(fit: str, budget: float, about: float, count: int, *, save: str) -> dict[str, Any]:
    """The next runs that shrink the interval at compute `about` most per FLOP, within a budget; as a CSV at `save`."""
    import isoflop._design as design
    from isoflop._fit import Fit

    found = design.next_runs(Fit.load(fit), budget={"flops": budget}, about={"flops": about}, k=count, seed=0)
    return _views.suggestions(found, save)


def check_paper(name: str, data: str | None) -> dict[str, Any]:
    """One paper with the verdicts on its claims, worked out now."""
    from isoflop._paper import get_paper
    from isoflop._paper_check import check

    paper = get_paper(name)
    return _papers.entry(paper, check([paper], data=data, workers=1)[paper.name])


# ---- parts -----------------------------------------------------------------------------------------------------------


def _load(path: str, shown: str, rename: Mapping[str, str], skip_bad: bool) -> Any:
    """The door of isoflop.read; what it says names the table as the page does, and no path of the server."""
    from isoflop._runs import load

    try:
        table = load(path, rename=dict(rename), skip_bad=skip_bad)
    except RunsError as error:
        raise RunsError(str(error).replace(path, shown)) from error
    refused = [r._replace(file=shown) for r in table.refused]
    return replace(table, where_from=replace(table.where_from, files=(shown,)), refused=refused)


def _with_tokens(table: Any) -> Any:
    """Tokens as flops / (6 params), where the table has none and the reader chose so."""
    if "tokens" in table.columns:
        return table
    return table.with_column("tokens", np.asarray(table["flops"], float) / (6.0 * np.asarray(table["params"], float)))


def _saved(asked: Asked, table: Any, save: str) -> dict[str, Any]:
    made, stack = _reported(asked, table)
    made.fit.save(save)
    return _views.fitted(made, stack, asked.shown)


def _reported(asked: Asked, table: Any, budgets: Sequence[float] = ()) -> tuple[Any, Any]:
    """(report, stack of `auto` or None). With auto, figures and plans follow the law of most weight, fitted alone."""
    from isoflop._fit import fit, usable_rows
    from isoflop._law import get_law
    from isoflop._objective import get_objective
    from isoflop._report import report
    from isoflop._where import parse_where

    held, stack, axis = None, None, dict(asked.axis) or None
    chosen = None if asked.law == "auto" else get_law(asked.law, axis=axis, target=asked.target)
    if asked.skip_bad:
        table = _good_rows(table, chosen, asked)
    if asked.hold_out:
        mask = parse_where(asked.hold_out).mask(table.columns)
        if not mask.any() or mask.all():
            raise ValueError(
                f"{asked.shown}: the hold-out takes {int(mask.sum())} of {len(table)} rows; leave some on each side"
            )
        table, held = table.select(~mask), table.select(mask)
    if chosen is None:
        stack = fit("auto", table, axis=asked.axis.get("x"), target=asked.target, seed=asked.seed)
        chosen = stack.law
    made = fit(chosen, table, draws=asked.draws, seed=asked.seed)
    usable, _ = usable_rows(made.law, table, get_objective(made.law.objective))
    fixed = dict(asked.fixed) or _held_columns(made.law, usable)
    title = f"{made.law.name} on {asked.shown}"
    return report(made, usable, held_out=held, budgets=budgets, fixed=fixed, title=title), stack


def _good_rows(table: Any, law: Any, asked: Asked) -> Any:
    """The rows that a law (None: those of `auto`) can use, as `isoflop fit --skip-bad` finds them."""
    from isoflop._fit import usable_rows
    from isoflop._objective import get_objective
    from isoflop._runs import check

    if law is not None:
        return usable_rows(law, table, get_objective(law.objective), skip_bad=True)[0]
    both = ["params", "tokens"] if {"params", "tokens"} <= set(table.columns) else ["flops"]
    need = [asked.axis["x"]] if "x" in asked.axis else both
    target = asked.target or "loss"
    return check(table, need=need, target=target, positive=[*need, target], skip_bad=True)


def _held_columns(law: Any, table: Any) -> dict[str, float]:
    """Columns that no budget counts, at the largest value of the rows: a plan looks towards the large end."""
    counted = {"params", "tokens", "flops"}
    if len(law.table_columns) == 1 or not counted & set(law.table_columns):
        return {}
    return {c: float(np.max(np.asarray(table[c], float))) for c in law.table_columns if c not in counted}


def _column(name: str, values: np.ndarray) -> dict[str, Any]:
    from isoflop._columns import COLUMNS

    known = COLUMNS.get(name)
    out: dict[str, Any] = {"name": name, "meaning": known.meaning if known else "", "unit": known.unit if known else ""}
    if values.dtype == object:
        distinct = list(dict.fromkeys(values.tolist()))
        few = [v[:_CELL] for v in distinct] if len(distinct) <= _DISTINCT else []
        return out | {"kind": "text", "distinct": len(distinct), "values": few}
    good = values[np.isfinite(values)]
    if not good.size:
        return out | {"kind": "empty"}
    return out | {"kind": "number", "low": float(good.min()), "high": float(good.max()), "missing": int(
        len(values) - good.size), "distinct": len(np.unique(good))}  # fmt: skip


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else f"{value:.6g}" if np.isfinite(value) else ""
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"


def _meant(names: Sequence[str]) -> dict[str, str]:
    """Our name -> the table's column that is known to mean it, for columns that are not there under our name."""
    from isoflop._columns import ALIASES

    def plain(name: str) -> str:
        return re.sub(r"[\W_]+", "", name.casefold())

    folded = {plain(name): name for name in reversed(names)}
    out: dict[str, str] = {}
    for ours, theirs in ALIASES.items():
        for alias in (ours, *theirs) if ours not in names else ():
            if (found := folded.get(plain(alias))) and found not in (*ALIASES, *out.values()):
                out[ours] = found
                break
    return out


_JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    "open": open_table, "fit": fit_table, "page": page_file, "groups": fit_groups, "compare": compare_fits,
    "suggest": suggest, "paper": check_paper, "plan": _slide.plan,
}  # fmt: skip
