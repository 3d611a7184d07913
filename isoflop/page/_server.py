"""The server of the page: routes, sessions, uploads. Every answer is JSON; every error is one sentence."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

import isoflop
from isoflop._answer import finite
from isoflop.page import _fits, _guard, _slide, _static
from isoflop.page._catalogue import Catalogue
from isoflop.page._guard import Gate, refusal
from isoflop.page._jobs import Job, JobError, Pool
from isoflop.page._place import PLACE, SESSION, Place, Settings, answer, begin, body, find_table
from isoflop.page._sessions import UPLOADS, Full, Session, Sessions, Table, safe_name, tables_in

_COOKIE = "isoflop_session"
_FREE = ("/", "/healthz", "/plotly.js", "/api/login")  # what a stranger may have; and the static files
_UPLOAD_SECONDS = 600
_KEPT = 20_000  # characters of the page's own choices


def application(settings: Settings) -> web.Application:
    """The server's application; its folder and processes live as long as it runs."""
    gate = _guard.gate_for(settings.bind, allow=settings.allow, token=settings.token)
    app = web.Application(middlewares=[_said, _guard.guard, _known], client_max_size=1 << 20)
    app[_guard.GATE] = gate
    app.on_response_prepare.append(_guard.add_headers)
    app.cleanup_ctx.append(_living(settings, gate))
    app.add_routes([
        web.get("/", _index), web.get("/healthz", _health), web.get("/static/{name}", _file),
        web.get("/plotly.js", _plotly), web.post("/api/login", _login), web.get("/api/state", _state),
        web.put("/api/kept", _keep), web.get("/api/laws", _laws), web.post("/api/upload", _upload),
        web.post("/api/open", _open), web.get("/api/jobs/{job}/events", _events), web.post("/api/jobs/{job}/cancel",
        _cancel), web.delete("/api/session", _leave), web.get("/api/papers", _papers),
        web.get("/api/papers/{name}", _paper), web.post("/api/papers/{name}/check", _check_paper), *_fits.ROUTES,
    ])  # fmt: skip
    return app


