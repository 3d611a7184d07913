"""Code by generated tests, a vote over them, and a selection turn."""

from __future__ import annotations

from typing import Any

from isoflop.levers.think._ask import Ask, at_least, filled, numbered, picked
from isoflop.levers.think._code import Tests, distinct, tests_passed, written_tests
from isoflop.levers.think._templates import template_of
from isoflop.levers.think._types import Answer, Model, Problem, Score

SELECT = """{problem}

{solutions}

Tests passed by each candidate:
{results}

Decide which candidate solves the problem. Think of cases in which they differ. End with the line "Choice: k", where k
is the candidate's number."""


async def code_tests(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    n: int = 8,
    tests: Any = 4,
    keep: int = 3,
    template: str = SELECT,
    seed: int = 0,
) -> Answer:
    """n programs, every one under every generated test; the model chooses among the `keep` best

    A program's score is the number of distinct tests that it passes; the problem's public tests, extra["tests"], count
    first. Equal programs are run once and have their votes together as a tie-break. One clear winner needs no turn.
    tests: how many texts of them are asked for, or the fields of `_code.Tests` (texts, template, limits). template: of
    the selection, a text or the path of a text file, with {solutions}, and {problem} and {results}.
    Source: CodeMonkeys, Ehrlich et al. 2025 (arXiv 2501.14723), section 4: vote by model-written tests, top three,
    then selection; there over whole trajectories. Raises RuntimeError where there is no sandbox.
    """
    at_least("code_tests", n=n, keep=keep)
    how, template = Tests.of(tests, "code_tests"), template_of(template, "code_tests", "solutions")
    ask = Ask(problem, model, score, seed)
    samples = await ask(n=n)
    programs = distinct(samples)
    written = await written_tests(ask.branch("tests"), how)
    scores = await tests_passed(list(programs), problem, written, how.limits)
    order = sorted(programs, key=lambda c: (*(-x for x in scores[c]), -len(programs[c])))
    told: dict[str, Any] = {"tests": len(written), "programs": len(programs), "passed": [scores[c] for c in order]}
    if not order:
        return ask.by_vote(samples, chosen_by="vote", **told)
    level = [c for c in order if scores[c] == scores[order[0]]]
    if len(level) == 1 or keep == 1:
        return ask.answer(programs[order[0]][0].text, chosen_by="tests", **told)
    chosen = await _select(ask.branch("select"), {c: sum(scores[c]) for c in order[:keep]}, template)
    place = 0 if chosen is None else chosen
    return ask.answer(programs[order[place]][0].text, chosen_by="tests" if chosen is None else "selection", **told)


async def _select(ask: Ask, passed: dict[str, int], template: str) -> int | None:
    shown = numbered([f"```\n{c}\n```" for c in passed], word="Candidate")
    results = "\n".join(f"{i}: {count}" for i, count in enumerate(passed.values(), 1))
    prompt = filled(template, problem=ask.problem.prompt, solutions=shown, results=results)
    said = await ask(prompt, temperature=0.0)
    return picked(said[0].text, len(passed)) if said else None
