"""The package's own server and its decoder, and what the probe finds out about a server."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the think lever: pip install 'isoflop[think]'")
pytest.importorskip("orjson", reason="the think lever: pip install 'isoflop[think]'")

import _think_served
from _think_served import sampling, texts, three
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.levers.think._client import Client
from isoflop.levers.think._decoder import Decoder, Draft, Network
from isoflop.levers.think._faults import Faults, parse_faults
from isoflop.levers.think._protocol import Abilities, probe
from isoflop.levers.think._server import serving
from isoflop.levers.think._types import ModelError

model, server = _think_served.model, _think_served.server


# -- the decoder and the server ---------------------------------------------------------------------------------------


def test_the_decoder_gives_what_torch_gives(tmp_path):
    torch = pytest.importorskip("torch")
    from isoflop.levers.think._model_files import save_model
    from isoflop.levers.train._gpt import GPT
    from isoflop.levers.train._shape import Shape

    shape = Shape(width=32, depth=2, vocab=128, heads=2, tied=False)
    there = GPT(shape, context=48, seed=1)
    weights = {name: p.detach().numpy() for name, p in there.named_parameters()}
    save_model(tmp_path, weights, shape=shape, facts={"context": 48, "tokenizer": "bytes"})
    here = Network(tmp_path)
    with torch.no_grad():
        for name, p in there.named_parameters():
            p.copy_(torch.from_numpy(weights[name].astype(np.float16).astype(np.float32)))
        ids = np.random.default_rng(0).integers(0, 128, (3, 40))
        want = there(torch.from_numpy(ids)).numpy()
    cache = here.cache(3)
    got = [here.forward(ids[:, :30], cache, np.zeros(3, dtype=int))]
    got += [here.forward(ids[:, t : t + 1], cache, np.full(3, t)) for t in range(30, 40)]
    np.testing.assert_allclose(np.stack(got, 1), want[:, 29:], atol=2e-5)


def test_a_sample_does_not_depend_on_its_company(model):
    def run(seeds, slots):
        decoder = Decoder(Network(model), slots=slots)
        drafts = {seed: Draft(seed, 1.0, 12, ()) for seed in seeds}
        for seed, draft in drafts.items():
            decoder.add(b"prompt" if seed % 2 else b"another prompt", [draft])
        while decoder.active or decoder.waiting:
            decoder.step()
        return {seed: draft.text for seed, draft in drafts.items()}

    together = run(range(20), 8)
    assert len(set(together.values())) == 20
    for seed in (0, 3, 19):
        assert run([seed], 1)[seed] == together[seed]


@settings(deadline=None, max_examples=50)
@given(heat=st.floats(0.2, 3.0), seed=st.integers(0, 1000))
def test_tokens_are_drawn_with_the_softmax_of_the_logits(model, heat, seed):
    """The chosen token's cumulative mass brackets the number drawn."""
    decoder, logits = Decoder(Network(model)), np.random.default_rng(seed).normal(0, 2, 128)
    draft = Draft(seed, heat, 9, ())
    drawn = Draft(seed, heat, 9, ()).draws.random()
    decoder._choose([draft], logits[None].astype(np.float32))
    mass = np.cumsum(np.exp(logits.astype(np.float32).astype(float) / heat))
    mass /= mass[-1]
    assert mass[draft.next] >= drawn - 1e-6
    assert draft.next == 0 or mass[draft.next - 1] <= drawn + 1e-6


def test_several_choices_are_the_samples_of_the_seeds_that_follow(server, tmp_path):
    url, _ = server
    together = sampling(url, tmp_path / "a", three)
    alone = sampling(url, tmp_path / "b", three, use_n=False)
    assert texts(together) == texts(alone)
    assert len(set(texts(together))) == 3
    assert [one.seed for one in together] == [together[0].seed + i for i in range(3)]


def test_streaming_ends_where_it_is_told_and_counts_exactly(server, tmp_path):
    url, _ = server

    async def work(handle):
        whole = await handle.sample("say", seed=5, logprobs=True)
        cut = await handle.sample("say", seed=5, logprobs=True, until=lambda s: s.gen_tokens >= 3)
        return whole[0], cut[0], handle.account

    whole, cut, account = sampling(url, tmp_path, work, able=Abilities(counting=True))
    assert (whole.gen_tokens, whole.finish) == (8, "length")
    assert (cut.gen_tokens, cut.finish, cut.text) == (3, "cut", whole.text[:3])
    assert cut.logprobs == pytest.approx(whole.logprobs[:3], abs=1e-5)
    assert cut.spread is not None
    assert len(cut.spread) == 3
    assert cut.prompt_tokens == whole.prompt_tokens == 4
    assert account.total.gen_tokens == 11


def test_stop_strings_end_a_sample_and_are_left_out(server, tmp_path):
    url, _ = server

    async def work(handle):
        whole = (await handle.sample("say", seed=1))[0]
        mark = whole.text[3:5]
        held = (await handle.sample("say", seed=1, stop=(mark,)))[0]
        streamed = (await handle.sample("say", seed=1, stop=(mark,), until=lambda s: False))[0]
        return whole, mark, held, streamed

    whole, mark, held, streamed = sampling(url, tmp_path, work)
    assert held.text == streamed.text == whole.text[: whole.text.index(mark)]
    assert held.finish == streamed.finish == "stop"


# -- finding out ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lacking", ["", "no_n", "no_seed", "no_logprobs", "no_prefix"])
def test_the_probe_finds_what_a_server_ignores(model, lacking):
    faults = parse_faults([lacking] if lacking else [])

    async def ask(url):
        async with Client([url]) as client:
            return await probe(client, "model", protocol="chat")

    with serving(model, faults=faults) as (url, _):
        found = asyncio.run(ask(url))
    able = {"n": found.n, "seed": found.seed, "logprobs": found.logprobs, "prefix": found.prefix}
    assert [f"no_{name}" for name, here in able.items() if not here] == ([lacking] if lacking else [])
    assert found.usage
    assert found.counting
    assert found.asked <= 9


def test_where_n_is_ignored_calls_are_fanned_out(model, tmp_path):
    with serving(model, faults=Faults(no_n=True)) as (url, service):
        got = sampling(url, tmp_path / "a", three, able=Abilities(n=False))
        assert len(set(texts(got))) == 3
        assert len(service.requests) == 3
        late = sampling(url, tmp_path / "b", three, able=Abilities(n=True))  # found out late: the rest is asked for
        assert texts(late) == texts(got)


def test_a_begun_answer_is_refused_where_the_server_opens_a_new_turn(server, tmp_path):
    with pytest.raises(ModelError, match="opens a new turn after a begun answer"):
        sampling(server[0], tmp_path, lambda m: m.sample("say", prefix="so"), able=Abilities(prefix=False))
