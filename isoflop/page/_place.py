"""What all requests of the server share, and what several of its parts ask of a request."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from isoflop._answer import finite
from isoflop.page import _static
from isoflop.page._catalogue import Catalogue
from isoflop.page._guard import Gate
from isoflop.page._jobs import Job, Pool
from isoflop.page._sessions import Session, Sessions, Table, tables_in


@dataclass(frozen=True)
class Settings:
    """What a server serves, and its limits.

    data: the folder of public data sets that papers' claims rest on. prices: a file of devices and prices.
    """

    root: Path | None = None
    bind: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    allow: tuple[str, ...] = ()
    data: str | None = None
    prices: str | None = None
    sessions: int = 64
    idle: float = 3600.0
    upload: int = 32 << 20
    workers: int = 2
    memory: int = 4 << 30
    read_seconds: float = 60.0
    fit_seconds: float = 900.0


@dataclass
class Place:
    """What all requests share."""

    settings: Settings
    gate: Gate
    sessions: Sessions
    pool: Pool  # for what takes long
    planners: Pool  # for tables and sliders, which must not wait behind it
    files: dict[str, _static.File]
    catalogue: Catalogue
    plotly: _static.File | None = None


PLACE = web.AppKey("place", Place)
SESSION: ContextVar[Session] = ContextVar("session")  # of the request that is being answered


async def body(request: web.Request) -> dict[str, Any]:
    """The request's JSON object. Raises ValueError."""
    try:
        found = json.loads(await request.text() or "{}")
    except (ValueError, RecursionError) as error:
        raise ValueError("the request is not JSON") from error
    if not isinstance(found, dict):
        raise ValueError("the request is not a JSON object")
    return found


def answer(value: Any, status: int = 200) -> web.Response:
    """Plain values as JSON; numbers that are none are null."""
    return web.json_response(finite(value), status=status)


def find_table(place: Place, session: Session, name: Any) -> Table:
    """A table by its name in a listing; no part of a path comes from the request. Raises LookupError."""
    known = tables_in(place.settings.root) | session.uploads
    if not isinstance(name, str) or name not in known:
        raise LookupError("there is no such table; choose one of those listed")
    return known[name]


def begin(place: Place, session: Session, what: str, args: dict[str, Any], *, seconds: float,
          then: Callable[[Any], Any] | None = None) -> Job:  # fmt: skip
    """Start a job of a session; `then` makes its result what the page sees. Raises ValueError where it has enough."""
    if session.busy() >= 2:
        raise ValueError("two things are under way in this session already; wait for one or cancel it")
    if place.pool.waiting >= 2 * place.settings.sessions:
        raise ValueError("the server has much to do; try again in a minute")
    job = Job(what, args, seconds, then=then)
    session.add_job(job)
    return place.pool.start(job)
