"""What a meter is: one function without free coefficients, from table columns to a column. And how gaps are filled.

Columns before `*` (with default None where optional), settings after it:

    @meter("flops")
    def train_flops(params, tokens, context=None, *, attention="none"): ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop import _find

if TYPE_CHECKING:
    from isoflop._runs import Table


@dataclass(frozen=True)
class Meter:
    """A way of counting. Call it with columns and settings by name; it returns one number a row."""

    name: str
    function: Callable[..., Any]
    column: str
    needs: tuple[str, ...]
    uses: tuple[str, ...]  # taken where the table has them
    settings: dict[str, Any]
    by_run: bool  # rows belong together in runs, ordered by step

    def __call__(self, **values: Any) -> Any:
        """The metered column. Raises ValueError where a column that the settings call for is missing."""
        return self.function(**{k: v for k, v in values.items() if k in {*self.needs, *self.uses, *self.settings}})

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


def meter(column: str, *, by_run: bool = False) -> Callable[[Callable[..., Any]], Meter]:
    """Make a meter of a function; `column` is what it fills."""

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
    missing = [c for c in m.needs if c not in table.columns]
    if missing:
        raise ValueError(f"meter {m.name!r} needs column {missing[0]!r} to fill {m.column!r}, and the table has none")
    made = np.asarray(m(**{c: table.columns[c] for c in (*m.needs, *m.uses) if c in table.columns}, **settings), float)
    label = m.label(settings)
    if m.column not in table.columns:
        source = np.full(len(made), label, dtype=object)
        return table.with_column(m.column, made).with_column(f"{m.column}_source", source)
    have = np.asarray(table.columns[m.column], float)
    gaps = np.isnan(have)
    if not gaps.any():
        return table
    source = table.columns.get(f"{m.column}_source", np.full(len(have), "measured", dtype=object)).copy()
    source[gaps] = label
    return table.with_column(m.column, np.where(gaps, made, have)).with_column(f"{m.column}_source", source)


def derive(table: Table, columns: tuple[str, ...]) -> tuple[Table, dict[str, str]]:
    """Fill columns that the table lacks and that a meter of the same name makes; also which meter made which."""
    made = {}
    for column in columns:
        if column not in table.columns and column in _find.names("meters"):
            m = get_meter(column)
            if all(c in table.columns for c in m.needs):
                table = fill(table, m)
                made[column] = m.label({})
    return table, made
