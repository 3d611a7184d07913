"""LawRegressor: a scaling law as a scikit-learn regressor, for pipelines, searches and cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from isoflop._fit import Fit, fit
from isoflop._law import Law, get_law
from isoflop._objective import Objective, get_objective
from isoflop._plan import with_scatter

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils.validation import check_array, check_is_fitted, check_non_negative, validate_data
except ModuleNotFoundError as error:
    raise ImportError("LawRegressor needs scikit-learn: pip install 'isoflop[sklearn]'") from error

_WEIGHTS = "sample_weight"


class LawRegressor(RegressorMixin, BaseEstimator):
    """A law fitted to X (rows, columns of sizes or other amounts, none below zero) and y.

    law: as `isoflop.fit` takes it. A law of one column is fitted along X's column, or along the product of several, as
    `fit("auto")` orders rows: params x tokens is compute, up to a factor. The default is defined at zero too.
    columns: the law's columns in the order of X's. Not needed for a frame whose columns have the law's names, for an
    array in the law's own order, or for a law of one column. objective: least squares of logs unless told, whose
    optimum moves smoothly with weights; None takes the law's own. draws: bootstrap refits, which
    `predict(return_std=True)` and `predict_interval` need. random_state: an integer.

    After `fit`: `fit_` (the isoflop.Fit), `n_features_in_`, and for frames `feature_names_in_`.
    """

    def __init__(self, law: str | Law = "power_shift", *, objective: str | Objective | None = "squares_log",
                 draws: int = 0, columns: Sequence[str] | None = None, random_state: int = 0) -> None:  # fmt: skip
        self.law = law
        self.objective = objective
        self.draws = draws
        self.columns = columns
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LawRegressor:
        """Fit the law. sample_weight: one number a row, zero leaves the row out.

        Raises ValueError (RunsError) where the rows cannot be used, LookupError for an unknown law.
        """
        law = get_law(self.law)
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=len(law.coefs))
        check_non_negative(X, "LawRegressor.fit")
        columns = self._names(law)
        if len(law.columns) == 1:
            axis = {law.columns[0]: columns[0] if len(columns) == 1 else " x ".join(columns)}
            law = law.bind(axis=axis)
        self._order = columns
        table = self._table(X, law) | {law.target: np.asarray(y, float)}
        goal = get_objective(self.objective or law.objective)
        if sample_weight is not None:
            weights = _weights(sample_weight, len(X))
            table = {name: column[weights > 0] for name, column in table.items()} | {_WEIGHTS: weights[weights > 0]}
            goal = replace(goal, weights=_WEIGHTS)
        with np.errstate(over="ignore"):  # a power beyond 1.8e308 divides to zero; what is not finite is refused
            self.fit_: Fit = fit(law, table, objective=goal, draws=self.draws, seed=int(self.random_state))
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The law at the best fit; with return_std also the standard deviation of where the draws put it."""
        columns = self._checked(X)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            best = np.array(self.fit_.predict(**columns))
        if not np.isfinite(best).all():
            row = int(np.flatnonzero(~np.isfinite(best))[0])
            raise ValueError(f"law {self.fit_.law.name!r} is not finite at row {row} of X; leave that row out")
        return (best, np.nanstd(self._draws(columns), axis=0)) if return_std else best

    def predict_interval(self, X: Any, level: float = 90, kind: str = "run") -> np.ndarray:
        """Central intervals (rows, 2) at `level` per cent: of a new run ("run"), or of where the law passes ("law").

        Raises ValueError without draws, or for another kind.
        """
        if not 0 < level < 100 or kind not in ("run", "law"):
            raise ValueError(f"level is in per cent, kind is 'run' or 'law'; got {level!r} and {kind!r}")
        columns = self._checked(X)
        draws = self._draws(columns)
        draws = with_scatter(self.fit_, draws, columns) if kind == "run" else draws
        return np.nanpercentile(draws, [(100 - level) / 2, (100 + level) / 2], axis=0).T

    def _names(self, law: Law) -> list[str]:
        """The law's columns in the order of X's; for a law of one column X's own names."""
        seen = list(getattr(self, "feature_names_in_", ()))
        given = seen if self.columns is None else list(self.columns)
        count = self.n_features_in_
        if len(law.columns) == 1:
            names = given or ([law.table_columns[0]] if count == 1 else [f"x{k}" for k in range(count)])
        else:
            names = given or list(law.table_columns)
            if set(names) != set(law.table_columns):
                raise ValueError(
                    f"law {law.name!r} takes {', '.join(law.table_columns)}; X has {', '.join(names)}: say with "
                    f"columns=[...] which of them each column of X is"
                )
        if len(names) != count:
            raise ValueError(f"X has {count} columns, and {len(names)} are named: {', '.join(names)}")
        return names

    def _table(self, X: np.ndarray, law: Law) -> dict[str, np.ndarray]:
        if len(law.columns) == 1:
            return {law.table_columns[0]: X.prod(axis=1)}
        return dict(zip(self._order, X.T, strict=True))

    def _checked(self, X: Any) -> dict[str, np.ndarray]:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        check_non_negative(X, "LawRegressor.predict")
        return self._table(X, self.fit_.law)

    def _draws(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        """The law at every draw, nan where it is not finite, as intervals leave these out."""
        if not len(self.fit_.draws):
            raise ValueError("this LawRegressor has no draws: give it draws=200 or more and fit it again")
        draws = self.fit_.predict_draws(**columns)
        return np.where(np.isfinite(draws), draws, np.nan)

    def __sklearn_tags__(self) -> Any:
        """X may not be negative, nor y zero under a log objective; one falling law is a poor fit of most data."""
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        try:
            tags.target_tags.positive_only = get_objective(self.objective or get_law(self.law).objective).log
        except (LookupError, ValueError):  # `fit` says what is wrong with the settings
            tags.target_tags.positive_only = True
        tags.regressor_tags.poor_score = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """A law is a function under a name of its own, which pickle cannot follow: it is looked up again."""
        state = dict(super().__getstate__())
        if "fit_" in state:
            kept = {f.name: getattr(self.fit_, f.name) for f in fields(Fit)}
            state["fit_"] = kept | {"law": (dict(self.fit_.law.axis), self.fit_.law.target)}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "fit_" in state:
            axis, target = state["fit_"]["law"]
            self.fit_ = Fit(**state["fit_"] | {"law": get_law(self.law, axis=axis or None, target=target)})


def _weights(sample_weight: Any, rows: int) -> np.ndarray:
    """Weights of the rows. Raises ValueError where they are not one finite number a row, or none is above zero."""
    weights = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
    if weights.shape != (rows,):
        raise ValueError(f"sample_weight has shape {weights.shape}; X has {rows} rows")
    if (weights < 0).any() or not weights.any():
        raise ValueError("sample_weight must hold no number below zero, and at least one above it")
    return weights
