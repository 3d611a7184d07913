"""What a theory simulator returns, and how what theory predicts is compared with what isoflop finds in its rows."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isoflop import _find

_T95 = np.array(  # Student's 95 % point by degrees of freedom, 1 to 30
    [6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753, 1.746,
     1.740, 1.734, 1.729, 1.725, 1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699, 1.697]
)  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """One number that theory gives, and the rows of `part` it is found in.

    axis given: `target` falls as axis^-predicted (grows, where `rises`), and the law `power` is fitted to it; rows
    of one `by` are resampled together. No axis: the mean of `target` over the rows. within: how far, absolutely, a
    finite size or an approximation is known to move the number found at the default settings.
    """

    predicted: float
    target: str
    part: str
    axis: str = ""
    rises: bool = False
    by: str = "seed"
    within: float = 0.0


@dataclass(frozen=True)
class Simulated:
    """Rows made by a simulator, what theory says about them, and where it says so. `status` tells what was checked."""

    name: str
    rows: dict[str, np.ndarray] = field(repr=False)
    claims: dict[str, Claim]
    source: str
    status: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def predicted(self) -> dict[str, float]:
        """Predicted numbers by name."""
        return {name: claim.predicted for name, claim in self.claims.items()}

    def part(self, name: str) -> dict[str, np.ndarray]:
        """The rows of one part, without the columns that are empty there. Raises LookupError for no such part."""
        keep = self.rows["part"] == name
        if not keep.any():
            parts = ", ".join(dict.fromkeys(map(str, self.rows["part"])))
            raise LookupError(f"{self.name} has no part {name!r}; it has {parts}")
        kept = {c: v[keep] for c, v in self.rows.items() if c != "part"}
        return {c: v for c, v in kept.items() if not np.isnan(v).all()}

    def compare(self, *, draws: int = 200, seed: int = 0) -> Comparison:
        """Find every predicted number in the rows, with its 90 % interval, from `draws` bootstrap refits, 20 at least.

        Raises ValueError for fewer.
        """
        need("compare", draws=(draws, 20))
        return Comparison(self, {name: _find_number(self, name, draws=draws, seed=seed) for name in self.claims})

    def write(self, path: str | os.PathLike[str]) -> None:
        """The rows as CSV; a column that a part does not have is empty there."""
        from isoflop._fit import write_whole

        lines = [",".join(self.rows)]
        for row in zip(*self.rows.values(), strict=True):
            lines.append(",".join(str(v) if isinstance(v, str) else _cell(v) for v in row))
        write_whole(path, "\n".join(lines) + "\n")


@dataclass(frozen=True)
class Found:
    """One number found in simulated rows: value, 90 % interval, and how far it may lie from the prediction."""

    predicted: float
    value: float
    low: float
    high: float
    rows: int
    within: float = 0.0

    @property
    def verdict(self) -> str:
        """agrees: the interval holds the prediction; near: not, but the claim's own shift covers it; else differs."""
        if self.low <= self.predicted <= self.high:
            return "agrees"
        return "near" if abs(self.value - self.predicted) <= self.within else "differs"


