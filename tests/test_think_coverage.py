"""Coverage forecasts: planted rates, sampling until success, and recorded counts that were drawn 10,000 deep."""

import numpy as np
import pytest

from isoflop._meter import get_meter
from isoflop.levers.think._curves import (
    BetaLaw,
    CoverageLaw,
    Saturation,
    best_length,
    beta_law,
    coverage_law,
    over_thinking,
    saturation,
)
from isoflop.levers.think._estimators import pass_at_k
from isoflop.levers.think._forecast_coverage import coverage_draws, forecast_coverage, stops_on_success


def weibull_rates(problems, seed, b=0.35, scale=0.01):
    """Rates whose coverage is near exp(-a k^-b): Weibull with exponent b."""
    rng = np.random.default_rng(seed)
    return -np.expm1(-scale * rng.exponential(size=problems) ** (1 / b))


def test_planted_rates_are_inside_the_interval_and_near_the_best():
    held, miss = [], []
    for seed in range(12):
        p = weibull_rates(120, seed)
        c = np.random.default_rng(seed + 100).binomial(100, p)
        best, draws = coverage_draws(np.full(120, 100), c, [1000, 10000], draws=300, seed=seed)
        truth = np.array([(1 - (1 - p) ** k).mean() for k in (1000, 10000)])
        low, high = np.percentile(draws, [5, 95], axis=0)
        held.append((low <= truth) & (truth <= high))
        miss.append(np.abs(best - truth))
    assert np.mean(held) > 0.75
    assert np.mean(miss, axis=0).max() < 0.05


def test_forecasts_rise_with_k_and_a_seed_repeats():
    c = np.random.default_rng(0).binomial(50, weibull_rates(60, 0))
    k = [50, 100, 1000, 10000, 1e6]
    one, two = (forecast_coverage(np.full(60, 50), c, k, draws=200, seed=3) for _ in range(2))
    medians = [q.median for q in one.values()]
    assert medians == sorted(medians)
    assert one.to_dict() == two.to_dict()
    assert list(one) == ["pass_at_50", "pass_at_100", "pass_at_1000", "pass_at_10000", "pass_at_1000000"]
    at_n = pass_at_k(np.full(60, 50), c, 50).mean()
    assert one.pass_at_50.median == pytest.approx(at_n, abs=0.05)


def test_more_samples_narrow_the_interval():
    p = weibull_rates(100, 5)
    width = []
    for m in (10, 100, 1000):
        c = np.random.default_rng(1).binomial(m, p)
        low, high = forecast_coverage(np.full(100, m), c, [10000], draws=300).pass_at_10000.interval(90)
        width.append(high - low)
    assert width[0] > width[1]
    assert width[0] > width[2]
    every = forecast_coverage(np.full(100, 1000), c, [1000], draws=300).pass_at_1000
    assert every.best == pytest.approx((c > 0).mean())


def test_few_successes_are_said():
    answer = forecast_coverage([10] * 20, [1] + [0] * 19, [100], draws=100)
    assert any("only 1 right samples" in w for w in answer.warnings)
    assert any("only 20 problems" in w for w in answer.warnings)
    nobody = forecast_coverage([10] * 40, [0] * 40, [1000], draws=100)
    assert 0 < nobody.pass_at_1000.median < 0.5
    with pytest.raises(ValueError, match="k must be at least 1"):
        forecast_coverage([10], [1], [0])
    with pytest.raises(ValueError, match="row 1: n=10, c=11"):
        forecast_coverage([10, 10], [1, 11], [100])


def until_success(p, need, limit, rng):
    n = np.minimum(rng.negative_binomial(need, p) + need, limit).astype(int)
    return n, np.where(n < limit, need, rng.binomial(limit, np.where(n < limit, 0, 0.1 / limit), n.shape))


