"""How a strategy asks: a seed for every call, what came back is kept, and a spent budget is noted, not raised."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isoflop.levers.think._answers import Vote, vote
from isoflop.levers.think._types import (
    Answer,
    BudgetSpent,
    Model,
    ModelError,
    Problem,
    Sample,
    Score,
    ScoreError,
)


def derive(seed: int, *place: object) -> int:
    """A seed for one place in a strategy, below 2^31; the first plain call keeps the seed it was given."""
    if place == ("", 0):
        return seed
    digest = hashlib.blake2b("/".join(map(str, (seed, *place))).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass
class _Log:
    got: dict[tuple[str, int], list[Sample]] = field(default_factory=dict)
    spent: bool = False
    failed: list[str] = field(default_factory=list)
    unscored: int = 0

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples in the order of their places, whatever order they arrived in."""
        return tuple(s for place in sorted(self.got) for s in self.got[place])


@dataclass
class Ask:
    """One strategy's way to the model and the score. After a spent budget every call comes back empty.

    A failed call gives no samples; if nothing at all came back and something failed, `answer` raises ModelError.
    """

    problem: Problem
    model: Model
    score: Score | None = None
    seed: int = 0
    temperature: float | None = None
    path: str = ""
    calls: int = 0
    log: _Log = field(default_factory=_Log)

    def branch(self, name: object) -> Ask:
        """The same conversation with seeds of its own: what runs side by side must not share a counter."""
        return Ask(
            self.problem, self.model, self.score, self.seed, self.temperature, f"{self.path}/{name}", 0, self.log
        )

    @property
    def spent(self) -> bool:
        """Whether the budget is spent."""
        return self.log.spent

    async def __call__(self, prompt: str | None = None, *, n: int = 1, **settings: Any) -> list[Sample]:
        """At most n samples of the prompt (the problem's, unless told); none where the budget is spent or it failed."""
        place, self.calls = self.calls, self.calls + 1
        if self.log.spent or n < 1:
            return []
        settings.setdefault("temperature", self.temperature)
        try:
            got = await self.model.sample(
                self.problem.prompt if prompt is None else prompt,
                n=n,
                seed=derive(self.seed, self.path, place),
                **settings,
            )
        except BudgetSpent:
            self.log.spent = True
            return []
        except ModelError as error:
            self.log.failed.append(str(error))
            return []
        self.log.got[self.path, place] = list(got)
        return list(got)

    async def scores(self, texts: Sequence[str]) -> list[float] | None:
        """One finite score each; None where there is no score, or none could be had any more."""
        if self.score is None or not texts:
            return None if self.score is None else []
        try:
            got = await self.score(self.problem, list(texts))
        except (BudgetSpent, ModelError) as error:
            self._no_score(error)
            return None
        return checked_scores(got, len(texts))

    async def step_scores(self, texts: Sequence[str]) -> list[list[float]] | None:
        """Process scores of each text; a verifier without them scores the text as far as it goes, as its last step."""
        if self.score is None or not texts:
            return None if self.score is None else []
        try:
            got = await self.score.steps(self.problem, list(texts))
        except ScoreError:
            whole = await self.scores(texts)
            return None if whole is None else [[x] for x in whole]
        except (BudgetSpent, ModelError) as error:
            self._no_score(error)
            return None
        checked_scores([x for each in got for x in each], sum(map(len, got)))
        if len(got) != len(texts):
            raise ScoreError(f"the verifier gave step scores for {len(got)} of {len(texts)} texts")
        return [list(map(float, each)) for each in got]

    def _no_score(self, error: Exception) -> None:
        self.log.unscored += 1
        if isinstance(error, BudgetSpent):
            self.log.spent = True
        else:
            self.log.failed.append(str(error))

    def keys(self, samples: Sequence[Sample]) -> list[str | None]:
        """The canonical answers of samples."""
        return [self.model.key(s.text) for s in samples]

    def answer(self, text: str, *, key: str | None = None, **info: Any) -> Answer:
        """The strategy's answer, with what it wants recorded. Raises ModelError where every call failed."""
        if not self.log.samples and self.log.failed and not self.log.spent:
            raise ModelError(self.log.failed[-1])
        found = key if key is not None else (self.model.key(text) if text else None)
        kept = {k: v for k, v in info.items() if v is not None}
        if self.log.spent:
            kept["stopped"] = "budget"
        if self.log.failed:
            kept["failed_calls"] = len(self.log.failed)
        if self.log.unscored:
            kept["unscored"] = self.log.unscored
        return Answer(text, found, self.log.samples, kept)

    def by_vote(
        self, samples: Sequence[Sample], weights: Sequence[float] | None = None, *, tie: str = "first", **info: Any
    ) -> Answer:
        """The answer with most votes; where no text has one, the first text that was not cut off."""
        won = vote(self.keys(samples), weights, tie=tie)
        return self.from_vote(samples, won, **info)

    def from_vote(self, samples: Sequence[Sample], won: Vote, **info: Any) -> Answer:
        """The answer that a vote over `samples` came to."""
        if won.index is None:
            whole = [s for s in samples if s.finish == "stop"] or list(samples)
            return self.answer(whole[0].text if whole else "", **{"votes": {}, "tie_rule": won.rule} | info)
        return self.answer(samples[won.index].text, key=str(won.key), **won.info | info)

    def best(self, samples: Sequence[Sample], scores: Sequence[float] | None, **info: Any) -> Answer:
        """The sample of highest score, the earliest where several share it; without scores, the vote."""
        if scores is None or not samples:
            return self.by_vote(samples, chosen_by="vote", **info)
        index, tied = argmax(scores)
        told = {"scores": list(scores), "tie": tied if len(tied) > 1 else None, "tie_rule": "first"}
        return self.answer(samples[index].text, **told | info)