@dataclass(frozen=True)
class Comparison:
    """Predictions beside what was found."""

    simulated: Simulated
    found: dict[str, Found]

    @property
    def ok(self) -> bool:
        """No number differs."""
        return all(f.verdict != "differs" for f in self.found.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        made = self.simulated
        found = {n: {"predicted": f.predicted, "found": f.value, "interval": [f.low, f.high], "within": f.within,
                     "rows": f.rows, "verdict": f.verdict} for n, f in self.found.items()}  # fmt: skip
        return {"name": made.name, "settings": made.settings, "ok": self.ok, "level": 90, "found": found,
                "source": made.source, "status": made.status}  # fmt: skip

    def __str__(self) -> str:
        made = self.simulated
        settings = ", ".join(f"{k} {v}" for k, v in made.settings.items())
        lines = [f"{made.name}: {settings}", ""]
        width = max(map(len, self.found))
        for name, f in self.found.items():
            near = f" (a shift of {f.within:g} is expected)" if f.verdict == "near" else ""
            lines.append(f"  {name:<{width}}  predicted {f.predicted:<9.5g} found {f.value:<9.5g} "
                         f"[{f.low:.5g}, {f.high:.5g}]  {f.verdict}{near}")  # fmt: skip
        return "\n".join([*lines, "  (90 % intervals)", f"source: {made.source}", f"status: {made.status}"])


def simulate(name: str, settings: Mapping[str, Any] | None = None, *, draws: int = 200) -> Comparison:
    """Run the simulator `name` (or "file.py:name") and compare; draws: bootstrap refits behind each interval.

    Raises LookupError for an unknown name, ValueError for settings that it does not have or cannot use.
    """
    function = _find.get("theory", name)
    given = inspect.signature(function).parameters
    chosen = {key: _setting(name, key, value, given) for key, value in (settings or {}).items()}
    made: Simulated = function(**chosen)
    return made.compare(draws=draws, seed=int(made.settings["seed"]))


def _setting(name: str, key: str, value: Any, given: Mapping[str, inspect.Parameter]) -> Any:
    if key not in given:
        raise ValueError(f"{name} has no setting {key!r}; it has {', '.join(given)}")
    if not isinstance(given[key].default, int):
        return value
    if int(value) != value or (key == "seed" and value < 0):
        raise ValueError(f"{name}: {key} is a whole number{' from 0' * (key == 'seed')}, got {value:g}")
    return int(value)


def simulated(
    name: str,
    parts: Mapping[str, Mapping[str, Any]],
    claims: Mapping[str, Claim],
    *,
    source: str,
    status: str,
    settings: Mapping[str, Any],
) -> Simulated:
    """A Simulated from columns by part; a column that a part lacks is NaN there. Raises ValueError for a NaN inside."""
    names = list(dict.fromkeys(c for part in parts.values() for c in part))
    rows: dict[str, list[np.ndarray]] = {c: [] for c in names}
    labels: list[str] = []
    for label, part in parts.items():
        values = dict(zip(part, np.broadcast_arrays(*(np.asarray(v, float) for v in part.values())), strict=True))
        n = next(iter(values.values())).size
        labels += [label] * n
        for c in names:
            if c in values and not np.isfinite(values[c]).all():
                raise ValueError(f"{name}: column {c!r} of part {label!r} is not finite at these settings")
            rows[c].append(values[c].ravel() if c in values else np.full(n, np.nan))
    table = {"part": np.array(labels)} | {c: np.concatenate(v) for c, v in rows.items()}
    return Simulated(name, table, dict(claims), source, status, dict(settings))


def need(name: str, **least: tuple[float, float]) -> None:
    """Raise ValueError where a setting (value, least allowed) is too small."""
    for setting, (value, low) in least.items():
        if not value >= low:
            raise ValueError(f"{name}: {setting} must be at least {low:g}, got {value:g}")


def doubling(first: float, count: int, *, step: float = 2.0) -> np.ndarray:
    """`count` whole sizes from `first`, each `step` times the one before."""
    return np.unique(np.round(first * step ** np.arange(count)).astype(int))


def columns(rows: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Columns from rows with the same keys."""
    return {c: np.array([row[c] for row in rows]) for c in rows[0]}


def _find_number(made: Simulated, name: str, *, draws: int, seed: int) -> Found:
    claim = made.claims[name]
    part = made.part(claim.part)
    if not claim.axis:
        return _mean(part[claim.target], claim)
    from isoflop._fit import fitted, prepare

    target = part[claim.target]
    rows = {claim.axis: part[claim.axis], "y": 1.0 / target if claim.rises else target}
    by = claim.by if claim.by in part and len(np.unique(part[claim.by])) >= 5 else None
    setup = prepare("power", rows | ({by: part[by]} if by else {}), axis=claim.axis, target="y",
                    objective="squares_log", by=by)  # fmt: skip
    found = fitted(setup, law="power", draws=draws, seed=seed, by=by)
    low, high = found.interval(90)["alpha"]
    return Found(claim.predicted, found.coef["alpha"], low, high, found.n, claim.within)


def _mean(values: np.ndarray, claim: Claim) -> Found:
    """The mean and Student's 90 % interval of it; one row has no interval but itself."""
    n, mean = values.size, float(values.mean())
    if n == 1:
        return Found(claim.predicted, mean, mean, mean, n, claim.within)
    half = float(_T95[min(n - 1, 30) - 1] * values.std(ddof=1) / np.sqrt(n))
    return Found(claim.predicted, mean, mean - half, mean + half, n, claim.within)


def _cell(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))
