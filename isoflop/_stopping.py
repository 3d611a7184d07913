"""When to stop: what another run could still change, in the target's own unit and in FLOPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop._answer import finite
from isoflop._beliefs import Beliefs, Learning
from isoflop._crossover import _phi

if TYPE_CHECKING:
    from isoflop._fit import Fit

_SIZES = np.exp(np.linspace(-2.0, 2.0, 81))  # the choices: sizes about the best one, at the same budget
_MOVED = np.log(1.1)  # a choice has changed where its size has by a tenth
_SETTLED = 0.05  # probability of another winner below which two recipes are settled
_NORMALS = 2048
_QUADRATURE = 33


@dataclass(frozen=True)
class Stop:
    """What is at stake in a decision and what the batch, or any one run, is expected to save of it.

    regret: what the present choice is expected to lose against the best one, were the law known. gain: what is
    expected to be saved by deciding after the batch. single: the most that any one affordable run saves. changes:
    probability that the choice moves after the batch. worth: `gain` in FLOPs of the large run, cost: of the batch.
    stop: neither the batch nor any one run saves as much as it costs.
    """

    decision: str
    unit: str
    regret: float
    gain: float
    single: float
    changes: float
    worth: float
    cost: float
    stop: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, and the advice in words."""
        plain: dict[str, Any] = finite(vars(self) | {"advice": str(self)})
        return plain

    def __str__(self) -> str:
        if not self.decision:
            return _width_words(self)
        single = f"no run within the budget would change {self.decision} by more than {self.single:.2g} {self.unit}"
        all_of = f"these runs together save {self.gain:.2g} of the {self.regret:.2g} {self.unit} that are at stake"
        moved = f"the choice moves with probability {self.changes:.2f}"
        price = f"that is worth {self.worth:.2g} FLOPs of the large run, and they cost {self.cost:.2g}; "
        advice = "stop" if self.stop else "go on"
        return f"{advice}: {single}; {all_of}; {price if np.isfinite(self.worth) else ''}{moved}"


def _width_words(stop: Stop) -> str:
    share, single = 100 * stop.gain, 100 * stop.single
    if stop.stop:
        return f"stop: no run within the budget would narrow the interval by more than {single:.1f} %"
    one = f"one run within the budget narrows the interval by up to {single:.0f} %"
    return f"go on: {one}, these together by {share:.0f} %"


def width_stop(known: Beliefs, cost: np.ndarray, picks: Sequence[int], *, least: float = 0.02) -> Stop:
    """Advice about one point with no decision behind it: stop where the batch narrows it by less than `least`."""
    state = Learning(known)
    single = 1 - np.sqrt(max(1 - float(state.gains().max()) / known.variance, 0.0))
    for c in picks:
        state.add(c)
    gain = 1 - float(np.sqrt(state.variance / known.variance))
    nan = float("nan")
    return Stop("", "of the width", nan, gain, max(single, 0.0), nan, nan, float(cost[list(picks)].sum()), gain < least)


def allocation_stop(
    fit: Fit, known: Beliefs, cost: np.ndarray, picks: Sequence[int], *, decision: Mapping[str, Any], seed: int
) -> Stop:
    """Value of information about the size to train at a budget.

    Choices: sizes within e^2 of today's best, at the same FLOPs. Each has a loss under every draw; the regret of the
    present choice is mean loss there less mean of each draw's least. After a run the means move by cov / sd times a
    standard normal (linear and Gaussian, as the design is), and the choice with them: the expected least mean, less
    today's, is the gain (Frazier, Powell and Dayanik 2009, knowledge gradient with correlated beliefs; one run by
    quadrature, the batch by 2048 normals). The error of form is the same for all sizes at one budget and cancels.
    """
    losses, sizes, slope = _losses(fit, known, decision)
    today = losses.mean(axis=0)
    a = int(np.argmin(today))
    regret = float(today[a] - losses.min(axis=1).mean())
    also = np.zeros((len(known.target), len(today)))
    also[: len(losses)] = (losses - today) / np.sqrt(len(losses) - 1)
    saved = np.minimum(single_gains(known, also, today), regret)
    state = Learning(known, also)
    for c in picks:
        state.add(c)
    gain, changes = _after(np.array([m[1:] for m in state.moves]).reshape(-1, len(today)), today, sizes, a, seed)
    spent = float(cost[list(picks)].sum())
    gain, each = min(gain, regret), float(decision["flops"]) / max(slope, 1e-300)
    pays = gain * each > spent or bool((saved * each > cost).any())
    what = f"the choice at {decision['flops']:.3g} FLOPs"
    return Stop(what, fit.law.target, regret, gain, float(saved.max()), changes, gain * each, spent, not pays)


