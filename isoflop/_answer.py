"""Numbers with their uncertainty: what forecasts and plans are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isoflop._display import ShownAnswer


@dataclass(frozen=True)
class Quantity:
    """One number: the value at the best fit and its draws."""

    best: float
    draws: np.ndarray = field(repr=False)

    @property
    def median(self) -> float:
        """Median of the draws; the best fit's value where there are none."""
        good = self.draws[np.isfinite(self.draws)]
        return float(np.median(good)) if good.size else self.best

    def interval(self, level: float = 90) -> tuple[float, float]:
        """Central interval of the draws, level in per cent. (nan, nan) where there are no draws."""
        return interval(self.draws, level)

    def __str__(self) -> str:
        low, high = self.interval(90)
        return f"{self.median:.5g} [{low:.5g}, {high:.5g}]"


def interval(draws: np.ndarray, level: float) -> tuple[float, float]:
    """Central interval of finite draws, level in per cent. Raises ValueError for a level outside (0, 100)."""
    if not 0 < level < 100:
        raise ValueError(f"level is in per cent, between 0 and 100; got {level:g}")
    good = draws[np.isfinite(draws)]
    if not good.size:
        return (float("nan"), float("nan"))
    tail = (100 - level) / 2
    low, high = np.percentile(good, [tail, 100 - tail])
    return float(low), float(high)


def finite(value: Any) -> Any:
    """The same structure as JSON can hold it: numbers that are none as None, numpy's as Python's."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value


@dataclass(frozen=True, repr=False)
class Answer(Mapping[str, Quantity], ShownAnswer):
    """Named quantities, as a mapping and as attributes, with the doubts about them."""

    quantities: dict[str, Quantity]
    levels: tuple[float, ...] = (90,)
    warnings: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Quantity:
        return self.quantities[name]

    def __getattr__(self, name: str) -> Quantity:
        if name.startswith("_") or name not in self.quantities:
            raise AttributeError(f"no {name!r} here; there are {', '.join(self.quantities)}")
        return self.quantities[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.quantities)

    def __len__(self) -> int:
        return len(self.quantities)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers: name -> {median, best, interval}; interval is of the first level, the rest in intervals."""
        out: dict[str, Any] = {"level": self.levels[0]}
        for name, q in self.quantities.items():
            out[name] = {"median": q.median, "best": q.best, "interval": list(q.interval(self.levels[0]))}
            if len(self.levels) > 1:
                out[name]["intervals"] = {f"{level:g}": list(q.interval(level)) for level in self.levels}
        return out | {"warnings": list(self.warnings)}

    def table(self) -> str:
        """One quantity a line: median, then the interval of each level."""
        width = max(map(len, self.quantities))
        head = "  ".join(f"{f'{level:g} % interval':<24}" for level in self.levels)
        lines = [f"{'':<{width}}  {'median':<11} {head}".rstrip()]
        for name, q in self.quantities.items():
            ends = [f"[{low:.5g}, {high:.5g}]" for low, high in map(q.interval, self.levels)]
            lines.append(f"{name:<{width}}  {q.median:<11.5g} " + "  ".join(f"{e:<24}" for e in ends).rstrip())
        return "\n".join(lines)

    def __str__(self) -> str:
        return "\n".join([self.table(), *(f"warning: {w}" for w in self.warnings)])