def _living(settings: Settings, gate: Gate) -> Callable[[web.Application], AsyncIterator[None]]:
    async def living(app: web.Application) -> AsyncIterator[None]:
        folder = Path(tempfile.mkdtemp(prefix="isoflop-page-"))
        sessions = Sessions(folder, most=settings.sessions, idle=settings.idle)
        pool = Pool(settings.workers, settings.memory)
        planners = Pool(settings.workers, settings.memory, uses=20_000)
        place = Place(settings, gate, sessions, pool, planners, _static.own_files(), Catalogue(settings.data))
        app[PLACE] = place
        tasks = [asyncio.create_task(c) for c in (_sweep(place), pool.warm(), planners.warm(), place.catalogue.read())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await pool.close()
        await planners.close()
        shutil.rmtree(folder, ignore_errors=True)

    return living


async def _sweep(place: Place) -> None:
    """Forget sessions that nobody uses."""
    while True:
        await asyncio.sleep(min(30.0, place.settings.idle / 2))
        for session in place.sessions.stale():
            place.sessions.drop(session)


# ---- every request ---------------------------------------------------------------------------------------------------


@web.middleware
async def _said(request: web.Request, handler: _guard.Handler) -> web.StreamResponse:
    """Errors as one sentence."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        words = {404: "there is nothing at this address", 405: "this address does not take that kind of request",
                 413: "the request is too large"}  # fmt: skip
        return refusal(error.status, words.get(error.status, error.reason.lower()))
    except (JobError, ValueError, LookupError) as error:
        if isinstance(error, KeyError | IndexError):  # a mistake of ours
            raise
        return refusal(422, str(error))
    except Full:
        return refusal(503, f"all {request.app[PLACE].settings.sessions} places are taken; try again in a minute")


@web.middleware
async def _known(request: web.Request, handler: _guard.Handler) -> web.StreamResponse:
    """The request's session: made on the first visit, refused where a token is needed and was not given."""
    place = request.app[PLACE]
    session = place.sessions.find(request.cookies.get(_COOKIE, ""))
    free = request.path in _FREE or request.path.startswith("/static/")
    made = session is None and request.path == "/api/state" and place.gate.token is None
    if made:
        session = place.sessions.make()
    if session is None and not free:
        needed = "give the token that the server printed"
        return refusal(401, needed if place.gate.token else "this session has ended; load the page again")
    if session is None:
        return await handler(request)
    SESSION.set(session)
    session.answering += 1
    try:
        response = await handler(request)
    finally:
        session.answering -= 1
        session.seen = time.monotonic()
    if made:
        _set_cookie(response, session)
    return response


def _set_cookie(response: web.StreamResponse, session: Session) -> None:
    response.set_cookie(_COOKIE, session.id, httponly=True, samesite="Strict", path="/")


# ---- the page --------------------------------------------------------------------------------------------------------


async def _index(request: web.Request) -> web.Response:
    return request.app[PLACE].files["index.html"].answer(request)


async def _health(request: web.Request) -> web.Response:
    return answer({"ok": True, "isoflop": isoflop.__version__})


async def _file(request: web.Request) -> web.Response:
    found = request.app[PLACE].files.get(request.match_info["name"])
    if found is None:
        raise web.HTTPNotFound
    return found.answer(request)


async def _plotly(request: web.Request) -> web.Response:
    place = request.app[PLACE]
    if place.plotly is None:
        place.plotly = await asyncio.to_thread(_static.plotly_file)
    return place.plotly.answer(request)


async def _login(request: web.Request) -> web.Response:
    place = request.app[PLACE]
    if not place.gate.opens(str((await body(request)).get("token", ""))):
        await asyncio.sleep(0.5)
        return refusal(401, "this is not the token that the server printed")
    response = answer({"ok": True})
    if place.sessions.find(request.cookies.get(_COOKIE, "")) is None:
        _set_cookie(response, place.sessions.make())
    return response


async def _state(request: web.Request) -> web.Response:
    """All that the page needs to show itself again."""
    place, session = request.app[PLACE], SESSION.get()
    tables = tables_in(place.settings.root) | session.uploads
    return answer({
        "isoflop": isoflop.__version__,
        "limits": {"upload": place.settings.upload},
        "tables": [{"id": t.id, "name": t.name, "bytes": t.size, "uploaded": t.uploaded} for t in tables.values()],
        "fits": [_fits.summary(f) for f in session.fits.values()],
        "jobs": [j.to_dict() for j in session.jobs.values() if not j.ended],
        "kept": session.kept,
        "data": place.settings.data is not None,
        "devices": _slide.devices(place.settings.prices),
    })  # fmt: skip


async def _keep(request: web.Request) -> web.Response:
    text = await request.text()
    if len(text) > _KEPT:
        raise ValueError("there is more to keep than the server takes")
    SESSION.get().kept = await body(request)
    return answer({"ok": True})


async def _leave(request: web.Request) -> web.Response:
    place, session = request.app[PLACE], SESSION.get()
    for job in session.jobs.values():
        await place.pool.cancel(job)
    place.sessions.drop(session)
    response = answer({"ok": True})
    response.del_cookie(_COOKIE, path="/")
    return response


async def _laws(request: web.Request) -> web.Response:
    return answer({"laws": await request.app[PLACE].catalogue.laws()})


# ---- tables ----------------------------------------------------------------------------------------------------------


async def _upload(request: web.Request) -> web.Response:
    """The body as a file of the session's own, at most so large."""
    place, session = request.app[PLACE], SESSION.get()
    limit, name = place.settings.upload, safe_name(request.query.get("name", ""))
    too_large = f"the file is larger than {limit >> 20} MB, the most that is taken; put it into the served folder"
    if (request.content_length or 0) > limit:
        return refusal(413, too_large)
    if len(session.uploads) >= UPLOADS or session.disk() > 2 * limit:
        raise ValueError("this session holds enough uploaded files; start a new one")
    folder = session.folder / f"u{session.number()}"
    folder.mkdir(mode=0o700)
    try:
        async with asyncio.timeout(_UPLOAD_SECONDS):
            size = await _written(request, folder / name, limit)
        if size > limit:
            shutil.rmtree(folder, ignore_errors=True)
            return refusal(413, too_large)
        args = {"path": str(folder / name), "shown": name}
        opened = await place.planners.run("open", args, seconds=place.settings.read_seconds)
    except BaseException as error:  # also where the browser goes away half-way
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, TimeoutError):
            return refusal(408, f"the upload took longer than {_UPLOAD_SECONDS} s")
        raise
    table = Table(folder.name, name, folder / name, size, uploaded=True)
    session.uploads[table.id] = table
    return answer(opened | {"id": table.id})


