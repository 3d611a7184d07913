"""plan(fit, limits): the best setting in words and numbers, what it costs in loss and time, and which recipe wins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop._constraints import Planned, figures_of, options_of, planned
from isoflop._crossover import Crossing, _Curve, crossed
from isoflop._display import Sheet, Shown
from isoflop._limits import TOTALS
from isoflop._optimum import NoOptimum, Option, Solved, solve

if TYPE_CHECKING:
    import pandas

    from isoflop._fit import Fit

_POINTS = 49  # budgets of a crossing; each is a plan of its own
_SPAN = 1e3  # how far from the budget a crossing is looked for, as a factor on both sides
_UNITS = {"usd": "USD", "hours": "hours", "gpu_hours": "GPU-hours", "memory_gb": "GB a device"}
_SHOWN = ("epochs", "flops", "gpu_hours", "usd", "hours", "devices", "shard", "memory_gb", "regret")


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """The plan of `plan_at` with its draws: `figures` by name, `to_dict()` as plan_at, text by print."""

    made: Planned
    crossings: tuple[Crossing, ...] = ()
    level: float = 90

    @property
    def figures(self) -> dict[str, Any]:
        """Every figure as a Quantity. Raises ValueError where no option is feasible."""
        return figures_of(self.made.options[self.made.best or 0], self.made.leading)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "made" not in self.__dict__ or name not in self.figures:
            raise AttributeError(f"no {name!r} in this plan")
        return self.figures[name]

    def to_dict(self) -> dict[str, Any]:
        """What `plan_at` returns; with recipes also `crossings`, as `Crossing.to_dict`."""
        more = {"crossings": [c.to_dict() for c in self.crossings]} if self.crossings else {}
        return self.made.to_dict(self.level) | more

    def table(self) -> str:
        """The plan without its doubts."""
        plain = self.made.to_dict(self.level)
        if not plain["feasible"]:
            return f"no plan: {plain['why']}"
        lines = [f"choice {plain['choice']}"] if plain["choice"] else []
        lines.append(f"{'':<17}{'best fit':<12}{self.level:g} % interval")
        option = self.made.options[self.made.best or 0]
        first = [c for c in (option.size or "", "tokens", plain["target"]) if c in plain["figures"]]
        lines += [_line(name, plain["figures"][name]) for name in (*first, *_SHOWN) if name in plain["figures"]]
        lines += [_limit_words(row, plain["target"]) for row in plain["limits"]]
        lines += [_choice_words(row, plain["target"], bool(self.made.options[0].limits.goal))
                  for row in plain["choices"] if len(plain["choices"]) > 1]  # fmt: skip
        return "\n".join([*lines, *(c.table() for c in self.crossings)])

    def _sheet(self) -> Sheet:
        plain = self.made.to_dict(self.level)
        if not plain["feasible"]:
            return Sheet(f"No plan: {plain['why']}", [])
        rows = []
        for name, f in plain["figures"].items():
            low, high = f["interval"]
            rows.append({"figure": name, "best": f["best"], "median": f["median"], "low": low, "high": high,
                         "unit": _UNITS.get(name, "")})  # fmt: skip
        chosen = f"Choice {plain['choice']}. " if plain["choice"] else ""
        return Sheet(
            f"{chosen}Medians and central {self.level:g} % intervals; best: at the best fit.", rows, plain["warnings"]
        )

    def __str__(self) -> str:
        plain = self.made.to_dict(self.level)
        doubts = [*plain["warnings"], *(w for c in self.crossings for w in c.warnings)]
        return "\n".join([self.table(), *(f"warning: {w}" for w in doubts)])


def plan(
    fit: Fit | Mapping[str, Fit],
    constraints: Mapping[str, Any] | None = None,
    *,
    crossing: bool = False,
    prices: Any = None,
    level: float = 90,
    **more: Any,
) -> Plan:
    """The best setting under real limits: `plan_at` as an object.

    fit: a Fit, or recipes by name, {"dense": fit, "moe": other}. constraints, also by keyword: see `plan_at`, as in
    plan(fit, flops=1e24, served_tokens=2e12). crossing: for recipes, also where along the budget (flops, usd or
    gpu_hours, the first that is given) one overtakes another. prices: a TOML file of devices in place of isoflop's.

    Raises ValueError for an unknown name or number, or where nothing limits the plan. A plan that is not feasible says
    so in `made.best` (None), `to_dict()["why"]` and in print.
    """
    given = dict(constraints or {}) | more
    made = planned(fit, given, prices=prices)
    found = crossings(fit, given, prices=prices, level=level) if crossing else ()
    return Plan(made, found, level)


def _line(name: str, figure: Mapping[str, Any]) -> str:
    best = "none" if figure["best"] is None else f"{figure['best']:.5g}"
    low, high = figure["interval"]
    ends = "" if low is None else f"[{low:.5g}, {high:.5g}]"
    return f"{name:<17}{best:<12}{ends:<26}{_UNITS.get(name, '')}".rstrip()


def _limit_words(row: Mapping[str, Any], target: str) -> str:
    share = f"{row['used']:.1f} times over" if row["name"] == "unique_tokens" else f"{100 * row['used']:.0f} % used"
    if not row["worth"]:
        return f"limit {row['name']}: {share}"
    return f"limit {row['name']}: {share}; a tenth more would change {target} by {row['worth']:.2g}"


def _choice_words(row: Mapping[str, Any], target: str, cost: bool) -> str:
    if not row["feasible"]:
        return f"choice {row['name']}: {row['why']}"
    wins = "" if row["wins"] is None else f", best in {100 * row['wins']:.0f} % of the draws"
    what = "flops" if cost else target
    return f"choice {row['name']}: {what} {row['figures'][what]['best']:.5g}{wins}"


# ---- loss against cost and time --------------------------------------------------------------------------------------


def pareto(
    fit: Fit | Mapping[str, Fit],
    constraints: Mapping[str, Any],
    *,
    cost: str = "usd",
    budgets: Iterable[float],
    hours: Iterable[float] = (),
    prices: Any = None,
    level: float = 90,
) -> pandas.DataFrame:
    """Plans that no other beats in target, cost and wall clock together, cheapest first.

    cost: "usd", "flops" or "gpu_hours"; budgets: of it; hours: wall clocks to try (none: time is no matter). Columns:
    cost, hours, the target with `_low` and `_high` at `level`, the other figures of the best fit, choice. Time trades
    against loss only where `batch_crit` or `devices` is given: else more devices are free.

    Raises ValueError as `plan_at`, or where no plan is feasible.
    """
    import pandas

    if cost not in TOTALS:
        raise ValueError(f"cost is one of {', '.join(TOTALS)}, got {cost!r}")
    rows = []
    clocks: list[float | None] = [float(h) for h in hours]
    for amount in budgets:
        for clock in clocks or [None]:
            given = dict(constraints) | {cost: float(amount)} | ({"hours": clock} if clock else {})
            made = planned(fit, given, prices=prices)
            if made.best is not None:
                rows.append(_row(made, level))
    if not rows:
        raise ValueError("no plan is feasible at any of these budgets and hours")
    table = pandas.DataFrame(rows)
    target = next(iter(_options(fit, constraints, cost, prices))).fit.law.target
    scores = [target, cost, *(["hours"] if clocks else [])]
    names = [cost, *scores[2:], target, f"{target}_low", f"{target}_high"]
    table = table[[*names, *(c for c in table.columns if c not in names)]]
    front = table[undominated(table[scores].to_numpy(float))]
    same = front[scores].round(12).duplicated()  # a budget that another limit keeps from being spent
    return front[~same].sort_values(scores[1:]).reset_index(drop=True)


def _options(fit: Any, constraints: Mapping[str, Any], cost: str, prices: Any) -> list[Option]:
    return options_of(fit, dict(constraints) | {cost: 1.0}, prices)


def _row(made: Planned, level: float) -> dict[str, Any]:
    option, solved = made.options[made.best or 0], made.leading
    figures = figures_of(option, solved)
    target = option.fit.law.target
    low, high = figures[target].interval(level)
    return {name: q.best for name, q in figures.items()} | {
        f"{target}_low": low, f"{target}_high": high, "choice": option.name}  # fmt: skip


def undominated(scores: np.ndarray) -> np.ndarray:
    """Which rows no other row beats: as low in every column and lower in one, to a part in 10^9. (rows, columns)."""
    slack = 1e-9 * np.abs(scores)
    low = (scores[None] <= scores[:, None] + slack[:, None]).all(axis=2)
    lower = (scores[None] < scores[:, None] - slack[:, None]).any(axis=2)
    return ~(low & lower).any(axis=1)


# ---- from which scale on ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Budgeted(_Curve):
    """A recipe along a budget, at its own best plan under all other limits."""

    option: Option

    @property
    def rows(self) -> tuple[float, float]:
        """What the smallest and the largest fitted row would cost, as the budget is counted."""
        ends = []
        for k in (0, 1):
            at = {c: v[k] for c, v in self.fit.spans.items()}
            size = at.get(self.option.size or "", 1.0)
            tokens = at["flops"] / 6.0 if self.option.size is None else at.get(
                "tokens", self.option.limits.held.get("tokens", np.nan))  # fmt: skip
            lim = replace(self.option.limits, served_tokens=0.0)
            ends.append(float(lim.total(self.axis, np.asarray(self.option.sizes(size)[0]), np.asarray(tokens))))
        return ends[0], ends[1]

    def values(self, scale: np.ndarray, *, draws: bool = True) -> np.ndarray:
        """The target along budgets, (1 + draws, points): nan where no plan is feasible."""
        sets = self.option.sets if draws else self.option.sets[:1]
        out = np.full((len(sets), len(scale)), np.nan)
        for k, amount in enumerate(scale):
            lim = self.option.limits.but(self.axis, float(amount))
            found = _tried(replace(self.option, limits=lim, sets=sets))
            if found is not None:
                out[:, k] = np.where(np.isfinite(found.score), found.target, np.nan)
        return out


def _tried(option: Option) -> Solved | None:
    try:
        return solve(option)
    except NoOptimum:
        return None


def crossings(
    fits: Fit | Mapping[str, Fit],
    constraints: Mapping[str, Any],
    *,
    span: tuple[float, float] | None = None,
    prices: Any = None,
    level: float = 90,
) -> tuple[Crossing, ...]:
    """From which budget on one choice or recipe beats another, all other limits as they are: a Crossing for each pair.

    The budget is the first of flops, usd and gpu_hours that is given; span: where to look, by default a factor of 1000
    about it. Draws of two recipes meet at random, those of two choices of one fit with themselves.

    Raises ValueError where there is one recipe only, no budget, or a goal.
    """
    options = options_of(fits, constraints, prices)
    axis = next((w for w in TOTALS if constraints.get(w) is not None), None)
    if len(options) < 2 or axis is None or constraints.get("goal") is not None:
        raise ValueError("a crossing needs two recipes or choices, and a budget: flops, usd or gpu_hours, and no goal")
    amount = float(constraints[axis])
    low, high = span or (amount / _SPAN, amount * _SPAN)
    if not 0 < low < high < np.inf:
        raise ValueError(f"span runs from a budget above zero to a larger one, got {low:g} to {high:g}")
    scale = np.geomspace(low, high, _POINTS)
    curves = [_Budgeted(o.fit, axis, {}, None, o) for o in options]
    values = [c.values(scale) for c in curves]
    pairs = [(i, j) for i in range(len(options)) for j in range(i + 1, len(options))]
    names = [(options[i].name or "first", options[j].name or "second") for i, j in pairs]
    return tuple(
        crossed([curves[i], curves[j]], both, scale, [values[i], values[j]], level)
        for (i, j), both in zip(pairs, names, strict=True)
    )
