"""A language model picks among N."""

from __future__ import annotations

from isoflop.levers.think._answers import vote
from isoflop.levers.think._ask import Ask, at_least, filled, numbered
from isoflop.levers.think._templates import PICK, choice_of, template_of
from isoflop.levers.think._types import Answer, Model, Problem, Score


async def judge_pick(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    n: int = 8,
    judges: int = 1,
    template: str = PICK,
    temperature: float = 0.8,
    seed: int = 0,
) -> Answer:
    """The solution that most of `judges` readings of all n choose

    Equal texts are shown once. A judge who names none has no vote; if none names one, the vote over answers decides
    (`chosen_by` says so). template: a text or the path of a text file, with {solutions}, and {problem} and {count}.
    Source: LLM as a judge, Zheng et al. 2023 (arXiv 2306.05685), listwise; the wording is ours.
    """
    at_least("judge_pick", n=n, judges=judges)
    template = template_of(template, "judge_pick", "solutions")
    ask = Ask(problem, model, score, seed, temperature)
    samples = await ask(n=n)
    shown = list({s.text: s for s in samples}.values())
    if len(shown) < 2:
        return ask.by_vote(samples, chosen_by="vote")
    prompt = filled(template, problem=problem.prompt, solutions=numbered([s.text for s in shown]), count=len(shown))
    choices = [choice_of(s.text, len(shown)) for s in await ask(prompt, n=judges)]
    won = vote(choices)
    if won.key is None:
        return ask.by_vote(samples, chosen_by="vote")
    return ask.answer(shown[int(str(won.key))].text, chosen_by="judge", **won.info)
