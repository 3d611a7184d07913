"""fit("auto"): coverage beyond the rows, weights, borrowed strength, few rows, and what a Stack does."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import planted_table
from hypothesis import given, settings
from hypothesis import strategies as st

import isoflop
from isoflop import _auto, _panel
from isoflop._law import get_law
from isoflop._runs import load

ONE = [("power_offset", "x"), ("power", "x")]


def curve(n=24, *, noise=0.01, seed=0, floor=1.5, slope=0.25, top=1e4):
    """Rows of floor + 4 x^-slope with scatter."""
    rng = np.random.default_rng(seed)
    x = np.geomspace(1.0, top, n)
    return {"x": x, "loss": (floor + 4 * x**-slope) * np.exp(noise * rng.standard_normal(n))}


def stacked(rows, laws=ONE, **how):
    return isoflop.auto({"": load(rows)}, laws, **{"draws": 60, **how})[""]


@pytest.fixture(scope="module")
def stack():
    return isoflop.fit("auto", planted_table())


# ---- coverage --------------------------------------------------------------------------------------------------------


def _size_and_data(rng):
    n = 10 ** rng.uniform(7.3, 9.3, 40)
    d = n * 10 ** rng.uniform(0.7, 1.9, 40)
    top = np.argmax(n * d)  # the last row lies ten times beyond the largest, each of the two by the same factor
    columns = {"params": np.append(n, n[top] * 10**0.5), "tokens": np.append(d, d[top] * 10**0.5)}
    coef = {"E": rng.uniform(1.5, 2), "A": np.exp(rng.uniform(5, 7)), "B": np.exp(rng.uniform(6, 8)),
            "alpha": rng.uniform(0.28, 0.4), "beta": rng.uniform(0.28, 0.4)}  # fmt: skip
    return columns, get_law("chinchilla")(**columns, **coef)


def _floor(rng):
    x = np.append(np.geomspace(1, 1e4, 24), 1e5)
    return {"x": x}, rng.uniform(0.5, 2) + rng.uniform(2, 6) * x ** -rng.uniform(0.15, 0.4)


def _broken(rng):
    x = np.append(np.geomspace(1, 1e4, 24), 1e5)
    bend = (1 + (x / 10 ** rng.uniform(1.5, 2.5)) ** (1 / 0.3)) ** (-0.3 * rng.uniform(0.1, 0.3))
    return {"x": x}, 0.5 + 5 * x ** -rng.uniform(0.05, 0.2) * bend


PLANTED = {
    "power_offset": (_floor, ONE),
    "chinchilla": (_size_and_data, ["chinchilla", "kaplan"]),
    "bnsl": (_broken, [("bnsl", "x"), ("power_offset", "x")]),
}
SETS, NOISE = 21, 0.04


@pytest.fixture(scope="module")
def beyond():
    """Of each planted set: whether the run ten times beyond lay in its 90 % interval, and the width over the truth."""
    out = {}
    for name, (plant, laws) in PLANTED.items():
        rows = []
        for seed in range(SETS):
            rng = np.random.default_rng([seed, 7])
            columns, loss = plant(rng)
            loss = loss * np.exp(NOISE * rng.standard_normal(loss.size))
            made = stacked({c: v[:-1] for c, v in columns.items()} | {"loss": loss[:-1]}, laws, draws=30, seed=seed)
            low, high = np.percentile(made.predict_draws(**{c: v[-1:] for c, v in columns.items()}), [5, 95])
            rows.append((low <= loss[-1] <= high, (high - low) / loss[-1]))
        out[name] = np.array(rows, float)
    return out


def test_runs_ten_times_beyond_lie_in_their_intervals(beyond):
    held = np.concatenate([rows[:, 0] for rows in beyond.values()])
    assert held.size >= 60
    assert held.mean() >= 0.85
    for name, rows in beyond.items():
        assert rows[:, 0].mean() >= 0.8, name


def test_and_not_because_they_are_as_wide_as_the_world(beyond):
    """A run's own scatter is the least that an interval holds; the rest is coefficients and form."""
    least = 2 * 1.645 * NOISE
    for name, most in (("power_offset", 2.6), ("chinchilla", 2.6), ("bnsl", 5.0)):
        width = np.median(beyond[name][:, 1])
        assert least < width < most * least, name


