"""Weights & Biases: run folders, exports, and the live service."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from isoflop._columns import RunsError, plain
from isoflop.importers._importer import Logged, Source, beside, importer, points_of, series_of
from isoflop.importers._safe import flat, head_of, load_json, load_yaml, real
from isoflop.importers._wandb_log import WandbLog

_SYSTEM = ("_wandb", "_timestamp", "wandb_version")


def _is_ours(path: Path) -> bool:
    if path.suffix == ".wandb" or path.name == "wandb-summary.json":
        return True
    return path.suffix in (".csv", ".json") and _export(path) != ""


@importer(_is_ours, address=lambda text: text.startswith("wandb:"))
def wandb(source: Source) -> Iterator[Logged]:
    """Weights & Biases: run folders (offline too), CSV or JSON exports, or live as wandb:entity/project.

    A run folder is read from its .wandb file, without the wandb package; a folder with only wandb-summary.json and
    config.yaml gives final values. Live needs the package and its key: pip install wandb.
    """
    if not source.files:
        yield from _live(source.text.removeprefix("wandb:"))
        return
    logs = [p for p in source.files if p.suffix == ".wandb"]
    for path in logs:
        yield _from_log(path)
    for path in source.files:
        if path.name == "wandb-summary.json" and not any(p.parent in path.parents for p in logs):
            yield _from_summary(path)
    exports = [p for p in source.files if p.suffix in (".csv", ".json") and p.name != "wandb-summary.json"]
    yield from _merged(run for path in exports for run in _from_export(path))


def _from_log(path: Path) -> Logged:
    log = WandbLog(path)
    status = "unfinished" if log.exit is None else "ok" if log.exit == 0 else "failed"
    rows = [(at, flat(row, place=path.name)) for at, row in log.rows]
    return _logged(log.name or log.run, str(path), log.config, log.summary, rows, status, notes=tuple(log.notes),
                   other=log.run)  # fmt: skip


def _logged(
    run: str, place: str, config: Any, summary: Any, rows: Iterable[tuple[float, Mapping[str, Any]]], status: str, *,
    notes: tuple[str, ...] = (), other: str = "",
) -> Logged:  # fmt: skip
    config = {k: v for k, v in (config or {}).items() if k not in _SYSTEM}
    final = flat(summary or {}, place=place)
    row = {"wandb_id": (other, "run id")} if other and other != run else {}
    return Logged(
        run=run, place=place, config=flat(config, place=place),
        summary={k: v for k, v in final.items() if not k.startswith(_SYSTEM)},
        series={k: v for k, v in series_of(points_of(rows)).items() if not k.startswith(_SYSTEM)},
        status=status, counts_rows=True, row=row, notes=notes,
        model=config if isinstance(config.get("model_type"), str) else None,
    )  # fmt: skip


def _from_summary(path: Path) -> Logged:
    settings = beside(path, "config.yaml")
    folder = path.parent.parent if path.parent.name == "files" else path.parent
    note = f"{plain(folder.name)} has no .wandb file: final values only, no history"
    loaded = load_yaml(settings) if settings else {}
    config = {k: v.get("value") if isinstance(v, dict) and "value" in v else v for k, v in (loaded or {}).items()}
    return _logged(folder.name, str(path), config, load_json(path), [], "", notes=(note,))


# ---- exports ---------------------------------------------------------------------------------------------------------


def _export(path: Path) -> str:
    """Which export a file is: "runs" (a table of runs), "history" of one run, "chart" of a panel, "json", or ""."""
    head = head_of(path, 1 << 16).decode("utf-8-sig", "replace")
    if path.suffix == ".json":
        return "json" if re.match(r"\s*\[\s*\{", head) and '"config"' in head and '"summary' in head else ""
    names = next(csv.reader([head.split("\n", 1)[0].strip("\r")]), [])
    if "_step" in names:
        return "history"
    if "Name" in names and ("State" in names or "Runtime" in names):
        return "runs"
    return "chart" if names[:1] == ["Step"] and any(" - " in n for n in names[1:]) else ""


def _merged(runs: Iterable[Logged]) -> list[Logged]:
    """One run for each name: a table of runs and a panel's chart, exported apart, say different things of it."""
    found: dict[str, Logged] = {}
    for run in runs:
        first = found.get(run.run)
        if first is None or (first.series and run.series and not set(first.series).isdisjoint(run.series)):
            found[run.run if first is None else f"{run.run} ({Path(run.place).name})"] = run
            continue
        found[run.run] = replace(
            first, config={**run.config, **first.config}, summary={**run.summary, **first.summary},
            series={**run.series, **first.series}, status=first.status or run.status, model=first.model or run.model,
        )  # fmt: skip
    return list(found.values())


