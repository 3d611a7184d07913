"""Inspect: evaluation logs, in zip (.eval) and JSON form."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from isoflop._columns import RunsError, plain
from isoflop.importers._importer import Logged, Source, importer
from isoflop.importers._safe import archive, head_of, load_json, real
from isoflop.importers.lm_eval import mean_of
from isoflop.levers.think._sample_files import _inspect_row


def _is_ours(path: Path) -> bool:
    if path.suffix == ".eval":
        return True
    if path.suffix != ".json":
        return False
    head = head_of(path, 4096)
    return b'"version"' in head and b'"eval"' in head and b'"task"' in head


@importer(_is_ours)
def inspect(source: Source) -> Iterator[Logged]:
    """Inspect logs (.eval or .json): a file, or a folder of logs.

    One row a log: accuracy of the first scorer with its standard error, tokens a problem over all epochs, wall time.
    Samples go to samples/, as `think replay` reads them.
    """
    for path in source.files:
        yield _log(path)


def _log(path: Path) -> Logged:
    head, samples = _zipped(path) if path.suffix == ".eval" else _plain(path)
    told = head.get("eval")
    if not isinstance(told, dict):
        raise RunsError(f"{plain(path.name)} is no Inspect log: it says nothing of its evaluation")
    task, model = str(told.get("task", path.stem)), str(told.get("model", ""))
    scored = [s for s in samples if s.get("error") or s.get("scores")]
    rows = [_inspect_row(s, path) for s in scored]
    row: dict[str, Any] = {"model": (model, "eval.model"), "task": (task, "eval.task")}
    row |= _score(head) or mean_of([r for r in rows if not r["error"]], "samples")
    row |= _costs(rows) | _clock(head.get("stats") or {})
    status = {"success": "ok", "error": "failed", "cancelled": "failed", "started": "unfinished"}
    notes = () if len(scored) == len(samples) else (f"{path.name}: {len(samples) - len(scored)} samples have no score",)
    return Logged(
        run=f"{model}:{task}:{told.get('run_id', path.stem)}", place=str(path), row=row, notes=notes,
        status=status.get(str(head.get("status")), str(head.get("status") or "")),
        samples=tuple({"task": task, "model": model, **r} for r in rows),
    )  # fmt: skip


def _zipped(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    with archive(path) as opened:
        names = opened.names()
        start = "header.json" if "header.json" in names else "_journal/start.json"
        head = opened.json(start)
        samples = [_slim(opened.json(n)) for n in names if n.startswith("samples/") and n.endswith(".json")]
    return (head if isinstance(head, dict) else {}), samples


def _plain(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    said = load_json(path)
    if not isinstance(said, dict):
        raise RunsError(f"{plain(path.name)} is no Inspect log: it holds no object")
    return said, [_slim(s) for s in said.get("samples") or []]


def _slim(sample: dict[str, Any]) -> dict[str, Any]:
    """What is used of a sample: its transcript can be a thousand times as large."""
    return {k: sample.get(k) for k in ("id", "scores", "model_usage", "error", "total_time")}


def _score(head: dict[str, Any]) -> dict[str, Any]:
    """Accuracy as the first scorer that has one gives it, with its own standard error."""
    results = head.get("results")
    for score in (results or {}).get("scores") or []:
        metrics = score.get("metrics") or {}
        value = real((metrics.get("accuracy") or metrics.get("mean") or {}).get("value"))
        if value is None:
            continue
        name = f"results.{score.get('name', 'score')}"
        out: dict[str, Any] = {"accuracy": (value, f"{name}.{'accuracy' if 'accuracy' in metrics else 'mean'}")}
        if (error := real((metrics.get("stderr") or {}).get("value"))) is not None:
            out["accuracy_se"] = (error, f"{name}.stderr")
        return out
    return {}


def _costs(rows: list[dict[str, Any]]) -> dict[str, Any]:
    problems = len({r["problem"] for r in rows})
    if not problems:
        return {}
    out: dict[str, Any] = {"problems": (problems, "samples"), "samples": (len(rows) / problems, "epochs")}
    for name in ("gen_tokens", "prompt_tokens"):
        if total := sum(r[name] for r in rows):
            out[name] = (total / problems, "model_usage of the samples, a problem")
    return out


def _clock(stats: dict[str, Any]) -> dict[str, Any]:
    try:
        began, ended = (datetime.fromisoformat(str(stats[k])) for k in ("started_at", "completed_at"))
        return {"seconds": ((ended - began).total_seconds(), "stats.started_at to completed_at")}
    except (KeyError, ValueError, TypeError):
        return {}
