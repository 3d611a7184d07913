"""Quantisers: what leaves a function unchanged, what a search guarantees, what wins where there is something to win."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'isoflop[torch]'")
pytest.importorskip("safetensors")

from _precision_models import (  # noqa: E402
    METHODS,
    MODELS,
    changed,
    classifier,
    gpt,
    gpt2,
    ids,
    one_thread,  # noqa: F401
    quantise,
)
from torch import nn  # noqa: E402

from isoflop import _find  # noqa: E402
from isoflop.levers.precision._apply import Target, target  # noqa: E402
from isoflop.levers.precision._calibrate import cut, reduced  # noqa: E402
from isoflop.levers.precision._inject import inject_outliers  # noqa: E402
from isoflop.levers.precision._linear import Acts, shared_maxima  # noqa: E402
from isoflop.levers.precision._plain import plain  # noqa: E402
from isoflop.levers.precision._sites import find_sites, outputs  # noqa: E402
from isoflop.levers.train._gpt import GPT  # noqa: E402

# -- functions that stay what they are ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_folding_and_rotating_change_nothing(name):
    """With nothing rounded, scales, shifts and rotations leave every family's logits to 1e-5."""
    model = MODELS[name]()
    before = outputs(model, ids()).detach()
    for method in ("awq", "smoothquant", "smooth_rot"):
        made, report = quantise(method, model, Target("fp32"))
        assert changed(before, outputs(made, ids())) < 1e-5, method
        assert report.fold_error < 1e-5
        if name == "ladder":
            assert report.explicit == 0
    made, _ = quantise("smooth_rot", model, Target("fp32", fold=False), where="all")
    assert changed(before, outputs(made, ids())) < 1e-5


def test_shifts_are_exact_where_they_fold_and_where_they_do_not():
    """OutlierTune with 8-bit inputs differs from the exact model by rounding alone; with wide ranges hardly."""
    model = gpt2()
    made, report = quantise("outlier_tune", model, Target("fp32", acts="fp8_e4m3"))
    exact = quantise("outlier_tune", model, Target("fp32", acts="fp8_e4m3"), symmetrise=False)[0]
    before = outputs(model, ids()).detach()
    assert report.fold_error < 1e-5
    assert changed(before, outputs(made, ids())) < 0.05
    assert changed(before, outputs(exact, ids())) < 0.05


@pytest.mark.parametrize("method", METHODS)
def test_the_callers_model_is_not_changed(method):
    model, held = gpt(), ids(8, 17, seed=2)
    before = copy.deepcopy(model.state_dict())
    floats = method == "llm_fp4"
    wanted = Target("fp4_e2m1" if floats else "int4", 8, acts="fp8_e4m3" if floats else "int8")
    made, report = quantise(method, model, wanted, heldout=held)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert 4 <= report.bits_weights < 8
    assert report.loss is not None
    assert abs(report.loss - report.loss_before) < 0.5
    assert report.bytes < report.bytes_before
    assert json.loads(json.dumps(report.plain()))["arithmetic"] == "simulated"
    assert "simulated" in str(report)
    again = quantise(method, model, Target(**report.target))[0]
    assert torch.equal(outputs(made, ids(seed=3)), outputs(again, ids(seed=3)))


def test_injected_outliers_keep_the_function_and_are_found():
    model = gpt()
    made = inject_outliers(model, ids(), channels=2, factor=20.0)
    assert changed(outputs(model, ids(seed=5)).detach(), outputs(made, ids(seed=5))) < 1e-5
    plain_report, report = (quantise("awq", m, target(4, group=8))[1] for m in (model, made))
    assert plain_report.premise is not None
    assert "little to protect" in plain_report.premise
    assert report.premise is None
    assert max(layer["channel_ratio"] for layer in report.layers) > 8
    with pytest.raises(ValueError, match="no site whose producer is known"):
        inject_outliers(nn.Sequential(nn.Linear(4, 4)), torch.ones(2, 4))


