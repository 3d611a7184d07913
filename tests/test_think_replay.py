"""Replay: closed forms against all subsets, files read alike, and the published numbers of recorded samples."""

import itertools
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.levers.think._early_stop import early_stop
from isoflop.levers.think._estimators import (
    best_of_k,
    best_of_k_verified,
    log_gamma,
    pass_at_k,
    pass_at_k_until,
    pass_hat_k,
    rank_weights,
)
from isoflop.levers.think._replay import STRATEGIES, Settings, difference, replay, resampling
from isoflop.levers.think._samples import read_samples
from isoflop.levers.think._votes import in_order, majority_at_k, vote_at_k

SMALL = settings(max_examples=25, deadline=None)


def subsets(n, k):
    return [list(s) for s in itertools.combinations(range(n), k)]


# ---- closed forms ----------------------------------------------------------------------------------------------------


def test_log_gamma_is_the_factorial():
    factorials = np.cumsum(np.log(np.arange(1, 400)))
    np.testing.assert_allclose(log_gamma(np.arange(2, 401)), factorials, rtol=1e-13, atol=1e-13)
    assert log_gamma(0.5) == pytest.approx(np.log(np.sqrt(np.pi)), abs=1e-14)


@SMALL
@given(st.integers(1, 7), st.data())
def test_pass_at_k_and_pass_hat_k_are_means_over_subsets(n, draw):
    c, k = draw.draw(st.integers(0, n)), draw.draw(st.integers(1, n))
    right = np.arange(n) < c
    picked = [right[s] for s in subsets(n, k)]
    assert pass_at_k([n], [c], k)[0, 0] == pytest.approx(np.mean([p.any() for p in picked]), abs=1e-12)
    assert pass_hat_k([n], [c], k)[0, 0] == pytest.approx(np.mean([p.all() for p in picked]), abs=1e-12)


@SMALL
@given(st.integers(1, 7), st.integers(0, 99))
def test_best_of_k_with_ties_is_the_mean_over_subsets(n, seed):
    rng = np.random.default_rng(seed)
    score, right = rng.integers(0, 3, (2, n)), rng.integers(0, 2, (2, n))
    for k in range(1, n + 1):
        got = best_of_k(score, right, k)[:, 0]
        for i in range(2):
            mean = np.mean([right[i][s][score[i][s] == score[i][s].max()].mean() for s in subsets(n, k)])
            assert got[i] == pytest.approx(mean, abs=1e-12)


def test_rank_weights_sum_to_one():
    np.testing.assert_allclose(rank_weights(1000, [1, 7, 500, 1000]).sum(1), 1.0, rtol=1e-10)


@SMALL
@given(st.integers(0, 999))
def test_majority_is_the_mean_over_subsets(seed):
    rng = np.random.default_rng(seed)
    counts, silent = rng.integers(1, 4, rng.integers(1, 4)), int(rng.integers(0, 3))
    right = rng.random(len(counts)) * (rng.random(len(counts)) < 0.6)
    votes = np.append(np.repeat(np.arange(len(counts)), counts), np.full(silent, -1))
    for tie in ("even", "wrong"):
        ks = np.arange(1, len(votes) + 1)
        got = majority_at_k(counts, right, ks, silent=silent, tie=tie)
        for k in ks:
            total = []
            for s in subsets(len(votes), k):
                cast = np.bincount(votes[s][votes[s] >= 0], minlength=len(counts))
                first = np.flatnonzero((cast == cast.max()) & (cast > 0))
                alone = len(first) == 1 or (tie == "even" and len(first))
                total.append(right[first].mean() if alone else 0.0)
            assert got[k - 1] == pytest.approx(np.mean(total), abs=1e-10)


