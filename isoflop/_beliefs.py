"""What a fit believes of runs not yet made, jointly: the ground that the next experiment is chosen on.

Everything is linear and Gaussian in the draws: the target and the runs that may be made have a joint covariance over
the draws of the fit, a run adds noise, and what a run would teach follows from these alone (Bayesian linear design:
Chaloner and Verdinelli 1995, section 2.2). No run is simulated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from isoflop._fit import Fit

_USUAL = 1.2  # of Student's t with 4 degrees of freedom: its 90 % interval over the normal's
_TRIM = 0.5  # per cent of the draws at either end of the target that covariances leave out


@dataclass(frozen=True)
class Beliefs:
    """Centred draws of the target (rows,) and of candidates (rows, candidates), scaled so that products sum to
    covariances; noise: standard deviation of one run at each candidate. Units: log target where `log`."""

    target: np.ndarray = field(repr=False)
    runs: np.ndarray = field(repr=False)
    noise: np.ndarray = field(repr=False)
    log: bool
    rows: np.ndarray = field(repr=False)  # which draws of the fit are used
    plain: float  # variance of the target over these draws alone

    @property
    def variance(self) -> float:
        """Of the target, before any run."""
        return float(self.target @ self.target)


def is_log(fit: Fit) -> bool:
    """Whether the fit's residuals are of logs."""
    return fit.objective["name"].endswith("_log") or fit.objective["name"] == "student_t"


def beliefs(fit: Fit, target: Mapping[str, Any], runs: Mapping[str, np.ndarray], *, kind: str = "run") -> Beliefs:
    """Joint beliefs about the law at one point and at candidate runs.

    kind "law": the coefficients alone. kind "run": also that the form may be wrong, as far as forecasts inside the rows
    were: one error that all points beyond the rows share and that grows with the distance (`isoflop._auto`), and wider
    coefficients there. A run's own scatter is noise, never part of the belief.

    Raises ValueError where the fit has fewer than 20 draws.
    """
    if len(fit.draws) < 20:
        raise ValueError(
            f"the next run is chosen from a fit's draws, and this has {len(fit.draws)}: fit with draws=200"
        )
    points = {c: np.concatenate([[float(target[c])], np.ravel(v)]) for c, v in runs.items()}
    values = fit.predict_draws(**points)
    log = is_log(fit)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.log(values) if log else np.array(values)
    values = np.where(np.isfinite(values), values, np.nanmedian(values, axis=0))
    rows = _usual_rows(values[:, 0])
    centred = values[rows] - values[rows].mean(axis=0)
    plain = float(centred[:, 0].var(ddof=1))
    known = fit.made.get("calibration") if kind == "run" else None
    if known:
        size, form = _form(known, points, fit, log)
        centred = np.where(size > known["largest"], _stretch(known), 1.0) * centred
        centred = np.vstack([centred / np.sqrt(len(rows) - 1), form])
    else:
        centred = centred / np.sqrt(len(rows) - 1)
    return Beliefs(centred[:, 0], centred[:, 1:], noise_at(fit, runs), log, rows, max(plain, 1e-300))


def noise_at(fit: Fit, points: Mapping[str, np.ndarray]) -> np.ndarray:
    """Standard deviation of one run about the law, growing or falling with scale as the fitted rows show it."""
    spread = float(np.std(fit.residuals)) * np.sqrt(fit.n / max(fit.n - len(fit.coef), 1))
    count = max(np.size(v) for v in points.values())
    known = fit.made.get("calibration")
    if not known:
        return np.full(count, max(spread, 1e-12))
    from isoflop._auto import scale_values

    size = np.broadcast_to(scale_values(known["scale"], points), (count,))
    return np.maximum(spread * np.clip((size / known["middle"]) ** known["noise_slope"], 0.1, 10.0), 1e-12)


def _form(known: Mapping[str, Any], points: Mapping[str, np.ndarray], fit: Fit, log: bool) -> tuple[np.ndarray, Any]:
    """Scale of each point, and its share in the one error of form, in the target's unit."""
    from isoflop._auto import distance, scale_values

    size = scale_values(known["scale"], points)
    error = _USUAL * float(np.median(known["growth"])) * distance(size, known["largest"])
    return size, error if log else error * np.abs(fit.predict(**points))


def _stretch(known: Mapping[str, Any]) -> float:
    return float(np.mean(known["stretch"]))


def _usual_rows(target: np.ndarray) -> np.ndarray:
    """Draws without the few at either end: a wild refit would be all of a covariance."""
    low, high = np.percentile(target, [_TRIM, 100 - _TRIM])
    return np.flatnonzero((target >= low) & (target <= high))


class Learning:
    """The beliefs as runs are added: a pivoted Cholesky factor of the candidates' covariance, one column a run.

    After a run at c: cov(a, b) becomes cov(a, b) - cov(a, c) cov(c, b) / (var(c) + noise^2), whatever it measured.
    `moves` (also of any further quantities): by how much a mean moves with each standard normal of a run's result.
    """

    def __init__(self, known: Beliefs, also: np.ndarray | None = None) -> None:
        self.known = known
        self.also = np.empty((len(known.target), 0)) if also is None else also
        self.variance = known.variance
        self.spread = np.einsum("rc,rc->c", known.runs, known.runs)
        self.towards = known.runs.T @ known.target
        self._columns: list[np.ndarray] = []
        self.moves: list[np.ndarray] = []  # of the target first, then of `also`
        self._seen: dict[int, np.ndarray] = {}

    def gains(self) -> np.ndarray:
        """By how much one run at each candidate would lower the target's variance."""
        out: np.ndarray = self.towards**2 / (self.spread + self.known.noise**2)
        return out

    def add(self, c: int, products: dict[int, np.ndarray] | None = None) -> None:
        """Make a run at candidate c; products: kept X'x_c of candidates, shared between several designs."""
        kept = self._seen if products is None else products
        if c not in kept:
            kept[c] = self.known.runs.T @ self.known.runs[:, c]
        column = kept[c].copy()
        own = np.concatenate([[self.known.target @ self.known.runs[:, c]], self.also.T @ self.known.runs[:, c]])
        for before, move in zip(self._columns, self.moves, strict=True):
            column -= before * before[c]
            own -= move * before[c]
        scale = 1.0 / np.sqrt(self.spread[c] + self.known.noise[c] ** 2)
        column, own = column * scale, own * scale
        self.spread = np.maximum(self.spread - column**2, 0.0)
        self.towards = self.towards - column * own[0]
        self.variance = max(self.variance - float(own[0]) ** 2, 0.0)
        self._columns.append(column)
        self.moves.append(own)
