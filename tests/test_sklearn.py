"""LawRegressor: scikit-learn's own checks, and that it is the same fit as isoflop's."""

import pickle
import subprocess
import sys

import numpy as np
import pandas
import polars
import pytest
from conftest import planted_table

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'isoflop[sklearn]'")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

import isoflop
from isoflop._sklearn import LawRegressor

COLUMNS = ["params", "tokens"]


@parametrize_with_checks([LawRegressor()])  # and none is expected to fail
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def runs():
    return pandas.DataFrame(planted_table())


def test_it_is_the_same_fit(runs):
    made = LawRegressor("chinchilla", objective="huber_log", draws=20).fit(runs[COLUMNS], runs["loss"])
    want = isoflop.fit("chinchilla", runs, objective="huber_log", draws=20)
    assert made.fit_.coef == want.coef
    assert np.array_equal(made.fit_.draws, want.draws)
    assert np.array_equal(made.predict(runs[COLUMNS]), want.predict(**runs[COLUMNS]))
    assert made.score(runs[COLUMNS], runs["loss"]) > 0.99


def test_no_objective_is_the_laws_own(runs):
    made = LawRegressor("chinchilla", objective=None).fit(runs[COLUMNS], runs["loss"])
    assert made.fit_.objective["name"] == "huber_log"


def test_columns_are_found_by_name_and_not_by_place(runs):
    plain = LawRegressor("chinchilla").fit(runs[COLUMNS], runs["loss"])
    turned = LawRegressor("chinchilla").fit(runs[COLUMNS[::-1]], runs["loss"])
    named = LawRegressor("chinchilla", columns=COLUMNS[::-1]).fit(runs[COLUMNS[::-1]].to_numpy(), runs["loss"])
    bare = LawRegressor("chinchilla").fit(runs[COLUMNS].to_numpy(), runs["loss"].to_numpy())
    for other in (turned, named, bare):
        assert other.fit_.coef == plain.fit_.coef
    other = polars.from_pandas(runs)
    assert LawRegressor("chinchilla").fit(other[COLUMNS], other["loss"]).fit_.coef == plain.fit_.coef
    with pytest.raises(ValueError, match=r"takes params, tokens; X has N, D: say with columns=\[...\]"):
        LawRegressor("chinchilla").fit(runs[COLUMNS].set_axis(["N", "D"], axis=1), runs["loss"])
    with pytest.raises(ValueError, match="X has 2 columns, and 1 are named: flops"):
        LawRegressor("power", columns=["flops"]).fit(runs[COLUMNS], runs["loss"])


def test_a_law_of_one_column_runs_along_the_product(runs):
    made = LawRegressor("power_offset").fit(runs[COLUMNS], runs["loss"])
    assert made.fit_.law.table_columns == ("params x tokens",)
    compute = LawRegressor("power_offset").fit(runs[["flops"]], runs["loss"])
    assert compute.fit_.law.table_columns == ("flops",)
    assert made.fit_.coef["alpha"] == pytest.approx(compute.fit_.coef["alpha"], rel=1e-4)  # flops are 6 N D


def test_zero_is_a_size_where_the_law_is_defined_there():
    x = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128.0])[:, None]
    y = 1.5 + 2.0 / (x[:, 0] + 3.0) ** 0.5
    assert LawRegressor().fit(x, y).predict(x) == pytest.approx(y, rel=1e-6)
    with pytest.raises(ValueError, match="is not above zero"):
        LawRegressor("power").fit(x, y)
    with pytest.raises(ValueError, match="not finite at row 0 of X"):
        LawRegressor("power").fit(x[1:], y[1:]).predict(x)


def test_weights_repeat_rows_and_zero_leaves_them_out(runs):
    weights = np.random.default_rng(0).integers(0, 4, len(runs))
    X, y = runs[COLUMNS].to_numpy(), runs["loss"].to_numpy()
    weighed = LawRegressor("chinchilla").fit(X, y, sample_weight=weights)
    repeated = LawRegressor("chinchilla").fit(X.repeat(weights, axis=0), y.repeat(weights))
    assert weighed.predict(X) == pytest.approx(repeated.predict(X), rel=1e-7)
    for bad in (-weights, 0 * weights):
        with pytest.raises(ValueError, match="sample_weight must hold no number below zero"):
            LawRegressor("chinchilla").fit(X, y, sample_weight=bad)


def test_intervals_need_draws_and_widen_with_the_level(runs):
    X, y = runs[COLUMNS], runs["loss"]
    made = LawRegressor("chinchilla", draws=50).fit(X, y)
    best, spread = made.predict(X, return_std=True)
    low, high = made.predict_interval(X, level=90).T
    inner = made.predict_interval(X, level=50, kind="law")
    assert (spread > 0).all()
    assert (low < best).all()
    assert (best < high).all()
    assert (high - low > inner[:, 1] - inner[:, 0]).all()
    assert np.mean((low <= y) & (y <= high)) > 0.75
    with pytest.raises(ValueError, match="has no draws: give it draws=200"):
        LawRegressor("chinchilla").fit(X, y).predict_interval(X)
    with pytest.raises(ValueError, match="level is in per cent"):
        made.predict_interval(X, level=120)


def test_it_is_searched_and_piped(runs):
    X, y = runs[COLUMNS], runs["loss"]
    found = GridSearchCV(LawRegressor(), {"law": ["chinchilla", "power"]}, cv=3).fit(X, y)
    assert found.best_params_ == {"law": "chinchilla"}
    in_billions = make_pipeline(FunctionTransformer(lambda frame: 1e9 * frame), LawRegressor("chinchilla"))
    assert cross_val_score(in_billions, X / 1e9, y, cv=3).min() > 0.9
    assert clone(found.best_estimator_).get_params() == found.best_estimator_.get_params()


def test_a_fitted_one_is_kept_and_read_back(runs):
    made = LawRegressor("chinchilla", draws=10).fit(runs[COLUMNS], runs["loss"])
    again = pickle.loads(pickle.dumps(made))
    assert np.array_equal(again.predict(runs[COLUMNS]), made.predict(runs[COLUMNS]))
    assert np.array_equal(again.fit_.draws, made.fit_.draws)
    assert again.fit_.law == made.fit_.law


def test_without_scikit_learn_it_says_how_to_install_it():
    block = "import sys; sys.modules['sklearn'] = None; sys.modules['sklearn.base'] = None; import isoflop._sklearn"
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
    assert done.stderr.strip().endswith("ImportError: LawRegressor needs scikit-learn: pip install 'isoflop[sklearn]'")


def test_isoflop_itself_does_not_import_it():
    code = "import sys, isoflop; isoflop.fit; isoflop.read; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
