"""From what a tool recorded to isoflop's columns: which name became which column, and how N, D and C were counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isoflop._columns import LABELS, Array, cell_text, number
from isoflop.importers._counting import batch_tokens, flops, model_counts, tokens_of_flops
from isoflop.importers._importer import Logged, Series
from isoflop.importers._names import HELD_OUT, MEASURED, SETTINGS, STEPS, TEXTS, TRAINING, pick
from isoflop.importers._safe import flat, real

COUNTED = ("params", "tokens", "flops")
_LOSSES = ("loss", "train_loss")


@dataclass
class Report:
    """What was mapped to which column of how many runs, what was not, and what to mind."""

    columns: dict[str, Counter[str]] = field(default_factory=dict)
    unmapped: dict[str, Counter[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def mapped(self, column: str, what: str) -> None:
        """Count one run."""
        self.columns.setdefault(column, Counter())[what] += 1

    def left(self, kind: str, names: Iterable[str]) -> None:
        """Count names that became no column."""
        self.unmapped.setdefault(kind, Counter()).update(names)

    def note(self, text: str) -> None:
        """One sentence, once."""
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True)
class Rules:
    """What the user says: {ours: theirs}, {ours: value}, and whether losses are held-out or of training."""

    names: Mapping[str, str]
    values: Mapping[str, float | str]
    held_out: bool


@dataclass(frozen=True)
class _Draft:
    """A run's row while it is made, and which of the run's names are in it."""

    run: Logged
    rules: Rules
    report: Report
    row: dict[str, Any]
    used: set[str] = field(default_factory=set)

    def name(self, column: str, present: Mapping[str, Any], known: Sequence[str]) -> str | None:
        """The name that a column has in `present`, as the user, the tool or custom tells it."""
        for told in (self.rules.names.get(column), self.run.names.get(column)):
            if told is not None and told in present:
                return told
        return None if column in self.rules.names else pick(known, present, parts=True)

    def mark(self, column: str, kind: str, name: str) -> None:
        """Say where a column is from."""
        self.used.add(name)
        self.report.mapped(column, f"{kind} {name}")
        if column in COUNTED:
            self.row[f"{column}_source"] = f"{kind} {name}"

    def take(self, column: str, places: Mapping[str, Mapping[str, Any]], known: Sequence[str]) -> None:
        """Fill a column from the first of the places that has a value for it."""
        for kind, values in places.items():
            name = self.name(column, values, known)
            value = None if name is None else _value(column, values[name])
            if name is not None and value is not None:
                self.row[column] = value
                self.mark(column, kind, name)
                return


def has_held_out(run: Logged, names: Mapping[str, str]) -> bool:
    """Whether a run has a held-out loss, by the names that are known, the tool's or the user's."""
    return any(_loss_name(run, there, names, held_out=True) for there in (run.series, run.summary))


def _loss_name(run: Logged, present: Mapping[str, Any], names: Mapping[str, str], *, held_out: bool) -> str | None:
    told = names.get("loss") or run.names.get("loss") if held_out else names.get("train_loss")
    told = told or (None if held_out else run.names.get("train_loss"))
    if told and told in present:
        return told
    return pick(HELD_OUT if held_out else TRAINING, present)


def mapped(run: Logged, rules: Rules, report: Report) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One run's row, and the rows of its curve."""
    row: dict[str, Any] = {"run": run.run}
    draft = _Draft(run, rules, report, row)
    for column, (value, what) in run.row.items():
        row[column] = value
        report.mapped(column, what)
    _settings(draft)
    model_counts(run, row, report)
    batch_tokens(run, row, report, draft.used)
    curve = _curve(draft)
    _last(draft, curve.end)
    row["status"] = "failed" if curve.failed else run.status
    tokens_of_flops(run, row, curve.points, report)
    flops(run, row, report)
    _unmapped(draft)
    for note in run.notes:
        report.note(note)
    head = {k: row[k] for k in ("run", "params", "params_nonembed", "params_active", "seed", "family") if k in row}
    return row, [{**head, **point} for point in curve.points]


# ---- settings --------------------------------------------------------------------------------------------------------


def _settings(draft: _Draft) -> None:
    run, rules, row = draft.run, draft.rules, draft.row
    model = flat(run.model, place="config.json") if run.model else {}
    places = {"config": run.config, "summary": run.summary, "config.json": model}
    for column in dict.fromkeys([*rules.values, *rules.names, *SETTINGS]):
        if column in rules.values:
            row[column] = rules.values[column]
            draft.report.mapped(column, f"told, {cell_text(row[column]).removesuffix('.0')}")
            if column in COUNTED:
                row[f"{column}_source"] = "told"
        elif column not in (*_LOSSES, "step", *MEASURED, *row):
            draft.take(column, places, SETTINGS.get(column, ()))


def _value(column: str, value: Any) -> Any:
    """A setting as a column's value; None where it does not fit. Human numbers such as 1.4B are numbers."""
    if column in TEXTS or column in LABELS:
        return None if value in ("", None) else str(value)
    found = number(value) if isinstance(value, str) else real(value)
    return None if found is None or not math.isfinite(found) else found


# ---- history ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Curve:
    points: list[dict[str, Any]]  # with a loss that is a number
    end: dict[str, Any]  # the last one logged, whatever its loss
    failed: bool = False  # that last loss is no number


