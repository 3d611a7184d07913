"""Meters of points, tables and test-time runs: known answers, and what they must not depend on."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop._meter import get_meter, measure
from isoflop._runs import load

ot_distance, ot_projection, metric_chain = map(get_meter, ("ot_distance", "ot_projection", "metric_chain"))

# ---- transport -------------------------------------------------------------------------------------------------------


def sides(n, m):
    return np.repeat([0, 1], [n, m])


@given(st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_transport_lies_between_its_bounds(seed):
    """Six points onto six: the best of all permutations."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((6, 2)), rng.standard_normal((6, 2)) + 1
    cost = ((x[:, None] - y) ** 2).sum(-1)
    least = min(cost[range(6), list(p)].mean() for p in permutations(range(6)))
    made = ot_distance(x=np.vstack([x, y]), target=sides(6, 6), tolerance=0.02)
    assert made["low"] - 1e-9 <= least <= made["high"] + 1e-9
    assert made["high"] - made["low"] <= 0.02 * made["high"]


def test_transport_of_a_moved_set_is_the_square_of_the_way():
    x = np.random.default_rng(0).standard_normal((40, 3))
    made = ot_distance(x=np.vstack([x, x + np.array([3.0, 4.0, 0.0])]), target=sides(40, 40), tolerance=0.005)
    assert made["ot_distance"] == pytest.approx(25.0, rel=0.005)
    same = ot_distance(x=np.vstack([x, x]), target=sides(40, 40), tolerance=0.5)
    assert same["ot_distance"] < 0.05


def test_transport_that_knows_of_classes_is_farther_where_they_are_mixed():
    """The names of classes do not matter, what they hold does."""
    rng = np.random.default_rng(0)
    x, k = np.vstack([rng.standard_normal((30, 2)), 6 + rng.standard_normal((30, 2))]), np.repeat([0, 1], 30)
    both = np.vstack([x, x])
    right = ot_distance(x=both, target=sides(60, 60), label=np.r_[k, k], tolerance=0.3)
    renamed = ot_distance(x=both, target=sides(60, 60), label=np.r_[k, 1 - k], tolerance=0.3)
    mixed = ot_distance(x=both, target=sides(60, 60), label=np.r_[k, rng.permutation(k)], tolerance=0.05)
    assert right["ot_distance"] < 0.1
    assert renamed["ot_distance"] < 0.1
    assert mixed["ot_distance"] > 10


def test_the_gradient_says_which_source_to_draw_from():
    """Moving weight from the far source to the near one must bring the two sets together."""
    rng = np.random.default_rng(0)
    near, far, target = (rng.standard_normal((40, 2)) + off for off in (0.3, 3.0, 0.0))
    made = ot_distance(
        x=np.vstack([near, far, target]), target=sides(80, 40), data=["near"] * 40 + ["far"] * 40 + [""] * 40
    )
    assert made["gradient_near"] < 0 < made["gradient_far"]
    more = ot_distance(x=np.vstack([near, near, far[:40], target]), target=sides(120, 40))
    assert more["ot_distance"] < made["ot_distance"]
    slope = (more["ot_distance"] - made["ot_distance"]) / (2 / 3 - 1 / 2)
    assert slope == pytest.approx(made["gradient_near"], rel=0.35)
    with pytest.raises(ValueError, match="rows with target 0 and rows with target 1"):
        ot_distance(x=near, target=np.zeros(40))


def test_projection_is_straight_in_the_log_of_size():
    """acc = .2 + .1 log2(N / 100) - .05 OT at sizes 100 and 200: exact at 800."""
    size, apart = np.r_[np.repeat([100.0, 200.0], 4), 800.0, 800.0], np.r_[1.0, 2, 3, 4, 1, 2, 3, 4, 2.5, 0.5]
    truth = 0.2 + 0.1 * np.log2(size / 100) - 0.05 * apart
    made = ot_projection(accuracy=np.where(size < 800, truth, np.nan), ot_distance=apart, examples=size)
    np.testing.assert_allclose(made, truth, atol=1e-12)
    with pytest.raises(ValueError, match="needs two sizes with at least 2 rows"):
        ot_projection(accuracy=truth[:4], ot_distance=apart[:4], examples=size[:4])


# ---- transferability -------------------------------------------------------------------------------------------------


class Nearest:
    """Any object with fit and predict."""

    def fit(self, x, y):
        self.x, self.y = x, y

    def predict(self, new):
        return self.y[np.argmin(((new[:, None] - self.x) ** 2).sum(-1), axis=1)]


