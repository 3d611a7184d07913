"""What calls cost: tokens, FLOPs, bytes of the KV cache, USD, seconds; and the budgets that end them.

An `Account` may have a parent (a problem's within a run's): a call is charged to both, and either may stop it. A
sample out of the store is charged as if it had been paid for now, so that a resumed run spends, and stops, as the
first one would have; what was truly paid is kept beside it under `paid`.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from isoflop.levers.think._types import BudgetSpent


@dataclass(frozen=True)
class Prices:
    """USD per million tokens. `cached`: of prompt tokens that the server had read before; as `prompt` if not given."""

    prompt: float = 0.0
    gen: float = 0.0
    cached: float | None = None

    def usd(self, *, prompt: Any, cached: Any, gen: Any) -> Any:
        """Of so many tokens; numbers, or arrays of them."""
        return ((prompt - cached) * self.prompt + cached * self._cached + gen * self.gen) / 1e6

    @property
    def _cached(self) -> float:
        return self.prompt if self.cached is None else self.cached


@dataclass(frozen=True)
class ModelSize:
    """What FLOPs and KV bytes are counted from.

    params: parameters used per token; layers, heads_width (heads x head size), kv_width (KV heads x head size): of
    the attention, 0 where not known, which leaves its cost out; kv_bytes: bytes of one number in the cache.
    """

    params: float = 0.0
    layers: int = 0
    heads_width: int = 0
    kv_width: int = 0
    kv_bytes: int = 2

    def flops(self, *, context: int, cached: int, gen: int) -> float:
        """2 P (L_in - L_cached + L) + 2 h d (L_in^2 - L_cached^2) + 2 h d L (2 L_in + L), h d summed over layers.

        The prompt's own attention is counted causally. Source: Kinetics, arXiv:2506.05333, for the last term; its
        count leaves the prompt's attention out.
        """
        area = context**2 - cached**2 + gen * (2 * context + gen)
        return 2.0 * self.params * (context - cached + gen) + 2.0 * self.layers * self.heads_width * area

    def cache_bytes(self, *, context: int, gen: int) -> float:
        """h_kv d L (2 L_in + L) numbers, over layers: keys and values that the L generated tokens read.

        Source: Kinetics, arXiv:2506.05333. Each sample is counted as reading the whole of its own context.
        """
        return float(self.kv_bytes) * self.layers * self.kv_width * gen * (2 * context + gen)

    @classmethod
    def from_config(cls, path: str | Path, *, params: float = 0.0) -> ModelSize:
        """From a config.json of isoflop or of transformers. Raises ValueError where it says too little."""
        config = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls.of(config, params=params, place=str(path))

    @classmethod
    def of(cls, config: dict[str, Any], *, params: float = 0.0, place: str = "the model's config") -> ModelSize:
        """As `from_config`, from what it holds."""
        layers = config.get("num_hidden_layers") or config.get("depth")
        width = config.get("hidden_size") or config.get("width")
        heads = config.get("num_attention_heads") or config.get("heads")
        if not (layers and width and heads):
            raise ValueError(f"{place} does not say layers, hidden size and heads")
        size = config.get("head_dim") or width // heads
        kv_heads = config.get("num_key_value_heads") or heads
        count = params or config.get("params") or 0.0
        return cls(float(count), int(layers), int(heads * size), int(kv_heads * size))


@dataclass(frozen=True)
class Budget:
    """Where calls end; None: nowhere. tokens: read and generated; seconds: of wall time since the first call."""

    tokens: float | None = None
    gen_tokens: float | None = None
    usd: float | None = None
    seconds: float | None = None

    def limits(self) -> tuple[float | None, float | None, float | None]:
        """Those of tokens, generated tokens and USD."""
        return self.tokens, self.gen_tokens, self.usd

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if value is not None and not value > 0:
                raise ValueError(f"a budget of {value!r} {part.name} buys nothing; give a number above 0")


NO_BUDGET = Budget()


@dataclass
class Spent:
    """Sums over calls. `context`: prompt tokens that samples had before them, shared ones counted for each."""

    calls: int = 0
    samples: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    gen_tokens: int = 0
    flops: float = 0.0
    kv_bytes: float = 0.0
    usd: float = 0.0
    call_seconds: float = 0.0

    def add(self, other: Spent) -> None:
        self.calls += other.calls
        self.samples += other.samples
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        self.gen_tokens += other.gen_tokens
        self.flops += other.flops
        self.kv_bytes += other.kv_bytes
        self.usd += other.usd
        self.call_seconds += other.call_seconds

    def row(self, *, per: float = 1.0) -> dict[str, float]:
        """The sums as columns, divided by `per`."""
        return {f.name: getattr(self, f.name) / per for f in fields(self)}


@dataclass
class Account:
    """Sums of one problem or of a whole run, and the budget that they are held against."""

    budget: Budget = field(default_factory=lambda: NO_BUDGET)
    parent: Account | None = None
    total: Spent = field(default_factory=Spent)
    paid: Spent = field(default_factory=Spent)
    score: Spent = field(default_factory=Spent)  # the part of `total` that a verifier spent
    retries: int = 0
    began: float | None = None
    limited: bool = field(init=False)  # whether there is any budget here or above
    _held: Spent = field(default_factory=Spent)  # at most this is under way
    _change: asyncio.Event | None = None

    def __post_init__(self) -> None:
        self.limited = self.budget != NO_BUDGET or (self.parent is not None and self.parent.limited)

    @property
    def seconds(self) -> float:
        """Wall time since the first call."""
        return 0.0 if self.began is None else time.monotonic() - self.began

    def charge(self, spent: Spent, *, paid: Spent | None, role: str = "model") -> None:
        """Add what a sample costs, here and in the accounts above; `paid`: what of it was truly paid now."""
        here: Account | None = self
        while here is not None:
            here.total.add(spent)
            if paid is not None:
                here.paid.add(paid)
            if role == "score":
                here.score.add(spent)
            here = here.parent

    def retry(self) -> None:
        here: Account | None = self
        while here is not None:
            here.retries += 1
            here = here.parent

    async def open(self, most: Spent) -> None:
        """Let a call begin that costs at most so much, waiting for others where they may yet spend the rest.

        Raises BudgetSpent. So at most one call goes past a budget: the last one, which began below it.
        """
        for account in self._line():
            account.began = account.began if account.began is not None else time.monotonic()
        while True:
            self.check()
            blocking = next((a for a in self._line() if a._over(with_held=True)), None)
            if blocking is None:
                break
            blocking._change = blocking._change or asyncio.Event()
            await blocking._change.wait()
        for account in self._line():
            account._held.add(most)

    def close(self, most: Spent) -> None:
        """The call that `open` let begin has ended, and has been charged."""
        minus = Spent(**{f.name: -getattr(most, f.name) for f in fields(most)})
        for account in self._line():
            account._held.add(minus)
            if account._change is not None:
                account._change.set()
                account._change = None

    def room(self, read: Spent, each: Spent) -> float:
        """How many samples of one call the budgets leave room for, after what reading the prompt costs."""
        counts = [math.inf]
        for account in self._line():
            spent, first, more = (_amounts(part) for part in (account.total, read, each))
            for limit, used, prompt, sample in zip(account.budget.limits(), spent, first, more, strict=True):
                if limit is not None and sample > 0:
                    counts.append((limit - used - prompt) / sample)
        return min(counts)

    def check(self) -> None:
        """Raise BudgetSpent where this account's budget, or one above it, is spent."""
        for account in self._line():
            if over := account._over(with_held=False):
                raise BudgetSpent(over)

    def _line(self) -> list[Account]:
        return [self] if self.parent is None else [self, *self.parent._line()]

    def _over(self, *, with_held: bool) -> str:
        """What of the budget is spent, in words; "" where there is some left of all."""
        held = _amounts(self._held) if with_held else (0.0, 0.0, 0.0)
        names = ("tokens", "generated tokens", "USD")
        for name, limit, spent, more in zip(names, self.budget.limits(), _amounts(self.total), held, strict=True):
            if limit is not None and spent + more >= limit:
                return f"the budget of {limit:g} {name} is spent ({spent:g} used)"
        if self.budget.seconds is not None and self.seconds >= self.budget.seconds:
            return f"the budget of {self.budget.seconds:g} seconds is spent ({self.seconds:.3g} used)"
        return ""


def _amounts(spent: Spent) -> tuple[float, float, float]:
    """Tokens, generated tokens and USD: what budgets limit, in the order of `Budget.limits`."""
    return spent.prompt_tokens + spent.gen_tokens, spent.gen_tokens, spent.usd
