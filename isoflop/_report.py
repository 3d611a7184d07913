"""report(fit, table): a fit and all that follows from it, computed once; as text, JSON, figures and one HTML page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import isoflop
from isoflop import _curves
from isoflop._answer import Answer, Quantity, finite
from isoflop._columns import RunsError, plain
from isoflop._curves import Frontier, Rows, amount
from isoflop._isoflops import IsoFlops
from isoflop._meter import Meter, get_meter

if TYPE_CHECKING:
    from isoflop._fit import Fit

_FORMAT = 1
_SHOWN = 12  # rows of a table in the text
_PROFILE_DRAWS = 200  # as many as a fit keeps of its own second opinion, so that both say the same


class Plan(NamedTuple):
    """One budget: what the law says, and what the IsoFLOP parabolas say (None where they cannot be had)."""

    budget: float
    law: Answer
    second: Answer | None


class Check(NamedTuple):
    """One held-out row: its name, where it stood, what it measured, and the forecast for it."""

    name: str
    point: dict[str, float]
    measured: float
    forecast: Quantity
    warnings: tuple[str, ...]

    def inside(self, level: float) -> bool | None:
        """Whether the measurement lies in the forecast's interval; None without one."""
        low, high = self.forecast.interval(level)
        return bool(low <= self.measured <= high) if np.isfinite(low) else None

    @property
    def off(self) -> float:
        """Forecast less measured, in per cent of the measured; of no sign or zero it is nan."""
        return 100 * (self.forecast.median / self.measured - 1) if self.measured > 0 else float("nan")


