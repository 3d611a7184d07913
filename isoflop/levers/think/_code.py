"""Code in texts, and whether it passes tests."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from isoflop.levers.think import _sandbox
from isoflop.levers.think._ask import Ask, filled, settings_of, together
from isoflop.levers.think._templates import template_of
from isoflop.levers.think._types import Problem, Sample

WRITE_TESTS = """{problem}

Write Python tests for a solution to this problem, one per fenced block. Each block is a short program that runs after
the solution in the same file and raises an AssertionError if the solution is wrong. Do not write the solution."""


@dataclass(frozen=True)
class Tests:
    """How many texts of tests are asked for, by which template with {problem}, and the limits they run under."""

    texts: int = 4
    template: str = WRITE_TESTS
    limits: Any = _sandbox.LIMITS

    @classmethod
    def of(cls, given: Any, who: str) -> Tests:
        """From itself, a mapping, or the number of texts. Raises ValueError for another template."""
        made = settings_of(cls, {"texts": given} if isinstance(given, int) else given)
        text = template_of(made.template, f"{who} (tests)", "problem")
        return replace(made, template=text, limits=settings_of(_sandbox.Limits, made.limits))


def code_in(text: str) -> str:
    """The last fenced block; without fences the whole text, where it compiles; else nothing."""
    blocks = blocks_in(text)
    if blocks:
        return blocks[-1]
    try:
        compile(text, "text", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    return text.strip()


def blocks_in(text: str) -> list[str]:
    """All fenced blocks that are not empty."""
    found = re.findall(r"```[ \t]*[\w+-]*[ \t]*\n(.*?)(?:```|\Z)", text, flags=re.DOTALL)
    return [b.strip() for b in found if b.strip()]


async def passes(
    code: str, tests: Sequence[str], *, limits: _sandbox.Limits, slots: asyncio.Semaphore | None = None
) -> list[bool]:
    """Which tests a program passes; each is appended to it and run alone. Nothing passes without code."""
    if not code:
        return [False] * len(tests)
    slots = slots or asyncio.Semaphore(4)

    async def one(test: str) -> bool:
        mark = secrets.token_hex(8)  # seen at the end only: a program that leaves early with exit code 0 has not passed
        async with slots:
            done = await _sandbox.run(f"{code}\n\n{test}\nprint({mark!r})\n", limits=limits)
        return done.ok and done.stdout.rstrip().endswith(mark)

    return await together([one(t) for t in tests])


def distinct(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Programs and the samples that hold them, in the order first seen; texts without code are left out."""
    found: dict[str, list[Sample]] = {}
    for s in samples:
        code = code_in(s.text)
        if code:
            found.setdefault(code, []).append(s)
    return found


async def written_tests(ask: Ask, tests: Tests) -> list[str]:
    """Distinct generated tests."""
    texts = await ask(filled(tests.template, problem=ask.problem.prompt), n=tests.texts)
    return list(dict.fromkeys(b for t in texts for b in blocks_in(t.text)))


async def tests_passed(
    programs: Sequence[str], problem: Problem, written: Sequence[str], limits: _sandbox.Limits
) -> dict[str, tuple[int, int]]:
    """Public tests (`extra["tests"]`) and generated tests passed, for each program."""
    public, scores = list(problem.extra.get("tests", ())), {}
    for code in programs:
        passed = await passes(code, [*public, *written], limits=limits)
        scores[code] = (sum(passed[: len(public)]), sum(passed[len(public) :]))
    return scores
