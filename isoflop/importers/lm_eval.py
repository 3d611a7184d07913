"""lm-evaluation-harness: results and sample logs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from isoflop._columns import RunsError, plain
from isoflop.importers._importer import Logged, Source, importer
from isoflop.importers._safe import head_of, load_json, parse_json, real
from isoflop.levers.think._sample_files import _harness_rows, is_likelihood

_ACCURACIES = ("acc", "exact_match", "pass@1", "pass_at_1", "mc2", "mc1", "acc_norm")
_RESULTS = re.compile(r"results_.*\.json|results\.json")
_SAMPLES = re.compile(r"samples_(?P<task>.+?)_\d{4}-\d{2}-\d{2}T[\d.\-:]+\.jsonl")


def _is_ours(path: Path) -> bool:
    if _RESULTS.fullmatch(path.name):
        return b'"results"' in head_of(path, 1 << 16)
    return bool(_SAMPLES.fullmatch(path.name))


@importer(_is_ours)
def lm_eval(source: Source) -> Iterator[Logged]:
    """lm-evaluation-harness results_*.json and samples_*.jsonl: a file, or a folder of outputs.

    One row a model, task and filter: accuracy with its standard error, further metrics under their own names. A task
    with a sample log only is averaged from it. Samples go to samples/, as `think replay` reads them.
    """
    logs = [p for p in source.files if p.suffix == ".jsonl"]
    for path in source.files:
        if path.suffix == ".json":
            yield from _results(path)
    models = {p.parent: _model(load_json(p), p) for p in source.files if p.suffix == ".json"}
    for path in logs:
        yield from _samples(path, models.get(path.parent, path.parent.name), averaged=path.parent not in models)


def _results(path: Path) -> Iterator[Logged]:
    said = load_json(path)
    if not isinstance(said, dict) or not isinstance(said.get("results"), dict):
        raise RunsError(f"{plain(path.name)} holds no results; is it lm-evaluation-harness's?")
    model = _model(said, path)
    for task, metrics in said["results"].items():
        if not isinstance(metrics, dict):
            continue
        for name in dict.fromkeys(k.partition(",")[2] for k in metrics if "," in k):
            yield _task(path, said, model, str(task), metrics, name)


def _config(said: Mapping[str, Any]) -> Mapping[str, Any]:
    config = said.get("config")
    return config if isinstance(config, dict) else {}


def _model(said: Mapping[str, Any], path: Path) -> str:
    return str(said.get("model_name") or _config(said).get("model") or path.parent.name)


def _task(path: Path, said: Mapping[str, Any], model: str, task: str, metrics: Mapping[str, Any], name: str) -> Logged:
    """One task under one filter; the results' keys are `metric,filter` and `metric_stderr,filter`."""
    mine = {k.partition(",")[0]: v for k, v in metrics.items() if k.partition(",")[2] == name and "," in k}
    chosen = next((k for k in _ACCURACIES if real(mine.get(k)) is not None), None)
    row: dict[str, Any] = {"model": (model, "model_name"), "task": (task, "results")}
    if name not in ("", "none"):
        row["filter"] = (name, "the filter after the metric's comma")
    if chosen:
        row |= {"accuracy": (real(mine[chosen]), f"results {chosen}")}
        if (error := real(mine.get(f"{chosen}_stderr"))) is not None:
            row["accuracy_se"] = (error, f"results {chosen}_stderr")
    others = {k: number for k, v in mine.items()
              if k != chosen and k != f"{chosen}_stderr" and (number := real(v)) is not None}  # fmt: skip
    row |= {k.replace("_stderr", "_se"): (v, f"results {k}") for k, v in others.items()}
    if count := real(_config(said).get("model_num_parameters")):
        row["params"] = (count, "config model_num_parameters")
    problems = (said.get("n-samples") or {}).get(task)
    if isinstance(problems, dict) and (n := real(problems.get("effective"))):
        row["problems"] = (n, "n-samples effective")
    if (shots := real((said.get("n-shot") or {}).get(task))) is not None:
        row["shots"] = (shots, "n-shot")
    label = f"{model}:{task}" + (f":{name}" if "filter" in row else "")
    return Logged(run=label, place=str(path), row=row, status="ok")


def _samples(path: Path, model: str, *, averaged: bool) -> Iterator[Logged]:
    match = _SAMPLES.fullmatch(path.name)
    task = match["task"] if match else path.stem
    rows = list(chain.from_iterable(_rows(record, path) for record in _records(path)))
    if not rows:
        raise RunsError(f"{plain(path.name)} holds no samples")
    run = f"{model}:{task}"
    kept = tuple({"task": task, "model": model, **r} for r in rows)
    row = {}
    if averaged:
        row = {"task": (task, "file name"), "model": (model, "folder"), **mean_of(rows, "sample log")}
    yield Logged(run=run, place=str(path), row=row, status="ok", samples=kept)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                record = parse_json(line, f"{path.name} line {number}")
                if not isinstance(record, dict) or "doc_id" not in record:
                    raise RunsError(f"{plain(path.name)} line {number} is no sample: it has no doc_id")
                yield record


def _rows(record: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """Rows of one document; of a choice by likelihood, whose answers are [likelihood, greedy], the metric."""
    answers = record.get("filtered_resps", record.get("resps"))
    if is_likelihood(answers):
        names = [n for n in (record.get("metrics") or _ACCURACIES) if real(record.get(n)) is not None]
        return [{"problem": str(record["doc_id"]), "correct": float(record[names[0]])}] if names else []
    return _harness_rows(record, path)


def mean_of(rows: list[dict[str, Any]], what: str) -> dict[str, Any]:
    """Accuracy over problems with its standard error, from rows with `problem` and `correct`."""
    by: dict[str, list[float]] = {}
    for row in rows:
        if (correct := real(row.get("correct"))) is not None:
            by.setdefault(str(row["problem"]), []).append(correct)
    if not by:
        return {}
    means = np.array([np.mean(v) for v in by.values()])
    out: dict[str, Any] = {"accuracy": (float(means.mean()), f"mean over the {what}"), "problems": (len(by), what)}
    if len(by) > 1:
        out["accuracy_se"] = (float(means.std(ddof=1) / np.sqrt(len(by))), f"spread over problems of the {what}")
    return out
