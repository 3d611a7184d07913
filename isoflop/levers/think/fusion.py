"""Fusion of N: write one answer from N instead of picking one."""

from __future__ import annotations

from isoflop.levers.think._ask import Ask, at_least, filled, numbered
from isoflop.levers.think._templates import FUSE, template_of
from isoflop.levers.think._types import Answer, Model, Problem, Score


async def fusion(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    n: int = 8,
    template: str = FUSE,
    temperature: float = 0.8,
    fuse_temperature: float = 0.0,
    seed: int = 0,
) -> Answer:
    """One more generation, given the prompt and n samples

    Where the fused text has no answer, or could not be had, the vote over the n decides (`chosen_by` says so).
    template: a text or the path of a text file, with {solutions}, and {problem}.
    Source: FusioN, Khairi et al. 2025 (arXiv 2510.00931); the wording of the prompt is ours.
    """
    at_least("fusion", n=n)
    template = template_of(template, "fusion", "solutions")
    ask = Ask(problem, model, score, seed, temperature)
    samples = await ask(n=n)
    if len(samples) < 2:
        return ask.by_vote(samples, chosen_by="vote")
    prompt = filled(template, problem=problem.prompt, solutions=numbered([s.text for s in samples]))
    fused = await ask(prompt, temperature=fuse_temperature)
    key = model.key(fused[0].text) if fused else None
    if key is None:
        return ask.by_vote(samples, chosen_by="vote")
    return ask.answer(fused[0].text, key=key, chosen_by="fusion", new=key not in ask.keys(samples))