def test_votes_by_monte_carlo_agree_with_the_exact_ones_within_the_error_they_state():
    rng = np.random.default_rng(0)
    codes = rng.integers(-1, 4, (8, 24))
    right = codes == 0
    exact, none = vote_at_k(codes, right, [4, 9, 16], rng=rng)
    assert not none.any()
    near, error = vote_at_k(codes, right, [4, 9, 16], rng=rng, exact_to=0, orders=2000)
    assert (error[:, 1] > 0).any()  # 24 over 9: too many to go through
    stated = np.sqrt((error**2).sum(0)) / len(codes)
    assert (np.abs((near - exact).mean(0)) < 4 * stated).all()
    ones, _ = vote_at_k(codes, right, [2, 24], weights=np.ones(codes.shape), rng=rng)
    np.testing.assert_allclose(ones, vote_at_k(codes, right, [2, 24], rng=rng)[0])


def test_a_decided_vote_is_what_monte_carlo_finds():
    rng = np.random.default_rng(1)
    codes = rng.choice(3, (4, 2000), p=[0.6, 0.3, 0.1])
    value, error = vote_at_k(codes, codes == 0, [1500], rng=rng)
    assert (value == 1).all()
    assert not error.any()


def test_first_seen_and_last_seen_break_ties_differently():
    codes = np.array([[0, 1, 1, 0, -1], [-1, -1, 0, 1, 1]])
    right = codes == 0
    assert in_order(codes, right, [1, 2, 4, 5]).tolist() == [[1, 1, 1, 1], [0, 0, 1, 0]]
    assert in_order(codes, right, [2, 4], last=True).tolist() == [[0, 1], [0, 0]]


def test_verified_is_the_mean_over_subsets_and_verdicts():
    n, c, k, tpr, fpr = 6, 2, 3, 0.8, 0.3
    total = 0.0
    for s in subsets(n, k):
        right = np.array(s) < c
        for verdict in itertools.product([False, True], repeat=k):
            v = np.array(verdict)
            passes = np.where(right, tpr, fpr)
            handed = right[v] if v.any() else right
            total += np.prod(np.where(v, passes, 1 - passes)) * handed.mean() / len(subsets(n, k))
    assert best_of_k_verified([n], [c], k, tpr=tpr, fpr=fpr)[0, 0] == pytest.approx(total, abs=1e-12)
    perfect = best_of_k_verified([9, 9], [0, 3], [1, 4, 9], tpr=1.0, fpr=0.0)
    np.testing.assert_allclose(perfect, pass_at_k([9, 9], [0, 3], [1, 4, 9]))


def test_an_imperfect_verifier_has_a_ceiling():
    """Stroebl et al. 2024: resampling cannot pass p tpr / (p tpr + (1 - p) fpr)."""
    got = best_of_k_verified([10000], [500], [1, 100, 10000], tpr=0.8, fpr=0.05, abstain=True)[0]
    ceiling = 0.05 * 0.8 / (0.05 * 0.8 + 0.95 * 0.05)
    assert got[0] == pytest.approx(0.05 * 0.8)
    assert got[-1] == pytest.approx(ceiling, abs=1e-3)
    assert got.max() < ceiling + 1e-3


def test_sampling_until_success_needs_its_own_estimator():
    rng = np.random.default_rng(0)
    p, limit, need = 0.05, 60, 2
    hits = rng.random((20000, limit)) < p
    so_far = hits.cumsum(1)
    n = np.where(so_far[:, -1] >= need, (so_far == need).argmax(1) + 1, limit)
    c = so_far[np.arange(len(n)), n - 1]
    k = np.array([1, 5, 30])
    truth = 1 - (1 - p) ** k
    np.testing.assert_allclose(pass_at_k_until(n, c, k, successes=need).mean(0), truth, rtol=0.025)
    assert (c / n).mean() > 1.15 * p  # the naive rate is biased upwards


@SMALL
@given(st.integers(0, 999))
def test_early_stop_never_costs_more_and_with_no_risk_never_differs(seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-1, 3, (3, 12))
    right = codes == 0
    value, drawn, _ = early_stop(codes, right, [1, 5, 12], risk=0.0, orders=40, rng=rng)
    assert (drawn <= [1, 5, 12]).all()
    assert (drawn >= 1).all()
    np.testing.assert_allclose(value[:, 2], vote_at_k(codes, right, [12], rng=rng)[0][:, 0], atol=1e-12)