class Grid(NamedTuple):
    """A table of words: what the text and the page both print."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Report:
    """A fit with its forecasts, plans and doubts. Make one with `report`."""

    title: str
    fit: Fit = field(repr=False)
    rows: Rows = field(repr=False)
    held_out: Rows | None = field(repr=False)
    isoflops: IsoFlops | None = field(repr=False)
    frontier: Frontier = field(repr=False)
    plans: tuple[Plan, ...]
    checks: tuple[Check, ...] = field(repr=False)
    meter: Meter = field(repr=False)
    fixed: dict[str, float]
    notes: tuple[str, ...]

    @property
    def level(self) -> float:
        """Of all intervals, in per cent."""
        return self.fit.level

    @property
    def doubts(self) -> tuple[str, ...]:
        """Every doubt: about the fit, the profiles, and this report."""
        profiles = self.isoflops.warnings if self.isoflops else ()
        return (*self.fit.warnings, *(f"IsoFLOP profiles: {w}" for w in profiles), *self.notes)

    def verdict(self) -> str:
        """How the forecasts of the held-out rows did, in one sentence; empty where there are none."""
        if not self.checks:
            return ""
        count, known = len(self.checks), [v for c in self.checks if (v := c.inside(self.level)) is not None]
        off = np.abs([c.off for c in self.checks])
        said = f"Forecasts of {count} held-out rows" if count > 1 else "The forecast of the one held-out row"
        said += f" ({far})" if (far := self.reach([c.point for c in self.checks])) else ""
        if np.isfinite(off).all():
            at_most = f" in the median and {off.max():.2g} % at most" if count > 1 else ""
            said += f" {'were' if count > 1 else 'was'} off by {np.median(off):.2g} %{at_most}"
        return said + (f"; {sum(known)} of {len(known)} measured inside the {self.level:g} % interval" if known else "")

    def reach(self, points: Sequence[Mapping[str, float]]) -> str:
        """How far points lie above the fitted rows, in words; empty where they do not."""
        spans = self.fit.spans
        far = [(point[c] / spans[c][1], c) for point in points for c in self.fit.law.table_columns if spans[c][1] > 0]
        times, column = max(far, default=(0.0, ""))
        return f"up to {times:.2g} times the largest fitted {column}" if times > 1.05 else ""

    def text(self) -> str:
        """The law, its forecasts against the truth, the plans, and every doubt: short enough to read."""
        from isoflop._text import fit_text

        parts = [self.title, fit_text(self.fit)]
        if self.checks:
            parts.append(f"{self.verdict()}\n" + aligned(self.check_grid(), _SHOWN))
        if self.plans:
            parts.append(f"Plans, {self.plan_words()}\n{aligned(self.plan_grid(), _SHOWN)}")
        extra = [d for d in self.doubts if d not in self.fit.warnings]
        if extra:
            parts.append("\n".join(f"note: {d}" for d in extra))
        return "\n\n".join(parts)

    def __str__(self) -> str:
        return self.text()

    def plan_words(self) -> str:
        """What a plan's numbers are, and how far beyond the fitted rows they lie."""
        columns = self.fit.law.table_columns
        if len(columns) == 1:
            far = self.reach([{columns[0]: p.budget} for p in self.plans])
            return f"where the law passes at each {columns[0]}" + (f"; {far}" if far else "")
        held = "".join(f", {c} held at {amount(c, v)}" for c, v in self.fixed.items())
        far = self.reach([{c: p.law[c].median for c in columns} for p in self.plans])
        return f"best under each budget ({self.meter.name}: {self.meter.formula}{held}){f'; {far}' if far else ''}"

    def coef_grid(self) -> Grid:
        """Coefficients with their intervals."""
        intervals = self.fit.interval()
        rows = [(name, f"{v:.5g}", words(intervals[name], "{:.4g}".format)) for name, v in self.fit.coef.items()]
        return Grid(("coefficient", "best fit", f"{self.level:g} % interval"), rows)

    def check_grid(self) -> Grid:
        """Each held-out row: forecast, measured, and how far off."""
        columns, target = self.fit.law.table_columns, self.fit.law.target
        header = ("held-out row", *columns, "forecast", f"{self.level:g} % interval", "measured", "off", "inside")
        rows = [
            (
                c.name,
                *(amount(k, v) for k, v in c.point.items()),
                amount(target, c.forecast.median),
                span(target, c.forecast, self.level),
                amount(target, c.measured),
                f"{c.off:+.2f} %" if np.isfinite(c.off) else f"{c.forecast.median - c.measured:+.4g}",
                {True: "yes", False: "no", None: "-"}[c.inside(self.level)],
            )
            for c in self.checks
        ]
        return Grid(header, rows)

    def plan_grid(self) -> Grid:
        """Each budget: the law's allocation, and the parabolas' beside it where there are any."""
        budget = self.meter.column if self.frontier else self.fit.law.table_columns[0]
        names = [n for n in self.plans[0].law if n not in self.fixed] if self.plans else []
        second = [n for n in ("params", "tokens") if any(p.second for p in self.plans)]
        rows = [
            (
                amount(budget, p.budget),
                *(both(n, p.law[n], self.level) for n in names),
                *(both(n, p.second[n], self.level) if p.second else "-" for n in second),
            )
            for p in self.plans
        ]
        return Grid((budget, *names, *(f"{n} by IsoFLOP parabolas" for n in second)), rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values with stable names; numbers that are not finite become null."""
        return finite({
            "format": _FORMAT,
            "isoflop": isoflop.__version__,
            "title": self.title,
            "fit": self.fit.to_dict(),
            "held_out": [_check_dict(c, self.level) for c in self.checks],
            "plans": [
                {"budget": p.budget, "law": p.law.to_dict(), "isoflops": p.second.to_dict() if p.second else None}
                for p in self.plans
            ],
            "frontier": [{"budget": b, **answer.to_dict()} for b, answer in self.frontier],
            "isoflops": _profiles_dict(self.isoflops, self.level) if self.isoflops else None,
            "meter": self.meter.name,
            "fixed": self.fixed,
            "warnings": list(self.doubts),
        })  # fmt: skip

    def figures(self, folder: str | os.PathLike[str], *, kinds: Sequence[str] = ("png",)) -> list[Path]:
        """Write the figures that this law and these rows allow into a folder; `kinds`: png, svg, pdf. Returns paths.

        Raises ImportError with the install line where matplotlib is missing.
        """
        from isoflop import _figures

        Path(folder).mkdir(parents=True, exist_ok=True)
        return [
            _figures.save(ax, Path(folder) / f"{name}.{kind}")
            for name, ax in self._panels()
            for kind in kinds
        ]  # fmt: skip

    def _panels(self) -> Iterable[tuple[str, Any]]:
        from isoflop import _figures as f

        fit, rows, held = self.fit, self.rows, self.held_out
        if len(fit.law.table_columns) == 1:
            upto = max((p.budget for p in self.plans), default=None)
            yield "one_axis", f.one_axis(fit, rows, held_out=held, upto=upto)
        elif rows.cost is not None:
            yield "loss_vs_compute", f.loss_vs_compute(fit, rows, held_out=held, frontier=self.frontier)
        if self.slices():
            yield "isoflop_curves", f.isoflop_curves(fit, rows, isoflops=self.isoflops, held_out=held,
                                                     fixed=self.fixed, band=True)  # fmt: skip
        yield "residuals", f.residual_panels(fit, rows, held_out=held)
        if held is not None:
            yield "forecast_vs_truth", f.forecast_vs_truth(fit, held)

    def slices(self) -> list[_curves.Slice]:
        """The budgets that the rows come in; none where the law cannot be drawn at one."""
        others = set(self.fit.law.table_columns) - {"params", "tokens"}
        return _curves.slices(self.rows, self.held_out) if others <= set(self.fixed) else []

    def html(self, path: str | os.PathLike[str]) -> Path:
        """Write one interactive page that loads nothing from anywhere, about 5 MB of it the plotting library.

        Raises ImportError with the install line where plotly is missing.
        """
        from isoflop._html import page

        target = Path(path)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            part.write_text(page(self), encoding="utf-8", errors="backslashreplace")
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        return target


def report(
    fit: Fit,
    table: Any,
    *,
    held_out: Any = None,
    budgets: Iterable[float] = (),
    isoflops: IsoFlops | None = None,
    meter: str | Meter = "train_flops",
    fixed: Mapping[str, float] | None = None,
    title: str | None = None,
) -> Report:
    """Everything that follows from a fit, computed once.

    table: the rows that were fitted. held_out: rows kept from the fit, to hold its forecasts against. budgets: what to
    plan for, in the meter's unit; for a law of one column, values of that column. isoflops: a second opinion; made from
    the table where it can be. fixed: the law's columns that a plan holds fixed (unique=1e11).

    What cannot be had (no frontier, no profiles) is a note on the report and not an error. Raises RunsError where the
    rows cannot be used.
    """
    counted, held, notes = get_meter(meter), dict(fixed or {}), []
    rows = _curves.rows_of(fit, table, counted)
    unseen = None if held_out is None else _curves.rows_of(fit, held_out, counted)
    asked = [float(b) for b in budgets]
    notes += [*_same_rows(fit, rows), *_leaked(rows, unseen), *_other_count(rows, counted)]
    if isoflops is None and {"params", "tokens"} <= set(fit.law.table_columns):
        isoflops, why = _second_opinion(rows, fit.law.target, counted)
        notes += why
    plans, why = _plans(fit, asked, counted, held, isoflops)
    frontier, no_line = _frontier(fit, rows, unseen, plans, counted, held)
    return Report(
        title=title or f"The {fit.law.name} law on {Path(rows.table.name).name}",
        fit=fit,
        rows=rows,
        held_out=unseen,
        isoflops=isoflops,
        frontier=frontier,
        plans=plans,
        checks=_checks(fit, unseen),
        meter=counted,
        fixed=held,
        notes=(*notes, *(why or no_line)),
    )


# ---- what goes into it -----------------------------------------------------------------------------------------------


def _checks(fit: Fit, held: Rows | None) -> tuple[Check, ...]:
    if held is None:
        return ()
    answers = _curves.forecasts(fit, held)
    points = [{c: float(v[i]) for c, v in held.columns.items()} for i in range(len(held))]
    return tuple(
        Check(name, point, float(measured), answer[fit.law.target], answer.warnings)
        for name, point, measured, answer in zip(held.names, points, held.target, answers, strict=True)
    )


def _plans(
    fit: Fit, budgets: list[float], meter: Meter, fixed: dict[str, float], isoflops: IsoFlops | None
) -> tuple[tuple[Plan, ...], list[str]]:
    column = fit.law.table_columns[0]
    if len(fit.law.table_columns) == 1:
        return tuple(Plan(b, fit.forecast(level=fit.level, kind="law", **{column: b}), None) for b in budgets), []
    try:
        frontier = _curves.frontier_of(fit, budgets, meter=meter, fixed=fixed)
    except ValueError as error:
        return (), [f"no plans: {error}"]
    same = meter.column == "flops" and not fixed
    second = [isoflops.allocate(b, level=fit.level) if same and isoflops else None for b in budgets]
    return tuple(Plan(b, answer, other) for (b, answer), other in zip(frontier, second, strict=True)), []


def _frontier(
    fit: Fit, rows: Rows, held: Rows | None, plans: tuple[Plan, ...], meter: Meter, fixed: dict[str, float]
) -> tuple[Frontier, list[str]]:
    """The best at each of a grid of budgets; where a plan stands at one, its own answer."""
    if len(fit.law.table_columns) == 1:
        return [], []
    known = {p.budget: p.law for p in plans}
    grid = [b for b in _curves.frontier_span(rows, held, known) if b not in known]
    try:
        found = dict(_curves.frontier_of(_curves.thinned(fit), grid, meter=meter, fixed=fixed))
    except ValueError as error:
        return [], [f"no frontier: {error}"]
    return sorted({**found, **known}.items(), key=lambda item: item[0]), []


def _second_opinion(rows: Rows, target: str, meter: Meter) -> tuple[IsoFlops | None, list[str]]:
    from isoflop._isoflops import isoflops

    if rows.cost is None or meter.column != "flops":
        return None, []
    try:
        return isoflops(rows.table, loss=target, draws=_PROFILE_DRAWS), []
    except RunsError as error:
        return None, [f"no second opinion from IsoFLOP profiles: {error}"]


def _same_rows(fit: Fit, rows: Rows) -> Iterable[str]:
    names = [*fit.law.table_columns, fit.law.target]
    if len(rows) != fit.n or rows.table.hash_of(names) != fit.made["data_hash"]:
        yield f"these {len(rows)} rows are not the {fit.n} rows that the fit was made of (their hashes differ)"


def _leaked(rows: Rows, held: Rows | None) -> Iterable[str]:
    """Held-out rows that the fit has seen."""
    if held is None:
        return
    seen = set(zip(*rows.columns.values(), rows.target, strict=True))
    both = sum(row in seen for row in zip(*held.columns.values(), held.target, strict=True))
    if both:
        yield f"{both} of {len(held)} held-out rows are also among the fitted rows, so they were not held out"


def _other_count(rows: Rows, meter: Meter) -> Iterable[str]:
    """The table's own cost against the meter's: the frontier is drawn in the meter's."""
    if rows.cost is None or not all(c in rows.table.columns for c in meter.needs):
        return
    given = {c: rows.table[c] for c in (*meter.needs, *meter.uses) if c in rows.table.columns}
    apart = float(np.exp(np.median(np.log(rows.cost / np.asarray(meter(**given), float)))))
    if not 0.9 < apart < 1.1:
        yield (
            f"the table's {meter.column} are {apart:.2g} times what meter {meter.name} counts, in the median; the "
            "frontier and the plans are in the meter's"
        )


# ---- words and numbers -----------------------------------------------------------------------------------------------


def words(ends: tuple[float, float], write: Callable[[float], str]) -> str:
    """An interval; a dash where there is none."""
    low, high = ends
    return f"{write(low)} to {write(high)}" if np.isfinite(low) else "-"


def span(column: str, q: Quantity, level: float) -> str:
    """The interval of a number of some column."""
    return words(q.interval(level), lambda v: amount(column, v))


def both(column: str, q: Quantity, level: float) -> str:
    """Median and interval."""
    interval = span(column, q, level)
    return amount(column, q.median) + ("" if interval == "-" else f" ({interval})")


def aligned(grid: Grid, most: int) -> str:
    """A grid as lines of text, at most `most` rows and how many more there are."""
    rows = [tuple(plain(cell) for cell in row) for row in grid.rows]
    shown = [grid.header, *rows[:most]]
    widths = [max(len(row[k]) for row in shown) for k in range(len(grid.header))]
    lines = ["  " + "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in shown]
    return "\n".join([*lines, *([f"  and {len(rows) - most} more"] if len(rows) > most else [])])


def _check_dict(c: Check, level: float) -> dict[str, Any]:
    numbers = {"median": c.forecast.median, "best": c.forecast.best, "interval": list(c.forecast.interval(level))}
    return {"name": c.name, "at": c.point, "measured": c.measured, "forecast": numbers, "off_percent": c.off,
            "inside": c.inside(level), "warnings": list(c.warnings)}  # fmt: skip


def _profiles_dict(found: IsoFlops, level: float) -> dict[str, Any]:
    def quantity(q: Quantity) -> dict[str, Any]:
        return {"median": q.median, "best": q.best, "interval": list(q.interval(level))}

    profiles = [
        {"flops": p.flops, "params": quantity(p.best_params), "loss": quantity(p.best_loss)} for p in found.profiles
    ]
    return {"exponent": quantity(found.a), "profiles": profiles, "warnings": list(found.warnings)}
