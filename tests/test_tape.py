"""The tape's derivatives are exact: against finite differences, and against plain numpy for the value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop import _find, law, positive, real, unit, xp
from isoflop._check import observe, plant_coefs, plant_columns
from isoflop._fit import prepare
from isoflop._law import get_law
from isoflop._newton import Evaluator, cholesky_solve
from isoflop._objective import NAMES, get_objective
from isoflop._tape import _topological


@law(target="y")
def everything(
    x, z, *, a=positive(0.1, 10), b=positive(0.5, 2), c=real(-2, 2), d=unit(), e=positive(1e-3, 1e3, like="x")
):
    """A form with every name of xp."""
    t = xp.tanh(c * z) + xp.expit(c - z) + xp.softplus(b * z) + xp.sqrt(a * x) + xp.abs(c - z)
    u = xp.where(x > 2.0, xp.maximum(a, b * x), xp.minimum(d, z + 3.0)) + xp.logaddexp(c, b * z)
    return 5.0 + t + u + xp.log1p(d * x) + xp.expm1(-b) / (1 + xp.exp(c * z)) + (e / x) ** b + xp.power(x, d) / a + 2**d


def table(rng, n=23):
    return {"x": rng.uniform(0.5, 4, n), "z": rng.normal(size=n), "y": rng.uniform(5, 9, n)}


def numeric(evaluate, theta, h=1e-5):
    grad = np.empty(len(theta))
    hess = np.empty((len(theta), len(theta)))
    for i in range(len(theta)):
        step = np.zeros_like(theta)
        step[i] = h
        up, down = evaluate((theta + step)[None], None), evaluate((theta - step)[None], None)
        grad[i] = (up.value[0] - down.value[0]) / (2 * h)
        hess[i] = (up.gradient[0] - down.gradient[0]) / (2 * h)
    return grad, hess


@pytest.mark.parametrize("objective", ["squares", "squares_log", "student_t", "huber", "huber_log"])
def test_derivatives_match_finite_differences(objective):
    rng = np.random.default_rng(0)
    delta = 0.3 if objective.startswith("huber") else None
    setup = prepare(everything, table(rng), objective=get_objective(objective, delta))
    evaluate = Evaluator(setup.problem, 1)
    theta = rng.normal(scale=0.4, size=setup.problem.n_free)
    at = evaluate(theta[None], None)
    grad, hess = numeric(evaluate, theta)
    np.testing.assert_allclose(at.gradient[0], grad, rtol=1e-6, atol=1e-6 * np.abs(grad).max())
    # a kink of Huber between two points of a difference would be the difference's error, not the derivative's
    np.testing.assert_allclose(at.hessian[0], hess, rtol=2e-5, atol=2e-5 * np.abs(hess).max())


def smooth(name):
    """No kink that a finite difference could straddle."""
    found = get_law(name)
    return "maximum" not in {n.op for n in _topological([found.trace(set(found.table_columns))])}


@given(seed=st.integers(0, 10_000), name=st.sampled_from([n for n in _find.names("laws") if smooth(n)]))
@settings(max_examples=40, deadline=None)
def test_every_law_has_exact_derivatives_anywhere_in_its_range(seed, name):
    rng = np.random.default_rng(seed)
    found = get_law(name)
    design = {c: v[:30] for c, v in plant_columns(found, rng).items()}
    rows = observe(found, design, plant_coefs(found, design), 0.05, rng)
    setup = prepare(found, rows, objective="squares_log" if found.objective.endswith("log") else "squares")
    evaluate = Evaluator(setup.problem, 1)
    theta = found.inward(np.array(list(plant_coefs(found, design).values()))) + rng.normal(
        scale=0.05, size=len(found.coefs)
    )
    at = evaluate(theta[None], None)
    grad, hess = numeric(evaluate, theta)
    np.testing.assert_allclose(at.gradient[0], grad, atol=1e-5 * np.abs(grad).max())
    np.testing.assert_allclose(at.hessian[0], hess, atol=1e-3 * np.abs(hess).max())


def test_value_equals_plain_numpy():
    rng = np.random.default_rng(1)
    rows = table(rng)
    setup = prepare(everything, rows, objective="squares")
    theta = rng.normal(scale=0.4, size=5)
    plain = everything(x=rows["x"], z=rows["z"], **setup.coefs(theta))
    value = Evaluator(setup.problem, 1)(theta[None], None).value[0]
    assert value == pytest.approx(0.5 * np.sum((plain - rows["y"]) ** 2), rel=1e-12)


def test_rows_in_blocks_give_the_same_sums(monkeypatch):
    import isoflop._problem as problem

    rng = np.random.default_rng(2)
    setup = prepare(everything, table(rng, 1000), objective="huber_log")
    theta = rng.normal(scale=0.4, size=(3, 5))
    whole = Evaluator(setup.problem, 3)(theta, None)
    monkeypatch.setattr(problem, "_BLOCK", 300)
    parts = Evaluator(setup.problem, 3)(theta, None)
    assert Evaluator(setup.problem, 3).width < 1000
    np.testing.assert_allclose(parts.hessian, whole.hessian, rtol=1e-9)
    np.testing.assert_allclose(parts.gradient, whole.gradient, rtol=1e-9)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (lambda x, *, a=positive(1, 2): a if x > 1 else x, "xp.where"),
        (lambda x, *, a=positive(1, 2): __import__("math").exp(a) * x, "isoflop.xp only"),
        (lambda x, *, a=positive(1, 2): 3.0, "does not depend"),
        (lambda x, *, a=positive(1, 2): a * x + np.ones(3), "got ndarray"),
    ],
)
def test_a_law_outside_the_rules_is_told_so(body, says):
    body.__name__ = "wrong"
    with pytest.raises(ValueError, match=says):
        law()(body).trace({"x"})


def test_no_function_is_unknown_to_numpy_or_to_nodes():
    names = [n for n in vars(xp) if callable(getattr(xp, n)) and not n.startswith("_") and n not in ("Any", "Node")]
    for name in names:
        args = {"where": (np.array([True]), 1.0, 2.0)}.get(name, (0.5,))
        if name in ("power", "logaddexp", "maximum", "minimum"):
            args = (0.5, 0.25)
        assert np.isfinite(getattr(xp, name)(*args)).all()


@given(st.integers(1, 7), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_batched_cholesky_solves_and_knows_what_is_not_definite(size, seed):
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(4, size, size))
    matrix = half @ half.swapaxes(1, 2) + 0.1 * np.eye(size)
    matrix[3] -= 2 * np.linalg.eigvalsh(matrix[3]).max() * np.eye(size)
    right = rng.normal(size=(4, size))
    x, good = cholesky_solve(matrix, right)
    assert good.tolist() == [True, True, True, False]
    np.testing.assert_allclose((matrix[:3] @ x[:3, :, None])[:, :, 0], right[:3], atol=1e-6)


def test_objectives_by_name():
    assert [get_objective(n).name for n in NAMES] == list(NAMES)
    with pytest.raises(ValueError, match="no objective named 'hubr'; there are huber_log"):
        get_objective("hubr")
    with pytest.raises(ValueError, match="use objective absolute_log"):
        get_objective("huber_log", 0.0)
    with pytest.raises(ValueError, match="takes no delta"):
        get_objective("squares", 0.1)
