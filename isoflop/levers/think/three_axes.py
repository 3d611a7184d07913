"""Context x batch x turn."""

from __future__ import annotations

from typing import Any

from isoflop.levers.think._answers import vote
from isoflop.levers.think._ask import Ask, argmax, at_least, filled, numbered
from isoflop.levers.think._templates import template_of
from isoflop.levers.think._types import Answer, Model, Problem, Sample, Score

TURN = """{problem}

{solutions}

Above is the answer that came out ahead so far. It may be wrong. Check it, improve on it or replace it, and write a
complete solution with its final answer in the same form."""


async def three_axes(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    context: int | None = None,
    batch: int = 4,
    turns: int = 2,
    template: str = TURN,
    seed: int = 0,
) -> Answer:
    """`turns` turns of `batch` samples of at most `context` tokens; each turn sees the one that came out ahead

    Ahead is the highest score of the turn, or the winner of its vote without a score. The last turn's winner is handed
    out, or with scores the best of all turns. The three numbers are one budget: context x batch x turns tokens.
    Source: Yu et al. 2025 (arXiv 2511.15738): each axis helps with a bounded capacity. The wording is ours.
    """
    at_least("three_axes", batch=batch, turns=turns)
    template = template_of(template, "three_axes", "solutions")
    ask = Ask(problem, model, score, seed)
    ahead: list[tuple[Sample, float]] = []
    for _ in range(turns):
        seen = numbered([a[0].text for a in ahead[-1:]])
        prompt = filled(template, problem=problem.prompt, solutions=seen) if ahead else None
        samples = await ask(prompt, n=batch, max_tokens=context)
        if not samples:
            break
        scores = await ask.scores([s.text for s in samples])
        place = argmax(scores)[0] if scores else vote(ask.keys(samples)).index or 0
        ahead.append((samples[place], scores[place] if scores else float("-inf")))
    told: dict[str, Any] = {"turns": len(ahead), "by_turn": [model.key(s.text) for s, _ in ahead]}
    if not ahead:
        return ask.answer("", **told)
    last = max(reversed(ahead), key=lambda a: a[1])  # the latest of equals: without scores, the last turn
    return ask.answer(last[0].text, **told)
