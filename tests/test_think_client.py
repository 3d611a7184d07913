"""The client against the package's own server, whole and broken: nothing lost, nothing twice, clear refusals."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time

import pytest

pytest.importorskip("aiohttp", reason="the think lever: pip install 'isoflop[think]'")
pytest.importorskip("orjson", reason="the think lever: pip install 'isoflop[think]'")

import _think_served
from _think_served import sampling, texts, three

from isoflop.levers.think import _client, _endpoints
from isoflop.levers.think._client import Client, Limits, Refused, TooLong, Unreachable
from isoflop.levers.think._endpoints import Endpoint, Pace, Pool, clean_url
from isoflop.levers.think._faults import Faults
from isoflop.levers.think._meter import Account
from isoflop.levers.think._protocol import check_model
from isoflop.levers.think._server import serving
from isoflop.levers.think._types import ModelError

model, server = _think_served.model, _think_served.server


# -- faults -----------------------------------------------------------------------------------------------------------

FAULTS = {
    "slow": {"slow": 0.5, "slow_seconds": 0.05},
    "busy": {"busy": 0.4, "retry_after": 0.02},
    "broken": {"broken": 0.4},
    "cut": {"cut": 0.4},
    "malformed": {"malformed": 0.4},
    "dies and comes back": {"die_after": 6, "die_seconds": 0.3},
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_lose_nothing_and_count_nothing_twice(model, server, tmp_path, monkeypatch, name):
    monkeypatch.setattr(_client, "_BACKOFF", 0.02)

    async def work(handle):
        got = await asyncio.gather(*(handle.sample(f"say {i}", n=2, seed=i) for i in range(12)))
        return [texts(one) for one in got], handle.account

    truth, calm = sampling(server[0], tmp_path / "calm", work)
    with serving(model, faults=Faults(**FAULTS[name])) as (url, service):
        got, account = sampling(url, tmp_path / "odd", work, limits=Limits(calls=4, timeout=10.0, tries=30))
        faulty = sum(bool(r["fault"]) for r in service.requests)
    assert got == truth
    for column in ("samples", "prompt_tokens", "gen_tokens"):
        assert getattr(account.total, column) == getattr(calm.total, column)
        assert getattr(account.paid, column) == getattr(calm.paid, column)
    assert account.retries >= faulty
    assert (account.retries > 0) == (name != "slow")
    lines = (tmp_path / "odd" / "samples.jsonl").read_text().splitlines()
    assert len({json.loads(line)["key"] for line in lines}) == len(lines) == 24


def test_broken_streams_are_begun_again(model, server, tmp_path, monkeypatch):
    monkeypatch.setattr(_client, "_BACKOFF", 0.02)

    async def work(handle):
        return texts(await handle.sample("say", n=6, seed=3, until=lambda s: len(s.text) > 5))

    truth = sampling(server[0], tmp_path / "calm", work)
    with serving(model, faults=Faults(cut=0.5, seed=1)) as (url, _):
        assert sampling(url, tmp_path / "odd", work, limits=Limits(tries=30)) == truth


def test_a_time_out_is_tried_again(model, tmp_path, monkeypatch):
    monkeypatch.setattr(_client, "_BACKOFF", 0.02)
    account = Account()
    with serving(model, faults=Faults(slow=0.5, slow_seconds=5.0, seed=2)) as (url, _):
        limits = Limits(timeout=1.0, tries=30)
        got = sampling(url, tmp_path, lambda m: m.sample("say", n=2), limits=limits, account=account, use_n=False)
    assert len(got) == 2


def test_a_call_that_never_works_is_an_error_and_a_row(model, tmp_path, monkeypatch):
    monkeypatch.setattr(_client, "_BACKOFF", 0.01)
    with serving(model, faults=Faults(broken=1.0)) as (url, service):
        with pytest.raises(ModelError, match="gave nothing usable in 3 tries; the last: status 500: internal error"):
            sampling(url, tmp_path, three, limits=Limits(tries=3))
        assert len(service.requests) == 3
    (line,) = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert "status 500" in json.loads(line)["error"]


def test_retry_after_is_honoured_in_both_forms():
    later = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert _client._retry_after("1.5") == 1.5
    assert 25 < _client._retry_after(later) <= 30
    assert _client._retry_after("soon") == _client._retry_after(None) == _client._retry_after("-3") == 0.0


def test_a_busy_server_is_left_alone_as_long_as_it_asks(model, tmp_path, monkeypatch):
    monkeypatch.setattr(_client, "_BACKOFF", 0.001)
    with serving(model, faults=Faults(busy=0.5, retry_after=0.4, seed=4)) as (url, service):
        began = time.monotonic()
        sampling(url, tmp_path, lambda m: m.sample("say", n=3), limits=Limits(calls=1, tries=30), use_n=False)
        spent = time.monotonic() - began
        turned_away = sum(r["fault"] == "busy" for r in service.requests)
    assert turned_away > 0
    assert spent >= 0.4 * turned_away


# -- refusals, a sentence each ----------------------------------------------------------------------------------------


def test_a_refused_key_is_said_and_never_shown(model, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret-1234")
    with serving(model, key="sk-right") as (url, _):
        with pytest.raises(Refused, match=r"refused the key in \$MY_KEY \(401\)") as wrong:
            sampling(url, tmp_path, three, key_env="MY_KEY")
        with pytest.raises(Refused, match=r"refused a call without a key \(\$NO_KEY is not set\)"):
            sampling(url, tmp_path, three, key_env="NO_KEY")
        monkeypatch.setenv("MY_KEY", "sk-right")
        assert len(sampling(url, tmp_path, three, key_env="MY_KEY")) == 3
    written = (tmp_path / "samples.jsonl").read_text()
    pool = Pool([url], key_env="MY_KEY")
    for text in (str(wrong.value), written, repr(pool.endpoints), pool.redact("you sent sk-right")):
        assert "sk-" not in text


def test_an_unknown_model_gets_the_closest(server):
    async def ask(name):
        async with Client([server[0]]) as client:
            return await check_model(client, name)

    assert asyncio.run(ask("model"))["isoflop"]["width"] == 16
    with pytest.raises(ModelError, match="has no model 'modle'; did you mean model"):
        asyncio.run(ask("modle"))


def test_a_server_that_is_not_there_is_said_at_once():
    async def ask():
        async with Client(["http://127.0.0.1:9/v1"]) as client:
            await check_model(client, "model")

    with pytest.raises(Unreachable, match=r"no server answers at http://127\.0\.0\.1:9/v1"):
        asyncio.run(ask())


def test_a_prompt_past_the_context_is_not_tried_again(model, tmp_path):
    with serving(model) as (url, service):
        with pytest.raises(TooLong, match="too long for the model: this model's maximum context length is 64 tokens"):
            sampling(url, tmp_path, lambda m: m.sample("x" * 80))
        assert len(service.requests) == 1
    assert json.loads((tmp_path / "samples.jsonl").read_text())["error"].startswith("TooLong")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://host/v1", "no address of a server"),
        ("http://", "no address of a server"),
        ("http://me:sk-1@host/v1", "a key belongs in the environment"),
        ("http://host/v1?api_key=sk-1", "a key belongs in the environment"),
    ],
)
def test_an_address_that_will_not_do(url, says):
    with pytest.raises(ValueError, match=says) as wrong:
        clean_url(url)
    assert "sk-1" not in str(wrong.value)


# -- limits, and several endpoints ------------------------------------------------------------------------------------


def test_work_is_shared_and_a_sick_endpoint_left_out(model, tmp_path, monkeypatch):
    monkeypatch.setattr(_client, "_BACKOFF", 0.01)

    async def work(handle):
        await asyncio.gather(*(handle.sample(f"say {i}") for i in range(40)))
        return handle.account.total.samples, handle.backend.client.pool.endpoints

    with (
        serving(model) as (one, first),
        serving(model) as (two, second),
        serving(model, faults=Faults(broken=1)) as (
            bad,
            third,
        ),
    ):
        count, endpoints = sampling([one, two, bad], tmp_path, work, limits=Limits(calls=8))
        shares = [len(service.requests) for service in (first, second, third)]
    assert count == 40
    assert min(shares[:2]) >= 8
    assert shares[2] <= 12
    assert endpoints[2].sick
    assert not endpoints[0].sick


def test_an_endpoint_that_works_again_is_healthy():
    one = Endpoint("http://a")
    for _ in range(_endpoints.SICK_AFTER):
        one.failed()
    assert one.sick
    assert one.sick_until > time.monotonic()
    one.worked()
    assert not one.sick
    assert one.sick_until == 0.0


def test_requests_a_minute_are_limited():
    async def go():
        pace, began = Pace(600.0), time.monotonic()  # ten a second, a burst of one second's worth
        for _ in range(13):
            await pace.take(1.0)
        return time.monotonic() - began

    assert asyncio.run(go()) >= 0.19
    with pytest.raises(ValueError, match="lets nothing through"):
        Pace(0)


def test_calls_at_once_are_limited(model, tmp_path):
    busiest = []

    async def work(handle):
        pool = handle.backend.client.pool
        real = pool.pick

        async def pick():
            busiest.append(pool.endpoints[0].busy + 1)
            return await real()

        pool.pick = pick
        await asyncio.gather(*(handle.sample(f"say {i}") for i in range(20)))

    with serving(model) as (url, _):
        sampling(url, tmp_path, work, limits=Limits(calls=3))
    assert max(busiest) == 3
