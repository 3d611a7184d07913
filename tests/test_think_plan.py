"""Plans: planted bins with a known best, mixtures against brute force, honesty on recorded samples, the online rule."""

import importlib
import itertools
import json

import click
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop._meter import get_meter
from isoflop.levers.think._allocate import allocate_samples, best_mixture, with_kinetics
from isoflop.levers.think._online import State, next_allocation
from isoflop.levers.think._replay import Curve, replay
from isoflop.levers.think._samples import read_samples

SMALL = settings(max_examples=30, deadline=None)


# ---- mixtures --------------------------------------------------------------------------------------------------------


@SMALL
@given(st.integers(0, 9999))
def test_a_mixture_is_the_best_there_is(seed):
    """Against every pair of settings per bin on a fine grid of shares, two bins of three settings."""
    rng = np.random.default_rng(seed)
    cost = np.sort(rng.uniform(1, 10, (2, 3)), axis=1)
    value = rng.uniform(0, 1, (2, 3))
    weight = np.array([0.3, 0.7])
    budget = float(weight @ cost[:, 0] + rng.uniform(0, 1) * (weight @ (cost[:, 2] - cost[:, 0])))
    found = best_mixture(value, cost, weight, budget=budget)
    assert found.cost <= budget * (1 + 1e-9)
    share = np.linspace(0, 1, 21)
    points = [
        [((1 - s) * value[b, i] + s * value[b, j], (1 - s) * cost[b, i] + s * cost[b, j])
         for i, j in itertools.combinations(range(3), 2) for s in share]
        for b in range(2)
    ]  # fmt: skip
    a, b = (np.array(p) for p in points)
    total_cost = weight[0] * a[:, None, 1] + weight[1] * b[None, :, 1]
    total_value = weight[0] * a[:, None, 0] + weight[1] * b[None, :, 0]
    assert found.value >= total_value[total_cost <= budget].max() - 1e-9
    back = best_mixture(value, cost, weight, target=found.value - 1e-9)
    assert back.cost <= found.cost + 1e-6


def test_goals_out_of_reach_are_said():
    value, cost, one = np.array([[0.2, 0.6]]), np.array([[1.0, 4.0]]), np.ones(1)
    with pytest.raises(ValueError, match=r"the cheapest settings cost 1 a problem, more than the budget of 0\.5"):
        best_mixture(value, cost, one, budget=0.5)
    with pytest.raises(ValueError, match=r"no setting of the pilot reaches accuracy 0\.9; the best reach 0\.6"):
        best_mixture(value, cost, one, target=0.9)
    half = best_mixture(value, cost, one, budget=2.5)
    assert (half.value, half.part[0]) == (pytest.approx(0.4), pytest.approx(0.5))


# ---- planted pilots --------------------------------------------------------------------------------------------------


def pilot(problems=200, n=16, seed=0):
    """Half the problems are sure (one answer), half are split: votes pay there only, and agreement tells them apart."""
    rng = np.random.default_rng(seed)
    easy = np.arange(problems) % 2 == 0
    right = rng.random((problems, n)) < np.where(easy, 1.0, 0.45)[:, None]
    answer = np.where(right, 9, rng.integers(0, 8, right.shape))
    return {
        "problem": np.repeat(np.arange(problems), n),
        "correct": right.astype(int).ravel(),
        "answer": answer.ravel(),
        "gen_tokens": np.full(right.size, 100.0),
    }


def test_votes_go_where_they_pay():
    how = {"strategies": ["majority"], "probe": 2}
    plan = allocate_samples(pilot(), budget=450, bins=2, settings=how)
    assert plan.signal == "agreement"
    hard, easy = plan.bins[0], plan.bins[-1]
    most = [sum(s.k * s.share for s in b.settings) for b in (hard, easy)]
    assert most[1] <= 2
    assert most[0] > 4
    assert plan.spent.best == pytest.approx(450, rel=0.1)
    assert plan.accuracy.best > plan.uniform["accuracy"] + 0.02
    low, high = plan.accuracy.interval(90)
    assert low < plan.accuracy.best < high
    assert plan.saving.best > 0.2
    assert plan.oracle >= plan.accuracy.best
    cheap = allocate_samples(pilot(), accuracy=plan.accuracy.best - 0.02, bins=2, settings=how)
    assert cheap.spent.best < plan.spent.best


def test_where_difficulty_does_not_matter_one_setting_is_for_all():
    rng = np.random.default_rng(1)
    right = rng.random((120, 8)) < 0.5
    table = {"problem": np.repeat(np.arange(120), 8), "correct": right.astype(int).ravel(),
             "score": rng.random(right.size), "gen_tokens": np.full(right.size, 10.0)}  # fmt: skip
    plan = allocate_samples(table, budget=25)
    assert plan.signal == "none"
    assert len(plan.bins) == 1
    assert "all" in str(plan)


