"""Parallel thinking, then a summary that answers."""

from __future__ import annotations

from isoflop.levers.think._ask import Ask, at_least, filled, numbered
from isoflop.levers.think._templates import template_of
from isoflop.levers.think._types import Answer, Model, Problem, Score

SUMMARISE = """{problem}

{solutions}

Above are the ends of several independent lines of thought on the problem. Summarise what each established, where they
agree and where they contradict each other, settle the contradictions, and give the final answer in the same form."""


async def parallel_summary(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    paths: int = 8,
    thinking: int | None = None,
    tail: int = 4000,
    template: str = SUMMARISE,
    seed: int = 0,
) -> Answer:
    """paths of at most `thinking` tokens side by side, then one summary over the last `tail` characters of each

    Paths that were cut off take part too, unlike in a vote. Where the summary has no answer the vote over the paths
    decides. Source: the two phases of ParaThinker, Wen et al. 2025 (arXiv 2509.04475), by prompt instead of by
    training and with text instead of a shared cache.
    """
    at_least("parallel_summary", paths=paths, tail=tail)
    template = template_of(template, "parallel_summary", "solutions")
    ask = Ask(problem, model, score, seed)
    samples = await ask(n=paths, max_tokens=thinking)
    if not samples:
        return ask.answer("")
    lines = numbered([s.text[-tail:] for s in samples], word="Line of thought")
    told = await ask(filled(template, problem=problem.prompt, solutions=lines))
    key = model.key(told[0].text) if told else None
    if key is None:
        return ask.by_vote(samples, chosen_by="vote")
    return ask.answer(told[0].text, key=key, chosen_by="summary")
