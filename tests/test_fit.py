"""Fits: published numbers on public data, planted truth, doubts that must be raised, and files that come back."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import planted_table

import isoflop
from isoflop import Fit, Objective, RunsError, law, positive
from isoflop._uncertainty import MAX_REFIT_ROWS

GOLDEN = 1.0182740178e-3


def assert_close(coef, expected, rel):
    for name, value in expected.items():
        assert coef[name] == pytest.approx(value, rel=rel), name


def test_chinchilla_optimum_is_the_published_objective_s(chinchilla_rows):
    """Besiroglu et al. 2024 (2404.10102), Huber 1e-3 summed: the optimum lies below every published fit."""
    fit = isoflop.fit("chinchilla", chinchilla_rows, draws=2000)
    assert fit.objective["value"] == pytest.approx(GOLDEN, rel=1e-9)
    assert_close(fit.coef, {"A": 477.826, "B": 2143.42, "E": 1.817218, "alpha": 0.347311, "beta": 0.367172}, 3e-6)
    assert fit.agreeing == fit.starts
    published = {"A": 124.5, "B": 1293.0, "E": 0.0257, "alpha": 0.0154, "beta": 0.0206}  # cell 25 of the notebook
    for i, name in enumerate(fit.coef):
        # a standard error from m draws is known to 1 / sqrt(2 m); B's draws are heavy-tailed, which doubles that
        assert np.std(fit.draws[:, i]) == pytest.approx(published[name], rel=0.3 if name == "B" else 0.12), name


def test_least_absolute_deviations_give_the_published_headline(chinchilla_rows):
    """E 1.82, A 482.0, B 2085.4, alpha .348, beta .366 (2404.10102, table 1) is the LAD fit."""
    fit = isoflop.fit("chinchilla", chinchilla_rows, objective="absolute_log", draws=0)
    assert_close(fit.coef, {"A": 482.006, "B": 2085.44, "E": 1.816864, "alpha": 0.347813, "beta": 0.365854}, 3e-6)


def test_all_245_rows_warn_that_five_of_them_carry_b(data):
    rows = isoflop.read(data / "chinchilla" / "points.csv")
    fit = isoflop.fit("chinchilla", rows, draws=0)
    assert_close(fit.coef, {"A": 495.7, "B": 12846, "E": 1.8914, "alpha": 0.3493, "beta": 0.4530}, 2e-3)
    (doubt,) = [w for w in fit.warnings if "carry B" in w]
    assert "5 of 245 rows carry B: it is 1.285e+04 with them, 2143 without" in doubt
    assert "0, 1, 2, 3, 4" in doubt


def test_audit_reaches_the_optimum_from_most_of_4500_far_starts(chinchilla_rows):
    audit = isoflop.audit("chinchilla", chinchilla_rows)
    assert audit.starts == 4500
    assert audit.value == pytest.approx(GOLDEN, rel=1e-9)
    assert audit.at_optimum > 0.8


def test_parallel_streams_refit(data):
    """Chen et al. 2025 (2505.10475): a law of the user's own, on the released Stack rows."""

    @law()
    def parscale(
        params, streams, *, E=positive(0.3, 3), A=positive(1e-4, 1e2), alpha=positive(0.05, 1), k=positive(0.05, 2)
    ):
        from isoflop import xp

        return E + (A * 1e9 / (params * (k * xp.log(streams) + 1))) ** alpha

    rows = isoflop.read(data / "parallel-streams" / "runs.csv", where="corpus == 'stack-v2-python'",
                        rename={"params_nonembed": "params", "streams_p": "streams"})  # fmt: skip
    fit = isoflop.fit(parscale, rows, draws=0)
    assert_close(fit.coef, {"E": 0.6912, "A": 0.01131, "alpha": 0.1894, "k": 0.3935}, 0.02)


def test_planted_coefficients_come_back(planted):
    fit = isoflop.fit("chinchilla", planted, draws=200)
    for name, truth in {"E": 1.7, "A": 400.0, "B": 1200.0, "alpha": 0.34, "beta": 0.36}.items():
        low, high = fit.interval(99)[name]
        assert low < truth < high
    assert fit.n == len(planted["loss"])


def test_same_seed_same_fit_and_other_seed_other_draws(planted):
    first, again, other = (isoflop.fit("chinchilla", planted, draws=30, seed=s) for s in (1, 1, 2))
    assert first.coef == again.coef
    assert (first.draws == again.draws).all()
    assert (first.draws != other.draws).any()
    assert first.coef["alpha"] == pytest.approx(other.coef["alpha"], rel=1e-6)


def test_draws_do_not_depend_on_how_many_are_asked_for(planted):
    few, many = (isoflop.fit("chinchilla", planted, draws=d) for d in (10, 40))
    np.testing.assert_allclose(few.draws, many.draws[:10], rtol=1e-5)


