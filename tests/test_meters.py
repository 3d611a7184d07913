"""Meters against hand counts."""

import numpy as np
import pytest

from isoflop import fill
from isoflop._meter import get_meter
from isoflop._runs import load


def test_train_flops_and_its_variants():
    count = get_meter("train_flops")
    have = {
        "params": 100.0,
        "tokens": 10.0,
        "params_nonembed": 60.0,
        "vocab": 5.0,
        "width": 4.0,
        "depth": 2.0,
        "context": 8.0,
    }
    assert count(**have) == 6 * 100 * 10
    assert count(**have, size="nonembed") == 6 * 60 * 10
    assert count(**have, size="linear") == 6 * (60 + 20) * 10
    assert count(**have, attention="causal") == 6 * (100 + 2 * 8 * 4) * 10
    assert count(**have, attention="full") == 6 * (100 + 2 * 2 * 8 * 4) * 10
    with pytest.raises(ValueError, match="no size='big'; there are total, nonembed, linear"):
        count(**have, size="big")
    with pytest.raises(ValueError, match="needs column 'depth'"):
        count(params=1.0, tokens=1.0, attention="causal")


def test_annealing_area_is_the_double_sum():
    """Tissue et al. 2024: rate 3e-4 to step 4999, then 3e-5 to step 6000, decay .999: S2 = .170822."""
    every = np.arange(1.0, 6001.0)
    rows = {"step": every, "lr": np.where(every < 5000, 3e-4, 3e-5)}
    s2 = get_meter("anneal_area")(**rows)
    assert s2[-1] == pytest.approx(0.170822, rel=1e-5)
    drops = -np.diff(rows["lr"], prepend=rows["lr"][0])
    brute = sum(drops[k] * 0.999 ** (i - k) for i in range(6000) for k in np.flatnonzero(drops) if k <= i)
    assert s2[-1] == pytest.approx(brute, rel=1e-9)
    assert get_meter("lr_area")(**rows)[-1] == pytest.approx(rows["lr"].sum(), rel=1e-12)


def test_areas_from_logged_steps_equal_those_from_all_steps():
    every = np.arange(1.0, 2001.0)
    lr = np.interp(every, [1, 100, 1500, 2000], [1e-5, 1e-3, 1e-3, 0.0])
    logged = np.array([1, 100, 700, 1500, 1600, 1800, 2000])
    for name in ("lr_area", "anneal_area"):
        whole = get_meter(name)(step=every, lr=lr)
        few = get_meter(name)(step=every[logged - 1], lr=lr[logged - 1])
        np.testing.assert_allclose(few, whole[logged - 1], rtol=1e-9)


def test_areas_keep_runs_apart_and_rows_in_place():
    step = np.array([2.0, 1, 1, 2, 3])
    lr = np.array([0.5, 1.0, 2.0, 2.0, 2.0])
    run = np.array(["a", "a", "b", "b", "b"], dtype=object)
    assert get_meter("lr_area")(step=step, lr=lr, run=run).tolist() == [1.5, 1.0, 2.0, 4.0, 6.0]


def test_filled_values_are_marked_and_measured_ones_stay():
    table = load({"params": [1e6, 1e6], "tokens": [1e8, 1e8], "flops": [7e14, np.nan]})
    done = fill(table, "train_flops")
    assert done["flops"].tolist() == [7e14, 6e14]
    assert done["flops_source"].tolist() == ["measured", "train_flops"]
    with pytest.raises(ValueError, match="needs column 'tokens'"):
        fill(load({"params": [1.0]}), "train_flops")


def test_lr_annealing_on_public_curves(data):
    """Fit on cosine, constant and two-stage curves, forecast the six others: mean absolute error near the anchors'."""
    import isoflop

    curves = isoflop.read(data / "lr-schedule-curves" / "curves.csv", where="model_size_m == 25")
    curves = curves.rename(columns={"schedule": "run"})
    warm = [{"run": r, "step": s, "lr": 3e-4 * s / 2160, "loss": np.nan, "split": "warm"}
            for r in curves["run"].unique() for s in (1.0, 2160.0)]  # fmt: skip
    import pandas as pd

    whole = pd.concat([curves, pd.DataFrame(warm)]).drop_duplicates(["run", "step"])
    whole = fill(fill(load(whole), "lr_area"), "anneal_area").to_frame()
    fit = isoflop.fit("lr_annealing", whole[whole["split"] == "fit"], draws=0)
    held = whole[whole["split"] == "heldout"]
    error = np.abs(fit.predict(lr_area=held["lr_area"], anneal_area=held["anneal_area"]) / held["loss"] - 1)
    assert np.median(error) < 0.005