def test_hindsight_is_called_hindsight():
    plan = allocate_samples(pilot(60), budget=600, signal="labels")
    assert plan.signal in ("labels", "none")
    if plan.signal == "labels":
        assert any("hindsight" in w for w in plan.warnings)
    assert "oracle_hindsight" in plan.to_dict()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, "give either a budget"),
        ({"budget": 10, "accuracy": 0.5}, "give either a budget"),
        ({"budget": 10}, "the cheapest settings cost 100 a problem"),
        ({"accuracy": 0.999}, "no setting of the pilot reaches"),
        ({"budget": 500, "signal": "length"}, "there is no signal 'length'; there are agreement, score, labels"),
        ({"budget": 500, "signal": "score"}, "signal='score' needs the column 'score'"),
        ({"budget": 500, "settings": {"fold": 2}}, "there is no setting 'fold'; there are probe, folds"),
    ],
)
def test_bad_goals_are_one_sentence(how, words):
    with pytest.raises(ValueError, match=words):
        allocate_samples(pilot(40), **how)


def test_costs_that_were_not_recorded_are_named():
    with pytest.raises(LookupError, match="record no usd; their costs are samples, gen_tokens"):
        allocate_samples(pilot(40), budget=500, cost="usd")
    with pytest.raises(ValueError, match="needs at least 10 problems"):
        allocate_samples(pilot(6), budget=500)


# ---- two models ------------------------------------------------------------------------------------------------------


def test_kinetics_counts_by_hand_and_prefers_the_larger_model_at_length():
    """Sadhukhan et al. 2025: the KV cache's traffic grows with length squared, the weights' work with length."""
    meter = get_meter("kinetics_flops")
    shape = {"depth": 2, "width": 4, "kv_width": 2}
    by_hand = 3 * (2 * 50 * 7 + 2 * (2 * 5 + 7) * 7 * 2 * 4) + 562.5 * 2 * (2 * 5 + 3 * 7) * 7 * 2 * 2
    assert meter(params=50, prompt_tokens=5, gen_tokens=7, samples=3, **shape) == pytest.approx(by_hand)
    plain = meter(params=8.19e9, prompt_tokens=0, gen_tokens=1000, depth=0, width=0, kv_width=0)
    assert plain == pytest.approx(1.638e13)
    moved = [meter(params=0, prompt_tokens=0, gen_tokens=x, depth=1, width=0, kv_width=1) for x in (1e3, 2e3)]
    assert moved[1] / moved[0] == pytest.approx(4)
    k = np.array([1, 4])
    flat = {name: np.full((40, 2), v) * [1, 4] for name, v in
            (("samples", 1.0), ("gen_tokens", 8000.0), ("prompt_tokens", 200.0))}  # fmt: skip
    problems, cluster = tuple(map(str, range(40))), np.arange(40)
    small = Curve("small", k, np.tile([0.5, 0.6], (40, 1)), flat, np.zeros(2), problems, cluster)
    large = Curve("large", k, np.tile([0.62, 0.72], (40, 1)), flat, np.zeros(2), problems, cluster)
    both = [
        with_kinetics(small, params=0.6e9, depth=28, width=2048, kv_width=1024, name="small"),
        with_kinetics(large, params=8e9, depth=36, width=4096, kv_width=1024, name="large"),
    ]
    weights = [2 * p * 8000 * n for p, n in ((0.6e9, 4), (8e9, 1))]
    flops = [both[0].mean_cost("kinetics_flops")[1], both[1].mean_cost("kinetics_flops")[0]]
    assert weights[0] < weights[1]  # by the weights alone four small samples are cheaper
    assert flops[0] > flops[1]  # with the cache they are dearer
    plan = allocate_samples(both, budget=float(flops[1]) * 1.01, cost="kinetics_flops")
    assert plan.bins[0].settings[0].strategy == "large"


# ---- online ----------------------------------------------------------------------------------------------------------


def test_samples_go_to_what_is_not_solved_and_not_hopeless():
    state = State(tried=np.array([4, 4, 40, 0]), right=np.array([1, 0, 0, 0]), cost=np.ones(4), left=100.0)
    assert next_allocation(state).tolist() == [0, 0, 0, 1]  # an untried one first
    more = next_allocation(State(tried=np.array([4, 4, 40]), right=np.array([1, 0, 0]), cost=np.ones(3), left=100.0))
    assert more[0] == 0
    assert more[1] > more[2]
    dear = State(tried=np.array([4, 4, 4]), right=np.array([1, 0, 0]), cost=np.array([1.0, 1.0, 9.0]), left=40.0)
    assert next_allocation(dear)[1] > next_allocation(dear)[2]


