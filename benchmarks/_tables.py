"""How the benchmark's rows are printed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGES = ("isoflop", "numpy", "scipy", "lmfit", "chinchilla", "jax", "optimistix")


@dataclass
class Row:
    """One line of a table. Seconds are medians; `low`, `high` the range of the wall seconds over the repeats."""

    section: str
    name: str
    wall: float | None = None
    cpu: float | None = None
    low: float | None = None
    high: float | None = None
    sample: int | None = None  # how many were run, where the seconds are scaled up from a part
    gap: float | None = None  # objective over the lowest found by anyone, minus 1
    hits: float | None = None  # share within 1e-9 of it
    peak: float | None = None  # MiB
    note: str = ""
    more: dict[str, Any] = field(default_factory=dict)


Rows = list[Row]
Cell = Callable[[Rows, Row], str]


# ---- cells -----------------------------------------------------------------------------------------------------------


def find(rows: Rows, section: str, name: str) -> Row | None:
    """A row that was measured."""
    return next((row for row in rows if (row.section, row.name) == (section, name) and row.wall is not None), None)


def number(value: float | None) -> str:
    """Three digits without exponents, nothing for nothing."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def seconds(_: Rows, row: Row) -> str:
    """Median wall seconds, the range over repeats, and [X] where scaled up from a sample."""
    if row.wall is None:
        return "-"
    spread = "" if row.low is None or row.low == row.high else f" ({number(row.low)}-{number(row.high)})"
    return number(row.wall) + spread + (f" [X {row.sample}]" if row.sample else "")


def against(section: str, name: str, what: str) -> Cell:
    """How many times isoflop's seconds; isoflop's own rows stay empty."""

    def cell(rows: Rows, row: Row) -> str:
        mine, value = find(rows, section, name), getattr(row, what)
        if mine is None or value is None or row.name.startswith("isoflop"):
            return ""
        return f"{value / getattr(mine, what):.3g}x"

    return cell


def plain(what: str, scale: float = 1.0) -> Cell:
    """A figure of the row, or of its `more`."""

    def cell(_: Rows, row: Row) -> str:
        value = row.more.get(what, getattr(row, what, None))
        return str(value) if isinstance(value, str | int) else number(None if value is None else scale * value)

    return cell


def gap(_: Rows, row: Row) -> str:
    """Relative excess of the objective."""
    return "" if row.gap is None else f"{max(row.gap, 0):.1e}"


def share(_: Rows, row: Row) -> str:
    """Share at the optimum, per cent."""
    return "" if row.hits is None else f"{100 * row.hits:.1f} %"


# ---- tables ----------------------------------------------------------------------------------------------------------

BEST = "isoflop, import to best fit"
REFITTED = "isoflop, import to best fit and 4000 refits"
SHELL = "isoflop, command line from CSV with 4000 refits"
AUDIT = "isoflop, audit from 4500 starts"
BOOTSTRAP = "isoflop"

