"""Fits of a session: make, show, slide, compare, ask for the next runs, take away."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from isoflop.page import _slide
from isoflop.page._place import PLACE, SESSION, Place, answer, begin, body, find_table
from isoflop.page._sessions import Fitted, Session

_TEXT = 2000
_DRAWS = (20, 2000)
_GROUPS = 6
_PLANS, _PLAN_SECONDS = 16, 20.0  # answers kept of a fit, and how long one may take


def _here(request: web.Request) -> tuple[Place, Session]:
    return request.app[PLACE], SESSION.get()


def summary(fitted: Fitted) -> dict[str, Any]:
    """One line about a fit."""
    return {"id": fitted.id, **fitted.facts}


def _fit_of(session: Session, id: Any) -> Fitted:
    found = session.fits.get(id) if isinstance(id, str) else None
    if found is None:
        raise LookupError("there is no such fit any more; fit the table again")
    return found


# ---- make ------------------------------------------------------------------------------------------------------------


async def _make(request: web.Request) -> web.Response:
    """Start a fit; the job's result is the fit's summary."""
    place, session = _here(request)
    asked = await body(request)
    args = _asked(place, session, asked)
    by = asked.get("by")
    if by:
        return await _make_groups(request, args, _text(by))
    number = session.number()
    path = session.folder / f"fit{number}.json"

    def keep(view: dict[str, Any]) -> dict[str, Any]:
        fitted = Fitted.of(number, view, path, args)
        session.add_fit(fitted)
        return summary(fitted)

    seconds = place.settings.fit_seconds
    how = {"asked": args, "save": str(path)}
    return answer(begin(place, session, "fit", how, seconds=seconds, then=keep).to_dict(), 202)


async def _make_groups(request: web.Request, args: dict[str, Any], by: str) -> web.Response:
    place, session = _here(request)
    numbers = [session.number() for _ in range(_GROUPS)]
    paths = [session.folder / f"fit{n}.json" for n in numbers]

    def keep(found: dict[str, Any]) -> dict[str, Any]:
        for number, path, view in zip(numbers, paths, found["views"], strict=False):
            session.add_fit(Fitted.of(number, view, path, {}))
        return {"id": numbers[0], "fits": numbers[: len(found["views"])]}

    how = {"asked": args, "by": by, "saves": [str(p) for p in paths]}
    return answer(begin(place, session, "groups", how, seconds=place.settings.fit_seconds, then=keep).to_dict(), 202)


def _asked(place: Place, session: Session, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a fit was asked for, each part of the right kind. Raises ValueError or LookupError."""
    table = find_table(place, session, asked.get("table"))
    draws = _whole(asked.get("draws", 200), "draws", *_DRAWS)
    seed = _whole(asked.get("seed", 0), "the seed", 0, 2**31)
    return {
        "path": str(table.path), "shown": table.name, "law": _text(asked.get("law", "auto")),
        "rename": _names(asked.get("rename")), "where": _text(asked.get("where", "")),
        "skip_bad": asked.get("skip_bad") is True, "axis": _names(asked.get("axis")),
        "target": _text(asked.get("target") or "") or None, "hold_out": _text(asked.get("hold_out", "")),
        "draws": draws, "seed": seed, "fixed": _numbers(asked.get("fixed")), "derive": asked.get("derive") is True,
    }  # fmt: skip


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _TEXT:
        raise ValueError(f"a text of at most {_TEXT} characters belongs here")
    return value