def test_sampling_until_success_is_recognised_and_not_averaged_naively():
    rng = np.random.default_rng(0)
    p = weibull_rates(200, 1)
    n, c = until_success(np.maximum(p, 1e-12), 1, 5000, rng)
    assert stops_on_success(n, c)
    assert not stops_on_success(np.full(200, 100), rng.binomial(100, p))
    beforehand = rng.integers(50, 150, 200)
    assert not stops_on_success(beforehand, rng.binomial(beforehand, p))
    assert not stops_on_success(beforehand, np.zeros(200))
    answer = forecast_coverage(n, c, [1, 100], draws=300)
    assert any("n depends on the outcome" in w for w in answer.warnings)
    low, high = answer.pass_at_1.interval(90)
    naive = (c / n).mean()
    assert low < p.mean() < high
    assert naive > 2 * p.mean()


def test_beta_law_recovers_planted_rates_whatever_stopped_the_sampling():
    rng = np.random.default_rng(0)
    p = rng.beta(0.4, 3, 3000)
    fixed = beta_law(np.full(3000, 50), rng.binomial(50, p))
    n, c = until_success(np.maximum(p, 1e-9), 1, 300, rng)
    c = np.where(n < 300, 1, 0)
    stopped = beta_law(n, c)
    for law in (fixed, stopped):
        assert law.alpha == pytest.approx(0.4, rel=0.1)
        assert law.beta == pytest.approx(3, rel=0.2)


def test_closed_forms_of_the_curves():
    law = BetaLaw(0.4, 3)
    failures = 1 - law([1e3, 1e4])
    assert np.log10(failures[1] / failures[0]) == pytest.approx(-0.3996, abs=1e-4)
    assert law(1) == pytest.approx(0.4 / 3.4)
    mean, sd = BetaLaw(1, 1).rate(8, 3)
    assert (mean, sd) == (pytest.approx(0.4), pytest.approx(np.sqrt(4 * 6 / 11) / 10))
    fit = coverage_law([1, 10, 100, 1000], CoverageLaw(5, 0.3)([1, 10, 100, 1000]))
    assert fit == (pytest.approx(5), pytest.approx(0.3))
    assert Saturation(0.9, 0.2).point(0.01) == pytest.approx(12.953, abs=1e-3)
    found = saturation([1, 2, 4, 8, 16], Saturation(0.9, 0.2)([1, 2, 4, 8, 16]))
    assert found == (pytest.approx(0.9, rel=1e-6), pytest.approx(0.2, rel=1e-5))
    assert Saturation(0.5, 0.01).point(0.01) == 0
    for (t, m), want in {(24, 4): 22.8842, (64, 4): 61.0246, (24, 8): 11.4421}.items():
        assert best_length(t, m, 0.05) == pytest.approx(want, abs=1e-4)
    steps = np.linspace(7, 80, 200001)
    accuracy = ((1 - 24 / (steps * 4)) * 0.95) ** steps
    assert best_length(24, 4, 0.05) == pytest.approx(steps[accuracy.argmax()], abs=1e-3)


@pytest.mark.parametrize(
    ("accuracy", "shape"),
    [([0.3, 0.5, 0.6], "rising"), ([0.6, 0.5, 0.3], "falling"), ([0.3, 0.6, 0.4], "peak"), ([0.6, 0.3, 0.6], "dip"),
     ([0.5, 0.51, 0.5], "flat")],
)  # fmt: skip
def test_shapes_of_thinking_curves(accuracy, shape):
    found = over_thinking([256, 1024, 4096], accuracy, 500)
    assert found.shape == shape
    assert over_thinking([4096, 1024, 256], accuracy[::-1], 500) == found
    assert over_thinking([256, 1024, 4096], accuracy, 2).shape == "flat"


