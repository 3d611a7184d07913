"""Best of N by k generative verifications."""

from __future__ import annotations

from typing import Any

from isoflop.levers.think._ask import Ask, at_least, filled, together
from isoflop.levers.think._templates import VERIFY, template_of, verdict_of
from isoflop.levers.think._types import Answer, Model, Problem, Sample, Score


async def verify_k(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    n: int = 8,
    k: int = 4,
    template: str = VERIFY,
    temperature: float = 0.8,
    seed: int = 0,
) -> Answer:
    """argmax over n solutions of the mean of k verdicts of the same model on it

    Solutions with equal means are settled by the vote among them. A check without a verdict counts for nothing; a
    solution without any verdict has the score 0. `solve_or_verify` gives n and k for a budget. template: a text or the
    path of a text file, with {solution}, and {problem}; by default the question of GenRM in our words.
    Source: GenRM, Zhang et al. 2024 (arXiv 2408.15240), equation 6: mean over K verification rationales.
    """
    at_least("verify_k", n=n)
    template = template_of(template, "verify_k", "solution")
    ask = Ask(problem, model, score, seed, temperature)
    samples = await ask(n=n)
    if k < 1 or not samples:
        return ask.by_vote(samples, verdicts=[])
    verdicts = await together([_check(ask.branch(f"check{i:05}"), s, k, template) for i, s in enumerate(samples)])
    means = [sum(v) / len(v) if v else 0.0 for v in verdicts]
    if not any(verdicts):
        return ask.by_vote(samples, chosen_by="vote")
    tied = [i for i, m in enumerate(means) if m == max(means)]
    told: dict[str, Any] = {"means": means, "verdicts": sum(map(len, verdicts))}
    return ask.by_vote([samples[i] for i in tied], **told)


async def _check(ask: Ask, sample: Sample, k: int, template: str) -> list[bool]:
    prompt = filled(template, problem=ask.problem.prompt, solution=sample.text)
    said = [verdict_of(s.text) for s in await ask(prompt, n=k)]
    return [s for s in said if s is not None]


def solve_or_verify(
    budget: float, *, check_cost: float = 1.0, solve: float = 0.57, verify: float = 0.39
) -> dict[str, int]:
    """How many solutions n and checks k each a budget buys: n (1 + check_cost k) <= budget, n ~ C^solve, k ~ C^verify

    budget: in units of one solution. check_cost: tokens of a check over tokens of a solution. The exponents are those
    measured for Llama-3.1-8B with a fine-tuned verifier, Singhi et al. 2025 (arXiv 2504.01005): solutions grow faster
    than checks, and below about 8 times the budget that self-consistency needs, no checks at all are better. Only the
    ratio n^(verify/solve) : k is taken from them; its constant is set to 1. Returns {"n": ..., "k": ...}; k = 0 means
    vote without checks. Raises ValueError for a budget below 1 or a cost or exponent that is not positive.
    """
    if budget < 1 or min(check_cost, solve, verify) <= 0:
        raise ValueError("solve_or_verify needs a budget of at least 1 and a positive cost and exponents")
    ratio = verify / solve
    fits = (n for n in range(int(budget), 1, -1) if n * (1 + check_cost * max(1, round(n**ratio))) <= budget)
    n = next(fits, 0)
    return {"n": n, "k": max(1, round(n**ratio))} if n else {"n": int(budget), "k": 0}
