"""Thinking made longer or shorter by force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isoflop.levers.think._ask import Ask, at_least, settings_of
from isoflop.levers.think._templates import template_of
from isoflop.levers.think._types import Answer, Model, Problem, Score


@dataclass(frozen=True)
class Marks:
    """What ends the thinking, what is put in its place to go on, and what opens the answer: texts, or text files."""

    end: str = "</think>"
    wait: str = "\nWait"
    final: str = "\nFinal answer:"


MARKS = Marks()


async def budget_forcing(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    thinking: int = 4096,
    waits: int = 2,
    answer_tokens: int = 512,
    marks: Any = MARKS,
    seed: int = 0,
) -> Answer:
    """One chain, cut at `thinking` tokens, and made to go on `waits` times where it would have stopped

    When the model ends its thinking before the limit, its end is left out and "Wait" is put there; when it reaches the
    limit, the end mark and the opening of the answer are put there, so that a cut chain always answers. The
    temperature is 0. Source: s1, Muennighoff et al. 2025 (arXiv 2501.19393), section 3.1.
    """
    at_least("budget_forcing", thinking=thinking, answer_tokens=answer_tokens)
    m = Marks(**{name: template_of(text, "budget_forcing") for name, text in vars(settings_of(Marks, marks)).items()})
    ask = Ask(problem, model, score, seed, 0.0)
    text, used, waited = "", 0, 0
    while used < thinking:
        got = await ask(prefix=text, max_tokens=thinking - used, stop=(m.end,))
        if not got:
            return ask.answer(text, thinking=used, waits=waited)
        text, used = text + got[0].text, used + got[0].gen_tokens
        if got[0].finish == "length" or waited == waits or (waited and not got[0].gen_tokens):
            break
        text, waited = text + m.wait, waited + 1
    opened = text + m.end + m.final
    told = await ask(prefix=opened, max_tokens=answer_tokens)
    forced: dict[str, Any] = {"thinking": used, "waits": waited, "cut": used >= thinking}
    return ask.answer(opened + told[0].text if told else text, **forced)
