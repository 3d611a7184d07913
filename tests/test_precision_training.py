"""Training in low precision: rounding as the formats say, functions unchanged where they must be, grids that resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="trainings need PyTorch: pip install 'isoflop[torch]'")

from torch import nn  # noqa: E402

import isoflop  # noqa: E402
from isoflop.levers.precision import Precision  # noqa: E402
from isoflop.levers.precision._formats import get_format, round_to  # noqa: E402
from isoflop.levers.precision._gemm import compared_rules, fit_gemm  # noqa: E402
from isoflop.levers.precision._rounding import uniform  # noqa: E402
from isoflop.levers.precision.training._cast import Cast, mixed, quick_round, slope  # noqa: E402
from isoflop.levers.precision.training._layers import LowLinear, Recipe, channel_scale, extra_flops, lower  # noqa: E402
from isoflop.levers.precision.training._learned import LearnedStep, QueryKey, Vision, classifier  # noqa: E402
from isoflop.levers.precision.training._train import new_model, trained  # noqa: E402
from isoflop.levers.precision.training.coat import LowAdamW, coat, memory, power, stored  # noqa: E402
from isoflop.levers.precision.training.fp4_training import fp4_training  # noqa: E402
from isoflop.levers.precision.training.fp8_training import fp8_training  # noqa: E402
from isoflop.levers.precision.training.gaqat import gaqat  # noqa: E402
from isoflop.levers.precision.training.ofq import Oscillation, StatsStep, confident, hold, ofq  # noqa: E402
from isoflop.levers.precision.training.qat import Qat, increases, qat  # noqa: E402
from isoflop.levers.precision.training.smooth_swiglu import alignment, smooth_swiglu, swiglu_alignment  # noqa: E402
from isoflop.levers.train import Train  # noqa: E402

TRAIN: dict[str, Any] = {
    "source": "zipf_words", "sizes": [{"width": 8, "depth": 1}], "tokens": [640], "context": 16, "batch_tokens": 64,
    "warmup_steps": 2, "eval_tokens": 256, "device": "cpu",
}  # fmt: skip
CELLS = ((16, 16, 0), (4, 4, 4))


def normal(*shape: int, seed: int = 0) -> Any:
    return torch.tensor(np.random.default_rng(seed).standard_normal(shape), dtype=torch.float32)


def relative(got: Any, wanted: Any) -> float:
    return float((got - wanted).norm() / wanted.norm())


# -- rounding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fp4_e2m1", "fp6_e3m2", "fp8_e4m3", "fp8_e5m2"])
def test_the_quick_rounding_is_that_of_the_formats_bit_by_bit(name: str) -> None:
    f, rng = get_format(name), np.random.default_rng(0)
    values = f.values[np.isfinite(f.values)]
    ties = (np.sort(values)[1:] + np.sort(values)[:-1]) / 2
    x = torch.tensor(np.concatenate([values, ties, rng.standard_normal(4000) * 10.0 ** rng.uniform(-9, 6, 4000)]))
    x = x.to(torch.float32)
    assert torch.equal(quick_round(x, f).view(torch.int32), round_to(x, f).view(torch.int32))
    noise = uniform(tuple(x.shape), seed=1, like=x)
    assert torch.equal(quick_round(x, f, noise=noise), round_to(x, f, noise=noise))


@pytest.mark.parametrize("group", [-1, 0, 4, 5])
@pytest.mark.parametrize("scale", ["fp32", "e8m0", "e4m3", "ue5m3"])
def test_a_cast_keeps_shape_and_zeros_and_is_near(scale: str, group: int) -> None:
    x = normal(3, 7, 11)
    x[0] = 0
    got = Cast("fp4_e2m1", group, scale, tensor_scale=scale != "fp32").round(x)
    assert got.shape == x.shape
    assert torch.equal(got[0], x[0])
    assert relative(got, x) < 0.25
    assert torch.equal(Cast("fp4_e2m1", group, scale).round(torch.zeros(2, 6)), torch.zeros(2, 6))


def test_small_tensors_need_a_tensor_scale_with_e4m3_and_not_with_ue5m3() -> None:
    x = 1e-3 * normal(8, 32)
    lost = relative(Cast("fp4_e2m1", 16, "e4m3").round(x), x)
    assert lost == 1.0
    assert relative(Cast("fp4_e2m1", 16, "e4m3", tensor_scale=True).round(x), x) < 0.15
    assert relative(Cast("fp4_e2m1", 16, "ue5m3").round(x), x) < 0.15


def test_stochastic_rounding_is_right_on_average_and_nearest_is_not() -> None:
    x = torch.full((20000, 4), 0.3)
    x[:, 0] = 6.0  # the scale of each row is then 1
    drawn = Cast("fp4_e2m1", 4, stochastic=True).round(x, torch.Generator().manual_seed(0))[:, 1:]
    assert float(drawn.mean()) == pytest.approx(0.3, abs=0.005)
    assert float(Cast("fp4_e2m1", 4).round(x)[:, 1:].mean()) == 0.5


def test_a_rotation_of_both_operands_leaves_products() -> None:
    x, w = normal(5, 20), normal(7, 20, seed=1)
    assert relative(mixed(x, 16) @ mixed(w, 16).T, x @ w.T) < 1e-5


def test_the_smooth_gradient_is_large_between_codes_and_small_at_them() -> None:
    x = torch.tensor([[6.0, 5.0, 4.0, 2.5, 0.0]])
    got = slope(x, Cast("fp4_e2m1", 0), 5.0)
    assert got[0, 1] == got[0, 3] == 3.0
    assert got[0, 0] == got[0, 2] == got[0, 4] == pytest.approx(0.2)


# -- layers ------------------------------------------------------------------------------------------------------------


def gradients(layer: nn.Module, x: Any) -> tuple[Any, Any, Any]:
    x = x.clone().requires_grad_(True)
    y = layer(x)
    (y * torch.arange(y.numel()).view_as(y).cos()).sum().backward()
    return y.detach(), x.grad, layer.weight.grad.clone()


@pytest.mark.parametrize("hadamard", [0, 8])
@pytest.mark.parametrize("smooth", [False, True])
def test_a_layer_without_rounding_is_the_plain_layer(hadamard: int, smooth: bool) -> None:
    linear = nn.Linear(12, 5)
    with torch.no_grad():
        linear.weight.copy_(normal(5, 12))
        linear.bias.copy_(normal(5))
    x = normal(3, 4, 12, seed=2)
    wanted = gradients(linear, x)
    linear.weight.grad = None
    got = gradients(LowLinear(linear, Recipe(hadamard=hadamard), seed=0, smooth=smooth), x)
    for a, b in zip(got, wanted, strict=True):
        assert relative(a, b) < 1e-5


def test_channel_scales_are_exact_so_the_smooth_layer_is_the_same_bit_by_bit() -> None:
    x = normal(6, 9) * torch.logspace(-6, 6, 9)
    s = channel_scale(x)
    assert torch.equal(torch.frexp(s).mantissa, torch.full((9,), 0.5))
    assert torch.equal(x / s * s, x)
    assert float((x / s).abs().max()) <= 1


@pytest.mark.parametrize("recipe", [fp8_training(), fp4_training(), fp4_training(smooth_gradient=True, hadamard=False)])
def test_low_products_are_near_the_plain_ones_in_both_directions(recipe: Recipe) -> None:
    linear = nn.Linear(64, 48, bias=False)
    with torch.no_grad():
        linear.weight.copy_(normal(48, 64) / 8)
    x = normal(40, 64, seed=2)
    wanted = gradients(linear, x)
    linear.weight.grad = None
    got = gradients(LowLinear(linear, recipe, seed=0), x)
    limit = 0.08 if recipe.weights and recipe.weights.format == "fp8_e4m3" else 0.3
    assert 0 < relative(got[0], wanted[0]) < limit
    assert 0 < relative(got[1], wanted[1]) < limit
    if not recipe.smooth_gradient:
        assert 0 < relative(got[2], wanted[2]) < limit


def test_a_model_is_lowered_but_for_its_head_and_only_if_it_has_linear_layers() -> None:
    model = new_model(Qat(train=TRAIN, cells=CELLS).ladder_of_models, {"width": 8, "depth": 1}, seed=0)
    lower(model, fp8_training())
    low = {name for name, m in model.named_modules() if isinstance(m, LowLinear)}
    assert len(low) == 7
    assert [n for n in low if model.get_submodule(n).smooth] == ["layers.0.mlp.down_proj"]
    assert isinstance(model.lm_head, nn.Linear)
    with pytest.raises(ValueError, match=r"Sequential has no nn\.Linear"):
        lower(nn.Sequential(nn.ReLU()), fp8_training())


def test_overhead_falls_with_the_size_of_the_products() -> None:
    small, large = (extra_flops(fp4_training(), inputs=n, outputs=n, rows=n) for n in (64, 4096))
    assert small == pytest.approx(64 * large)
    assert extra_flops(fp4_training(hadamard=False), inputs=64, outputs=64, rows=64) < small
    assert extra_flops(Recipe(), inputs=64, outputs=64, rows=64) == 0


def test_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="scale is 'e5m2'; it can be"):
        fp4_training(scale="e5m2")
    with pytest.raises(ValueError, match="it can be fp32"):
        Cast("fp8_e4m3", scale="fp16")
    with pytest.raises(ValueError, match="moments is 'fp7'"):
        LowAdamW([nn.Parameter(torch.zeros(1))], moments="fp7")
    with pytest.raises(ValueError, match="method is 'fp7'"):
        memory(width=8, depth=1, hidden=16, vocab=10, tokens=4, method="fp7")


# -- Smooth-SwiGLU -----------------------------------------------------------------------------------------------------


def test_smooth_swiglu_keeps_the_other_channels_where_one_aligns() -> None:
    x, gate, up = normal(64, 16), normal(16, 16, seed=1) / 4, normal(16, 16, seed=2) / 4
    gate[0] = up[0] = 300 * gate[0]
    plain = smooth_swiglu(x @ gate.T, x @ up.T, cast=None)
    assert torch.equal(plain, smooth_swiglu(x @ gate.T, x @ up.T, cast=None, smooth=False))
    errors = [
        relative(smooth_swiglu(x @ gate.T, x @ up.T, cast=Cast("fp8_e4m3"), smooth=s)[:, 1:], plain[:, 1:])
        for s in (False, True)
    ]
    assert errors[1] < 0.04
    assert errors[0] > 10 * errors[1]
    assert float(alignment(gate, up)[0]) == pytest.approx(1)


def test_the_alignment_meter_finds_gated_blocks_of_both_kinds() -> None:
    lever = Qat(train=TRAIN, cells=CELLS).ladder_of_models
    model = new_model(lever, {"width": 8, "depth": 1}, seed=0)
    with torch.no_grad():
        model.layers[0].mlp.gate_proj.weight[3] = -2 * model.layers[0].mlp.up_proj.weight[3]
    assert swiglu_alignment(model)["largest"] == pytest.approx(1)
    from isoflop.levers.train._gpt import GPT

    found = swiglu_alignment(GPT(lever.shape({"width": 8, "depth": 1}), context=16, seed=0))
    assert found["channels"] == lever.shape({"width": 8, "depth": 1}).hidden
    with pytest.raises(ValueError, match="no gated block"):
        swiglu_alignment(nn.ReLU())


# -- COAT --------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 8), st.integers(0, 10**6), st.floats(-20, 20))
def test_expansion_keeps_sign_zeros_and_size(spread: float, seed: int, size: float) -> None:
    x = normal(300, seed=seed).sign() * torch.exp(size + spread * normal(300, seed=seed + 1))
    x[::17] = 0
    got = coat(x)
    assert torch.equal(got.sign(), x.sign())
    assert float(((got - x).abs() / x.abs().clamp(min=1e-30)).max()) < (0.4 if spread < 1.6 else 3.0)


def test_expansion_uses_the_range_and_narrow_groups_gain_most() -> None:
    low = torch.tensor([1.001 / 448 / 512, 0.1])
    assert power(low).tolist() == [1.0, math.floor(8 * math.log(448 * 512) / math.log(10)) / 8]
    narrow = torch.exp(0.3 * normal(4096))
    assert relative(coat(narrow), narrow) < 0.35 * relative(coat(narrow, expand=False), narrow)
    assert torch.equal(coat(torch.zeros(200)), torch.zeros(200))
    assert relative(coat(torch.full((130,), 3.7e-9)), torch.full((130,), 3.7e-9)) < 1e-5


def test_small_second_moments_are_lost_in_e4m3_and_kept_when_expanded() -> None:
    v = torch.exp(6 * normal(4096))
    m = v.sqrt() * normal(4096, seed=1)

    def step(moments: str) -> Any:
        return stored(m, moments, first=True) / (stored(v, moments, first=False).sqrt() + 1e-8)

    wanted = m / (v.sqrt() + 1e-8)
    assert relative(step("coat"), wanted) < 0.5 < relative(step("fp8_group"), wanted)


def test_adam_without_rounding_is_torchs_and_with_it_is_near() -> None:
    ends = {}
    for name in ("torch", "", "fp8", "coat"):
        p = nn.Parameter(normal(40, 10))
        made = (
            torch.optim.AdamW([p], lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
            if name == "torch"
            else LowAdamW([p], lr=1e-2, weight_decay=0.1, moments=name)
        )
        for step in range(20):
            made.zero_grad()
            (p - normal(40, 10, seed=1 + step % 3)).square().sum().backward()
            made.step()
        ends[name] = p.detach()
    assert relative(ends[""], ends["torch"]) < 1e-5
    assert 0 < relative(ends["coat"], ends["torch"]) < 0.02
    assert 0 < relative(ends["fp8"], ends["torch"]) < 0.02


def test_memory_counts_by_hand() -> None:
    small = {"width": 8, "depth": 1, "hidden": 16, "vocab": 10, "tokens": 4}
    got = memory(**small, method="bf16")
    weights = 4 * 64 + 3 * 8 * 16 + 16 + 11 * 8
    assert got["moments"] == 8 * weights
    assert got["activations"] == 4 * 2 * (3 * 8 + 16 + 5 * 8 + 2 * 16)
    assert got["total"] == sum(v for k, v in got.items() if k != "total")
    totals = [memory(**small, method=m)["total"] for m in ("bf16", "fp8_matmul", "coat")]
    assert totals[0] > totals[1] > totals[2]


# -- OFQ, GAQAT --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 3])
def test_steps_round_to_their_codes_and_margins_say_when_codes_change(bits: int) -> None:
    w = normal(6, 50)
    learned, stats = LearnedStep(w, bits=bits), StatsStep(bits=bits)
    assert torch.allclose(learned(w), learned.codes(w) * learned.scale)
    assert torch.allclose(stats(w), (stats.codes(w) + 0.5) * stats.step(w))
    assert len(stats.codes(w).unique()) == 2**bits
    assert 2**bits >= len(learned.codes(w).unique()) > 2 ** (bits - 1)
    for rounding, s in ((learned, learned.scale.detach()), (stats, stats.step(w))):
        margin = rounding.margin(w)
        inside = [rounding.codes(w + sign * 0.9 * margin * s) for sign in (-1, 1)]
        changed = torch.stack([c != rounding.codes(w) for c in inside]).any(0)
        if rounding is learned:  # a moved weight moves its row's statistics too
            assert not changed.any()
        assert float(margin.min()) >= 0
        assert float(margin.max()) <= 0.5


def test_the_meter_counts_weights_that_swing_back() -> None:
    model = classifier((2, 1), seed=0)
    layer = model[0]
    layer.weight_rounding = LearnedStep(layer.weight, bits=3)
    with torch.no_grad():
        layer.weight_rounding.scale.fill_(1.0)
        layer.weight.copy_(torch.tensor([[0.4, 0.4]]))
    meter, seen = Oscillation(model), []
    for first, second in ((0.6, 0.6), (0.4, 1.6), (0.6, 1.6), (0.6, 2.6)):
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[first, second]]))
        seen.append(meter.update())
    assert seen == [0.0, 0.5, 0.5, 0.0]
    assert meter.share() == 0.5


def test_annealing_moves_only_unsure_weights() -> None:
    model = ofq(classifier((16, 8, 4), seed=0), bits=2)
    free = confident(model, band=0.1)
    before = [layer.weight.detach().clone() for layer in (model[0], model[2])]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(normal(5, 16)).square().sum().backward()
    hold(model, free)
    optimizer.step()
    for layer, mask, old in zip((model[0], model[2]), free, before, strict=True):
        moved = layer.weight.detach() != old
        assert not (moved & (mask == 0)).any()
        assert moved.any()


def test_query_key_products_are_the_factors_scores_and_learn_through_them() -> None:
    model, x = Vision(patches=5, pixels=4, classes=3, width=12, heads=3, seed=0), normal(6, 5, 4)
    wanted = model(x).detach()
    for block in model.blocks:
        block.product = QueryKey(block.query, block.key, heads=block.heads)
    assert relative(model(x).detach(), wanted) < 1e-5
    ofq(model, bits=3, query_key=True)
    meter = Oscillation(model)
    assert len(meter.layers) == 2 * 5  # of each block: values, output, two of the ReLU layer, and the product
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(x).square().sum().backward()
    assert all(block.query.weight.grad.abs().sum() > 0 for block in model.blocks)
    optimizer.step()
    meter.update()
    hold(model, confident(model))
    assert len(torch.unique(meter.codes[-1])) <= 2**3


def test_mixed_granularity_rounds_norms_and_the_gate_and_costs_little() -> None:
    lever = Train(**{k: tuple(v) if isinstance(v, list) else v for k, v in TRAIN.items()})
    tokens = torch.arange(32).view(2, 16) % 8
    plain, low = (new_model(lever, lever.ladder()[0], seed=0) for _ in range(2))
    kept = Recipe(nonlinear=Cast("fp8_e4m3", 16))
    lower(low, kept)
    gap = relative(low(tokens).detach(), plain(tokens).detach())
    assert 0 < gap < 0.1
    low(tokens).sum().backward()
    assert all(p.grad is not None for p in low.parameters())
    recipe = fp8_training(nonlinear=16)
    assert recipe.nonlinear == Cast("fp8_e4m3", 16)
    assert fp8_training().nonlinear is None


def guided(radius: float, threshold: float) -> tuple[Any, nn.Module, list[float]]:
    model = classifier((8, 16, 4), seed=0)
    model[2].weight_rounding = LearnedStep(model[2].weight, bits=3)
    guide = gaqat(model, radius=radius, window=5, threshold=threshold)
    optimizer, x, scales = torch.optim.SGD(model.parameters(), lr=0.05), normal(32, 8), []
    for step in range(12):
        y = (x[:, 0] > 0.2 * (step % 2)).long()
        guide.gradients(lambda: nn.functional.cross_entropy(model(x), y))  # noqa: B023
        optimizer.step()
        scales.append(float(model[2].weight_rounding.scale.detach()))
    return guide, model, scales


def test_frozen_scales_stay_and_free_ones_move() -> None:
    guide, _, scales = guided(0.05, -1.0)
    assert guide.frozen == [True]
    assert len(set(scales[:4])) == 4
    assert len(set(scales[3:])) == 1
    assert len(set(guided(0.05, 1.0)[2])) == 12
    assert len(guide.conflicts) == 12


def test_the_sharpness_step_is_taken_back_and_without_it_gradients_are_plain() -> None:
    guide, model, _ = guided(0.0, 1.0)
    x = normal(32, 8)

    def loss() -> Any:
        return nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long())

    guide.gradients(loss)
    plain = model[0].weight.grad.clone()
    before = model[0].weight.detach().clone()
    guide.radius = 0.3
    guide.gradients(loss)
    assert torch.equal(before, model[0].weight.detach())
    assert relative(model[0].weight.grad, plain) > 1e-3
    with pytest.raises(ValueError, match="no learned scales"):
        gaqat(classifier((4, 2), seed=0))


# -- trainings and grids -----------------------------------------------------------------------------------------------


def test_a_training_repeats_under_its_seed_and_differs_under_a_recipe() -> None:
    lever = Qat(train=TRAIN, cells=CELLS).ladder_of_models
    setting = lever.ladder()[0]
    losses = [trained(lever, setting, r, seed=s)[1]["loss"] for r, s in
              ((Recipe(), 0), (Recipe(), 0), (fp4_training(), 0), (fp4_training(), 0), (Recipe(), 1))]  # fmt: skip
    assert losses[0] == losses[1] != losses[2] == losses[3]
    assert losses[4] != losses[0]
    state = torch.random.get_rng_state()
    trained(lever, setting, fp4_training(), seed=0)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_grid_runs_resumes_and_is_joined_with_its_plain_runs(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(
        'cells = [[16, 16, 0], [4, 4, 4]]\n[train]\nsource = "zipf_words"\nsizes = [{ width = 8, depth = 1 }]\n'
        'tokens = [640]\ncontext = 16\nbatch_tokens = 64\nwarmup_steps = 2\neval_tokens = 256\ndevice = "cpu"\n'
    )
    grid = Precision.from_toml(file)
    assert grid == Qat(train=TRAIN | {"sizes": [{"width": 8, "depth": 1}], "tokens": [640]}, cells=CELLS)
    rows = isoflop.sweep(grid, out=tmp_path / "runs", seeds=1, progress=False)
    again = isoflop.sweep(grid, out=tmp_path / "runs", seeds=1, progress=False)
    assert (rows["status"] == "ok").all()
    assert len(rows) == len(again) == 2
    joined = increases(rows)
    assert joined["loss_increase"].tolist() == [rows["loss"][1] - rows["loss"][0]]
    plain, low = rows["bits_params"]
    assert plain == 16 * rows["params"][0]
    assert low < plain
    with pytest.raises(ValueError, match="no plain run"):
        increases(rows[1:])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cells = [[4, 4]]\n[train]\n", r"triples"),
        ("cells = [[12, 4, 8]]\n[train]\n", r"2 to 8 or 16 bits"),
        ("cells = [[4, 4, 8]]\n", r"needs \[train\]"),
        ("cells = [[4, 4, 8]]\nbits = 3\n[train]\n", r"bits"),
        ("cells = [[4, 4, 8]]\n[train]\nsorce = 'x'\n", r"source"),
    ],
)
def test_a_wrong_grid_is_refused_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "grid.toml").write_text(text)
    with pytest.raises(ValueError, match=rf"grid\.toml: .*{said}"):
        Precision.from_toml(tmp_path / "grid.toml")


def test_qat_rounds_what_it_says() -> None:
    assert qat(weights=16, acts=16, group=8) == Recipe()
    recipe = qat(weights=3, acts=16, group=8)
    assert recipe.acts is None
    assert recipe.weights == Cast("int3", 8)
    w = normal(4, 16)
    codes = recipe.weights.round(w).view(4, 2, 8) / (w.view(4, 2, 8).abs().amax(-1, keepdim=True) / 3)
    assert torch.allclose(codes, codes.round(), atol=1e-5)
    assert float(codes.abs().max()) == pytest.approx(3)


def test_recorded_grid_holds_three_seeds_of_a_subset() -> None:
    rows = pd.read_csv(Path(isoflop.__file__).parent / "recorded" / "qat" / "runs.csv")
    assert (rows["status"] == "ok").all()
    seeds = rows.groupby(["width", "tokens", "bits_weights", "bits_acts", "group_size"])["seed"].nunique()
    assert (seeds >= 3).sum() >= 20
    assert np.isfinite(increases(rows)["loss_increase"]).all()


# -- times of products -------------------------------------------------------------------------------------------------


def planted_gemm(count: int = 150) -> pd.DataFrame:
    """Times with a fixed cost, a rate, and half the rate where k is odd."""
    shapes = np.round(2 ** np.random.default_rng(0).uniform(3, 10, (count, 3))).astype(int)
    table = pd.DataFrame(shapes, columns=["m", "n", "k"])
    rate = np.where(table["k"] % 2, 1e10, 2e10)
    return table.assign(seconds=1e-6 + 2.0 * table["m"] * table["n"] * table["k"] / rate)


def test_the_forest_forecasts_products_better_than_their_flops_and_below_its_inputs_order() -> None:
    pytest.importorskip("sklearn")
    rules = compared_rules(planted_gemm(), seed=0)
    assert rules["forest"]["error"] < 0.5 * rules["flops"]["error"]
    assert rules["forest"]["r2_log"] > 0.97
    model = fit_gemm(planted_gemm(), seed=0)
    small, large = model.seconds([16, 512], [16, 512], [16, 512])
    assert 0 < small < large


def test_times_that_are_none_are_refused() -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match="seconds above 0"):
        fit_gemm(planted_gemm().assign(seconds=0.0), seed=0)
    with pytest.raises(ValueError, match="lacks column seconds"):
        fit_gemm(planted_gemm().drop(columns="seconds"), seed=0)
