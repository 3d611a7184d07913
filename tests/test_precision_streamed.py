"""Low-rank layers in tiles: the outputs of the plain low-rank model, in less memory, as the account says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'isoflop[torch]'")

from torch import nn  # noqa: E402

from isoflop.levers.precision.inference.flashsvd import (  # noqa: E402
    LowRank,
    account,
    flashsvd,
    low_rank,
    peak_bytes,
    streamed,
)
from isoflop.levers.train._gpt import GPT  # noqa: E402
from isoflop.levers.train._shape import Shape  # noqa: E402


def gpt(width=32, time=24, depth=2):
    return GPT(Shape(width=width, depth=depth, vocab=40), context=time, seed=0).eval()


def bert(width=48, hidden=96, depth=2, time=32):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=width, intermediate_size=hidden, num_hidden_layers=depth, num_attention_heads=4,
        max_position_embeddings=time,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.BertModel(config).eval()


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def gap(a, b):
    return float((a - b).abs().max() / a.abs().max())


def test_full_rank_is_the_layer_and_the_cut_is_the_best_of_its_rank():
    linear, x = nn.Linear(12, 20), normal(5, 12)
    assert gap(linear(x), LowRank(linear, rank=12)(x)) < 1e-5
    cut = LowRank(linear, rank=4)
    left = torch.linalg.svdvals(linear.weight.detach())[4:]
    assert torch.linalg.matrix_norm(linear.weight - cut.up @ cut.down).item() == pytest.approx(left.norm().item(), 1e-4)


@settings(max_examples=12, deadline=None)
@given(tile=st.integers(1, 40), rank=st.integers(1, 32), time=st.integers(1, 24))
def test_tiles_of_any_size_give_the_ladders_low_rank_logits(tile, rank, time):
    model = low_rank(gpt(), rank=rank)
    tokens = torch.arange(2 * time).view(2, time) % 40
    with torch.no_grad():
        assert gap(model(tokens), streamed(model, tile=tile)(tokens)) < 1e-5


@pytest.mark.parametrize("tile", [5, 16, 64])
def test_bert_gives_the_same_with_and_without_a_mask(tile):
    model = low_rank(bert(), rank=8)
    tokens, mask = torch.arange(60).view(2, 30) % 40, torch.ones(2, 30, dtype=torch.long)
    mask[0, 20:] = 0
    small = streamed(model, tile=tile)
    with torch.no_grad():
        for given_mask, seen in ((None, slice(None)), (mask, mask.bool())):
            plain = model(input_ids=tokens, attention_mask=given_mask).last_hidden_state
            tiled = small(input_ids=tokens, attention_mask=given_mask).last_hidden_state
            assert gap(plain[seen], tiled[seen]) < 1e-5


def test_the_callers_model_stays_and_strangers_are_refused():
    model, tokens = gpt(), torch.arange(24)[None]
    low = low_rank(model, rank=4)
    assert torch.equal(streamed(low)(tokens), flashsvd(model, rank=4)(tokens))
    assert not any(isinstance(m, LowRank) for m in model.modules())
    assert sum(isinstance(m, LowRank) for m in low.modules()) == 14
    with pytest.raises(ValueError, match="no block that is streamed here"):
        streamed(nn.Sequential(nn.Linear(4, 4)))
    with pytest.raises(ValueError, match="rank is 0"):
        low_rank(model, rank=0)


def test_the_meter_counts_what_is_held_at_once():
    x = torch.zeros(1000)
    assert peak_bytes(lambda: (x + 1) + (x + 2)) == pytest.approx(3 * 4000, abs=50)
    assert peak_bytes(lambda: [x + 1 for _ in range(3)]) == pytest.approx(3 * 4000, abs=50)
    assert peak_bytes(lambda: [(x + 1).sum() for _ in range(3)]) == pytest.approx(4000, abs=50)


@pytest.mark.parametrize(("width", "time", "rank", "tile"), [(64, 256, 8, 16), (96, 128, 32, 64)])
def test_the_account_is_near_what_is_measured_on_the_ladder(width, time, rank, tile):
    made = low_rank(gpt(width, time, 1), rank=rank)
    x, turn = normal(1, time, width), (made.cos, made.sin)
    plain, tiled = made.layers[0], streamed(made, tile=tile).layers[0]
    hidden = plain.mlp.up_proj.up.shape[0]
    said = account(
        width=width, hidden=hidden, heads=plain.self_attn.heads, length=time, rank=rank, tile=tile, gated=True
    )
    assert peak_bytes(lambda: plain.mlp(x)) == pytest.approx(said["mlp"], rel=0.1)
    assert peak_bytes(lambda: plain.self_attn(x, *turn)) == pytest.approx(said["attention"], rel=0.3)
    assert peak_bytes(lambda: tiled.mlp(x)) == pytest.approx(said["mlp_streamed"], rel=0.15)
    assert peak_bytes(lambda: tiled.self_attn(x, *turn)) == pytest.approx(said["attention_streamed"], rel=0.15)
    assert peak_bytes(lambda: plain(x, *turn)) == pytest.approx(said["block"], rel=0.1)
    assert peak_bytes(lambda: tiled(x, *turn)) == pytest.approx(said["block_streamed"], rel=0.15)


def test_a_bert_layer_holds_less_than_a_third():
    made = low_rank(bert(width=128, hidden=512, depth=1, time=128), rank=8)
    x, plain, tiled = normal(1, 128, 128), made.encoder.layer[0], streamed(made, tile=16).encoder.layer[0]
    said = account(width=128, hidden=512, heads=4, length=128, rank=8, tile=16)
    assert peak_bytes(lambda: plain(x)) == pytest.approx(said["block"], rel=0.05)
    assert peak_bytes(lambda: tiled(x)) == pytest.approx(said["block_streamed"], rel=0.05)
    assert said["block_streamed"] < said["block"] / 3
