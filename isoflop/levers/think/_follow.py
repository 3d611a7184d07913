"""A plan executed: every problem is looked at and put in its bin, and the budget goes to where it pays.

A bin says which strategy answers. Where it votes, the samples after the first look go to the close votes of the moment,
whichever problems those are (`_online`); where a score chooses and `pass_score` is given, to problems without a sample
that reaches it. What the plan reckoned for these problems, their k, is then a common budget. Otherwise a problem gets
the k of its bin. Everything is drawn in the order of seeds that the strategies use, so a plan takes what a pilot or a
stopped run has put in the store.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoflop.levers.think._allocate import Bin, Share
from isoflop.levers.think._ask import checked_scores
from isoflop.levers.think._meter import Budget, Prices, Spent
from isoflop.levers.think._online import State, next_allocation
from isoflop.levers.think._run import Begun, Work, in_turn
from isoflop.levers.think._strategy import get_strategy
from isoflop.levers.think._types import Answer, BudgetSpent, ModelError, Problem, Score, ScoreError

if TYPE_CHECKING:
    from isoflop.levers.think import Think
    from isoflop.levers.think._model import Backend

_VOTES = ("single", "majority", "adaptive")
_DECIDES: dict[str, tuple[str, dict[str, Any]]] = {  # which strategy answers, once the samples are there
    **dict.fromkeys(_VOTES, ("majority", {})),
    "best_of_n": ("best_of_n", {}),
    "coverage": ("best_of_n", {}),  # the check that the plan counted on is the score
    "weighted_vote": ("weighted_vote", {}),
    "weighted_exp": ("weighted_vote", {"weight": "exp"}),
}
_LOOK = 2  # samples of a vote before it is judged; one vote is never close
_BEYOND = 4  # times the plan's most samples, that moving may give one problem
_PART = 0.5  # of what is left, in one round of moving
_NONE = Share("", 0, 0.0)  # not in a bin yet


# ---- the file --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlanFile:
    """What `isoflop think plan --out` wrote, as far as a run needs it. spent: mean cost of a problem, in `cost`."""

    bins: tuple[Bin, ...]
    signal: str
    probe: int
    cost: str
    spent: float
    accuracy: Mapping[str, Any]
    sha256: str
    sampling: Mapping[str, Any] = field(default_factory=dict)  # temperature, max_tokens, stop of the pilot
    prices: Mapping[str, float] = field(default_factory=dict)


def read_plan(path: str | Path) -> PlanFile:
    """Read a plan. Raises ValueError where it is none, or none that a run can follow."""
    try:
        text = Path(path).read_bytes()
        plan = json.loads(text)
        bins = tuple(_bin(one) for one in plan["bins"])
        found = PlanFile(
            bins, plan["signal"], int(plan["probe"]), plan["cost"], float(plan["spent"]["best"]), plan["accuracy"],
            hashlib.sha256(text).hexdigest(), _sampling(plan.get("sampling") or {}), plan.get("prices") or {},
        )  # fmt: skip
    except OSError as error:
        raise ValueError(f"cannot read the plan {path}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no plan of `isoflop think plan --out`: {type(error).__name__} {error}") from None
    return _followed(found, path)


def _sampling(found: Mapping[str, Any]) -> dict[str, Any]:
    """How to sample, as a Backend takes it."""
    known: dict[str, Any] = {"temperature": float, "max_tokens": int, "stop": tuple}
    return {name: known[name](value) for name, value in found.items() if name in known}


def _bin(one: Mapping[str, Any]) -> Bin:
    low, high = (math.inf * sign if x is None else float(x) for x, sign in ((one["low"], -1), (one["high"], 1)))
    return Bin(low, high, int(one["problems"]), tuple(Share(**s) for s in one["settings"]))


def _followed(plan: PlanFile, path: str | Path) -> PlanFile:
    names = [s.strategy for b in plan.bins for s in b.settings]
    if unknown := [name for name in names if name not in _DECIDES]:
        raise ValueError(f"{path} asks for {unknown[0]!r}, which no run can follow; it can {', '.join(_DECIDES)}")
    if plan.signal not in ("agreement", "score", "none"):
        raise ValueError(f"{path} judges difficulty by {plan.signal!r}, which a run does not have; plan by agreement")
    if any(abs(sum(s.share for s in b.settings) - 1) > 1e-6 or min(s.k for s in b.settings) < 1 for b in plan.bins):
        raise ValueError(f"{path}: the shares of a bin must add up to 1, and each k be 1 or more")
    ends = [b.low for b in plan.bins[1:]]
    if not names or plan.bins[0].low > -math.inf or ends != [b.high for b in plan.bins[:-1]]:
        raise ValueError(f"{path}: its bins leave gaps; each must begin where the one before ends")
    return plan


# ---- a run of it -----------------------------------------------------------------------------------------------------


async def follow(
    lever: Think, setting: Mapping[str, Any], *, seed: int, run: str, backend: Backend
) -> tuple[Work, list[dict[str, Any]], dict[str, Any]]:
    """Every problem through the plan: the work done, a row per problem, and what the plan expected."""
    plan = read_plan(str(lever.plan))
    backend = replace(backend, **{**plan.sampling, **_sampling(setting)})
    if not lever.prices:
        backend = replace(backend, prices=Prices(**plan.prices))
    problems = lever.problem_set.problems
    unit, limit = _budget(lever, plan, len(problems))
    hard = dict(lever.budget) or ({unit: limit} if unit in ("tokens", "gen_tokens", "usd") else {})
    work = Work(lever, "plan", run, backend, budget=Budget(**lever.problem_budget), whole=Budget(**hard))
    one = Following(plan, work, seed, setting.get("pass_score"), unit, limit, lever.calls)
    rows = await one.answer_all(problems)
    low, high = plan.accuracy["interval"]
    expected = {"planned_accuracy": plan.accuracy["best"], "planned_low": low, "planned_high": high}
    return work, rows, {**expected, f"planned_{plan.cost}": plan.spent}


def _budget(lever: Think, plan: PlanFile, problems: int) -> tuple[str, float]:
    """The unit that the run is held to, and how much of it; the plan's own unless the lever has one."""
    if lever.budget:
        return next(iter(lever.budget.items()))
    if plan.cost not in _AMOUNTS:
        raise ValueError(f"the plan counts {plan.cost}, and a run cannot; give a budget in tokens, usd or seconds")
    return plan.cost, plan.spent * problems


