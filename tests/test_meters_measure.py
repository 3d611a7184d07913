"""The contract of meters that answer per run, and `isoflop measure`."""

import numpy as np
import pytest

from isoflop import _find, fill, meter
from isoflop._meter import Measured, derive, get_meter, measure
from isoflop._runs import load

SWEEP = {"lr": [1e-3, 1e-2, 1e-1], "loss": [3.0, 2.5, 4.0]}


@meter("spread", per="run", stack=("x",))
def spread(x, step=None, *, power=1.0, how="plain"):
    """spread = max - min"""
    return {"spread": float(np.ptp(x)) ** power, "columns": x.shape[1], "first": x[0, 0], "how": how}


def test_one_answer_for_each_run_in_the_order_of_its_steps():
    rows = {"run": ["b", "a", "b", "a"], "step": [2.0, 1, 1, 2], "x": [5.0, 1, 3, 4]}
    made = measure(spread, rows)
    assert isinstance(made, Measured)
    assert made.by == "run"
    assert {row["run"]: (row["spread"], row["first"]) for row in made.rows} == {"a": (3.0, 1.0), "b": (2.0, 3.0)}
    assert made["spread"] == [2.0, 3.0]
    assert made.to_frame().shape == (2, 5)
    assert str(made).splitlines()[0].split() == ["run", "spread", "columns", "first", "how"]


def test_numbered_columns_are_stacked_in_the_order_of_their_numbers():
    rows = {f"x_{i}": [float(i), 0.0] for i in (10, 2, 1)}
    made = measure(spread, rows)
    assert (made["columns"], made["first"], made.by) == (3, 1.0, None)
    with pytest.raises(ValueError, match=r"needs column 'x' \(or x_1, x_2, \.\.\.\)"):
        measure(spread, {"y": [1.0]})


def test_meters_per_run_fill_no_column():
    table = load({"lr": [1.0], "loss": [2.0]})
    with pytest.raises(ValueError, match="gives one answer a run and fills no column"):
        fill(table, "lr_sensitivity")
    assert derive(table, ("lr_sensitivity",))[1] == {}


def test_meters_per_row_give_a_number_a_row():
    made = measure("train_flops", {"run": ["a", "b"], "params": [10.0, 20.0], "tokens": [1.0, 1.0]})
    assert made.per == "row"
    assert [(row["run"], row["flops"]) for row in made.rows] == [("a", 60.0), ("b", 120.0)]
    with pytest.raises(ValueError, match="gives a number a row"):
        measure("train_flops", {"params": [1.0], "tokens": [1.0]}, by="params")


def test_wrong_settings_and_rows_are_named():
    with pytest.raises(ValueError, match="has no setting 'begin'; it has start"):
        measure("lr_sensitivity", SWEEP, begin=1)
    with pytest.raises(ValueError, match="per row or per run, got per='table'"):
        meter("x", per="table")
    rows = {"family": ["a"] * 3 + ["b"], "lr": [1.0, 2, 3, 1], "loss": [1.0] * 4}
    with pytest.raises(ValueError, match="family 'b': lr_sensitivity needs at least 3 learning rates, got 1"):
        measure("lr_sensitivity", rows, by="family")
    with pytest.raises(ValueError, match="column 'lr' has no number in 1 of 3 rows"):
        measure("lr_sensitivity", SWEEP | {"lr": [1.0, np.nan, 2.0]})


@pytest.mark.parametrize("name", [n for n in _find.names("meters") if get_meter(n).per == "run"])
def test_each_meter_refuses_what_holds_no_numbers(name):
    """A sentence that starts with the meter's own name, and never a NaN for an answer."""
    found = get_meter(name)
    empty = {c: np.full(60, np.nan) for c in found.needs}
    with pytest.raises(ValueError, match=name):
        found(**{c: v[:, None] if c in found.stack else v for c, v in empty.items()})


def test_the_command_prints_text_and_json(run, tmp_path):
    path = tmp_path / "sweep.csv"
    path.write_text("family,rate,loss\na,1e-3,3\na,1e-2,2.5\na,1e-1,\nb,1e-3,3\nb,1e-2,2\nb,1e-1,3\n")
    options = ("lr_sensitivity", path, "--rename", "rate=lr", "--set", "start=4", "--by", "family")
    assert "lr_sensitivity" in run("measure", *options).stdout
    made = run.json("measure", *options)
    assert (made["meter"], made["per"], made["by"]) == ("lr_sensitivity", "run", "family")
    assert [row["diverged"] for row in made["rows"]] == [1, 0]
    assert made["rows"][0]["lr_sensitivity"] == pytest.approx((0.5 + 0 + 1.5) / 3)
    assert "no meter named 'lr_sensitivit'" in run("measure", "lr_sensitivit", path, code=2).stderr
    assert "write NAME=VALUE" in run("measure", "lr_sensitivity", path, "--set", "start", code=2).stderr


def test_settings_from_the_command_keep_their_kind(run, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("x\n1\n4\n")
    own = tmp_path / "mine.py"
    own.write_text(
        "import isoflop\n\n\n@isoflop.meter('top', per='run')\ndef top(x, *, k=1, word='a'):\n"
        "    '''top = max x'''\n    return {'top': max(x), 'k': k, 'word': word}\n"
    )
    made = run.json("measure", f"{own}:top", path, "--set", "k=2", "--set", "word=3")
    assert made["rows"] == [{"top": 4.0, "k": 2, "word": "3"}]
