"""Hidden states, sparsity, sparse autoencoders, steering: what is planted is found, what is exact is exact."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'isoflop[torch]'")

from torch import nn  # noqa: E402

from isoflop import _find  # noqa: E402
from isoflop._lever import check_lever  # noqa: E402
from isoflop._meter import get_meter  # noqa: E402
from isoflop.levers.activations import Activations  # noqa: E402
from isoflop.levers.activations._experiment import main  # noqa: E402
from isoflop.levers.activations._hidden import changed, layer_names  # noqa: E402
from isoflop.levers.activations._model import make  # noqa: E402
from isoflop.levers.activations._ssl import contrast, probe, view  # noqa: E402
from isoflop.levers.activations.hyperspherical_energy import hyperspherical_energy  # noqa: E402
from isoflop.levers.activations.massive import attention_maps, interventions, massive, sink_share  # noqa: E402
from isoflop.levers.activations.sparsity import cett, sparsity  # noqa: E402
from isoflop.levers.activations.topk_sae import recovered, topk_sae  # noqa: E402
from isoflop.levers.precision._measure import losses  # noqa: E402
from isoflop.levers.train._gpt import GPT  # noqa: E402
from isoflop.levers.train._shape import Shape  # noqa: E402

SHAPE = Shape(width=24, depth=2, vocab=40)
TINY = {
    "sizes": [{"width": 16, "depth": 2}], "tokens": [4096, 8192], "batch_tokens": 512, "context": 32,
    "warmup_steps": 2, "eval_tokens": 512,
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model(function="silu", start_unit=0.0):
    """A model whose weights are larger than at the start, so that every part of it matters."""
    made = make(SHAPE, context=16, seed=0, function=function, start_unit=start_unit)
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(1.5)
    return made.eval().requires_grad_(False)


def ids(rows=6, time=16, seed=1):
    return torch.randint(0, 40, (rows, time), generator=torch.Generator().manual_seed(seed))


def spoken(made, rows=12):
    """Windows that the model itself wrote, always its likeliest token: what pruning can only make less likely."""
    windows = ids(rows=rows, time=1)
    with torch.no_grad():
        for _ in range(16):
            windows = torch.cat([windows, made(windows)[:, -1:].argmax(-1)], dim=1)
    return windows


def test_with_silu_the_model_is_the_ladders():
    gpt = GPT(SHAPE, context=16, seed=3).eval()
    ours = make(SHAPE, context=16, seed=3).eval()
    assert torch.allclose(gpt(ids()), ours(ids()), atol=1e-5)
    other = make(SHAPE, context=16, seed=3, function="relu").eval()
    assert not torch.allclose(gpt(ids()), other(ids()), atol=1e-3)


# ---- hidden states and massive activations ---------------------------------------------------------------------------


def test_layers_are_found_and_hooks_taken_off():
    made = model()
    assert layer_names(made) == ["layers.0", "layers.1"]
    assert layer_names(nn.Sequential(nn.Linear(2, 3), nn.ReLU())) == ["0", "1"]
    with pytest.raises(ValueError, match="name the layers"):
        layer_names(nn.Linear(2, 2))
    before = made(ids())
    with changed(made, {"layers.0": lambda h: h + 1}):
        assert not torch.allclose(made(ids()), before)
    with pytest.raises(KeyError), changed(made, {"layers.0": lambda h: {}["nothing"]}):
        made(ids())
    assert torch.equal(made(ids()), before)


def test_a_planted_activation_is_the_first_one_found():
    windows = ids(time=17)
    plainly, planted = massive(model(), windows[:, :-1]), massive(model(start_unit=5000.0), windows[:, :-1])
    assert plainly.count == 0
    assert planted.count >= len(windows)
    first = planted.layers[0]
    assert first.layer == "layers.0"
    assert first.place[1:] == (0, 0)
    assert first.massive == len(windows)
    assert first.top == pytest.approx(5000, rel=0.01)
    assert first.ratio > 1000
    assert "layers.0" in str(planted)
    assert planted.to_dict()["layers"][0]["massive"] == len(windows)


def test_setting_a_bias_to_its_mean_changes_nothing_and_to_zero_does():
    said = interventions(model(start_unit=300.0), ids(time=17), layer="layers.0", token=0, dimension=0)
    assert said["mean"] == pytest.approx(300, abs=10)
    assert abs(said["loss_mean"] - said["loss"]) < 1e-3 < abs(said["loss_zero"] - said["loss"])


def test_attention_of_the_ladders_model_is_what_it_computes():
    made = model()
    maps = attention_maps(made, ids())
    attention = made.layers[0].self_attn
    x = made.layers[0].input_layernorm(made.embed_tokens(ids()))
    v = attention.v_proj(x).view(6, 16, attention.heads, -1).transpose(1, 2)
    out = attention.o_proj((maps[0] @ v).transpose(1, 2).reshape(6, 16, -1))
    assert torch.allclose(out, attention(x, made.cos[:16], made.sin[:16]), atol=1e-5)
    with pytest.raises(ValueError, match="no output_attentions"):
        attention_maps(nn.Embedding(40, 3), ids())


def test_the_share_of_a_sink():
    even = torch.tril(torch.ones(8, 8)) / torch.arange(1, 9)[:, None]
    assert sink_share(even, token=0) == pytest.approx(np.mean([1 / k for k in range(2, 9)]))
    sink = torch.zeros(2, 3, 8, 8)
    sink[..., 2] = 1.0
    assert sink_share(sink) == 1.0
    assert sink_share(sink, token=0) == 0.0


# ---- sparsity --------------------------------------------------------------------------------------------------------


def test_tail_truncation_by_hand():
    weight = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
    h = torch.tensor([[3.0, 4.0, 0.5], [0.0, 0.0, 0.0]])  # outputs (3, 0), (0, 4), (1, 0): sum (4, 4)
    assert cett(h, weight, 1.5) == pytest.approx(1 / math.sqrt(32) / 2)
    assert cett(h, weight, 3.5) == pytest.approx(4 / math.sqrt(32) / 2)
    assert cett(h, weight, 0.5) == 0.0


@pytest.mark.parametrize("function", ["relu", "silu"])
def test_pruning_stays_within_the_rise_and_changes_no_model(function):
    made = model(function)
    windows = spoken(made)
    before = losses(made, windows)[0]
    tight, loose = (sparsity(made, windows, rise=rise) for rise in (0.001, 0.05))
    assert torch.equal(losses(made, windows)[0], before)
    assert 1 - 1e-6 < tight.perplexity_ratio <= 1.001 + 1e-9
    assert loose.perplexity_ratio <= 1.05 + 1e-9
    assert 0 < loose.activation_ratio < tight.activation_ratio < 1
    assert set(tight.thresholds) == {"layers.0.mlp.down_proj", "layers.1.mlp.down_proj"}


def test_neurons_that_do_nothing_are_not_counted():
    made = model("relu")
    with torch.no_grad():
        for layer in made.layers:
            layer.mlp.down_proj.weight[:, ::2] = 0.0
    assert sparsity(made, ids(time=17)).activation_ratio < 0.5
    with pytest.raises(ValueError, match="name it in `down`"):
        sparsity(nn.Linear(2, 2), ids())


# ---- sparse autoencoders ---------------------------------------------------------------------------------------------


def sparse_rows(*, seed=0, rows=4000):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(24, 16, generator=generator)
    truth /= truth.norm(dim=1, keepdim=True)
    place = torch.rand(rows, 24, generator=generator).argsort(dim=1)[:, :2]
    size = 0.5 + torch.rand(rows, 2, generator=generator)
    return truth, (truth[place] * size[:, :, None]).sum(dim=1)


def test_a_planted_dictionary_is_recovered():
    truth, x = sparse_rows()
    made = topk_sae(x, latents=32, active=2, steps=700, seed=0)
    assert float((recovered(made.decoder, truth) > 0.9).double().mean()) > 0.8
    assert made.mse(x) < 0.15
    z = made.encode(x)
    assert int((z != 0).sum(dim=1).max()) <= 2
    assert bool((z >= 0).all())
    assert torch.allclose(made.decoder.norm(dim=1), torch.ones(32), atol=1e-5)
    assert made.dead == pytest.approx(float((~(z > 0).any(dim=0)).double().mean()))


def test_an_autoencoder_repeats_and_ignores_units():
    _, x = sparse_rows(rows=600)
    one, two = (topk_sae(x, latents=32, active=2, steps=20, seed=4) for _ in range(2))
    assert torch.equal(one.encoder, two.encoder)
    large = topk_sae(x * 1000, latents=32, active=2, steps=20, seed=4)
    assert large.mse(x * 1000) == pytest.approx(one.mse(x), rel=1e-3)
    with pytest.raises(ValueError, match="at least as many rows as latents"):
        topk_sae(x[:10], latents=32, active=2)
    with pytest.raises(ValueError, match="not finite"):
        topk_sae(x * math.nan, latents=32, active=2)


def test_the_auxiliary_loss_only_touches_dead_latents():
    """Without dead latents it is nothing; with them it gives them a gradient."""
    from isoflop.levers.activations.topk_sae import _start, _step

    _, x = sparse_rows(rows=300)
    found = []
    for dead in (torch.zeros(32, dtype=torch.bool), torch.arange(32) < 8):
        weights = _start(x, 32, torch.Generator().manual_seed(0))
        optimizer = torch.optim.SGD(list(weights.values()), lr=0.0)
        _step(weights, optimizer, x, 2, dead=dead, auxiliary=1.0)
        with_it = weights["encoder"].grad.clone()
        _step(weights, optimizer, x, 2, dead=dead, auxiliary=0.0)
        found.append((with_it - weights["encoder"].grad).abs().sum(dim=1) > 1e-4)
    assert not found[0].any()
    assert found[1][:8].any()
    assert not found[1][8:].any()


# ---- feature diversity -----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.floats(0.1, 50))
def test_the_loss_and_the_meter_are_of_one_energy(seed, s, by):
    x = np.random.default_rng(seed).standard_normal((12, 5))
    energy = float(hyperspherical_energy(by * torch.tensor(x), s=s))
    wanted = math.exp(-energy) if s == 0 else energy ** (-1 / s)
    assert get_meter("feature_diversity")(x=x, s=s)["diversity"] == pytest.approx(wanted, rel=1e-9)


def test_features_at_right_angles_are_sqrt_2_apart_for_any_s():
    for s in (0.0, 1e-6, 1.0, 3.0):
        assert get_meter("feature_diversity")(x=3 * np.eye(6), s=s)["diversity"] == pytest.approx(math.sqrt(2))
    with pytest.raises(ValueError, match="feature_diversity: s is at least 0"):
        get_meter("feature_diversity")(x=np.eye(3), s=-1.0)


def test_descending_the_energy_drives_features_apart():
    x = torch.rand(20, 6, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    before = float(hyperspherical_energy(x.detach()))
    for _ in range(50):
        (slope,) = torch.autograd.grad(hyperspherical_energy(x), x)
        x.data -= slope
    assert float(hyperspherical_energy(x.detach())) < 0.8 * before
    same = torch.ones(3, 6, requires_grad=True)
    assert torch.equal(torch.autograd.grad(hyperspherical_energy(same), same)[0], torch.zeros(3, 6))
    with pytest.raises(ValueError, match="two rows or more"):
        hyperspherical_energy(x[:1])


def test_contrast_is_a_cross_entropy_over_all_other_views():
    one, two = (torch.randn(3, 4, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    z = [v / v.norm() for v in (*one, *two)]
    terms = []
    for i in range(6):
        like = {j: math.exp(float(z[i] @ z[j]) / 0.5) for j in range(6) if j != i}
        terms.append(-math.log(like[(i + 3) % 6] / sum(like.values())))
    assert float(contrast(one, two)) == pytest.approx(np.mean(terms), rel=1e-5)


def test_views_are_the_same_image_and_a_probe_reads_what_is_linear():
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(300, 8, 8)
    image[:, 4, 4] = 1.0
    seen = view(image, generator).view(-1, 8, 8)
    places = {divmod(int(k), 8) for k in seen.flatten(1).argmax(1)}
    assert places == {(i, j) for i in (3, 4, 5) for j in (3, 4, 5)}
    labels = torch.arange(200) % 10
    features = torch.randn(200, 16, generator=generator) * 0.1 + torch.eye(10, 16)[labels]
    assert probe(features, labels, features, labels) == 0.0
    assert probe(features, labels, features, (labels + 1) % 10) == 1.0


def test_an_experiment_writes_a_file_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--out", str(tmp_path)])
    main("about", lambda seed: [("one", {"seed": seed, "value": 1 / 3}), ("two", {"seed": seed})], seeds=2)
    assert (tmp_path / "one.csv").read_text() == "seed,value\n0,0.333333\n1,0.333333\n"
    assert (tmp_path / "two.csv").read_text() == "seed\n0\n1\n"
    assert "one, two: " in capsys.readouterr().out


# ---- the lever -------------------------------------------------------------------------------------------------------


def test_the_lever_keeps_its_contract():
    lever = Activations(train=TINY, functions=("relu", "silu"), windows=4)
    assert len(lever.ladder()) == 4
    report = check_lever(lever, dear=2)
    assert report.ok, str(report)


def test_a_row_says_what_was_measured():
    lever = Activations(train=TINY, functions=("relu",), start_units=(300.0,), windows=4)
    row = lever.run(lever.ladder()[0], seed=0)
    assert {"activation_ratio", "massive_ratio", "sink_share", "loss_zero", "loss_mean", "flops"} <= row.keys()
    assert row["outliers"] == 0
    assert 3 <= row["outliers_injected"] <= 12
    assert row["read_ratio_injected"] > 5 * row["read_ratio"]
    assert row["curve"][-1]["tokens"] == row["tokens"] == 4096
    assert row["nonzero"] < 1
    assert row["ratio_0"] > 50
    assert row["mean"] == pytest.approx(300, abs=20)


def test_a_sweep_file_is_checked(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('functions = ["gelu"]\n')
    with pytest.raises(ValueError, match="no activation function 'gelu' here"):
        Activations.from_toml(path)
    path.write_text("function = []\n")
    with pytest.raises((ValueError, LookupError), match="functions"):
        Activations.from_toml(path)
    with pytest.raises(ValueError, match="cannot read the sweep file"):
        Activations.from_toml(tmp_path / "none.toml")
    assert "sparsity" in _find.names("levers/activations")
