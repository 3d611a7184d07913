"""What many robust fits of one law have in common: its rows, how it is scored, and a prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from isoflop._objective import Objective
from isoflop._tape import Tape

_BLOCK = 81_920  # elements of one array in a block; half of that for laws of many registers
_REGISTERS = 1_200_000  # elements of all registers of a tape together, above which a block is made smaller


@dataclass(frozen=True)
class Prior:
    """A normal density on the free coordinates, added to the objective: centre (q,), precision (q, q).

    Of many tables at once (tables, q) and (tables, q, q).
    """

    centre: np.ndarray
    precision: np.ndarray


@dataclass(frozen=True)
class Moved:
    """What a randomised problem changes: its log targets by `targets` (k, n), its prior's centre by `centres` (k, q).

    With targets moved as the noise is and centres as the prior is, the optima are draws of the posterior: exactly so
    where the law is linear (Bardsley et al. 2014, randomise-then-optimise).
    """

    targets: np.ndarray
    centres: np.ndarray

    def take(self, which: np.ndarray) -> Moved:
        return Moved(self.targets[which], self.centres[which])


@dataclass(frozen=True)
class Problem:
    """One law on its rows. rows: Tape.rows; target: (n,); weights: (n,) row weights, 1 unless told.

    Of many tables at once (`stacked`): rows (nodes, tables, n), target and weights (tables, n), each padded to the
    longest with rows of weight zero.
    """

    tape: Tape
    half_way: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]  # Law.half_way
    n_coef: int
    rows: np.ndarray
    target: np.ndarray
    weights: np.ndarray
    objective: Objective
    middle: np.ndarray  # (p,) the coefficients' plausible middles, unconstrained
    log_scaled: np.ndarray  # (p,) which of them are amplitudes, fitted as logs
    prior: Prior | None = None

    @property
    def stacked(self) -> bool:
        """Many tables at once."""
        return self.target.ndim == 2

    @property
    def n_rows(self) -> int:
        """Rows of a table, padding included."""
        return int(self.target.shape[-1])

    def take(self, rows: np.ndarray) -> Problem:
        """The same problem on some of its rows."""
        return replace(self, rows=self.rows[:, rows], target=self.target[rows], weights=self.weights[rows])

    @property
    def block(self) -> int:
        """Elements of one array in a block. Larger spills the cache; smaller pays Python per call, and while one thread
        runs Python no other can (at 40,000 elements two threads took as long as one)."""
        return min(max(_REGISTERS // self.tape.n_registers, _BLOCK // 2), _BLOCK)

    @property
    def n_free(self) -> int:
        """Coefficients, and the log of the scale where it is estimated."""
        return self.n_coef + self.objective.scaled