def argmax(scores: Sequence[float]) -> tuple[int, list[int]]:
    """Where the highest score stands, and all the places that share it; the earliest wins."""
    top = max(scores)
    tied = [i for i, x in enumerate(scores) if x == top]
    return tied[0], tied


def checked_scores(scores: Sequence[float], n: int) -> list[float]:
    got = [float(x) for x in scores]
    if len(got) != n:
        raise ScoreError(f"the verifier gave {len(got)} scores for {n} texts")
    if not all(map(math.isfinite, got)):
        raise ScoreError("the verifier gave a score that is not a finite number")
    return got


async def together(calls: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run side by side, in order; if one raises, the others are cancelled before it is raised."""
    tasks = [asyncio.ensure_future(c) for c in calls]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def needs_score(score: Score | None, name: str) -> Score:
    """The score. Raises ValueError where a strategy that chooses by it has none."""
    if score is None:
        raise ValueError(f"{name} chooses by a score: give it one (score=...), or use majority")
    return score


def at_least(name: str, **counts: float) -> None:
    """Raise ValueError where a setting is below 1."""
    for setting, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}: {setting}={value} must be at least 1")


def filled(template: str, **values: object) -> str:
    """A template with {names} filled in; other braces, as in code and LaTeX, stay as they are.

    {name|Word}: of `numbered` texts, the word before the numbers of their headings.
    """

    def value(found: re.Match[str]) -> str:
        given = values[found[1]]
        return str(given(found[2]) if callable(given) else given)

    return re.sub(rf"\{{({'|'.join(map(re.escape, values))})(?:\|([^{{}}\n]+))?\}}", value, template)


def numbered(texts: Sequence[str], *, word: str = "Solution") -> Callable[[str | None], str]:
    """For `filled`: texts under numbered headings, each with `word` unless the template has another."""
    return lambda own: "\n\n".join(f"### {own or word} {i}\n{t.strip()}" for i, t in enumerate(texts, 1))


def picked(text: str, n: int) -> int | None:
    """The place (from 0) that a judge's "Choice: k" names; None where it names none of the n."""
    found = re.findall(r"choice\W{0,4}(\d+)", text, re.IGNORECASE)
    return int(found[-1]) - 1 if found and 1 <= int(found[-1]) <= n else None


def said_yes(text: str) -> bool | None:
    """What a judge's "Verdict: yes" or "Verdict: no" says; None where it says neither."""
    found = re.findall(r"verdict\W{0,4}(yes|no|true|false|correct|incorrect)\b", text, re.IGNORECASE)
    return found[-1].lower() in ("yes", "true", "correct") if found else None


def settings_of(kind: type, given: Any) -> Any:
    """A settings object from itself or from a mapping, as a file or the command line gives it."""
    if isinstance(given, kind):
        return given
    if isinstance(given, Mapping):
        try:
            return kind(**given)
        except TypeError as error:
            raise ValueError(f"{kind.__name__}: {error}") from None
    raise ValueError(f"{kind.__name__} settings must be a {kind.__name__} or a mapping, not {type(given).__name__}")
