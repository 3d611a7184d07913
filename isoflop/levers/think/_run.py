"""One setting of the think lever: connect, answer every problem, grade, and write the rows."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoflop._lever import RunFailed, _plain, _replace, run_id
from isoflop._progress import progress
from isoflop.levers.think._client import Client, Limits
from isoflop.levers.think._judging import graded, make_grade, make_score
from isoflop.levers.think._meter import Account, Budget, ModelSize, Prices
from isoflop.levers.think._model import Backend, MeteredModel, cached_key
from isoflop.levers.think._protocol import Abilities, check_model, probe
from isoflop.levers.think._store import Store
from isoflop.levers.think._strategy import get_strategy
from isoflop.levers.think._strategy import settings as strategy_settings
from isoflop.levers.think._types import Answer, BudgetSpent, ModelError, Problem, Score, ScoreError

if TYPE_CHECKING:
    from isoflop.levers.think import Think


def run(lever: Think, setting: dict[str, Any], *, seed: int, folder: Path | None) -> dict[str, Any]:
    """See `Think.run`."""
    name = run_id(setting, seed=seed)
    with _store(lever, folder) as store:
        done = run_sync(_answer_all(lever, setting, seed=seed, run=name, store=store))
    if folder is not None:
        _write(folder / "answers" / f"{name}.jsonl", done.rows)
    row = _row(lever, done)
    failed = [one for one in done.rows if one["status"] == "failed"]
    if len(failed) > lever.tolerate * len(done.rows):
        first = f"{failed[0]['problem']}: {failed[0]['error']}"
        message = f"{len(failed)} of {len(done.rows)} problems failed, the first {first}; what was sampled is kept"
        raise RunFailed(message, row=row)
    right = [one["correct"] or 0 for one in done.rows]
    accuracy = sum(right) / len(right)
    error = math.sqrt(accuracy * (1 - accuracy) / len(right))
    return row | {"accuracy": accuracy, "accuracy_se": error}


@contextmanager
def _store(lever: Think, folder: Path | None) -> Iterator[Store]:
    """The file of samples that the lever names, else the sweep's, else one that is gone afterwards."""
    if lever.store is not None or folder is not None:
        path = Path(lever.store) if lever.store is not None else Path(str(folder)) / "samples" / "samples.jsonl"
        with Store(path) as store:
            yield store
        return
    with tempfile.TemporaryDirectory() as place, Store(Path(place) / "samples.jsonl") as store:
        yield store


