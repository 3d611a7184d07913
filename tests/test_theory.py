"""Theory simulators: what theory predicts is found in their rows, and their closed forms give published numbers."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import isoflop
from isoflop import _find
from isoflop._simulated import Claim, Found, Simulated, simulate, simulated
from isoflop.theory.early_warning import early_warning, kendall_tau, rolling_variance
from isoflop.theory.four_phases import exponents, phase
from isoflop.theory.pruned_perceptron import max_margin
from isoflop.theory.signature_kernel import bessel_i0, path_kernel
from isoflop.theory.slepian import persistence
from isoflop.theory.softmax_collapse import log_stablemax, perp_grad, stablemax
from isoflop.theory.sparse_patterns import log10_false_match
from isoflop.theory.superposition import squared_cosines

QUICK = {
    "collapsed_grokking": {"repeats": 2, "steps": 1000},
    "critical_periods": {"smallest": 1e-5, "rate": 0.1},
    "crossing": {"tables": 10, "draws": 40},
    "dynamical": {"largest": 128, "latents": 2000, "repeats": 6},
    "early_warning": {"paths": 200, "length": 1000, "repeats": 6},
    "ensembling": {"nets": 256, "largest": 4, "steps": 200},
    "feature_emergence": {"sizes": 2, "repeats": 2},
    "feedback_alignment": {"repeats": 3, "steps": 150},
    "four_phases": {"steps": 3000},
    "lazy_to_rich": {"repeats": 3},
    "noisy_perceptron": {"repeats": 12},
    "pruned_perceptron": {"dim": 30, "repeats": 10},
    "random_features": {"latents": 1000, "sizes": 4, "repeats": 6},
    "resolution_limited": {"repeats": 6},
    "sgd_temperature": {"coldest": 0.004, "sizes": 3, "repeats": 4},
    "signature_kernel": {"repeats": 60},
    "slepian": {"span": 4096, "repeats": 10},
    "softmax_collapse": {},
    "sparse_averaging": {"repeats": 5, "sizes": 3},
    "sparse_patterns": {"repeats": 10},
    "superposition": {"features": 300, "repeats": 6},
    "variance_limited": {"latents": 100, "repeats": 6},
}
NAMES = _find.names("theory")


@pytest.fixture(scope="module")
def made():
    """Comparisons at quick settings, each simulated once."""
    kept = {}

    def get(name):
        if name not in kept:
            kept[name] = simulate(name, QUICK.get(name, {}), draws=60)
        return kept[name]

    return get


@pytest.mark.parametrize("name", NAMES)
def test_simulator_says_what_it_is(name, made):
    function = _find.get("theory", name)
    result = made(name).simulated
    assert all(p.kind is p.KEYWORD_ONLY for p in inspect.signature(function).parameters.values())
    assert isinstance(result, Simulated)
    assert result.name == name
    assert result.settings.keys() == inspect.signature(function).parameters.keys()
    assert "seed" in result.settings
    assert "arXiv" in result.source
    assert result.status
    assert "Source: " in function.__doc__
    assert "Raises" in function.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_theory_is_found_in_the_rows(name, made):
    compared = made(name)
    assert compared.found.keys() == compared.simulated.predicted.keys()
    assert compared.ok, str(compared)
    assert all(f.low <= f.value <= f.high for f in compared.found.values())


@pytest.mark.parametrize("name", ["superposition", "signature_kernel", "variance_limited"])
def test_a_seed_repeats(name):
    function = _find.get("theory", name)
    first, again, other = (function(**QUICK[name], seed=s) for s in (3, 3, 4))
    target = next(iter(first.claims.values())).target
    np.testing.assert_array_equal(first.rows[target], again.rows[target])
    assert not np.array_equal(first.rows[target], other.rows[target], equal_nan=True)


@pytest.mark.parametrize("alpha", [0.7, 1.6])
def test_random_features_follow_their_spectrum(alpha):
    compared = simulate("random_features", {"alpha": alpha, "latents": 2000, "sizes": 4, "repeats": 8}, draws=40)
    found = compared.found
    assert found["alpha_features"].value == pytest.approx(alpha, abs=0.15)
    assert found["alpha_samples"].value == pytest.approx(alpha, abs=0.15)


@pytest.mark.parametrize("dimension", [1, 3])
def test_the_exponent_of_interpolation_is_that_of_the_manifold(dimension):
    found = simulate("resolution_limited", {"dimension": dimension, "repeats": 6}, draws=40).found
    assert found["alpha_linear"].value == pytest.approx(4 / dimension, rel=0.06)
    assert found["alpha_nearest"].value == pytest.approx(2 / dimension, rel=0.06)


def test_a_perceptron_needs_less_signal_the_emptier_the_boundary():
    found = simulate("noisy_perceptron", {"chi": 3, "repeats": 12}, draws=40).found
    assert found["alpha_signal"].value == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize(
    ("alpha", "beta", "name"),
    [(1, 0.3, "Ia"), (1, 0.75, "II"), (1, 1.25, "III"), (0.4, 0.3, "Ib"), (0.4, 0.75, "IVa"), (0.27, 0.75, "IVb")],
)
def test_the_ansatz_gives_every_phase_its_exponents(alpha, beta, name):
    quick = {"alpha": alpha, "beta": beta, "width": 8, "steps": 200, "repeats": 5}
    found = simulate("four_phases", quick, draws=20).found
    assert phase(alpha, beta) == name
    assert (found["xi"].value, found["eta"].value) == pytest.approx(exponents(alpha, beta), abs=0.005)


def test_phases_meet_where_they_border():
    for inside, outside in [((1, 0.4999), (1, 0.5001)), ((0.5001, 0.3), (0.4999, 0.3)), ((1, 0.9999), (1, 1.0001)),
                            ((0.5001, 0.8), (0.4999, 0.8))]:  # fmt: skip
        assert exponents(*inside) == pytest.approx(exponents(*outside), abs=2e-3)
    ends = [exponents(alpha, 0.9)[1] for alpha in (0.2930, 0.2928)]  # the risk is flat in d between: xi may jump
    assert ends[0] == pytest.approx(ends[1], abs=2e-3)


@pytest.mark.parametrize(
    ("alpha", "beta", "says"), [(0.2, 1, "alpha > 1/4"), (0.5, 0.3, "boundary"), (0.3, 0.1, "1/2")]
)
def test_outside_the_phases_is_refused(alpha, beta, says):
    with pytest.raises(ValueError, match=says):
        phase(alpha, beta)


def test_pruning_helps_and_the_hardest_half_is_enough(made):
    result = made("pruned_perceptron").simulated
    random, hard = result.part("random"), result.part("hard")
    assert hard["error"].mean() < 0.75 * random["error"].mean()
    assert random["ratio"].mean() > 1.4


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_max_margin_meets_the_conditions_of_an_optimum(seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((30, 6))
    signed = x * np.sign(x[:, :1])
    w = max_margin(signed)
    margins = signed @ w
    assert margins.min() == pytest.approx(1, abs=1e-6)
    support = signed[margins < 1 + 1e-6]
    weights, *_ = np.linalg.lstsq(support.T, w, rcond=None)
    np.testing.assert_allclose(weights @ support, w, atol=1e-6)
    assert (weights > -1e-6).all()


def test_classes_that_cannot_be_separated_are_refused():
    with pytest.raises(ValueError, match="cannot be separated"):
        max_margin(np.array([[1.0, 0.0], [-1.0, 0.0]]))


@pytest.mark.parametrize(("dimension", "theta"), [(1, 0.12033), (2, 0.18621), (3, 0.23577)])
def test_independent_intervals_give_the_known_persistence(dimension, theta):
    assert persistence(lambda t: np.cosh(t / 2) ** (-dimension / 2)) == pytest.approx(theta, abs=2e-5)


def test_a_covariance_that_rises_is_refused():
    with pytest.raises(ValueError, match="monotonically"):
        persistence(lambda t: np.exp(-(t**2) / 8) * np.cos(t))


@pytest.mark.parametrize(
    ("setting", "chance"),
    [((200_000, 4000, 10, 10), 1.0128e-17), ((2048, 40, 20, 10), 3.911e-13), ((1024, 8, 4, 2), 3.182e-4)],
)
def test_false_matches_are_counted_exactly(setting, chance):
    assert 10 ** log10_false_match(*setting) == pytest.approx(chance, rel=2e-4)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 60))
def test_some_overlap_is_certain(active, synapses, more):
    n = max(active, synapses) + more
    assert log10_false_match(n, active, synapses, 0) == pytest.approx(0, abs=1e-9)


@given(st.floats(0.1, 2.0))
@settings(max_examples=15, deadline=None)
def test_a_straight_path_has_the_bessel_kernel(c):
    steps = np.full((100, 1), c / 100)
    assert path_kernel(steps, steps) == pytest.approx(bessel_i0(2 * c), rel=1e-3)
    assert bessel_i0(2.0) == pytest.approx(2.27959, abs=1e-5)


def test_stablemax_is_a_distribution_with_slope_one_at_zero():
    logits = np.random.default_rng(0).normal(0, 30, (50, 7))
    np.testing.assert_allclose(stablemax(logits).sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(log_stablemax(logits)), stablemax(logits))
    h = 1e-6
    raised = [stablemax(np.array([x, 0.0]))[0] / stablemax(np.array([x, 0.0]))[1] for x in (-h, 0.0, h)]
    np.testing.assert_allclose(np.diff(raised) / h, 1, rtol=1e-5)


@given(st.integers(0, 1000))
def test_perp_grad_does_not_scale_the_weights(seed):
    g, w = np.random.default_rng(seed).standard_normal((2, 20))
    assert abs(perp_grad(g, w) @ w) < 1e-10
    assert perp_grad(g, np.zeros(20)) is g


def test_slowing_down_is_seen_before_a_fold():
    result = early_warning(paths=10, length=2000, sizes=3, repeats=6)
    assert result.part("ramp")["rises"].mean() > 0.8
    assert kendall_tau(np.arange(9.0)) == 1
    assert kendall_tau(-np.arange(9.0)) == -1
    x = np.random.default_rng(0).standard_normal(50)
    np.testing.assert_allclose(rolling_variance(x, 10)[7], x[7:17].var())


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_overlaps_do_not_depend_on_axes_or_lengths(seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((12, 5))
    turn, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    np.testing.assert_allclose(squared_cosines(rows), squared_cosines(3 * rows @ turn), atol=1e-12)
    with pytest.raises(ValueError, match="a row is zero"):
        squared_cosines(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Found(1.0, 1.05, 0.98, 1.1, 9), "agrees"),
        (Found(1.0, 1.05, 1.02, 1.1, 9), "differs"),
        (Found(1.0, 1.05, 1.02, 1.1, 9, within=0.06), "near"),
    ],
)
def test_verdicts(found, verdict):
    assert found.verdict == verdict


def test_a_wrong_prediction_differs():
    x = np.geomspace(1, 100, 12)
    noise = np.exp(0.01 * np.random.default_rng(0).standard_normal(12))
    claims = {
        "right": Claim(0.5, "loss", "a", axis="x"),
        "wrong": Claim(0.6, "loss", "a", axis="x", within=0.01),
        "rises": Claim(0.5, "best", "a", axis="x", rises=True),
    }
    rows = {"a": {"x": x, "loss": x**-0.5 * noise, "best": x**0.5 * noise}}
    result = simulated("mine", rows, claims, source="none", status="planted", settings={"seed": 0}).compare()
    assert [f.verdict for f in result.found.values()] == ["agrees", "differs", "agrees"]
    assert not result.ok


def test_rows_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="column 'loss' of part 'a' is not finite"):
        simulated("mine", {"a": {"loss": [1.0, np.nan]}}, {}, source="", status="", settings={})


@pytest.mark.parametrize(
    ("name", "own", "says"),
    [
        ("random_features", {"width": 3}, "has no setting 'width'; it has alpha"),
        ("random_features", {"sizes": 3.5}, "sizes is a whole number, got 3.5"),
        ("random_features", {"seed": -1}, "seed is a whole number from 0"),
        ("random_features", {"latents": 100}, "100 latents are too few"),
        ("dynamical", {"a": 5.0}, "a must lie between 1 and"),
        ("slepian", {"step": 1.0}, "step must be above 0"),
        ("superposition", {"sizes": 1}, "sizes must be at least 3"),
        ("collapsed_grokking", {"share": 1.0}, "share must lie below 1"),
        ("sgd_temperature", {"coldest": 0.02}, "SGD is not stable"),
        ("lazy_to_rich", {"steps": 10, "repeats": 2}, "training rows are not fitted"),
        ("sparse_patterns", {"threshold": 4, "trials": 2000}, "lower the threshold"),
        ("random_feature", {}, "did you mean random_features"),
    ],
)
def test_wrong_settings_are_told_so(name, own, says):
    with pytest.raises((ValueError, LookupError), match=says):
        simulate(name, own)


def test_an_interval_needs_draws(made):
    with pytest.raises(ValueError, match="draws must be at least 20, got 5"):
        made("softmax_collapse").simulated.compare(draws=5)


def test_a_part_that_is_not_there(made):
    with pytest.raises(LookupError, match="has no part 'loss'; it has gap, stablemax"):
        made("softmax_collapse").simulated.part("loss")


def test_rows_are_runs_that_isoflop_reads(made, tmp_path):
    made("variance_limited").simulated.write(tmp_path / "rows.csv")
    rows = isoflop.read(tmp_path / "rows.csv", where='part == "features"')
    fit = isoflop.fit("power", rows, axis="features", target="excess", objective="squares_log", draws=0)
    assert fit.coef["alpha"] == pytest.approx(made("variance_limited").found["alpha_features"].value)


def test_the_document_runs(capsys):
    page = (Path(__file__).parent.parent / "docs" / "theory.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(block, {})
    assert "alpha_both" in capsys.readouterr().out
    for name in NAMES:
        assert f"`{name}`" in page


def test_the_verb(run, tmp_path):
    out = tmp_path / "rows.csv"
    whole = run.json("simulate", "softmax_collapse", "--set", "seed=1", "--draws", 40, "--out", out)
    assert whole["ok"]
    assert whole["settings"]["seed"] == 1
    assert whole["found"]["alpha_stablemax"]["predicted"] == 2
    assert out.read_text().startswith("part,bits,gap")
    assert set(run.json("simulate")["theory"]) == set(NAMES)
    text = run("simulate", "softmax_collapse").stdout
    assert "predicted 2" in text
    assert "arXiv 2501.04697" in text
    assert "no setting 'x'" in run("simulate", "softmax_collapse", "--set", "x=1", code=2).stderr