async def _written(request: web.Request, path: Path, limit: int) -> int:
    """Write a request's body to a file; how many bytes came, just over `limit` where it is longer."""
    size = 0
    with path.open("wb") as out:
        async for part in request.content.iter_chunked(1 << 16):
            size += len(part)
            if size > limit:
                break
            out.write(part)
    return size


async def _open(request: web.Request) -> web.Response:
    place, session, asked = request.app[PLACE], SESSION.get(), await body(request)
    table = find_table(place, session, asked.get("table"))
    args = {"path": str(table.path), "shown": table.name}
    found = await place.planners.run("open", args, seconds=place.settings.read_seconds)
    return answer(found | {"id": table.id})


# ---- jobs ------------------------------------------------------------------------------------------------------------


def _job(request: web.Request) -> Job:
    found: Job | None = SESSION.get().jobs.get(request.match_info["job"])
    if found is None:
        raise LookupError("there is no such job any more")
    return found


async def _events(request: web.Request) -> web.StreamResponse:
    """A job's changes as server-sent events."""
    job = _job(request)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        async for news in job.follow():
            await response.write(f"data: {json.dumps(finite(news))}\n\n".encode())
    return response


async def _cancel(request: web.Request) -> web.Response:
    await request.app[PLACE].pool.cancel(_job(request))
    return answer({"ok": True})


# ---- papers ----------------------------------------------------------------------------------------------------------


async def _papers(request: web.Request) -> web.Response:
    query, group = request.query.get("q", "")[:200], request.query.get("group") or None
    return answer(await request.app[PLACE].catalogue.search(query, group))


async def _paper(request: web.Request) -> web.Response:
    return answer(await request.app[PLACE].catalogue.paper(request.match_info["name"]))


async def _check_paper(request: web.Request) -> web.Response:
    place, session = request.app[PLACE], SESSION.get()
    name = place.catalogue.known(request.match_info["name"])
    args = {"name": name, "data": place.settings.data}
    job = begin(place, session, "paper", args, seconds=place.settings.fit_seconds, then=place.catalogue.learn)
    return answer(job.to_dict(), status=202)


# ---- running ---------------------------------------------------------------------------------------------------------


def serve(settings: Settings, ready: Callable[[int], Any] | None = None) -> None:
    """Serve until interrupted or ended. `ready` is called with the port once it listens (port 0: one that is free)."""
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_until_ended(settings, ready))


async def _until_ended(settings: Settings, ready: Callable[[int], Any] | None) -> None:
    task = asyncio.current_task()
    with contextlib.suppress(NotImplementedError):  # on Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # type: ignore[union-attr]
    await serving(settings, ready)


async def serving(settings: Settings, ready: Callable[[int], Any] | None = None) -> None:
    """Serve until cancelled. Raises OSError with one sentence where the port is taken."""
    runner = web.AppRunner(application(settings), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.bind, settings.port, reuse_address=os.name != "nt")
        try:
            await site.start()
        except OSError as error:
            why = os.strerror(error.errno).lower() if error.errno else str(error)
            raise OSError(
                f"cannot listen on {settings.bind}, port {settings.port}: {why}; choose another with --port (0: any)"
            ) from error
        if ready:
            ready(runner.addresses[0][1])
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
