"""Draft and target, with conformal rejection of drafts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from isoflop.levers.think._ask import Ask, at_least, together
from isoflop.levers.think._types import Answer, Model, ModelError, Problem, Sample, Score

_TURNS = 64


@dataclass
class _Chain:
    draft: Ask
    target: Ask
    text: str = ""
    finish: str = ""
    rejected: int = 0


async def conformal(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    n: int = 8,
    alpha: float = 0.25,
    turn_tokens: int = 256,
    target: Model | None = None,
    seed: int = 0,
) -> Answer:
    """n chains in turns; a draft turn whose perplexity is too high among the n is rejected and written by the target

    The chains at one turn are each other's calibration set: p_i = #{j: s_j >= s_i} / m over the m chains that reach
    it, s the draft's perplexity; rejected where p_i <= alpha. Chains are exchangeable, so at most a share alpha of
    drafts is rejected, floor(alpha m) / m of them to be exact. Nobody waits for all m: a draft is accepted or rejected
    as soon as the drafts still to come cannot change it, and its chain goes on, so drafts of one turn, the target's
    rewriting of others and drafts of the next turn overlap; the answers are those of chains in step. target: the model
    that takes over, by default the same (then a rejected turn is drawn again). The answers are put to a vote; a chain
    has at most 64 turns. `ahead` counts decisions taken while drafts of the same turn were still out.
    Source: ATTS, Chen et al. 2025 (arXiv 2509.15148), per-question calibration, asynchronous; there the target scores
    the draft, here the draft's own log-probabilities do, as plain endpoints cannot score a given text.
    Raises ModelError where the server gives no log-probabilities.
    """
    at_least("conformal", n=n, turn_tokens=turn_tokens)
    if not 0 <= alpha < 1:
        raise ValueError(f"conformal: alpha={alpha} must be at least 0 and below 1")
    ask = Ask(problem, model, score, seed)
    second = Ask(problem, target or model, score, seed, None, "", 0, ask.log)
    chains = [_Chain(ask.branch(f"draft{i:04}"), second.branch(f"target{i:04}")) for i in range(n)]
    race = Race(n, alpha)
    await together([_go(chain, i, race, turn_tokens) for i, chain in enumerate(chains)])
    ended = [Sample(c.text, c.finish or "length", 0, 0) for c in chains if c.text]
    drafts, turns = sum(map(len, race.scores)), sum(map(bool, race.scores))
    rejected = sum(c.rejected for c in chains)
    return ask.by_vote(ended, rejected=rejected, drafts=drafts, turns=turns, ahead=race.ahead)


async def _go(chain: _Chain, number: int, race: Race, tokens: int) -> None:
    """One chain from its first turn to its last."""
    for turn in range(_TURNS):
        drawn = await chain.draft(prefix=chain.text, max_tokens=tokens, logprobs=True)
        if not drawn:
            chain.finish = "cut"
            race.leave(number, turn - 1)
            return
        if await race.rejects(turn, number, _perplexity(drawn[0])):
            chain.rejected += 1
            drawn = await chain.target(prefix=chain.text, max_tokens=tokens) or drawn
        chain.text += drawn[0].text
        if drawn[0].finish == "stop" or not drawn[0].text:
            chain.finish = "stop"
            race.leave(number, turn)
            return


class Race:
    """Scores of n chains by turn, and what is certain about a rejection before all of them are there."""

    def __init__(self, n: int, alpha: float) -> None:
        self.alpha, self.ahead = alpha, 0
        self.scores: list[dict[int, float]] = [{} for _ in range(_TURNS)]
        self._last = [_TURNS] * n  # the last turn of each chain, as far as is known
        self._change = asyncio.Event()

    def leave(self, number: int, turn: int) -> None:
        """A chain has come to its end after a turn."""
        self._last[number] = turn
        self._tell()

    async def rejects(self, turn: int, number: int, score: float) -> bool:
        """Whether a draft is rejected, as soon as that is certain."""
        self.scores[turn][number] = score
        self._tell()
        while (found := self._certain(turn, score)) is None:
            await self._change.wait()
        return found

    def _certain(self, turn: int, score: float) -> bool | None:
        here = self.scores[turn].values()
        above = sum(s >= score for s in here)
        out = sum(last >= turn for last in self._last) - len(here)  # that may still come
        most = self.alpha * (len(here) + out)
        found = False if above > most else True if above + out <= most else None
        self.ahead += found is not None and out > 0
        return found

    def _tell(self) -> None:
        self._change.set()
        self._change = asyncio.Event()


def rejected(scores: Sequence[float], alpha: float) -> list[bool]:
    """Which of exchangeable scores are rejected: p_i = #{j: s_j >= s_i} / n <= alpha; high is bad."""
    return [sum(s >= t for s in scores) <= alpha * len(scores) for t in scores]


def _perplexity(sample: Sample) -> float:
    if sample.logprobs is None:
        raise ModelError("conformal needs log-probabilities, and the server gives none; use majority instead")
    return math.exp(-sum(sample.logprobs) / len(sample.logprobs)) if sample.logprobs else 1.0