# ---- replay ----------------------------------------------------------------------------------------------------------


def planted(problems=30, n=12, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 1, problems)
    right = (rng.random((problems, n)) < p[:, None]).astype(int)
    answer = np.where(right, 7, rng.integers(0, 4, right.shape))
    return {
        "problem": np.repeat([f"q{i}" for i in range(problems)], n),
        "correct": right.ravel(),
        "answer": answer.ravel(),
        "score": (right + rng.normal(0, 0.6, right.shape)).ravel(),
        "gen_tokens": rng.integers(50, 150, right.size),
        "prompt_tokens": np.full(right.size, 20),
    }


def test_every_strategy_at_one_sample_is_the_mean_and_coverage_is_above_all():
    curves = replay(planted(), strategies=[s for s in STRATEGIES if s != "verified"], budgets=[1, 4, 12])
    single = curves["single"].accuracy[0]
    for curve in curves.values():
        assert curve.accuracy[0] == pytest.approx(single, abs=max(1e-12, 5 * curve.error[0]))
        noise = 1e-9 if curve.error.max() == 0 else 0.1
        assert (curve.value <= curves["coverage"].value + noise).all()
    tokens = curves["majority"]
    np.testing.assert_allclose(tokens.mean_cost("gen_tokens") * [12, 3, 1], tokens.mean_cost("gen_tokens")[2])
    assert tokens.mean_cost("tokens")[0] == pytest.approx(tokens.mean_cost("gen_tokens")[0] + 20)
    halfway = tokens.at("samples", 2.0)
    assert tokens.accuracy[0] < halfway.best < tokens.accuracy[1]
    assert halfway.best == pytest.approx(
        (tokens.accuracy[0] + tokens.accuracy[1]) / 2
    )  # 2 is halfway in ln from 1 to 4
    assert np.isnan(tokens.at("samples", 13.0).best)
    with pytest.raises(LookupError, match="the samples record no usd; their costs are samples"):
        tokens.mean_cost("usd")


def test_the_order_of_rows_and_of_problems_does_not_matter():
    table = planted()
    order = np.random.default_rng(3).permutation(len(table["correct"]))
    a = replay(table, strategies=["majority", "best_of_n"], budgets=[3])
    b = replay({k: v[order] for k, v in table.items()}, strategies=["majority", "best_of_n"], budgets=[3])
    for name in a:
        assert b[name].accuracy[0] == pytest.approx(a[name].accuracy[0], abs=1e-12)