def low_rank(seed=0, sets=8, models=8):
    rng = np.random.default_rng(seed)
    u, v = rng.standard_normal((sets, 3)), rng.standard_normal((models, 3))
    d, m = (i.ravel() for i in np.meshgrid(range(sets), range(models), indexing="ij"))
    score = (u @ v.T + 0.1 * rng.standard_normal((sets, models))).ravel()
    guess = score + 1.2 * rng.standard_normal(len(score))
    return {"score": score, "data": d, "x": np.column_stack([u[d], v[m], guess])}, guess


@pytest.mark.parametrize("method", ["kernel", "knn", Nearest()])
def test_each_data_set_is_predicted_without_its_own_scores(method):
    table, _ = low_rank()
    one = get_meter("transferability")(**table, method=method)
    hidden = np.where(table["data"] == 3, np.nan, table["score"])
    other = get_meter("transferability")(**table | {"score": hidden}, method=method)
    np.testing.assert_allclose(one[table["data"] == 3], other[table["data"] == 3])


def test_transferability_ranks_better_than_the_score_without_tuning():
    ours, theirs = [], []
    for seed in range(4):
        table, guess = low_rank(seed)
        made = get_meter("transferability")(**table)
        for d in range(8):
            here = table["data"] == d
            for scores, kept in ((made, ours), (guess, theirs)):
                kept.append(get_meter("rank_agreement")(score=table["score"][here], predicted=scores[here])["tau"])
    assert np.mean(ours) > 0.6
    assert np.mean(ours) > np.mean(theirs) + 0.1
    with pytest.raises(ValueError, match="no method 'forest'; there are kernel, knn, tabpfn"):
        get_meter("transferability")(**table, method="forest")


def test_weighted_tau_is_the_usual_one():
    stats = pytest.importorskip("scipy.stats")
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x = rng.integers(0, 6, 9).astype(float)
        y = x + rng.standard_normal(9)
        made = get_meter("rank_agreement")(score=x, predicted=y)["tau"]
        assert made == pytest.approx(stats.weightedtau(x, y).statistic, abs=1e-12)


# ---- test-time runs --------------------------------------------------------------------------------------------------


def test_coverage_weight_is_the_ratio_of_gradients():
    weight = get_meter("coverage_weight")
    assert weight(pass_rate=[0.5], samples=[16])[0] == pytest.approx(2.44e-4, rel=1e-3)
    p, n, h = 0.13, 7.0, 1e-6
    slope = (np.log(1 - (1 - p - h) ** n) - np.log(1 - (1 - p + h) ** n)) / (np.log(p + h) - np.log(p - h))
    assert weight(pass_rate=[p], samples=[n])[0] == pytest.approx(slope, rel=1e-6)
    assert weight(pass_rate=[0.0, 1e-15, 0.7, 1.0, 1.0], samples=[5, 5, 1, 1, 2]) == pytest.approx([1, 1, 1, 1, 0])


def test_honest_coverage_of_homogeneous_problems():
    """Half of the answers flawed at a rate of .05: 64 samples cover 1 - .975^64 = .802 of problems, and not .9625."""
    rng = np.random.default_rng(0)
    c = rng.binomial(400, 0.05, 300)
    flawed = rng.binomial(np.minimum(c, 8), 0.5)
    made = get_meter("honest_pass_at_k")(
        n=np.full(300, 400), c=c, checked=np.minimum(c, 8), flawed=flawed, k=64, draws=40
    )
    assert made["naive"] == pytest.approx(0.9625, abs=0.02)
    assert made["corrected"] == pytest.approx(1 - 0.975**64, abs=0.02)
    assert made["low"] < made["corrected"] < made["high"] < made["naive"]


def test_honest_coverage_where_problems_are_flawed_as_a_whole():
    """Every second problem has only flawed answers; three answers of half the problems were read: half are covered."""
    n = np.full(200, 20)
    checked = np.where(np.arange(200) % 4 < 2, 3, 0)
    flawed = np.where(np.arange(200) % 2, checked, 0)
    made = get_meter("honest_pass_at_k")(n=n, c=n, checked=checked, flawed=flawed, k=10, draws=0)
    assert made["naive"] == 1.0
    assert made["corrected"] == pytest.approx(0.5, abs=0.03)
    with pytest.raises(ValueError, match="flawed <= checked <= c <= n"):
        get_meter("honest_pass_at_k")(n=[5], c=[3], checked=[2], flawed=[3])


