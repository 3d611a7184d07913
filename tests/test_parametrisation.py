"""Parametrisations and architecture options: exact at their own points, and what they promise about widths."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import _trained
import numpy as np
import pandas as pd
import pytest
from _trained import WORDS, needs_torch
from click.testing import CliRunner

from isoflop._lever import check_lever, sweep
from isoflop.levers.train import Train
from isoflop.levers.train._activations import activation, activation_names, gauss_rule, root_second_moment
from isoflop.levers.train._best_rate import moved, plot_rates
from isoflop.levers.train._claims import broken, claims, look, pointwise, self_normalising
from isoflop.levers.train._design import Design
from isoflop.levers.train._rules import Place, parametrisation
from isoflop.levers.train._shape import Shape
from isoflop.levers.train._toml import declare
from isoflop.levers.train._transfer import Transfer
from isoflop.theory.transformer_at_start import overlaps

pytestmark = needs_torch
one_thread = _trained.one_thread
NAMES = ["standard", "mup", "spectral", "unit_scaling", "u_mup"]
TINY = Train(
    source="zipf_words", source_settings=WORDS,
    sizes=({"width": 16, "depth": 2}, {"width": 32, "depth": 2}), tokens=(640,), context=16, batch_tokens=64,
    warmup_steps=2, eval_tokens=512, curve_tokens=128, lr={"base": 1e-2, "width": 16, "power": 0.5}, device="cpu",
    tied=False, clip=math.inf,
)  # fmt: skip


def place(role: str, fan_in: int = 256, fan_out: int = 256, *, width: int = 256, depth: int = 4) -> Place:
    return Place(role, fan_in, fan_out, width=width, base_width=64, depth=depth)


def gpt(design: Design, *, width: int = 32, depth: int = 2, vocab: int = 64, context: int = 32, seed: int = 0) -> Any:
    from isoflop.levers.train._gpt import GPT

    shape = Shape(width=width, depth=depth, vocab=vocab, tied=False, design=design)
    return GPT(shape, context=context, seed=seed)


def windows(vocab: int = 64, *, count: int = 8, context: int = 32) -> Any:
    import torch

    return torch.randint(vocab, (count, context + 1), generator=torch.Generator().manual_seed(1))


# -- rules --------------------------------------------------------------------------------------------------------


def test_mup_is_standard_at_the_base_width() -> None:
    lever = replace(TINY, base_width=32, lr={"base": 1e-2, "width": 32, "power": 0.0})
    setting = {"width": 32, "depth": 2, "tokens": 640}
    one, two = (replace(lever, parametrisation=name).run(setting, seed=0) for name in ("standard", "mup"))
    assert one["loss"] == two["loss"]
    wide = {"width": 64, "depth": 2, "tokens": 640}
    assert len({replace(lever, parametrisation=name).run(wide, seed=0)["loss"] for name in ("standard", "mup")}) == 2


def test_what_was_chosen_is_in_the_row_and_the_ladders_own_leaves_no_trace() -> None:
    setting = {"width": 16, "depth": 2, "tokens": 640}
    plain = TINY.run(setting, seed=0)
    named = replace(TINY, parametrisation="standard", norm="rms", qk_norm=False).run(setting, seed=0)
    assert plain["loss"] == named["loss"]
    assert not {"parametrisation", "norm"} & plain.keys()
    assert (named["parametrisation"], named["norm"], named["qk_norm"]) == ("standard", "rms", False)


def test_the_tables_of_rules() -> None:
    mup, u_mup, spectral = (parametrisation(n) for n in ("mup", "u_mup", "spectral"))
    assert (mup(place("hidden")).lr, mup(place("readout")).multiplier, mup(place("embedding")).lr) == (0.25, 0.25, 1.0)
    assert u_mup(place("hidden")) == replace(u_mup(place("branch")))
    hidden = u_mup(place("hidden"))
    assert (hidden.std, hidden.multiplier, hidden.lr, hidden.lr * hidden.decay) == (1.0, 1 / 16, 1 / 32, 1.0)
    assert (u_mup(place("readout")).multiplier, u_mup(place("readout")).lr) == (1 / 256, 1.0)
    assert u_mup(place("embedding", 1000)).lr == 1 / 16
    assert spectral(place("hidden", 256, 64)).std == pytest.approx(256**-0.5 / 2)
    assert spectral(place("hidden", 512)).lr == 64 / 512


def test_weight_decay_rules() -> None:
    for rule, wanted in ((None, 1.0), ("independent", 4.0), ("sqrt_width", 2.0)):
        design = Design(parametrisation="mup", decay_rule=rule)
        assert design.rule(place("hidden")).decay == wanted
        assert design.rule(place("gain")).decay == 0.0
    assert Design(parametrisation="mup", decay_rule="sqrt_width").rule(place("embedding")).decay == 1.0


def test_a_parametrisation_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from isoflop.levers.train._rules import Rule\n\n\ndef mine(place):\n    return Rule(std=0.01, lr=0.5)\n"
    )
    design = Design(parametrisation=f"{tmp_path / 'mine.py'}:mine")
    assert {g["factor"] for g in gpt(design).groups(weight_decay=0.1)} == {0.5}
    with pytest.raises(ValueError, match="unknown parametrisation 'mpu'; known: mup, spectral, standard"):
        Design(parametrisation="mpu")


def test_residual_weights_are_those_of_the_unit_scaling_package() -> None:
    """tau of unit_scaling 0.3.5, transformer_residual_scaling_rule() for eight layers."""
    from isoflop.levers.train._units import residual_weights

    tau = [0.5, 0.4472135955, 0.4082482905, 0.3779644730, 0.3535533906, 0.3333333333, 0.3162277660, 0.3015113446]
    pairs = [residual_weights(i, 4) for i in range(8)]
    assert [give / keep for keep, give in pairs] == pytest.approx(tau)
    assert [give**2 + keep**2 for keep, give in pairs] == pytest.approx([1.0] * 8)


@pytest.mark.parametrize("name", ["unit_scaling", "u_mup"])
@pytest.mark.parametrize("width", [32, 128])
def test_everything_has_size_one_at_the_start(name: str, width: int) -> None:
    import torch.nn.functional as F

    from isoflop.levers.train._sizes import rms

    model, batch, sizes = gpt(Design(parametrisation=name), width=width, depth=3), windows(), []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, out: sizes.append(rms(out)))
        block.register_full_backward_hook(lambda _, __, grads: sizes.append(rms(grads[0])))
    F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()).backward()
    sizes += [rms(p.grad) for p in model.parameters()]
    assert len(sizes) == 3 + 3 + 21
    assert min(sizes) > 0.3
    assert max(sizes) < 3


def test_unit_scaling_changes_the_backward_pass_alone() -> None:
    """Its function is that of a model with weights smaller by their multipliers."""
    import torch

    from isoflop.levers.train._rules import Rule
    from isoflop.levers.train._units import Weight

    g = torch.Generator().manual_seed(0)
    x, w, up = (torch.randn(n, m, generator=g) for n, m in ((20, 16), (48, 16), (20, 48)))
    x.requires_grad_()
    w.requires_grad_()
    y = Weight(Rule(std=1.0, multiplier=0.25, unit=True)).linear(x, w)
    (y * up).sum().backward()
    torch.testing.assert_close(y, x @ w.T / 4)
    torch.testing.assert_close(x.grad, up @ w / 4)
    torch.testing.assert_close(w.grad, up.T @ x / 20**0.5)


def test_spectral_norms_follow_the_condition() -> None:
    from isoflop.levers.train._sizes import spectral_norms

    for width in (32, 128):
        found = spectral_norms(gpt(Design(parametrisation="spectral", depth_scale=True), width=width))
        assert all(0.8 < f["norm"] / f["wanted"] < 2.3 for f in found.values())
    plain = [spectral_norms(gpt(Design(parametrisation="u_mup"), width=w))["0.out"]["norm"] for w in (32, 128)]
    assert plain[1] / plain[0] == pytest.approx(1.0, abs=0.2)


def test_untied_tables_and_no_clipping_are_asked_for() -> None:
    with pytest.raises(ValueError, match="'u_mup' needs untied tables: set tied = false"):
        replace(TINY, parametrisation="u_mup", tied=True)
    with pytest.raises(ValueError, match="set clip = inf"):
        replace(TINY, parametrisation="u_mup", clip=1.0)
    assert replace(TINY, parametrisation="mup", tied=True).design.parametrisation == "mup"


# -- architecture -------------------------------------------------------------------------------------------------

OPTIONS = [
    {"norm": "scale"}, {"norm_place": "post"}, {"qk_norm": True}, {"fix_norm": True}, {"attention": "relu"},
    {"attention": "relu_sum"}, {"attention": "triadic"},
    {"residual_scale": 0.2}, {"depth_scale": True}, {"long_skip": 0.7}, {"activation": "selu"},
    {"norm": "scale", "fix_norm": True},
    *({"parametrisation": name} for name in NAMES[1:]),
]  # fmt: skip


@pytest.mark.parametrize("fields", OPTIONS, ids=str)
def test_every_option_trains_looks_never_ahead_and_changes_the_function(fields: dict[str, Any]) -> None:
    import torch

    model, plain = gpt(Design(**fields), depth=3), gpt(Design(), depth=3)
    tokens = windows()[:1, :-1]
    changed = tokens.clone()
    changed[0, 20] = (changed[0, 20] + 1) % 64
    a, b = model(tokens), model(changed)
    torch.testing.assert_close(a[:, :20], b[:, :20])
    if fields.keys() - {"norm", "fix_norm"}:  # these two differ from the plain model once they have learned
        assert not torch.allclose(a, plain(tokens))
    assert (
        sum(p.numel() for p in model.parameters())
        == Shape(width=32, depth=3, vocab=64, tied=False, design=Design(**fields)).params
    )
    lever = replace(TINY, **fields, lr={"base": 5e-3 if "fix_norm" in fields else 2e-2, "width": 16, "power": 0.0})
    row = lever.run({"width": 16, "depth": 2, "tokens": 3200}, seed=0)
    assert row["loss"] < math.log(9) - 0.1


def test_norms_fixed_lengths_and_branches_by_their_formulas() -> None:
    import torch

    from isoflop.levers.train._gpt import _normed, relu_attention, triadic

    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    scale = _normed(x, torch.tensor([1.5]), unit=False)
    torch.testing.assert_close(scale, 1.5 * 8**0.5 * x / x.norm(dim=-1, keepdim=True), atol=1e-5, rtol=1e-5)
    fixed = gpt(Design(fix_norm=True))
    torch.testing.assert_close(fixed.table(fixed.unembedding).norm(dim=-1), torch.ones(64))
    entered: list[Any] = []
    fixed.blocks[0].register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    fixed(windows()[:, :-1])
    torch.testing.assert_close(entered[0].norm(dim=-1), torch.full((8, 32), 32**0.5))
    q = torch.ones(1, 1, 4, 2)
    v = torch.arange(4.0).view(1, 1, 4, 1)
    torch.testing.assert_close(relu_attention(q, q, v, scale=0.5)[0, 0, :, 0], torch.tensor([0.0, 0.5, 1.0, 1.5]))
    whole = relu_attention(q, q, v, scale=0.5, divide=False)[0, 0, :, 0]
    torch.testing.assert_close(whole, torch.tensor([0.0, 1.0, 3.0, 6.0]))
    q, k, v = (torch.tensor(x) for x in (2.0, 3.0, -5.0))
    assert [float(x) for x in triadic(q, k, v)] == [8.0, 9.0, 25 - 10 + 6 * 6]


def test_long_skips_pair_the_ends() -> None:
    model = gpt(Design(long_skip=0.5), depth=4)
    seen = {}
    for i, block in enumerate(model.blocks):
        block.register_forward_hook(lambda _, args, out, i=i: seen.update({i: (args[0], out)}))
    model(windows()[:, :-1])
    import torch

    torch.testing.assert_close(seen[2][0], seen[1][1] + 0.5 * seen[1][1])
    torch.testing.assert_close(seen[3][0], seen[2][1] + seen[0][1])


def test_a_ladder_file_takes_the_options_and_refuses_what_is_unknown() -> None:
    table = {"sizes": [{"width": 16, "depth": 2}], "tokens": [640], "context": 16, "batch_tokens": 64,
             "source": "zipf_words", "eval_tokens": 512, "curve_tokens": 128}  # fmt: skip
    lever = declare(Train, table | {"activation": "selu", "qk_norm": True, "residual_scale": 1, "base_width": 32})
    assert lever.chosen() == {"base_width": 32, "activation": "selu", "qk_norm": True, "residual_scale": 1.0}
    for wrong, text in (({"activation": "selo"}, "did you mean 'selu'"), ({"norm": "layer"}, "one of rms, scale"),
                        ({"qk_norm": 1}, "of type bool"), ({"residual_scale": -1.0}, "scale above 0")):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            declare(Train, table | wrong)


# -- activation functions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", activation_names())
def test_an_activation_function_is_what_it_says(name: str) -> None:
    assert broken(activation(name)) == []
    assert "Source: " in str(activation(name).__doc__)


def test_no_activation_function_is_there_twice() -> None:
    import torch

    x = torch.linspace(-8, 8, 81, dtype=torch.float64)
    values = {name: activation(name)(x).numpy() for name in activation_names()}
    names = sorted(values)
    assert [(a, b) for i, a in enumerate(names) for b in names[:i] if np.allclose(values[a], values[b])] == []


def test_derivatives_are_those_of_differences() -> None:
    import torch

    x = torch.linspace(-3.03, 3.02, 60, dtype=torch.float64)
    for name in activation_names():
        if "step" in activation(name).claims.words:  # type: ignore[attr-defined]
            continue
        f, at = pointwise(activation(name)), x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(f(at).sum(), at)
        torch.testing.assert_close(slope, (f(x + 1e-5) - f(x - 1e-5)) / 2e-5, atol=1e-5, rtol=1e-4, msg=name)


def test_false_claims_are_found() -> None:
    import torch

    assert broken(claims("monotone")(lambda x: torch.sin(x))) == ["is not monotone"]
    assert broken(claims("")(lambda x: (x > 1).to(x.dtype) + 0 * x)) == ["jumps"]
    assert broken(claims("smooth", low=0)(lambda x: x.relu())) == ["is not smooth"]
    assert broken(claims("", low=-5)(lambda x: torch.tanh(x)))[0].startswith("keeps well inside [-5, inf]")
    assert broken(claims("", zero=1)(lambda x: torch.tanh(x))) == ["is 0 at 0, not 1"]
    assert broken(claims("")(lambda x: x / x.square().sum(-1, keepdim=True))) == ["reads its row"]
    assert broken(claims("rowwise")(lambda x, *, size=None: x)) == ["is not rowwise"]
    with pytest.raises(ValueError, match="not finite"):
        look(torch.log)


def test_velu_is_the_released_one() -> None:
    """Three numbers of a row, by the formula in double precision."""
    import torch

    row = [-2.0, 0.5, 12.0]
    size = math.sqrt(sum(x * x for x in row) / 3)
    wanted = [
        x / (1 + math.exp(-0.1 * (math.atan(0.1 * x) + math.asin(max(-1, min(1, 0.1 * x))))))
        * (1 + 0.1 * math.tanh(0.9 / size))
        for x in row
    ]  # fmt: skip
    found = activation("velu")(torch.tensor([row, [0.0] * 3], dtype=torch.float64))
    assert found[0].tolist() == pytest.approx(wanted, rel=1e-3)
    assert found[1].tolist() == [0.0] * 3


def test_the_fixed_point_of_selu() -> None:
    assert self_normalising() == pytest.approx((1.0507009873554805, 1.6732632423543772), rel=1e-7)
    x, weight = gauss_rule(4000)
    for mean, variance in ((0.0, 1.0), (0.0, 2.0), (0.1, 1.2), (-0.1, 1.0)):
        scale, alpha = self_normalising(mean=mean, variance=variance)
        z = mean + variance**0.5 * x
        y = scale * np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))
        assert (weight * y).sum() == pytest.approx(mean, abs=1e-6)
        assert (weight * (y - mean) ** 2).sum() == pytest.approx(variance, rel=1e-5)
    with pytest.raises(ValueError, match="no scaled exponential linear unit"):
        self_normalising(mean=0.1, variance=1e-4)


def test_selu_keeps_its_size_through_32_layers_and_relu_does_not() -> None:
    import torch

    g = torch.Generator().manual_seed(0)
    sizes = {}
    for name in ("selu", "relu"):
        x = torch.randn(64, 256, generator=g)
        for _ in range(32):
            x = activation(name)(x @ torch.randn(256, 256, generator=g) / 16)
        sizes[name] = float(x.var())
    assert 0.7 < sizes["selu"] < 1.4
    assert sizes["relu"] < 1e-6
    assert root_second_moment(activation("relu")) == pytest.approx(0.5**0.5, rel=1e-6)


# -- transfer and coordinates -------------------------------------------------------------------------------------


def planted(power: float, *, seeds: int = 4, noise: float = 0.0) -> pd.DataFrame:
    """Losses with a parabola in ln(rate) whose lowest point falls as width^-power, from 1e-2 at width 32."""
    rng = np.random.default_rng(0)
    return pd.DataFrame([
        {"parametrisation": "p", "width": w, "lr": lr, "seed": s, "status": "ok",
         "loss": math.exp(0.1 * math.log(lr / (1e-2 * (w / 32) ** -power)) ** 2 + noise * rng.standard_normal())}
        for w in (32, 64, 128, 256) for lr in np.geomspace(2e-4, 1e-1, 10) for s in range(seeds)
    ])  # fmt: skip


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_a_planted_drift_is_found(power: float) -> None:
    answer = moved(planted(power))
    assert [b.lr for b in answer.best] == pytest.approx([1e-2 * (w / 32) ** -power for w in (32, 64, 128, 256)])
    assert answer.drift[0].exponent == pytest.approx(-power, abs=1e-9)
    assert answer.drift[0].factor == pytest.approx(8**power)
    noisy = moved(planted(power, noise=0.01))
    assert noisy.drift[0].low - 0.05 < -power < noisy.drift[0].high + 0.05
    assert noisy.drift[0].low < noisy.drift[0].high
    assert "over 8x width it moves by a factor of" in str(noisy)


def test_an_optimum_at_the_end_of_the_grid_says_so_and_failed_rates_are_left_out() -> None:
    rows = planted(0.0)
    assert not moved(rows[rows["lr"] < 5e-3]).best[0].inside
    rows.loc[(rows["lr"] > 9e-2) & (rows["seed"] == 1), "status"] = "failed"
    assert all(b.inside for b in moved(rows).best)
    with pytest.raises(ValueError, match="width 32: 2 rates at which no seed failed"):
        moved(rows[rows["lr"] < 5e-4])


def ladder_file(folder: Path) -> Path:
    path = folder / "ladder.toml"
    path.write_text(
        'source = "zipf_words"\ntokens = [640]\ncontext = 16\nbatch_tokens = 64\nwarmup_steps = 2\neval_tokens = 512\n'
        "curve_tokens = 128\ntied = false\nclip = inf\n"
        "source_settings = { words = 64, exponent = 1.0, word_length = 4, letters = 8 }\n"
        "[[sizes]]\nwidth = 8\ndepth = 1\n[[sizes]]\nwidth = 16\ndepth = 1\n"
        "[transfer.rates]\nmup = [2e-3, 8e-3, 3.2e-2]\nu_mup = [0.25, 1, 4]\n"
    )
    return path


def test_transfer_and_coordinates_are_one_command_each(tmp_path: Path) -> None:
    from isoflop._cli import cli

    ladder = str(ladder_file(tmp_path))
    for flag, figure, key in (
        (["--transfer", "lr"], "transfer.svg", "best"),
        (["--coordinates"], "coordinates.svg", "growth"),
    ):
        out = tmp_path / flag[0]
        args = ["sweep", "train", ladder, "--out", str(out), "--seeds", "2", "--json", *flag]
        done = CliRunner().invoke(cli, args, catch_exceptions=False)
        answer = json.loads(done.stdout.splitlines()[-1])
        assert answer["runs"] == 2 * 6 * 2
        assert {g["parametrisation"] for g in answer[key]} == {"mup", "u_mup"}
        assert (out / figure).exists() == bool(importlib.util.find_spec("matplotlib"))
        lines = (out / "runs.jsonl").read_text()
        CliRunner().invoke(cli, args, catch_exceptions=False)
        assert (out / "runs.jsonl").read_text() == lines
    refused = CliRunner().invoke(cli, ["sweep", "think", ladder, "--out", str(tmp_path / "x"), "--coordinates"])
    assert refused.exit_code == 2


def test_a_transfer_lever_keeps_the_contract_and_refuses_what_cannot_be(tmp_path: Path) -> None:
    lever = Transfer.from_toml(ladder_file(tmp_path))
    assert check_lever(lever, dear=len(lever.ladder()) - 1).ok
    sweep(replace(lever, rates={"mup": [2e-3]}), out=tmp_path / "out", progress=False)
    other = replace(lever, rates={"mup": [2e-3]}, train=replace(lever.train, weight_decay=0.0))
    with pytest.raises(ValueError, match="holds a sweep with facts"):
        sweep(other, out=tmp_path / "out", progress=False)
    for wrong, text in (({"rates": {}}, "rates is a table"), ({"rates": {"mup": [0.0]}}, "positive numbers"),
                        ({"rates": {"mpu": [1.0]}}, "unknown param"), ({"model": "digit"}, "did you")):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            replace(lever, **wrong)
    (tmp_path / "plain.toml").write_text("[[sizes]]\nwidth = 8\ndepth = 1\n")
    with pytest.raises(ValueError, match=r"need a table \[transfer\]"):
        Transfer.from_toml(tmp_path / "plain.toml")


def test_digits_learn(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    lever = Transfer(rates={"standard": [4e-3], "u_mup": [0.5]}, model="digits", widths=[32], steps=60)
    rows = [lever.run(s, seed=0) for s in lever.ladder()]
    assert all(r["loss"] < 0.5 for r in rows)
    assert rows[0]["params"] == 32 * (64 + 32 + 32 + 10)
    assert rows[0]["flops"] == 6 * rows[0]["params"] * 60 * 128


def test_sizes_grow_under_standard_and_stay_under_mup() -> None:
    """Five steps at one rate, widths 32 to 256: how far logits of the MLP move."""
    pytest.importorskip("sklearn")
    from isoflop.levers.train._coordinates import STEPS, Coordinates, grown

    lever = Coordinates(rates={"standard": [4e-3], "mup": [4e-3]}, model="digits", widths=[32, 64, 128, 256], batch=64)
    rows = pd.DataFrame(
        [{**s, "seed": k, "status": "ok", **lever.run(s, seed=k)} for s in lever.ladder() for k in (0, 1)]
    )
    found = {g.parametrisation: g.exponent for g in grown(rows).growth if (g.site, g.step) == ("logits_moved", STEPS)}
    assert found["standard"] > 0.6
    assert abs(found["mup"]) < 0.35


def test_figures_return_their_axes() -> None:
    pytest.importorskip("matplotlib")
    rows = planted(0.5)
    axes = plot_rates(rows, moved(rows))
    assert axes[0].get_xlabel() == "learning rate"
    assert len(axes[0].get_lines()) == 8


# -- theory -------------------------------------------------------------------------------------------------------


def test_overlaps_have_their_closed_forms() -> None:
    from isoflop.theory import transformer_at_start as theory

    nodes, rho = theory._NODES, np.array([0.0, 0.3, 0.7, 1.0])
    np.testing.assert_allclose(overlaps(nodes, rho), rho, atol=1e-9)
    np.testing.assert_allclose(overlaps(nodes**2, rho), 1 + 2 * rho**2, atol=1e-9)


def test_the_recursion_gives_the_sizes_of_the_ladders_own_model() -> None:
    from isoflop.levers.architecture._at_start import measured

    rows = pd.DataFrame(measured(widths=[256], depth=3, context=16, seeds=4))
    np.testing.assert_allclose(rows.groupby("block")["ratio"].mean(), 1.0, rtol=0.05)
