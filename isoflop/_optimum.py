"""Where a fitted law is best under limits: one search over size for all draws, by grids that close in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop._limits import TOTALS, Limits

if TYPE_CHECKING:
    from isoflop._fit import Fit

_SIZES = ("params", "params_nonembed", "params_active")
_COARSE, _FINE, _ROUNDS = 97, 9, 7
_LEAST_TOKENS = 1.0
_TOKEN_STEPS = 17  # of the coarse grid in tokens, where a law does not fall with them throughout
_REACH = 12.0  # natural logs below the most tokens that are searched there


class NoOptimum(ValueError):
    """No setting satisfies the limits, or the law has no optimum within them."""


@dataclass(frozen=True)
class Option:
    """A fit under limits. size: its column of parameters, None for a law of flops. sets: best fit first, then draws."""

    name: str
    fit: Fit
    limits: Limits
    sign: float  # 1 where lower is better
    size: str | None
    sets: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, name: str, fit: Fit, lim: Limits, sign: float) -> Option:
        """Checked: raises ValueError where the law cannot be planned or nothing limits the plan."""
        law = fit.law
        size = next((c for c in _SIZES if c in law.table_columns), None)
        if size is None and "flops" not in law.table_columns:
            raise ValueError(
                f"law {law.name!r} has neither a size ({', '.join(_SIZES)}) nor flops: it cannot be planned"
            )
        if size is None:
            refused = [n for n in ("unique_tokens", "shard", "memory_gb", "batch_crit") if getattr(lim, n) is not None]
            if refused or lim.served_tokens or "tokens" in lim.held:
                raise ValueError(f"law {law.name!r} is of flops alone and cannot be planned under "
                                 f"{(refused or ['served_tokens' if lim.served_tokens else 'tokens'])[0]}")  # fmt: skip
        elif "tokens" not in law.table_columns and "tokens" not in lim.held:
            raise ValueError(f"law {law.name!r} has no tokens: say how many its runs see (tokens=...)")
        own = {size, "tokens", "unique", "flops" if size is None else size}
        if loose := [c for c in law.table_columns if c not in own and c not in lim.held]:
            raise ValueError(f"hold column {loose[0]!r} of law {law.name!r} fixed ({loose[0]}=...), or give choices")
        capped = any(getattr(lim, n) is not None for n in (*TOTALS, "goal"))
        if not capped and (lim.hours is None or lim.devices is None):
            raise ValueError("nothing limits the plan: give flops, usd, gpu_hours, hours with devices, or goal")
        sets = np.vstack([[fit.coef[c] for c in fit.coef], fit.draws])
        return cls(name, fit, lim, sign, size, sets)

    @cached_property
    def coefs(self) -> dict[str, np.ndarray]:
        """Coefficients by name, (sets, 1)."""
        return {c: self.sets[:, i, None] for i, c in enumerate(self.fit.coef)}

    def sizes(self, size: Any) -> tuple[np.ndarray, np.ndarray]:
        """Active and whole parameters of a size in the law's own count."""
        share = self.limits.active_share
        return (size, size / share) if self.size == "params_active" else (size * share, size)

    def most_tokens(self, size: np.ndarray) -> np.ndarray:
        """The most training tokens within the limits; where tokens are held, these or 0."""
        cap = self.limits.most_tokens(*self.sizes(size))
        if "tokens" not in self.limits.held:
            return cap
        return np.where(cap >= self.limits.held["tokens"] * (1 - 1e-12), self.limits.held["tokens"], 0.0)

    def columns(self, size: np.ndarray, tokens: np.ndarray) -> dict[str, np.ndarray]:
        """The law's columns at sizes and tokens of one shape."""
        law, lim = self.fit.law, self.limits
        out: dict[str, Any] = {c: np.asarray(v) for c, v in lim.held.items() if c in law.table_columns}
        if self.size is None:
            return out | {"flops": 6.0 * size * tokens}
        worth = lim.effective(*self.sizes(size), tokens)
        if "unique" in law.table_columns:
            out["unique"] = worth if lim.unique_tokens is None else np.minimum(worth, lim.unique_tokens)
        else:
            worth = lim.repeated(worth)
        if "tokens" in law.table_columns:
            out["tokens"] = worth
        return out | {self.size: size}

    def value(self, size: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The target, signed so that lower is better, (sets, points); inf where it is none."""
        with np.errstate(all="ignore"):
            out = np.asarray(self.fit.law(**self.columns(size, tokens), **self.coefs))
            return np.where(np.isfinite(out) & (tokens >= _LEAST_TOKENS), self.sign * out, np.inf)


@dataclass(frozen=True)
class Solved:
    """One optimum a set. score: what was minimised (signed target, or cost under a goal), inf where there is none."""

    size: np.ndarray
    tokens: np.ndarray
    target: np.ndarray
    score: np.ndarray
    regret: np.ndarray | None  # of the best fit's setting under each set


def solve(option: Option) -> Solved:
    """The best size and tokens of every set under the limits. Raises NoOptimum where the best fit has none."""
    low, high = _bracket(option)
    if option.limits.goal is not None:
        return _reach_goal(option, low, high)
    single = low == high
    if _needs_token_search(option, low, high):
        size, tokens = _search_both(option, low, high)
    else:
        size = np.full(len(option.sets), np.exp(low)) if single else np.exp(_along_cap(option, low, high))
        tokens = option.most_tokens(size)
    value = option.value(size[:, None], tokens[:, None])[:, 0]
    if not single:
        value = np.where(_at_edge(option, size, low, high), np.inf, value)
    if not np.isfinite(value[0]):
        raise NoOptimum(f"law {option.fit.law.name!r} has no optimum within these limits: it prefers {option.size} at "
                        "the end of any range")  # fmt: skip
    there = option.value(np.full((1, 1), size[0]), np.full((1, 1), tokens[0]))[:, 0]
    return Solved(size, tokens, option.sign * value, value, np.maximum(there - value, 0.0))


def _along_cap(option: Option, low: float, high: float) -> np.ndarray:
    """Log of the best size of every set, each size with the most tokens it may see."""

    def value(logs: np.ndarray) -> np.ndarray:
        return option.value(np.exp(logs), option.most_tokens(np.exp(logs)))

    return _search(value, len(option.sets), low, high)


def _bracket(option: Option) -> tuple[float, float]:
    """Where the log of the size may lie: a point where it is held (or there is none), up to the largest that fits."""
    lim = option.limits
    if option.size is None or option.size in lim.held:
        at = float(np.log(lim.held[option.size])) if option.size else 0.0
        if option.most_tokens(np.exp(np.array([at])))[0] < _LEAST_TOKENS:
            raise NoOptimum(_too_tight(option))
        return at, at
    low = float(np.log(min(option.fit.spans[option.size][0], 1.0))) - np.log(1e3)
    ladder = np.linspace(low, low + 100.0, 401)
    fits = option.most_tokens(np.exp(ladder)) >= _LEAST_TOKENS
    if not fits.any():
        raise NoOptimum(_too_tight(option))
    inside, step = float(ladder[fits][-1]), 0.25
    for _ in range(5):  # 128 finer steps at a time: a call costs the same for many sizes as for one
        finer = inside + step * np.linspace(0.0, 1.0, 129)
        fits = option.most_tokens(np.exp(finer)) >= _LEAST_TOKENS
        inside, step = (
            float(finer[max(int(np.argmin(fits)) - 1, 0)]) if not fits.all() else float(finer[-1]),
            step / 128,
        )
    return low, inside


def _too_tight(option: Option) -> str:
    lim = option.limits
    given = [n for n in (*TOTALS, "hours", "devices", "shard", "memory_gb") if getattr(lim, n) is not None]
    also = f", with {lim.served_tokens:.4g} tokens to be served" if lim.served_tokens else ""
    held = f" and {', '.join(lim.held)} held" if lim.held else ""
    return f"no model can be trained within the limits ({', '.join(given)}{also}{held})"


def _at_edge(option: Option, size: np.ndarray, low: float, high: float) -> np.ndarray:
    """Optima at the end of the range, save where a limit, and not the range, ends it."""
    log, near = np.log(size), 1e-6 * (high - low)
    edge = log <= low + near
    if option.most_tokens(np.exp(np.array([high])))[0] < 10 * _LEAST_TOKENS:
        edge |= log >= high - near
    return edge


def _search(value: Callable[[np.ndarray], np.ndarray], count: int, low: float, high: float) -> np.ndarray:
    """Minima of `count` functions of one log, (count,)."""
    logs = np.linspace(low, high, _COARSE)
    best = np.argmin(value(logs[None, :]), axis=1)
    at, step = logs[best], logs[1] - logs[0]
    for _ in range(_ROUNDS):
        grid = np.clip(at[:, None] + step * np.linspace(-1.0, 1.0, _FINE), low, high)
        at = np.take_along_axis(grid, np.argmin(value(grid), axis=1)[:, None], axis=1)[:, 0]
        step *= 2.5 / (_FINE - 1)
    return at


def _needs_token_search(option: Option, low: float, high: float) -> bool:
    """Whether more tokens may be worse: a law that rises with them (some of the draws, on a coarse grid)."""
    if option.size is None or "tokens" in option.limits.held:
        return False
    few = replace(option, sets=option.sets[:: max(1, len(option.sets) // 16)])
    size = np.exp(np.linspace(low, high, 7))[:, None] * np.ones(7)
    tokens = option.most_tokens(size) * np.exp(-np.linspace(0, _REACH, 7))
    value = few.value(size.reshape(1, -1), tokens.reshape(1, -1)).reshape(-1, 7, 7)
    with np.errstate(invalid="ignore"):
        return bool((np.diff(value, axis=2) < -1e-12).any())


def _search_both(option: Option, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Size and tokens, where a law may have an optimum below the most tokens there are."""

    def tokens_at(logs: np.ndarray, down: np.ndarray) -> np.ndarray:
        return option.most_tokens(np.exp(logs)) * np.exp(-down)

    sizes = np.linspace(low, high, _COARSE if low < high else 1)
    downs = np.linspace(0, _REACH, _TOKEN_STEPS if low < high else _COARSE)
    logs, down = (a.ravel()[None] for a in np.meshgrid(sizes, downs))
    best = np.argmin(option.value(np.exp(logs), tokens_at(logs, down)), axis=1)
    at, under = logs[0, best], down[0, best]
    step, drop = (high - low) / (_COARSE - 1), _REACH / (_TOKEN_STEPS - 1)
    shift = np.linspace(-1.0, 1.0, 7)
    a, b = (v.ravel() for v in np.meshgrid(shift, shift))
    for _ in range(16):
        logs = np.clip(at[:, None] + step * a, low, high)
        down = np.maximum(under[:, None] + drop * b, 0.0)
        best = np.argmin(option.value(np.exp(logs), tokens_at(logs, down)), axis=1)[:, None]
        at, under = (np.take_along_axis(v, best, axis=1)[:, 0] for v in (logs, down))
        step, drop = 0.6 * step, 0.6 * drop
    return np.exp(at), tokens_at(at, under)


# ---- the least cost of a goal ----------------------------------------------------------------------------------------


def _reach_goal(option: Option, low: float, high: float) -> Solved:
    """The cheapest size and tokens with the target at the goal. Source: arXiv 2401.00448, eq. 1, for any law."""
    lim = option.limits
    goal = option.sign * float(lim.goal or 0.0)

    def cost(logs: np.ndarray, rounds: int) -> tuple[np.ndarray, np.ndarray]:
        tokens = _tokens_for(option, np.exp(logs), goal, rounds)
        price = lim.total(lim.cheapest, option.sizes(np.exp(logs))[0], tokens)
        return np.where(np.isfinite(tokens), price, np.inf), tokens

    count = len(option.sets)
    if low == high:
        at = np.full(count, low)
    else:
        coarse = np.linspace(low, high, 65)[None, :]
        logs = np.broadcast_to(coarse, (count, coarse.size))
        if any(getattr(lim, n) is not None for n in (*TOTALS, "hours", "epochs", "shard", "devices")):
            within = _along_cap(option, low, high)
            logs = np.concatenate([logs, within[:, None]], axis=1)
        at = np.take_along_axis(logs, np.argmin(cost(logs, 12)[0], axis=1)[:, None], axis=1)[:, 0]
        step = coarse[0, 1] - coarse[0, 0]
        for k in range(_ROUNDS):
            grid = np.clip(at[:, None] + step * np.linspace(-1.0, 1.0, 7), low, high)
            at = np.take_along_axis(grid, np.argmin(cost(grid, 12 + 3 * k)[0], axis=1)[:, None], axis=1)[:, 0]
            step *= 0.45
    price, tokens = (v[:, 0] for v in cost(at[:, None], 60))
    if not np.isfinite(price[0]):
        raise NoOptimum(f"no model reaches {option.fit.law.target} {lim.goal:g} within the limits")
    target = option.sign * option.value(np.exp(at)[:, None], tokens[:, None])[:, 0]
    return Solved(np.exp(at), tokens, target, price, None)


def _tokens_for(option: Option, size: np.ndarray, goal: float, rounds: int) -> np.ndarray:
    """The fewest tokens that reach the goal at each size, by bisection in their log; inf where none that is allowed."""
    shape = np.broadcast_shapes(size.shape, (len(option.sets), 1))
    cap = np.minimum(np.broadcast_to(option.most_tokens(size), shape), 1e30)
    reached = option.value(size, cap) <= goal
    low, high = np.zeros(cap.shape), np.log(np.maximum(cap, _LEAST_TOKENS))
    if "tokens" in option.limits.held:
        low = high
    for _ in range(rounds):
        middle = 0.5 * (low + high)
        enough = option.value(size, np.exp(middle)) <= goal
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(reached, np.exp(high), np.inf)
