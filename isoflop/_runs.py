"""The door for tables of runs: read them from anywhere, and check them before they are fitted.

Nothing here imports pandas, polars or pyarrow unless the source asks for it, so `isoflop fit runs.csv` starts fast.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop._columns import (
    LABELS,
    METRICS,
    Array,
    Origin,
    Refused,
    RunsError,
    Table,
    missing_column,
    not_a_number,
    number,
    numbers,
    plain,
    show,
    whole_labels,
)

if TYPE_CHECKING:
    import pandas

__all__ = ["Refused", "RunsError", "Table", "check", "load", "parse_rename", "read", "refused_path"]

from isoflop._readers import ALLOWED, Chunk, Source, delimiter, read_chunks, refuse_binary

_KINDS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}
_RUNS_CODE = {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".npy", ".npz", ".joblib", ".dill", ".bin", ".py"}
_OK = frozenset({"", "ok", "done", "finished", "complete", "completed", "success", "succeeded"})

# ---- public ----------------------------------------------------------------------------------------------------------


def read(
    source: Any,
    *,
    rename: Mapping[str, str] | Iterable[str] | None = None,
    where: str | None = None,
    skip_bad: bool | str | os.PathLike[str] = False,
) -> pandas.DataFrame:
    """A table of runs as a pandas frame, human numbers such as 1.4B read as numbers.

    `source`: a file (CSV, TSV, JSON lines, a JSON list, Parquet), a folder or glob of them, "-" for stdin, a pandas or
    polars frame, a dict of columns. `rename`: {their column: ours}. `where`: a condition on the renamed columns.
    `skip_bad`: leave out rows that cannot be read and write them with reasons to a side file: a path, or True for
    `runs.refused.csv` beside `runs.csv` (in the working directory where the source has no place of its own).
    How many rows were refused and left out is in the frame's `attrs`. Raises RunsError (a ValueError).
    """
    table = load(source, rename=rename, where=where, skip_bad=skip_bad)
    if table.refused:
        table.write_refused(refused_path(source) if isinstance(skip_bad, bool) else skip_bad)
    frame = table.to_frame()
    frame.attrs.update(refused=len(table.refused), left_out=dict(table.left_out))
    return frame


def load(
    source: Any,
    *,
    rename: Mapping[str, str] | Iterable[str] | None = None,
    where: str | None = None,
    skip_bad: bool | str | os.PathLike[str] | None = None,
) -> Table:
    """Like `read`, but a Table of numpy arrays, without pandas; with `skip_bad` refused rows are kept in `.refused`.

    Writes nothing: `Table.write_refused` does. Raises RunsError.
    """
    names = parse_rename(rename)
    table = _gather(source, names, bool(skip_bad))
    if table.refused and not skip_bad and not isinstance(source, Table):
        _raise(table.refused)
    if not len(table):
        more = f"; all {len(table.refused)} were refused, the first being {table.refused[0]}" if table.refused else ""
        raise RunsError(f"{table.name} has no rows{more or ' below its header; is it the right file?'}")
    return table if where is None else _keep(table, where, bool(skip_bad))


def check(
    table: Table,
    *,
    need: Sequence[str],
    target: str | None = None,
    positive: Sequence[str] = (),
    finite: bool = True,
    unique: Sequence[str] = ("run", "step"),
    skip_bad: bool = False,
) -> Table:
    """The table that a fit may use: the columns `need` and `target` numeric in every row.

    Rows whose text `status` is not ok are left out and counted in `.left_out`. Then each needed cell must be a number,
    finite (unless `finite=False`), above zero in `positive` columns; and no two rows may share run, seed and step
    (`unique`; with a run but no step column: run, seed and all needed columns that are not metrics).
    Raises RunsError about the first bad row; with `skip_bad` bad rows move to `.refused` instead (of rows that
    are there twice the first stays).
    """
    names = list(dict.fromkeys([*need, *([target] if target else []), *positive]))
    for name in names:
        table[name]  # a missing column is worth saying before anything about rows
    given = usable = _drop_failed(table)
    bad: dict[int, tuple[str, str]] = {}  # the first fault of each bad row
    for name in names:
        usable, faults = _numeric(usable, name)
        faults |= dict(_unusable(usable[name], finite, name in positive, faults))
        bad |= {row: (name, why) for row, why in faults.items() if row not in bad}
    bad |= {row: (unique[0], why) for row, why in _repeated(usable, _key(usable, unique, names, target), bad)}
    if not bad:
        return usable
    refused = [given.refusal(row, *bad[row]) for row in sorted(bad)]  # worded from the cells as they were given
    if not skip_bad:
        _raise(refused)
    if len(bad) == len(given):
        raise RunsError(f"no usable row is left in {given.name}: all {len(bad)} were refused, first {refused[0]}")
    return replace(usable.select(_all_but(len(usable), bad)), refused=[*table.refused, *refused])


def parse_rename(rename: Mapping[str, str] | Iterable[str] | None) -> dict[str, str]:
    """{their column: ours} from a mapping or from texts like "N=params". Raises RunsError."""
    if rename is None:
        return {}
    if isinstance(rename, Mapping):
        return {str(theirs): str(ours) for theirs, ours in rename.items()}
    pairs: dict[str, str] = {}
    for text in [rename] if isinstance(rename, str) else rename:
        theirs, sign, ours = text.rpartition("=")
        if not (sign and theirs.strip() and ours.strip()):
            raise RunsError(f"--rename {show(text)}: write THEIRS=OURS, as in N=params")
        if theirs.strip() in pairs:
            raise RunsError(f"--rename names column {show(theirs.strip())} twice; give each column one new name")
        pairs[theirs.strip()] = ours.strip()
    return pairs


def refused_path(source: Any) -> Path:
    """Where the side file of refused rows goes: beside a file or folder, else in the working directory."""
    if isinstance(source, (str, os.PathLike)) and source != "-" and (path := Path(source).expanduser()).exists():
        return path.resolve().with_name(f"{path.resolve().stem}.refused.csv")
    return Path("runs.refused.csv")


def _raise(faults: list[Refused]) -> None:
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    raise RunsError(f"{faults[0]}; fix it or pass --skip-bad{more}")


# ---- from a source to one table --------------------------------------------------------------------------------------


def _gather(source: Any, rename: dict[str, str], skip_bad: bool) -> Table:
    if isinstance(source, Table):
        _check_rename(rename, source.columns, source.name)
        return replace(source, columns=_renamed(source.columns, rename, source.name))
    sources = _sources(source)
    as_text = frozenset(theirs for theirs, ours in rename.items() if ours in LABELS)
    while True:
        bad: list[Refused] = []
        chunks = [read_chunks(one, as_text, bad, skip_bad and len(sources) > 1) for one in sources]
        present = dict.fromkeys(name for parts in chunks for part in parts for name in part.cells)
        mixed = _mixed(chunks, present) - as_text
        if not mixed:
            break
        as_text |= mixed  # numbers in one place, words in another: read again, so that "007" stays "007"
    order = {one.name: i for i, one in enumerate(sources)}
    bad.sort(key=lambda fault: (order[fault.file], fault.line))
    _check_rename(rename, present, sources[0].name)
    return _join(sources, chunks, rename, bad)


def _mixed(chunks: list[list[Chunk]], names: Iterable[str]) -> frozenset[str]:
    def kinds(name: str) -> set[bool]:
        cells = [part.cells[name] for parts in chunks for part in parts if name in part.cells]
        return {isinstance(c, list) for c in cells if (any(c) if isinstance(c, list) else not np.isnan(c).all())}

    return frozenset(name for name in names if len(kinds(name)) == 2)


def _check_rename(rename: dict[str, str], present: Iterable[str], place: str) -> None:
    have = list(present)
    for theirs, ours in rename.items():
        if theirs not in have and have:
            option = f"--rename {plain(theirs)}={plain(ours)}"
            raise RunsError(f"{option}: {missing_column(theirs, have, place, rename=False)}")


def _renamed(cells: Mapping[str, Any], rename: dict[str, str], place: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, values in cells.items():
        ours = rename.get(name, name)
        if ours in out:
            raise RunsError(f"{place}: --rename would make two columns {show(ours)}; rename the other one away too")
        out[ours] = values
    return out


def _join(sources: list[Source], chunks: list[list[Chunk]], rename: dict[str, str], bad: list[Refused]) -> Table:
    parts = [
        (i, chunk._replace(cells=_renamed(chunk.cells, rename, sources[i].name)))
        for i, some in enumerate(chunks)
        for chunk in some
    ]
    lines = np.concatenate([p.lines for _, p in parts]) if parts else np.zeros(0, np.int64)
    file = np.concatenate([np.full(len(p.lines), i, np.int32) for i, p in parts]) if parts else np.zeros(0, np.int32)
    units = tuple({"csv": "line", "jsonl": "line", "json": "item", "items": "item"}.get(s.kind, "row") for s in sources)
    commas = not any(s.kind == "csv" and delimiter(s.data) == ";" for s in sources)
    origin = Origin(tuple(s.name for s in sources), units, file, lines.astype(np.int64), commas)
    names = dict.fromkeys(name for _, part in parts for name in part.cells)
    columns = {name: _column(name, [part for _, part in parts], commas) for name in names}
    return _drop_blank(Table(columns, origin, bad), np.array([s.kind == "csv" for s in sources])[file])


def _column(name: str, parts: list[Chunk], commas: bool) -> Array:
    cells = [part.cells.get(name) for part in parts]
    rows = [len(part.lines) for part in parts]
    if not any(isinstance(c, list) and any(c) for c in cells):
        return np.concatenate(
            [c if isinstance(c, np.ndarray) else np.full(n, np.nan) for c, n in zip(cells, rows, strict=True)]
        )
    texts: list[str] = []
    for c, n in zip(cells, rows, strict=True):
        texts += c if isinstance(c, list) else [""] * n
    parsed = whole_labels(texts) if name in LABELS else numbers(texts, commas=commas)
    return np.array(texts, dtype=object) if parsed is None else parsed


def _drop_blank(table: Table, from_csv: Array) -> Table:
    """Leave out rows of CSV files without a single value (spreadsheets export them), and say how many."""
    empty = from_csv.copy()
    for values in table.columns.values():
        empty &= values == "" if values.dtype == object else np.isnan(values)
    if not empty.any():
        return table
    return replace(table.select(~empty), left_out={**table.left_out, "blank": int(empty.sum())})


def _sources(source: Any) -> list[Source]:
    if isinstance(source, str) and source == "-":
        data = sys.stdin.buffer.read() if hasattr(sys.stdin, "buffer") else sys.stdin.read().encode()
        return [Source("<stdin>", _sniff(data, "<stdin>"), data)]
    if isinstance(source, (str, os.PathLike)):
        return [_open(path) for path in _paths(os.fspath(source))]
    if isinstance(source, Mapping):
        return [Source("dict", "columns", {str(k): v for k, v in source.items()})]
    if isinstance(source, list) and all(isinstance(row, Mapping) for row in source):
        return [Source("list", "items", source)]
    if hasattr(source, "collect") and not hasattr(source, "to_numpy"):  # a lazy polars frame
        source = source.collect()
    if hasattr(source, "columns") and hasattr(source, "__getitem__"):
        return [Source("data frame", "frame", source)]
    raise RunsError(f"cannot read a {type(source).__name__}; give a path, '-', a data frame or a dict of columns")


def _paths(text: str) -> list[Path]:
    try:
        path = Path(text).expanduser()
        is_there = path.exists()
        inside = sorted(path.iterdir()) if path.is_dir() else None
    except (OSError, ValueError, RuntimeError) as exc:
        raise RunsError(f"cannot read {show(text, 200)}: {getattr(exc, 'strerror', None) or exc}") from exc
    if inside is not None:
        files = [p for p in inside if _is_data(p)]
        if not files:
            raise RunsError(f"folder {plain(text)} holds no table; files that end in {' '.join(_KINDS)} are read")
        return files
    if is_there:
        return [path]
    if any(c in text for c in "*?["):
        import glob

        files = [Path(p) for p in sorted(glob.glob(str(path), recursive=True)) if Path(p).is_file()]
        files = [p for p in files if not p.name.endswith(".refused.csv")]
        if files:
            return files
        raise RunsError(f"no file matches {plain(text)}; check the pattern and the folder")
    raise RunsError(f"no file {plain(text) if len(text) < 200 else show(text)}{_nearby(path)}")


def _is_data(path: Path) -> bool:
    ours = path.name in ("lever.json", "import.json") or path.name.endswith(".refused.csv")
    return path.suffix.lower() in _KINDS and not path.name.startswith(".") and not ours and path.is_file()


def _nearby(path: Path) -> str:
    import difflib

    if not path.parent.is_dir():
        return f"; there is no folder {plain(str(path.parent))} either"
    there = [p.name for p in path.parent.iterdir()]
    close = difflib.get_close_matches(path.name, there, n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(map(plain, close))}?" if close else "; check the path"


def _open(path: Path) -> Source:
    name, suffix = plain(str(path)), path.suffix.lower()
    if suffix in _RUNS_CODE:
        raise RunsError(f"{name}: {suffix} files can run code when opened and are never read; save it as {ALLOWED}")
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise RunsError(f"cannot read {name}: {exc.strerror or exc}") from exc
    kind = _KINDS.get(suffix) or _sniff(data, name)
    return Source(name, "jsonl" if kind == "json" and _is_lines(data) else kind, data)


def _is_lines(data: bytes) -> bool:
    """Whether a .json file holds JSON lines: its first line is an object by itself."""
    try:
        return isinstance(json.loads(data.lstrip().split(b"\n", 1)[0].decode("utf-8-sig")), dict)
    except (ValueError, RecursionError):
        return False


def _sniff(data: bytes, name: str) -> str:
    """The kind of a source whose name does not tell."""
    if data.startswith(b"PAR1"):
        return "parquet"
    refuse_binary(data, name)
    start = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    return {b"{": "jsonl", b"[": "json"}.get(start, "csv")


# ---- checks ----------------------------------------------------------------------------------------------------------


def _keep(table: Table, where: str, skip_bad: bool) -> Table:
    """The rows that satisfy `where`; with `skip_bad` a cell that should be a number and is not refuses its row."""
    from isoflop._where import TextColumn, parse_where

    condition = parse_where(where)
    while True:
        try:
            mask = condition.mask(table.columns)
            break
        except TextColumn as exc:
            parsed, found = _parsed(table, exc.column)
            if 2 * len(found) > len(table):
                raise
            faults = [table.refusal(row, exc.column, found[row]) for row in sorted(found)]
            if faults and not skip_bad:
                _raise(faults)
            table = replace(parsed.select(_all_but(len(table), found)), refused=[*table.refused, *faults])
    kept = table.select(mask)
    if not len(kept):
        said = f"no row of {table.name} satisfies --where {show(where, 80)}"
        raise RunsError(f"{said}: all {len(table)} were left out; check the condition")
    gone = len(table) - len(kept)
    return replace(kept, left_out={**table.left_out, "where": gone}) if gone else kept


def _all_but(rows: int, bad: Iterable[int]) -> Array:
    kept = np.ones(rows, dtype=bool)
    kept[list(bad)] = False
    return kept


def _drop_failed(table: Table) -> Table:
    status = table.columns.get("status")
    if status is None or status.dtype != object:
        return table
    known = {word: word.casefold() in _OK for word in set(status)}
    fine = np.array([known[word] for word in status], dtype=bool)
    if fine.all():
        return table
    if not fine.any():
        words = ", ".join(map(show, sorted(known)[:3]))
        raise RunsError(f"no row of {table.name} has status ok ({words}), so there is none to fit; check that column")
    return replace(table.select(fine), left_out={**table.left_out, "status": int((~fine).sum())})


def _numeric(table: Table, name: str) -> tuple[Table, dict[int, str]]:
    """The table with column `name` as numbers, and why each cell that is none is none."""
    parsed, faults = _parsed(table, name)
    if len(table) > 1 and 2 * len(faults) > len(table):
        row = min(faults)
        said = f"{table.place(row)}, column {show(name)}: {show(table[name][row])} {faults[row]}"
        raise RunsError(f"{said}; most cells of the column are no numbers: choose another with --rename")
    return parsed, faults


def _parsed(table: Table, name: str) -> tuple[Table, dict[int, str]]:
    values = table[name]
    if values.dtype != object:
        return table, {}
    out, faults = np.full(len(values), np.nan), {}
    for row, cell in enumerate(values):
        parsed = number(cell, commas=table.where_from.commas)
        if parsed is None:
            faults[row] = not_a_number(cell)
        else:
            out[row] = parsed
    return table.with_column(name, out), faults


def _unusable(values: Array, finite: bool, positive: bool, known: Mapping[int, str]) -> Iterator[tuple[int, str]]:
    """Rows whose cell is a number that cannot be used, or none at all, and why."""
    empty, endless = np.isnan(values), np.isinf(values)
    for row in np.flatnonzero(empty | endless).tolist() if finite else ():
        if row not in known:
            yield row, "the cell is empty or nan" if empty[row] else "is not finite (or beyond 1.8e308)"
    for row in np.flatnonzero(values <= 0).tolist() if positive else ():
        yield row, "is not above zero, and this column is used on a log axis"


def _key(table: Table, unique: Sequence[str], names: Sequence[str], target: str | None) -> list[str]:
    """The columns that tell rows apart; none where the table has no run column."""
    if not unique or unique[0] not in table.columns:
        return []
    seed = ["seed"] if "seed" in table.columns else []
    rest = [name for name in unique[1:] if name in table.columns]
    if len(rest) < len(unique) - 1:  # no step: checkpoints of one run differ in an axis, such as tokens
        rest += [name for name in names if name not in METRICS and name != target]
    return list(dict.fromkeys([unique[0], *seed, *rest]))


def _repeated(table: Table, key: list[str], bad: Mapping[int, object]) -> Iterator[tuple[int, str]]:
    """Rows whose key stood in an earlier good row already. A row that lacks part of its key repeats nothing."""
    if not key:
        return
    good = _all_but(len(table), bad)
    codes = np.zeros(len(table), dtype=np.int64)
    for name in key:
        values = table[name]
        if name != "seed":
            good &= values != "" if values.dtype == object else ~np.isnan(values)
        code = _coded(values)
        codes = np.unique(codes * (code.max() + 1) + code, return_inverse=True)[1]
    rows = np.flatnonzero(good)
    _, first, back = np.unique(codes[rows], return_index=True, return_inverse=True)
    for i in np.flatnonzero(first[back] != np.arange(len(rows))).tolist():
        named = "".join(f" {name} {table.cell(int(rows[i]), name)}," for name in key[1:])
        at = f" at{named.removesuffix(',')}" if named else ""
        yield int(rows[i]), f"is there twice{at} (first at {table.place(int(rows[first[back[i]]]))})"


def _coded(values: Array) -> Array:
    """A small integer per distinct value. (numpy would pad all texts to the length of the longest.)"""
    if values.dtype != object:
        return np.unique(values, return_inverse=True)[1]
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(value, len(seen)) for value in values], dtype=np.int64)
