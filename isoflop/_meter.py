"""What a meter is: one function without free coefficients, from table columns to a column or to one answer a run.

Columns before `*` (with default None where optional), settings after it:

    @meter("flops")
    def train_flops(params, tokens, context=None, *, attention="none"): ...

    @meter("lr_sensitivity", per="run")
    def lr_sensitivity(lr, loss, *, start=None): ...  # returns {"lr_sensitivity": ..., "best_lr": ...}
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop import _find
from isoflop._law import part_names

if TYPE_CHECKING:
    import pandas

    from isoflop._runs import Table


@dataclass(frozen=True)
class Meter:
    """A way of counting, or a score. Call it with columns and settings by name.

    It returns a number a row, or (rows, parts); with per="run" one answer for all rows: figures and words by name.
    """

    name: str
    function: Callable[..., Any]
    column: str
    needs: tuple[str, ...]
    uses: tuple[str, ...]  # taken where the table has them
    settings: dict[str, Any]
    by_run: bool  # rows belong together in runs, ordered by step
    parts: int = 0  # how many columns it fills, `column`_1 and so on; 0: `column` itself
    per: str = "row"  # or "run": one answer a run, of which `column` is the first figure
    stack: tuple[str, ...] = ()  # x takes the columns x_1, x_2, ... of a table, or x alone, as one (rows, columns)

    def __call__(self, **values: Any) -> Any:
        """The metered column. Raises ValueError where a column that the settings call for is missing."""
        return self.function(**{k: v for k, v in values.items() if k in {*self.needs, *self.uses, *self.settings}})

    @property
    def columns(self) -> list[str]:
        """What it fills."""
        return part_names(self.column, self.parts) if self.parts else [self.column]

    @property
    def doc(self) -> str:
        """The docstring."""
        return inspect.cleandoc(self.function.__doc__ or "")

    @property
    def formula(self) -> str:
        """The first line of the docstring."""
        return self.doc.split("\n", 1)[0]

    def label(self, settings: Mapping[str, Any]) -> str:
        """How a filled value is marked: the meter's name, with the settings that were not default."""
        told = [f"{k}={v}" for k, v in settings.items() if self.settings.get(k) != v]
        return f"{self.name}({', '.join(told)})" if told else self.name


def meter(
    column: str, *, by_run: bool = False, parts: int = 0, per: str = "row", stack: tuple[str, ...] = ()
) -> Callable[[Callable[..., Any]], Meter]:
    """Make a meter of a function; `column` is what it fills, or with `parts` column_1 and so on, for a law of parts.

    per="run": the function takes the rows of one run, in their order, and returns a dict of figures and words whose
    first is `column`. stack: arguments that take the columns NAME_1, NAME_2, ... (or NAME alone) as one array.
    """
    if per not in ("row", "run"):
        raise ValueError(f"a meter answers per row or per run, got per={per!r}")

    def decorate(function: Callable[..., Any]) -> Meter:
        p = inspect.signature(function).parameters.values()
        places = [x for x in p if x.kind is x.POSITIONAL_OR_KEYWORD]
        return Meter(
            name=function.__name__,
            function=function,
            column=column,
            needs=tuple(x.name for x in places if x.default is x.empty),
            uses=tuple(x.name for x in places if x.default is not x.empty),
            settings={x.name: x.default for x in p if x.kind is x.KEYWORD_ONLY},
            by_run=by_run,
            parts=parts,
            per=per,
            stack=stack,
        )

    return decorate


def get_meter(name: str | Meter) -> Meter:
    """A meter by name, by "file.py:name", or as it is. Raises LookupError where there is none."""
    found = _find.get("meters", name) if isinstance(name, str) else name
    if not isinstance(found, Meter):
        raise LookupError(f"{name!r} is not a meter; write one with @isoflop.meter")
    return found


def fill(table: Table, name: str | Meter, **settings: Any) -> Table:
    """The table with the meter's column filled where it is missing, and `<column>_source` saying so row by row.

    Measured values stay. Raises ValueError where a column that the meter needs is missing.
    """
    m = get_meter(name)
    if m.per == "run":
        raise ValueError(f"meter {m.name!r} gives one answer a run and fills no column (isoflop measure {m.name})")
    made = np.asarray(m(**_taken(m, table.columns), **settings), float)
    label = m.label(settings)
    for column, values in zip(m.columns, np.atleast_2d(made.T), strict=True):
        table = _filled(table, column, values, f"{m.column}_source", label)
    return table


