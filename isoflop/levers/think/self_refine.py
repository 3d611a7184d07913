"""Feedback and refinement in turns, with pluggable phrases."""

from __future__ import annotations

from collections.abc import Sequence

from isoflop.levers.think._ask import Ask, at_least, filled
from isoflop.levers.think._templates import CRITIQUE, REFINE, template_of, verdict_of
from isoflop.levers.think._types import Answer, Model, Problem, Sample, Score

PLAIN = ("Review your solution, point out every mistake, and say how to mend it.",)

# one phrase for each of Ekman's six emotions, in turn critical and encouraging; the wording is ours
TONES = (
    "This is maddening: the same careless slip again. Find it and put it right.",  # anger
    "What if the answer is right under your eyes? Look again, and enjoy finding it.",  # joy
    "I worry that this answer will do harm if it is wrong. Check every step.",  # fear
    "Wait, that is surprising! Where does that step come from? Look at it afresh.",  # surprise
    "This reasoning is sloppy enough to put one off. Clean it up completely.",  # disgust
    "It is a pity to see so much work end in a wrong answer. Take heart and try another way.",  # sadness
)


async def self_refine(
    problem: Problem,
    model: Model,
    score: Score | None,
    *,
    turns: int = 3,
    phrases: Sequence[str] | str = PLAIN,
    templates: tuple[str, str] = (CRITIQUE, REFINE),
    temperature: float = 0.8,
    seed: int = 0,
) -> Answer:
    """answer -> feedback -> refined answer, until the feedback finds nothing wrong or `turns` are used

    phrases: what asks for the feedback, one a turn and round again; "tones" for the six emotional tones of HEART.
    templates: for the feedback, with {solution}, and {problem} and {phrase}; for the refinement, with {solution} and
    {feedback}, and {problem}. Each phrase and template is a text or the path of a text file.
    With a score, a score of 1 stops, and the best-scored version is handed out; without, a verdict of "yes" stops, and
    the last version that has an answer is. Source: Self-Refine, Madaan et al. 2023 (arXiv 2303.17651); tones: HEART,
    Pinto et al. 2025 (arXiv 2509.22876), whose gains with an oracle verifier did not hold without one.
    """
    at_least("self_refine", turns=turns, phrases=len(phrases))
    critique = template_of(templates[0], "self_refine (feedback)", "solution")
    refine = template_of(templates[1], "self_refine (refinement)", "solution", "feedback")
    given = TONES if phrases == "tones" else (phrases,) if isinstance(phrases, str) else phrases
    said = [template_of(phrase, "self_refine (phrase)") for phrase in given]
    ask = Ask(problem, model, score, seed, temperature)
    versions: list[Sample] = list(await ask())
    scores = await ask.scores([s.text for s in versions])
    ended = "turns"
    for turn in range(turns if versions else 0):
        if scores and max(scores) >= 1:
            ended = "score"
            break
        feedback = await _ask(ask, critique, solution=versions[-1].text, phrase=said[turn % len(said)])
        if feedback is None or (verdict_of(feedback.text) and not scores):
            ended = "no feedback" if feedback is None else "satisfied"
            break
        better = await _ask(ask, refine, solution=versions[-1].text, feedback=feedback.text)
        if better is None:
            break
        versions.append(better)
        more = await ask.scores([better.text]) if scores is not None else None
        scores = [*(scores or []), *more] if more else None
    if scores:
        return ask.best(versions, scores, ended=ended, versions=len(versions))
    answered = [s for s in versions if model.key(s.text) is not None] or versions
    return ask.answer(answered[-1].text if answered else "", ended=ended, versions=len(versions))


async def _ask(ask: Ask, template: str, **values: str) -> Sample | None:
    got = await ask(filled(template, problem=ask.problem.prompt, **values))
    return got[0] if got else None
