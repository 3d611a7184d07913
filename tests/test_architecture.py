"""Arms of one architecture against each other: what each does by its formula, and what a sweep of them finds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import _trained
import numpy as np
import pandas as pd
import pytest
from _trained import RECORDED, WORDS, needs_torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop._lever import RunFailed, check_lever, sweep
from isoflop.levers.architecture import Architecture
from isoflop.levers.architecture._compare import compared, optima, pairs, read_runs, slopes

pytestmark = needs_torch
one_thread = _trained.one_thread
GPT = {
    "source": "zipf_words", "source_settings": WORDS,
    "sizes": [{"width": 16, "depth": 1}, {"width": 24, "depth": 1}], "tokens": [320], "context": 16,
    "batch_tokens": 64, "warmup_steps": 2, "eval_tokens": 512, "curve_tokens": 128, "device": "cpu", "tied": False,
}  # fmt: skip


# -- parts by their formulas --------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.floats(0.01, 0.6), st.integers(0, 100))
def test_alpha_dropout_keeps_mean_and_variance(share: float, seed: int) -> None:
    import torch

    from isoflop.levers.train._activations import activation
    from isoflop.levers.train._mlp import dropped

    g = torch.Generator().manual_seed(seed)
    x = activation("selu")(torch.randn(200_000, generator=g))
    y = dropped(x, share, low=-1.7580993408473766, generator=g)
    assert float(y.mean()) == pytest.approx(float(x.mean()), abs=0.02)
    assert float(y.var()) == pytest.approx(float(x.var()), abs=0.03)
    plain = dropped(x + 3, share, low=0.0, generator=g)
    assert float(plain.mean()) == pytest.approx(float((x + 3).mean()), abs=0.05)
    assert float((plain == 0).double().mean()) == pytest.approx(share, abs=0.01)


def test_dropout_is_for_training_alone_and_alpha_where_there_is_a_selu() -> None:
    pytest.importorskip("sklearn")
    import torch

    from isoflop.levers.train._design import Design
    from isoflop.levers.train._mlp import MLP, DigitsRun

    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(0))
    for name, low in (("selu", -1.758099), ("relu", 0.0)):
        run = DigitsRun(Design(activation=name), width=32, depth=2, dropout=0.3)
        model = MLP.of(run, seed=0)
        assert model.layers[0].low == pytest.approx(low)
        assert not torch.equal(model(x), model(x))
        model.eval()
        torch.testing.assert_close(model(x), MLP.of(replace(run, dropout=0.0), seed=0)(x))


def test_residual_layers_by_hand() -> None:
    import torch

    from isoflop.levers.train._design import Design
    from isoflop.levers.train._mlp import MLP

    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    design = Design(activation="relu", residual_scale=0.3, depth_scale=True)
    model = MLP(design, width=8, depth=2, seed=0, residual=True, gain=2.0)
    enter, one, two, leave = model.weights
    y = x @ enter.T
    for weight in (one, two):
        y = y + 0.3 * 2**-0.5 * (y.relu() @ weight.T)
    torch.testing.assert_close(model(x), y.relu() @ leave.T)
    plain = MLP(design, width=8, depth=2, seed=0)
    torch.testing.assert_close(plain(x), (((x @ enter.T).relu() @ one.T / 2).relu() @ two.T / 2).relu() @ leave.T)


def test_long_skips_are_scaled_as_said() -> None:
    import torch

    from isoflop.levers.architecture._denoiser import Denoiser, Net, learned_scale, skip_scales

    assert skip_scales(3, skip="powers", kappa=0.5) == [1.0, 0.5, 0.25]
    assert skip_scales(3, skip="constant", kappa=0.7) == [0.7] * 3
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4, 32, generator=g)
    half = learned_scale(x, torch.randn(2, 32, generator=g), torch.zeros(32, 2))
    assert half.tolist() == [[0.5] * 32] * 4
    for kappa, reads in ((0.0, False), (0.7, True)):
        net = Net(32, 2, skip="constant", kappa=kappa, seed=0)
        net(torch.randn(4, 64, generator=g), torch.rand(4, generator=g))[0].square().sum().backward()
        assert [bool(join.grad[:, 32:].any()) for join in net.join] == [reads, reads]  # the half that reads the skip
    with pytest.raises(ValueError, match="skip is 'power', and should be one of constant, powers, learned"):
        Denoiser(skip="power")


def test_the_outermost_skip_is_whole() -> None:
    """Powers of kappa count from the outermost skip, which the last block reads."""
    import torch

    from isoflop.levers.architecture._denoiser import Net

    one, powers = (Net(32, 2, skip=s, kappa=k, seed=0) for s, k in (("constant", 1.0), ("powers", 0.5)))
    with torch.no_grad():
        powers.join[0][:, 32:] *= 2  # undoes the inner skip's half
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)), torch.linspace(0, 1, 4)
    torch.testing.assert_close(one(*x)[0], powers(*x)[0])


# -- the lever ----------------------------------------------------------------------------------------------------


def test_a_sweep_of_each_model_keeps_the_contract(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    arms = {"one": {}, "half": {"residual_scale": 0.5, "rates": [2e-3]}}
    small = {"width": 16, "depth": 2, "steps": 20}
    levers = {
        "gpt": Architecture(arms, rates=[1e-2], model="gpt", held=GPT),
        "digits": Architecture(arms, rates=[1e-2], held={**small, "residual": True}, grid={"width": [16, 24]}),
        "denoiser": Architecture(
            {"one": {}, "learned": {"skip": "learned"}}, rates=[1e-2], model="denoiser", held=small | {"steps": 60}
        ),
    }  # fmt: skip
    for name, lever in levers.items():
        assert check_lever(lever, dear=len(lever.ladder()) - 1).ok
        rows = sweep(lever, out=tmp_path / name, seeds=2, progress=False)
        table = read_runs(tmp_path / name)
        assert (rows["status"] == "ok").all()
        assert set(compared(table)["arm"]) == set(lever.arms)
        assert (rows["loss"] < rows["start_loss"]).all()
    assert {s["lr"] for s in levers["gpt"].ladder() if s["arm"] == "half"} == {2e-3}
    assert table["reached_step"].notna().any()


def test_a_run_that_blows_up_is_a_failed_row_with_its_cost() -> None:
    pytest.importorskip("sklearn")
    lever = Architecture(rates=[1e30], held={"width": 16, "depth": 2, "steps": 5})
    with pytest.raises(RunFailed, match="not finite") as caught:
        lever.run(lever.ladder()[0], seed=0)
    assert caught.value.row["flops"] > 0
    assert caught.value.row["start_loss"] == pytest.approx(math.log(10))


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    for wrong, text in (
        ({"arms": {}}, "arms is a table of tables"), ({"rates": [0.0]}, r"rates hold \[0.0\]"),
        ({"rates": []}, r"rates hold \[\]"), ({"model": "digit"}, "did you mean 'digits'"),
        ({"grid": {"width": []}}, "grid is a table"), ({"held": {"lr": 1e-3}}, "lr is swept by rates"),
        ({"arms": {"a": {"tokens": [64]}}}, "are for all arms"), ({"held": {"dropout": 1.0, "width": 8}}, "dropout 1"),
        ({"arms": {"a": {"widht": 3}}}, "did you mean 'width'"),
        ({"model": "gpt"}, "unknown key 'width'"), ({"model": "denoiser", "held": {"norm": "scale"}}, "unknown field"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            Architecture(**wrong)
    (tmp_path / "a.toml").write_text("arm = 3\n")
    with pytest.raises(ValueError, match=r"a.toml: unknown key 'arm'; did you mean 'arms'\?"):
        Architecture.from_toml(tmp_path / "a.toml")


# -- what is found ------------------------------------------------------------------------------------------------


def planted(*, seeds: int = 5) -> pd.DataFrame:
    """Arm b: a tenth less above the floor of 1 than a, and twice its best rate; both useless at the highest rate."""
    rng = np.random.default_rng(0)
    luck = 0.05 * rng.standard_normal(seeds)
    rows = [
        {"arm": arm, "lr": lr, "seed": s, "status": "ok", "width": w, "start_loss": 4.0, "entropy_rate": 1.0,
         "cpu_seconds": 1.0, "gain_x": 2.0,
         "loss": 3.9 if lr == 1 else 1 + math.exp(math.log(lr / best) ** 2 / 20 + luck[s]) * much}
        for w in (16, 32) for arm, best, much in (("a", 0.01, 1.0), ("b", 0.02, 0.9))
        for lr in (0.005, 0.01, 0.02, 0.04, 1.0) for s in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_planted_difference_is_found() -> None:
    found = compared(planted()).set_index(["arm", "width"])
    assert list(found.index) == [("a", 16), ("b", 16), ("a", 32), ("b", 32)]
    assert found["best"].tolist() == [0.01, 0.02] * 2
    assert found.loc["b", "ratio"].tolist() == pytest.approx([0.9] * 2)
    assert found.loc["a", ["ratio", "ratio_low", "ratio_high"]].to_numpy().tolist() == [[1.0] * 3] * 2
    assert (found["trains"] == 0.8).all()
    assert (found["diverges"] == 0).all()
    assert (found["trains_to"] == 0.04).all()
    assert (found["gain_x"] == 2).all()
    both = pairs(planted()).set_index(["arm", "against", "width"])["ratio"].sort_index()
    assert len(both) == 4
    assert both["a", "b"].tolist() == pytest.approx([1 / 0.9] * 2)


def test_planted_powers_of_the_width_are_found() -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame([
        {"arm": "a", "lr": 1.0, "weight_decay": d, "width": w, "seed": s, "status": "ok", "cpu_seconds": 1.0,
         "gain_x": 3 * w**0.25 * math.exp(0.01 * rng.standard_normal()),
         "loss": math.exp(0.1 * math.log(d / (0.5 * (w / 16) ** 0.5)) ** 2)}
        for w in (16, 32, 64) for d in (0.125, 0.5, 2.0, 8.0) for s in range(3)
    ])  # fmt: skip
    found = slopes(rows, over="weight_decay", column="gain_x")
    assert (found["low"] <= 0.27).all()
    assert (found["high"] >= 0.23).all()
    assert found["exponent"].to_numpy() == pytest.approx(0.25, abs=0.02)
    best = optima(rows, over="weight_decay")
    assert best["best"].dropna().tolist() == pytest.approx([0.5, 0.5 * 2**0.5, 1.0])
    assert best["exponent"].dropna().tolist() == pytest.approx([0.5])


def test_intervals_are_students_and_failures_count_as_divergence() -> None:
    rows = planted(seeds=3)
    rows.loc[(rows["arm"] == "b") & (rows["lr"] == 0.02), "loss"] *= [1.0, 1.1, 0.9] * 2
    rows.loc[(rows["lr"] == 1.0) & (rows["seed"] == 0), "loss"] = np.nan
    b = compared(rows, by=["width"]).set_index("arm").loc["b"].iloc[0]
    assert b["diverges"] == pytest.approx(1 / 15)
    at = rows[rows["width"] == 16].pivot_table(index="seed", columns=["arm", "lr"], values="loss")
    logs = np.log((at["b"][b["best"]] - 1) / (at["a"][0.01] - 1))
    assert math.log(b["ratio_high"] / b["ratio_low"]) == pytest.approx(2 * 2.92 * logs.std() / 3**0.5, rel=1e-4)
    rows.loc[rows["arm"] == "b", "loss"] = np.nan
    with pytest.raises(ValueError, match="arm b: no lr at which all seeds ended"):
        compared(rows)


@pytest.mark.parametrize("path", sorted((RECORDED / "architecture").glob("*.toml")), ids=lambda p: p.stem)
def test_recorded_sweeps_can_be_run_again(path: Path) -> None:
    """The runs that are here are the settings of the file beside them, each with as many seeds."""
    pytest.importorskip("sklearn")
    ladder = Architecture.from_toml(path).ladder()
    rows = pd.read_csv(path.with_suffix(".csv"))
    assert len(rows) == len(ladder) * rows["seed"].nunique()
    assert rows["seed"].nunique() >= 3
    assert {(s["arm"], s["lr"]) for s in ladder} == set(zip(rows["arm"], rows["lr"], strict=True))
