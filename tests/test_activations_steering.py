"""Steering, hypernetworks, and every meter of activations on models that are not isoflop's own."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'isoflop[torch]'")

from torch import nn  # noqa: E402

from isoflop import _find  # noqa: E402
from isoflop.levers.activations._hidden import hidden_states, layer_names, norm_names  # noqa: E402
from isoflop.levers.activations._model import make  # noqa: E402
from isoflop.levers.activations.hypersteer import embedding, hypersteer  # noqa: E402
from isoflop.levers.activations.massive import attention_maps, massive, outliers, sink_share  # noqa: E402
from isoflop.levers.activations.ood._premise import auroc, premise  # noqa: E402
from isoflop.levers.activations.sparsity import sparsity  # noqa: E402
from isoflop.levers.activations.steering import Controller, directions, learn, next_tokens, steering  # noqa: E402
from isoflop.levers.precision._inject import inject_outliers  # noqa: E402
from isoflop.levers.precision._plain import plain  # noqa: E402
from isoflop.levers.train._shape import Shape  # noqa: E402

VOCAB = 40


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ladder():
    """The ladder's model with weights larger than at the start, so that every part of it matters."""
    made = make(Shape(width=24, depth=2, vocab=VOCAB), context=16, seed=0)
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(1.5)
    return made.eval().requires_grad_(False)


def hugging_face(name):
    """A causal LM of a Hugging Face config with random weights, nothing downloaded."""
    transformers = pytest.importorskip("transformers")
    common = {"vocab_size": VOCAB, "attn_implementation": "eager", "bos_token_id": 0, "eos_token_id": 0}
    if name == "gpt2":
        config = transformers.GPT2Config(n_positions=32, n_embd=16, n_layer=2, n_head=2, **common)
    else:
        config = transformers.LlamaConfig(
            hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=32, pad_token_id=0, **common,
        )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(3.0 if p.ndim > 1 else 1.0)
    return made


@pytest.fixture(params=["ladder", "gpt2", "llama"])
def model(request):
    return ladder() if request.param == "ladder" else hugging_face(request.param)


def ids(rows=6, time=16, seed=1):
    return torch.randint(0, VOCAB, (rows, time), generator=torch.Generator().manual_seed(seed))


def logits(model, tokens):
    with torch.no_grad():
        out = model(tokens)
    return out if isinstance(out, torch.Tensor) else out.logits


# ---- any causal LM ---------------------------------------------------------------------------------------------------


def test_meters_read_any_causal_lm(model):
    states = hidden_states(model, ids())
    assert [h.shape[:2] for h in states.values()] == [(6, 16)] * 2
    assert massive(model, ids()).count == 0
    assert len(norm_names(model)) == 4
    assert outliers(model, ids())["layers"] == 4
    maps = attention_maps(model, ids())
    assert len(maps) == 2
    assert torch.allclose(maps[0].sum(-1), torch.ones(maps[0].shape[:-1]), atol=1e-5)
    assert 0 < sink_share(maps[0]) < 1
    assert 0 < sparsity(plain(model), ids(time=17)).activation_ratio <= 1


def test_outliers_are_found_where_they_were_put_and_change_no_output(model):
    injected = inject_outliers(model, ids(), channels=2, factor=30.0)
    assert torch.allclose(logits(injected, ids()), logits(model, ids()), atol=1e-3)
    before, after = outliers(model, ids()), outliers(injected, ids())
    assert before["outlier_dimensions"] == 0
    gains = torch.stack([injected.get_submodule(n).weight for n in norm_names(model)])
    planted = int((gains.abs() > 10).any(dim=0).sum())  # two in each of four norms, some of them the same dimension
    assert after["outlier_dimensions"] == planted > 2
    assert after["ratio"] > 4 * before["ratio"]
    with pytest.raises(ValueError, match="has no norms"):
        outliers(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.zeros(2, 4))


