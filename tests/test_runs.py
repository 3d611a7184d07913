"""The door for tables: bad input, checks and left-out rows, each told in one sentence."""

from __future__ import annotations

import csv
import os
import pickle
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _runs_tables import CSV, DATA, GOOD, HEAD, NEED, assert_one_line, is_one_sentence, put, same
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop import _columns, _runs
from isoflop._columns import COLUMNS
from isoflop._runs import RunsError, check, load, read

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


def test_a_long_table_comes_in_whole(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i}.5,1.4B,,x\n" for i in range(20_000))
    table = load(put(tmp_path, "r.csv", "a,b,c,d,e\n" + rows))
    assert len(table) == 20_000
    assert table["c"][-1] == 1.4e9


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
