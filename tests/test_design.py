"""Which runs to make next: the algebra of the design, what it is worth, and when to stop."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import planted_table
from hypothesis import given, settings
from hypothesis import strategies as st

import isoflop
from isoflop._beliefs import Beliefs, Learning, beliefs
from isoflop._deciding import deciding_runs
from isoflop._design import choose, next_runs
from isoflop._ladder_files import write_ladders
from isoflop._stopping import single_gains, winner_stop

ABOUT = {"params": 1e11, "tokens": 1e12}


@pytest.fixture(scope="module")
def fit():
    return isoflop.fit("chinchilla", planted_table(), draws=150)


def toy(candidates=60, rows=40, seed=0):
    """Random beliefs about a target and candidates."""
    rng = np.random.default_rng(seed)
    causes = rng.standard_normal((rows, 4))
    runs = causes @ rng.standard_normal((4, candidates)) + 0.1 * rng.standard_normal((rows, candidates))
    target = causes @ rng.standard_normal(4)
    scale = np.sqrt(rows - 1)
    return Beliefs((target - target.mean()) / scale, (runs - runs.mean(axis=0)) / scale,
                   np.full(candidates, 0.5), True, np.arange(rows), 1.0)  # fmt: skip


# ---- algebra ---------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 50), st.lists(st.integers(0, 59), min_size=1, max_size=6))
def test_learning_is_gaussian_conditioning(seed, picks):
    known, state = toy(seed=seed), None
    state = Learning(known)
    for c in picks:
        state.add(c)
    seen = known.runs[:, picks]
    inside = seen.T @ seen + np.diag(known.noise[picks] ** 2)
    expected = known.variance - known.target @ seen @ np.linalg.solve(inside, seen.T @ known.target)
    assert state.variance == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert sum(float(m[0]) ** 2 for m in state.moves) == pytest.approx(known.variance - expected, rel=1e-9, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 50), st.floats(1.0, 4.0))
def test_more_budget_never_teaches_less_and_a_run_never_harms(seed, factor):
    known = toy(seed=seed)
    cost = np.geomspace(1, 50, 60)

    def left(budget):
        state = Learning(known)
        for c in choose(known, cost, budget=budget, k=3):
            state.add(c)
        return state.variance

    assert left(20.0) <= known.variance
    assert left(20.0 * factor) <= left(20.0) * 1.05  # greedy, so nearly


def test_the_design_is_close_to_the_best_of_all_pairs():
    worst = 0.0
    for seed in range(12):
        known, cost = toy(candidates=25, seed=seed), np.geomspace(1, 10, 25)

        def left(picks, known=known):
            state = Learning(known)
            for c in picks:
                state.add(c)
            return state.variance

        pairs = [(i, j) for i in range(25) for j in range(i, 25) if cost[i] + cost[j] <= 8]
        found = choose(known, cost, budget=8.0, k=2)
        assert cost[found].sum() <= 8 * (1 + 1e-9)
        worst = max(worst, left(found) / min(map(left, pairs)))
    assert worst < 1.03


def test_linear_beliefs_agree_with_importance_weights(fit):
    """Expected variance after one run: the linear formula against weighing the draws by simulated results."""
    runs = {"params": np.array([3e8, 3e9, 3e10]), "tokens": np.array([6e9, 6e10, 1e11])}
    tight = replace(fit, draws=np.median(fit.draws, axis=0) + 0.3 * (fit.draws - np.median(fit.draws, axis=0)))
    known = beliefs(tight, ABOUT, runs, kind="law")
    scaled = np.sqrt(len(known.target) - 1)
    g, f = scaled * known.target, scaled * known.runs
    state, rng = Learning(known), np.random.default_rng(0)
    for c in range(3):
        after = []
        for i in range(len(g)):
            seen = f[i, c] + known.noise[c] * rng.standard_normal()
            w = np.exp(-0.5 * ((seen - f[:, c]) / known.noise[c]) ** 2)
            w /= w.sum()
            after.append(w @ g**2 - (w @ g) ** 2)
        linear = (known.variance - state.gains()[c]) * scaled**2 / len(g)
        assert np.mean(after) == pytest.approx(linear, rel=0.25)


# ---- next_runs -------------------------------------------------------------------------------------------------------


def test_the_batch_is_affordable_and_narrows_step_by_step(fit):
    found = next_runs(fit, budget={"flops": 3e20}, about={"flops": 1e24}, k=5)
    assert found.runs
    assert found.flops <= 3e20 * (1 + 1e-9)
    assert sum(r.seeds for r in found.runs) <= 5
    narrowed = [r.narrowed for r in found.runs]
    assert narrowed == sorted(narrowed)
    assert all(found.low <= r.low <= r.high <= found.high for r in found.runs)
    assert found.runs[0].flops == pytest.approx(6 * found.runs[0].columns["params"] * found.runs[0].columns["tokens"])
    assert found.candidates > 500


def test_it_teaches_more_than_the_usual_ways(fit):
    from isoflop._design import _candidates

    pool = _candidates(fit, None, 1e20)
    known = beliefs(fit, ABOUT, {c: pool[c] for c in ("params", "tokens")}, kind="law")

    def left(picks):
        state = Learning(known)
        for c in picks:
            state.add(c)
        return state.variance

    ladder = [int(np.argmin(np.abs(np.log(pool["flops"] / f)) + np.abs(np.log(pool["tokens"] / pool["params"] / 20))))
              for f in (5e18, 1e19, 2e19, 4e19)]  # fmt: skip
    design = left(choose(known, pool["flops"], budget=1e20, k=4))
    assert design < 0.9 * left(ladder)
    assert design <= left([int(np.argmax(pool["flops"]))])


def test_the_expected_width_is_what_a_refit_finds(fit):
    """Make the runs on the planted law and fit again: the interval is about as wide as was expected."""
    truth = {"E": 1.7, "A": 400.0, "B": 1200.0, "alpha": 0.34, "beta": 0.36}
    shares = []
    for seed in range(3):
        rows = planted_table(seed=seed)
        begin = isoflop.fit("chinchilla", rows, draws=100)
        found = next_runs(begin, budget=3e21, about=ABOUT, kind="law", k=6)
        rng = np.random.default_rng(seed)
        for r in found.runs:
            for _ in range(r.seeds):
                loss = begin.law(**r.columns, **truth) * np.exp(0.01 * rng.standard_normal())
                new = r.columns | {"flops": r.flops, "loss": loss}
                rows = {c: np.append(v, new[c]) for c, v in rows.items()}
        after = isoflop.fit("chinchilla", rows, draws=100).forecast(kind="law", **ABOUT).loss.interval(90)
        shares.append(np.log(np.log(after[1] / after[0]) / np.log(found.runs[-1].high / found.runs[-1].low)))
    assert abs(np.mean(shares)) < 0.5


def test_one_seed_one_answer_and_candidates_of_ones_own(fit, tmp_path):
    table = {"params": [1e9, 3e9, 1e10], "tokens": [2e10, 6e10, 2e11]}
    one, other = (next_runs(fit, budget=2e21, about={"flops": 1e24}, candidates=table, seed=3) for _ in range(2))
    assert one.to_dict() == other.to_dict()
    assert {r.columns["params"] for r in one.runs} <= {1e9, 3e9}
    one.save(tmp_path / "next.csv")
    back = isoflop.read(tmp_path / "next.csv")
    assert list(back.columns[:4]) == ["params", "tokens", "flops", "seeds"]
    assert json.loads(json.dumps(one.to_dict(), allow_nan=False))["stop"]["advice"]


def test_counting_with_a_wrong_form_widens_and_goes_further(fit):
    told = {"budget": 1e21, "about": ABOUT, "k": 3}
    trusting, wary = (next_runs(fit, kind=kind, **told) for kind in ("law", "run"))
    assert wary.high / wary.low > trusting.high / trusting.low
    assert max(r.flops for r in wary.runs) >= 0.5 * max(r.flops for r in trusting.runs)


def test_laws_of_one_and_three_columns():
    x = np.geomspace(1e17, 1e19, 12)
    loss = (1.7 + 300 * x**-0.12) * np.exp(0.005 * np.random.default_rng(0).standard_normal(12))
    one = isoflop.fit("power_offset", {"flops": x, "loss": loss}, axis="flops", draws=60)
    found = next_runs(one, budget=1e20, about={"flops": 1e23}, kind="law")
    assert found.narrowed > 0.05
    assert not found.stop.decision


def test_a_stack_of_laws_is_followed_by_its_leading_one():
    stack = isoflop.fit("auto", planted_table())
    found = next_runs(stack, budget=1e20, about=ABOUT)
    assert 0.01 < found.narrowed < 0.95
    with pytest.raises(ValueError, match="takes a fit"):
        next_runs({"loss": 2}, budget=1e20, about=ABOUT)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"budget": {"usd": 3}}, "the budget is"),
        ({"budget": -1.0}, "above zero"),
        ({"budget": 1.0}, "pays for no candidate"),
        ({"about": {"params": 1e9}}, "column 'tokens' is not given"),
        ({"k": 0}, "k is how many"),
        ({"kind": "curve"}, "kind is"),
        ({"candidates": {"params": [1e9]}}, "no column 'tokens'"),
    ],
)
def test_what_cannot_be_asked_is_refused(fit, told, words):
    with pytest.raises(ValueError, match=words):
        next_runs(fit, **({"budget": 1e20, "about": ABOUT} | told))
    with pytest.raises(ValueError, match="fit with draws"):
        next_runs(replace(fit, draws=fit.draws[:5]), budget=1e20, about=ABOUT)


# ---- when to stop ----------------------------------------------------------------------------------------------------


def test_stop_advice_weighs_what_is_saved_against_the_cost(fit):
    go = next_runs(fit, budget=1e19, about={"flops": 1e26}).stop
    stay = next_runs(fit, budget=1e21, about={"flops": 1e20}).stop
    assert not go.stop
    assert stay.stop
    assert str(stay).startswith("stop: no run within the budget would change the choice")
    for stop in (go, stay):
        assert 0 <= stop.single <= stop.regret
        assert 0 <= stop.gain <= stop.regret
        assert 0 <= stop.changes <= 1


def test_one_run_is_valued_as_simulation_values_it():
    """Knowledge gradient by quadrature against plain Monte Carlo."""
    known, rng = toy(candidates=5), np.random.default_rng(0)
    today = np.array([1.0, 1.01, 1.05])
    also = known.runs[:, :3] * 0.1
    spread = np.sqrt((known.runs**2).sum(axis=0) + known.noise**2)
    z = rng.standard_normal((200_000, 1))
    each = [today.min() - (today + z * (also.T @ known.runs[:, c] / spread[c])).min(axis=1).mean() for c in range(5)]
    assert single_gains(known, also, today) == pytest.approx(each, rel=0.03)


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.1, 0.1), st.floats(0.001, 0.1), st.floats(0.05, 1))
def test_a_winner_is_worth_at_most_what_is_at_stake(mean, spread, share):
    stop = winner_stop(mean, spread, np.array([share * spread]), 1.0)
    assert 0 <= stop.gain <= stop.regret * (1 + 1e-9)
    draws = mean + spread * np.random.default_rng(0).standard_normal(100_000)
    lost = np.maximum(-np.sign(mean or 1) * draws, 0).mean()
    assert stop.regret == pytest.approx(lost, abs=0.02 * spread)


def test_two_recipes_get_the_runs_that_settle_them(fit):
    other = replace(fit, coef=fit.coef | {"E": fit.coef["E"] + 0.01}, draws=fit.draws + np.eye(5)[0] * 0.01)
    found = deciding_runs({"a": fit, "b": other}, budget=3e20, about={"flops": 1e23})
    assert found.better == "a"
    assert 0.5 < found.sure < 1
    assert sum(r.flops * r.seeds for runs in found.runs.values() for r in runs) <= 3e20 * (1 + 1e-9)
    assert found.stop.gain <= found.stop.regret
    worse = deciding_runs({"a": fit, "b": replace(other, draws=fit.draws + np.eye(5)[0])}, budget=3e20,
                          about={"flops": 1e23})  # fmt: skip
    assert worse.sure > found.sure
    assert worse.stop.regret < found.stop.regret


# ---- files -----------------------------------------------------------------------------------------------------------


def test_the_runs_become_ladders_that_sweep_takes(tmp_path):
    from isoflop._design import NextRun
    from isoflop.levers.train import Train

    base = tmp_path / "base.toml"
    base.write_text('source = "zipf_words"\nbudgets = [1e9]\nlr = { base = 3e-3, width = 64, power = 0.9 }\n'
                    "repeats = 3\n\n[[sizes]]\nwidth = 16\ndepth = 2\n")  # fmt: skip
    runs = [NextRun({"params": n, "tokens": t}, 6 * n * t, s, 1, 2, 0, 0)
            for n, t, s in ((2e4, 4e5, 1), (2e4, 8e5, 1), (9e3, 2e5, 2))]  # fmt: skip
    paths = write_ladders(runs, base, tmp_path / "next")
    assert len(paths) == 2
    ladders = [Train.from_toml(p).ladder() for p in paths]
    assert [len(rows) for rows in ladders] == [2, 1]
    assert Train.from_toml(paths[0]).lr["power"] == 0.9
    assert ladders[1][0]["repeats"] == 2


def test_the_verb_suggests_and_settles(tmp_path, run, fit):
    fit.save(tmp_path / "fit.json")
    shown = run("next", "fit.json", "--budget", "3e20", "--flops", "1e24", "--out", "next.csv", "--json", cwd=tmp_path)
    made = json.loads(shown.stdout)
    assert made["runs"][0]["seeds"] >= 1
    assert len((tmp_path / "next.csv").read_text().splitlines()) == 1 + len(made["runs"])
    fit.save(tmp_path / "other.json")
    shown = run("next", "fit.json", "--against", "other.json", "--budget", "3e20", "--flops", "1e24", cwd=tmp_path)
    assert "would change the winner" in shown.stdout
