"""docs/add-a-law.md works as it is written: two files, and every command on the page, in a copy of the package."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

PAGE = (ROOT / "docs" / "add-a-law.md").read_text()
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What each command of the page printed: files are written where their titles say, commands run in turn."""
    top = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "isoflop", top / "isoflop", ignore=shutil.ignore_patterns("__pycache__"))
    (top / "tests").mkdir()
    for name in ("conftest.py", "test_contracts.py"):
        shutil.copy(ROOT / "tests" / name, top / "tests")
    shutil.copy(ROOT / "pyproject.toml", top)
    said = {}
    for language, title, code in BLOCK.findall(PAGE):
        if title:
            (top / title).parent.mkdir(exist_ok=True)
            (top / title).write_text(code)
        else:
            assert language == "sh", code
            said |= {line: _run(line, top) for line in code.splitlines()}
    return said


def _run(line, top):
    words = shlex.split(line)
    words = [sys.executable, *(["-m", "isoflop"] if words[0] == "isoflop" else []), *words[1:]]
    words += ["-p", "no:cacheprovider"] if "pytest" in words else []
    own = {"PYTHONPATH": str(top), "XDG_CACHE_HOME": str(top / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(words, cwd=top, env=os.environ | own, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{line}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def test_the_page_adds_two_files_that_are_not_there_yet():
    titles = [title for _, title, _ in BLOCK.findall(PAGE) if title]
    inside = [t for t in titles if t.startswith("isoflop/")]
    assert inside == ["isoflop/laws/exponential.py", "isoflop/papers/learning_curve_review.toml"]
    assert not any((ROOT / t).exists() for t in titles), "take another example, or its commands show nothing"


def test_the_law_is_found_and_works(said):
    assert "works" in said["isoflop check exponential --data-sets 10"]
    assert "exponential" in said["isoflop list laws"]
    (tested,) = (text for line, text in said.items() if "pytest" in line)
    assert tested.startswith("..."), tested  # pytest -q: a point for each test that passed


def test_the_paper_is_found_and_both_claims_hold(said):
    text = said["isoflop paper learning_curve_review --data ."]
    assert "recovers" in text
    assert "agrees" in text
    assert "differs" not in text
    assert "learning_curve_review" in said["isoflop papers exponential"]
    (fitted,) = (text for line, text in said.items() if line.startswith("isoflop fit"))
    assert "x0" in fitted
