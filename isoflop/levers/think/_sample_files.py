"""The files in which samples are found, as chunks of columns: tables, stores, and logs of two evaluation harnesses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from isoflop._progress import progress

COSTS = ("gen_tokens", "prompt_tokens", "seconds", "usd")
_TEXT = ("problem", "answer", "role", "error", "status", "model", "strategy")
_STORE = ("key", "sample", "verifier", "settings", "shared_tokens")  # what only our own store has
_WANTED = {*COSTS, *_TEXT, *_STORE, "correct", "score", "n", "c"}
_CHUNK = 100_000


class Chunk(NamedTuple):
    """Some rows of one source: columns, the numbers of the rows (a range or an array), and the source's name."""

    cells: dict[str, Any]
    lines: Any
    place: str


def chunks_of(source: Any, rename: dict[str, str], more: set[str]) -> Iterator[Chunk]:
    """Chunks of a path, a folder, or a table in memory, with columns renamed and others left out."""
    wanted = _WANTED | more
    for place, cells, first in _raw(source, {k for k, v in rename.items() if v in wanted} | wanted):
        named = {rename.get(name, name): values for name, values in cells.items()}
        rows = len(next(iter(named.values()))) if named else 0
        yield Chunk({k: v for k, v in named.items() if k in wanted}, range(first, first + rows), place)


def _raw(source: Any, wanted: set[str]) -> Iterator[tuple[str, dict[str, Any], int]]:
    if not isinstance(source, str | Path):
        yield "the table", _columns(source), 1
        return
    for path in _files(Path(source)):
        first = 1
        for cells in _READERS[_kind(path)](path, wanted):
            yield path.name, cells, first
            first += len(next(iter(cells.values()))) if cells else 0


def _columns(table: Any) -> dict[str, Any]:
    if isinstance(table, Mapping):
        return dict(table)
    if hasattr(table, "columns"):  # pandas, polars
        return {str(name): table[name].to_numpy() for name in table.columns}
    raise ValueError(
        f"cannot read samples from {type(table).__name__}; give a path, a mapping of columns or a data frame"
    )


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        if (path / "samples").is_dir():  # of a sweep
            path = path / "samples"
        found = sorted(p for p in path.iterdir() if _kind(p, strict=False))
        if not found:
            raise ValueError(f"no files of samples in {path.name}/ (CSV, JSON lines, Parquet, .eval, .json)")
        return found
    if not path.exists():
        raise ValueError(f"no file {str(path)!r}")
    return [path]


def prices_of(source: Any) -> dict[str, float]:
    """The prices that a folder of `isoflop think run` was made with; none for another source."""
    path = Path(source) / "lever.json" if isinstance(source, str | Path) else Path()
    if not path.is_file():
        return {}
    return dict(json.loads(path.read_text(encoding="utf-8")).get("prices") or {})


def _kind(path: Path, *, strict: bool = True) -> str:
    kinds = {".csv": "csv", ".tsv": "csv", ".jsonl": "lines", ".ndjson": "lines", ".parquet": "parquet",
             ".json": "json", ".eval": "eval"}  # fmt: skip
    kind = kinds.get(path.suffix.lower(), "")
    if not kind and strict:
        raise ValueError(f"{path.name}: samples are read from {', '.join(kinds)}")
    return kind


def _csv(path: Path, wanted: set[str]) -> Iterator[dict[str, Any]]:
    import pandas as pd

    text = {name: str for name in wanted if name not in {*COSTS, "correct", "score", "n", "c"}}
    with _opened(path) as (file, tick), pd.read_csv(
        file, sep="\t" if path.suffix == ".tsv" else ",", chunksize=_CHUNK, usecols=lambda c: c in wanted, dtype=text,
        keep_default_na=False, na_values={c: [""] for c in wanted},
    ) as frames:  # fmt: skip
        for frame in frames:
            tick()
            yield {str(c): frame[c].to_numpy(object if c in text else None) for c in frame.columns}


def _parquet(path: Path, wanted: set[str]) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("reading Parquet needs pyarrow: pip install 'isoflop[parquet]'") from error
    file = parquet.ParquetFile(path)
    names = [n for n in file.schema_arrow.names if n in wanted]
    with progress(f"{path.name}, rows", file.metadata.num_rows) as tick:
        for batch in file.iter_batches(batch_size=_CHUNK, columns=names):
            tick(batch.num_rows)
            yield {n: batch.column(n).to_numpy(zero_copy_only=False) for n in names}


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, Callable[[], None]]]:
    """A file, and what to call to show how far it has been read."""
    with path.open("rb") as file, progress(f"{path.name}, MB", path.stat().st_size >> 20) as tick:
        at = 0

        def shown() -> None:
            nonlocal at
            before, at = at, file.tell() >> 20
            tick(at - before)

        yield file, shown