_AMOUNTS = {
    "tokens": lambda s: s.prompt_tokens + s.gen_tokens,
    "gen_tokens": lambda s: s.gen_tokens,
    "prompt_tokens": lambda s: s.prompt_tokens,
    "usd": lambda s: s.usd,
    "seconds": lambda s: s.call_seconds,
    "flops": lambda s: s.flops,
    "samples": lambda s: s.samples,
}


@dataclass
class _One:
    """A problem under way: what was drawn, and which setting its bin gave it."""

    begun: Begun
    score: _Remembered | None
    keys: list[str | None] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    mark: float = 0.0
    place: int = 0
    share: Share = _NONE
    ended: bool = False  # by the budget
    error: Exception | None = None

    @property
    def going(self) -> bool:
        return self.share.k > 0 and not self.ended and self.error is None


class _Remembered:
    """A verifier that is asked, and paid, once for each text of its problem."""

    def __init__(self, score: Score) -> None:
        self.score, self.known = score, dict[str, float]()

    async def __call__(self, problem: Problem, texts: Sequence[str]) -> list[float]:
        new = list(dict.fromkeys(t for t in texts if t not in self.known))
        if new:
            self.known |= zip(new, checked_scores(await self.score(problem, new), len(new)), strict=True)
        return [self.known[t] for t in texts]

    async def steps(self, problem: Problem, texts: Sequence[str]) -> list[list[float]]:
        return await self.score.steps(problem, texts)


