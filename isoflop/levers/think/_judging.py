"""From a verifier's name to the score of a strategy, and to the grader that no strategy sees."""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from isoflop import _find
from isoflop.levers.think._answers import canonical, key_of
from isoflop.levers.think._meter import Account, Spent
from isoflop.levers.think._model import MeteredModel
from isoflop.levers.think._types import Problem, Score

if TYPE_CHECKING:
    from isoflop.levers.think import Think

_VERIFIERS = "levers/think/verifiers"
Grade = Callable[[Problem, Sequence[str]], Any]


@dataclass
class MeteredScore:
    """A verifier that counts its calls and seconds; models inside it are metered handles of role "score".

    handle: of the strategy, beside whose samples the scores are kept, under the verifier's `name`.
    """

    score: Score
    account: Account
    counted: bool = True  # False: what it spends is counted by the model inside it
    handle: MeteredModel | None = None
    name: str = ""

    async def __call__(self, problem: Problem, texts: Sequence[str]) -> list[float]:
        scores: list[float] = await self._timed(self.score(problem, texts))
        if self.handle is not None and len(scores) == len(texts):
            await self.handle.note_scores(self.name, texts, scores)
        return scores

    async def steps(self, problem: Problem, texts: Sequence[str]) -> list[list[float]]:
        return await self._timed(self.score.steps(problem, texts))

    async def _timed(self, call: Any) -> Any:
        self.account.check()
        began = time.perf_counter()
        try:
            return await call
        finally:
            spent = Spent(calls=1, call_seconds=time.perf_counter() - began) if self.counted else Spent()
            self.account.charge(spent, paid=spent, role="score")


def make_score(lever: Think) -> Callable[[Account, MeteredModel], MeteredScore] | None:
    """(account, model) -> the metered verifier of one problem; None where the lever names none.

    Raises ValueError for a verifier that would need the reference answers: choosing by them measures coverage.
    """
    if lever.score is None:
        return None
    kind = _kind(lever.score)
    if "references" in _fields(kind):
        raise ValueError(
            f"score {lever.score!r} needs the reference answers, which no strategy may see; "
            f"grade with it, and read coverage off the recorded samples (isoflop think replay)"
        )
    _verifier(lever.score, lever.score_settings, model=None)  # a wrong setting is said before anything is spent
    name = lever.score
    if lever.score_settings:  # they may hold what no store should, so only a mark of them is kept
        settings = json.dumps(dict(lever.score_settings), sort_keys=True, default=str)
        name += f" {hashlib.sha256(settings.encode()).hexdigest()[:8]}"

    def make(account: Account, handle: MeteredModel) -> MeteredScore:
        model = MeteredModel(handle.backend, account, handle.problem, handle.strategy, handle.run, role="score")
        verifier = _verifier(str(lever.score), lever.score_settings, model=model)
        return MeteredScore(verifier, account, counted=not _needs_model(kind), handle=handle, name=name)

    return make


def make_grade(lever: Think) -> Grade:
    """(problem, texts) -> for each whether it is right, by the reference answers; awaited where it must be."""
    if lever.grade == "exact":
        right = {i: canonical(answer) for i, answer in lever.problem_set.answers.items()}

        def exact(problem: Problem, texts: Sequence[str]) -> list[bool]:
            return [key_of(text, rule=lever.rule) == right[problem.id] for text in texts]

        return exact
    given: dict[str, Any] = {"references": lever.problem_set.answers, "rule": lever.rule}
    known = {name: value for name, value in given.items() if name in _fields(_kind(lever.grade))}
    verifier = _verifier(lever.grade, {**known, **lever.grade_settings}, model=None)

    async def grade(problem: Problem, texts: Sequence[str]) -> list[bool]:
        return [score >= 0.5 for score in await verifier(problem, texts)]

    return grade


async def graded(grade: Grade, problem: Problem, texts: Sequence[str]) -> list[bool]:
    """What a grader says, whether it has to be waited for or not."""
    found = grade(problem, texts)
    return list(await found if inspect.isawaitable(found) else found)


def _kind(name: str) -> Any:
    found = _find.get(_VERIFIERS, name)
    return found


def _verifier(name: str, settings: Mapping[str, Any], *, model: MeteredModel | None) -> Score:
    """A verifier by its name, or your own function (problem, text) -> number as "file.py:name"."""
    from isoflop.levers.think.verifiers.function import Function
    from isoflop.levers.train._check import known

    kind = _kind(name)
    if not isinstance(kind, type):
        return Function(kind)
    for setting in settings:
        known(setting, _fields(kind), what=f"setting of {name}")
    given = {k: _find.get(_VERIFIERS, v) if isinstance(v, str) and ".py:" in v else v for k, v in settings.items()}
    if _needs_model(kind):
        given["model"] = model
    try:
        made: Score = kind(**given)
    except TypeError as error:
        raise ValueError(f"verifier {name!r}: {error}; its settings are {', '.join(_fields(kind))}") from None
    return made


def _fields(kind: Any) -> list[str]:
    return [f.name for f in fields(kind)] if is_dataclass(kind) else []


def _needs_model(kind: Any) -> bool:
    """Whether it samples from a model: a field `model` that must be given."""
    return is_dataclass(kind) and any(f.name == "model" and f.default is MISSING for f in fields(kind))