def _curve(draft: _Draft) -> _Curve:
    """The points at which the loss was logged, with what else the history says there."""
    run, rules, report = draft.run, draft.rules, draft.report
    names = _losses(run, rules)
    column = "loss" if names["loss"] else "train_loss"
    main = run.series.get(names[column] or "")
    if main is None:
        return _Curve([], {})
    clock, told = _clock(draft)
    main = _timed(main, clock)
    others = {n: _timed(s, clock) for n, s in _measured(draft).items()}
    if column == "loss" and names["train_loss"] in run.series:
        others["train_loss"] = _timed(run.series[str(names["train_loss"])], clock)
    points = [
        {"step": float(step), column: float(value)}
        | {name: _at(other, step, line=name in ("tokens", "flops")) for name, other in others.items()}
        for step, value in zip(main.at, main.values, strict=True)
    ]
    for ours, name in names.items():
        if name:
            kind = "as told" if ours in rules.names else "held-out" if ours == "loss" and rules.held_out else "training"
            draft.used.add(name)
            report.mapped(ours, f"history {name}, {kind}")
    if left := len(run.series[str(names[column])].at) - len(points):
        report.note(f"{run.run}: points left out, at a step that was logged again later, or at none: {left}")
    _tokens_of_steps(draft, points, told)
    return _finite(run, points, column, report)


def _losses(run: Logged, rules: Rules) -> dict[str, str | None]:
    training = _loss_name(run, run.series, rules.names, held_out=False)
    if not rules.held_out:
        return {"loss": training, "train_loss": None}
    held_out = _loss_name(run, run.series, rules.names, held_out=True)
    return {"loss": held_out, "train_loss": None if training == held_out else training}


def _tokens_of_steps(draft: _Draft, points: list[dict[str, Any]], told: bool) -> None:
    """D as step x batch_tokens, where the steps are the optimiser's and no tokens were logged."""
    row, report = draft.row, draft.report
    batch = real(row.get("batch_tokens"))
    if not points or "tokens" in points[0] or "tokens" in row or batch is None:
        return
    if draft.run.counts_rows and not told:
        report.note("tokens were not derived from steps, which count logged rows here (--map step=_step if W&B's are "
                    "the optimiser's)")  # fmt: skip
        return
    for point in points:
        point["tokens"] = point["step"] * batch
    row["tokens_source"] = "step x batch_tokens"
    report.mapped("tokens", "step x batch_tokens")


def _finite(run: Logged, points: list[dict[str, Any]], column: str, report: Report) -> _Curve:
    good = [p for p in points if math.isfinite(p[column])]
    if len(good) < len(points):
        report.note(f"{run.run}: points left out, whose {column} is no number: {len(points) - len(good)}")
    failed = bool(points) and not math.isfinite(points[-1][column])
    return _Curve(good, points[-1] if points else {}, failed)


def _clock(draft: _Draft) -> tuple[Series | None, bool]:
    """The series of optimiser steps, where the history has one, and whether it has."""
    told, series = draft.rules.names.get("step"), draft.run.series
    name = told if told in series else pick(STEPS, (n for n in series if not n.startswith("_")))  # W&B's _step
    if name is None:
        return None, False
    draft.used.add(name)
    return series[name], True


def _timed(series: Series, clock: Series | None) -> Series:
    """A series by optimiser step: the one that was logged with a value or last before it. Of twins the later stays."""
    steps = series.at
    if clock is not None:
        i = np.searchsorted(clock.at, series.at, side="right") - 1
        steps = np.where(i >= 0, clock.values[np.maximum(i, 0)], np.nan)
    last = {float(s): float(v) for s, v in zip(steps, series.values, strict=True) if math.isfinite(s)}
    order = sorted(last)
    return Series(np.array(order), np.array([last[s] for s in order]))


def _measured(draft: _Draft) -> dict[str, Series]:
    """The further columns that the history holds, by our names."""
    series, out = draft.run.series, {}
    further = {c: () for c in draft.rules.names if c not in (*MEASURED, *_LOSSES, "step")}
    for column, known in {**MEASURED, **further}.items():
        if column in draft.rules.values or column == "seconds" or column in draft.row:
            continue
        name = draft.name(column, series, known)
        if name is not None:
            out[column] = series[name]
            draft.mark(column, "history", name)
    return out


def _at(series: Series, step: float, *, line: bool) -> float:
    """A series' value at a step: logged there, else (`line`) on the line through its neighbours, else the last before.

    The line is also followed past the ends, for no longer than the gap between the two points there.
    """
    where: Array = series.at
    i = int(np.searchsorted(where, step, side="right")) - 1
    if i >= 0 and (where[i] == step or not line):
        return float(series.values[i])
    if not line or len(where) < 2:
        return math.nan
    low = min(max(i, 0), len(where) - 2)
    gap = where[low + 1] - where[low]
    slope = (series.values[low + 1] - series.values[low]) / gap
    if not where[low] - gap <= step <= where[low + 1] + gap:
        return math.nan
    return max(float(series.values[low] + slope * (step - where[low])), 0.0)


# ---- the run's row ---------------------------------------------------------------------------------------------------


def _last(draft: _Draft, end: dict[str, Any]) -> None:
    """The row takes the curve's last point; what the curve does not say, the final values may."""
    run, rules, row = draft.run, draft.rules, draft.row
    for column, value in end.items():
        if math.isfinite(value):
            row.setdefault(column, value)
    losses = {} if "loss" in end else {"loss": HELD_OUT if rules.held_out else TRAINING}
    for column, known in {**losses, **MEASURED}.items():
        if column not in row:
            also = {"config": run.config} if column in ("tokens", "flops", *rules.names) else {}
            draft.take(column, {"summary": run.summary, **also}, known)
    for column in COUNTED:  # logged, but at no point of the loss
        if column not in row:
            row.pop(f"{column}_source", None)


def _unmapped(draft: _Draft) -> None:
    run, used, left = draft.run, draft.used, draft.report.left
    left("settings", (n for n in run.config if n not in used))
    left("history", (n for n in run.series if n not in used and not n.startswith("_")))
    left("final values", (n for n in run.summary if n not in used | set(run.series) and not n.startswith("_")))
