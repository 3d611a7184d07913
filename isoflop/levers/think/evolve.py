"""Evolution of candidates by score."""

from __future__ import annotations

from isoflop.levers.think._ask import Ask, at_least, filled, needs_score, numbered
from isoflop.levers.think._templates import template_of
from isoflop.levers.think._types import Answer, Model, Problem, Sample, Score

MUTATE = """{problem}

{solutions}

Above are the best attempts so far. Write a complete new solution that is better than all of them: keep what works,
change what does not. Give the final answer in the same form."""


async def evolve(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    n: int = 4,
    generations: int = 3,
    parents: int = 2,
    template: str = MUTATE,
    seed: int = 0,
) -> Answer:
    """n new candidates a generation, written in sight of the best `parents` so far, chosen by score

    The best of all generations is handed out; a score of 1 stops. Source: EvoScale, Zeng et al. 2025 (arXiv
    2505.23604): y_t ~ model(. | x, E_{t-1}), E the top scored of the last generation; here of all so far, so that a
    bad generation loses nothing. Raises ValueError without a score.
    """
    at_least("evolve", n=n, generations=generations, parents=parents)
    template = template_of(template, "evolve", "solutions")
    ask = Ask(problem, model, needs_score(score, "evolve"), seed)
    pool: list[tuple[Sample, float]] = []
    means = []
    for _ in range(generations):
        best = sorted(pool, key=lambda c: -c[1])[:parents]
        prompt = filled(template, problem=problem.prompt, solutions=numbered([s.text for s, _ in best], word="Attempt"))
        samples = await ask(prompt if best else None, n=n)
        scores = await ask.scores([s.text for s in samples])
        if not scores:
            pool += [(s, float("-inf")) for s in samples]
            break
        pool += zip(samples, scores, strict=True)
        means.append(sum(scores) / len(scores))
        if max(scores) >= 1:
            break
    scored = [x for x in pool if x[1] > float("-inf")]
    if not scored:
        return ask.by_vote([s for s, _ in pool], chosen_by="vote")
    return ask.best([s for s, _ in scored], [x for _, x in scored], means=means)