def _losses(fit: Fit, known: Beliefs, decision: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, float]:
    """Signed target of every used draw at every size, the sizes, and how fast the best one falls with log compute."""
    from isoflop._limits import limits
    from isoflop._optimum import Option, solve
    from isoflop._plan import _LOWER_IS_BETTER
    from isoflop._prices import read_prices

    sign = 1.0 if _LOWER_IS_BETTER.search(fit.law.target) else -1.0
    option, more = (
        Option.of("", fit, limits(dict(decision) | {"flops": part * decision["flops"]}, fit.law.table_columns,
                                  read_prices()), sign) for part in (1.0, 1.1))  # fmt: skip
    best, looser = solve(option), solve(more)
    slope = float(best.score[0] - looser.score[0]) / np.log(1.1)
    sizes = best.size[0] * _SIZES
    values = option.value(sizes[None], option.most_tokens(sizes)[None])[1:][known.rows]
    good = np.isfinite(values).all(axis=0)
    return values[:, good], sizes[good], slope


def single_gains(known: Beliefs, also: np.ndarray, today: np.ndarray) -> np.ndarray:
    """What one run saves, of each candidate, by quadrature over its result. also: draws of each choice, centred."""
    z, weights = np.polynomial.hermite_e.hermegauss(_QUADRATURE)
    weights = weights / weights.sum()
    spread = np.einsum("rc,rc->c", known.runs, known.runs)
    moves = (also.T @ known.runs) / np.sqrt(spread + known.noise**2)  # (choices, candidates)
    least = np.zeros(moves.shape[1])
    for at, w in zip(z, weights, strict=True):
        least += w * (today[:, None] + at * moves).min(axis=0)
    out: np.ndarray = np.maximum(today.min() - least, 0.0)
    return out


def _after(moves: np.ndarray, today: np.ndarray, sizes: np.ndarray, a: int, seed: int) -> tuple[float, float]:
    """Expected gain of deciding after runs with these moves, and the probability that the size moves by a tenth."""
    if not len(moves):
        return 0.0, 0.0
    half = np.random.default_rng(seed).standard_normal((_NORMALS // 2, len(moves)))
    means = today + np.concatenate([half, -half]) @ moves
    after = np.argmin(means, axis=1)
    gain = float(today[a] - means.min(axis=1).mean())
    return max(gain, 0.0), float(np.mean(np.abs(np.log(sizes[after] / sizes[a])) > _MOVED))


def winner_stop(mean: float, spread: float, moves: np.ndarray, cost: float) -> Stop:
    """Value of information about which of two recipes is better at one scale, in closed form.

    mean: of the difference of their targets, spread: its standard deviation; moves (runs,): by how much the mean moves
    with each run's result. E max(0, -d) = s phi(m / s) - m Phi(-m / s) for d ~ N(m, s^2). Stop where the batch would
    change the winner with a probability below a twentieth.
    """
    m, after = abs(mean), float(np.sqrt(np.sum(np.square(moves))))
    each = max((_lost(m, abs(float(v))) for v in moves), default=0.0)
    gain = _lost(m, after)
    changes = float(_phi(np.array([-m / after]))[0]) if after > 0 else 0.0
    nan = float("nan")
    return Stop("the winner", "of the target", _lost(m, spread), gain, each, changes, nan, cost, changes < _SETTLED)


def _lost(mean: float, spread: float) -> float:
    if spread <= 0:
        return 0.0
    z = mean / spread
    return max(float(spread * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi) - mean * _phi(np.array([-z]))[0]), 0.0)