@SMALL
@given(st.integers(0, 9999))
def test_an_allocation_never_costs_more_than_is_left(seed):
    rng = np.random.default_rng(seed)
    tried = rng.integers(0, 20, 15)
    right = rng.binomial(tried, 0.1)
    cost = rng.uniform(0.5, 3, 15)
    left = float(rng.uniform(0.1, 60))
    more = next_allocation(State(tried=tried, right=right, cost=cost, left=left, most=25))
    assert more @ cost <= left + 1e-9
    assert (more >= 0).all()
    assert (tried + more <= 25).all()
    assert (more[right > 0] == 0).all()
    votes = State(tried=tried, lead=tried - tried // 3, second=tried // 3, cost=cost, left=left, most=25)
    assert next_allocation(votes) @ cost <= left + 1e-9


def test_close_votes_get_the_samples():
    state = State(tried=np.array([8, 8]), lead=np.array([8, 4]), second=np.array([0, 4]), cost=np.ones(2), left=16.0)
    more = next_allocation(state)
    assert more[1] > more[0]
    with pytest.raises(ValueError, match="either right"):
        next_allocation(State(tried=np.ones(2), cost=np.ones(2), left=1.0))


def test_online_beats_uniform_at_the_same_budget():
    """Checked answers, rates ~ Beta(.3, 3): samples moved off what is solved find more than the same number for all."""
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 3, 200)
    draws = rng.random((200, 400)) < p[:, None]
    tried, left = np.zeros(200, int), 2000.0
    while left >= 1:
        right = np.array([draws[i, : tried[i]].sum() for i in range(200)])
        more = next_allocation(State(tried=tried, right=right, cost=np.ones(200), left=left))
        if not more.any():
            break
        tried, left = tried + more, left - more.sum()
    online = np.mean([draws[i, : tried[i]].any() for i in range(200)])
    uniform = draws[:, :10].any(1).mean()
    assert tried.sum() <= 2000
    assert online > uniform + 0.04


# ---- the command, and recorded samples -------------------------------------------------------------------------------


def written(folder, table, name="pilot.jsonl"):
    rows = [dict(zip(table, r, strict=True)) for r in zip(*(v.tolist() for v in table.values()), strict=True)]
    path = folder / name
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def planned(*args):
    """What the command prints, in this process; errors are raised."""
    command = importlib.import_module("isoflop.levers.think._commands.plan").plan
    done = CliRunner().invoke(command, [*map(str, args), "--json"], standalone_mode=False)
    if isinstance(done.exception, click.ClickException):
        raise ValueError(done.exception.format_message())
    if done.exception:
        raise done.exception
    return json.loads(done.stdout)


def test_command(run, tmp_path):
    path = written(tmp_path, pilot(40))
    out = run.json(
        "think", "plan", path, "--budget-tokens", "50k", "--problems", "100", "--out", tmp_path / "plan.json"
    )
    assert out == json.loads((tmp_path / "plan.json").read_text())
    assert out["accuracy"]["interval"][0] < out["accuracy"]["best"] < out["accuracy"]["interval"][1]
    assert set(out["uniform"]["settings"][0]) == set(out["bins"][0]["settings"][0])
    assert "gen_tokens saved against majority" in run("think", "plan", path, "--accuracy", ".8").stdout
    assert "give one of" in run("think", "plan", path, code=2).stderr
    assert "no setting of the pilot reaches" in run("think", "plan", path, "--accuracy", ".9999", code=2).stderr


def settings_of(plan):
    return [(s["strategy"], s["k"], round(s["share"], 3)) for b in plan["bins"] for s in b["settings"]]


def test_every_budget_says_what_it_counts(tmp_path):
    table = pilot(40) | {"seconds": np.full(640, 2.0), "prompt_tokens": np.full(640, 20.0), "usd": np.full(640, 0.01)}
    path = written(tmp_path, table)
    same = [planned(path, f"--budget-{unit}", 160 * cost)
            for unit, cost in (("tokens", 120), ("seconds", 2), ("usd", 0.01), ("samples", 1))]  # fmt: skip
    assert [p["cost"] for p in same] == ["tokens", "seconds", "usd", "samples"]
    for one in same[1:]:
        assert one["accuracy"]["best"] == pytest.approx(same[0]["accuracy"]["best"])
        assert settings_of(one) == settings_of(same[0])


def test_tokens_have_a_price_by_option_or_by_the_run_that_drew_them(tmp_path):
    table = pilot(40) | {"prompt_tokens": np.full(640, 50.0)}
    (tmp_path / "samples").mkdir()  # a run's folder, but for what it was made with
    path = written(tmp_path / "samples", table)
    with pytest.raises(LookupError, match=r"record no usd; .*prices make one of tokens"):
        planned(path, "--budget-usd", 1)
    told = planned(path, "--budget-usd", 0.02, "--price", "prompt=1", "--price", "gen=2")
    tokens = planned(path, "--budget-tokens", 0.02e6 * 150 / 250)
    assert settings_of(told) == settings_of(tokens)
    assert told["spent"]["best"] == pytest.approx(tokens["spent"]["best"] * 250 / 150 / 1e6)
    (tmp_path / "lever.json").write_text(json.dumps({"prices": {"prompt": 1, "gen": 2}}))
    assert settings_of(planned(tmp_path, "--budget-usd", 0.02)) == settings_of(told)


