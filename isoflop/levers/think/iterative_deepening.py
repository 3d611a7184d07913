"""Self-correction triggers at depths that grow geometrically."""

from __future__ import annotations

from isoflop.levers.think._ask import Ask, at_least, together
from isoflop.levers.think._templates import template_of
from isoflop.levers.think._types import Answer, Model, Problem, Sample, Score

TRIGGER = "\nWait! Maybe I made a mistake. I need to check the steps above from the beginning.\n"


async def iterative_deepening(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    n: int = 4,
    first: int = 256,
    growth: float = 2.0,
    trigger: str = TRIGGER,
    seed: int = 0,
) -> Answer:
    """n chains; after first, first growth, first growth^2, ... tokens each is told to check itself

    A chain that ends of itself inside a stretch is done. A whole chain thus costs at most growth / (growth - 1) times
    its last stretch. The best-scored chain wins, or the vote without a score. Chains are given up after 16 stretches.
    trigger: a text, or the path of a text file.
    Source: ID-sampling, Chen et al. 2025 (arXiv 2502.05449); the wording of the trigger is ours.
    """
    at_least("iterative_deepening", n=n, first=first)
    if growth < 1:
        raise ValueError(f"iterative_deepening: growth={growth} must be at least 1")
    trigger = template_of(trigger, "iterative_deepening")
    ask = Ask(problem, model, score, seed)
    chains = await together([_chain(ask.branch(f"chain{i:04}"), first, growth, trigger) for i in range(n)])
    whole = [s for s, _ in chains if s is not None]
    told = {"triggers": [t for s, t in chains if s is not None]}
    return ask.best(whole, await ask.scores([s.text for s in whole]), **told)


async def _chain(ask: Ask, first: int, growth: float, trigger: str) -> tuple[Sample | None, int]:
    text, last = "", None
    for stretch in range(16):
        got = await ask(prefix=text, max_tokens=round(first * growth**stretch))
        if not got:
            return (_with_text(last, text) if last else None), stretch
        last, text = got[0], text + got[0].text
        if last.finish == "stop":
            return _with_text(last, text), stretch
        text += trigger
    return _with_text(last, text), 16


def _with_text(sample: Sample | None, text: str) -> Sample | None:
    """The last stretch's sample under the whole chain's text, to vote with; its own cost stays as it was."""
    return Sample(text, sample.finish, sample.gen_tokens, sample.prompt_tokens) if sample else None