def test_threads_and_blocks_change_no_digit(planted):
    from isoflop._fit import prepare
    from isoflop._newton import Options, solve
    from isoflop._uncertainty import resample_weights

    problem = prepare("chinchilla", planted).problem
    start = np.repeat(np.array(list(isoflop.fit("chinchilla", planted, draws=0).coef.values()))[None], 200, axis=0)
    begin = prepare("chinchilla", planted).law.inward(start)
    weights = resample_weights(problem.target.size, 0, None)
    one, two = (solve(problem, begin, weights, options=Options(damping=1e-3), workers=w).theta for w in (1, 2))
    assert (one == two).all()


def test_global_state_is_left_alone(planted):
    errors = np.geterr()
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    isoflop.fit("chinchilla", planted, draws=10)
    assert np.random.random() == expected  # noqa: NPY002
    assert np.geterr() == errors


@pytest.mark.parametrize("objective", ["huber_log", "squares_log", "absolute_log", "student_t", "squares", "huber"])
def test_every_objective_finds_the_planted_law(planted, objective):
    fit = isoflop.fit("chinchilla", planted, objective=objective, draws=0)
    assert fit.coef["alpha"] == pytest.approx(0.34, abs=0.06)
    assert fit.objective["name"] == objective


def test_student_t_is_unmoved_by_wild_rows(planted):
    wild = {k: v.copy() for k, v in planted.items()}
    wild["loss"][:3] *= 1.5
    robust = isoflop.fit("chinchilla", wild, objective="student_t", draws=0)
    plain = isoflop.fit("chinchilla", wild, objective="squares_log", draws=0)
    truth = isoflop.fit("chinchilla", planted, objective="student_t", draws=0)
    point = {"params": 1e10, "tokens": 2e11}
    assert abs(robust.predict(**point) - truth.predict(**point)) < 0.5 * abs(
        plain.predict(**point) - truth.predict(**point)
    )


def test_weights_from_a_column_and_from_standard_errors(planted):
    rows = {k: np.concatenate([v, v[:5]]) for k, v in planted.items()}
    rows["loss"][-5:] *= 2.0
    rows["trust"] = np.where(np.arange(len(rows["loss"])) < len(planted["loss"]), 1.0, 1e-9)
    rows["loss_se"] = rows["loss"] * np.where(rows["trust"] == 1.0, 0.01, 1e3)
    want = isoflop.fit("chinchilla", planted, objective="squares_log", draws=0).coef
    for column in ("trust", "loss_se"):
        fit = isoflop.fit("chinchilla", rows, objective=Objective("squares_log", weights=column), draws=0)
        assert_close(fit.coef, want, 1e-3)


def test_cluster_bootstrap_is_wider_where_rows_repeat_their_run(planted):
    rng = np.random.default_rng(0)
    runs = len(planted["loss"])
    rows = {k: np.repeat(v, 6) for k, v in planted.items()}
    rows["loss"] = rows["loss"] * np.exp(0.0005 * rng.standard_normal(rows["loss"].size))
    rows["run"] = np.repeat([f"r{i}" for i in range(runs)], 6)
    rows["step"] = np.tile(np.arange(6.0), runs)
    single = isoflop.fit("chinchilla", rows, draws=100)
    clustered = isoflop.fit("chinchilla", rows, draws=100, by="run")
    assert clustered.made["uncertainty"] == "cluster bootstrap"
    width = [np.ptp(f.interval(90)["alpha"]) for f in (single, clustered)]
    assert width[1] > 1.7 * width[0]  # sqrt(6) = 2.4 in expectation


