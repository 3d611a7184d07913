"""Execution-based and execution-free verification together."""

from __future__ import annotations

from typing import Any

from isoflop.levers.think._ask import Ask, at_least, needs_score
from isoflop.levers.think._code import Tests, distinct, tests_passed, written_tests
from isoflop.levers.think._types import Answer, Model, Problem, Score


async def hybrid_verify(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    n: int = 8,
    tests: Any = 4,
    keep: int = 4,
    seed: int = 0,
) -> Answer:
    """argmax over programs of s_tests + s_free, among the `keep` of highest s_free

    s_tests: generated tests passed, which rarely tell good programs apart; s_free in [0, 1]: the score of the text,
    which is biased by style. As the first is a whole number, the second decides among equals. Public tests,
    extra["tests"], count as tests. tests: how many texts of them are asked for, or the fields of `_code.Tests` (texts,
    template, limits). Source: R2E-Gym, Jain et al. 2025 (arXiv 2504.07164), hybrid verifier: execution-
    free scores choose the top n, then both are added (form from memory of its section 4). Raises ValueError without a
    score, RuntimeError where there is no sandbox.
    """
    at_least("hybrid_verify", n=n, keep=keep)
    how = Tests.of(tests, "hybrid_verify")
    ask = Ask(problem, model, needs_score(score, "hybrid_verify"), seed)
    samples = await ask(n=n)
    programs = distinct(samples)
    written = await written_tests(ask.branch("tests"), how)
    free = await ask.scores([p[0].text for p in programs.values()]) if programs else []
    if not programs:
        return ask.by_vote(samples, chosen_by="vote")
    by_code = dict(zip(programs, free or [0.0] * len(programs), strict=True))
    top = sorted(programs, key=lambda c: -by_code[c])[:keep] if free else list(programs)
    passed = await tests_passed(top, problem, written, how.limits)
    total = {c: sum(passed[c]) + min(max(by_code[c], 0.0), 1.0) for c in top}
    best = max(top, key=lambda c: total[c])
    told: dict[str, Any] = {"tests": len(written), "passed": [sum(passed[c]) for c in top]}
    return ask.answer(programs[best][0].text, free=[by_code[c] for c in top], **told)