def test_verification_gain_is_bayes_rule():
    right = np.repeat([1, 1, 0, 0], [40, 10, 10, 40])
    kept = np.repeat([1, 0, 1, 0], [40, 10, 10, 40])
    made = get_meter("verification_gain")(correct=right, accepted=kept)
    assert (made["tpr"], made["tnr"], made["before"], made["after"]) == (0.8, 0.8, 0.5, 0.8)
    assert made["gain"] == pytest.approx(0.5 * 0.8 / (0.5 * 0.8 + 0.5 * 0.2) - 0.5)
    assert made["tpr_low"] < 0.8 < made["tpr_high"]


def test_harder_problems_are_certified_less_often_by_a_public_reward_model(data):
    table = load(data / "prm-rerank-math" / "samples.csv", where='level != "grade-school"')
    table = table.with_column("accepted", (np.asarray(table["prm_score"], float) > 0.8).astype(float))
    rate = {row["level"]: row["tpr"] for row in measure("verification_gain", table, by="level").rows}
    assert rate["1"] > 0.8
    assert rate["5"] < 0.3
    assert rate["1"] > rate["2"] > rate["4"] > rate["5"]


def test_budget_peak_finds_a_planted_peak_and_says_what_only_rises():
    tokens, problem = np.tile(2.0 ** np.arange(8, 15), 40), np.repeat(np.arange(40), 7)
    rng = np.random.default_rng(0)
    noise = 0.05 * rng.standard_normal(280) + rng.standard_normal(40)[problem]
    bent = get_meter("budget_peak")(
        gen_tokens=tokens, accuracy=noise - 0.02 * (np.log2(tokens) - 12) ** 2, problem=problem
    )
    assert bent["verdict"] == "peak"
    assert bent["low"] < 4096 < bent["high"]
    rising = get_meter("budget_peak")(gen_tokens=tokens, accuracy=noise + 0.03 * np.log2(tokens), problem=problem)
    assert (rising["verdict"], np.isnan(rising["best_budget"])) == ("rising", True)
    assert rising["slope_low"] < 0.03 < rising["slope_high"]


def test_a_policy_by_difficulty_saves_where_strategies_cross():
    rows = [(q, s, t, a, q) for q in range(60) for t in (1, 2, 4)
            for s, a in (("wide", 1.0 if q < 30 else 0.0), ("deep", 0.25 * t if q >= 30 else 0.0))]  # fmt: skip
    table = dict(
        zip(("problem", "strategy", "gen_tokens", "accuracy", "difficulty"), zip(*rows, strict=True), strict=True)
    )
    made = get_meter("compute_optimal")(**table, bins=2)
    assert made["policy"] == 1.0
    assert made["baseline_accuracy"] == 0.5
    assert made["saving"] == 4.0
    with pytest.raises(ValueError, match="need 360 rows, one each; there are 359"):
        get_meter("compute_optimal")(**{k: v[1:] for k, v in table.items()})


# ---- layers, data, cost ----------------------------------------------------------------------------------------------


def test_lr_sensitivity_counts_what_diverged_as_the_loss_at_the_start():
    made = get_meter("lr_sensitivity")(lr=[1, 1, 2, 3], loss=[2.0, 4.0, 2.0, np.nan], start=5.0)
    assert made["lr_sensitivity"] == pytest.approx((1 + 0 + 3) / 3)
    assert (made["best_lr"], made["diverged"]) == (2.0, 1)
    with pytest.raises(ValueError, match="1 rows have no loss; give start"):
        get_meter("lr_sensitivity")(lr=[1, 2, 3], loss=[1.0, 2.0, np.nan])


def test_lr_sensitivity_of_a_public_sweep(data):
    """429 M parameters on 8 billion tokens, batches pooled: the best learning rate lies inside the sweep."""
    rows = load(data / "lr-batch-grid" / "dense.csv", where="params == 429260800 and tokens == 8e9")
    made = measure("lr_sensitivity", rows)
    assert rows["lr"].min() < made["best_lr"] < rows["lr"].max()
    assert 0.1 < made["lr_sensitivity"] < 1.0
    assert made["rates"] >= 8


