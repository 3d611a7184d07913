"""What a law is: one function whose signature is the declaration. Columns before `*`, coefficients after it.

@law(target="loss")
def power(x, *, A=positive(1e-3, 1e6), alpha=positive(0.01, 2)):
    \"\"\"A / x^alpha ...\"\"\"
    return A * x**-alpha

A law may sum over parts of a row: a column declared as `parts` stands for several of the table's.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isoflop import _find
from isoflop._tape import Graph, Node, Tape, _expit


@dataclass(frozen=True)
class Support:
    """Where a coefficient may lie (`kind`) and where it plausibly lies (`low`, `high`): starts and priors come from it.

    kind: "positive", "unit" (0 to 1, fitted as its logit) or "real". With `like`, low and high are multiples of that
    column's smallest and largest value, for coefficients that carry the column's unit. A positive coefficient is fitted
    as its log where its range is wide (an amplitude); where it spans less than two decades (an exponent), as a softplus
    of width `low`: straight over the range, since log-losses are convex in exponents but not in their logs.
    """

    kind: str
    low: float
    high: float
    like: str | None = None

    @property
    def narrow(self) -> bool:
        """Less than two decades wide, in no column's unit."""
        return self.like is None and self.high <= 100 * self.low

    def range(self, columns: Mapping[str, np.ndarray]) -> tuple[float, float]:
        """Plausible range in the units of these rows."""
        if self.like is None:
            return self.low, self.high
        column = np.asarray(columns[self.like])
        if self.kind == "positive" and (column > 0).any():
            column = column[column > 0]  # a zero gives no scale
        return self.low * float(np.min(column)), self.high * float(np.max(column))

    def inward(self, value: Any) -> Any:
        """Coefficient -> unconstrained coordinate. Values at the edge come back finite."""
        if self.kind == "positive" and self.narrow:
            scaled = np.maximum(value, 1e-12 * self.low) / self.low
            return self.low * (scaled + np.log(-np.expm1(-scaled)))
        if self.kind == "positive":
            return np.log(np.maximum(value, 1e-300))
        if self.kind == "unit":
            p = np.clip(value, 1e-12, 1 - 1e-12)
            return np.log(p) - np.log1p(-p)
        return np.asarray(value, dtype=float)

    def outward(self, theta: Any) -> Any:
        """Unconstrained coordinate -> coefficient."""
        if self.kind == "positive" and self.narrow:
            return self.low * np.logaddexp(0.0, theta / self.low)
        if self.kind == "positive":
            return np.exp(np.minimum(theta, 709.0))  # the largest there is
        if self.kind == "unit":
            return _expit(theta)
        return theta

    def node(self, graph: Graph, index: int) -> Node:
        """The coefficient as a symbol."""
        if self.kind == "positive" and not self.narrow:
            return graph.exp(graph.coef(index))
        return graph.coef(index, positive=self.kind != "real")

    def half_way(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unconstrained coordinate -> the symbol's own coordinate (see `node`), with first and second derivative.

        Logs stay logs, as they merge with the law's own exponentials; the others are mapped here, once a problem
        instead of once a row.
        """
        if self.kind == "positive" and self.narrow:
            slope = _expit(theta / self.low)
            return self.low * np.logaddexp(0.0, theta / self.low), slope, slope * (1.0 - slope) / self.low
        if self.kind == "unit":
            value = _expit(theta)
            slope = value * (1.0 - value)
            return value, slope, slope * (1.0 - 2.0 * value)
        return theta, np.ones_like(theta), np.zeros_like(theta)

    def words(self) -> str:
        """As shown to people: "positive, 0.05 to 1"."""
        of = f" x {self.like}" if self.like else ""
        return f"{self.kind}, {self.low:g} to {self.high:g}{of}"


def positive(low: float, high: float, *, like: str | None = None) -> Any:
    """A coefficient above zero, plausibly between low and high (times the range of column `like`)."""
    if not (low > 0 and high > 0 and (low <= high or like)):
        raise ValueError(f"positive({low:g}, {high:g}): low must be above zero and at most high")
    return Support("positive", low, high, like)


def unit(low: float = 0.0, high: float = 1.0) -> Any:
    """A coefficient between 0 and 1."""
    if not 0 <= low < high <= 1:
        raise ValueError(f"unit({low:g}, {high:g}): need 0 <= low < high <= 1")
    return Support("unit", low, high)


def real(low: float, high: float, *, like: str | None = None) -> Any:
    """A coefficient of any sign, plausibly between low and high."""
    if not low < high:
        raise ValueError(f"real({low:g}, {high:g}): low must be below high")
    return Support("real", low, high, like)


@dataclass(frozen=True)
class Law:
    """A functional form with its declaration. Call it with columns and coefficients by name."""

    name: str
    function: Callable[..., Any]
    columns: tuple[str, ...]
    coefs: dict[str, Support]
    target: str
    objective: str
    axis: tuple[tuple[str, str], ...] = ()  # (the function's own column name, the table's)
    parts: tuple[tuple[str, int], ...] = ()  # (a name of the signature, of how many columns it is a tuple)

    def __call__(self, **values: Any) -> Any:
        """The law's value; numpy arrays broadcast. Raises TypeError where a column or coefficient is missing."""
        own = {mine: values.pop(theirs) for mine, theirs in self.axis if theirs in values}
        return self.function(**own, **values)

    @property
    def table_columns(self) -> tuple[str, ...]:
        """The law's columns under the names they have in the table."""
        bound = dict(self.axis)
        return tuple(bound.get(c, c) for c in self.columns)

    @property
    def own_columns(self) -> tuple[str, ...]:
        """The table's columns that are no parts: these have a meaning, and a span, of their own."""
        parts = {c for name, count in self.parts for c in part_names(name, count)}
        return tuple(c for mine, c in zip(self.columns, self.table_columns, strict=True) if mine not in parts)

    @property
    def listed(self) -> tuple[str, ...]:
        """The table's columns as shown to people: parts as "name_1 ... name_n"."""
        return (*self.own_columns, *(f"{name}_1 ... {name}_{count}" for name, count in self.parts))

    @property
    def doc(self) -> str:
        """The docstring: formula, source, units."""
        return inspect.cleandoc(self.function.__doc__ or "")

    @property
    def formula(self) -> str:
        """The first line of the docstring."""
        return self.doc.split("\n", 1)[0]

    def bind(self, *, axis: str | Mapping[str, str] | None = None, target: str | None = None) -> Law:
        """The same law on other column names: `axis="flops"` for a law of one column, or a mapping."""
        pairs = self.axis
        if isinstance(axis, str):
            if len(self.columns) != 1:
                raise ValueError(
                    f"law {self.name!r} has columns {', '.join(self.columns)}: give axis as a mapping from these"
                )
            pairs = ((self.columns[0], axis),)
        elif axis:
            unknown = [c for c in axis if c not in self.columns]
            if unknown:
                raise ValueError(f"law {self.name!r} has no column {unknown[0]!r}; it has {', '.join(self.columns)}")
            pairs = tuple(axis.items())
        return replace(self, axis=pairs, target=target or self.target)

    def trace(self, positive_columns: set[str], *, inward: bool = True) -> Node:
        """The law as a symbol in its coefficients' own coordinates (logs of amplitudes) or, not inward, themselves."""
        bound = dict(self.axis)
        graph = Graph(positive_columns)
        columns = {c: graph.column(bound.get(c, c)) for c in self.columns}
        coefs = {
            c: support.node(graph, i) if inward else graph.coef(i) for i, (c, support) in enumerate(self.coefs.items())
        }
        try:
            root = self.function(**columns, **coefs)
        except TypeError as error:
            raise ValueError(f"law {self.name!r} cannot be traced: {error}") from error
        if not isinstance(root, Node):
            raise ValueError(f"law {self.name!r} does not depend on its columns or coefficients")
        return root

    def tape(self, positive_columns: set[str], *, inward: bool = True) -> Tape:
        """Value and derivatives, compiled."""
        return Tape(self.trace(positive_columns, inward=inward), len(self.coefs))

    def ranges(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Plausible ranges of the coefficients, shape (p, 2), in the units of these rows."""
        named = {mine: columns[theirs] for mine, theirs in zip(self.columns, self.table_columns, strict=True)}
        named |= {self.target: columns[self.target]} if self.target in columns else {}
        named |= {"target": columns[self.target]} if self.target in columns else {}
        return np.array([s.range(named) for s in self.coefs.values()])

    def half_way(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unconstrained coordinates (b, p) -> the tape's coordinates, with first and second derivatives."""
        parts = [s.half_way(theta[:, i]) for i, s in enumerate(self.coefs.values())]
        value, slope, bend = (np.stack([part[k] for part in parts], axis=1) for k in range(3))
        return value, slope, bend

    def inward(self, coef: np.ndarray) -> np.ndarray:
        """Coefficients -> unconstrained coordinates, last axis p."""
        return np.stack([s.inward(coef[..., i]) for i, s in enumerate(self.coefs.values())], axis=-1)

    def outward(self, theta: np.ndarray) -> np.ndarray:
        """Unconstrained coordinates -> coefficients, last axis p."""
        with np.errstate(over="ignore", under="ignore"):
            return np.stack([s.outward(theta[..., i]) for i, s in enumerate(self.coefs.values())], axis=-1)


def law(
    *, target: str = "loss", objective: str = "huber_log", parts: Mapping[str, int] | None = None
) -> Callable[[Callable[..., Any]], Law]:
    """Make a law of a function: columns before `*`, coefficients after it, each with its support as default.

    target: the metric that the law describes. objective: what `fit` minimises unless told (see isoflop.fit). parts:
    which columns are several, and how many: {"drops": 3} reads drops_1, drops_2 and drops_3, and the function gets a
    tuple of them, to sum over.

    Raises TypeError where the signature is not of that shape.
    """

    def decorate(function: Callable[..., Any]) -> Law:
        name = function.__name__
        columns, coefs = [], {}
        for p in inspect.signature(function).parameters.values():
            if p.kind is p.KEYWORD_ONLY and isinstance(p.default, Support):
                coefs[p.name] = p.default
            elif p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty:
                columns += part_names(p.name, parts[p.name]) if parts and p.name in parts else [p.name]
            else:
                raise TypeError(
                    f"law {name!r}, {p.name!r}: columns stand before * without default, coefficients after it "
                    f"with positive(low, high), unit(low, high) or real(low, high)"
                )
        for coef, support in coefs.items():
            if support.like not in (None, "target", target, *columns):
                raise TypeError(f"law {name!r}, {coef!r}: like={support.like!r} is no column; write 'target' or one of "
                                f"{', '.join(columns)}")  # fmt: skip
        if not columns or not coefs:
            raise TypeError(f"law {name!r} needs at least one column before * and one coefficient after it")
        for part, count in (parts or {}).items():
            if part_names(part, count)[0] not in columns:
                raise TypeError(f"law {name!r} has no column {part!r} to be of parts")
        several = tuple((parts or {}).items())
        whole = _gathering(function, several) if several else function
        return Law(name, whole, tuple(columns), coefs, target, objective, parts=several)

    return decorate


def part_names(name: str, count: int) -> list[str]:
    """The columns that a name with parts stands for: name_1 ... name_count."""
    return [f"{name}_{k}" for k in range(1, count + 1)]


def _gathering(function: Callable[..., Any], parts: tuple[tuple[str, int], ...]) -> Callable[..., Any]:
    """The function on single columns, those of each part handed on as one tuple."""

    @functools.wraps(function)
    def whole(**values: Any) -> Any:
        tuples = {}
        for name, count in parts:
            missing = [c for c in part_names(name, count) if c not in values]
            if missing:
                raise TypeError(f"law {function.__name__!r} takes {count} columns {name}: {missing[0]!r} is missing")
            tuples[name] = tuple(values.pop(c) for c in part_names(name, count))
        return function(**values, **tuples)

    return whole


def get_law(law: str | Law, *, axis: str | Mapping[str, str] | None = None, target: str | None = None) -> Law:
    """A law by name, by "file.py:name", or as it is. Raises LookupError where there is none."""
    found = _find.get("laws", law) if isinstance(law, str) else law
    if not isinstance(found, Law):
        raise LookupError(f"{law!r} is not a law; write one with @isoflop.law")
    if axis is None and found.columns == ("x",) and not found.axis:
        axis = {"x": "x"}
    return found.bind(axis=axis, target=target)


def bind(law: Any, target: str | None = None) -> Law:
    """A law from what a list of candidates may hold: a name, a Law, (law, axis), or {"law": ..., "axis": ...}."""
    if isinstance(law, Mapping):
        return get_law(law["law"], axis=law.get("axis"), target=target)
    if isinstance(law, tuple):
        return get_law(law[0], axis=law[1], target=target)
    return get_law(law, target=target)