def run_sync(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end, in a thread of its own where this one has a loop already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    result: dict[str, Any] = {}

    def go() -> None:
        try:
            result["value"] = asyncio.run(work)
        except BaseException as error:
            result["error"] = error

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    if "error" in result:
        raise result["error"]
    return result["value"]


# -- connecting -----------------------------------------------------------------------------------------------------


def make_client(lever: Think) -> Client:
    """The client that a lever's fields ask for."""
    servers = [lever.server] if isinstance(lever.server, str) else list(lever.server)
    limits = Limits(lever.calls, lever.requests_per_minute, lever.tokens_per_minute, lever.timeout, lever.tries)
    return Client(servers, key_env=lever.key_env, limits=limits)


async def connect(lever: Think, client: Client, store: Store) -> Backend:
    """Ask once what the server is and does; what the probe found is kept in the store."""
    card = await check_model(client, lever.model)
    able = await _abilities(lever, client, store)
    size = ModelSize(lever.params)
    if lever.config is not None:
        size = ModelSize.from_config(lever.config, params=lever.params)
    elif isinstance(card.get("isoflop"), dict):
        size = ModelSize.of(card["isoflop"], params=lever.params)
    return Backend(
        client, store, lever.model, key=cached_key(lever.rule), able=able, protocol=lever.protocol,
        system=lever.system, temperature=lever.temperature, max_tokens=lever.max_tokens, stop=tuple(lever.stop),
        use_n=lever.use_n, prices=Prices(**lever.prices), size=size, extra=lever.extra,
        grade=make_grade(lever) if lever.grade_samples else None,
    )  # fmt: skip


def first_contact(lever: Think) -> None:
    """Whether the server is there, knows the model and takes the key. Raises ModelError where not."""

    async def go() -> None:
        async with make_client(lever) as client:
            await check_model(client, lever.model)

    run_sync(go())


async def _abilities(lever: Think, client: Client, store: Store) -> Abilities:
    urls = sorted(one.url for one in client.pool.endpoints)
    key = hashlib.sha256(json.dumps(["probe", urls, lever.model, lever.protocol]).encode()).hexdigest()
    known, names = store.get(key), {f.name for f in fields(Abilities)}
    if known is not None and names <= known["found"].keys():  # what an earlier isoflop did not look for is asked anew
        return Abilities(**{name: known["found"][name] for name in names})
    able = await probe(client, lever.model, protocol=lever.protocol)
    record = {"v": 1, "key": key, "problem": None, "model": lever.model, "role": "probe", "found": able.as_dict()}
    await store.put([record | {"error": None}])
    return able


# -- answering ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Done:
    """What came of a setting: a row per problem in the file's order, the sums, and what the server can do."""

    setting: dict[str, Any]
    rows: list[dict[str, Any]]
    account: Account
    able: Abilities
    size: ModelSize
    seconds: float
    more: dict[str, Any]  # what else the row says


async def _answer_all(lever: Think, setting: dict[str, Any], *, seed: int, run: str, store: Store) -> _Done:
    """Every problem through the strategy, or all of them through the plan."""
    began = time.perf_counter()
    async with make_client(lever) as client:
        backend = await connect(lever, client, store)
        if lever.plan is None:
            work, rows = await _by_strategy(lever, setting, seed=seed, run=run, backend=backend)
            more: dict[str, Any] = {}
        else:
            from isoflop.levers.think._follow import follow

            work, rows, more = await follow(lever, setting, seed=seed, run=run, backend=backend)
    return _Done(setting, rows, work.whole, backend.able, backend.size, time.perf_counter() - began, more)


async def _by_strategy(
    lever: Think, setting: dict[str, Any], *, seed: int, run: str, backend: Backend
) -> tuple[Work, list[dict[str, Any]]]:
    """Every problem through the strategy, some at once."""
    name, each = setting["strategy"], {k: v for k, v in setting.items() if k.startswith("problem_")}
    budget = Budget(**{**lever.problem_budget, **{k.removeprefix("problem_"): v for k, v in each.items()}})
    work = Work(lever, name, run, backend, budget=budget, whole=Budget(**lever.budget))
    strategy = get_strategy(name)
    own = {k: v for k, v in setting.items() if k != "strategy" and k not in each}
    own |= {"seed": seed} if "seed" in strategy_settings(name) else {}

    async def answer(problem: Problem) -> dict[str, Any]:
        one = work.begin(problem)
        return await work.finish(one, lambda: strategy(problem, one.handle, work.scorer(one), **own))

    return work, await in_turn(lever.problem_set.problems, answer, at_once=lever.calls, what=name)


async def in_turn(items: Sequence[Any], work: Callable[[Any], Any], *, at_once: int, what: str) -> list[Any]:
    """`await work(item)` for all items, so many at once; what they gave, in order."""
    out: list[Any] = [None] * len(items)
    todo = iter(enumerate(items))

    async def worker() -> None:
        for place, item in todo:
            out[place] = await work(item)
            tick(1)

    with progress(f"{what}, problems", len(items)) as tick:
        tasks = [asyncio.ensure_future(worker()) for _ in range(min(at_once, len(items)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
    return out


@dataclass(frozen=True)
class Begun:
    """One problem under way: its account and handle, and when it began."""

    problem: Problem
    account: Account
    handle: MeteredModel
    began: float


class Work:
    """What all problems of a setting have in common."""

    def __init__(self, lever: Think, name: str, run: str, backend: Backend, *, budget: Budget, whole: Budget) -> None:
        self.run, self.name, self.backend, self.budget = run, name, backend, budget
        self.whole = Account(whole)
        self.score, self.grade = make_score(lever), make_grade(lever)

    def begin(self, problem: Problem) -> Begun:
        """An account and a handle for one problem."""
        account = Account(self.budget, parent=self.whole)
        handle = MeteredModel(self.backend, account, problem, self.name, self.run)
        return Begun(problem, account, handle, time.perf_counter())

    def scorer(self, one: Begun) -> Score | None:
        """The verifier of one problem, metered; None where there is none."""
        return self.score(one.account, one.handle) if self.score is not None else None

    async def finish(self, one: Begun, answer: Callable[[], Awaitable[Answer]]) -> dict[str, Any]:
        """The row of one problem; a failure is a row too."""
        try:
            row = await self._graded(one.problem, await answer(), one.handle)
        except BudgetSpent as error:
            row = {"answer": None, "correct": 0, "status": "unreached", "error": str(error)}
        except (ModelError, ScoreError) as error:
            row = {"answer": None, "correct": None, "status": "failed", "error": str(error)}
        account = one.account
        costs = account.total.row() | {"retries": account.retries, "paid_gen_tokens": account.paid.gen_tokens}
        spent = {"score_gen_tokens": account.score.gen_tokens, "seconds": time.perf_counter() - one.began}
        return {"run": self.run, "problem": one.problem.id, "strategy": self.name, **row, **costs, **spent}

    async def _graded(self, problem: Problem, found: Answer, handle: MeteredModel) -> dict[str, Any]:
        """An answer with failed calls behind it is a failure; one that the budget left empty was not reached."""
        if lost := found.info.get("failed_calls"):
            error = f"{lost} of its calls failed, the last: {handle.error or 'a verifier of it'}"
            return {"answer": found.key, "correct": None, "status": "failed", "error": error}
        info = json.dumps(_plain(dict(found.info)), default=str)
        if not handle.account.total.samples:
            return {"answer": None, "correct": 0, "status": "unreached", "error": "the budget was spent", "info": info}
        (right,) = await graded(self.grade, problem, [found.text])
        return {"answer": found.key, "correct": int(right), "status": "ok", "error": None, "info": info}


def _row(lever: Think, done: _Done) -> dict[str, Any]:
    """The row without its metric: costs are means over the problems."""
    rows, account = done.rows, done.account
    count = len(rows)
    costs = account.total.row(per=count)
    return {
        **done.setting,
        lever.axis: done.setting.get(lever.axis, costs["samples"]),
        "model": lever.model,
        "problems": count,
        "failed": sum(one["status"] == "failed" for one in rows),
        "unreached": sum(one["status"] == "unreached" for one in rows),
        "unanswered": sum(one["answer"] is None for one in rows),
        **costs,
        "score_gen_tokens": account.score.gen_tokens / count,
        "retries": account.retries,
        **done.more,
        "params": done.size.params or None,
        "seconds": done.seconds,
        "score": lever.score,
        "grade": lever.grade,
        "rule": lever.rule,
        "server_n": int(done.able.n),
        "server_seed": int(done.able.seed),
        "problems_sha256": lever.problem_set.sha256[:16],
        "source": f"isoflop think, {Path(lever.problems).name}",
    }


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, "".join(json.dumps(_plain(row)) + "\n" for row in rows).encode())
