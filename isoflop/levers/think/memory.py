"""Memory of past attempts around any strategy."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from isoflop.levers.think._ask import Ask, at_least, filled, numbered, said_yes, settings_of
from isoflop.levers.think._strategy import get_strategy
from isoflop.levers.think._strategy import settings as own_settings
from isoflop.levers.think._templates import template_of
from isoflop.levers.think._types import Answer, Model, Problem, Score

USE = """{memories}

Above are lessons from earlier problems. Use them where they help.

{problem}"""

DISTIL = """{problem}

{attempts}

### Answer handed out
{answer}

Was this a success? Say why it worked, or why it failed, comparing the attempts. Then write one lesson that would help
with other problems of the kind, not the solution of this one. End with these four lines:
Verdict: yes or no
Title: a few words
Description: one sentence
Content: the lesson, in one to three sentences"""


@dataclass(frozen=True)
class Lesson:
    """One memory: what to do or avoid, from a success or a failure on a problem."""

    title: str
    description: str
    content: str
    success: bool
    problem: str = ""  # the problem's id
    about: str = ""  # its prompt, by which it is found again


@dataclass(frozen=True)
class Bank:
    """How many lessons are recalled, the template that puts them before the prompt, and the one that asks for one.

    use: with {memories} and {problem}; distil: with {answer}, and {problem} and {attempts}. It must have four lines
    written, "Verdict:", "Title:", "Description:" and "Content:". Both are texts or paths of text files.
    """

    top: int = 1
    use: str = USE
    distil: str = DISTIL


BANK = Bank()


async def memory(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    strategy: str | Callable[..., Any] = "majority",
    lessons: Sequence[Lesson | Mapping[str, Any]] = (),
    bank: Any = BANK,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Answer:
    """Any strategy, with the most related lessons before the prompt; what it taught comes back in info["learnt"]

    Nothing is kept here: the caller adds info["learnt"], a list of lessons as mappings, to the next call's `lessons`.
    Whether it was a success is judged by the model, without the reference; several samples are contrasted. bank: the
    fields of `Bank` (top, use, distil). Source: ReasoningBank, Ouyang et al. 2025 (arXiv 2509.25140): title,
    description, content; lessons from failures too; one retrieved by default; parallel contrast as in MaTTS. Related is
    by words here, by embeddings there.
    """
    bank = settings_of(Bank, bank)
    at_least("memory", top=bank.top)
    use = template_of(bank.use, "memory (use)", "memories", "problem")
    distil = template_of(bank.distil, "memory (distil)", "answer")
    known = [Lesson(**m) if isinstance(m, Mapping) else m for m in lessons]
    used = recall(known, problem.prompt, top=bank.top)
    told = numbered([f"{m.title}: {m.description}\n{m.content}" for m in used], word="Lesson")
    prompt = filled(use, memories=told, problem=problem.prompt) if used else problem.prompt
    inner = Problem(problem.id, prompt, problem.extra)
    own = {**({"seed": seed} if "seed" in own_settings(strategy) else {}), **(settings or {})}
    answer: Answer = await get_strategy(strategy)(inner, model, score, **own)
    ask = Ask(problem, model, score, seed, 0.0, "/distil")
    learnt = await _distil(ask, answer, distil) if answer.text and "stopped" not in answer.info else []
    info = {**answer.info, "recalled": [m.title for m in used], "learnt": [asdict(m) for m in learnt]}
    return Answer(answer.text, answer.key, (*answer.samples, *ask.log.samples), info)


async def _distil(ask: Ask, answer: Answer, template: str) -> list[Lesson]:
    attempts = numbered([s.text[-2000:] for s in answer.samples[:4]], word="Attempt")
    prompt = filled(template, problem=ask.problem.prompt, attempts=attempts, answer=answer.text[-2000:])
    said = await ask(prompt)
    if not said:
        return []
    lines = re.findall(r"^(Title|Description|Content):(.+)$", said[0].text, re.MULTILINE)
    parts = {name.lower(): text.strip() for name, text in lines}
    if {"title", "description", "content"} - set(parts):
        return []
    success = said_yes(said[0].text)
    return [Lesson(**parts, success=bool(success), problem=ask.problem.id, about=ask.problem.prompt)]


def recall(lessons: Iterable[Lesson], prompt: str, *, top: int = 1) -> list[Lesson]:
    """The lessons whose problems share most with the prompt: cosine of words, rare words weighing more; none at 0."""
    lessons = list(lessons)
    bags = [Counter(_words(m.about or f"{m.title} {m.description}")) for m in lessons]
    here = Counter(_words(prompt))
    seen = Counter(w for b in [*bags, here] for w in b)
    rare = {w: math.log(1 + (len(bags) + 1) / c) for w, c in seen.items()}
    like = [_cosine(here, b, rare) for b in bags]
    order = sorted(range(len(lessons)), key=lambda i: (-like[i], -i))  # the later of equals
    return [lessons[i] for i in order[:top] if like[i] > 0]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", text.lower())


def _cosine(a: Counter[str], b: Counter[str], weight: Mapping[str, float]) -> float:
    dot = sum(a[w] * b[w] * weight[w] ** 2 for w in a if w in b)
    norms = [math.sqrt(sum((c * weight[w]) ** 2 for w, c in bag.items())) for bag in (a, b)]
    return dot / (norms[0] * norms[1]) if all(norms) else 0.0