def test_prototypes_are_near_and_odd_ones_far():
    rng = np.random.default_rng(0)
    x = np.vstack([np.eye(4)[rng.integers(0, 4, 200)] + 0.05 * rng.standard_normal((200, 4)), -np.ones((5, 4))])
    far = get_meter("prototype_distance")(x=x, clusters=4)
    assert far[:200].max() < far[200:].min()
    np.testing.assert_allclose(get_meter("prototype_distance")(x=7 * x, clusters=4), far, atol=1e-12)


def test_linear_share_of_a_planted_error():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 8))
    linear = x @ rng.standard_normal((8, 8))
    made = get_meter("linear_error_share")(x=x, error=linear + linear.std() * rng.standard_normal((3000, 8)))
    assert made["linear_share"] == pytest.approx(0.5, abs=0.03)
    assert get_meter("linear_error_share")(x=x, error=linear + 3)["linear_share"] == pytest.approx(1.0)
    assert get_meter("linear_error_share")(x=x, error=rng.standard_normal((3000, 8)))["linear_share"] < 0.01


@given(st.integers(0, 30), st.floats(-5, 5))
@settings(max_examples=15, deadline=None)
def test_the_chain_from_log_p_to_accuracy(seed, shift):
    """A choice two times as likely for all: only the first link feels the size of p; a known question is known."""
    rng = np.random.default_rng(seed)
    flops = np.tile(10.0 ** np.arange(18, 24), 5)
    table = {
        "question": np.repeat(np.arange(5), 6),
        "flops": flops,
        "right": np.log(flops) / 10 + rng.normal(-9, 1, 5)[np.arange(30) // 6],
        "wrong": rng.normal(-6, 2, (30, 3)),
    }
    found = metric_chain(**table)
    assert found["log_p"] == pytest.approx(1)  # straight in the log of compute
    assert found["low"] <= found["lost"] <= found["high"]
    assert found["lost"] == pytest.approx(found["log_p"] - found["accuracy"])
    moved = metric_chain(**table | {"right": table["right"] + shift, "wrong": table["wrong"] + shift})
    assert [moved[k] for k in ("log_p", "p", "p_choice", "accuracy")] == pytest.approx(
        [found[k] for k in ("log_p", "p", "p_choice", "accuracy")], abs=1e-6
    )
    ranked = metric_chain(**table, ranks=True)
    assert ranked["p"] == pytest.approx(ranked["log_p"]) == pytest.approx(1)
    sure = metric_chain(**table | {"wrong": table["right"][:, None] - 1.0})
    assert (sure["accuracy"], sure["constant"]) == (0, 1)


def test_a_chain_of_one_budget_or_two_models_is_refused():
    row = {"question": [1, 1, 1], "right": [-1.0, -2, -3], "wrong": np.zeros((3, 2))}
    with pytest.raises(ValueError, match="two budgets"):
        metric_chain(**row, flops=[1e18] * 3)
    with pytest.raises(ValueError, match="three rows"):
        metric_chain(**row | {"question": [1, 1, 2]}, flops=[1e18, 1e19, 1e20])


@given(st.floats(0.05, 1.95), st.integers(0, 20))
@settings(max_examples=15, deadline=None)
def test_stiffness_of_euler_steps_is_the_rate_times_the_step(rate, seed):
    rng = np.random.default_rng(seed)
    start, turn = rng.standard_normal((3, 4)), np.linalg.qr(rng.standard_normal((4, 4)))[0]
    x = np.concatenate([start * (1 - rate) ** t @ turn + 7.0 for t in range(3)])
    found = get_meter("stiffness")(x=x, layer=np.repeat(np.arange(3), 3), sample=np.tile(np.arange(3), 3))
    assert found["stiffness"] == pytest.approx(rate, rel=1e-6)
    assert (found["layers"], found["samples"]) == (2, 3)


def test_stiffness_needs_every_layer_of_every_sample():
    stiffness = get_meter("stiffness")
    with pytest.raises(ValueError, match="3 values"):
        stiffness(x=np.eye(2), layer=[0, 1])
    with pytest.raises(ValueError, match="one row for each"):
        stiffness(x=np.eye(4), layer=[0, 1, 2, 0], sample=[0, 0, 0, 1])
    with pytest.raises(ValueError, match="changes nothing"):
        stiffness(x=np.array([[0.0], [0.0], [1.0]]), layer=[0, 1, 2])


def test_massive_activations_outliers_and_dead_units():
    a = np.r_[np.linspace(-1, 1, 999), 800.0]
    assert get_meter("massive_activations")(activation=a)["massive"] == 1
    assert get_meter("massive_activations")(activation=a / 10)["massive"] == 0
    x = np.zeros((100, 10))
    x[:7, 3], x[:5, 4] = 8.0, 50.0
    assert get_meter("outlier_dimensions")(x=x)["outlier_dimensions"] == 1
    layers = get_meter("outlier_dimensions")(x=np.vstack([x, *[0 * x] * 4]), layer=np.repeat(range(5), 100))
    assert layers["outlier_dimensions"] == 0
    units = get_meter("active_units")(x=[[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert (units["active_units"], units["dormant_share"]) == (pytest.approx(1 / 3), 0.5)


def test_a_cascade_has_its_spectrum():
    """tau(q) = -log2(p^q + (1 - p)^q); an even measure has no width."""
    mu = np.ones(1)
    for _ in range(10):
        mu = np.stack([0.3 * mu, 0.7 * mu], axis=1).ravel()
    made = get_meter("multifractal")(mass=mu)
    assert made["tau2"] == pytest.approx(-np.log2(0.09 + 0.49), abs=1e-6)
    assert made["alpha0"] == pytest.approx(-0.5 * np.log2(0.21), abs=0.01)
    assert made["asymmetry"] == pytest.approx(0.5, abs=0.01)
    assert get_meter("multifractal")(mass=np.ones(128))["width"] == pytest.approx(0.0, abs=1e-9)


@given(st.floats(0.01, 100), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_entropy_and_diversity_do_not_depend_on_scale_or_direction(scale, seed):
    rng = np.random.default_rng(seed)
    x, turn = rng.standard_normal((30, 4)), np.linalg.qr(rng.standard_normal((4, 4)))[0]
    for name in ("spectral_entropy", "feature_diversity"):
        meter = get_meter(name)
        assert meter(x=scale * x @ turn)[meter.column] == pytest.approx(meter(x=x)[meter.column], rel=1e-9)


def test_entropy_of_axes_that_weigh_the_same():
    made = get_meter("spectral_entropy")(x=np.vstack([np.eye(4), -np.eye(4)]))
    assert made["effective_rank"] == pytest.approx(4.0)
    opposite = get_meter("feature_diversity")(x=[[1.0, 0.0], [-3.0, 0.0]])
    assert opposite["diversity"] == pytest.approx(2.0)
    assert get_meter("feature_diversity")(x=[[1.0, 0.0], [2.0, 0.0]])["diversity"] == 0.0


def test_attention_without_its_trivial_part():
    rng = np.random.default_rng(0)
    first = (rng.random(2000) < 0.1).astype(float)
    model, human = (4 * first + rng.standard_normal(2000) for _ in range(2))
    made = get_meter("attention_similarity")(model=model, human=human, trivial=first)
    assert made["raw"] > 0.5
    assert abs(made["similarity"]) < 0.07
    with pytest.raises(ValueError, match="explain model or human altogether"):
        get_meter("attention_similarity")(model=first, human=human, trivial=first)


def test_a_matrix_product_is_bound_by_its_sums_or_by_its_bytes():
    seconds = get_meter("gemm_seconds")(m=[1000, 1], n=[1000, 1000], k=[1000, 1000], peak=1e12, bandwidth=1e11, item=4)
    assert seconds == pytest.approx([2e-3, 4 * 1_002_000 / 1e11])


@given(st.integers(0, 30))
@settings(max_examples=15, deadline=None)
def test_no_capacity_is_cheaper_than_the_chosen(seed):
    demand = 10 * np.random.default_rng(seed).pareto(2.5, 200)
    made = get_meter("capacity_choice")(demand=demand, price=2.0, penalty=9.0)
    costs = [2 * c + 9 * np.maximum(demand - c, 0).mean() for c in [0.0, *demand]]
    assert made["cost"] == pytest.approx(min(costs))
    assert made["cost"] <= made["normal_cost"]
    safe = get_meter("capacity_choice")(demand=demand, price=2.0, penalty=9.0, service=0.97)
    assert safe["met"] >= 0.97


def test_arise_rewards_gains_and_charges_losses_more():
    """Accuracy 0 to 1 as tokens double: + .5; 1 to 0: - 2; no change: 0."""
    made = get_meter("arise")(
        accuracy=[0.0, 1.0, 1.0, 0.0, 1.0, 1.0], gen_tokens=[1, 2, 1, 2, 1, 2], run=list("aabbcc")
    )
    assert made[1::2].tolist() == [0.5, -2.0, 0.0]
