"""Which of two recipes is better at scale: the runs of either that would settle it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop._beliefs import Beliefs, Learning, beliefs
from isoflop._design import NextRun, _about, _budget, _candidates, _runs, _single, _today, choose
from isoflop._stopping import Stop, winner_stop

if TYPE_CHECKING:
    from isoflop._fit import Fit

_SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)  # of the budget that may go to the first recipe


@dataclass(frozen=True)
class Deciding:
    """Runs of each recipe, who is better today and how surely, and what the runs are worth."""

    runs: dict[str, tuple[NextRun, ...]]
    better: str
    sure: float  # probability that it is
    target: str
    stop: Stop
    budget: float = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        rows = {name: [r.to_dict() for r in runs] for name, runs in self.runs.items()}
        return {"better": self.better, "sure": self.sure, "target": self.target, "budget": self.budget, "runs": rows,
                "stop": self.stop.to_dict()}  # fmt: skip

    def __str__(self) -> str:
        lines = [f"{self.better} is better in {self.target} with probability {self.sure:.2f}"]
        for name, runs in self.runs.items():
            for r in runs:
                cells = ", ".join(f"{c} {v:.4g}" for c, v in r.columns.items())
                lines.append(f"run {name}: {cells}, {r.flops:.3g} FLOPs, seeds {r.seeds}")
        return "\n".join([*lines, str(self.stop)])


@dataclass(frozen=True)
class _Side:
    fit: Fit
    point: dict[str, float]
    known: Beliefs
    pool: dict[str, np.ndarray]
    mean: float

    @property
    def unit(self) -> float:
        """Of the target for one of the beliefs': its value where these are of logs."""
        return self.mean if self.known.log else 1.0

    def learnt(self, budget: float, k: int) -> tuple[list[int], np.ndarray]:
        """The best runs within a budget, and by how much each moves the mean of the target."""
        cost = self.pool["flops"]
        if cost.min() > budget or k < 1:
            return [], np.empty(0)
        picks, state = choose(self.known, cost, budget=budget, k=k), Learning(self.known)
        for c in picks:
            state.add(c)
        return picks, np.array([m[0] for m in state.moves]) * self.unit


def deciding_runs(
    fits: Mapping[str, Fit],
    *,
    budget: Mapping[str, float] | float,
    about: Mapping[str, Any],
    k: int = 4,
    kind: str = "run",
) -> Deciding:
    """The runs of two recipes, within one budget, that would settle best which is better at the target.

    about: as in `next_runs`; {"flops": 1e24} compares each at its own allocation. The difference of the two targets is
    taken as normal, with the draws' variances (and the errors of form) of both added; each recipe's runs are designed
    for its own target, and the budget is split in quarters. Closed forms: `isoflop._stopping.winner_stop`.

    Raises ValueError where there are not two fits of one target, else as `next_runs`.
    """
    if len(fits) != 2:
        raise ValueError(f"deciding_runs compares two recipes by name, got {len(fits)}")
    flops = _budget(budget)
    sides = [_side(_single(f), about, flops, kind) for f in fits.values()]
    target = sides[0].fit.law.target
    if sides[1].fit.law.target != target:
        raise ValueError(f"one fit is of {target!r}, the other of {sides[1].fit.law.target!r}: compare like with like")
    splits = [[side.learnt(share * flops, k) for side, share in zip(sides, (s, 1 - s), strict=True)] for s in _SHARES]
    best = max(splits, key=lambda split: sum(float(np.sum(m**2)) for _, m in split))
    spread = float(np.hypot(*(np.sqrt(s.known.variance) * s.unit for s in sides)))
    mean = _sign(target) * (sides[1].mean - sides[0].mean)
    cost = sum(float(s.pool["flops"][p].sum()) for s, (p, _) in zip(sides, best, strict=True))
    stop = winner_stop(mean, spread, np.concatenate([m for _, m in best]), cost)
    rows = {}
    for name, side, (picks, _) in zip(fits, sides, best, strict=True):
        rows[name] = tuple(_runs(side.fit, side.pool, side.known, picks, _today(side.fit, side.point, side.known, 90)))
    names = list(fits)
    from isoflop._crossover import _phi

    sure = float(_phi(np.array([abs(mean) / spread]))[0]) if spread > 0 else 1.0
    return Deciding(rows, names[0] if mean > 0 else names[1], sure, target, stop, flops)


def _side(fit: Fit, about: Mapping[str, Any], flops: float, kind: str) -> _Side:
    point, _ = _about(fit, about)
    pool = _candidates(fit, None, flops)
    known = beliefs(fit, point, {c: pool[c] for c in fit.law.table_columns}, kind=kind)
    return _Side(fit, point, known, pool, float(np.nanmedian(fit.predict_draws(**point)[:, 0])))


def _sign(target: str) -> float:
    from isoflop._plan import _LOWER_IS_BETTER

    return 1.0 if _LOWER_IS_BETTER.search(target) else -1.0
