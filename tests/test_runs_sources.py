"""The same table comes from any source: CSV of any dialect, JSON, Parquet, frames, folders; human numbers are read."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from _runs_tables import CSV, DATA, GOOD, HEAD, put, same
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isoflop import _columns, _readers
from isoflop._columns import number
from isoflop._runs import RunsError, load, read


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