def _taken(m: Meter, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a meter takes of a table. Raises ValueError where a column that it needs is missing."""
    out = {}
    for name in (*m.needs, *m.uses):
        if name in m.stack and (listed := _numbered(name, columns)):
            out[name] = np.stack([np.asarray(columns[c], float) for c in listed], axis=1)
        elif name in columns:
            out[name] = columns[name]
        elif name in m.needs:
            also = f" (or {name}_1, {name}_2, ...)" if name in m.stack else ""
            raise ValueError(
                f"meter {m.name!r} needs column {name!r}{also} to give {m.column!r}, and the table has none"
            )
    return out


def _numbered(name: str, columns: Mapping[str, Any]) -> list[str]:
    """`name` itself where it is a column, else name_1, name_2, ... in the order of their numbers."""
    if name in columns:
        return [name]
    found = (re.fullmatch(rf"{re.escape(name)}_(\d+)", c) for c in columns)
    return [m[0] for m in sorted((m for m in found if m), key=lambda m: int(m[1]))]


def _filled(table: Table, column: str, made: np.ndarray, source: str, label: str) -> Table:
    if column not in table.columns:
        return table.with_column(column, made).with_column(source, np.full(len(made), label, dtype=object))
    have = np.asarray(table.columns[column], float)
    gaps = np.isnan(have)
    if not gaps.any():
        return table
    sources = table.columns.get(source, np.full(len(have), "measured", dtype=object)).copy()
    sources[gaps] = label
    return table.with_column(column, np.where(gaps, made, have)).with_column(source, sources)


def derive(table: Table, columns: tuple[str, ...]) -> tuple[Table, dict[str, str]]:
    """Fill columns that the table lacks and that a meter of the same name makes; also which meter made which."""
    made: dict[str, str] = {}
    missing = [c for c in columns if c not in table.columns]
    names = set(_find.names("meters")) if missing else set()
    for column in missing:
        name = column if column in names else column.rstrip("0123456789").removesuffix("_")
        if column not in table.columns and name in names:
            m = get_meter(name)
            here = all(c in table.columns for c in m.needs)
            if here and m.per == "row" and (name == column or column in m.columns):
                table = fill(table, m)
                made[name] = m.label({})
    return table, made


# ---- any meter on any table ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What a meter found: one dict a run (or a row), `by` first; the figure that the meter is named for is `column`."""

    meter: str
    column: str
    per: str
    by: str | None
    rows: tuple[dict[str, Any], ...]

    def __getitem__(self, name: str) -> Any:
        """A figure by name where there is one row, else the list of it over the rows."""
        values = [row[name] for row in self.rows]
        return values[0] if len(values) == 1 else values

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        whole = {"meter": self.meter, "column": self.column, "per": self.per, "by": self.by}
        return whole | {"rows": [dict(row) for row in self.rows]}

    def to_frame(self) -> pandas.DataFrame:
        """A pandas frame, one row a run."""
        import pandas

        return pandas.DataFrame(list(self.rows))

    def __str__(self) -> str:
        if len(self.rows) == 1:
            width = max(map(len, self.rows[0]))
            return "\n".join(f"{name:<{width}}  {_shown(value)}" for name, value in self.rows[0].items())
        head = list(dict.fromkeys(name for row in self.rows for name in row))
        cells = [head, *([_shown(row.get(name, "")) for name in head] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def measure(name: str | Meter, runs: Any, *, by: str | None = None, **settings: Any) -> Measured:
    """Run a meter on a table: one answer for each value of `by`, or a number a row from a meter that counts rows.

    by: where it is not given and the table has a column `run`, a meter that answers per run takes that; rows of one
    run go in the order of `step` where there is such a column. settings: the meter's own. Raises LookupError for no
    such meter, ValueError for a missing column, an unknown setting, or rows that the meter cannot use.
    """
    from isoflop import _runs

    m, table = get_meter(name), _runs.load(runs)
    unknown = [key for key in settings if key not in m.settings]
    if unknown:
        raise ValueError(f"meter {m.name!r} has no setting {unknown[0]!r}; it has {', '.join(m.settings) or 'none'}")
    if m.per == "row":
        if by is not None:
            raise ValueError(f"meter {m.name!r} gives a number a row; by is for meters that answer per run")
        return Measured(m.name, m.column, "row", None, tuple(_by_row(m, table, settings)))
    by = by or ("run" if "run" in table.columns and "run" not in (*m.needs, *m.uses) else None)
    return Measured(m.name, m.column, "run", by, tuple(_by_run(m, table, by, settings)))


def _by_row(m: Meter, table: Table, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    made = np.asarray(m(**_taken(m, table.columns), **settings), float)
    kept = [c for c in ("run", "step") if c in table.columns]
    for i, values in enumerate(np.atleast_2d(made.T).T):
        yield {"row": i, **{c: _plain(table[c][i]) for c in kept}, **dict(zip(m.columns, values.tolist(), strict=True))}


def _by_run(m: Meter, table: Table, by: str | None, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    keys = np.zeros(len(table), int) if by is None else np.unique(table[by].astype(str), return_inverse=True)[1]
    for key in dict.fromkeys(keys.tolist()):
        part = table.select(np.flatnonzero(keys == key))
        if "step" in part.columns and part["step"].dtype != object:
            part = part.select(np.argsort(part["step"], kind="stable"))
        value = _plain(part[by][0]) if by else None
        try:
            found = dict(m(**_taken(m, part.columns), **settings))
        except ValueError as error:
            raise ValueError(f"{by} {value!r}: {error}" if by else str(error)) from error
        yield ({by: value} if by else {}) | {k: _plain(v) for k, v in found.items()}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _shown(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
