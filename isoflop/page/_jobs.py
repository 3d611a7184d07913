"""Jobs that take longer than an answer may: done in worker processes, watched, cancelled by killing the worker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

_ENDED = ("done", "failed", "cancelled")
_LONGEST = 256 << 20  # bytes of one message


class JobError(Exception):
    """A job that came to nothing; the message is one sentence."""


@dataclass
class Job:
    """Something under way: what, how far, and what came of it."""

    what: str
    args: dict[str, Any] = field(repr=False)
    seconds: float  # at most
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: str = "waiting"
    progress: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    result: Any = field(default=None, repr=False)
    then: Callable[[Any], Any] | None = field(default=None, repr=False)  # what becomes of the result
    began: float = field(default_factory=time.monotonic)
    task: asyncio.Task[None] | None = field(default=None, repr=False)
    changed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def ended(self) -> bool:
        return self.state in _ENDED

    def to_dict(self) -> dict[str, Any]:
        """What the page shows of it."""
        return {"id": self.id, "what": self.what, "state": self.state, "progress": self.progress, "error": self.error,
                "seconds": round(time.monotonic() - self.began, 1),
                "result": self.result if self.state == "done" else None}  # fmt: skip

    def say(self, state: str | None = None, **news: Any) -> None:
        """Change, and wake who watches."""
        self.state = state or self.state
        for name, value in news.items():
            setattr(self, name, value)
        self.changed.set()
        self.changed = asyncio.Event()

    async def follow(self) -> AsyncIterator[dict[str, Any]]:
        """Every change until the job has ended."""
        while True:
            waiting = self.changed
            yield self.to_dict()
            if self.ended:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(waiting.wait(), 10)


class _Worker:
    """A worker process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process, self.uses = process, 0

    async def read(self) -> dict[str, Any]:
        out = self.process.stdout
        assert out is not None
        (size,) = struct.unpack(">I", await out.readexactly(4))
        if size > _LONGEST:
            raise JobError("the result is too large to be shown")
        found: dict[str, Any] = json.loads(await out.readexactly(size))
        return found

    def write(self, message: Any) -> None:
        body = json.dumps(message).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(struct.pack(">I", len(body)) + body)

    async def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        transport = getattr(self.process, "_transport", None)
        for end in (0, 1):  # what still stands in a pipe would keep `wait` waiting
            pipe = transport and transport.get_pipe_transport(end)
            if pipe:
                pipe.close()
        await self.process.wait()


class Pool:
    """At most `size` worker processes of at most `memory` bytes each; jobs beyond wait their turn.

    uses: jobs that a worker does before a fresh one takes its place.
    """

    def __init__(self, size: int, memory: int, *, uses: int = 40) -> None:
        self._memory, self._uses = memory, uses
        self._room = asyncio.Semaphore(size)
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._jobs: set[asyncio.Task[None]] = set()
        self.waiting = 0

    def start(self, job: Job) -> Job:
        """Begin a job; it is followed and cancelled by itself."""
        job.task = asyncio.get_running_loop().create_task(self._do(job))
        self._jobs.add(job.task)
        job.task.add_done_callback(self._jobs.discard)
        return job

    async def cancel(self, job: Job) -> None:
        """Stop a job, and the worker that does it."""
        if job.task is not None and not job.ended:
            job.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await job.task
            if not job.ended:
                job.say("cancelled")

    async def run(self, what: str, args: dict[str, Any], *, seconds: float) -> Any:
        """A job's result. Raises JobError where it came to nothing."""
        job = self.start(Job(what, args, seconds))
        assert job.task is not None
        await job.task
        if job.state != "done":
            raise JobError(job.error)
        return job.result

    async def warm(self) -> None:
        """Have one worker ready before it is needed."""
        async with self._room:
            self._idle.append(await self._spawn())

    async def close(self) -> None:
        """Stop everything."""
        for task in list(self._jobs):
            task.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        await asyncio.gather(*(w.stop() for w in list(self._all)))

    async def _do(self, job: Job) -> None:
        self.waiting += 1
        try:
            await self._room.acquire()
        finally:
            self.waiting -= 1
        try:
            job.say("running")
            async with asyncio.timeout(job.seconds):
                await self._work(job)
        except TimeoutError:
            job.say("failed", error=f"stopped after {job.seconds:.0f} s, which is as long as it may take")
        except JobError as error:
            job.say("failed", error=str(error))
        except Exception as error:
            job.say("failed", error=f"this failed in a way that is ours ({type(error).__name__}: {error})")
        finally:
            self._room.release()

    async def _work(self, job: Job) -> None:
        worker = self._idle.pop() if self._idle else await self._spawn()
        keep = False
        try:
            worker.write({"do": job.what, "with": job.args})
            while "progress" in (news := await worker.read()):
                job.say(progress=news["progress"])
            if "error" in news:
                job.say("failed", error=news["error"])
            else:
                job.say("done", result=job.then(news["done"]) if job.then else news["done"])
            worker.uses += 1
            keep = worker.uses < self._uses
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise JobError("the work died: it needed more memory than the server gives one job") from error
        finally:
            if keep:
                self._idle.append(worker)
            else:
                self._all.discard(worker)
                await asyncio.shield(worker.stop())

    async def _spawn(self) -> _Worker:
        one = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "isoflop.page._worker", str(self._memory), env=one,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        worker = _Worker(process)
        self._all.add(worker)
        try:
            await worker.read()
        except BaseException:
            self._all.discard(worker)
            await asyncio.shield(worker.stop())
            raise
        return worker
