"""The door for tables: what comes in comes in whole, and what cannot says so in one sentence."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isoflop import _columns, _readers, _runs
from isoflop._columns import COLUMNS, number
from isoflop._runs import RunsError, Table, check, load, read
from isoflop._where import parse_where

NEED = ("params", "tokens", "loss")
HEAD = "run,step,params,tokens,loss\n"
GOOD = "a,1,1.4B,30B,2.5\nb,1,300M,2T,3.5\nc,1,70k,6.2e23,3\n"
CSV = HEAD + GOOD
DATA = {
    "run": ["a", "b", "c"],
    "step": [1.0, 1.0, 1.0],
    "params": [1.4e9, 3e8, 7e4],
    "tokens": [30e9, 2e12, 6.2e23],
    "loss": [2.5, 3.5, 3.0],
}


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def same(table: Table, data: dict = DATA) -> bool:
    return list(table.columns) == list(data) and all(table[k].tolist() == v for k, v in data.items())


# ---- bad input -------------------------------------------------------------------------------------------------------

ROW = '{"run": "a", "params": 1, "tokens": 2, "loss": 3}\n'


def row(loss: str) -> str:
    return ROW + ROW.replace('"a"', '"b"').replace('"loss": 3', f'"loss": {loss}') + ROW.replace('"a"', '"c"')


# name of the file, its content, what the sentence says, options
MALFORMED: dict[str, tuple] = {
    "empty file": ("r.csv", "", ["r.csv is empty"]),
    "only blank lines": ("r.csv", "\n \r\n\n", ["r.csv is empty"]),
    "header only": ("r.csv", HEAD, ["r.csv has no rows below its header"]),
    "no header": ("r.csv", "1,2,3\n4,5,6\n", ["r.csv line 1 holds numbers", "add a header"]),
    "duplicate header": ("r.csv", "params,loss,loss\n1,2,3\n", ["r.csv line 1", "'loss' is there 2 times"]),
    "missing column": ("r.csv", "N,tokens,loss\n1,2,3\n", ["no column 'params'; closest: 'N'", "--rename N=params"]),
    "misspelt column": ("r.csv", "parms,tokens,loss\n1,2,3\n", ["closest: 'parms'", "--rename parms=params"]),
    "nothing close": ("r.csv", "x,tokens,loss\n1,2,3\n", ["there are 'x'", "--rename THEIRS=params"]),
    "text in a number": ("r.csv", CSV + "d,1,1,2,n/a?\n", ["r.csv line 5, column 'loss': 'n/a?' is"]),
    "several": ("r.csv", CSV + "d,1,1,2,bad\ne,1,1,2,\n", ["line 5, column 'loss'", "(and 1 more)"]),
    "text column needed": ("r.csv", "params,tokens,loss\n1,2,low\n1,2,high\n", ["line 2", "'low'", "--rename"]),
    "lone m": ("r.csv", CSV + "d,1,300m,2,3\n", ["line 5, column 'params': '300m'", "write 300M or 300e-3"]),
    "percent": ("r.csv", CSV + "d,1,1,2,30%\n", ["line 5, column 'loss': '30%' is not a number"]),
    "lower t": ("r.csv", CSV + "d,1,1,2t,3\n", ["line 5, column 'tokens': '2t'", "write 2T"]),
    "decimal comma": ("r.csv", 'params,tokens,loss\n1,2,"3,14"\n1,3,3\n', ["line 2", "write 3.14 or 314"]),
    "thousands in ;": ("r.csv", "params;tokens;loss\n1,500;2;3\n7;3;3\n", ["line 2, column 'params': '1,500' has"]),
    "unit in cell": ("r.csv", CSV + "d,1,1,2,3 nats\n", ["line 5, column 'loss': '3 nats' is not a number"]),
    "empty cell": ("r.csv", CSV + "d,1,1,2,\n", ["line 5, column 'loss': the cell is empty"]),
    "nan": ("r.csv", CSV + "d,1,1,2,NaN\n", ["line 5, column 'loss': the cell is empty or nan"]),
    "inf": ("r.csv", CSV + "d,1,1,2,inf\n", ["line 5, column 'loss': inf is not finite"]),
    "beyond float": ("r.csv", CSV + "d,1,1,2,1e999\n", ["line 5, column 'loss': inf is not finite"]),
    "zero on log axis": ("r.csv", CSV + "d,1,0,2,3\n", ["line 5, column 'params': 0 is not above zero"]),
    "negative on log axis": ("r.csv", CSV + "d,1,-1e9,2,3\n", ["line 5", "-1000000000 is not above zero"]),
    "duplicate run, step": ("r.csv", CSV + "a,1,1,2,3\n", ["line 5, column 'run': 'a' is there twice at step 1"]),
    "duplicate run": ("r.csv", "run,params,tokens,loss\na,1,2,3\na,1,2,4\n", ["line 3", "'a' is there twice at"]),
    "too many cells": ("r.csv", CSV + "d,1,1,2,3,4\n", ["r.csv line 5: 6 cells where the header has 5"]),
    "too few cells": ("r.csv", HEAD + "a,1\n" + GOOD, ["r.csv line 2: 2 cells where the header has 5"]),
    "cut off csv": ("r.csv", (CSV)[:-8], ["r.csv line 4: 4 cells where the header has 5"]),
    "quote never closed": ("r.csv", HEAD + 'a,1,"1,2,3\n' + GOOD, ["r.csv line 2: a cell has no end"]),
    "header quote": ("r.csv", '"run,step\n' + GOOD, ["r.csv line 1: a cell has no end", "header"]),
    "text after quote": ("r.csv", HEAD + '"a"b,1,1,2,3\n' + GOOD, ["r.csv line 2: quotes are out of order"]),
    "huge cell": ("r.csv", CSV + f"d,1,1,2,{'9' * 140_000}\n", ["r.csv line 5: a cell has no end", "131072"]),
    "NUL": ("r.csv", CSV + "d,1,\0,2,3\n", ["r.csv line 5 holds a NUL byte"]),
    "latin-1": ("r.csv", HEAD.encode() + "é,1,1,2,3\n".encode("latin-1"), ["r.csv line 2 is not UTF-8 (byte 0xe9)"]),
    "UTF-16": ("r.csv", (CSV).encode("utf-16"), ["r.csv is UTF-16 text"]),
    "gzip as csv": ("r.csv", b"\x1f\x8b\x08junk", ["r.csv is compressed"]),
    "Excel": ("r.xlsx", b"PK\x03\x04junk", ["r.xlsx is a zip archive or Excel file"]),
    "pickle": ("r.pkl", pickle.dumps({"loss": [1]}), ["r.pkl: .pkl files can run code", "save it as CSV"]),
    "torch": ("r.pt", b"PK\x03\x04junk", [".pt files can run code"]),
    "npy": ("r.npy", b"\x93NUMPY\x01\x00", [".npy files can run code"]),
    "pickle without a suffix": ("runs", pickle.dumps([1]), ["runs is a pickle, which is not read"]),
    "JSON lines as csv": ("r.csv", ROW, ["r.csv line 1 looks like JSON lines", ".jsonl"]),
    "status all failed": ("r.csv", "params,tokens,loss,status\n1,2,3,failed\n", ["no row of", "status ok ('failed')"]),
    "where leaves none": ("r.csv", CSV, ["no row of", "'loss > 9'", "all 3"], {"where": "loss > 9"}),
    "where on text": ("r.csv", CSV, ["column 'run' is text"], {"where": "run > 9"}),
    "where on a bad cell": ("r.csv", CSV + "d,1,1,2,x\n", ["line 5", "'x' is not a"], {"where": "loss > 1"}),
    "rename what is not there": ("r.csv", CSV, ["no column 'Loss'"], {"rename": {"Loss": "x"}}),
    "rename onto another": ("r.csv", CSV, ["two columns 'loss'"], {"rename": {"step": "loss"}}),
    "rename half": ("r.csv", CSV, ["--rename 'N': write THEIRS=OURS"], {"rename": ["N"]}),
    "truncated last line": ("r.jsonl", ROW + ROW[:20], ["r.jsonl line 2: the last line is cut off", "--skip-bad"]),
    "not JSON": ("r.jsonl", ROW + "loss: 3\n" + ROW, ["r.jsonl line 2: not JSON (Expecting value at character 1)"]),
    "list in lines": ("r.jsonl", ROW + "[1, 2]\n", ["r.jsonl line 2: a list where an object"]),
    "key twice": ("r.jsonl", ROW + '{"loss": 1, "loss": 2}\n', ["r.jsonl line 2: key 'loss' is there twice"]),
    "nested": ("r.jsonl", row('{"v": 3}'), ["r.jsonl line 2, column 'loss'", "is nested", "flatten"]),
    "array": ("r.jsonl", row("[3]"), ["r.jsonl line 2, column 'loss': '[3]' is nested"]),
    "boolean": ("r.jsonl", row("true"), ["r.jsonl line 2, column 'loss': 'True' is not a number"]),
    "JSON NaN": ("r.jsonl", row("NaN"), ["r.jsonl line 2, column 'loss': the cell is empty or nan"]),
    "JSON Infinity": ("r.jsonl", row("-Infinity"), ["r.jsonl line 2, column 'loss': -inf is not finite"]),
    "null": ("r.jsonl", row("null"), ["r.jsonl line 2, column 'loss': the cell is empty"]),
    "missing key": ("r.jsonl", ROW + '{"params": 1, "tokens": 2}\n', ["line 2, column 'loss': the cell is empty"]),
    "integer beyond float": ("r.jsonl", row("1" + "0" * 400), ["r.jsonl line 2, column 'loss': inf is not finite"]),
    "endless integer": ("r.jsonl", row("1" + "0" * 5000), ["r.jsonl line 2: an integer with too many digits"]),
    "deep nesting": ("r.jsonl", ROW + "[" * 100_000 + "\n", ["r.jsonl line 2: nested too deeply"]),
    "mixed types": ("r.jsonl", row('"about 3"'), ["r.jsonl line 2, column 'loss': 'about 3' is not a number"]),
    "lone surrogate": ("r.jsonl", row(r'"\ud800"'), [r"column 'loss': '\ud800' is not a number"]),
    "JSON object": ("r.json", '{\n"a": 1}', ["r.json holds one object; give a list"]),
    "JSON number": ("r.json", "3", ["r.json holds a number; give a list"]),
    "JSON cut off": ("r.json", "[" + ROW + ",{", ["r.json line 2 is not JSON", "cut off"]),
    "JSON odd item": ("r.json", f"[{ROW}, 5]", ["r.json item 2: a number where an object"]),
    "not Parquet": ("r.parquet", b"PAR1junk", ["r.parquet is not a whole Parquet file"]),
}  # fmt: skip

HINT = re.compile(
    r"fix|write|give|save|\badd\b|\buse\b|did you mean|check|choose|rename|--skip-bad|name the file|is the file"
    r"|right file|bracket|compare|join|quotes|backticks"
)


def is_one_sentence(message: str) -> bool:
    return (
        message.isprintable()
        and not re.search(r"[.!?] +[A-Z]", message)
        and len(message) < 400
        and bool(HINT.search(message))
    )


def assert_one_line(exc: RunsError) -> None:
    assert "\n" not in str(exc)


@pytest.mark.parametrize("case", MALFORMED)
def test_bad_input_is_one_sentence_and_writes_nothing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, content, said, *options = MALFORMED[case]
    monkeypatch.chdir(tmp_path)
    put(tmp_path, name, content)
    with pytest.raises(RunsError) as caught:
        check(load(name, **(options[0] if options else {})), need=NEED, positive=("params", "tokens"))
    message = str(caught.value)
    assert is_one_sentence(message), message
    assert name in message or "--rename" in message or "--where" in message
    for words in said:
        assert words in message
    assert os.listdir(tmp_path) == [name]


def test_there_are_enough_malformed_inputs() -> None:
    assert len(MALFORMED) >= 45


PLACES = {
    "missing file": ("rums.csv", "no file rums.csv; did you mean runs.csv?"),
    "missing folder": ("nowhere/runs.csv", "there is no folder nowhere either"),
    "folder without tables": ("other", "folder other holds no table; files that end in .csv"),
    "glob without a match": ("*.parquet", "no file matches *.parquet"),
    "name too long": ("x" * 5000, "File name too long"),
    "NUL in the name": ("a\0b", "no file a\\x00b"),
    "a table as the path": ("params,loss\n1,2\n", "no file params,loss\\n1,2\\n"),
    "unknown home": ("~nobody-is-called-this/x.csv", "cannot read"),
    "a number": (3, "cannot read a int; give a path"),
    "bytes": (b"loss\n1\n", "cannot read a bytes; give a path"),
    "unequal columns": ({"a": [1, 2], "b": [1]}, "column 'b' has shape (1,), the first column (2,)"),
    "scalars": ({"a": 1}, "column 'a' has shape ()"),
    "no columns": ({}, "dict has no rows"),
    "no rows": ({"a": []}, "dict has no rows"),
    "two columns of a name": (pd.DataFrame([[1, 2]], columns=["a", "a"]), "column 'a' is there 2 times"),
}  # fmt: skip


@pytest.mark.parametrize("case", PLACES)
def test_bad_place(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, said = PLACES[case]
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "runs.csv", CSV)
    (tmp_path / "other").mkdir()
    put(tmp_path / "other", "notes.md", "x")
    put(tmp_path / "other", "lever.json", "{}")
    with pytest.raises(RunsError) as caught:
        load(source)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = put(tmp_path, "r.csv", CSV)
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(RunsError, match=r"cannot read .*r\.csv: Permission denied"):
        load(path)


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.parquet"
    pd.DataFrame(DATA).to_parquet(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RunsError, match=r"reading Parquet needs pyarrow: pip install 'isoflop\[parquet\]'"):
        load(path)


SOUP = st.text(alphabet="a1,;\"'\n\r\t.{}[]: eNaBM-_\0é\ud800\u2028\x1c", max_size=60)


@pytest.mark.parametrize("name", ["r.csv", "r.tsv", "r.jsonl", "r.json", "r", "r.parquet"])
@given(content=st.one_of(st.binary(max_size=60), SOUP.map(lambda t: t.encode("utf-8", "surrogatepass"))))
@settings(max_examples=120, deadline=None)
def test_any_bytes_give_a_table_or_one_sentence(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = put(Path(folder), name, content)
        for skip_bad in (False, True):
            try:
                table = load(path, skip_bad=skip_bad)
                check(table, need=list(table.columns)[:2], skip_bad=skip_bad)
                table.to_frame()
            except RunsError as exc:
                assert_one_line(exc)


# ---- the same table from anywhere ------------------------------------------------------------------------------------


def jsonl() -> str:
    return "".join(json.dumps(dict(zip(DATA, r, strict=True))) + "\n" for r in zip(*DATA.values(), strict=True))


@pytest.mark.parametrize("text", [
    CSV, "\ufeff" + CSV, (CSV).replace("\n", "\r\n"), (CSV).replace("\n", "\r"),
    (CSV).replace(",", ";"), (CSV).replace(",", "\t"), (CSV).rstrip(),
    "\n" + HEAD + "\n" + GOOD + "\n\n", (CSV).replace(",", " , "), CSV + ",,,,\n",
    re.sub(r"[^,\n]+", r'"\g<0>"', CSV),
], ids=["plain", "BOM", "CRLF", "CR", "semicolon", "tab", "no last newline", "blank lines", "spaces", "blank row",
        "quoted"])  # fmt: skip
def test_dialects_of_csv(text: str, tmp_path: Path) -> None:
    assert same(load(put(tmp_path, "r.csv", text)))


def test_every_source_gives_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = load(put(tmp_path, "a.csv", CSV))
    lines = jsonl()
    pd.DataFrame(DATA).to_parquet(tmp_path / "p.parquet")
    lists = json.dumps([json.loads(line) for line in lines.splitlines()])
    sources = [
        put(tmp_path, "r.tsv", (CSV).replace(",", "\t")),
        put(tmp_path, "r.jsonl", lines),
        put(tmp_path, "lines.json", lines),
        put(tmp_path, "r.json", lists),
        put(tmp_path, "no_suffix", lines),
        put(tmp_path, "no_suffix2", CSV),
        tmp_path / "p.parquet",
        str(tmp_path / "a.c*"),
        pd.DataFrame(DATA),
        pd.DataFrame(DATA).set_index("run"),
        pl.DataFrame(DATA),
        pl.DataFrame(DATA).lazy(),
        pa.table(DATA),
        DATA,
        {k: np.array(v) for k, v in DATA.items()},
        json.loads(lists),
        want,
    ]
    for source in sources:
        table = load(source)
        assert same(table), source
        assert table.data_hash == want.data_hash
    for text in (CSV, lines, lists):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert same(load("-"))
    pd.testing.assert_frame_equal(read(tmp_path / "a.csv"), pd.DataFrame(DATA))


def test_folder_is_the_union_of_its_tables(tmp_path: Path) -> None:
    put(tmp_path, "b.csv", "params,loss\n1B,3\n")
    put(tmp_path, "c.jsonl", '{"loss": 2.5, "note": "late", "run": "007"}\n')
    put(tmp_path, "c.ndjson", '{"loss": 2, "run": 7}\n')
    for ignored in ("lever.json", ".hidden.csv", "notes.md", "b.refused.csv", "model.pt"):
        put(tmp_path, ignored, "{")
    (tmp_path / "sub.csv").mkdir()
    table = load(tmp_path)
    np.testing.assert_array_equal(table["params"], [1e9, np.nan, np.nan])
    assert table["loss"].tolist() == [3, 2.5, 2]
    assert table["note"].tolist() == ["", "late", ""]
    assert table["run"].tolist() == ["", "007", "7"]  # text in one file keeps the column text in all
    assert [table.place(i).removeprefix(f"{tmp_path}/") for i in range(3)] == [
        "b.csv line 2", "c.jsonl line 1", "c.ndjson line 1"]  # fmt: skip


def test_a_column_that_turns_to_text_late_keeps_its_early_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_readers, "_BLOCK", 64)
    monkeypatch.setattr(_readers, "_CHUNK", 3)
    cells = ["007", "1.0", *("5" for _ in range(40)), "n/a?", "1.4B"]
    for text in (
        "answer,loss\n" + "".join(f"{c},1\n" for c in cells),
        "answer,loss\n" + "".join(f'"{c}",1\n' for c in cells),
    ):
        assert load(put(tmp_path, "r.csv", text))["answer"].tolist() == cells
    rows = "".join(json.dumps({"answer": c}) + "\n" for c in cells)
    assert load(put(tmp_path, "r.jsonl", rows))["answer"].tolist() == cells


def test_labels_stay_what_they_are(tmp_path: Path) -> None:
    table = load(put(tmp_path, "r.csv", "run,seed,model,size,id\n1e5,0,125M,125M,007\n007,1,1B,1B,008\n"))
    assert table["run"].tolist() == ["1e5", "007"]
    assert table["model"].tolist() == ["125M", "1B"]
    assert table["size"].tolist() == [1.25e8, 1e9]
    assert table["seed"].tolist() == [0.0, 1.0]
    assert load({"run": np.array([2**60, 2**60 + 1])})["run"].tolist() == [str(2**60), str(2**60 + 1)]
    assert load(tmp_path / "r.csv", rename={"run": "old", "id": "run"})["run"].tolist() == ["007", "008"]


def test_line_numbers_survive_blank_lines_and_quoted_newlines(tmp_path: Path) -> None:
    text = '\nrun,loss\na,1\n\n"b\nb",2\n,\nc,3\n'
    table = load(put(tmp_path, "r.csv", text))
    assert table.where_from.line.tolist() == [3, 5, 8]
    assert table.left_out == {"blank": 1}


cell = st.text(alphabet='ab1.,;"\n\r\t é', max_size=6)


@given(
    rows=st.lists(st.tuples(cell, cell, st.floats(-9, 9).map(repr)), min_size=1, max_size=12), block=st.integers(20, 80)
)
@settings(max_examples=150, deadline=None)
def test_splitting_and_parsing_agree(rows: list[tuple[str, str, str]], block: int) -> None:
    def written(quoting: int) -> bytes:
        out = io.StringIO()
        writer = csv.writer(out, quoting=quoting, lineterminator="\r\n")
        writer.writerows([("x", "y", "z"), *rows])
        return out.getvalue().encode()

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        slow = load(put(Path(folder), "slow.csv", written(csv.QUOTE_ALL)))
        patch.setattr(_readers, "_BLOCK", block)
        fast = load(put(Path(folder), "fast.csv", written(csv.QUOTE_MINIMAL)))
    assert fast.data_hash == slow.data_hash
    assert fast.where_from.line.tolist() == slow.where_from.line.tolist()


def test_frames_of_every_kind() -> None:
    when = pd.to_datetime(["2024-01-01", None])
    frame = pd.DataFrame({
        "params": ["1.4B", "300M"], "n": pd.array([1, None], dtype="Int64"), "ok": [True, False],
        "cat": pd.Categorical(["a", "b"]), "at": when, "f2": np.array([1, 2], dtype=np.float16), 5: [1, 2],
    })  # fmt: skip
    table = load(frame)
    assert table["params"].tolist() == [1.4e9, 3e8]
    np.testing.assert_array_equal(table["n"], [1, np.nan])
    assert table["ok"].tolist() == ["True", "False"]
    assert table["cat"].tolist() == ["a", "b"]
    assert table["at"][0].startswith("2024-01-01")
    assert table["at"][1] in ("", "NaT")
    assert table["f2"].tolist() == table["5"].tolist() == [1, 2]
    assert table.to_frame()["ok"].tolist() == [True, False]
    polars = load(pl.DataFrame({"x": [1, None], "s": ["a", None], "l": [[1], [2]]}))
    np.testing.assert_array_equal(polars["x"], [1, np.nan])
    assert polars["s"].tolist() == ["a", ""]
    assert load({"x": np.ma.array([1.0, 2.0], mask=[False, True])})["x"].tolist()[0] == 1
    assert load(frame).place(1) == "data frame row 1"


def test_parquet_types(tmp_path: Path) -> None:
    table = pa.table({
        "i": pa.array([1, None]), "d": pa.array(["a", "b"]).dictionary_encode(), "l": [[1], [2]], "s": [{"a": 1}, None],
        "b": [True, None],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "r.parquet")
    got = load(tmp_path / "r.parquet")
    np.testing.assert_array_equal(got["i"], [1, np.nan])
    assert got["d"].tolist() == ["a", "b"]
    assert got["b"].tolist() == ["True", ""]


names = st.text(alphabet="abcxyz _", min_size=1, max_size=5).map(str.strip).filter(bool)
floats = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(alphabet="abc,;\"'\n\r é", min_size=1, max_size=5).map(str.strip).filter(lambda t: number(t) is None)


three = st.one_of(st.lists(floats, min_size=3, max_size=3), st.lists(words, min_size=3, max_size=3))


@given(st.dictionaries(names, three, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_to_csv_round_trip(data: dict[str, list]) -> None:
    table = load(data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.csv"
        if all(number(name) is not None for name in data) or number(next(iter(data))) is not None:
            return
        table.to_csv(path)
        assert load(path).data_hash == table.data_hash
        assert os.listdir(folder) == ["r.csv"]


def test_odd_numbers_round_trip(tmp_path: Path) -> None:
    table = load({"run": [math.inf, 2.0, None], "x": [math.inf, -math.inf, 0.1], "n": [1e15, 3, -0.0]})
    assert table["run"].tolist() == ["inf", "2.0", ""]
    table.to_csv(tmp_path / "r.csv")
    assert load(tmp_path / "r.csv").data_hash == table.data_hash


def test_hash_ignores_names_of_files_and_order_of_columns(tmp_path: Path) -> None:
    first = load(put(tmp_path, "a.csv", "x,y\n1,-0.0\n2,\n"))
    second = load(put(tmp_path, "b.csv", "y,x\n0,1\nnan,2\n"))
    assert first.data_hash == second.data_hash
    assert first.hash_of(["x"]) == second.hash_of(["x"]) != first.data_hash
    assert load({"x": [2, 1], "y": [0, None]}).data_hash != first.data_hash
    assert load({"x": ["ab", "c"]}).data_hash != load({"x": ["a", "bc"]}).data_hash


def test_table_methods() -> None:
    table = load(DATA)
    assert len(table) == 3
    assert table.select(table["loss"] > 2.6)["run"].tolist() == ["b", "c"]
    more = table.with_column("flops", [1, 2, 3]).with_column("note", ["x", "y", "z"])
    assert more["flops"].dtype == np.float64
    assert more["note"].dtype == object
    assert "flops" not in table.columns
    with pytest.raises(RunsError, match="column 'x' has shape"):
        table.with_column("x", [1])
    with pytest.raises(RunsError, match="no column 'Loss'; closest: 'loss'"):
        table["Loss"]


# ---- human numbers ---------------------------------------------------------------------------------------------------

POWERS = {"k": 3, "K": 3, "M": 6, "B": 9, "b": 9, "G": 9, "T": 12}


@given(st.floats(-9999, 9999), st.sampled_from(sorted(POWERS)), st.booleans())
def test_suffix_is_an_exact_power(value: float, suffix: str, space: bool) -> None:
    text = f"{value:.6f}"
    assert number(f" {text}{' ' * space}{suffix} ") == float(f"{text}e{POWERS[suffix]}")


@given(st.integers(-(10**15), 10**15))
def test_thousands(value: int) -> None:
    assert number(f"{value:,}") == number(f"{value:_}") == number(str(value)) == value


@given(st.one_of(floats, st.just(math.inf)))
def test_repr_is_read_exactly(value: float) -> None:
    assert number(repr(value)) == value


@given(st.text(max_size=12))
@example("1e5B")
@example("1,00")
@example("1_")
def test_any_text_is_a_number_or_none(text: str) -> None:
    value = number(text)
    assert value is None or isinstance(value, float)
    assert isinstance(_columns.not_a_number(text), str)
    read_as = load({"x": [text, "1", "2"]})["x"]
    assert (read_as.dtype == object) == (value is None)


@pytest.mark.parametrize("text", ["", " ", "NA", "n/a", "NaN", "null", "None", "-", "<NA>"])
def test_missing_words(text: str) -> None:
    value = number(text)
    assert value is not None
    assert math.isnan(value)


@pytest.mark.parametrize(
    "text", ["5m", "2t", "1e5B", "1,5", "1,00,000", "1.4BB", "B", "0x10", "12%", "$5", "1 000", "--1"]
)
def test_not_numbers(text: str) -> None:
    assert number(text) is None


def test_words_for_missing_are_kept_where_a_column_has_no_number() -> None:
    assert load({"cooldown": ["none", "none"]})["cooldown"].tolist() == ["none", "none"]
    np.testing.assert_array_equal(load({"x": ["none", "1"]})["x"], [np.nan, 1])


# ---- where -----------------------------------------------------------------------------------------------------------

leaf = st.one_of(st.sampled_from(["x", "y", "z"]), st.integers(0, 9).map(str), st.sampled_from(["1.5", "2e0", ".25"]))
arithmetic = st.recursive(
    leaf,
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map("({0[0]} {0[1]} {0[2]})".format),
    max_leaves=5,
)
comparison = st.tuples(arithmetic, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), arithmetic).map(" ".join)
condition = st.recursive(
    comparison,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map("({0[0]}) {0[1]} ({0[2]})".format),
        inner.map("not ({})".format),
    ),
    max_leaves=5,
)
triples = st.lists(st.tuples(*[st.floats(-5, 5, width=16)] * 3), min_size=1, max_size=6)


@given(condition, triples)
@settings(max_examples=150, deadline=None)
def test_where_means_what_python_means(text: str, rows: list[tuple[float, float, float]]) -> None:
    columns = dict(zip("xyz", np.array(rows).T, strict=True))
    want = [bool(eval(text, dict(zip("xyz", map(float, row), strict=True)))) for row in rows]
    assert parse_where(text).mask(columns).tolist() == want


@given(condition, triples)
@settings(max_examples=100, deadline=None)
def test_missing_satisfies_neither_a_condition_nor_its_negation(text: str, rows: list) -> None:
    columns = dict(zip("xyz", np.array([*rows, (np.nan,) * 3]).T, strict=True))
    yes, no = parse_where(text).mask(columns), parse_where(f"not ({text})").mask(columns)
    assert not (yes & no).any()
    assert (yes | no)[:-1].all()
    if not re.search(r"[xyz]", text):
        assert yes.all() or no.all()


ROWS = {
    "flops": np.array([1e20, 1e21, 1e22, np.nan]),
    "family": np.array(["x", "y", "x", ""], dtype=object),
    "val loss": np.array([3.0, 2.0, 1.0, 0.5]),
    "done": np.array(["True", "false", "", "true"], dtype=object),
}


@pytest.mark.parametrize(("text", "want"), [
    ("flops > 1e21", [0, 0, 1, 0]),
    ("not flops > 1e21", [1, 1, 0, 0]),
    ("flops >= 1e21 and family == 'x'", [0, 0, 1, 0]),
    ("(flops < 1e21) | (family == \"y\")", [1, 1, 0, 0]),
    ("~(family == 'x') & (flops > 0)", [0, 1, 0, 0]),
    ("family in ['x', 'z']", [1, 0, 1, 0]),
    ("family not in ('x',)", [0, 1, 0, 1]),
    ("flops in [1e20, 1e22]", [1, 0, 1, 0]),
    ("flops not in [1e20]", [0, 1, 1, 0]),
    ("1e20 < flops <= 1e22", [0, 1, 1, 0]),
    ("`val loss` < 2.5", [0, 1, 1, 1]),
    ("log10(flops) == 21", [0, 1, 0, 0]),
    ("sqrt(abs(-`val loss` ** 2)) < 1.5 or max(flops, 1) > 9e21", [0, 0, 1, 1]),
    ("flops / 1.4B > 10T", [0, 0, 0, 0]),
    ("flops > '500G'", [1, 1, 1, 0]),
    ("missing(flops)", [0, 0, 0, 1]),
    ("not missing(family) and family < 'y'", [1, 0, 1, 0]),
    ("done", [1, 0, 0, 1]),
    ("not done", [0, 1, 0, 0]),
    ("done == True", [1, 0, 0, 1]),
    ("family == 'a`b`' or True", [1, 1, 1, 1]),
    ("flops / 0 > 1", [1, 1, 1, 0]),
    ("flops % 3 // 1 >= 0", [1, 1, 1, 0]),
])  # fmt: skip
def test_where(text: str, want: list[int]) -> None:
    assert parse_where(text).mask(ROWS).tolist() == [bool(w) for w in want]


def test_where_names_its_columns() -> None:
    assert parse_where("log(flops) > 2 and `val loss` < 3").names == {"flops", "val loss"}


REFUSED = {
    "__import__('os').system('id')": "not allowed",
    "__import__('os')": "no function '__import__'",
    "().__class__.__bases__": "a dot after a name is not allowed",
    "flops.real > 1": "a dot after a name is not allowed",
    "(lambda: 1)() > 0": "lambda is not allowed",
    "[f for f in [1]] == 1": "a comprehension is not allowed",
    "f'{flops}' == '1'": "an f-string is not allowed",
    "(f := 1) > 0": "not allowed",
    "flops[0] > 1": "indexing is not allowed",
    "{'a': 1} == 1": "a dict is not allowed",
    "max(*[1, 2]) > 1": "a star is not allowed",
    "log(x=1) > 1": "a keyword argument is not allowed",
    "flops if 1 else 2": "if ... else is not allowed",
    "exec('1')": "no function 'exec'",
    "open('x')": "no function 'open'",
    "b'x' == family": "is not allowed",
    "flops == None": "missing(column)",
    "flops == 1j": "is not allowed",
    "flops is 1": "'is' is not allowed",
    "flops @ 2 > 1": "is not allowed here",
    "flops << 2 > 1": "is not allowed here",
    "flops = 1": "compare with ==",
    "flops > 1 && flops < 2": "join conditions with and",
    "(flops > 1": "a bracket is not closed",
    "val loss > 1": "backticks",
    "": "write for example",
    "flop > 1": "no column 'flop'; did you mean flops?",
    "family == x": "text needs quotes: 'x'",
    "family > 3": "column 'family' is text",
    "flops == 'abc'": "'abc' is text",
    "'a' * 1000000000 == family": "is text, where a number is needed",
    "flops > 1 & family == 'x'": "bracket each side",
    "flops": "is not a condition",
    "flops in family": "'in' needs a list",
    "log(flops, 2) > 1": "write log(x)",
    "(" * 300 + "1" + ")" * 300 + " > 2": "not a condition",
    "-" * 500 + "1 > 2": "nested more than",
    "not " * 450 + "flops > 1": "nested more than",
    "1+" * 900 + "1 > 2": "nested more than",
    "flops > 1 or " * 200: "at most 2000",
    "9" * 1900 + " > flops ** 'x'": "text",
    "flops > 1\0": "is not a condition",
    "family == 'x\\ud800' and x": "no column 'x'",
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_where_refuses_all_else(text: str) -> None:
    with pytest.raises(RunsError) as caught:
        parse_where(text).mask(ROWS)
    assert REFUSED[text] in str(caught.value)
    assert is_one_sentence(str(caught.value)), str(caught.value)


@pytest.mark.parametrize("text", ["9**9**9**9 > flops", "9**9**9 == 1", "2 ** (2 ** 1000) > 1", "(flops**9**9) > 1"])
def test_where_does_not_hang_on_huge_powers(text: str) -> None:
    start = time.perf_counter()
    parse_where(text).mask(ROWS)
    assert time.perf_counter() - start < 1


@given(st.text(alphabet="xy01.<>=!&|~()[]'\"`+-*/%,: andotrilg\n\\_B", max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_where_is_a_mask_or_one_sentence(text: str) -> None:
    try:
        mask = parse_where(text).mask({"x": np.array([1.0, np.nan]), "y": np.array(["a", ""], dtype=object)})
    except RunsError as exc:
        assert_one_line(exc)
    else:
        assert mask.dtype == bool
        assert mask.shape == (2,)


def test_where_after_rename(tmp_path: Path) -> None:
    path = put(tmp_path, "r.csv", "N,D\n1,2\n3,4\n")
    table = load(path, rename=["N=params", "D=N"], where="params > 1 and N == 4")
    assert table["N"].tolist() == [4]
    assert table.left_out == {"where": 1}


# ---- check and skip-bad ----------------------------------------------------------------------------------------------


def test_good_table_passes_unchanged() -> None:
    table = check(load(DATA), need=NEED, positive=("params", "tokens"))
    assert same(table)
    assert table.left_out == {}
    assert table.refused == []


def test_failed_runs_are_left_out_and_counted() -> None:
    data = {"loss": [1, None, 2, 3], "status": ["ok", "failed", "", "Finished"]}
    table = check(load(data), need=["loss"])
    assert table["loss"].tolist() == [1, 2, 3]
    assert table.left_out == {"status": 1}


def test_repeats_are_told_apart_by_seed_and_by_axes() -> None:
    run = ["a", "a"]
    check(load({"run": run, "seed": [0, 1], "loss": [1, 1]}), need=["loss"])
    check(load({"run": run, "tokens": [1, 2], "loss": [1, 1]}), need=["tokens", "loss"])
    check(load({"run": run, "step": [1, 2], "loss": [1, 1]}), need=["loss"])
    check(load({"run": run, "loss": [1, 1]}), need=["loss"], unique=())
    check(load({"run": ["", ""], "loss": [1, 1]}), need=["loss"])
    for data in ({"tokens": [1, 1]}, {"step": [1, 1], "tokens": [1, 2]}, {"tokens": [1, 1], "seed": [None, None]}):
        with pytest.raises(RunsError, match="'a' is there twice"):
            check(load({"run": run, "bpb": [1, 2], **data}), need=["tokens"], target="bpb")


def test_skip_bad_keeps_the_rest_and_writes_the_refused(tmp_path: Path) -> None:
    text = CSV + 'd,1,1,2\ne,1,1,2,n/a?\nf,1,0,2,3\na,1,1,2,3\n"g,1,1,2,3\nh,1,5,2,3\n'
    path = put(tmp_path, "r.csv", text)
    table = check(load(path, skip_bad=True), need=NEED, positive=("params",), skip_bad=True)
    assert table["run"].tolist() == ["a", "b", "c", "h"]
    assert table["loss"].dtype == np.float64
    assert os.listdir(tmp_path) == ["r.csv"]
    side = _runs.refused_path(path)
    assert side == tmp_path / "r.refused.csv"
    assert table.write_refused(side) == 5
    with side.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["line"], r["column"]) for r in rows] == [
        ("5", ""),
        ("9", ""),
        ("6", "loss"),
        ("7", "params"),
        ("8", "run"),
    ]
    assert rows[2]["run"] == "e"
    assert rows[2]["loss"] == rows[2]["value"] == "n/a?"
    assert rows[1]["raw"] == '"g,1,1,2,3'
    assert sorted(os.listdir(tmp_path)) == ["r.csv", "r.refused.csv"]
    with pytest.raises(RunsError, match="would overwrite"):
        table.write_refused(path)


def test_skip_bad_in_where_and_in_folders(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "loss\n1\n2\nn/a?\n3\n")
    put(tmp_path, "b.jsonl", '{"loss": 4}\n{"lo')
    with pytest.raises(RunsError, match="all 1 were left out"):
        load({"x": ["-"]}, where="x > 1")
    put(tmp_path, "c.parquet", b"PAR1junk")
    table = load(tmp_path, where="loss > 1", skip_bad=True)
    assert table["loss"].tolist() == [2, 3, 4]
    assert [r.file.rsplit("/", 1)[-1] for r in table.refused] == ["b.jsonl", "c.parquet", "a.csv"]
    put(tmp_path, "d.csv", b"loss\n\xff\n")
    assert str(load(tmp_path, skip_bad=True).refused[-1]).endswith(
        "d.csv line 2 is not UTF-8 (byte 0xff); save the file as UTF-8"
    )
    with pytest.raises(RunsError, match=r"c\.parquet is not a whole Parquet file"):
        load(tmp_path)


def test_nothing_left_is_an_error_even_with_skip_bad(tmp_path: Path) -> None:
    path = put(tmp_path, "r.csv", "a,b\n1\n2\n")
    with pytest.raises(RunsError, match="all 2 were refused"):
        load(path, skip_bad=True)
    with pytest.raises(RunsError, match="no usable row is left"):
        check(load({"loss": [0, -1]}), need=["loss"], positive=["loss"], skip_bad=True)


def test_read_writes_the_side_file_only_where_there_is_something(tmp_path: Path) -> None:
    path = put(tmp_path, "r.csv", CSV)
    assert len(read(path, skip_bad=True)) == 3
    assert os.listdir(tmp_path) == ["r.csv"]
    put(tmp_path, "r.csv", CSV + "d,1\n")
    frame = read(path, skip_bad=tmp_path / "bad.csv", where="loss > 2.6")
    assert frame.attrs == {"refused": 1, "left_out": {"where": 1}}
    assert sorted(os.listdir(tmp_path)) == ["bad.csv", "r.csv"]
    with pytest.raises(RunsError, match="cannot write"):
        read(path, skip_bad=tmp_path / "nowhere" / "bad.csv")


def test_a_column_of_odd_spaces_or_huge_rows_is_quick(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i}.5,1.4B,,x\n" for i in range(20_000))
    start = time.perf_counter()
    table = load(put(tmp_path, "r.csv", "a,b,c,d,e\n" + rows))
    assert time.perf_counter() - start < 2
    assert len(table) == 20_000


# ---- the rest --------------------------------------------------------------------------------------------------------


def test_import_and_csv_need_no_pandas(tmp_path: Path) -> None:
    path = put(tmp_path, "r.csv", CSV)
    code = (
        "import sys; from isoflop import _runs; t = _runs.load(sys.argv[1], where='loss > 1');"
        "_runs.check(t, need=['loss']); t.data_hash;"
        "print([m for m in ('pandas', 'pyarrow', 'polars', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_columns_are_documented_words() -> None:
    assert len(COLUMNS) >= 30
    for name, column in COLUMNS.items():
        assert re.fullmatch(r"[a-z_]+", name)
        assert column.unit
        assert column.meaning
    assert set(_columns.ALIASES) <= set(COLUMNS)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parent.parent / "docs" / "runs.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert blocks
    scope: dict = {}
    for block in blocks:
        exec(block, scope)
