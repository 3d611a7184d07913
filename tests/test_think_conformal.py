"""Drafts that are rejected at a set rate, one after the other or all at once."""

import asyncio
import math

import numpy as np
from _think_fakes import FakeModel, FakeScore, problem
from hypothesis import given
from hypothesis import strategies as st

from isoflop.levers.think._strategy import get_strategy
from isoflop.levers.think.conformal import Race, rejected


def answer(model, number=0, **own):
    return asyncio.run(get_strategy("conformal")(problem(number), model, FakeScore(), **own))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40, unique=True), st.floats(0, 0.99))
def test_rejection_is_the_floor_of_alpha(scores, alpha):
    no = rejected(scores, alpha)
    assert sum(no) == math.floor(alpha * len(scores) + 1e-12)
    if any(no):
        assert min(s for s, r in zip(scores, no, strict=True) if r) > max(
            [s for s, r in zip(scores, no, strict=True) if not r], default=-1
        )


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=8), st.floats(0, 0.99), st.randoms())
def test_drafts_are_judged_early_as_they_are_late(scores, alpha, order):
    """Whatever order drafts come in, and whoever leaves before his turn: what is decided is what all of them say."""

    async def go():
        race, ready = Race(len(scores) + 1, alpha), asyncio.Event()

        async def one(i):
            await ready.wait()
            for _ in range(order.randrange(6)):
                await asyncio.sleep(0)
            if i == len(scores):
                return race.leave(i, -1)
            return await race.rejects(0, i, scores[i])

        tasks = [asyncio.ensure_future(one(i)) for i in range(len(scores) + 1)]
        ready.set()
        return (await asyncio.gather(*tasks))[:-1]

    assert asyncio.run(go()) == rejected(scores, alpha)


def test_a_slow_draft_holds_up_nobody_whose_fate_is_certain():
    """One chain's draft hangs until the others have gone on as far as they can."""

    class Slow(FakeModel):
        waiting, went_on = None, 0

        async def sample(self, prompt, **how):
            if how["prefix"] == "" and how.get("logprobs") and self.waiting is None:
                self.waiting = asyncio.Event()
                await asyncio.wait_for(self.waiting.wait(), 5)
            elif how["prefix"]:
                self.went_on += 1
                self.waiting.set()
            return await super().sample(prompt, **how)

    slow = Slow(0.5)
    found = answer(slow, n=8, alpha=0.25, turn_tokens=8)
    assert slow.went_on
    assert found.info["ahead"] > 0
    plain = answer(FakeModel(0.5), n=8, alpha=0.25, turn_tokens=8)
    told = {name: value for name, value in plain.info.items() if name != "ahead"}
    assert (found.text, found.info | {"ahead": 0}) == (plain.text, told | {"ahead": 0})


def test_conformal_rejects_its_share_and_prefers_a_better_target():
    found = answer(FakeModel(0.5), n=8, alpha=0.25, turn_tokens=8)
    assert 0 < found.info["rejected"] <= 0.25 * found.info["drafts"]
    how = {"turn_tokens": 100, "alpha": 0.5}
    alone = [answer(FakeModel(0.35), number=i, **how).key == str(100 + i) for i in range(100)]
    helped = [answer(FakeModel(0.35), number=i, target=FakeModel(1.0), **how).key == str(100 + i) for i in range(100)]
    assert np.mean(helped) > np.mean(alone)