def test_intervals_grow_with_distance():
    made = stacked(curve())
    x = np.array([1e2, 1e4, 1e5, 1e7, 1e9])
    low, high = np.percentile(made.predict_draws(x=x, count=4000), [5, 95], axis=0)
    width = (high - low) / made.predict(x=x)
    assert (np.diff(width[1:]) > 0).all()
    assert width[-1] > 2 * width[1]
    assert width[0] == pytest.approx(2 * 1.645 * 0.01, rel=0.5)  # inside: the scatter


# ---- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("floor", "winner"), [(1.5, "power_offset"), (0.0, "power")])
def test_the_weight_goes_to_the_true_form(floor, winner):
    made = stacked(curve(40, noise=0.005, floor=floor))
    assert made.law.name == winner
    assert made.parts[0].weight > 0.7
    assert sum(p.weight for p in made.parts) == pytest.approx(1)


def test_of_two_columns_too():
    made = stacked(planted_table(noise=0.003), ["kaplan", "chinchilla"])
    assert made.law.name == "chinchilla"
    assert made.parts[0].weight > 0.9


def test_a_break_is_followed():
    x = np.geomspace(1, 1e4, 40)
    loss = (
        5
        * x**-0.05
        * (1 + (x / 100) ** 3) ** (-0.25 / 3)
        * np.exp(0.003 * np.random.default_rng(0).standard_normal(40))
    )
    made = stacked({"x": x, "loss": loss}, [("bnsl", "x"), *ONE])
    assert made.law.name == "bnsl"
    assert made.predict(x=1e5) == pytest.approx(5 * 1e5**-0.3 * 100**0.25, rel=0.1)


def test_where_nothing_was_tried_fewer_coefficients_weigh_more():
    weight = {p.law.name: p.weight for p in stacked(curve(2)).parts}
    assert weight["power"] / weight["power_offset"] == pytest.approx(np.exp(_auto._PARSIMONY))


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=6), st.integers(1, 2000))
@settings(max_examples=80, deadline=None)
def test_shares_of_draws_are_whole_and_add_up(weights, count):
    weights = np.array(weights) / np.sum(weights)
    shares = _auto._apportion(list(weights), count)
    assert sum(shares) == count
    assert all(abs(k - w * count) < 1 for k, w in zip(shares, weights, strict=True))


# ---- few rows --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eight():
    """Eight tables of four rows with nearly the same floor and exponent; and each one's run 80 times beyond."""
    rng = np.random.default_rng(3)
    tables, truth = {}, {}
    for k in range(8):
        floor, slope = rng.normal(1.5, 0.05), rng.normal(0.25, 0.01)
        x = np.array([1.0, 5.0, 25.0, 125.0, 1e4])
        loss = (floor + rng.uniform(2, 6) * x**-slope) * np.exp(0.005 * rng.standard_normal(5))
        tables[f"t{k}"], truth[f"t{k}"] = load({"x": x[:4], "loss": loss[:4]}), loss[4]
    return tables, truth


def test_tables_of_four_rows_borrow_from_each_other(eight):
    tables, truth = eight
    pooled = isoflop.auto(tables, ONE, draws=60)
    errors, widths, scores = np.zeros((2, 8)), np.zeros((2, 8)), np.zeros((2, 8))
    for k, (name, y) in enumerate(truth.items()):
        for j, made in enumerate((pooled[name], stacked(tables[name]))):
            low, high = np.percentile(made.predict_draws(x=1e4)[:, 0], [5, 95])
            errors[j, k], widths[j, k] = abs(made.predict(x=1e4) / y - 1), (high - low) / y
            scores[j, k] = widths[j, k] + 20 * max(low / y - 1, 1 - high / y, 0)
    assert np.median(errors[0]) < np.median(errors[1])
    assert np.median(widths[0]) < np.median(widths[1])
    assert scores[0].mean() < scores[1].mean()