def test_past_ten_thousand_rows_draws_are_one_step_and_say_so(planted):
    repeats = MAX_REFIT_ROWS // len(planted["loss"]) + 2
    rng = np.random.default_rng(0)
    rows = {k: np.tile(v, repeats) for k, v in planted_table(noise=0.0).items()}
    rows["loss"] = rows["loss"] * np.exp(0.05 * rng.standard_normal(rows["loss"].size))
    fit = isoflop.fit("chinchilla", rows, draws=200)
    assert fit.made["uncertainty"] == "one-step case bootstrap"
    assert any("not from full refits" in w for w in fit.warnings)
    half = isoflop.fit("chinchilla", {k: v[: MAX_REFIT_ROWS // 2] for k, v in rows.items()}, draws=100)
    ratio = np.ptp(half.interval(90)["alpha"]) / np.ptp(fit.interval(90)["alpha"])
    assert ratio == pytest.approx(np.sqrt(2), rel=0.35)


def test_save_and_load(tmp_path, planted):
    fit = isoflop.fit("chinchilla", planted, draws=20)
    path = tmp_path / "fit.json"
    fit.save(path)
    back = Fit.load(path)
    assert back.to_dict() == fit.to_dict()
    np.testing.assert_array_equal(back.draws, fit.draws)
    assert str(back) == str(fit)
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads(path.read_text())["data_hash"] == fit.made["data_hash"]


def test_the_hash_is_of_the_used_data(planted):
    base = isoflop.fit("chinchilla", planted, draws=0).made["data_hash"]
    assert (
        isoflop.fit("chinchilla", planted | {"note": np.ones(len(planted["loss"]))}, draws=0).made["data_hash"] == base
    )
    other = planted | {"loss": planted["loss"] * 1.0000001}
    assert isoflop.fit("chinchilla", other, draws=0).made["data_hash"] != base


@pytest.mark.parametrize("text", ["{}", "[1]", "not json", '{"format": 99}', '{"format": 1, "made": {}}'])
def test_what_is_no_saved_fit_is_refused_in_one_sentence(tmp_path, text):
    path = tmp_path / "fit.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"fit\.json"):
        Fit.load(path)


# ---- doubts ----------------------------------------------------------------------------------------------------------


def doubts(fit, words):
    return [w for w in fit.warnings if words in w]


def test_clean_rows_raise_no_doubt(planted):
    assert isoflop.fit("chinchilla", planted, draws=100).warnings == ()


def test_few_rows_and_narrow_span(planted):
    few = isoflop.fit("chinchilla", {k: v[:9] for k, v in planted.items()}, draws=0)
    assert doubts(few, "few rows: 9 for 5 coefficients")
    near = {k: v[planted["params"] < 2e8] for k, v in planted.items()}
    assert doubts(isoflop.fit("chinchilla", near, draws=0), "less than one")
    with pytest.raises(RunsError, match="5 coefficients and dict has 4 usable rows"):
        isoflop.fit("chinchilla", {k: v[:4] for k, v in planted.items()})


def test_one_size_only(planted):
    one = {k: v[:20] for k, v in planted.items()} | {"params": np.full(20, 1e8)}
    assert doubts(isoflop.fit("chinchilla", one, draws=0), "params has one value only")


def test_an_asymptote_seen_only_from_below_is_not_identified():
    """Midpoint at 100, rows up to 20: A = .6 cannot be told, and no narrow interval may say otherwise."""
    x = np.geomspace(1, 20, 25)
    held = said = 0
    for seed in range(12):
        scatter = 0.002 * np.random.default_rng(seed).standard_normal(25)
        rows = {"flops": x, "accuracy": 0.02 + 0.6 / (1 + (100 / x) ** 1.5) + scatter}
        fit = isoflop.fit("sigmoid", rows, axis="flops", draws=60)
        low, high = fit.interval(90)["A"]
        held += low < 0.6 < high
        said += bool(doubts(fit, "A is not identified") or doubts(fit, "lies above every row's flops"))
    assert held >= 9
    assert said >= 10


def test_a_term_that_is_not_there_is_said(planted):
    rows = {"flops": planted["flops"], "loss": 30.0 * planted["flops"] ** -0.05}
    fit = isoflop.fit("power_offset", rows, axis="flops", draws=50)
    assert doubts(fit, "E = ")


def test_two_coefficients_that_trade_off_are_named(planted):
    @law()
    def doubled(params, *, a=positive(0.1, 1e4), b=positive(0.1, 1e4), alpha=positive(0.05, 1)):
        return a * b * params**-alpha

    fit = isoflop.fit(doubled, {"params": planted["params"], "loss": 400 * planted["params"] ** -0.3}, draws=0)
    assert doubts(fit, "trade off")


def test_filled_columns_are_marked():
    steps = np.arange(10.0, 510.0, 10)
    rows = {"step": steps, "lr": np.full(50, 0.01), "loss": 2 + (0.01 * steps) ** -0.5, "run": np.full(50, "a")}
    fit = isoflop.fit("lr_annealing", rows, draws=0)
    assert fit.made["filled"] == {"lr_area": "lr_area", "anneal_area": "anneal_area"}
    assert doubts(fit, "lr_area was not in the table")


def test_nothing_finite_is_an_error_not_a_nan():
    @law()
    def broken(params, *, a=positive(1, 2)):
        return -a * params

    with pytest.raises(ValueError, match="no start gave a finite objective"):
        isoflop.fit(broken, {"params": [1.0, 2.0, 3.0], "loss": [1.0, 2.0, 3.0]})


# ---- starting up -----------------------------------------------------------------------------------------------------


def fresh(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_core_loads_nothing_heavy():
    heavy = ("pandas", "scipy", "matplotlib", "plotly", "torch", "jax", "pyarrow", "polars", "click", "numpy")
    out = fresh(f"import isoflop, sys; print([m for m in {heavy!r} if m in sys.modules])")
    assert out.strip() == "[]"


def test_a_fit_from_arrays_needs_numpy_alone(planted):
    out = fresh(
        "import numpy as np, sys, isoflop\n"
        "x = np.geomspace(1, 1e4, 40)\n"
        "f = isoflop.fit('power_offset', {'x': x, 'loss': 1 + x**-0.3}, draws=10)\n"
        "print([m for m in ('pandas', 'scipy', 'matplotlib', 'torch', 'jax', 'click') if m in sys.modules], f.n)"
    )
    assert out.strip() == "[] 40"


def test_public_names_are_what_is_exported():
    for name in isoflop.__all__:
        if name == "LawRegressor" and importlib.util.find_spec("sklearn") is None:
            continue  # an extra
        assert getattr(isoflop, name) is not None
    assert set(isoflop.__all__) <= set(dir(isoflop))
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        isoflop.fitt  # noqa: B018
