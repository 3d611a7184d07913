"""MLflow: a file store (mlruns/), an SQLite store (mlflow.db), or a tracking server, read without the package."""

from __future__ import annotations

import json
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from isoflop._columns import RunsError, plain
from isoflop.importers._importer import Logged, Source, importer, series_of
from isoflop.importers._safe import load_yaml, read_bytes, real, walk

_STATUS = {"1": "unfinished", "2": "unfinished", "3": "ok", "4": "failed", "5": "failed",
           "RUNNING": "unfinished", "SCHEDULED": "unfinished", "FINISHED": "ok", "FAILED": "failed",
           "KILLED": "failed"}  # fmt: skip
_ANSWER = 1 << 28


def _is_ours(path: Path) -> bool:
    if path.suffix in (".db", ".sqlite", ".sqlite3"):
        return _is_store(path)
    return path.name == "meta.yaml" and ((path.parent / "metrics").is_dir() or (path.parent / "params").is_dir())


@importer(_is_ours, address=lambda text: text.startswith(("http://", "https://", "sqlite:///")))
def mlflow(source: Source) -> Iterator[Logged]:
    """MLflow: mlruns/ or mlflow.db, or a tracking server's http:// address (#EXPERIMENT for one of them).

    Deleted runs are left out. A server is asked by its REST API, version 2.0; MLFLOW_TRACKING_TOKEN is sent where set.
    """
    if source.text.startswith(("http://", "https://")):
        yield from _server(source.text)
    elif source.text.startswith("sqlite:///"):
        path = Path(source.text.removeprefix("sqlite:///"))
        if not path.is_file():
            raise RunsError(f"no file {plain(str(path))}; a path from the top has four slashes, sqlite:////home/...")
        yield from _store(path)
    else:
        for path in source.files:
            yield from _folder(path) if path.name == "meta.yaml" else _store(path)


def _folder(meta: Path) -> Iterator[Logged]:
    said = load_yaml(meta)
    if not isinstance(said, dict):
        raise RunsError(f"{plain(str(meta))} holds no settings; is it MLflow's?")
    if said.get("lifecycle_stage") == "deleted":
        return
    home, points = meta.parent, {}
    for path in walk(home / "metrics"):
        points[path.relative_to(home / "metrics").as_posix()] = _metric(path)
    params = {p.relative_to(home / "params").as_posix(): _text(p) for p in walk(home / "params")}
    name = str(said.get("run_name") or _text(home / "tags" / "mlflow.runName") or said.get("run_id") or home.name)
    yield Logged(
        run=name, place=str(home), config=params, series=series_of(points),
        status=_STATUS.get(str(said.get("status")), ""), row={"mlflow_id": (home.name, "run id")},
    )  # fmt: skip


def _metric(path: Path) -> list[tuple[float, float]]:
    """Lines of `timestamp value step`."""
    out = []
    for number, line in enumerate(read_bytes(path, limit=1 << 28).decode("utf-8", "replace").splitlines(), 1):
        cells = line.split()
        value, step = (real(cells[1]), real(cells[2])) if len(cells) >= 3 else (None, None)
        if value is None or step is None:
            raise RunsError(f"{plain(path.name)} line {number} is no `timestamp value step` of MLflow's")
        out.append((step, value))
    return out


def _text(path: Path) -> str:
    return read_bytes(path, limit=1 << 20).decode("utf-8", "replace").strip() if path.is_file() else ""


# ---- SQLite ----------------------------------------------------------------------------------------------------------


def _is_store(path: Path) -> bool:
    try:
        with closing(_connect(path)) as store:
            found = {r[0] for r in store.execute("select name from sqlite_master where type = 'table'")}
    except (sqlite3.Error, OSError):
        return False
    return {"runs", "metrics", "params"} <= found


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)


