"""What calls are said to cost, and the budgets that end them."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("aiohttp", reason="the think lever: pip install 'isoflop[think]'")
pytest.importorskip("orjson", reason="the think lever: pip install 'isoflop[think]'")

import _think_served
from _think_served import sampling, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.levers.think._meter import Account, Budget, ModelSize, Prices, Spent
from isoflop.levers.think._model import name_of
from isoflop.levers.think._protocol import reply_of
from isoflop.levers.think._server import serving
from isoflop.levers.think._types import BudgetSpent

model, server = _think_served.model, _think_served.server


# -- accounting -------------------------------------------------------------------------------------------------------


def test_the_same_sample_is_paid_once_even_in_flight(model, tmp_path):
    async def work(handle):
        same = await asyncio.gather(*(handle.sample("say", n=4, seed=9) for _ in range(5)))
        return same, handle.account

    with serving(model) as (url, service):
        same, account = sampling(url, tmp_path, work)
        again, later = sampling(url, tmp_path, work)
        assert sum(r["n"] for r in service.requests) == 4
    assert all(one == same[0] for one in [*same, *again])
    assert account.total == account.paid
    assert later.total == account.total
    assert later.paid == Spent()


def test_a_cost_does_not_depend_on_what_the_store_had(server, tmp_path):
    async def work(handle, n):
        got = await handle.sample("say", n=n, seed=2)
        return got, handle.account

    fresh, alone = sampling(server[0], tmp_path / "a", lambda m: work(m, 6), size=ModelSize(1e3, 1, 16, 16))
    sampling(server[0], tmp_path / "b", lambda m: work(m, 2))
    grown, after = sampling(server[0], tmp_path / "b", lambda m: work(m, 6), size=ModelSize(1e3, 1, 16, 16))
    assert texts(grown) == texts(fresh)
    for column in ("calls", "samples", "prompt_tokens", "gen_tokens"):
        assert getattr(after.total, column) == getattr(alone.total, column)
    assert after.paid.samples == 4


def test_tokens_and_money_add_up(server, tmp_path):
    prices = Prices(prompt=2.0, gen=10.0, cached=0.5)

    async def work(handle):
        await handle.sample("hello", n=3)
        await handle.sample("hello", n=2, seed=1)
        return handle.account.total

    spent = sampling(server[0], tmp_path, work, prices=prices)
    assert (spent.calls, spent.samples, spent.prompt_tokens, spent.gen_tokens) == (2, 5, 12, 40)
    assert spent.usd == pytest.approx((2 * (12 - spent.cached_tokens) + 0.5 * spent.cached_tokens + 400) / 1e6)


def test_flops_and_cache_bytes_are_those_of_the_formula():
    """Kinetics: 2 P L parameters' work; a prompt-less cache read grows as L^2."""
    size = ModelSize(8.19e9, 36, 4096, 1024)
    assert ModelSize(8.19e9).flops(context=0, cached=0, gen=1000) == pytest.approx(1.638e13)
    attention = size.flops(context=100, cached=100, gen=50) - ModelSize(8.19e9).flops(context=100, cached=100, gen=50)
    assert attention == pytest.approx(sum(4 * 36 * 4096 * (100 + t + 0.5) for t in range(50)))
    assert size.cache_bytes(context=0, gen=2000) == 4 * size.cache_bytes(context=0, gen=1000)
    assert size.cache_bytes(context=100, gen=1) == pytest.approx(2 * 36 * 1024 * 2 * 100.5)
    whole = size.flops(context=80, cached=0, gen=10)
    assert whole - size.flops(context=80, cached=30, gen=10) == pytest.approx(size.flops(context=30, cached=0, gen=0))


async def spend(handle, tokens):
    for i in range(1000):
        await handle.sample("more", seed=100 + i, max_tokens=tokens)


@settings(deadline=None, max_examples=40)
@given(budget=st.integers(1, 200), n=st.integers(1, 20), tokens=st.integers(1, 8), fan_out=st.booleans())
def test_a_budget_is_passed_by_at_most_one_call(server, tmp_path_factory, budget, n, tokens, fan_out):
    account = Account(Budget(tokens=budget))

    async def work(handle):
        await asyncio.gather(
            *(handle.sample(f"say {i}", n=n, seed=i, max_tokens=tokens) for i in range(3)), return_exceptions=True
        )
        with pytest.raises(BudgetSpent, match=r"the budget of .* tokens is spent"):
            await spend(handle, tokens)

    sampling(server[0], tmp_path_factory.mktemp("b"), work, account=account, use_n=not fan_out)
    spent = account.total.prompt_tokens + account.total.gen_tokens
    dearest = 8 + (1 if fan_out else n) * tokens
    assert budget <= spent < budget + dearest


def test_a_problem_stops_at_its_own_budget_or_at_the_runs():
    whole = Account(Budget(usd=1.0))
    one, two = Account(Budget(gen_tokens=10), parent=whole), Account(parent=whole)
    one.charge(Spent(gen_tokens=10, usd=0.2), paid=None)
    with pytest.raises(BudgetSpent, match="10 generated tokens"):
        one.check()
    two.check()
    two.charge(Spent(usd=0.8), paid=None)
    with pytest.raises(BudgetSpent, match="1 USD"):
        two.check()
    assert whole.total == Spent(gen_tokens=10, usd=1.0)
    with pytest.raises(ValueError, match="buys nothing"):
        Budget(tokens=0)


def test_seconds_end_a_run(server, tmp_path):
    account = Account(Budget(seconds=0.05))

    async def work(handle):
        for i in range(10_000):
            await handle.sample(f"say {i}")

    with pytest.raises(BudgetSpent, match=r"0.05 seconds"):
        sampling(server[0], tmp_path, work, account=account)


def test_a_resumed_run_stops_where_the_first_one_did(model, tmp_path):
    async def work(handle):
        return texts(await handle.sample("say", n=9)), handle.account

    with serving(model) as (url, _):
        runs = [
            sampling(url, tmp_path, work, account=Account(Budget(tokens=50)), use_n=False, max_tokens=4)
            for _ in range(2)
        ]
    assert runs[0][0] == runs[1][0]
    assert len(runs[0][0]) == 7  # 8 tokens each
    assert runs[1][1].paid == Spent()


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 50), min_size=1, max_size=9), total=st.integers(0, 400))
def test_the_shares_of_one_call_add_up_to_what_it_took(lengths, total):
    from isoflop.levers.think._model import _shares

    choices = [{"index": i, "text": "x" * n, "finish_reason": "stop"} for i, n in enumerate(lengths)]
    reply = reply_of({"choices": choices, "usage": {"prompt_tokens": 3, "completion_tokens": total}})
    shares = _shares(reply, reply.choices)
    assert sum(shares) == total
    assert min(shares) >= 0


def test_reasoning_that_is_kept_apart_stands_before_the_answer():
    message = {"content": "42", "reasoning_content": "six times seven"}
    reply = reply_of({"choices": [{"message": message, "finish_reason": "length"}]})
    assert reply.choices[0].text == "<think>six times seven</think>42"
    assert reply.choices[0].finish == "length"
    assert reply.gen is None


def test_a_stop_rule_has_the_same_name_in_every_process():
    def after(n):
        return lambda sample: sample.gen_tokens > n

    assert name_of(after(3)) == name_of(after(3))
    assert name_of(after(3)) != name_of(after(4))
    assert "0x" not in name_of(after(object()))
