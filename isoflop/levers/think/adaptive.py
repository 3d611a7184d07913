"""Majority vote that stops sampling when the rest can hardly change it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from isoflop.levers.think._ask import Ask, at_least
from isoflop.levers.think._types import Answer, Model, Problem, Sample, Score

RULES = ("kinds", "overtake", "beta")
# Shares of two kinds of problems, and how many new answers to expect in each: one whose samples nearly all agree, one
# whose answers scatter. Highest likelihood of the votes on 900 MATH problems (async-sampling-math of the tests' data).
_KINDS = ((0.8, 0.3), (0.2, 5.0))
_FOLLOWED = 20  # samples up to which every answer is followed; beyond, "kinds" is "overtake"


async def adaptive(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    n: int = 16,
    risk: float = 0.04,
    rule: str = "kinds",
    temperature: float = 0.8,
    seed: int = 0,
) -> Answer:
    """majority@n with as few of the n samples as a sequential test needs

    One sample at a time. rule: "kinds" stops when P(another answer leads after all n) <= risk, all answers followed,
    see `not_last` (for n to 20; then "overtake"); "overtake" when the runner-up's chance to lead is, see `overtaken`;
    "beta" when P(the leader's share against the runner-up < 1/2) <= risk under a uniform prior, Aggarwal et al. 2023
    (arXiv 2305.11860). A lead that the remaining samples cannot make up always stops. Ties go to the answer seen
    first. Raises ValueError for another rule or a risk outside [0, 1].
    """
    at_least("adaptive", n=n)
    if rule not in RULES or not 0 <= risk <= 1:
        raise ValueError(f"adaptive: rule={rule!r} must be one of {', '.join(RULES)}, and risk={risk} within 0 to 1")
    ask = Ask(problem, model, score, seed, temperature)
    samples: list[Sample] = []
    while len(samples) < n and not stops(ask.keys(samples), n, risk=risk, rule=rule):
        more = await ask()
        if not more:
            break
        samples += more
    return ask.by_vote(samples, drawn=len(samples), of=n)


def stops(keys: Sequence[str | None], n: int, *, risk: float = 0.04, rule: str = "kinds") -> bool:
    """Whether sampling towards majority@n may stop after the answers `keys` (None: a sample without one)."""
    votes = Counter(k for k in keys if k is not None)  # in the order first seen, which decides ties
    if not votes:
        return len(keys) >= n
    (leader, lead), (rival, second) = [*votes.most_common(2), (None, 0)][:2]
    seen: list[str | None] = list(votes)
    ahead_in_tie = rival is None or seen.index(leader) < seen.index(rival)
    left = n - len(keys)
    if lead - second > left or (lead - second == left and ahead_in_tie):
        return True
    if rule == "beta":
        return _below_half(lead, second) <= risk
    if rule == "kinds" and n <= _FOLLOWED:
        return not_last(tuple(sorted(votes.values(), reverse=True)), left=left) <= risk
    return overtaken(lead, second, len(keys) - lead - second, left=left, ahead_in_tie=ahead_in_tie) <= risk


@lru_cache(maxsize=1 << 16)
def not_last(votes: tuple[int, ...], *, left: int) -> float:
    """P(the leader does not win after `left` more samples), by the posterior predictive, ties shared evenly

    votes: of each answer seen, most first. A sample brings an answer with v votes with probability v / (n + theta), and
    a new one with theta / (n + theta) (Ewens, the Chinese restaurant process). Problems are of two kinds, each with a
    theta of its own; n votes on K answers are of a kind with odds share x theta^K Gamma(theta) / Gamma(theta + n).
    """
    n, g = sum(votes), math.lgamma
    odds = [math.log(share) + len(votes) * math.log(t) + g(t) - g(t + n) for share, t in _KINDS]
    weights = [math.exp(x - max(odds)) for x in odds]
    chances = [_loses(votes[0], votes[1:], left, t) for _, t in _KINDS]
    return sum(w * c for w, c in zip(weights, chances, strict=True)) / sum(weights)


@lru_cache(maxsize=1 << 19)
def _loses(lead: int, others: tuple[int, ...], left: int, theta: float) -> float:
    """P(an answer with `lead` votes is not the one that wins) for one theta; others: most first."""
    top = others[0] if others else 0
    if lead - top > left:
        return 0.0
    if not left:
        return 1.0 if top > lead else 1 - 1 / (1 + others.count(lead))
    chance = lead * _loses(lead + 1, others, left - 1, theta)
    chance += theta * _loses(lead, (*others, 1), left - 1, theta)
    for i, votes in enumerate(others):
        if i == 0 or others[i - 1] != votes:  # one of those with as many votes stands for all
            grown = (*others[:i], votes + 1, *others[i + 1 :])
            chance += others.count(votes) * votes * _loses(lead, grown, left - 1, theta)
    return chance / (lead + sum(others) + theta)


@lru_cache(maxsize=1 << 16)
def overtaken(lead: int, second: int, rest: int, *, left: int, ahead_in_tie: bool = True) -> float:
    """P(the runner-up overtakes the leader within `left` more samples), by the posterior predictive

    The next samples fall to the leader, to the runner-up, or elsewhere with probabilities ~ Dirichlet(lead + 1,
    second + 1, rest + 1). So the number m that falls to the two is beta-binomial, and so is the runner-up's part of
    it; the sum runs over all (m, x) that turn the order round, a tie counting where the runner-up was seen first.
    Where nothing else was seen, the runner-up stands for an answer not seen yet. Third answers are not followed: the
    probability is a little low where three are close.
    """
    total = 0.0
    for m in range(left + 1):
        among = _beta_binomial(m, left, lead + second + 2, rest + 1)
        needed = (lead - second + m) // 2 + 1  # x > (lead - second + m) / 2
        if not ahead_in_tie and (lead - second + m) % 2 == 0:
            needed -= 1
        total += among * sum(_beta_binomial(x, m, second + 1, lead + 1) for x in range(max(needed, 0), m + 1))
    return total


def _beta_binomial(x: int, n: int, a: float, b: float) -> float:
    g = math.lgamma
    ways = g(n + 1) - g(x + 1) - g(n - x + 1)
    return math.exp(ways + g(a + x) + g(b + n - x) - g(a + b + n) - g(a) - g(b) + g(a + b))


def _below_half(lead: int, second: int) -> float:
    """P(p < 1/2) for p ~ Beta(lead + 1, second + 1), exactly: a binomial tail."""
    n = lead + second + 1
    return sum(math.comb(n, k) for k in range(lead + 1, n + 1)) / 2**n