def test_intervals_resample_clusters_and_a_seed_repeats():
    w = resampling(np.array([0, 0, 1, 2]), 500, 0)
    assert (w[:, 0] == w[:, 1]).all()
    np.testing.assert_allclose(w.sum(1), 1)
    table = planted()
    one, two = (replay(table, budgets=[1, 12]).rows() for _ in range(2))
    assert one == two
    thrice = {k: np.concatenate([v] * 3) for k, v in table.items()} | {
        "run": np.repeat([0, 1, 2], len(table["correct"]))
    }
    copied = replay(thrice, unit=("run", "problem"), by="problem", strategies=["single"], budgets=[1]).rows()[0]
    plain = replay(table, strategies=["single"], budgets=[1]).rows()[0]
    assert copied["high"] - copied["low"] == pytest.approx(plain["high"] - plain["low"], rel=0.1)


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_all_kinds_of_files_give_the_same_curves(tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    table = planted(12, 4)
    table["answer"] = table["answer"].astype(str)
    frame = pd.DataFrame(table)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    rows = json.loads(frame.to_json(orient="records"))
    write_jsonl(tmp_path / "a.jsonl", rows)
    store = [{"v": 1, "key": "k", "role": "model", **r, "error": None} for r in rows]
    judge = [{"v": 1, "role": "score", "problem": "q0", "correct": None, "answer": None, "error": None}]
    failed = [{**store[0], "correct": None, "error": "429"}]
    begun = [{**store[0], "correct": None}]
    write_jsonl(tmp_path / "store.jsonl", [*judge, *store, *failed, *begun])
    want = replay(table, budgets=[1, 4])
    for name in ("a.csv", "a.parquet", "a.jsonl", "store.jsonl"):
        got = replay(tmp_path / name, budgets=[1, 4])
        assert got.rows() == want.rows(), name
    assert set(got.warnings) >= {"1 records that are no samples left out", "1 failed calls left out"}
    assert any("1 samples without a grade" in w for w in got.warnings)
    counts = {"problem": range(12), "n": [4] * 12, "c": frame.groupby("problem", sort=False).correct.sum().to_list()}
    assert replay(counts, budgets=[1, 4])["coverage"].accuracy == pytest.approx(want["coverage"].accuracy)


def test_logs_of_two_harnesses_are_read(tmp_path):
    logs = [
        {"doc_id": 0, "target": "4", "resps": [["so 4"]], "filtered_resps": ["4"], "exact_match": 1.0},
        {"doc_id": 1, "target": "7", "resps": [["so 5"]], "filtered_resps": ["5"], "exact_match": 0.0},
        {"doc_id": 2, "target": "7", "resps": [["7", "6"]], "filtered_resps": [["7", "6"]], "exact_match": 1.0},
    ]
    got = read_samples(write_jsonl(tmp_path / "samples_task.jsonl", logs))
    assert (got.problems, got.n.tolist(), got.c.tolist()) == (("0", "1", "2"), [1, 1, 2], [1, 0, 1])
    samples = [
        {"id": q, "epoch": e, "scores": {"match": {"value": v, "answer": "x"}}, "total_time": 2.0,
         "model_usage": {"m": {"input_tokens": 10, "output_tokens": 30}}}
        for q, e, v in (("a", 1, "C"), ("a", 2, "I"), ("b", 1, 1), ("b", 2, "C"))
    ]  # fmt: skip
    (tmp_path / "log.json").write_text(json.dumps({"version": 2, "samples": samples}))
    with zipfile.ZipFile(tmp_path / "log.eval", "w") as archive:
        for s in samples:
            archive.writestr(f"samples/{s['id']}_epoch_{s['epoch']}.json", json.dumps(s))
    for name in ("log.json", "log.eval"):
        got = read_samples(tmp_path / name)
        assert (got.n.tolist(), got.c.tolist()) == ([2, 2], [1, 2])
        assert got.cost["gen_tokens"].tolist() == [30, 30]


@pytest.mark.parametrize(
    ("table", "how", "words"),
    [
        ({"problem": ["a"]}, {}, "has no column 'correct'; needs correct, or n and c"),
        ({"correct": [1]}, {}, "has no column 'problem'; it has correct"),
        ({"problem": ["a", "a"], "correct": [1, None]}, {}, "row 2: correct is ''; needs a number in every row"),
        ({"problem": ["a"], "correct": [0.5]}, {}, "correct must be 0 or 1; it is 0.5"),
        ({"problem": ["a", "a"], "n": [5, 5], "c": [1, 2]}, {}, "problem 'a' has more than one row of counts"),
        ({"problem": ["a"], "n": [5], "c": [6]}, {}, "row 0: n=5, c=6; needs whole numbers with 0 <= c <= n"),
        ({"problem": ["a"], "correct": [1]}, {"budgets": [2]}, "from 1 to 1, the samples of problem 'a'"),
        ({"problem": ["a"], "correct": [1]}, {"strategies": ["majority"]}, "'majority' cannot be replayed"),
        ({"problem": ["a", "b"], "correct": [1, 1], "score": [0.5, None]}, {}, "row 2: score is ''"),
        ({"problem": [], "correct": []}, {}, "no samples to use: the source has no rows"),
    ],
)
def test_bad_input_is_one_sentence(table, how, words):
    with pytest.raises(ValueError, match=words):
        replay(table, **how)


def test_a_strategy_that_does_not_exist_is_named():
    with pytest.raises(LookupError, match="no strategy 'beam' to replay; there are coverage"):
        replay(planted(), strategies=["beam"])


def test_crossing_of_planted_curves():
    """pass@k of rates .2 on all problems, and of .9 on 40 % of them: they cross where 1 - .8^k = .4 (1 - .1^k)."""
    n = 400
    a = {"problem": range(100), "n": [n] * 100, "c": [80] * 100}
    b = {"problem": range(100), "n": [n] * 100, "c": [360] * 40 + [0] * 60}
    k = list(range(1, 21))
    ca, cb = (replay(t, strategies=["coverage"], budgets=k)["coverage"] for t in (a, b))
    gap = difference(ca, cb)
    at = gap.cross[0]
    assert len(gap.cross) == 1
    exact = 1 - 0.8**at.best - 0.4 * (1 - 0.1**at.best)
    assert abs(exact) < 0.01
    low, high = at.interval(90)
    assert low < at.best < high


# ---- the command -----------------------------------------------------------------------------------------------------


def test_command(run, tmp_path):
    rows = [dict(zip(planted(), r, strict=True)) for r in zip(*(v.tolist() for v in planted().values()), strict=True)]
    path = write_jsonl(tmp_path / "samples.jsonl", rows)
    out = run.json("think", "replay", path, "--budgets", "1,4,12", "--forecast", "100,1000", "--seed", "1")
    assert out["how"]["tie"] == "even"
    assert {r["strategy"] for r in out["rows"]} >= {"coverage", "majority", "best_of_n"}
    assert out["forecast"]["pass_at_1000"]["median"] > out["forecast"]["pass_at_100"]["median"]
    text = run("think", "replay", path, "--first", "--budgets", "4").stdout
    assert "best at k = 4" in text
    assert "no file" in run("think", "replay", tmp_path / "none.csv", code=2).stderr


# ---- recorded samples ------------------------------------------------------------------------------------------------


def test_repeated_sampling_table(data):
    """README of repeated-sampling: mean pass@1, 10, 100, 1000, 10000."""
    want = {"70m": (0.0006, 0.0060, 0.0361, 0.1241, 0.2656), "160m": (0.0027, 0.0251, 0.1619, 0.4102, 0.5703),
            "410m": (0.0062, 0.0517, 0.2272, 0.4818, 0.6562), "1b": (0.0083, 0.0665, 0.2745, 0.5462, 0.7422),
            "2.8b": (0.0203, 0.1348, 0.4220, 0.6778, 0.8125), "6.9b": (0.0186, 0.1314, 0.4316, 0.6877, 0.8359),
            "12b": (0.0232, 0.1568, 0.4834, 0.7233, 0.8750)}  # fmt: skip
    from isoflop.levers.think._curves import coverage_law

    path = data / "repeated-sampling" / "math_10k.csv"
    for model, row in want.items():
        curve = replay(
            path, only={"model": f"pythia-{model}"}, strategies=["coverage"], budgets=[1, 10, 100, 1000, 10000]
        )["coverage"]
        np.testing.assert_allclose(curve.accuracy, row, atol=5.1e-5)
        if model == "12b":
            assert coverage_law(curve.k, curve.accuracy).b == pytest.approx(0.37, abs=0.01)


def test_game24_and_where_its_curves_cross(data):
    folder = data / "game24-samples"
    k = list(range(1, 101))
    io, cot = (
        replay(folder / "samples.csv", only={"method": m}, strategies=["coverage"], budgets=k)["coverage"]
        for m in ("io", "cot")
    )
    np.testing.assert_allclose(io.accuracy[[0, 4, 9, 99]], [0.0734, 0.149, 0.179, 0.33], atol=6e-4)
    np.testing.assert_allclose(cot.accuracy[[0, 4, 9, 99]], [0.0403, 0.143, 0.215, 0.49], atol=6e-4)
    cross = difference(cot, io).cross
    assert len(cross) == 1
    assert 5 < cross[0].best < 7  # samples
    low, high = cross[0].interval(90)
    assert 1 < low < cross[0].best < high < 20
    names = {"outputs": "n", "correct": "c", "completion_tokens": "gen_tokens", "cost_usd": "usd"}
    counted = {
        m: replay(folder / "problems.csv", only={"method": m}, rename=names, strategies=["coverage"])["coverage"]
        for m in ("io", "cot", "tot-b5")
    }
    spent = {m: {c: v[:, -1].mean() for c, v in curve.cost.items()} for m, curve in counted.items()}
    for m, gen, prompt, usd in (("io", 1800, 1000, 0.138), ("cot", 6749, 2185, 0.470), ("tot-b5", 5479, 13879, 0.745)):
        assert spent[m]["gen_tokens"] == pytest.approx(gen, abs=1)
        assert spent[m]["prompt_tokens"] == pytest.approx(prompt, abs=1)
        assert spent[m]["usd"] == pytest.approx(usd, abs=6e-4)
        assert spent[m]["tokens"] == pytest.approx(gen + prompt, abs=2)
    assert counted["tot-b5"].accuracy[-1] == pytest.approx(0.69)
    # by generated tokens the tree is cheaper than 100 chains of thought; with its prompts it is dearer
    assert spent["tot-b5"]["gen_tokens"] < spent["cot"]["gen_tokens"]
    assert spent["tot-b5"]["tokens"] > 2 * spent["cot"]["tokens"]
    forest = np.genfromtxt(folder / "forest.csv", delimiter=",", names=True)
    solved = [int(forest["correct"][forest["trees"] == t].sum()) for t in (2, 3, 4, 5, 8, 16)]
    assert solved == [73, 75, 83, 89, 92, 95]


def test_prm_rerank_table(data):
    """pass@1 38.3; PRM 45.0, 53.3, 55.0, oracle 50.0, 61.7, 70.0 at the first 2, 4, 8; majority as the README found."""
    how = {"unit": ("seed", "problem"), "by": "problem", "only": {"benchmark": "math500"},
           "rename": {"prm_score": "score", "tokens": "gen_tokens"}}  # fmt: skip
    curves = replay(
        data / "prm-rerank-math" / "samples.csv", settings=Settings(subsets="first", tie="first"), score_cost=1.0, **how
    )
    assert len(curves["single"].problems) == 120
    assert len(np.unique(curves["single"].cluster)) == 40
    np.testing.assert_allclose(100 * curves["coverage"].accuracy, [38.3, 50.0, 61.7, 70.0], atol=0.05)
    np.testing.assert_allclose(100 * curves["best_of_n"].accuracy, [38.3, 45.0, 53.3, 55.0], atol=0.05)
    np.testing.assert_allclose(100 * curves["majority"].accuracy[1:], [41.7, 47.5, 53.3], atol=0.05)
    np.testing.assert_allclose(curves["majority"].mean_cost("gen_tokens")[1:], [985, 1990, 4015], atol=0.5)
    np.testing.assert_allclose(curves["best_of_n"].mean_cost("gen_tokens")[1:], [1970, 3981, 8029], atol=0.8)
    assert curves.how["tie"] == "first"
    assert curves.how["equality"] == "recorded text"
    gap = difference(curves["best_of_n"], curves["majority"], cost="gen_tokens")
    near = int(np.abs(gap.cost - 4000).argmin())
    assert not gap.told_apart()[near]


def test_reward_rerank_calls_no_selector_better(data):
    curves = replay(data / "reward-rerank-math" / "samples.csv", rename={"reward": "score"})
    at8 = {name: curve.accuracy[-1] for name, curve in curves.items()}
    assert at8["single"] == pytest.approx(0.91)
    assert at8["coverage"] == pytest.approx(0.96)
    assert at8["best_of_n"] == pytest.approx(0.94)
    assert at8["weighted_exp"] == pytest.approx(0.94)
    assert at8["majority"] == pytest.approx(0.925)  # .93 where the first seen wins the one tie, .92 where it loses
    last = curves.best()[-1]
    assert set(last["undecided"]) == {
        "single",
        "majority",
        "adaptive",
        "best_of_n",
        "weighted_vote",
        "weighted_exp",
    } - {last["best"]}
    first = replay(
        data / "reward-rerank-math" / "samples.csv", rename={"reward": "score"}, strategies=["majority"], budgets=[8],
        settings=Settings(subsets="first", tie="first"),
    )  # fmt: skip
    assert first["majority"].accuracy[0] == pytest.approx(0.93)


def test_async_sampling_table_and_early_stopping(data):
    """pass@1, coverage@16, majority@16 of nine settings; and how many of 16 samples a sequential test needs."""
    pytest.importorskip("pyarrow")
    want = {"cross-qwq32b": (0.826, 0.97, 0.92), "cross-qwq32b-ct1": (0.843, 0.96, 0.96),
            "self-prefill-v2": (0.748, 0.94, 0.89), "reject-fork": (0.701, 0.90, 0.81),
            "sync-self-opt": (0.684, 0.85, 0.81), "sync-self": (0.677, 0.84, 0.79),
            "self-prefill": (0.665, 0.86, 0.79), "reject": (0.650, 0.84, 0.71),
            "reject-fork-v059-tuned": (0.584, 0.87, 0.76)}  # fmt: skip
    path = data / "async-sampling-math" / "samples.parquet"
    lost, needed = [], []
    for config, (one, all_, vote) in want.items():
        samples = read_samples(
            path, only={"config": config}, rename={"duration_s": "seconds"}, same=lambda a: "" if a == "invalid" else a
        )
        curves = replay(samples, strategies=["single", "coverage", "majority"], budgets=[1, 16])
        assert curves["single"].accuracy[0] == pytest.approx(one, abs=6e-4)
        assert curves["coverage"].accuracy[1] == pytest.approx(all_, abs=1e-9)
        assert curves["majority"].accuracy[1] == pytest.approx(vote, abs=0.021)  # ties: even here, first seen there
        how = Settings(rule="overtake", risk=0.05, orders=60)
        early = replay(samples, strategies=["adaptive"], budgets=[16], settings=how)["adaptive"]
        lost.append(curves["majority"].accuracy[1] - early.accuracy[0])
        needed.append(early.mean_cost("samples")[0])
    assert np.mean(needed) < 6.0
    assert abs(np.mean(lost)) < 0.002
    assert max(lost) < 0.01


def test_code_execution_numbers(data):
    path = data / "code-execution-samples" / "problems.csv"
    for task, one, five in (("input", 0.3595, 0.44991), ("output", 0.342125, 0.40287)):
        curves = replay(path, only={"task": task}, budgets=[1, 5])
        np.testing.assert_allclose(curves["coverage"].accuracy, [one, five], atol=5e-6)


def test_budget_forcing_is_not_better_with_more_tokens_everywhere(data):
    from isoflop.levers.think._curves import over_thinking

    pd = pytest.importorskip("pandas")
    table = pd.read_csv(data / "budget-forcing" / "results.csv")
    assert len(table) == 77
    assert table.model.nunique() == 10
    mine = table[table.model.str.startswith("Qwen2.5 7B")]
    assert mine[mine.prompting == "CoT"].math500.iloc[0] == 68.0
    forced = mine[mine.budget_tokens.notna()].groupby("budget_tokens").math500.mean()
    found = over_thinking(forced.index, forced / 100, 500)
    assert found.shape in ("rising", "peak")
    assert forced.max() < 68.0  # no budget reaches plain prompting
