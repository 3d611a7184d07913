"""A language model as judge, by k votes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from isoflop.levers.think._ask import filled, together
from isoflop.levers.think._templates import VERIFY, template_of, verdict_of
from isoflop.levers.think._types import Model, Problem, ScoreError
from isoflop.levers.think.verifiers._base import Whole


@dataclass(frozen=True)
class Judge(Whole):
    """The share of k readings of a text by `model` that say it is correct

    model: a metered handle, so that what the judge costs is counted. Equal texts are judged once. The standard error of
    a score is at most 1 / (2 sqrt k). template: a text or the path of a text file, with {solution}, and {problem};
    ValueError for another. Source: GenRM with majority, Zhang et al. 2024 (arXiv 2408.15240); votes over k
    for generative rewards: Liu et al. 2025 (arXiv 2504.02495).
    """

    model: Model
    k: int = 4
    template: str = VERIFY
    temperature: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        template_of(self.template, "judge", "solution")

    async def __call__(self, problem: Problem, texts: Sequence[str]) -> list[float]:
        """One score each. Raises ScoreError where no reading of a text gave a verdict; BudgetSpent, ModelError."""
        different = list(dict.fromkeys(texts))
        scores = dict(zip(different, await together([self._one(problem, t) for t in different]), strict=True))
        return [scores[t] for t in texts]

    async def _one(self, problem: Problem, text: str) -> float:
        prompt = filled(template_of(self.template, "judge", "solution"), problem=problem.prompt, solution=text)
        seed = zlib.crc32(text.encode()) ^ self.seed
        read = await self.model.sample(prompt, n=self.k, temperature=self.temperature, seed=seed & 0x7FFFFFFF)
        said = [v for v in (verdict_of(s.text) for s in read) if v is not None]
        if not said:
            raise ScoreError(f"none of {len(read)} readings of a solution to {problem.id!r} gave a verdict")
        return sum(said) / len(said)
