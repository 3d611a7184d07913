"""Meters of one series: noise scale, detections, drift, early warnings, cheaper evaluation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop._meter import get_meter

noise_scale, pate, drift = (get_meter(n) for n in ("gradient_noise_scale", "pate", "drift"))
early_warning, control_variate = get_meter("early_warning"), get_meter("control_variate")

# ---- gradient noise scale --------------------------------------------------------------------------------------------


def norms(steps=200, mean=0.3, d=40, parts=8, seed=0):
    """Squared norms of micro-batches of 4 and of their mean, and the true noise scale."""
    deviation = np.linspace(0.5, 1.5, d)
    g = mean + np.random.default_rng(seed).standard_normal((steps, parts, d)) * deviation / 2
    return (g**2).sum(2), (g.mean(1) ** 2).sum(1), float((deviation**2).sum() / (d * mean**2))


def test_noise_scale_of_known_gradients():
    """Mean of 40 estimates within 3 %, and the 90 % interval holds the truth in 33 to 40 of them."""
    found, held = [], 0
    for seed in range(40):
        small, big, truth = norms(seed=seed)
        made = noise_scale(grad_sq_small=small.mean(1), grad_sq_big=big, batch_small=np.full(200, 4.0),
                           batch_big=np.full(200, 32.0))  # fmt: skip
        found.append(made["noise_scale"])
        held += made["low"] <= truth <= made["high"]
    assert np.mean(found) == pytest.approx(truth, rel=0.03)
    assert 33 <= held <= 40


def test_rows_of_micro_batches_are_those_of_their_mean():
    small, big, _ = norms()
    whole = noise_scale(grad_sq_small=small.mean(1), grad_sq_big=big, batch_small=np.full(200, 4.0),
                        batch_big=np.full(200, 32.0))  # fmt: skip
    parts = noise_scale(grad_sq_small=small.ravel(), grad_sq_big=np.repeat(big, 8), batch_small=np.full(1600, 4.0),
                        batch_big=np.full(1600, 32.0), step=np.repeat(np.arange(200), 8))  # fmt: skip
    assert parts["noise_scale"] == pytest.approx(whole["noise_scale"], rel=1e-12)
    assert parts["high"] == pytest.approx(whole["high"], rel=1e-9)
    assert parts["steps"] == 200


@given(st.floats(1e-6, 1e6), st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_noise_scale_is_in_units_of_the_batch_and_of_no_gradient(gradient, batch):
    small, big, _ = norms(steps=20)
    base = noise_scale(grad_sq_small=small.mean(1), grad_sq_big=big, batch_small=np.full(20, 4.0),
                       batch_big=np.full(20, 32.0))  # fmt: skip
    made = noise_scale(grad_sq_small=gradient * small.mean(1), grad_sq_big=gradient * big,
                       batch_small=np.full(20, 4.0 * batch), batch_big=np.full(20, 32.0 * batch))  # fmt: skip
    for figure in ("noise_scale", "low", "high", "latest"):
        assert made[figure] == pytest.approx(batch * base[figure], rel=1e-6)
    assert made["extra_steps"] * made["extra_examples"] == pytest.approx(1.0)


def test_a_gradient_lost_in_noise_is_said():
    small, big, _ = norms(steps=30, mean=0.01)
    made = noise_scale(grad_sq_small=small.mean(1), grad_sq_big=big, batch_small=np.full(30, 4.0),
                       batch_big=np.full(30, 32.0))  # fmt: skip
    assert made["verdict"] == "lost in noise"
    assert made["high"] == np.inf
    with pytest.raises(ValueError, match="batch_small below batch_big"):
        noise_scale(grad_sq_small=[1.0, 1], grad_sq_big=[1.0, 1], batch_small=[8.0, 8], batch_big=[8.0, 8])


# ---- PATE ------------------------------------------------------------------------------------------------------------


def detected(where, score=None, n=200, event=(100, 110)):
    label = np.zeros(n)
    label[event[0] : event[1]] = 1
    marked = np.zeros(n)
    marked[where[0] : where[1]] = 1
    return {"score": marked if score is None else score, "label": label}


def test_pate_equals_the_authors_code():
    """Three toy series through PATE 0.1.1 (all scores as thresholds): continuous, continuous with splits, binary."""
    label = np.array([0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0])
    score = np.array([1, 2, 9, 3, 8, 7, 6, 1, 0, 5, 2, 9, 8, 4, 0]) / 10
    assert pate(score=score, label=label, early=2, late=3)["pate"] == pytest.approx(PEER[0], abs=1e-12)
    assert pate(score=score, label=label, early=3, late=2, splits=3)["pate"] == pytest.approx(PEER[1], abs=1e-12)
    assert pate(score=score > 0.55, label=label, early=2, late=3)["pate"] == pytest.approx(PEER[2], abs=1e-12)


PEER = (0.5955239533723484, 0.5735873033892611, 0.6296046993279083)


def test_a_perfect_score_is_one_and_only_the_order_of_scores_matters():
    sharp = detected((100, 110))
    for figure in ("pate", "auc_pr", "adjusted_f1", "range_f1"):
        assert pate(**sharp)[figure] == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    noisy = rng.standard_normal(200) + 2 * sharp["label"]
    one, other = (pate(score=s, label=sharp["label"], early=9, late=9) for s in (noisy, np.exp(3 * noisy)))
    assert one == other


def test_the_later_a_detection_the_less_it_counts():
    found = [pate(**detected((100 + k, 110 + k)), early=20, late=20)["pate"] for k in (0, 3, 9, 15, 25, 60)]
    assert found == sorted(found, reverse=True)
    assert found[0] == 1.0
    assert 0 < found[3] < found[2]
    assert found[-1] == 0.0


def test_an_early_alarm_counts_only_where_the_event_is_found():
    alone = pate(**detected((92, 100)), early=20, late=20)["pate"]
    followed = pate(**detected((92, 104)), early=20, late=20)["pate"]
    assert alone == 0.0
    assert followed > 0.5


def test_a_random_score_gains_far_less_than_by_point_adjustment():
    label = np.zeros(2000)
    for start in range(100, 2000, 200):
        label[start : start + 20] = 1
    found = pate(score=np.random.default_rng(1).random(2000), label=label, early=40, late=40)
    assert found["auc_pr"] == pytest.approx(found["prevalence"], abs=0.03)
    assert found["pate"] < 0.25
    assert found["adjusted_f1"] > 0.5
    with pytest.raises(ValueError, match="label is the same in every row"):
        pate(score=[1.0, 2.0], label=[1, 1])


# ---- drift -----------------------------------------------------------------------------------------------------------


def test_drift_raises_few_false_alarms_and_finds_a_shift_soon():
    """20 streams of 400 rows on a falling course: at most 1 false alarm, and 2 sd found in some 10 rows."""
    step = 500 + np.arange(400)
    course = 3 * step**-0.3 / 0.02
    false, delays = 0, []
    for seed in range(20):
        noise = course + np.random.default_rng(seed).standard_normal(400)
        false += drift(loss=noise, step=step)["drift"] != "none"
        delays.append(drift(loss=noise + 2 * (step >= 700), step=step)["at"] - 700)
    assert false <= 1
    assert np.nanmedian(delays) < 15
    assert sum(0 <= d < 60 for d in delays) >= 18


@given(st.floats(1e-3, 1e3), st.floats(-100, 100))
@settings(max_examples=10, deadline=None)
def test_drift_knows_neither_unit_nor_level(scale, level):
    x = np.random.default_rng(0).standard_normal(150)
    x[100:] += 5
    up, moved, down = (drift(loss=y) for y in (x, level + scale * x, level - scale * x))
    assert (moved["drift"], moved["at"], moved["since"]) == (up["drift"], up["at"], up["since"]) == ("rise", *where(up))
    assert (down["drift"], down["at"]) == ("fall", up["at"])
    assert down["size"] == pytest.approx(-up["size"], rel=1e-4)


def where(found):
    return found["at"], found["since"]


def test_drift_of_a_straight_course_and_bad_settings():
    assert drift(loss=np.linspace(3, 2, 100), degree=1, step=np.exp(np.linspace(0, 5, 100)) - 1)["drift"] == "none"
    with pytest.raises(ValueError, match="drift needs at least 20 rows"):
        drift(loss=np.zeros(19))
    with pytest.raises(ValueError, match="alpha is between 0 and 1"):
        drift(loss=np.zeros(100), alpha=2.0)


# ---- early warning ---------------------------------------------------------------------------------------------------


def test_early_warning_sees_a_fold_coming_and_stays_quiet_on_noise():
    """Of 20 folds at least 16 are called; of 60 series of white noise at most 7, at a level of 5 %."""
    from isoflop.theory.early_warning import _fold

    mu = np.repeat(np.linspace(1.0, 0.02, 600), 15)
    paths = _fold(mu, 20, 0.02, np.random.default_rng(0))[::15]
    called = [early_warning(loss=x, surrogates=99)["verdict"] == "warning" for x in paths.T]
    assert sum(called) >= 16
    noise = np.random.default_rng(1).standard_normal((60, 200))
    assert sum(early_warning(loss=x, surrogates=99)["verdict"] == "warning" for x in noise) <= 7


def test_early_warning_is_blind_to_level_slope_and_unit():
    x = np.random.default_rng(0).standard_normal(120)
    base = early_warning(loss=x, surrogates=99)
    tilted = early_warning(loss=5 + 0.3 * np.arange(120) + 1e3 * x, surrogates=99)
    assert tilted["p_value"] == base["p_value"]
    assert tilted["tau_ar1"] == pytest.approx(base["tau_ar1"])
    with pytest.raises(ValueError, match="there is no noise to judge"):
        early_warning(loss=np.linspace(3, 2, 100))


# ---- control variates ------------------------------------------------------------------------------------------------


def test_control_variates_cut_the_variance_by_one_minus_r2():
    """y = 2 x + e over 60 of 2000 rows: R^2 .8, the interval holds the mean in 85 to 95 % of 400 draws."""
    held, ratios, errors = 0, [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal(2000)
        y = np.where(np.arange(2000) < 60, 2 * x + rng.standard_normal(2000), np.nan)
        made = control_variate(score=y, cheap=x)
        held += made["low"] <= 0 <= made["high"]
        ratios.append(made["variance_ratio"])
        errors.append(made["estimate"])
    assert 0.85 <= held / 400 <= 0.95
    assert np.mean(ratios) == pytest.approx(0.2 + 0.8 * 60 / 2000, abs=0.02)
    assert abs(np.mean(errors)) < 3 * np.std(errors) / 20


@given(st.floats(0.01, 100), st.floats(-10, 10), st.booleans())
@settings(max_examples=20, deadline=None)
def test_control_variates_do_not_depend_on_the_scale_of_the_cheap_score(scale, shift, finite):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((80, 2))
    y = np.where(rng.random(80) < 0.4, x @ [1.0, -2.0] + rng.standard_normal(80), np.nan)
    one, other = (control_variate(score=y, cheap=c, finite=finite) for c in (x, shift + scale * x[:, ::-1]))
    for figure in ("estimate", "se", "variance_ratio"):
        assert other[figure] == pytest.approx(one[figure], rel=1e-6)


def test_an_exact_cheap_score_gives_the_whole_mean():
    x = np.arange(50.0)
    made = control_variate(score=np.where(x < 20, 3 * x + 1, np.nan), cheap=x, finite=True)
    assert made["estimate"] == pytest.approx(3 * x.mean() + 1)
    assert made["se"] == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match="needs at least 4 rows with a score for 1 cheap ones, got 2"):
        control_variate(score=[1.0, 2.0, np.nan, np.nan], cheap=[1.0, 2, 3, 4])
