"""What a notebook shows of a result: a small table in HTML or Markdown, the same as a pandas frame, and a figure.

One base class a result. The tables use inherited colours, hold no script and no style sheet, and escape everything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop._columns import plain

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

_MOST_ROWS = 200
_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$])")
_LINE = "border-bottom:1px solid color-mix(in srgb,currentColor 30%,transparent)"
_CELL = f"padding:0.2em 0.7em;background:transparent;{_LINE}"


@dataclass(frozen=True)
class Sheet:
    """One table: a caption, rows from column to value (the first column names the row), and doubts below it."""

    caption: str
    rows: Sequence[Mapping[str, Any]]
    doubts: Sequence[str] = ()

    @property
    def columns(self) -> list[str]:
        """The columns of all rows, in order."""
        return list(dict.fromkeys(c for row in self.rows for c in row))

    @property
    def title(self) -> str:
        """The caption, and how many rows are shown where that is not all."""
        more = f" The first {_MOST_ROWS} of {len(self.rows)} rows." if len(self.rows) > _MOST_ROWS else ""
        return self.caption + more

    def html(self) -> str:
        """The table as HTML."""
        heads = "".join(_head(c, "col", "bottom", k) for k, c in enumerate(self.columns))
        body = "".join(f"<tr>{_row(row, self.columns)}</tr>" for row in self.rows[:_MOST_ROWS])
        doubts = "".join(f"<li>{escape(plain(d))}</li>" for d in self.doubts)
        title = escape(plain(self.title))
        return (
            '<div role="region" tabindex="0" style="overflow-x:auto;color:inherit;background:transparent" '
            f'aria-label="{title}"><table style="border-collapse:collapse;color:inherit;background:transparent">'
            f'<caption style="caption-side:top;text-align:left;color:inherit">{title}</caption>'
            f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
            + (f"<p>Doubts:</p><ul>{doubts}</ul>" if doubts else "")
            + "</div>"
        )

    def markdown(self) -> str:
        """The table as Markdown, as GitHub and notebooks read it."""
        lines = [
            "| " + " | ".join(map(_marked, self.columns)) + " |",
            "|" + "|".join("---" if k == 0 else "---:" for k, _ in enumerate(self.columns)) + "|",
        ]
        for row in self.rows[:_MOST_ROWS]:
            lines.append("| " + " | ".join(_marked(_text(row.get(c))) for c in self.columns) + " |")
        return "\n".join([_marked(self.title), "", *lines, "", *(f"- {_marked(d)}" for d in self.doubts)])


def _head(text: str, scope: str, align: str, k: int) -> str:
    side = "left" if k == 0 else "right"
    style = f"{_CELL};text-align:{side};vertical-align:{align};color:inherit"
    return f'<th scope="{scope}" style="{style}">{escape(plain(text))}</th>'


def _row(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    cells = [_text(row.get(c)) for c in columns]
    rest = "".join(f'<td style="{_CELL};text-align:right">{escape(plain(c))}</td>' for c in cells[1:])
    return _head(cells[0], "row", "top", 0) + rest


def _text(value: Any) -> str:
    """A cell: floats to five digits, nothing where there is nothing."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _marked(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", escape(plain(text), quote=False))


class Shown:
    """A result with `_sheet`: notebooks show the table, the prompt shows what `print` does."""

    def _sheet(self) -> Sheet:
        raise NotImplementedError

    def to_frame(self) -> pandas.DataFrame:
        """The table that notebooks show, as a pandas frame: numbers as numbers."""
        import pandas

        sheet = self._sheet()
        return pandas.DataFrame([dict(row) for row in sheet.rows], columns=sheet.columns)

    def _repr_html_(self) -> str:
        return self._sheet().html()

    def _repr_markdown_(self) -> str:
        return self._sheet().markdown()

    def __repr__(self) -> str:
        return str(self)


class ShownFit(Shown):
    """How a Fit is shown: one coefficient a row."""

    def _sheet(self: Any) -> Sheet:
        held, ends = len(self.draws), self.interval()
        rows = [
            {"coefficient": c, "value": v} | (dict(zip(("low", "high"), ends[c], strict=True)) if held else {})
            for c, v in self.coef.items()
        ]
        words = f" Central {self.level:g} % intervals of {held} draws." if held else ""
        found = f"{self.n} rows, {self.objective['name']}, {self.agreeing} of {self.starts} starts agree."
        return Sheet(f"{self.law.name}: {self.law.formula}. {found}{words}", rows, self.warnings)

    def plot(self: Any, runs: Any = None, *, held_out: Any = None, ax: Axes | None = None) -> Axes:
        """Runs under the law: along its column for a law of one, else against compute, else what the law misses.

        Without runs the law alone, over the span of the fitted rows. ax: matplotlib axes to draw on; without them a new
        pyplot figure, which a notebook shows and `pyplot.show()` opens. Returns the axes. Raises ValueError where there
        is nothing to draw against, ImportError without matplotlib.
        """
        from isoflop import _plots

        return _plots.fit_panel(self, runs, held_out=held_out, ax=_plots.current(ax))


class ShownStack(Shown):
    """How a Stack is shown: one law a row."""

    def _sheet(self: Any) -> Sheet:
        rows = [{"law": p.law.name, "weight": p.weight} | p.coef for p in self.parts]
        return Sheet(f"auto: {self.target} from {self.n} rows ordered by {self.scale}.", rows, self.warnings)

    def plot(self: Any, runs: Any, *, ax: Axes | None = None) -> Axes:
        """Runs under the laws' common forecast: along their column, or for laws of several forecast against measured.

        ax and what is returned: as `Fit.plot`.
        """
        from isoflop import _plots

        return _plots.stack_panel(self, runs, ax=_plots.current(ax))


class ShownAnswer(Shown):
    """How forecasts and plans are shown: one quantity a row."""

    def _sheet(self: Any) -> Sheet:
        rows = []
        for name, q in self.quantities.items():
            row: dict[str, Any] = {"quantity": name, "median": q.median, "best": q.best}
            for k, level in enumerate(self.levels):
                mark = f"_{level:g}" if k else ""
                low, high = q.interval(level)
                row |= {f"low{mark}": low, f"high{mark}": high}
            rows.append(row)
        levels = ", ".join(f"{level:g} %" for level in self.levels)
        return Sheet(f"Medians and central intervals ({levels}); best: at the best fit.", rows, self.warnings)

    def plot(self: Any, *, ax: Axes | None = None) -> Axes:
        """Each quantity's intervals about its median. ax and what is returned: as `Fit.plot`."""
        from isoflop import _plots

        return _plots.answer_panel(self, ax=_plots.current(ax))


class ShownRanking(Shown):
    """How a comparison is shown: one law a row."""

    def _sheet(self: Any) -> Sheet:
        cuts = f" at {self.cuts} cuts" if self.cuts > 1 else ""
        fitted = f"Fitted on {self.n_fitted} rows, forecast of {self.n_held_out} held out{cuts}"
        return Sheet(f"{fitted}; errors and widths in %.", self.to_dict()["rows"], self.warnings)

    def plot(self: Any, *, ax: Axes | None = None) -> Axes:
        """Each law's median error and its 90th percentile. ax and what is returned: as `Fit.plot`."""
        from isoflop import _plots

        return _plots.ranking_panel(self, ax=_plots.current(ax))


class ShownLeague(Shown):
    """How a league is shown: one method on one task a row."""

    def _sheet(self: Any) -> Sheet:
        words = "Errors, widths and interval scores in % of the truth; bias: the share of forecasts above it."
        return Sheet(words, self.to_dict()["scores"], self.left_out)
