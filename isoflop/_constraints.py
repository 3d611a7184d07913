"""The best setting of a fitted law under real limits: compute, money, time, data, memory, tokens to be served."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop._answer import Quantity, finite
from isoflop._limits import TOTALS, limits
from isoflop._optimum import NoOptimum, Option, Solved, solve
from isoflop._plan import _LOWER_IS_BETTER, beyond
from isoflop._prices import read_prices

if TYPE_CHECKING:
    from isoflop._fit import Fit

_LOOSER = 1.1
_LOOSENED = (*TOTALS, "hours", "unique_tokens", "epochs", "devices", "memory_gb", "shard")


def plan_at(
    fit: Fit | Mapping[str, Fit], constraints: Mapping[str, Any], *, level: float = 90, prices: Any = None
) -> dict[str, Any]:
    """The plan under constraints, as plain numbers: a pure function, about 10 ms a choice for 500 draws.

    fit: a Fit, or several by name (recipes; the best one is the plan). Size is `params`, `params_nonembed` or
    `params_active`, data is `tokens`; a law of `flops` alone is planned by compute alone.

    constraints, all optional, but one of the first four, or `hours` with `devices`, or `goal`:
        flops          training and serving together, FLOPs
        usd            training and serving together, by the table of prices
        gpu_hours      training and serving together, of `device`
        hours          wall clock of the training
        goal           reach this target at the least cost instead; cheapest in `cheapest`: "flops", "usd", "gpu_hours"
        served_tokens  tokens to be served in the model's life (default 0), at 2 N each
        unique_tokens  tokens there are; more are repeats. Laws with a column `unique` get it, in others D counts as
                       D' = U + U R (1 - exp(-(D/U - 1) / R)), R = repeat_worth (15.39)
        epochs         most passes over unique_tokens
        device         a name of the price table (default its first); precision: "bf16" (default), "fp8", ...
        mfu            share of peak reached in training (.4); serve_mfu in serving (.4)
        devices        most that run at once: with `hours` as few as that takes, without `hours` all of them
        batch_crit     critical batch, tokens: a batch of B needs D (1 + B / batch_crit) tokens for what D is worth
        tokens_per_device  least of a batch that keeps one device busy, tokens (8192)
        memory_gb      of one device (default the table's); shard: over how many devices states are split at most
        bytes_per_param    weights, gradients and optimiser in training (16)
        active_share   of the parameters that a token uses (1; a mixture of experts less): compute counts these alone
        any other column of the law is held at the number given (`bits_weights=8`)
        choices        {name: {constraint or column: value}}: alternatives; each is planned, the best is the plan

    Returns, JSON-ready (numbers that are none are None):
        target         name of the law's metric
        choice         name of the best choice ("" where there is one only)
        feasible       bool; where False `why` is a sentence and no figures are there
        figures        {name: {"best", "median", "interval": [low, high]}}: at the best fit, and over the draws, each
                       at its own optimum. Names: the law's size (`params`), `tokens`, `effective_tokens`, `epochs`,
                       the target (`loss`), `train_flops`, `serve_flops`, `flops`, `gpu_hours`, `usd`; with a size
                       `shard` (devices that states must be split over) and `memory_gb` (then, of one device); where
                       `hours` or `devices` is given `hours`, `devices`, `batch_tokens`; and without a goal `regret`:
                       the target at the best fit's setting less that at the draw's own optimum
        limits         [{"name", "used", "binding", "worth"}]: share of the limit that the plan uses (of
                       unique_tokens: how many times over); worth: change of the best fit's target by a tenth more
        choices        [{"name", "feasible", "why", "wins", "figures"}]: each; wins: in which share of draws it is best
        level, warnings (list of sentences)

    Raises ValueError for an unknown name, a number that is none or not above zero, or where nothing limits the plan.
    """
    made = planned(fit, constraints, prices=prices)
    return made.to_dict(level)


@dataclass(frozen=True)
class Planned:
    """Every option with its solution (None where it is not feasible, and why), the best first in `best`."""

    options: tuple[Option, ...]
    solved: tuple[Solved | None, ...]
    why: tuple[str, ...]
    wins: tuple[float, ...]
    best: int | None

    @property
    def leading(self) -> Solved:
        """The solution that is the plan. Raises ValueError where no option is feasible."""
        found = None if self.best is None else self.solved[self.best]
        if found is None:
            raise ValueError("no plan is feasible: " + "; ".join(dict.fromkeys(self.why)))
        return found

    def to_dict(self, level: float = 90) -> dict[str, Any]:
        """What `plan_at` returns."""
        choices = [self._choice(k, level) for k in range(len(self.options))]
        first = self.options[0]
        out: dict[str, Any] = {"target": first.fit.law.target, "level": level, "feasible": self.best is not None}
        if self.best is None:
            why = "; ".join(dict.fromkeys(self.why))
            return out | {"choice": "", "why": why, "figures": {}, "limits": [], "choices": choices, "warnings": []}
        option = self.options[self.best]
        out |= {"choice": option.name, "why": "", "figures": choices[self.best]["figures"]}
        out |= {"limits": [dict(row) for row in _used(option, self.leading)], "choices": choices}
        plain: dict[str, Any] = finite(out | {"warnings": list(_doubts(option, self.leading))})
        return plain

    def _choice(self, k: int, level: float) -> dict[str, Any]:
        solved = self.solved[k]
        figures = {} if solved is None else {
            name: {"best": q.best, "median": q.median, "interval": list(q.interval(level))}
            for name, q in figures_of(self.options[k], solved).items()
        }  # fmt: skip
        row = {"name": self.options[k].name, "feasible": solved is not None, "why": self.why[k], "wins": self.wins[k]}
        plain: dict[str, Any] = finite(row | {"figures": figures})
        return plain


def planned(fit: Fit | Mapping[str, Fit], constraints: Mapping[str, Any], *, prices: Any = None) -> Planned:
    """Each choice at its own optimum, with all its draws; see `plan_at`."""
    options = options_of(fit, constraints, prices)
    solved: list[Solved | None] = []
    why = []
    for option in options:
        try:
            solved.append(solve(option))
            why.append("")
        except NoOptimum as error:
            solved.append(None)
            why.append(f"{option.name}: {error}" if option.name else str(error))
    scores = [np.full(1, np.inf) if s is None else s.score for s in solved]
    best = int(np.argmin([s[0] for s in scores])) if any(s is not None for s in solved) else None
    return Planned(tuple(options), tuple(solved), tuple(why), _wins(options, scores), best)


def options_of(fit: Fit | Mapping[str, Fit], constraints: Mapping[str, Any], prices: Any = None) -> list[Option]:
    """The recipes or choices to plan. Raises ValueError where they cannot be compared or nothing limits them."""
    several = fit if isinstance(fit, Mapping) else None
    choices = dict(constraints.get("choices") or {})
    shared = {k: v for k, v in constraints.items() if k != "choices"}
    if several is not None and (stray := [c for c in choices if c not in several]):
        raise ValueError(
            f"choice {stray[0]!r} is no recipe: with several fits, choices are given for {', '.join(several)}"
        )
    if several is not None and not several:
        raise ValueError("there is no fit to plan with")
    fits = {n: _one(f) for n, f in several.items()} if several is not None else {n: _one(fit) for n in choices or [""]}
    targets = {f.law.target for f in fits.values()}
    if len(targets) > 1:
        raise ValueError(f"the fits are of different targets ({', '.join(sorted(targets))}): compare like with like")
    table = read_prices(prices)
    made = []
    for name, one in fits.items():
        given = shared | dict(choices.get(name, {}))
        sign = 1.0 if _LOWER_IS_BETTER.search(one.law.target) else -1.0
        made.append(Option.of(name, one, limits(given, one.law.table_columns, table), sign))
    return made


def _one(fit: Any) -> Fit:
    from isoflop._auto import Stack

    return fit.leading if isinstance(fit, Stack) else fit


def _wins(options: list[Option], scores: list[np.ndarray]) -> tuple[float, ...]:
    """Share of draws in which each option is best; draws of different fits meet at random."""
    count = min((len(s) - 1 for s in scores if len(s) > 1), default=0)
    if not count:
        return tuple(float("nan") for _ in scores)
    rng = np.random.default_rng(0)
    orders: dict[int, np.ndarray] = {}
    rows = []
    for option, score in zip(options, scores, strict=True):
        if id(option.fit) not in orders:
            orders[id(option.fit)] = rng.permutation(len(score) - 1)[:count] if len(score) > 1 else np.zeros(0, int)
        order = orders[id(option.fit)]
        rows.append(np.nan_to_num(score[1:][order], nan=np.inf) if len(score) > 1 else np.full(count, np.inf))
    table = np.array(rows)
    least = table.min(axis=0)
    first = (table == least) & np.isfinite(least)
    return tuple(float(v) for v in (first / np.maximum(first.sum(axis=0), 1)).mean(axis=1))


# ---- what a plan takes -----------------------------------------------------------------------------------------------


def figures_of(option: Option, solved: Solved) -> dict[str, Quantity]:
    """Every figure of a plan, at the best fit and at each draw's own optimum."""
    lim, (active, whole), tokens = option.limits, option.sizes(solved.size), solved.tokens
    train, serve = 6.0 * active * tokens, 2.0 * active * lim.served_tokens
    devices = lim.running(active, whole, tokens)
    shard = np.ceil(lim.sharding(active, whole) - 1e-9)
    effective = lim.effective(active, whole, tokens)
    rows = {} if option.size is None else {option.size: solved.size, "tokens": tokens, "effective_tokens": effective}
    if lim.unique_tokens is not None:
        rows["epochs"] = tokens / lim.unique_tokens
    rows |= {option.fit.law.target: solved.target, "train_flops": train, "serve_flops": serve, "flops": train + serve}
    rows |= {what: lim.total(what, active, tokens) for what in ("gpu_hours", "usd")}
    if lim.hours is not None or lim.devices is not None:
        rows |= {"hours": train / (lim.speed * devices), "devices": devices}
        rows["batch_tokens"] = lim.tokens_per_device * devices
    if option.size is not None:
        rows |= {"shard": shard}
        rows["memory_gb"] = np.where(np.isfinite(shard), lim.memory(active, whole, shard), np.nan)
    if solved.regret is not None:
        rows["regret"] = solved.regret
    lost = ~np.isfinite(solved.score)
    return {name: Quantity(float(v[0]), np.where(lost, np.nan, v)[1:]) for name, v in rows.items()}


def _used(option: Option, solved: Solved) -> Iterator[dict[str, Any]]:
    """Each limit: the share of it that the plan of the best fit uses, and what a tenth more of it is worth."""
    lim = option.limits
    (active, whole), tokens = option.sizes(solved.size[:1]), solved.tokens[:1]
    devices = lim.running(active, whole, tokens)
    taken = {what: lim.total(what, active, tokens) for what in TOTALS}
    taken |= {"hours": 6.0 * active * tokens / (lim.speed * devices), "devices": devices, "unique_tokens": tokens}
    taken |= {"epochs": tokens / (lim.unique_tokens or np.nan), "shard": lim.sharding(active, whole)}
    for name in _LOOSENED:
        limit = getattr(lim, name)
        if limit is None:
            continue
        if name == "memory_gb":
            shard = np.minimum(lim.sharding(active, whole), lim.room or np.inf)
            taken[name] = lim.memory(active, whole, shard)
        used = float(taken[name][0]) / limit
        yield {"name": name, "used": used, "binding": name != "unique_tokens" and used > 0.999,
               "worth": _worth(option, solved, name)}  # fmt: skip


def _worth(option: Option, solved: Solved, name: str) -> float:
    """Change of the target at the best fit were one limit a tenth looser; 0 under a goal, which is met either way."""
    if option.limits.goal is not None:
        return 0.0
    looser = option.limits.but(name, _LOOSER * getattr(option.limits, name))
    alone = replace(option, limits=looser, sets=option.sets[:1])
    return float(solve(alone).target[0] - solved.target[0])


def _doubts(option: Option, solved: Solved) -> Iterator[str]:
    fit, lim = option.fit, option.limits
    at = {c: float(np.ravel(v)[0]) for c, v in option.columns(solved.size[:1], solved.tokens[:1]).items()}
    yield from beyond(fit.spans, {c: v for c, v in at.items() if c in fit.spans})
    lost = float(np.mean(~np.isfinite(solved.score[1:]))) if len(solved.score) > 1 else 0.0
    if lost > 0.01:
        yield f"{100 * lost:.0f} % of the draws have no plan within these limits; intervals leave them out"
    if not len(fit.draws):
        yield "the fit has no draws, so the plan has no intervals: fit with draws"
    if fit.made.get("weight", 1.0) < 0.8:
        yield f"follows {fit.law.name} alone, which has {fit.made['weight']:.0%} of the forecast's weight"
    if lim.unique_tokens is not None and "unique" not in fit.law.table_columns and solved.tokens[0] > lim.unique_tokens:
        yield (f"the fitted law has no repeated data: repeats are worth what arXiv 2305.16264 found, "
               f"R = {lim.repeat_worth:.3g}")  # fmt: skip
    if lim.usd is not None or lim.cheapest == "usd":
        price = f"{lim.device.name} {lim.device.usd_per_hour:g} USD an hour, {lim.device.date}"
        yield f"prices are the table's ({price}), not a quote: edit them"