@dataclass
class Following:
    """One run of a plan. limit: of `unit`, for all problems."""

    plan: PlanFile
    work: Work
    seed: int
    pass_score: float | None
    unit: str
    limit: float
    at_once: int

    async def answer_all(self, problems: Sequence[Problem]) -> list[dict[str, Any]]:
        """A row per problem."""
        scored = self.plan.signal == "score" or any(
            s.strategy not in _VOTES for b in self.plan.bins for s in b.settings
        )
        if scored and self.work.score is None:
            raise ValueError("the plan chooses by a score: give the verifier that its pilot had (score=, --score)")
        ones = []
        for begun in map(self.work.begin, problems):
            score = self.work.scorer(begun) if scored else None
            ones.append(_One(begun, None if score is None else _Remembered(score)))
        await self._draw_all([(one, max(self.plan.probe, 1)) for one in ones], what="probe")
        self._assign(ones)
        await self._draw_all([(one, min(_LOOK, one.share.k)) for one in ones if self._kind(one)], what="look")
        await self._draw_all([(one, one.share.k) for one in ones if not self._kind(one)], what="plan")
        await self._move(ones)
        return await in_turn(ones, self._finish, at_once=self.at_once, what="answers")

    async def _draw_all(self, wanted: Sequence[tuple[_One, int]], *, what: str) -> None:
        """Have so many samples of each, where they are not there and the budget lasts."""
        todo = [(one, n) for one, n in wanted if n > len(one.keys) and not one.ended and one.error is None]
        await in_turn(todo, lambda part: self._draw(*part), at_once=self.at_once, what=what)

    async def _draw(self, one: _One, n: int) -> None:
        """Have n samples of a problem and their scores; fewer where the budget ends, or a call fails."""
        problem = one.begun.problem
        try:
            got = await one.begun.handle.sample(problem.prompt, n=n, seed=self.seed)
            if one.score is not None:
                one.scores = await one.score(problem, [s.text for s in got])
        except BudgetSpent:
            one.ended = True
        except (ModelError, ScoreError) as error:
            one.error = error
        else:
            one.keys, one.ended = [one.begun.handle.key(s.text) for s in got], len(got) < n

    # -- which problem gets what ---------------------------------------------------------------------------------------

    def _assign(self, ones: Sequence[_One]) -> None:
        """Put problems in bins by what their probe showed; the settings of a bin share it by a hash of the problem."""
        drawn = [one for one in ones if one.keys]
        for one in drawn:
            one.mark = _mark(self.plan.signal, one)
            one.place = next(i for i, b in enumerate(self.plan.bins) if b.low <= one.mark < b.high)
        for place, b in enumerate(self.plan.bins):
            mine = sorted((one for one in drawn if one.place == place), key=_hash)
            begin, total = 0.0, 0.0
            for share in b.settings:
                total += share.share
                for one in mine[round(begin * len(mine)) : round(total * len(mine))]:
                    one.share = share
                begin = total

    def _kind(self, one: _One) -> str:
        """What shows that a problem needs no more: its votes, a check, or nothing."""
        if one.share.strategy in _VOTES:
            return "votes"
        return "check" if self._bar(one.share.strategy) is not None else ""

    def _bar(self, strategy: str) -> float | None:
        """The score at which a sample passes; None where none does."""
        if strategy == "coverage":
            return 0.5 if self.pass_score is None else self.pass_score
        return self.pass_score if strategy == "best_of_n" else None

    def _right(self, one: _One) -> int:
        bar = self._bar(one.share.strategy)
        return 0 if bar is None else sum(x >= bar for x in one.scores)

    # -- moving what is left -------------------------------------------------------------------------------------------

    async def _move(self, ones: Sequence[_One]) -> None:
        """Spend what is left where `next_allocation` says that it pays, half of it at a time."""
        while True:
            going = [one for one in ones if one.going and self._kind(one)]
            wanted: list[tuple[_One, int]] = []
            for kind in ("votes", "check"):
                group = [one for one in going if self._kind(one) == kind]
                if group and (left := self._left() * len(group) / len(going)) > 0:
                    more = next_allocation(self._state(group, kind, left), part=_PART)
                    wanted += [(one, int(m)) for one, m in zip(group, more, strict=True) if m]
            if not wanted:
                return
            await self._draw_all([(one, len(one.keys) + m) for one, m in wanted], what="moved")

    def _left(self) -> float:
        account = self.work.whole
        if self.unit == "seconds" and account.budget.seconds is not None:  # of wall time: as many calls at once as now
            return (self.limit - account.seconds) * account.total.call_seconds / max(account.seconds, 1e-9)
        return self.limit - _AMOUNTS[self.unit](account.total)

    def _state(self, group: Sequence[_One], kind: str, left: float) -> State:
        import numpy as np

        total = self.work.whole.total
        mean = self._price(total)
        if not mean > 0:
            raise ValueError(f"the plan is held to {self.unit}, and the samples cost none: give prices, or a budget")
        cost = np.array([self._price(one.begun.account.total) or mean for one in group])
        most = _BEYOND * max(s.k for b in self.plan.bins for s in b.settings)
        tried = np.array([len(one.keys) for one in group])
        if kind == "check":
            return State(tried, cost, left, right=np.array([self._right(one) for one in group]), most=most)
        votes = np.array([_first_two(one.keys) for one in group])
        return State(tried, cost, left, lead=votes[:, 0], second=votes[:, 1], most=most)

    def _price(self, spent: Spent) -> float:
        return float(_AMOUNTS[self.unit](spent)) / spent.samples if spent.samples else 0.0

    async def _finish(self, one: _One) -> dict[str, Any]:
        """The row of a problem: its bin's strategy over all that was drawn."""

        async def answer() -> Answer:
            if one.error is not None:
                raise one.error
            if not one.share.k or not one.keys:
                raise BudgetSpent("the budget was spent")
            name, how = _DECIDES[one.share.strategy]
            own = {"n": len(one.keys), "temperature": None, "seed": self.seed, **how}
            found = await get_strategy(name)(one.begun.problem, one.begun.handle, one.score, **own)
            told = {"answered_by": name, "signal": one.mark, "bin": one.place, "planned": one.share.k}
            return replace(found, info={**found.info, **told, "drawn": len(one.keys)})

        return await self.work.finish(one.begun, answer)


def _mark(signal: str, one: _One) -> float:
    if signal == "score":
        return sum(one.scores) / len(one.scores)
    return _first_two(one.keys)[0] / len(one.keys) if signal == "agreement" else 0.0


def _first_two(keys: Sequence[str | None]) -> tuple[int, int]:
    """Votes of the leading answer and of the runner-up."""
    counts = [n for _, n in Counter(k for k in keys if k is not None).most_common(2)]
    return (*counts, 0, 0)[:2]  # type: ignore[return-value]


def _hash(one: _One) -> str:
    return hashlib.sha256(one.begun.problem.id.encode()).hexdigest()