_FIRST: dict[str, Cell] = {"": plain("name"), "wall s": seconds, "CPU s": plain("cpu")}
_NOTE: dict[str, Cell] = {"": plain("note")}
TABLES: dict[str, tuple[str, list[tuple[str, Cell]]]] = {
    "A": (
        "best fit; peers from the same 4500 starts ([X n]: n of them timed, scaled linearly).\n"
        "   wall, CPU: times isoflop's audit (the same work); answer: times isoflop's import to best fit",
        [*_FIRST.items(), ("gap", gap), ("at optimum", share), ("wall", against("A", AUDIT, "wall")),
         ("CPU", against("A", AUDIT, "cpu")), ("answer", against("A", BEST, "wall")), ("peak MiB", plain("peak")),
         *_NOTE.items()],
    ),
    "B": (
        "4000 bootstrap refits; gap: the worst of the resamples run, at optimum: the share of them",
        [*_FIRST.items(), ("gap", gap), ("at optimum", share), ("wall", against("B", BOOTSTRAP, "wall")),
         ("CPU", against("B", BOOTSTRAP, "cpu")), *_NOTE.items()],
    ),
    "C": (
        "growth: planted Chinchilla rows; best fit, and 1000 draws on top",
        [*_FIRST.items(), ("us a row", plain("cpu_a_row", 1e6)), ("draws wall s", plain("draws_wall")),
         ("draws CPU s", plain("draws_cpu")), ("peak MiB", plain("peak")), *_NOTE.items()],
    ),
    "D": (
        "every law on planted rows with 1 % noise; intervals: how many 90 % intervals hold their planted coefficient",
        [("", plain("name")), ("rows", plain("n")), ("coefficients", plain("p")), ("ms a fit", plain("wall", 1e3)),
         ("CPU ms", plain("cpu", 1e3)), ("agreeing", plain("agreeing")), ("of starts", plain("starts")),
         ("1000 refits s", plain("draws_wall")), ("CPU s", plain("draws_cpu")), ("intervals", plain("inside"))],
    ),
    "E": (
        "derivatives: objective, gradient and exact Hessian at 64 points",
        [("", plain("name")), ("CPU ns a row", plain("ns_a_row"))],
    ),
}  # fmt: skip


def tables(rows: Rows) -> Iterator[str]:
    """All tables that have rows."""
    for section, (title, columns) in TABLES.items():
        mine = [row for row in rows if row.section == section]
        if mine:
            yield from ("", f"{section}. {title}")
            cells = [[cell(rows, row) for _, cell in columns] for row in mine]
            yield from aligned([[head for head, _ in columns], *cells])


def aligned(cells: list[list[str]]) -> Iterator[str]:
    """Columns of equal width: names to the left, numbers to the right, the last as it comes where it is a note."""
    note = cells[0][-1] == ""
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        numbers = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        if note:
            numbers[-1] = line[-1]
        yield "  ".join([line[0].ljust(widths[0]), *numbers]).rstrip()


def goals(rows: Rows) -> Iterator[str]:
    """What this project set itself, on two idle cores."""
    limits = [
        (BEST, "wall", 0.5, "s"),
        (REFITTED, "wall", 1.5, "s"),
        (REFITTED, "peak", 100, "MiB"),
        (SHELL, "wall", 2.5, "s"),
        (AUDIT, "wall", 8, "s"),
    ]
    for name, what, limit, unit in limits:
        row = find(rows, "A", name)
        if row:
            value = getattr(row, what)
            yield f"goal: {name}: {number(value)} {unit}, under {limit:g}: {'met' if value < limit else 'MISSED'}"
    row = find(rows, "A", AUDIT)
    if row and row.hits is not None:
        yield f"goal: share of those starts at the optimum: {share(rows, row)}, at least 80: {_met(row.hits >= 0.8)}"


def _met(yes: bool) -> str:
    return "met" if yes else "MISSED"


# ---- the machine -----------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Cores, load and versions."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    python = platform.python_version()
    return {"cores": cores, "load": load, "processor": _processor(), "python": python, "versions": versions}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def heading(host: dict[str, Any], *, planted: bool, quick: bool) -> Iterator[str]:
    """What the numbers are of."""
    have = ", ".join(f"{name} {version}" for name, version in host["versions"].items() if version)
    yield f"machine: {host['cores']} cores of {host['processor']}, load {host['load']:.2f} at the start"
    yield f"with: Python {host['python']}, {have}"
    yield from busy(host)
    if planted:
        yield "rows: 240 planted ones, as there is no chinchilla/points.csv under ISOFLOP_DATA or ../shared/data"
    else:
        yield "rows: 240 Chinchilla runs (the five highest losses left out)"
    yield "objective: sum of Huber losses, delta 1e-3, of log residuals"
    if quick:
        yield "quick: few repeats, small samples; for trying this out, not for quoting"


def busy(host: dict[str, Any]) -> Iterator[str]:
    """A warning, if other work was running."""
    if host["load"] > 0.5:
        yield f"WARNING: the machine was not idle (load {host['load']:.2f}): seconds are upper bounds, ratios rough"
