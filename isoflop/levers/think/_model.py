"""The metered handle: what a strategy samples from. Everything is counted, limited and stored behind it."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache, partial
from typing import Any

from isoflop.levers.think._answers import key_of
from isoflop.levers.think._client import Client, TooLong, Unreadable
from isoflop.levers.think._meter import Account, ModelSize, Prices, Spent
from isoflop.levers.think._protocol import (
    PATHS,
    STREAMED,
    Abilities,
    Ask,
    Choice,
    Reply,
    body_of,
    logprobs_of,
    reply_of,
    text_of,
)
from isoflop.levers.think._store import Store, _dumps
from isoflop.levers.think._types import BudgetSpent, ModelError, Problem, Sample

_MOST_AT_ONCE = 128  # choices in one call


@dataclass(frozen=True)
class Backend:
    """What all handles of a run share: where to ask, how it is counted, and where it is kept.

    use_n: ask for several choices in one call where the server gives them. extra: further settings for the server.
    """

    client: Client
    store: Store
    model: str
    key: Callable[[str], str | None]
    able: Abilities = field(default_factory=Abilities)
    protocol: str = "chat"
    system: str = ""
    temperature: float = 0.8
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()
    use_n: bool = True
    prices: Prices = field(default_factory=Prices)
    size: ModelSize = field(default_factory=ModelSize)
    extra: Mapping[str, Any] = field(default_factory=dict)
    grade: Callable[[Problem, Sequence[str]], Any] | None = None  # right or wrong, noted with each sample


@dataclass
class MeteredModel:
    """The Model of one problem and strategy. Implements `_types.Model`."""

    backend: Backend
    account: Account
    problem: Problem
    strategy: str = ""
    run: str = ""
    role: str = "model"
    error: str = ""  # of the last call that failed
    _seen: set[str] = field(default_factory=set)  # keys charged already: the same sample twice costs once
    _keys: dict[int, dict[str, None]] = field(default_factory=dict)  # of the samples with a text, by its hash

    def key(self, text: str) -> str | None:
        return self.backend.key(text)

    async def sample(
        self,
        prompt: str,
        *,
        n: int = 1,
        prefix: str = "",
        max_tokens: int | None = None,
        temperature: float | None = None,
        stop: Sequence[str] = (),
        seed: int = 0,
        logprobs: bool = False,
        until: Any = None,
    ) -> list[Sample]:
        """See `_types.Model.sample`. Sample i has seed s + i, with s from (seed, prompt, prefix).

        Where the server gives several samples a call, they share one reading of the prompt, and are charged so even
        where some of them come from the store: without a budget, a cost never depends on what was sampled before. With
        one, a call asks for no more samples than there seems to be room for. Where the budget ends between two calls,
        the samples before are returned.
        """
        back = self.backend
        if prefix and not back.able.prefix:
            raise ModelError(
                f"{back.model} opens a new turn after a begun answer instead of continuing it; "
                "use protocol='completions', or a strategy that never continues one"
            )
        ask = Ask(
            back.model, back.protocol, prompt, prefix, back.system, 1,
            back.max_tokens if max_tokens is None else max_tokens,
            back.temperature if temperature is None else temperature,
            (stop,) if isinstance(stop, str) else tuple(stop) or back.stop, None, logprobs, back.extra,
        )  # fmt: skip
        plan = _Plan(ask, until, _first_seed(seed, prompt, prefix), n)
        return await self._collect(plan)

    async def _collect(self, plan: _Plan) -> list[Sample]:
        found: list[Sample | None] = [None] * plan.n
        spent: BudgetSpent | None = None
        in_flight, done = self.backend.store.in_flight, asyncio.get_running_loop().create_future()
        missing: list[int] = []
        try:
            await self._known(plan, found, missing, done)
            groups = self._groups(plan, missing)
            if len(groups) == 1:
                await self._fetch(plan, groups[0], found)
            elif groups:
                calls = (self._fetch(plan, group, found) for group in groups)
                raise_first(await asyncio.gather(*calls, return_exceptions=True))
        except BudgetSpent as error:
            spent = error
        finally:
            for i in missing:
                in_flight.pop(plan.keys[i], None)
            done.set_result(None)
        if not plan.ask.prefix:
            for key, one in zip(plan.keys, found, strict=True):
                if one is not None:
                    self._keys.setdefault(hash(one.text), {})[key] = None
        got = [one for one in found if one is not None]
        if spent is not None and not got:
            raise spent
        return got

    async def note_scores(self, verifier: str, texts: Sequence[str], scores: Sequence[float]) -> None:
        """Keep a verifier's scores beside the samples that have these texts, once each."""
        store, records = self.backend.store, []
        for text, score in zip(texts, scores, strict=True):
            for sample in self._keys.get(hash(text), ()):
                key = hashlib.sha256(_dumps(["score", verifier, sample])).hexdigest()
                if math.isfinite(score) and store.get(key) is None:
                    about = {"problem": self.problem.id, "strategy": self.strategy, "run": self.run}
                    told = {"role": "score", "verifier": verifier, "sample": sample, "score": float(score)}
                    records.append({"v": 1, "key": key, **about, "model": self.backend.model, **told, "error": None})
        if records:
            await store.put(list({record["key"]: record for record in records}.values()))

    async def _known(
        self, plan: _Plan, found: list[Sample | None], missing: list[int], done: asyncio.Future[None]
    ) -> None:
        """Fill in what the store has, or another call of this process is about to have; the rest becomes ours to pay.

        Places are taken in order by everyone, so that no two calls wait for each other.
        """
        store = self.backend.store
        for i, key in enumerate(plan.keys):
            while (other := store.in_flight.get(key)) is not None:
                await asyncio.wait([other])
            record = store.get(key)
            if record is not None and plan.until is not None:
                record = _still_ends(record, plan.until)
            if record is None:
                missing.append(i)
                store.in_flight[key] = done
                continue
            if key not in self._seen:
                if self._reads(plan, i, record):
                    self.account.check()
                self._charge(plan, i, record, paid=False)
            found[i] = _sample_of(record)

    def _together(self, plan: _Plan) -> bool:
        """Whether one call gives several samples."""
        return plan.until is None and self.backend.able.n and self.backend.use_n

    def _reads(self, plan: _Plan, place: int, record: Mapping[str, Any]) -> bool:
        """Whether a sample is charged with reading the prompt: each of its own call, or the first of a common one.

        Under a budget, which cuts calls short, as it was paid.
        """
        if self.account.limited:
            return bool(record["prompt_tokens"])
        return place % _MOST_AT_ONCE == 0 or not self._together(plan)

    def _groups(self, plan: _Plan, missing: list[int]) -> list[list[int]]:
        """Places to ask for together: neighbours, where the server gives several choices; each alone otherwise."""
        if not self._together(plan):
            return [[i] for i in missing]
        groups: list[list[int]] = []
        for i in missing:
            if groups and groups[-1][-1] == i - 1 and len(groups[-1]) < _MOST_AT_ONCE:
                groups[-1].append(i)
            else:
                groups.append([i])
        return groups

    async def _fetch(self, plan: _Plan, group: list[int], found: list[Sample | None]) -> None:
        """Ask for one group, store it, and fill it in."""
        most, whole = None, group
        if self.account.limited:
            group = group[: self._affordable(plan.ask, len(group))]
            most = self._most(plan.ask, len(group))
            await self.account.open(most)
        try:
            records = await self._ask(plan, group)
        finally:
            if most is not None:
                self.account.close(most)
        await self._grade(records)
        await self.backend.store.put(records)
        for i, record in zip(group, records, strict=False):
            found[i] = _sample_of(record)
        if len(records) < len(whole):  # fewer choices came than were wanted, or could be afforded at once
            await self._fetch(plan, whole[len(records) :], found)

    async def _grade(self, records: list[dict[str, Any]]) -> None:
        """Note with each sample whether it is right; a begun answer is not graded without what comes before it."""
        grade = self.backend.grade
        if grade is None or self.role != "model" or not self.problem.id or "prefix" in records[0]["settings"]:
            return
        found = grade(self.problem, [record["text"] for record in records])
        for record, right in zip(records, await found if inspect.isawaitable(found) else found, strict=True):
            record["correct"] = int(right)

    async def _ask(self, plan: _Plan, group: list[int]) -> list[dict[str, Any]]:
        """One call, charged when it has ended; its records in order."""
        back = self.backend
        ask = plan.ask._replace(n=len(group), seed=plan.seed + group[0])
        body, tokens = body_of(ask, back.able), len(plan.ask.prompt) // 4 + len(group) * ask.max_tokens
        began = time.perf_counter()
        try:
            if plan.until is None:
                reply, seconds = await back.client.post(
                    PATHS[ask.protocol], body, tokens=tokens, check=reply_of, on_retry=self.account.retry
                )
                back.client.tokens.give_back(tokens - reply.prompt - (reply.gen or 0))
            else:
                stream = _Stream(ask, plan.until)
                body |= STREAMED if back.able.counting else {"stream": True, "stream_options": {"include_usage": True}}
                seconds = await back.client.stream(
                    PATHS[ask.protocol], body, tokens=tokens, take=stream.take, begin=stream.begin,
                    on_retry=self.account.retry,
                )  # fmt: skip
                reply = stream.reply()
        except ModelError as error:
            await self._note(plan, group[0], error, time.perf_counter() - began)
            raise
        return self._records(plan, group, reply, seconds)

    async def _note(self, plan: _Plan, place: int, error: ModelError, seconds: float) -> None:
        """A call that failed stays as a row, which `get` never finds."""
        self.error = str(error)
        record = self._record(plan, place, Choice("", "error"), seconds=seconds)
        kind = "TooLong: " if isinstance(error, TooLong) else ""
        await self.backend.store.put([record | {"answer": None, "correct": None, "error": f"{kind}{error}"}])

    def _records(self, plan: _Plan, group: list[int], reply: Reply, seconds: float) -> list[dict[str, Any]]:
        choices = reply.choices[: len(group)]
        counts, guessed = _shares(reply, choices), reply.gen is None
        prompt = len(f"{plan.ask.system}{plan.ask.prompt}{plan.ask.prefix}") // 4 + 1 if guessed else reply.prompt
        records = []
        for order, (i, choice, gen) in enumerate(zip(group, choices, counts, strict=False)):
            first = order == 0
            record = self._record(
                plan, i, choice, seconds=seconds, gen=gen, prompt=prompt if first else 0,
                cached=reply.cached if first else 0, shared=0 if first else prompt, guessed=guessed,
            )  # fmt: skip
            self._charge(plan, i, record, paid=True)
            records.append(record)
        return records

    def _record(
        self, plan: _Plan, place: int, choice: Choice, *, seconds: float, gen: int = 0, prompt: int = 0,
        cached: int = 0, shared: int = 0, guessed: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        back = self.backend
        answer = back.key(choice.text) if choice.finish != "error" else None
        extra: dict[str, Any] = (
            {} if choice.logprobs is None else {"logprobs": choice.logprobs, "tokens": choice.tokens}
        )
        if choice.spread is not None:
            extra["spread"] = choice.spread
        return {
            "v": 1, "key": plan.keys[place], "problem": self.problem.id, "strategy": self.strategy, "run": self.run,
            "model": back.model, "prompt_sha": plan.prompt_sha, "seed": plan.seed + place, "index": place,
            "settings": plan.settings, "text": choice.text, "finish": choice.finish, "answer": answer,
            "correct": None, "score": None, "prompt_tokens": prompt,
            "cached_tokens": cached, "shared_tokens": shared, "gen_tokens": gen, "counted": not guessed,
            "logprob_sum": None if choice.logprobs is None else sum(choice.logprobs), "seconds": seconds,
            "role": self.role, **extra, "error": None,
        }  # fmt: skip

    def _charge(self, plan: _Plan, place: int, record: Mapping[str, Any], *, paid: bool) -> None:
        self._seen.add(plan.keys[place])
        read, shared = record["prompt_tokens"], record.get("shared_tokens") or 0
        as_paid = _spent(self.backend, record, read=read, shared=shared)
        if bool(read) == self._reads(plan, place, record):
            charged = as_paid
        elif read:
            charged = _spent(self.backend, record, read=0, shared=read)
        else:
            charged = _spent(self.backend, record, read=shared, shared=0)
        self.account.charge(charged, paid=as_paid if paid else None, role=self.role)

    def _affordable(self, ask: Ask, n: int) -> int:
        """How many of n samples to ask for at once: as many as the budget has room for at the mean so far, or one."""
        total, prices, most = self.account.total, self.backend.prices, self._most(ask, 0)
        gen = math.ceil(total.gen_tokens / total.samples) if total.samples else ask.max_tokens
        prompt = math.ceil(total.prompt_tokens / total.calls) if total.calls else most.prompt_tokens
        read = Spent(prompt_tokens=prompt, usd=prices.usd(prompt=prompt, cached=0, gen=0))
        each = Spent(gen_tokens=gen, usd=prices.usd(prompt=0, cached=0, gen=gen))
        return int(max(1, min(n, self.account.room(read, each))))

    def _most(self, ask: Ask, n: int) -> Spent:
        """At least as much as a call can cost: a token has at least one byte, a chat's frame hardly 64 tokens."""
        prompt, gen = len(f"{ask.system}{ask.prompt}{ask.prefix}".encode()) + 64, n * ask.max_tokens
        return Spent(
            prompt_tokens=prompt, gen_tokens=gen, usd=self.backend.prices.usd(prompt=prompt, cached=0, gen=gen)
        )


def cached_key(rule: str) -> Callable[[str], str | None]:
    """`_answers.key_of` by a rule; the store and the strategy ask for the same texts, one after the other."""
    return lru_cache(maxsize=1024)(partial(key_of, rule=rule))


class _Plan:
    """One request of a strategy: what to ask, and for each sample its seed and key."""

    def __init__(self, ask: Ask, until: Any, seed: int, n: int) -> None:
        self.ask, self.until, self.seed, self.n = ask, until, seed, n
        self.settings: dict[str, Any] = {
            "protocol": ask.protocol, "temperature": ask.temperature, "max_tokens": ask.max_tokens, "stop": ask.stop,
            "logprobs": ask.logprobs,
        }  # fmt: skip
        for name, value in (("prefix", ask.prefix), ("system", ask.system), ("extra", ask.extra)):
            if value:
                self.settings[name] = dict(value) if isinstance(value, Mapping) else value
        if until is not None:
            self.settings["until"] = name_of(until)
        self.prompt_sha = hashlib.sha256(ask.prompt.encode()).hexdigest()
        base = hashlib.sha256(_dumps([ask.model, self.prompt_sha, self.settings]))
        self.keys = []
        for i in range(n):
            one = base.copy()
            one.update(b"%d" % (seed + i))
            self.keys.append(one.hexdigest())


class _Stream:
    """Puts the pieces of a streamed answer together, and asks `until` after each."""

    def __init__(self, ask: Ask, until: Callable[[Sample], bool]) -> None:
        self.ask, self.until = ask, until
        self.begin()

    def begin(self) -> None:
        self.text, self.finish, self.pieces = "", "", 0
        self.logprobs: list[float] = []
        self.tokens: list[str] = []
        self.spread: list[float] | None = []
        self.usage: Reply | None = None

    def take(self, piece: Any) -> bool:
        """Add one piece; True where the sample so far is enough. Raises Unreadable."""
        try:
            grown = self._add(piece)
        except (LookupError, TypeError, AttributeError) as error:
            raise Unreadable(str(error)) from error
        if grown and not self.finish and self.until(_sample_of(self._so_far())):
            self.finish = "cut"
            return True
        return False

    def _add(self, piece: Any) -> bool:
        """Whether the piece added anything."""
        if piece.get("usage"):
            self.usage = reply_of({"choices": [{"text": ""}], "usage": piece["usage"]})
        if not piece.get("choices"):
            return False
        choice = piece["choices"][0]
        self.text += text_of(choice["delta"]) if "delta" in choice else choice.get("text") or ""
        self.pieces += 1
        if found := choice.get("logprobs"):
            logprobs, tokens, spread = logprobs_of(found)
            self.logprobs += logprobs
            self.tokens += tokens
            if spread is None:
                self.spread = None
            elif self.spread is not None:
                self.spread += spread
        if choice.get("finish_reason"):
            self.finish = "length" if choice["finish_reason"] == "length" else "stop"
        return True

    def reply(self) -> Reply:
        """The whole as one reply. What a cut stream cost is counted by its logprobs, else by its pieces."""
        spread = tuple(self.spread) if self.spread else None
        logs = (tuple(self.logprobs), tuple(self.tokens), spread) if self.logprobs else (None, None, None)
        gen = self.usage.gen if self.usage else len(self.logprobs) or self.pieces
        guess = len(f"{self.ask.system}{self.ask.prompt}{self.ask.prefix}".encode()) // 4 + 1
        prompt, cached = (self.usage.prompt, self.usage.cached) if self.usage else (guess, 0)
        return Reply([Choice(self.text, self.finish or "stop", *logs)], prompt, cached, gen)

    def _so_far(self) -> dict[str, Any]:
        return {
            "text": self.text, "finish": "", "gen_tokens": len(self.logprobs) or self.pieces, "prompt_tokens": 0,
            "cached_tokens": 0, "seconds": 0.0, "seed": self.ask.seed, "logprobs": self.logprobs or None,
            "tokens": self.tokens or None, "spread": self.spread,
        }  # fmt: skip


def _first_seed(seed: int, prompt: str, prefix: str) -> int:
    """31 bits, so that servers with 32-bit seeds take them, with room for n beyond."""
    digest = hashlib.sha256(f"{seed}\0{prompt}\0{prefix}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 2


def name_of(until: Any) -> str:
    """A name for a stop rule that is the same in the next process: its `key`, its fields, or where it is defined."""
    if isinstance(found := getattr(until, "key", None), str):
        return found
    if is_dataclass(until) and not isinstance(until, type):
        inside = {f.name: _plain(getattr(until, f.name)) for f in fields(until)}
        return f"{type(until).__module__}.{type(until).__qualname__}{inside}"
    if hasattr(until, "func"):  # functools.partial
        return f"{name_of(until.func)}{[_plain(a) for a in until.args]}{sorted(until.keywords.items())}"
    cells = [_plain(cell.cell_contents) for cell in getattr(until, "__closure__", None) or ()]
    kind = until if hasattr(until, "__qualname__") else type(until)
    return f"{kind.__module__}.{kind.__qualname__}{cells or ''}"


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bool | type(None)) else type(value).__qualname__


def _still_ends(record: dict[str, Any], until: Callable[[Sample], bool]) -> dict[str, Any] | None:
    """The record of a stopped stream, if the rule would end it where it ended; so a changed rule asks anew."""
    ends = bool(until(_sample_of(record | {"finish": ""})))
    return record if ends or record["finish"] != "cut" else None


def _shares(reply: Reply, choices: Sequence[Choice]) -> list[int]:
    """Generated tokens of each choice: exact by logprobs or where there is one; else the call's sum, by length."""
    if len(choices) == 1 and reply.gen is not None:
        return [reply.gen]
    counted = [len(c.logprobs) if c.logprobs is not None else None for c in choices]
    if all(n is not None for n in counted) and (reply.gen is None or sum(n or 0 for n in counted) == reply.gen):
        return [n or 0 for n in counted]
    lengths = [len(c.text.encode()) + 1 for c in choices]
    total = reply.gen if reply.gen is not None else sum(n // 4 + 1 for n in lengths)
    whole, shares, used = sum(lengths), [], 0
    for place, length in enumerate(lengths):
        left = total - used
        share = left if place == len(lengths) - 1 else min(left, round(total * length / whole))
        shares.append(share)
        used += share
    return shares


def _spent(back: Backend, record: Mapping[str, Any], *, read: int, shared: int) -> Spent:
    """What a sample costs that reads so many prompt tokens, after so many that another one of its call has read."""
    cached, gen, context = min(record["cached_tokens"], read), record["gen_tokens"], read + shared
    return Spent(
        0 if shared else 1, 1, read, cached, gen,
        back.size.flops(context=context, cached=cached + shared, gen=gen),
        back.size.cache_bytes(context=context, gen=gen),
        back.prices.usd(prompt=read, cached=cached, gen=gen), 0.0 if shared else record["seconds"],
    )  # fmt: skip


def _sample_of(record: Mapping[str, Any]) -> Sample:
    logprobs, tokens, spread = record.get("logprobs"), record.get("tokens"), record.get("spread")
    return Sample(
        record["text"], record["finish"], record["gen_tokens"], record["prompt_tokens"], record["cached_tokens"],
        None if logprobs is None else tuple(logprobs), None if tokens is None else tuple(tokens),
        None if spread is None else tuple(spread), record["seconds"], record["seed"],
    )  # fmt: skip


def raise_first(results: Sequence[Any]) -> None:
    """Raise what went wrong among gathered results: a failure before a spent budget, which is no failure."""
    errors = [r for r in results if isinstance(r, BaseException)]
    for error in sorted(errors, key=lambda e: isinstance(e, BudgetSpent)):
        raise error
