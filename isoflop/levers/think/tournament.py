"""Pairwise knockout."""

from __future__ import annotations

from isoflop.levers.think._ask import Ask, at_least, filled, together
from isoflop.levers.think._templates import COMPARE, choice_of, template_of
from isoflop.levers.think._types import Answer, Model, Problem, Score


async def tournament(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    n: int = 8,
    k: int = 2,
    template: str = COMPARE,
    temperature: float = 0.8,
    seed: int = 0,
) -> Answer:
    """n candidates, each pair compared k times, winners go on until one is left

    P(wrong) <= (1 - p_gen)^n + ceil(log2 n) exp(-2 k (p_comp - 1/2)^2). Half of the comparisons show the pair in the
    other order; a drawn pair goes to the candidate seen first; pairs whose answers are equal are not compared.
    template: a text or the path of a text file, with {first} and {second}, and {problem}; by default the parts of
    MT-Bench's pairwise prompt, Zheng et al. 2023 (arXiv 2306.05685), in our words and without a draw.
    Source: Chen et al. 2024 (arXiv 2411.19477), knockout algorithm and its theorem.
    """
    at_least("tournament", n=n, k=k)
    template = template_of(template, "tournament", "first", "second")
    ask = Ask(problem, model, score, seed, temperature)
    left = [s.text for s in await ask(n=n)]
    rounds, draws = 0, 0
    while len(left) > 1 and not ask.spent:
        lanes = [ask.branch(f"round{rounds:03}/{i:05}") for i in range(len(left) // 2)]
        pairs = [(left[2 * i], left[2 * i + 1]) for i in range(len(lanes))]
        won = await together([_match(a, p, k, template) for a, p in zip(lanes, pairs, strict=True)])
        draws += sum(w is None for w in won)
        beaten = [p[w or 0] for p, w in zip(pairs, won, strict=True)]
        left, rounds = [*beaten, *left[2 * len(pairs) :]], rounds + 1
    return ask.answer(left[0] if left else "", rounds=rounds, draws=draws, tie_rule="first", left=len(left))


async def _match(ask: Ask, pair: tuple[str, str], k: int, template: str) -> int | None:
    """Which of the two won: 0 or 1; None for a draw. An answer beats none."""
    keys = [ask.model.key(t) for t in pair]
    if keys[0] == keys[1] or None in keys:
        return int(keys[0] is None and keys[1] is not None)
    told = {"problem": ask.problem.prompt}
    straight = filled(template, first=pair[0], second=pair[1], **told)
    crossed = filled(template, first=pair[1], second=pair[0], **told)
    ballots = [(choice_of(s.text, 2), 0) for s in await ask(straight, n=(k + 1) // 2)]
    ballots += [(choice_of(s.text, 2), 1) for s in await ask(crossed, n=k // 2)]
    wins = [sum(c is not None and c ^ swap == side for c, swap in ballots) for side in (0, 1)]
    return None if wins[0] == wins[1] else int(wins[1] > wins[0])
