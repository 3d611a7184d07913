"""What a slider asks for: the plan of a fit under constraints, from its draws, in about 10 ms of a processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from isoflop._curves import amount, thinned

_NUMBERS = frozenset({
    "flops", "usd", "gpu_hours", "hours", "served_tokens", "unique_tokens", "epochs", "mfu", "serve_mfu", "devices",
    "batch_crit", "tokens_per_device", "memory_gb", "shard", "bytes_per_param", "active_share", "repeat_worth", "goal",
    "usd_per_hour",
})  # fmt: skip
_WORDS = frozenset({"device", "precision", "cheapest"})


def devices(prices: str | None = None) -> list[dict[str, Any]]:
    """The table of prices, for the page to choose from."""
    from isoflop._prices import read_prices

    return [{"name": d.name, "memory_gb": d.memory_gb, "usd_per_hour": d.usd_per_hour, "precisions": list(d.peak),
             "date": d.date} for d in read_prices(prices).values()]  # fmt: skip


def checked(constraints: Any) -> dict[str, Any]:
    """Constraints as `plan_at` takes them: known words, numbers above zero. Raises ValueError."""
    if not isinstance(constraints, dict) or len(constraints) > 40:
        raise ValueError("constraints are an object of names and numbers")
    out: dict[str, Any] = {}
    for name, value in constraints.items():
        if name in _WORDS:
            if not isinstance(value, str) or len(value) > 60:
                raise ValueError(f"{name} must be a name")
            out[name] = value
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e300:
            raise ValueError(f"{name[:60]} must be a number above zero")
        elif value > 0 or name not in _NUMBERS:  # a slider at zero asks for nothing
            out[name] = float(value)
    return out


def plan(
    path: str, fixed: Mapping[str, float], constraints: Mapping[str, Any], *, prices: str | None = None
) -> dict[str, Any]:
    """The plan of a saved fit, each figure with its words.

    fixed: columns held where the constraints do not say. prices: a file of prices in place of isoflop's own.
    """
    return _planned(_loaded(path), fixed, constraints, prices)


@lru_cache(maxsize=256)
def _loaded(path: str) -> Any:
    """A fit is written once, under a name that is never used again."""
    from isoflop._fit import Fit

    return thinned(Fit.load(path))


def _planned(fit: Any, fixed: Mapping[str, float], constraints: Mapping[str, Any], table: str | None) -> dict[str, Any]:
    columns = fit.law.table_columns
    if len(columns) == 1:
        return _point(fit, {c: constraints.get(c, fit.spans[c][1]) for c in columns})
    from isoflop._constraints import plan_at
    from isoflop._prices import get_device, read_prices

    held = {k: v for k, v in fixed.items() if k in columns and k not in constraints}
    asked, prices = {**held, **constraints}, read_prices(table)
    if price := asked.pop("usd_per_hour", None):  # the page's own price of the device that it plans with
        device = replace(get_device(prices, asked.get("device")), usd_per_hour=price)
        prices = {**prices, device.name: device}
        asked["device"] = device.name
    return _worded(plan_at(fit, asked, level=fit.level, prices=prices))


def _point(fit: Any, point: Mapping[str, float]) -> dict[str, Any]:
    """A law of one column: the target there."""
    answer = fit.forecast(level=fit.level, kind="law", **point)
    figures = {n: {"best": q.best, "median": q.median, "interval": list(q.interval(fit.level))} for n, q in
               answer.items()}  # fmt: skip
    return _worded({"target": fit.law.target, "feasible": True, "figures": figures, "limits": [], "choices": [],
                    "level": fit.level, "warnings": list(answer.warnings)})  # fmt: skip


def _worded(found: dict[str, Any]) -> dict[str, Any]:
    """Each figure with the words that the page shows."""
    for name, figure in (found.get("figures") or {}).items():
        low, high = figure["interval"]
        figure["text"] = amount(name, figure["median"])
        same = low is None or high is None or amount(name, low) == amount(name, high)
        figure["span"] = "" if same else f"{amount(name, low)} to {amount(name, high)}"
    return found