def test_a_prior_in_common_brings_the_coefficients_closer(eight):
    panel = _panel.panel(get_law("power_offset", axis="x"), list(eight[0].values()))
    together, alone = (
        panel.law.outward(_panel.modes(panel, seed=0, pooled=pooled).theta[:, :3]) for pooled in (True, False)
    )
    for name, true, share in (("E", 1.5, 0.85), ("alpha", 0.25, 1.0)):
        k = list(panel.law.coefs).index(name)
        assert np.abs(together[:, k] - true).mean() < share * np.abs(alone[:, k] - true).mean()
        assert together[:, k].std() < share * alone[:, k].std()


@pytest.mark.parametrize("n", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_few_rows_never_pass_for_exact(n, noise):
    """With as many coefficients as rows every residual is zero, and the interval must have width all the same."""
    made = stacked(curve(n, noise=noise, top=1e3), draws=40)
    sample = made.predict_draws(x=np.array([1e3, 1e4, 1e6]))
    low, high = np.percentile(sample, [5, 95], axis=0)
    assert np.isfinite(sample).all()
    assert (low > 0).all()
    width = (high - low) / high
    assert (width > 0).all()
    assert (width[1:] > 0.01).all()  # beyond the rows
    assert width[0] > 1e-3 or n > 3  # where no row is left over to tell the noise
    assert low[1] < made.predict(x=1e4) < high[1]


def test_what_no_hold_out_showed_is_said():
    assert any("too few levels of scale" in w for w in stacked(curve(2)).warnings)
    assert stacked(curve(6)).warnings == ()


def test_rows_of_one_run_count_as_few():
    """A thousand checkpoints of three runs say little more than a few of each: intervals stay wide."""
    rng = np.random.default_rng(0)
    x = np.tile(np.geomspace(1, 1e4, 200), 3)
    shared = np.repeat(0.02 * rng.standard_normal(3), 200)
    loss = (1.5 + 4 * x**-0.25) * np.exp(shared + 0.0005 * rng.standard_normal(600))
    names = np.repeat(["a", "b", "c"], 200).tolist()
    apart = stacked({"x": x, "loss": loss})
    together = stacked({"x": x, "loss": loss, "run": names})
    assert together.n <= 3 * _auto._PER_RUN
    tidy = _auto._tidy(load({"x": x, "loss": loss, "run": names}), get_law("power", axis="x"), "x")
    assert np.sum(tidy["weight"]) == pytest.approx(3 * _auto._RUN_WORTH)
    spread = [np.ptp(np.percentile(s.predict_draws(x=1e4, kind="law", count=4000), [5, 95])) for s in (apart, together)]
    assert spread[1] > 1.3 * spread[0]


# ---- what a Stack does -----------------------------------------------------------------------------------------------


def test_the_point_is_the_median_of_the_draws(stack):
    point = {"params": np.array([1e9, 1e11]), "tokens": np.array([2e10, 2e12])}
    for kind in ("run", "law"):
        np.testing.assert_allclose(np.median(stack.predict_draws(kind=kind, **point), axis=0), stack.predict(**point))
    answer = stack.forecast(params=1e11, tokens=2e12, level=[90, 50])
    assert answer.loss.best == pytest.approx(float(stack.predict(params=1e11, tokens=2e12)))
    assert answer.loss.interval(90)[0] < answer.loss.interval(50)[0] < answer.loss.median
    assert any("params 1e+11 is 1.5 decades above" in w for w in answer.warnings)


def test_the_curve_is_surer_than_a_run(stack):
    at = {"params": 1e9, "tokens": 2e10}
    run, law = (stack.forecast(kind=kind, **at).loss.interval(90) for kind in ("run", "law"))
    assert np.ptp(law) < np.ptp(run)
    with pytest.raises(ValueError, match="kind is 'run' or 'law', got 'mean'"):
        stack.predict_draws(kind="mean", **at)


def test_one_law_alone(stack):
    alone = stack.alone("kaplan")
    assert [p.law.name for p in alone.parts] == ["kaplan"]
    assert alone.parts[0].weight == 1.0
    at = {"params": 1e9, "tokens": 2e10}
    assert float(alone.predict(**at)) != float(stack.predict(**at))
    with pytest.raises(LookupError, match="'power' is not one of"):
        stack.alone("power")


def test_saved_and_read_back(stack, tmp_path):
    stack.save(tmp_path / "stack.json")
    again = isoflop.Fit.load(tmp_path / "stack.json")
    assert isinstance(again, isoflop.Stack)
    at = {"params": np.geomspace(1e8, 1e12, 5), "tokens": np.geomspace(2e9, 2e13, 5)}
    for kind in ("run", "law"):
        assert (again.predict_draws(kind=kind, **at) == stack.predict_draws(kind=kind, **at)).all()
    assert (again.predict(**at) == stack.predict(**at)).all()
    assert again.to_dict() == stack.to_dict()
    assert str(again) == str(stack)
    assert json.loads((tmp_path / "stack.json").read_text())["kind"] == "stack"


def test_plans_follow_the_law_of_most_weight(stack):
    best = isoflop.allocate(stack, flops=1e22)
    assert 6 * best.params.best * best.tokens.best == pytest.approx(1e22, rel=1e-9)
    led = isoflop.allocate(stack.leading, flops=1e22)
    assert best.params.best == led.params.best
    assert best.loss.interval(90) == led.loss.interval(90)
    low, high = best.params.interval(90)
    assert 0 < low < high
    warned = any("has" in w and "of the forecast's weight" in w for w in best.warnings)
    assert warned == (stack.parts[0].weight < 0.8)
    rows = isoflop.frontier(stack, [1e21, 1e22])
    assert rows["loss"].is_monotonic_decreasing
    assert rows["params"].iloc[1] == pytest.approx(best.params.median)


def test_a_plan_says_whose_it_is():
    x = planted_table(noise=0.05)
    made = isoflop.auto({"": load(x)}, ["chinchilla", "overtraining", "kaplan"], draws=40)[""]
    assert made.parts[0].weight < 0.8
    assert any(f"follows {made.law.name} alone" in w for w in isoflop.allocate(made, flops=1e22).warnings)


def test_the_same_seed_gives_the_same_stack():
    one, two, other = (stacked(curve(), seed=s) for s in (1, 1, 2))
    assert one.to_dict() == two.to_dict()
    assert (one.parts[0].draws == two.parts[0].draws).all()
    assert (one.parts[0].draws != other.parts[0].draws).any()


def test_candidates_by_the_table_s_columns():
    flops = {"flops": np.geomspace(1e18, 1e21, 12), "loss": 2 + 60 * np.geomspace(1e18, 1e21, 12) ** -0.1}
    assert isoflop.fit("auto", flops).scale == "flops"
    by = isoflop.fit("auto", planted_table(), axis="tokens")
    assert by.scale == "tokens"
    assert by.columns == ("tokens",)
    with pytest.raises(isoflop.RunsError, match="neither params and tokens nor flops"):
        isoflop.fit("auto", curve())


def test_what_cannot_be_used_is_said():
    made = stacked(curve(), [*ONE, "chinchilla"])
    assert any(w.startswith("chinchilla is left out: ") for w in made.warnings)
    with pytest.raises(ValueError, match="at least one candidate"):
        isoflop.auto({"": load(curve())}, [])
    with pytest.raises(isoflop.RunsError, match="params"):
        stacked(curve(), ["chinchilla"])
    with pytest.raises(ValueError, match="column 'x' is not given"):
        made.forecast()


def test_the_page_on_choosing_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parent.parent / "docs" / "choosing.md").read_text()
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) >= 4
    scope: dict = {}
    for block in blocks:
        exec(block, scope)


def test_rows_that_are_all_alike_are_refused():
    with pytest.raises(ValueError, match="too alike to weigh laws on"):
        isoflop.fit("auto", {"flops": [1e18] * 8, "loss": [3.0] * 8})