def _names(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > 100:
        raise ValueError("columns are given as an object of names")
    return {_text(k): _text(v) for k, v in value.items()}


def _numbers(value: Any) -> dict[str, float]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > 100:
        raise ValueError("numbers are given as an object of names and numbers")
    return {_text(k): _number(v, k) for k, v in value.items()}


def _number(value: Any, name: str = "a number") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e300:
        raise ValueError(f"{str(name)[:60]} must be a number above zero")
    return float(value)


def _whole(value: Any, name: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}")
    return value


# ---- show and slide --------------------------------------------------------------------------------------------------


async def _show(request: web.Request) -> web.Response:
    fitted = _fit_of(_here(request)[1], request.match_info["fit"])
    if "gzip" not in request.headers.get("Accept-Encoding", ""):
        return web.Response(body=gzip.decompress(fitted.view), content_type="application/json")
    return web.Response(body=fitted.view, content_type="application/json", headers={"Content-Encoding": "gzip"})


async def _forget(request: web.Request) -> web.Response:
    session = _here(request)[1]
    fitted = session.fits.pop(_fit_of(session, request.match_info["fit"]).id)
    fitted.path.unlink(missing_ok=True)
    return answer({"ok": True})


async def _plan(request: web.Request) -> web.Response:
    """The plan under constraints: what the sliders show. The last answers of each fit are kept."""
    place, session = _here(request)
    fitted = _fit_of(session, request.match_info["fit"])
    asked = _slide.checked((await body(request)).get("constraints"))
    key = repr(sorted(asked.items()))
    if key not in fitted.plans:
        args = {"path": str(fitted.path), "fixed": fitted.facts["fixed"], "constraints": asked,
                "prices": place.settings.prices}  # fmt: skip
        found = await place.planners.run("plan", args, seconds=_PLAN_SECONDS)
        if len(fitted.plans) >= _PLANS:
            fitted.plans.pop(next(iter(fitted.plans)), None)
        fitted.plans[key] = json.dumps(found).encode()
    return web.Response(body=fitted.plans[key], content_type="application/json")


# ---- compare and suggest ---------------------------------------------------------------------------------------------


async def _compare(request: web.Request) -> web.Response:
    place, session = _here(request)
    asked = await body(request)
    first, second = _fit_of(session, asked.get("first")), _fit_of(session, asked.get("second"))
    names = [f.title[:60] for f in (first, second)]
    if names[0] == names[1]:
        names = [f"{n} ({letter})" for n, letter in zip(names, "AB", strict=True)]
    args = {"first": str(first.path), "second": str(second.path), "names": names,
            "axis": _text(asked.get("axis") or "") or None, "at": _numbers(asked.get("at"))}  # fmt: skip
    return answer(begin(place, session, "compare", args, seconds=place.settings.fit_seconds).to_dict(), 202)


async def _suggest(request: web.Request) -> web.Response:
    place, session = _here(request)
    asked = await body(request)
    fitted = _fit_of(session, request.match_info["fit"])
    args = {"fit": str(fitted.path), "budget": _number(asked.get("budget"), "budget"), "about": _number(
        asked.get("about"), "about"), "count": _whole(asked.get("count", 5), "how many", 1, 20),
        "save": str(session.folder / f"next{fitted.id}.csv")}  # fmt: skip
    return answer(begin(place, session, "suggest", args, seconds=place.settings.fit_seconds).to_dict(), 202)


# ---- take away -------------------------------------------------------------------------------------------------------


async def _saved(request: web.Request) -> web.Response:
    """The fit as `isoflop fit --out` writes it, and the suggested runs as a table."""
    session = _here(request)[1]
    fitted = _fit_of(session, request.match_info["fit"])
    if request.path.endswith("/fit.json"):
        return download(fitted.path.read_bytes(), f"{_file_name(fitted.title)}.json", "application/json")
    path = session.folder / f"next{fitted.id}.csv"
    if not path.is_file():
        raise LookupError("no runs were suggested for this fit yet")
    return download(path.read_bytes(), f"{_file_name(fitted.title)}-next.csv", "text/csv")


async def _write_page(request: web.Request) -> web.Response:
    """Start writing the whole view as one HTML file."""
    place, session = _here(request)
    asked = await body(request)
    fitted = _fit_of(session, request.match_info["fit"])
    if not fitted.asked:
        raise ValueError("a fit of one recipe of several has no page of its own; fit it alone with a condition")
    args = {"asked": fitted.asked, "save": str(_page_path(session, fitted)),
            "sections": _sections(asked.get("sections")),
            "budgets": [_number(b, "budget") for b in (asked.get("budgets") or [])[:12]]}  # fmt: skip
    return answer(begin(place, session, "page", args, seconds=place.settings.fit_seconds).to_dict(), 202)


def _sections(value: Any) -> list[dict[str, Any]]:
    """Tables that the page shows beside the fit (plan, comparison, next runs), as words. Raises ValueError."""
    found = value or []
    if not isinstance(found, list) or len(found) > 8:
        raise ValueError("sections are a list of at most eight tables")
    out = []
    for s in found:
        if not isinstance(s, dict) or not all(isinstance(s.get(k), list) for k in ("header", "rows")):
            raise ValueError("a section is a table: title, caption, header, rows")
        header = [_text(c) for c in s["header"][:30]]
        rows = [[_text(c) for c in r] for r in s["rows"][:300] if isinstance(r, list) and len(r) == len(header)]
        out.append({"title": _text(s.get("title", "")), "caption": _text(s.get("caption", "")), "header": header,
                    "rows": rows})  # fmt: skip
    return out


async def _page(request: web.Request) -> web.StreamResponse:
    session = _here(request)[1]
    fitted = _fit_of(session, request.match_info["fit"])
    path = _page_path(session, fitted)
    if not path.is_file():
        raise LookupError("the page was not written yet")
    return download(path.read_bytes(), f"{_file_name(fitted.title)}.html", "text/html")


def _page_path(session: Session, fitted: Fitted) -> Path:
    return session.folder / f"page{fitted.id}.html"


def _file_name(title: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-.")[:80] or "isoflop"


def download(data: bytes, name: str, kind: str) -> web.Response:
    """A file to be saved and never shown in place."""
    return web.Response(body=data, content_type=kind, charset="utf-8",
                        headers={"Content-Disposition": f'attachment; filename="{name}"'})  # fmt: skip


ROUTES = [
    web.post("/api/fits", _make), web.get("/api/fits/{fit}", _show), web.delete("/api/fits/{fit}", _forget),
    web.post("/api/fits/{fit}/plan", _plan), web.post("/api/fits/{fit}/next", _suggest),
    web.post("/api/fits/{fit}/page", _write_page), web.get("/api/fits/{fit}/page.html", _page),
    web.get("/api/fits/{fit}/fit.json", _saved), web.get("/api/fits/{fit}/next.csv", _saved),
    web.post("/api/compare", _compare),
]  # fmt: skip