def test_a_table_that_does_not_fit_is_found_out():
    """A block whose names promise a norm before the layer, but which reads the norm's output elsewhere too."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_2, self.mlp = nn.LayerNorm(8), nn.Module()
            self.mlp.c_fc = nn.Linear(8, 8)

        def forward(self, x):
            y = self.ln_2(x)
            return self.mlp.c_fc(y) + y

    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, 2, 8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Block()
        model.ln_2.weight.data *= torch.logspace(-1, 1, 8)
    smooth = _find.get("levers/precision", "smoothquant")
    with pytest.raises(ValueError, match=r"give Target\(fold=False\)"):
        smooth(model, [x])
    _, report = smooth(model, [x], target=Target("int8", 8, fold=False))
    assert report.explicit == 1
    assert report.extra_flops > 0


# -- sites ----------------------------------------------------------------------------------------------------------


def test_each_layer_is_in_one_site_and_the_head_in_none():
    model = plain(gpt())
    sites = find_sites(model)
    names = [n for s in sites for n in s.linears]
    assert len(names) == len(set(names)) == 14
    assert not any("lm_head" in n for n in names)
    assert all(s.producer for s in sites)
    assert sum(s.gated for s in sites) == 2
    assert not any(s.producer for s in find_sites(model, fold=False))
    assert not find_sites(model, skip=("layers",))


def test_sequences_fold_through_relu_and_layer_norm_but_not_tanh():
    sites = {s.name: s.producer for s in find_sites(classifier())}
    assert sites == {"0": None, "2": "0", "5": "4"}


# -- what a search guarantees ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("outliers", [False, True])
def test_awq_never_exceeds_rounding_on_any_site(seed, outliers):
    model = inject_outliers(gpt(seed), ids(), channels=2) if outliers else gpt(seed)
    for wanted in (target(3, group=8), target(4, group=0), target(4, group=8, symmetric=True)):
        nearest, ours = (quantise(m, model, wanted)[1].layers for m in ("round_nearest", "awq"))
        for a, b in zip(nearest, ours, strict=True):
            assert b["weight_error"] <= a["weight_error"] * 1.003  # scales are rounded to float16 after folding
        unclipped = _find.get("levers/precision", "awq")(model, [ids()], target=wanted, clip=False)[1].layers
        assert sum(r["weight_error"] for r in ours) <= sum(r["weight_error"] for r in unclipped)


@pytest.mark.parametrize("outliers", [False, True])
def test_aqas_is_no_worse_than_the_scales_it_contains(outliers):
    model = inject_outliers(gpt(), ids(), channels=2) if outliers else gpt()
    wanted = target(4, 8, group=8, fold=False)  # unfolded, so that no site changes another's rows
    joint, smooth, nearest = (quantise(m, model, wanted)[1].layers for m in ("aqas", "smoothquant", "round_nearest"))
    for a, b, c in zip(joint, smooth, nearest, strict=True):
        assert a["error"] <= min(b["error"], c["error"]) * (1 + 1e-5)


def test_with_outliers_the_methods_win_and_the_largest_wins_are_large():
    model = inject_outliers(gpt(), ids(), channels=2, factor=30.0)
    error = {m: quantise(m, model, target(4, 4, group=8))[1].error for m in ("round_nearest", "smoothquant", "aqas")}
    assert error["smoothquant"] < 0.3 * error["round_nearest"]
    assert error["aqas"] < 0.3 * error["round_nearest"]


# -- rounding of inputs ---------------------------------------------------------------------------------------------


def planted(spikes=0, outliers=0, rows=256, width=128, seed=0):
    """Inputs and weights of a product: normal, with rows that have one huge entry, and with large channels."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, width))
    x[:, rng.choice(width, outliers, replace=False)] *= 30
    x[rng.choice(rows, spikes, replace=False), rng.choice(width, spikes)] *= 300
    return torch.tensor(x, dtype=torch.float32), torch.tensor(rng.standard_normal((64, width)), dtype=torch.float32)


def test_rotated_runtime_smooth_survives_spikes_and_channels():
    """Spike rows and outlier channels together, 4-bit inputs by row: rotating and smoothing beats either alone."""
    from isoflop.levers.precision._hadamard import rotate

    loss = {"smooth": [], "rotated": [], "both": []}
    for seed in range(5):
        x, w = planted(spikes=8, outliers=4, seed=seed)
        y, turned = x @ w.T, rotate(x)
        for name, given, weight, acts in (
            ("smooth", x, w, Acts("int4", smooth=32)),
            ("rotated", turned, rotate(w), Acts("int4")),
            ("both", turned, rotate(w), Acts("int4", smooth=32)),
        ):
            loss[name].append(float(((acts.round(given) @ weight.T - y) ** 2).mean()))
    mean = {k: np.mean(v) for k, v in loss.items()}
    assert mean["both"] < mean["smooth"]
    assert mean["rotated"] < mean["smooth"]


def test_shared_maxima_are_those_of_sorted_neighbours():
    x = torch.tensor([[1.0, -8.0, 2.0, 0.5], [0.5, 4.0, -3.0, 0.25]])
    assert shared_maxima(x, 2).tolist() == [1.0, 8.0, 8.0, 1.0]
    assert shared_maxima(torch.zeros(2, 4), 4).tolist() == [1.0] * 4