def test_the_logs_of_two_harnesses_are_planned_from(tmp_path):
    table = pilot(24, n=6)
    rows = list(zip(*(table[c].tolist() for c in ("problem", "answer", "correct")), strict=True))
    log = [{"id": p, "scores": {"match": {"value": "CI"[not c], "answer": str(a)}}, "total_time": 1.5,
            "model_usage": {"m": {"input_tokens": 30, "output_tokens": 60}}} for p, a, c in rows]  # fmt: skip
    inspect = tmp_path / "log.json"
    inspect.write_text(json.dumps({"status": "success", "samples": log}))
    for unit, each in (("tokens", 90), ("seconds", 1.5), ("samples", 1)):
        assert planned(inspect, f"--budget-{unit}", 24 * 3 * each)["accuracy"]["best"] > 0.6
    harness = tmp_path / "samples.jsonl"
    docs = [[str(a) for p, a, _ in rows if p == doc] for doc in range(24)]
    harness.write_text("".join(
        json.dumps({"doc_id": i, "target": "9", "filtered_resps": d, "exact_match": 1.0}) + "\n"
        for i, d in enumerate(docs)
    ))  # fmt: skip
    assert planned(harness, "--budget-samples", 72)["accuracy"]["best"] > 0.6
    with pytest.raises(LookupError, match=r"the samples record no gen_tokens; their costs are samples$"):
        planned(harness, "--budget-tokens", 1e4)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--budget-tokens", "50", "--problems", "10"], r"cheapest settings cost 100 a problem, .*\(50 tokens over 10"),
        (["--budget-tokens", "many"], "'many' is not a number above 0"),
        (["--budget-tokens", "-5"], "'-5' is not a number above 0"),
        (["--budget-tokens", "5k", "--accuracy", ".5"], "give one of --budget-tokens, .*--budget-samples, --accuracy"),
        (["--budget-tokens", "5k", "--cost", "usd"], "--cost goes with --accuracy"),
        (["--accuracy", "70"], "70.0 is not in the range"),
        (["--accuracy", ".7", "--cost", "joules"], "record no joules; their costs are samples, gen_tokens"),
        (["--budget-samples", "99", "--bins", "0"], "0 is not in the range"),
        (["--budget-samples", "99", "--problems", "0"], "0 is not in the range"),
        (["--budget-usd", "1", "--price", "gen=cheap"], "write prompt=USD or gen=USD"),
        (["--budget-usd", "1", "--price", "output=1"], "write prompt=USD or gen=USD"),
        (["--budget-samples", "99", "--signal", "score"], "signal='score' needs the column 'score'"),
    ],
)
def test_what_cannot_be_planned_is_said(tmp_path, args, said):
    path = written(tmp_path, pilot(20, n=4))
    with pytest.raises((ValueError, LookupError), match=said):
        planned(path, *args)


def test_what_every_store_holds_besides_is_no_warning(tmp_path):
    table = pilot(20, n=4)
    path = written(tmp_path, table | {"role": np.full(80, "model")})
    path.write_text(json.dumps({"role": "probe", "error": None}) + "\n" + path.read_text())
    assert planned(path, "--accuracy", ".6")["warnings"] == []
    with path.open("a") as file:
        file.write(json.dumps({"role": "score", "problem": "0", "text": "a judge's"}) + "\n")
    assert "1 records that are no samples left out" in planned(path, "--accuracy", ".6")["warnings"]


def test_plans_on_recorded_samples_save_against_one_vote_for_all(data):
    """At the seconds of 4 samples for each problem, six of the nine settings of async-sampling-math."""
    pytest.importorskip("pyarrow")
    path = data / "async-sampling-math" / "samples.parquet"
    saved = []
    for config in ("sync-self", "reject", "reject-fork", "self-prefill", "self-prefill-v2", "cross-qwq32b"):
        samples = read_samples(
            path, only={"config": config}, rename={"duration_s": "seconds"}, same=lambda a: "" if a == "invalid" else a
        )
        plan = allocate_samples(samples, budget=4 * float(samples.cost["seconds"].mean()), cost="seconds")
        vote = replay(samples, strategies=["majority"], budgets=[4])["majority"]
        assert plan.accuracy.best > vote.accuracy[0] - 0.005
        assert plan.oracle > plan.accuracy.best
        saved.append(plan.saving.best)
    assert np.mean(saved) > 0.1
