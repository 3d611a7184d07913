"""Conditions on rows: they mean what Python means by them, missing values satisfy none, and nothing else is run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from _runs_tables import assert_one_line, is_one_sentence, put
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop._runs import RunsError, load
from isoflop._where import parse_where

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


@pytest.mark.parametrize(("text", "want"), [
    ("9**9**9**9 > flops", [1, 1, 1, 0]), ("9**9**9 == 1", [0, 0, 0, 0]), ("2 ** (2 ** 1000) > 1", [1, 1, 1, 1]),
    ("(flops**9**9) > 1", [1, 1, 1, 0]),
])  # fmt: skip
def test_where_does_not_hang_on_huge_powers(text: str, want: list[int]) -> None:
    assert parse_where(text).mask(ROWS).tolist() == [bool(w) for w in want]


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