def test_meters_of_curves():
    """ARISE's worked cases: 0 to 1 at twice the tokens is +1/2, 1 to 0 is -2, no change is 0."""
    arise = get_meter("arise")
    rows = {"accuracy": [0, 1, 1, 0, 1, 1], "gen_tokens": [100, 200, 100, 200, 100, 200], "run": list("aabbcc")}
    assert arise(**rows).tolist() == [0, 0.5, 0, -2, 0, 0]
    with pytest.raises(ValueError, match="gen_tokens above 0"):
        arise(accuracy=[0, 1], gen_tokens=[0, 1])
    assert get_meter("failed_step_fraction")(steps=[4, 10], steps_failed=[1, 0]).tolist() == [0.25, 0]
    with pytest.raises(ValueError, match="steps_failed from 0 to steps"):
        get_meter("failed_step_fraction")(steps=[4], steps_failed=[5])
    assert get_meter("accuracy_per_ktoken")(accuracy=[0.5], gen_tokens=[400], prompt_tokens=[100]).tolist() == [1.0]
    with pytest.raises(ValueError, match="tokens above 0"):
        get_meter("accuracy_per_ktoken")(accuracy=[0.5], gen_tokens=[0])


# ---- recorded counts -------------------------------------------------------------------------------------------------


def test_forecasts_of_pass_at_10000_beat_the_straight_line(data):
    """README of repeated-sampling: mean absolute error of the line .082, .063, .034 from 10, 30, 100 samples."""
    pd = pytest.importorskip("pandas")
    table = pd.read_csv(data / "repeated-sampling" / "math_10k.csv")
    rng = np.random.default_rng(11)
    for m, most in ((10, 0.082), (30, 0.063), (100, 0.034)):
        miss, held = [], []
        for _, group in table.groupby("model"):
            c = group.c.to_numpy()
            for seed in range(4):
                drawn = rng.hypergeometric(c, 10000 - c, m)
                best, draws = coverage_draws(np.full(len(c), m), drawn, [10000], draws=300, seed=seed)
                low, high = np.percentile(draws[:, 0], [5, 95])
                truth = (c > 0).mean()
                miss.append(abs(best[0] - truth))
                held.append(low <= truth <= high)
        assert np.mean(miss) < most, m
        assert np.mean(held) > 0.75, m


def test_counts_of_the_checkpoints_are_read_for_what_they_are(data):
    """Their README: sampling went on longer where successes were rare, so c / n over them is no fixed-n binomial."""
    pd = pytest.importorskip("pandas")
    table = pd.read_csv(data / "repeated-sampling" / "checkpoints.csv")
    gsm8k = table[table.benchmark == "GSM8K"]
    sums = gsm8k.groupby(["params", "train_tokens"])[["n", "c"]].sum()
    assert stops_on_success(sums.n, sums.c)
    mine = table[(table.benchmark == "MATH") & (table.params == 6.9e9) & (table.train_tokens == 3e11)]
    answer = forecast_coverage(mine.n, mine.c, [100, 10000], draws=300)  # n from 128 to 11,008
    assert 0.25 < answer.pass_at_100.median < answer.pass_at_10000.median < 1


def test_on_another_benchmark_the_line_alone_is_far_off(data):
    """GSM8K checkpoints with one n of 10,000 or more: few are solved within 100, and the line says few will be."""
    pd = pytest.importorskip("pandas")
    table = pd.read_csv(data / "repeated-sampling" / "checkpoints.csv")
    miss, line, held = [], [], []
    for _, group in table[table.benchmark == "GSM8K"].groupby(["params", "train_tokens"]):
        n, c = group.n.to_numpy(), group.c.to_numpy()
        if len(set(n)) > 1 or n[0] < 10000 or (c > 0).mean() < 0.3:
            continue
        assert not stops_on_success(n, c)
        truth = pass_at_k(n, c, [10000]).mean()
        drawn = np.random.default_rng(len(miss)).hypergeometric(c, n - c, 100)
        best, draws = coverage_draws(np.full(len(c), 100), drawn, [10000], draws=300)
        low, high = np.percentile(draws, [5, 95])
        held.append(low <= truth <= high)
        miss.append(abs(best[0] - truth))
        k = np.array([1, 3, 10, 30, 100])
        line.append(abs(float(coverage_law(k, pass_at_k(np.full(len(c), 100), drawn, k).mean(0))(10000)) - truth)
                    if drawn.sum() else truth)  # fmt: skip
    assert len(miss) >= 10
    assert np.mean(miss) < 0.75 * np.mean(line)
    assert np.mean(held) > 0.7
