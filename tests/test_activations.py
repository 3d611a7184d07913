"""Hidden states, sparsity, sparse autoencoders, steering: what is planted is found, what is exact is exact."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'isoflop[torch]'")

from torch import nn  # noqa: E402

from isoflop import _find  # noqa: E402
from isoflop._lever import check_lever  # noqa: E402
from isoflop.levers.activations import Activations  # noqa: E402
from isoflop.levers.activations._hidden import changed, hidden_states, layer_names  # noqa: E402
from isoflop.levers.activations._model import make  # noqa: E402
from isoflop.levers.activations.massive import attention_maps, interventions, massive, sink_share  # noqa: E402
from isoflop.levers.activations.sparsity import cett, sparsity  # noqa: E402
from isoflop.levers.activations.steering import Controller, directions, learn, next_tokens, steering  # noqa: E402
from isoflop.levers.activations.topk_sae import recovered, topk_sae  # noqa: E402
from isoflop.levers.precision._measure import losses  # noqa: E402
from isoflop.levers.precision._plain import plain  # noqa: E402
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


def test_hugging_face_models_are_read():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=40, n_positions=32, n_embd=16, n_layer=2, n_head=2, attn_implementation="eager"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = transformers.GPT2LMHeadModel(config).eval()
    states = hidden_states(made, {"input_ids": ids()})
    assert [h.shape for h in states.values()] == [(6, 16, 16)] * 2
    assert massive(made, {"input_ids": ids()}).count == 0
    assert attention_maps(made, ids())[0].shape == (6, 2, 16, 16)
    assert 0 < sparsity(plain(made), ids(time=17)).activation_ratio <= 1


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


# ---- steering --------------------------------------------------------------------------------------------------------


def test_a_direction_is_the_difference_of_means_and_is_added():
    made, one, two = model(), ids(seed=2), ids(seed=3)
    along = directions(made, one, two)
    first, second = hidden_states(made, one), hidden_states(made, two)
    wanted = first["layers.1"].mean(dim=(0, 1)) - second["layers.1"].mean(dim=(0, 1))
    assert torch.allclose(along["layers.1"], wanted, atol=1e-5)
    before = made(one)
    with steering(made, along, scale=0.0):
        assert torch.equal(made(one), before)
    last = {"layers.1": along["layers.1"]}
    with steering(made, last, scale=torch.tensor([0.0, 1.0, 2.0, 0.0, 0.0, 0.0]), weights=torch.tensor([0.5])):
        steered = hidden_states(made, one)["layers.1"] - first["layers.1"]
    for row, size in enumerate((0.0, 0.5, 1.0)):
        assert torch.allclose(steered[row], size * along["layers.1"].expand(16, -1), atol=1e-4)
    with pytest.raises(ValueError, match="3 layer weights for 2 layers"), steering(made, along, weights=torch.ones(3)):
        pass


def test_a_controller_learns_when_to_steer():
    """Texts that begin with token 0 are triggers."""
    made, windows = model(), ids(rows=64, time=6)
    triggers, benign = windows.clone(), windows.clone()
    triggers[:, 0], benign[:, 0] = 0, 1
    flags = [p.requires_grad for p in made.parameters()]
    # the direction that the readout of token 7 names raises that token
    along = {"layers.1": 3 * made.lm_head.weight[7] / made.lm_head.weight[7].norm()}
    steered = learn(made, triggers, benign, along=along, target=[7], leave=5.0, steps=150)
    assert [p.requires_grad for p in made.parameters()] == flags
    with torch.no_grad():
        gain = next_tokens(steered(triggers))[:, 7].exp().mean() / next_tokens(made(triggers))[:, 7].exp().mean()
        strength = [
            float(steered.controller(hidden_states(made, x)[steered.layer])[0].mean()) for x in (triggers, benign)
        ]
    assert gain > 1.5
    assert strength[0] > 2 * strength[1]


def test_a_controller_starts_alike_for_every_input():
    scale, weights = Controller(24, 3)(torch.randn(5, 4, 24, generator=torch.Generator().manual_seed(0)))
    assert scale.tolist() == [2.0] * 5
    assert weights.shape == (5, 3)
    assert bool((weights == 1).all())


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