def _lines(path: Path, wanted: set[str]) -> Iterator[dict[str, Any]]:
    loads = _loader()
    with _opened(path) as (file, tick):
        rows = (_object(loads, line, path, i) for i, line in enumerate(file, 1) if line.strip())
        while batch := list(islice(rows, _CHUNK)):
            tick()
            if "doc_id" in batch[0] and ("filtered_resps" in batch[0] or "resps" in batch[0]):
                batch = [row for record in batch for row in _harness_rows(record, path)]
            names = list(dict.fromkeys(n for row in batch for n in row if n in wanted))
            yield {name: _filled([row.get(name) for row in batch]) for name in names}


def _filled(values: list[Any]) -> Any:
    import numpy as np

    out = np.empty(len(values), object)
    out[:] = values
    return out


def _loader() -> Any:
    try:
        from orjson import loads
    except ImportError:
        return json.loads
    return loads


def _object(loads: Any, line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = loads(line)
    except ValueError as error:
        raise ValueError(f"{path.name} line {number} is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{path.name} line {number} is not a JSON object")
    return row


def _harness_rows(record: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """Rows of one document of an lm-evaluation-harness sample log (`--log_samples`).

    One response: its metric is `correct`. Several (`repeats`): the log has one metric for all, so each filtered
    response is compared with the target as text. A choice by likelihood has its metric alone.
    """
    raw = record.get("filtered_resps", record.get("resps"))
    answers = [] if is_likelihood(raw) else _flat(raw)
    keys = {"problem": str(record["doc_id"])} | {k: record[k] for k in ("filter",) if k in record}
    if len(answers) > 1:
        target = str(record.get("target", "")).strip()
        return [{**keys, "answer": a, "correct": float(str(a).strip() == target)} for a in answers]
    names = record.get("metrics") or [k for k in ("exact_match", "acc", "pass@1", "pass_at_1") if k in record]
    if not names or names[0] not in record:
        raise ValueError(f"{path.name}: document {record['doc_id']} has no metric of its own")
    return [{**keys, "answer": answers[0] if answers else None, "correct": float(record[names[0]])}]


def is_likelihood(responses: Any) -> bool:
    """Whether an lm-evaluation-harness log's responses are [log-likelihood, greedy] pairs and no texts."""
    inner = responses[0] if isinstance(responses, list) and responses else None
    while isinstance(inner, list) and len(inner) == 1:
        inner = inner[0]
    return isinstance(inner, list) and len(inner) == 2 and str(inner[1]) in ("True", "False")


def _flat(responses: Any) -> list[Any]:
    if not isinstance(responses, list):
        return [] if responses is None else [responses]
    return [x for r in responses for x in _flat(r)]


def _json(path: Path, wanted: set[str]) -> Iterator[dict[str, Any]]:
    loaded = json.loads(path.read_bytes())
    if isinstance(loaded, dict) and isinstance(loaded.get("samples"), list):
        yield _inspect_columns(loaded["samples"], path)
    elif isinstance(loaded, list) and all(isinstance(r, dict) for r in loaded):
        names = list(dict.fromkeys(n for row in loaded for n in row if n in wanted))
        yield {name: _filled([row.get(name) for row in loaded]) for name in names}
    else:
        raise ValueError(f"{path.name} is neither an Inspect log nor a list of rows")


def _eval(path: Path, wanted: set[str]) -> Iterator[dict[str, Any]]:
    """An Inspect log in its zip form: one JSON file a sample."""
    from isoflop.importers._safe import archive  # the door that knows Zstandard, and bombs

    with archive(path) as opened:
        names = [n for n in opened.names() if n.startswith("samples/") and n.endswith(".json")]
        if not names:
            raise ValueError(f"{path.name} holds no samples")
        for start in range(0, len(names), 1000):
            yield _inspect_columns([opened.json(n) for n in names[start : start + 1000]], path)


def _inspect_columns(samples: list[dict[str, Any]], path: Path) -> dict[str, Any]:
    rows = [_inspect_row(s, path) for s in samples]
    return {name: _filled([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _inspect_row(sample: dict[str, Any], path: Path) -> dict[str, Any]:
    """One epoch of one sample; the first scorer says whether it is right."""
    scores = sample.get("scores") or {}
    score: dict[str, Any] = next(iter(scores.values()), {})
    value = score.get("value")
    usage = list((sample.get("model_usage") or {}).values())
    failed = sample.get("error")
    if not failed and value is None:
        raise ValueError(f"{path.name}: sample {sample.get('id')!r} has no score")
    return {
        "problem": str(sample.get("id")), "answer": score.get("answer"), "error": "failed" if failed else None,
        "correct": {"C": 1.0, "I": 0.0, "N": 0.0}.get(value, value) if isinstance(value, str) else value,
        "gen_tokens": float(sum(u.get("output_tokens", 0) for u in usage)),
        "prompt_tokens": float(sum(u.get("input_tokens", 0) for u in usage)),
        "seconds": float(sample.get("total_time") or 0.0),
    }  # fmt: skip


_READERS: dict[str, Any] = {
    "csv": _csv, "lines": _lines, "parquet": _parquet, "json": _json, "eval": _eval,
}  # fmt: skip
