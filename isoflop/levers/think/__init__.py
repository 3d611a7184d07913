"""Think: what further compute at test time buys, by strategy, against a real server."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoflop.levers.think._strategy import settings as strategy_settings

if TYPE_CHECKING:
    from isoflop.levers.think._problems import ProblemSet

_LISTS = {"ladder": True}  # fields that only list settings, or change no result: they may differ when resumed
PLAN_SETTINGS = ("temperature", "max_tokens", "stop", "pass_score")  # what can be said beside a plan
_EACH = "problem_"  # over={"problem_tokens": [...]}: the budget of each problem as the axis


@dataclass(frozen=True)
class Think:
    """Answer a file of problems with a strategy, at one or several settings of it, and grade the answers.

    problems: a file with id, prompt and answer; template: what is asked, with {prompt} in it; limit: the first so many
    server: address of an OpenAI-protocol server, or several of one model; model: its name there
    strategy, settings: a name of `isoflop list levers/think`, or "file.py:name", and its own settings
    over: {"n": [1, 4, 16]}: one setting of the strategy with several values, cheap to dear; or the budget of each
        problem, as {"problem_tokens": [500, 2000]}
    plan: a file of `isoflop think plan` in place of strategy and over. It says temperature, max_tokens and stop as its
        pilot had them; settings are then these three, where they should be others, and pass_score (see `_follow`).
        Without a budget the plan's own holds
    score, score_settings: the verifier that the strategy may use, by its name or as "file.py:name"
    grade, grade_settings: the verifier that says right or wrong, which the strategy never sees; grade_samples: note it
        with every sample too; rule: how an answer is found in a text (`_answers.extract`)
    protocol: "chat" or "completions"; system: what stands before
    temperature, max_tokens, stop: where neither a strategy nor a plan says one
    budget, problem_budget: {tokens, gen_tokens, usd, seconds} of a whole setting, and of each problem
    prices: USD per million tokens, {prompt, gen, cached}; config: config.json of the model; params: its parameters
    calls, requests_per_minute, tokens_per_minute, timeout, tries: limits; key_env: environment variable of the key
    use_n: several samples in one call, where the server can; extra: further settings for the server
    store: file of samples; where a sweep writes, unless told
    tolerate: share of problems that may fail and be counted as wrong, before the whole setting has failed
    """

    model: str
    problems: str
    server: str | Sequence[str] = field(default="http://localhost:8000/v1", metadata=_LISTS)
    strategy: str = field(default="majority", metadata=_LISTS)
    settings: Mapping[str, Any] = field(default_factory=dict, metadata=_LISTS)
    over: Mapping[str, Sequence[Any]] = field(default_factory=dict, metadata=_LISTS)
    plan: str | None = field(default=None, metadata=_LISTS)
    score: str | None = None
    score_settings: Mapping[str, Any] = field(default_factory=dict)
    grade: str = "exact"
    grade_settings: Mapping[str, Any] = field(default_factory=dict)
    grade_samples: bool = field(default=True, metadata=_LISTS)
    rule: str = "auto"
    template: str = "{prompt}"
    limit: int | None = None
    protocol: str = "chat"
    system: str = ""
    temperature: float = 0.8
    max_tokens: int = 1024
    stop: Sequence[str] = ()
    budget: Mapping[str, float] = field(default_factory=dict)
    problem_budget: Mapping[str, float] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)
    config: str | None = None
    params: float = 0.0
    calls: int = field(default=64, metadata=_LISTS)
    requests_per_minute: float | None = field(default=None, metadata=_LISTS)
    tokens_per_minute: float | None = field(default=None, metadata=_LISTS)
    timeout: float = field(default=600.0, metadata=_LISTS)
    tries: int = field(default=8, metadata=_LISTS)
    key_env: str = field(default="ISOFLOP_API_KEY", metadata=_LISTS)
    use_n: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    store: str | None = field(default=None, metadata=_LISTS)
    tolerate: float = field(default=0.0, metadata=_LISTS)

    def __post_init__(self) -> None:
        if self.protocol not in ("chat", "completions"):
            raise ValueError(f"protocol is {self.protocol!r}, and should be 'chat' or 'completions'")
        if len(self.over) > 1:
            raise ValueError(f"over has {' and '.join(self.over)}; one setting at a time")
        if not 0 <= self.tolerate <= 1:
            raise ValueError(f"tolerate is {self.tolerate!r}, and should be a share from 0 to 1")
        self._check_settings()

    def _check_settings(self) -> None:
        from isoflop.levers.train._check import known

        if self.plan is not None and self.over:
            raise ValueError("a plan says how many samples each problem gets: leave out over (and n)")
        own: Collection[str] = PLAN_SETTINGS if self.plan is not None else strategy_settings(self.strategy)
        for name in (*self.settings, *self.over):
            if not name.startswith(_EACH):
                known(name, own, what=f"setting of {'a plan' if self.plan is not None else self.strategy}")

    @property
    def axis(self) -> str:
        """The column that the ladder climbs: "samples" (drawn per problem, as measured), or the setting's own name."""
        return next((name for name in self.over if name != "n"), "samples")

    def ladder(self) -> list[dict[str, Any]]:
        """Settings, cheap to dear: the strategy, its own settings, and each value of `over` (of n, unless told)."""
        if self.plan is not None:
            from isoflop.levers.think._follow import read_plan

            return [{"strategy": "plan", "plan": read_plan(self.plan).sha256[:16], **self.settings}]
        over = dict(self.over)
        if not over and "n" in strategy_settings(self.strategy) and "n" not in self.settings:
            over = {"n": (1, 4, 16)}
        fixed = {"strategy": self.strategy, **self.settings}
        return [fixed | {name: value} for name, values in over.items() for value in values] or [fixed]

    def cost(self, setting: Mapping[str, Any]) -> float:
        """A guess for the time left: proportional to what is swept."""
        value = setting.get("n", setting.get(self.axis, 1.0))
        return float(value) if isinstance(value, int | float) else 1.0

    def facts(self) -> dict[str, Any]:
        """How many problems, and their sha256: a sweep is not resumed on other problems."""
        return {"problems": len(self.problem_set.problems), "sha256": self.problem_set.sha256}

    @cached_property
    def problem_set(self) -> ProblemSet:
        """The problems; read once."""
        from isoflop.levers.think._problems import read_problems

        answers = self.grade in ("exact", "maths")
        return read_problems(self.problems, template=self.template, answers=answers, limit=self.limit)

    def run(self, setting: Mapping[str, Any], *, seed: int, cache: Path | None = None) -> dict[str, Any]:
        """Answer every problem at one setting, and return the row: accuracy, and costs per problem.

        The folder of the sweep also gets samples/samples.jsonl (every sample paid for) and answers/RUN.jsonl (a row
        per problem). Raises RunFailed where more problems failed than `tolerate`; what it cost is in its row, and
        what was paid for is kept.
        """
        from isoflop.levers.think._run import run

        return run(self, dict(setting), seed=seed, folder=cache.parent if cache is not None else None)

    @classmethod
    def from_toml(cls, path: str | Path) -> Think:
        """Read a file of fields; an unknown one is refused with the closest known one."""
        import tomllib
        from dataclasses import fields

        from isoflop.levers.train._check import known

        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
            for key in table:
                known(key, [f.name for f in fields(cls)], what="key")
            return cls(**table)
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