def test_steering_goes_on_and_off_any_causal_lm(model):
    before, one, two = logits(model, ids()), ids(seed=2), ids(seed=3)
    along = directions(model, one, two)
    assert list(along) == layer_names(model)
    first = layer_names(model)[0]
    plainly = hidden_states(model, ids())[first]
    with steering(model, {first: along[first]}, scale=2.0):
        moved = hidden_states(model, ids())[first]
    assert torch.allclose(moved - plainly, 2 * along[first].expand_as(moved), atol=1e-4)
    assert torch.equal(logits(model, ids()), before)
    steered = learn(model, one, two, along=along, target=[3], steps=2)
    assert steered(ids()).shape == before.shape
    assert torch.equal(logits(model, ids()), before)


def test_a_direction_is_the_difference_of_means_and_is_added():
    made, one, two = ladder(), ids(seed=2), ids(seed=3)
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


# ---- hypernetworks ---------------------------------------------------------------------------------------------------


def test_a_hypernetwork_says_what_each_condition_asks_for(model):
    """Conditions that name one of four tokens, of which the next is to be that."""
    flags = [p.requires_grad for p in model.parameters()]
    weights = [p.clone() for p in model.parameters()]
    asked = torch.arange(256) % 4
    conditions = torch.eye(4)[asked]
    made = hypersteer(model, conditions, ids(rows=256, time=6), targets=asked[:, None], steps=120)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(torch.equal(p, q) for p, q in zip(weights, model.parameters(), strict=True))
    others, wanted = ids(rows=64, time=6, seed=9), torch.arange(64) % 4
    with torch.no_grad():
        said = next_tokens(made(others, torch.eye(4)[wanted])).argmax(-1)
        unsteered = next_tokens(made(others, torch.eye(4)[wanted], scale=0.0))
    assert float((said == wanted).double().mean()) > 0.7  # by chance one in forty
    assert torch.equal(unsteered, next_tokens(logits(model, others)))


def test_targets_may_be_several_tokens_or_probabilities():
    made, contexts, asked = ladder(), ids(rows=32, time=6), torch.tensor([[5, 7]] * 32)
    as_ids = hypersteer(made, torch.ones(32, 1), contexts, targets=asked, steps=5)
    shares = nn.functional.one_hot(asked, VOCAB).float()
    as_shares = hypersteer(made, torch.ones(32, 1), contexts, targets=shares, steps=5)
    assert as_ids.layer == "layers.0"
    for p, q in zip(as_ids.network.parameters(), as_shares.network.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-5)
    with pytest.raises(ValueError, match=r"\(31, 1\), contexts \(32, 6\) and targets \(32, 2\) do not fit"):
        hypersteer(made, torch.ones(31, 1), contexts, targets=asked)


def test_a_prompt_is_embedded_by_the_model_itself(model):
    last = layer_names(model)[-1]
    assert torch.equal(embedding(model, ids()), hidden_states(model, ids(), layers=[last])[last].mean(dim=1))


def test_each_example_may_have_a_direction_of_its_own():
    made, own = ladder(), torch.randn(6, 24, generator=torch.Generator().manual_seed(0))
    plainly = hidden_states(made, ids())["layers.1"]
    with steering(made, {"layers.1": own}, scale=torch.arange(6.0)):
        moved = hidden_states(made, ids())["layers.1"]
    assert torch.allclose(moved - plainly, (torch.arange(6.0)[:, None] * own)[:, None].expand_as(moved), atol=1e-5)


# ---- controllers -----------------------------------------------------------------------------------------------------


def test_a_controller_learns_when_to_steer():
    """Texts that begin with token 0 are triggers."""
    made, windows = ladder(), ids(rows=64, time=6)
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


# ---- classifiers -----------------------------------------------------------------------------------------------------


def test_meters_and_scores_read_a_classifier():
    """Features of a plain nn.Module in front of its last layer, scored against inputs with their numbers shuffled."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    x = torch.rand(60, 8, generator=torch.Generator().manual_seed(1))
    features = hidden_states(net, x, layers=["3"])["3"]
    assert features.shape == (60, 32)
    assert massive(net, x, layers=["0", "2"]).count == 0
    held = premise(features[:30], hidden_states(net, x.flip(1), layers=["3"])["3"])
    assert 0 <= held.auroc <= 1
    head = net[4]
    score = _find.get("levers/activations/ood", "scale")(features, weight=head.weight.detach(), bias=head.bias.detach())
    assert score.shape == (60,)
    assert auroc(score, score) == 0.5
    assert np.isfinite(score.numpy()).all()
