"""Two-step forecasts: size and data -> loss -> accuracy, with the uncertainty of both steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np

from isoflop import _runs
from isoflop._answer import Answer, Quantity, interval
from isoflop._fit import Fit, fit
from isoflop._law import Law, get_law
from isoflop._plan import _point, beyond, with_scatter


@dataclass(frozen=True)
class Chain:
    """Two fits, the second on what the first forecasts: `chain` makes one.

    A target whose rows all lie between 0 and 1 (an accuracy, an error) is kept there.
    """

    first: Fit
    second: Fit
    warnings: tuple[str, ...] = ()

    @property
    def link(self) -> str:
        """The column between the steps: the first law's target, the second law's only column."""
        return self.first.law.target

    @property
    def target(self) -> str:
        """What the chain forecasts."""
        return self.second.law.target

    def predict(self, **columns: Any) -> np.ndarray:
        """The second law at the first law's value, both at their best fits; columns as arrays of one shape."""
        return self._kept(self.second.predict(**{self.link: self.first.predict(**columns)}))

    def predict_draws(self, *, kind: str = "law", **columns: Any) -> np.ndarray:
        """The target at every draw, (draws, points): draws of step 1 through draws of step 2, paired at random.

        kind "law": where the two curves pass; "run": what new runs measure, with the scatter of the fitted rows about
        each curve. Raises ValueError for another kind, or where one of the fits has no draws.
        """
        return self._both(kind, columns)[1]

    def forecast(self, *, level: float | Sequence[float] = 90, kind: str = "run", **columns: float) -> Answer:
        """The loss and the target at one point, with intervals at `level` per cent (one or several).

        kind as in predict_draws. Says how far the point lies beyond the first step's rows, and how far the forecast
        loss lies beyond the second step's. Raises ValueError where a column is missing, unknown or not finite.
        """
        point = _point(self.first.law, columns)
        middle, end = (a[:, 0] for a in self._both(kind, point))
        loss = float(self.first.predict(**point))
        best = float(self.predict(**point))
        quantities = {self.link: Quantity(loss, middle), self.target: Quantity(best, end)}
        levels = (float(level),) if isinstance(level, int | float) else tuple(float(v) for v in level)
        doubts = [*beyond(self.first.spans, point), *_unseen(self.second, self.link, loss, middle)]
        if (plain := float(self.second.predict(**{self.link: loss}))) != best:
            doubts.append(f"step 2 gives {self.target} {plain:.3g} there, which cannot be: these rows do not carry it")
        return Answer(quantities, levels, tuple(doubts))

    def _both(self, kind: str, columns: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        if kind not in ("run", "law"):
            raise ValueError(f"kind is 'run' or 'law', got {kind!r}")
        middle = self.first.predict_draws(**columns)
        if not len(middle) or not len(self.second.draws):
            raise ValueError("a chain needs draws of both steps: fit them with draws=200 or more")
        count = max(len(middle), len(self.second.draws))
        rng = np.random.default_rng([int(self.first.made["seed"]), count])
        middle = middle[np.arange(count) % len(middle)]
        # at random: fits of the same seed give row i of either table the same weights
        pairs = rng.permutation(np.arange(count) % len(self.second.draws))
        if kind == "run":
            middle = with_scatter(self.first, middle, {c: np.atleast_1d(v) for c, v in columns.items()})
        coefs = {name: self.second.draws[pairs, i, None] for i, name in enumerate(self.second.coef)}
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            end = np.asarray(self.second.law(**{self.link: middle}, **coefs))
        return middle, self._kept(with_scatter(self.second, end) if kind == "run" else end)

    def _kept(self, values: np.ndarray) -> np.ndarray:
        """A metric whose rows all lie between 0 and 1 stays there."""
        low, high = self.second.spans[self.target]
        return np.clip(values, 0.0, 1.0) if low >= 0 and high <= 1 else values

    def to_dict(self) -> dict[str, Any]:
        """Both fits' summaries, and what is doubtful about the chain."""
        return {
            "link": self.link,
            "target": self.target,
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        parts = [f"step 1, {self.link}", str(self.first), "", f"step 2, {self.target}", str(self.second)]
        return "\n".join([*parts, *(f"warning: {w}" for w in self.warnings)])


def chain(first: Fit, second: Fit) -> Chain:
    """Two fits made one forecast: what the first law gives is the only column of the second.

    Sources: Bhagia et al. 2024 (arXiv 2412.04403): size and data -> task loss -> task accuracy; Gadre et al. 2024
    (arXiv 2403.08540): loss -> error. The steps' errors are taken as independent.

    Raises ValueError where the second law takes anything else than the first law's target.
    """
    takes, gives = second.law.table_columns, first.law.target
    if takes != (gives,):
        raise ValueError(
            f"the second law, {second.law.name!r}, takes {', '.join(takes)}, and the first, {first.law.name!r}, gives "
            f"{gives}: fit the second on that one column, with axis={{{second.law.columns[0]!r}: {gives!r}}}"
        )
    return Chain(first, second, tuple(_gap(first, second)))


@overload
def two_step(runs: Any, *, loss: str = ..., accuracy: str = ..., first: str | Law = ..., second: str | Law = ...,
             by: None = None, draws: int = ..., seed: int = ...) -> Chain: ...  # fmt: skip
@overload
def two_step(runs: Any, *, loss: str = ..., accuracy: str = ..., first: str | Law = ..., second: str | Law = ...,
             by: str, draws: int = ..., seed: int = ...) -> dict[str, Chain]: ...  # fmt: skip
def two_step(
    runs: Any,
    *,
    loss: str = "loss",
    accuracy: str = "accuracy",
    first: str | Law = "chinchilla",
    second: str | Law = "task_accuracy",
    by: str | None = None,
    draws: int = 200,
    seed: int = 0,
) -> Chain | dict[str, Chain]:
    """Fit loss to size and data, and accuracy to loss, on the same runs, and chain the two.

    loss, accuracy: the metrics' columns (`accuracy="error"` with second="task_error"). first, second: laws as `fit`
    takes them; second has one column. by: a column such as `task`, for one chain per value of it. Where step 2 should
    see other rows (checkpoints), fit the two yourself and `chain` them.

    With task_accuracy, the point of loss 0 and accuracy 1 is one more row of step 2, as in the paper: the rows of small
    models say little about the ceiling. Raises as `fit` and `chain` do.
    """
    table = _runs.load(runs)
    if by is None:
        return _two_fits(table, loss, accuracy, (first, second), draws, seed)
    labels = table[by].astype(str)
    return {
        str(name): _two_fits(table.select(labels == name), loss, accuracy, (first, second), draws, seed)
        for name in dict.fromkeys(labels.tolist())
    }


def _two_fits(
    table: _runs.Table, loss: str, accuracy: str, laws: tuple[str | Law, str | Law], draws: int, seed: int
) -> Chain:
    link = get_law(laws[1])
    if len(link.columns) != 1:
        raise ValueError(f"the second law needs one column, the loss; {link.name!r} has {', '.join(link.columns)}")
    one = fit(laws[0], table, target=loss, draws=draws, seed=seed)
    rows = _runs.check(table, need=[loss], target=accuracy)
    seen = {c: np.asarray(rows[c], float) for c in (loss, accuracy)}
    given = {c: np.append(v, end) for (c, v), end in zip(seen.items(), (0.0, 1.0), strict=True)}
    anchored = link.name == "task_accuracy"
    two = fit(link, given if anchored else seen, axis={link.columns[0]: loss}, target=accuracy, draws=draws, seed=seed)
    spans = {c: (float(v.min()), float(v.max())) for c, v in seen.items()}  # the anchor is no row that was seen
    return chain(one, replace(two, spans=spans))


def _gap(first: Fit, second: Fit) -> Iterator[str]:
    """Whether the steps' rows lie at the same losses."""
    mine, theirs = first.spans[first.law.target], second.spans[first.law.target]
    if mine[1] < theirs[0] or theirs[1] < mine[0]:
        yield (
            f"{first.law.target} is {mine[0]:.4g} to {mine[1]:.4g} in step 1 and {theirs[0]:.4g} to {theirs[1]:.4g} in "
            "step 2: are they of the same unit and the same data?"
        )


def _unseen(second: Fit, link: str, loss: float, draws: np.ndarray) -> Iterator[str]:
    """Where step 2 extrapolates, and by how much."""
    low, high = second.spans[link]
    if loss < low or loss > high:
        side, edge = ("below", low) if loss < low else ("above", high)
        share = abs(loss - edge) / (high - low) if high > low else np.inf
        yield (
            f"{link} {loss:.4g} lies {abs(loss - edge):.2g} {side} the second step's rows ({low:.4g} to {high:.4g}), "
            f"{100 * share:.0f} % of their span: {second.law.target} there was not seen"
        )
        return
    ends = interval(draws, 90)
    if ends[0] < low or ends[1] > high:
        yield (
            f"the 90 % interval of {link}, {ends[0]:.4g} to {ends[1]:.4g}, reaches beyond the second step's rows "
            f"({low:.4g} to {high:.4g})"
        )