def _from_export(path: Path) -> Iterator[Logged]:
    kind = _export(path)
    if kind == "json":
        yield from _from_json(path)
        return
    if not kind:
        raise RunsError(f"{plain(path.name)} is no W&B export: no column Name with State, _step, or Step with charts")
    rows = _csv_rows(path)
    if kind == "runs":
        for row in rows:
            cells = {k: v for k, v in row.items() if k not in ("Name", "State")}
            yield _logged(row["Name"], str(path), cells, {}, [], _status(row.get("State", "")))
    elif kind == "history":
        points = ((at, r) for r in rows if (at := real(r.get("_step"))) is not None)
        yield _logged(path.stem, str(path), {}, {}, points, "")
    else:
        yield from _from_chart(path, rows)


def _from_chart(path: Path, rows: list[dict[str, str]]) -> Iterator[Logged]:
    """A panel's export: Step, then `run - metric` with `__MIN` and `__MAX` beside it."""
    charts: dict[str, dict[str, str]] = {}
    for name in rows[0] if rows else ():
        run, dash, metric = name.rpartition(" - ")
        if dash and not metric.endswith(("__MIN", "__MAX")):
            charts.setdefault(run, {})[name] = metric
    for run, names in charts.items():
        points = (
            (at, {"_step": at} | {m: r.get(n) for n, m in names.items()})
            for r in rows
            if (at := real(r.get("Step"))) is not None
        )
        yield _logged(run, str(path), {}, {}, points, "")


def _csv_rows(path: Path) -> list[dict[str, str]]:
    from isoflop._runs import load

    table = load(path)
    return [{n: _cell(v[i]) for n, v in table.columns.items()} for i in range(len(table))]


def _cell(value: Any) -> str:
    from isoflop._columns import number_text

    return value if isinstance(value, str) else number_text(float(value))


def _from_json(path: Path) -> Iterator[Logged]:
    """[{"name", "id", "state", "config", "summary" or "summaryMetrics", "history"}], objects as texts too."""
    for i, item in enumerate(load_json(path)):
        if not isinstance(item, dict):
            raise RunsError(f"{plain(path.name)} item {i + 1} is no run")
        config, summary = _object(item.get("config")), _object(item.get("summary", item.get("summaryMetrics")))
        rows = [r for r in item.get("history") or [] if isinstance(r, dict)]
        points = [(real(r.get("_step", n)) or 0.0, r) for n, r in enumerate(rows)]
        name = str(item.get("name") or item.get("id") or f"{path.stem}-{i + 1}")
        yield _logged(name, str(path), config, summary, points, _status(str(item.get("state", ""))))


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    return value if isinstance(value, dict) else {}


def _status(state: str) -> str:
    return {"finished": "ok", "running": "unfinished", "": ""}.get(state.casefold(), state.casefold())


def _live(address: str) -> Iterator[Logged]:
    parts = address.strip("/").split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise RunsError(f"{address!r}: write wandb:ENTITY/PROJECT or wandb:ENTITY/PROJECT/RUN")
    try:
        from wandb import Api, Error
    except ImportError as exc:
        raise ImportError("reading W&B live needs its package and key: pip install wandb") from exc
    try:
        api = Api()
        for run in api.runs("/".join(parts)) if len(parts) == 2 else [api.run("/".join(parts))]:
            rows = [(float(row.get("_step", n)), row) for n, row in enumerate(run.scan_history())]
            summary = getattr(run.summary, "_json_dict", {})
            yield _logged(run.name or run.id, f"wandb:{address}", dict(run.config), dict(summary), rows,
                          _status(run.state), other=run.id)  # fmt: skip
    except Error as exc:
        raise RunsError(f"wandb:{address} gives no runs: {' '.join(str(exc).split())[:200]}") from exc
