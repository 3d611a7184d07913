"""Sequential revision: chains of attempts that see the attempts before them."""

from __future__ import annotations

from isoflop.levers.think._ask import Ask, at_least, filled, numbered, together
from isoflop.levers.think._templates import template_of
from isoflop.levers.think._types import Answer, Model, Problem, Sample, Score

REVISE = """{problem}

{solutions}

The attempts above may be wrong. Find where they go wrong, and write a complete new solution that does better, with its
final answer in the same form."""


async def revise(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    chains: int = 2,
    turns: int = 4,
    window: int = 4,
    template: str = REVISE,
    seed: int = 0,
) -> Answer:
    """`chains` chains side by side of `turns` attempts; each attempt sees the last `window` of its own chain

    With a score: the best of each chain, then the best of those. Without: the vote over all attempts, since a later
    attempt can be worse than an earlier one. chains and turns are the parallel and the sequential part of one budget.
    Source: Snell et al. 2024 (arXiv 2408.03314), section 6 (four attempts in context, hierarchical selection).
    """
    at_least("revise", chains=chains, turns=turns, window=window)
    template = template_of(template, "revise", "solutions")
    ask = Ask(problem, model, score, seed)
    lanes = [ask.branch(f"chain{i:04}") for i in range(chains)]
    chained = await together([_chain(a, turns, window, template) for a in lanes])
    samples: list[Sample] = [s for chain in chained for s in chain]
    scores = await ask.scores([s.text for s in samples])
    return ask.best(samples, scores, attempts=len(samples))


async def _chain(ask: Ask, turns: int, window: int, template: str) -> list[Sample]:
    made: list[Sample] = []
    for _ in range(turns):
        seen = numbered([s.text for s in made[-window:]], word="Attempt")
        prompt = filled(template, problem=ask.problem.prompt, solutions=seen) if made else None
        got = await ask(prompt)
        if not got:
            break
        made += got
    return made