def _store(path: Path) -> Iterator[Logged]:
    if not path.is_file() or not _is_store(path):
        raise RunsError(f"{plain(str(path))} is no MLflow store: SQLite with tables runs, metrics and params")
    try:
        with closing(_connect(path)) as store:
            runs = "select run_uuid, name, status from runs where lifecycle_stage = 'active' order by start_time"
            for run, name, status in store.execute(runs).fetchall():
                points: dict[str, list[tuple[float, float]]] = {}
                rows = "select key, step, value, is_nan from metrics where run_uuid = ? order by step, timestamp"
                for key, step, value, is_nan in store.execute(rows, (run,)):
                    points.setdefault(str(key), []).append((float(step), float("nan") if is_nan else float(value)))
                params = dict(store.execute("select key, value from params where run_uuid = ?", (run,)).fetchall())
                yield Logged(
                    run=str(name or run), place=str(path), config=params, series=series_of(points),
                    status=_STATUS.get(str(status), ""), row={"mlflow_id": (run, "run id")},
                )  # fmt: skip
    except (sqlite3.Error, TypeError, ValueError) as exc:
        raise RunsError(f"{plain(str(path))} cannot be read as an MLflow store: {exc}") from None


# ---- tracking server -------------------------------------------------------------------------------------------------


def _server(address: str) -> Iterator[Logged]:
    base, _, wanted = address.partition("#")
    asked = {"filter": f"name = '{wanted}'"} if wanted and "'" not in wanted else {}
    found = list(_pages(base, "experiments/search", "experiments", {"max_results": 1000, **asked}))
    if not found:
        raise RunsError(f"{base} has no experiment {wanted!r}" if wanted else f"{base} has no experiments")
    experiments = [str(e["experiment_id"]) for e in found]
    wanted_runs = {"experiment_ids": experiments, "max_results": 1000, "order_by": ["attributes.start_time ASC"]}
    for run in _pages(base, "runs/search", "runs", wanted_runs):
        info, data = run.get("info") or {}, run.get("data") or {}
        run_id = str(info.get("run_id") or info.get("run_uuid"))
        keys = [str(m["key"]) for m in data.get("metrics") or []]
        points = {key: list(_history(base, run_id, key)) for key in keys}
        yield Logged(
            run=str(info.get("run_name") or run_id), place=base,
            config={str(p["key"]): p.get("value") for p in data.get("params") or []},
            series=series_of({k: v for k, v in points.items() if v}),
            status=_STATUS.get(str(info.get("status")), ""), row={"mlflow_id": (run_id, "run id")},
        )  # fmt: skip


def _history(base: str, run_id: str, key: str) -> Iterator[tuple[float, float]]:
    query = {"run_id": run_id, "metric_key": key, "max_results": 25000}
    token = ""
    while True:
        answer = _ask(
            base, "metrics/get-history?" + urllib.parse.urlencode(query | ({"page_token": token} if token else {}))
        )
        for point in answer.get("metrics") or []:
            step, value = real(point.get("step", 0)), real(point.get("value"))
            if step is not None and value is not None:
                yield step, value
        before, token = token, str(answer.get("next_page_token") or "")
        if not token or token == before:
            return


def _pages(base: str, path: str, name: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    token = ""
    while True:
        answer = _ask(base, path, body | ({"page_token": token} if token else {}))
        yield from (item for item in answer.get(name) or [] if isinstance(item, dict))
        before, token = token, str(answer.get("next_page_token") or "")
        if not token or token == before:
            return


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nothing, so that a token goes nowhere but to the address that was given."""

    def redirect_request(self, *args: Any) -> None:
        """None: the answer that redirects is the error."""


def _ask(base: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    url = f"{base.rstrip('/')}/api/2.0/mlflow/{path}"
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode(), headers=headers)
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=60) as answer:
            data = answer.read(_ANSWER + 1)
        said = json.loads(data) if len(data) <= _ANSWER else None
    except urllib.error.HTTPError as exc:
        with exc:
            raise RunsError(f"{base} answered {exc.code} to {path.split('?')[0]}; is it an MLflow server?") from None
    except (urllib.error.URLError, OSError, ValueError) as exc:
        why = getattr(exc, "reason", None) or exc
        raise RunsError(f"{base} gives no answer that can be read ({why}); is it an MLflow server?") from None
    if not isinstance(said, dict):
        raise RunsError(f"{base} answered {path.split('?')[0]} with no object, or far too much")
    return said