def test_ranges_per_channel_beat_one_range_on_skewed_channels():
    x = planted(outliers=4)[0] + torch.linspace(-3, 3, 128)
    error = {r: float(((Acts("int6", r).round(x) - x) ** 2).mean()) for r in ("token", "tensor", "channel")}
    assert error["channel"] < 0.2 * min(error["token"], error["tensor"])
    assert Acts("int6").bits(128) == 6 + 32 / 128
    with pytest.raises(ValueError, match="range of activations is 'row'"):
        Acts("int8", "row")


def test_a_channel_range_in_one_pass_is_that_of_a_loop():
    from isoflop.levers.precision._blocks import Scheme
    from isoflop.levers.precision._blocks import quantise as blocks

    x = planted(outliers=3)[0]
    loop = torch.stack([blocks(x[:, j], Scheme("int4", symmetric=False, scale="fp32")) for j in range(x.shape[1])], 1)
    assert torch.equal(Acts("int4", "channel", symmetric=False).round(x), loop)


# -- calibration, work, errors --------------------------------------------------------------------------------------


def test_reduced_inputs_keep_every_norm():
    x = torch.randn(50, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    d = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert reduced(x).shape == (8, 8)
    assert torch.allclose((reduced(x) @ d).norm(dim=0), (x @ d).norm(dim=0))


def test_calibration_is_cut_to_the_tasks_length():
    assert [b.shape for b in cut([ids(2, 10)], 4)] == [(4, 4)]
    assert torch.equal(cut([ids(2, 10)], 4)[0][1], ids(2, 10)[0, 4:8])
    with pytest.raises(ValueError, match="at least 32 tokens"):
        cut([ids(2, 10)], 32)
    report = _find.get("levers/precision", "aqas")(gpt(), [ids()], target=target(4, 8, group=8), length=4)[1]
    assert report.knobs["length"] == 4


def test_what_cannot_be_is_told():
    for method in ("outlier_tune", "runtime_smooth", "granq"):
        with pytest.raises(ValueError, match="rounds inputs"):
            quantise(method, gpt(), target(4))
    with pytest.raises(ValueError, match="no linear layer"):
        quantise("round_nearest", nn.Sequential(nn.ReLU()), target(4))
    with pytest.raises(ValueError, match="calibration is empty"):
        _find.get("levers/precision", "awq")(gpt(), [])
    with pytest.raises(ValueError, match="not finite"):
        _find.get("levers/precision", "awq")(classifier(), [torch.full((4, 20), float("nan"))])
    with pytest.raises(ValueError, match="floats of 4, 6 and 8 bits"):
        quantise("llm_fp4", gpt(), Target("int3"))
    with pytest.raises(ValueError, match="where is 'down'"):
        quantise("smooth_rot", gpt(), target(4, 4), where="down")


def test_a_classifier_is_measured_by_its_labels():
    model = classifier()
    x = torch.randn(64, 20, generator=torch.Generator().manual_seed(1))
    labels = model(x).argmax(dim=-1)
    _, report = _find.get("levers/precision", "granq")(model, [x], target=target(8, 8), heldout=(x, labels))
    assert report.accuracy_before == 1.0
    assert report.accuracy > 0.9
    assert "held-out accuracy" in str(report)


def test_a_static_range_is_that_of_the_calibration_and_cuts_what_lies_beyond():
    model = classifier()
    x = torch.randn(64, 20, generator=torch.Generator().manual_seed(1))
    made, _ = _find.get("levers/precision", "round_nearest")(
        model, [x], target=Target("fp32", acts="int8", act_range="static")
    )
    first = made.get_submodule("0")
    assert first.limit.tolist() == [float(x.min()), float(x.max())]
    assert float(first.prepare(10 * x).abs().max()) <= float(x.abs().max()) * 1.01
    rotated, _ = _find.get("levers/precision", "smooth_rot")(
        model, [x], target=Target("int8", 0, acts="int8", act_range="static")
    )
    assert changed(model(x).detach(), rotated(x)) < 0.1


def test_a_model_in_16_bits_is_refused():
    with pytest.raises(ValueError, match=r"give it in float32, as model\.float\(\)"):
        _find.get("levers/precision", "awq")(classifier().bfloat16(), [torch.zeros(2, 20)])


def test_another_design_of_the_ladder_is_refused_not_miscomputed():
    model = gpt()
    model.forward = lambda tokens: GPT.forward(model, tokens) * 2  # any function that is not the default's
    with pytest.raises(ValueError, match="only the ladder's default design"):
        plain(model)
