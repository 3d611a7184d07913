"""Readers: the bytes or objects of one source, as chunks of cells with the line that each row stood on."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from isoflop._columns import (
    LABELS,
    Array,
    Refused,
    RunsError,
    as_array,
    cell_text,
    from_array,
    from_values,
    number,
    plain,
    settle,
    show,
)

if TYPE_CHECKING:
    pass

ALLOWED = "CSV, TSV, JSON lines, JSON or Parquet"
_MAGIC = {b"PK\x03\x04": "a zip archive or Excel file", b"\x1f\x8b": "compressed", b"\x80": "a pickle",
          b"\x93NUMPY": "a NumPy file", b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text",
          b"\x89HDF": "an HDF5 file", b"BZh": "compressed", b"\x28\xb5\x2f\xfd": "compressed"}  # fmt: skip
_CHUNK, _BLOCK = 50_000, 1 << 22  # rows and bytes held as Python objects at a time: bounds memory


class Source(NamedTuple):
    """One thing to read: bytes with a kind, or an object in memory."""

    name: str
    kind: str
    data: Any


class Chunk(NamedTuple):
    """Some rows of one source: per column an array of numbers or a list of texts, and where each row stood."""

    cells: dict[str, Array | list[str]]
    lines: Array


def read_chunks(source: Source, as_text: frozenset[str], bad: list[Refused], tolerate: bool) -> list[Chunk]:
    """All chunks of one source; with `tolerate` a source that cannot be read at all is one more refusal."""
    try:
        return list(_READERS[source.kind](source, as_text, bad))
    except UnicodeDecodeError:
        fault = RunsError(_not_utf8(source))
    except RunsError as exc:
        fault = exc
    if not tolerate:
        raise fault
    bad.append(Refused(source.name, 0, "", "", f"not read: {fault}"))
    return []


def _not_utf8(source: Source) -> str:
    try:
        source.data.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = source.data.count(b"\n", 0, exc.start) + 1
        return f"{source.name} line {line} is not UTF-8 (byte 0x{source.data[exc.start]:02x}); save the file as UTF-8"
    return f"{source.name} is not UTF-8; save it as UTF-8"


def _text(source: Source, start: int = 0) -> io.TextIOWrapper:
    data = source.data[start:] if start else source.data
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8" if start else "utf-8-sig", newline="")


def delimiter(data: bytes) -> str:
    """Comma, semicolon or tab: whichever the header line has most of."""
    head = data.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")[:65536].splitlines()
    line = head[0] if head else b""
    return max(",;\t", key=lambda c: line.count(c.encode()))


def _read_csv(source: Source, as_text: frozenset[str], bad: list[Refused]) -> Iterator[Chunk]:
    refuse_binary(source.data, source.name)
    if source.data.lstrip(b"\xef\xbb\xbf \r\n").startswith(b'{"'):
        raise RunsError(f"{source.name} line 1 looks like JSON lines, not CSV; name the file .jsonl")
    known = len(bad)
    first = next(_records(source, bad, 0, 0), None)
    if len(bad) > known:
        raise RunsError(f"{bad[known]}; write the header line again")
    header = _header(first, source.name)
    commas = delimiter(source.data) != ";"
    for lines, columns in _csv_rows(source, bad, header, first[0] if first else 0):
        cells = {
            name: settle(column, name in as_text or name in LABELS, commas)
            for name, column in zip(header, columns, strict=False)
        }
        yield Chunk(cells, np.asarray(lines, dtype=np.int64))


def _csv_rows(source: Source, bad: list[Refused], header: list[str], line: int) -> Iterator[tuple[Any, Any]]:
    """(lines, columns) in blocks: split at the delimiter while that is enough, through a CSV parser from then on."""
    width, start = len(header), _after_lines(source.data, line)
    if start and "\n" not in "".join(header):
        for end, cells in _plain_blocks(source.data, start, delimiter(source.data), width):
            rows = len(cells) // width
            yield np.arange(line + 1, line + 1 + rows), [cells[i::width] for i in range(width)]
            start, line = end, line + rows
        records = _records(source, bad, start, line)
    else:
        records = islice(_records(source, bad, 0, 0), 1, None)
    while batch := list(islice(records, _CHUNK)):
        lines, rows_ = zip(*batch, strict=True)
        if set(map(len, rows_)) != {width}:
            lines, rows_ = _even(lines, rows_, header, source.name, bad)
        yield lines, zip(*rows_, strict=True)


def _after_lines(data: bytes, lines: int) -> int:
    """The byte after so many lines; 0 where they do not all end in a line feed."""
    start = 0
    for _ in range(lines):
        start = data.find(b"\n", start) + 1
        if not start:
            return 0
    return 0 if b"\r" in data[:start].replace(b"\r\n", b"") else start


def _plain_blocks(data: bytes, start: int, delimiter: str, width: int) -> Iterator[tuple[int, list[str]]]:
    """(end, cells row by row) of blocks of whole lines, up to the first that needs a CSV parser: far faster."""
    stop = len(data)
    while stop > start and data[stop - 1] in b"\r\n":
        stop -= 1
    while start < stop:
        end = stop if stop - start <= _BLOCK else data.rfind(b"\n", start, start + _BLOCK)
        block = data[start:end].replace(b"\r\n", b"\n").removesuffix(b"\r")
        if end < 0 or b'"' in block or b"\r" in block or not _is_regular(block, delimiter, width):
            return
        yield end + 1, block.decode("utf-8").replace("\n", delimiter).split(delimiter)
        start = end + 1


def _is_regular(block: bytes, delimiter: str, width: int) -> bool:
    """Whether every line has the same cells, none is blank, and none is longer than the parser would take."""
    codes = np.frombuffer(block + b"\n", dtype=np.uint8)
    ends = np.flatnonzero(codes == ord("\n"))
    marks = np.cumsum(codes == ord(delimiter), dtype=np.int64)[ends]
    lengths = np.diff(ends, prepend=-1)
    return bool(np.all(np.diff(marks, prepend=0) == width - 1) and lengths.min() > 1 and lengths.max() < 131072)


def _records(source: Source, bad: list[Refused], start: int, line: int) -> Iterator[tuple[int, list[str]]]:
    """(first line, cells) of each record that is not blank, from byte `start`, after `line` lines.

    A quote that is never closed costs the line that it stands on, not the rest of the file.
    """
    style: dict[str, Any] = {"delimiter": delimiter(source.data), "strict": True}
    base, before = line, line  # lines before this reader, lines before `start`
    reader = csv.reader(_text(source, start), **style)
    lines: list[str] = []
    while True:
        try:
            for row in reader:
                if row:
                    yield line + 1, row
                line = base + reader.line_num
            return
        except csv.Error as exc:
            lines = lines or list(_text(source, start))
            raw = "".join(lines[line - before : line - before + 1]).rstrip("\r\n")
            bad.append(Refused(source.name, line + 1, "", "", _csv_fault(exc), {"raw": raw}))
            base = line = line + 1
            reader = csv.reader(map(lines.__getitem__, range(line - before, len(lines))), **style)


def _csv_fault(exc: csv.Error) -> str:
    if "field larger" in str(exc) or "unexpected end" in str(exc):
        return "a cell has no end (a quote that is never closed, or over 131072 characters)"
    return f"quotes are out of order ({exc})"


def _header(first: tuple[int, list[str]] | None, file: str) -> list[str]:
    if first is None:
        raise RunsError(f"{file} has no header line; give a table with column names and rows")
    line, cells = first
    names = [cell.strip() or f"column{i + 1}" for i, cell in enumerate(cells)]
    values = [number(cell) for cell in cells]
    if None not in values and any(value == value for value in values):  # nan, a missing cell, differs from itself
        raise RunsError(f"{file} line {line} holds numbers where column names belong; add a header line")
    _no_twins(names, f"{file} line {line}")
    return names


def _no_twins(names: Sequence[str], place: str) -> None:
    twins = [name for name in dict.fromkeys(names) if names.count(name) > 1] if len(set(names)) < len(names) else []
    if twins:
        times = names.count(twins[0])
        raise RunsError(f"{place}: column {show(twins[0])} is there {times} times; give each its own name")


def _even(lines: Any, rows: Any, header: list[str], file: str, bad: list[Refused]) -> tuple[Any, Any]:
    """The records that have one cell per column; the others go to `bad`."""
    good = []
    for line, row in zip(lines, rows, strict=True):
        if len(row) == len(header):
            good.append((line, row))
        elif any(cell.strip() for cell in row):
            extra = {"raw": " ".join(row[len(header) :])} if len(row) > len(header) else {}
            reason = f"{len(row)} cell{'s' * (len(row) != 1)} where the header has {len(header)}"
            bad.append(Refused(file, line, "", "", reason, {**dict(zip(header, row, strict=False)), **extra}))
    return tuple(line for line, _ in good), tuple(row for _, row in good)


def _read_jsonl(source: Source, as_text: frozenset[str], bad: list[Refused]) -> Iterator[Chunk]:
    refuse_binary(source.data, source.name)
    last = source.data.rstrip().count(b"\n") + 1
    rows: list[tuple[int, dict[str, Any]]] = []
    for line, text in enumerate(_text(source), 1):
        if not text.strip():
            continue
        try:
            rows.append((line, _json_row(text)))
        except (ValueError, RecursionError) as exc:
            cut = line == last and isinstance(exc, json.JSONDecodeError)
            reason = "the last line is cut off" if cut else _json_fault(exc)
            bad.append(Refused(source.name, line, "", "", reason, {"raw": text.strip()}))
        if len(rows) == _CHUNK:
            yield _from_rows(rows, as_text)
            rows = []
    if rows:
        yield _from_rows(rows, as_text)


def _json_row(text: str) -> dict[str, Any]:
    row = json.loads(text, object_pairs_hook=_no_twin_keys)
    if not isinstance(row, dict):
        raise _NotARow(f"{_JSON[type(row)]} where an object with column names belongs")
    return row


_JSON: dict[type, str] = {dict: "one object", list: "a list", str: "a text", bool: "true or false", int: "a number",
         float: "a number", type(None): "null"}  # fmt: skip


class _NotARow(ValueError):
    """JSON that is well formed but no row; the text says why."""


def _no_twin_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _NotARow(f"key {show(next(k for k in keys if keys.count(k) > 1))} is there twice")
    return row


def _json_fault(exc: Exception) -> str:
    if isinstance(exc, json.JSONDecodeError):
        return f"not JSON ({exc.msg.removesuffix(' at')} at character {exc.pos + 1})"
    if isinstance(exc, RecursionError):
        return "nested too deeply"
    return str(exc) if isinstance(exc, _NotARow) else "an integer with too many digits"


def _read_json(source: Source, as_text: frozenset[str], bad: list[Refused]) -> Iterator[Chunk]:
    refuse_binary(source.data, source.name)
    try:
        data = json.loads(source.data.decode("utf-8-sig"), object_pairs_hook=_no_twin_keys)
    except json.JSONDecodeError as exc:
        what = exc.msg.removesuffix(" at")
        raise RunsError(f"{source.name} line {exc.lineno} is not JSON ({what}); is the file cut off?") from exc
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError) as exc:
        raise RunsError(f"{source.name}: {_json_fault(exc)}; give a list of objects, one per row") from exc
    if not isinstance(data, list):
        raise RunsError(f"{source.name} holds {_JSON[type(data)]}; give a list of objects, one per row")
    yield from _read_items(source._replace(data=data), as_text, bad)


def _read_items(source: Source, as_text: frozenset[str], bad: list[Refused]) -> Iterator[Chunk]:
    rows = [(i, row) for i, row in enumerate(source.data) if isinstance(row, Mapping)]
    for i, row in enumerate(source.data):
        if not isinstance(row, Mapping):
            reason = f"{_JSON[type(row)]} where an object with column names belongs"
            bad.append(Refused(source.name, i + 1, "", "", reason, {"raw": cell_text(row)}, "item"))
    if rows:
        yield _from_rows([(i + 1, dict(row)) for i, row in rows], as_text)


def _from_rows(rows: list[tuple[int, dict[str, Any]]], as_text: frozenset[str]) -> Chunk:
    names = dict.fromkeys(str(name) for _, row in rows for name in row)
    cells = {name: from_values([row.get(name) for _, row in rows], name in as_text or name in LABELS) for name in names}
    return Chunk(cells, np.array([line for line, _ in rows], dtype=np.int64))


def _read_parquet(source: Source, as_text: frozenset[str], bad: list[Refused]) -> Iterator[Chunk]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as exc:
        raise RunsError(f"{source.name}: reading Parquet needs pyarrow: pip install 'isoflop[parquet]'") from exc
    try:
        frame = pq.ParquetFile(pa.BufferReader(source.data)).read()
    except (pa.ArrowException, OSError, ValueError) as exc:
        why = plain(re.split(r"[.\n]", str(exc))[0][:120]) or "no reason given"
        raise RunsError(f"{source.name} is not a whole Parquet file ({why}); write it again or save it as CSV") from exc
    yield from _read_frame(source._replace(data=frame), as_text, bad)


def _read_frame(source: Source, as_text: frozenset[str], bad: list[Refused]) -> Iterator[Chunk]:
    frame = source.data
    if hasattr(frame, "to_struct_array") and not hasattr(frame, "to_batches"):  # one batch of an Arrow table
        import pyarrow

        frame = pyarrow.Table.from_batches([frame])
    if any(name is not None for name in getattr(getattr(frame, "index", None), "names", [])):
        frame = frame.reset_index()  # pandas: a named index is a column
    labels = list(getattr(frame, "column_names", None) or frame.columns)
    _no_twins([str(label) for label in labels], source.name)
    columns = {str(label): frame[label].to_numpy() for label in labels}
    yield from _read_columns(source._replace(data=columns), as_text, bad)


def _read_columns(source: Source, as_text: frozenset[str], bad: list[Refused]) -> Iterator[Chunk]:
    arrays = {name: as_array(values) for name, values in source.data.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    first = next(iter(shapes.values()), (0,))
    for name, shape in shapes.items():
        if shape != first or len(shape) != 1:
            said = f"column {show(name)} has shape {shape}, the first column {first}"
            raise RunsError(f"{source.name}: {said}; give columns of one length")
    cells = {name: from_array(name, array, name in as_text) for name, array in arrays.items()}
    yield Chunk(cells, np.arange(first[0], dtype=np.int64))


_READERS: dict[str, Callable[[Source, frozenset[str], list[Refused]], Iterator[Chunk]]] = {
    "csv": _read_csv,
    "jsonl": _read_jsonl,
    "json": _read_json,
    "items": _read_items,
    "parquet": _read_parquet,
    "frame": _read_frame,
    "columns": _read_columns,
}


def refuse_binary(data: bytes, name: str) -> None:
    for magic, what in _MAGIC.items():
        if data.startswith(magic):
            raise RunsError(f"{name} is {what}, which is not read; save it as {ALLOWED} in UTF-8")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise RunsError(f"{name} line {line} holds a NUL byte, so this is no text table; save it as {ALLOWED}")
    if not data[:4096].strip() and not data.strip():
        raise RunsError(f"{name} is empty; give a table with a header and rows")
