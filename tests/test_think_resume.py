"""Folders that an earlier isoflop wrote, line by line as it wrote them: they are gone on with, or refused in words."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the think lever: pip install 'isoflop[think]'")
pytest.importorskip("orjson", reason="the think lever: pip install 'isoflop[think]'")

from _think_served import tiny_model, write_problems
from test_think_store import asked, kept

import isoflop
from isoflop.levers.think import Think
from isoflop.levers.think._follow import read_plan
from isoflop.levers.think._samples import read_samples
from isoflop.levers.think._server import serving
from isoflop.levers.think._store import Store

SETTINGS = {"protocol": "completions", "temperature": 0.8, "max_tokens": 4, "stop": [], "logprobs": False}
PROBLEMS, N = 6, 4


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).hexdigest()


def packed(value):
    return json.dumps(value, separators=(",", ":")).encode()


def old_line(number, place):
    """A sample as the first version kept it, under the key that it was kept under."""
    prompt = f"say {number}:"
    seed = int(sha(f"0\0{prompt}\0".encode())[:8], 16) >> 2
    prompt_sha = sha(prompt.encode())
    return {
        "v": 1, "key": sha(packed(["model", prompt_sha, SETTINGS]), str(seed + place).encode()),
        "problem": f"p{number}", "strategy": "majority", "run": "b03f0e1dbf-s0", "model": "model",
        "prompt_sha": prompt_sha, "seed": seed + place, "index": place, "settings": SETTINGS, "text": f" {number}",
        "finish": "length", "answer": str(number), "correct": 1, "score": None, "prompt_tokens": 0 if place else 6,
        "cached_tokens": 0, "shared_tokens": 6 if place else 0, "gen_tokens": 4, "counted": True, "logprob_sum": None,
        "seconds": 0.01, "role": "model", "error": None,
    }  # fmt: skip


def old_probe(url, **found):
    key = sha(json.dumps(["probe", [url], "model", "completions"]).encode())
    head = {"v": 1, "key": key, "problem": None, "model": "model", "role": "probe", "found": found}
    return head | {"error": None}


FOUND = {"n": True, "logprobs": True, "seed": True, "prefix": True, "usage": True, "counting": True, "varied": True,
         "limit": "max_tokens", "asked": 7, "tokens": 146}  # fmt: skip


def old_store(folder, *, missing, probe):
    """The store of a run that was killed before it had the last `missing` of its samples."""
    lines = [old_line(number, place) for number in range(PROBLEMS) for place in range(N)]
    path = folder / "samples" / "samples.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(packed(line) + b"\n" for line in [probe, *lines[: len(lines) - missing]]))
    return path


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tiny_model(tmp_path_factory.mktemp("model"))) as both:
        yield both


@pytest.fixture
def lever(served, tmp_path):
    problems = write_problems(tmp_path / "problems.jsonl", PROBLEMS)
    return Think("model", str(problems), server=served[0], over={"n": [N]}, protocol="completions", max_tokens=4)


def resumed(lever, service, folder):
    """The row, and what the server was asked meanwhile."""
    begun = len(service.requests)
    row = lever.run(lever.ladder()[0], seed=0, cache=folder / "cache")
    return row, [r for r in service.requests[begun:] if "prompt" in r]


@pytest.mark.parametrize("missing", [0, 3, 9])
def test_an_old_store_is_gone_on_with_and_nothing_in_it_is_asked_again(lever, served, tmp_path, missing):
    path = old_store(tmp_path / "out", missing=missing, probe=old_probe(served[0], **FOUND))
    before = kept(path)
    row, requests = resumed(lever, served[1], tmp_path / "out")
    drawn = sum(r.get("n", 1) for r in requests)
    assert (row["samples"], row["failed"], drawn) == (N, 0, missing)
    assert not asked(requests) & before
    assert len(kept(path)) == PROBLEMS * N
    if not missing:
        assert row["accuracy"] == 1
        assert row["gen_tokens"] == 4 * N
    again = resumed(lever, served[1], tmp_path / "out")
    assert again[1] == []
    assert again[0]["accuracy"] == row["accuracy"]


def test_a_folder_that_is_older_than_a_field_of_the_lever_is_gone_on_with(lever, served, tmp_path):
    """`stop` came later: an old lever.json does not say it, and no run then could have had one."""
    folder = tmp_path / "out"
    isoflop.sweep(lever, out=folder, progress=False)
    held = json.loads((folder / "lever.json").read_text())
    (folder / "lever.json").write_text(json.dumps({name: value for name, value in held.items() if name != "stop"}))
    (folder / "runs.jsonl").unlink()
    begun = len(served[1].requests)
    assert isoflop.sweep(lever, out=folder, progress=False).iloc[0]["status"] == "ok"
    assert len(served[1].requests) == begun
    with pytest.raises(ValueError, match=r'stop=\[\], and this one has \["x"\]'):
        isoflop.sweep(replace(lever, stop=("x",)), out=folder, progress=False)


def test_a_probe_that_did_not_look_for_something_is_made_again_once(lever, served, tmp_path):
    fewer = {name: value for name, value in FOUND.items() if name not in ("counting", "varied")}
    path = old_store(tmp_path / "out", missing=0, probe=old_probe(served[0], **fewer))
    requests = resumed(lever, served[1], tmp_path / "out")[1]
    assert 0 < len(requests) < 12
    assert not asked(requests) & kept(path)
    assert resumed(lever, served[1], tmp_path / "out")[1] == []


def test_what_a_later_probe_looked_for_besides_is_left_aside(lever, served, tmp_path):
    old_store(tmp_path / "out", missing=0, probe=old_probe(served[0], **FOUND, pictures=True))
    assert resumed(lever, served[1], tmp_path / "out")[1] == []


def test_an_old_store_is_replayed(served, tmp_path):
    path = old_store(tmp_path, missing=3, probe=old_probe(served[0], **FOUND))
    samples = read_samples(path)
    assert samples.n.tolist() == [4, 4, 4, 4, 4, 1]
    assert samples.how["sampling"] == ({"temperature": 0.8, "max_tokens": 4, "stop": []},)


def test_an_old_plan_leaves_sampling_to_the_run(tmp_path):
    share = {"strategy": "majority", "k": 4, "share": 1.0}
    plan = {
        "version": 1, "signal": "none", "probe": 0, "cost": "gen_tokens", "level": 90,
        "bins": [{"low": None, "high": None, "problems": 6, "settings": [share]}],
        "accuracy": {"best": 0.5, "median": 0.5, "interval": [0.4, 0.6]}, "spent": {"best": 16.0},
    }  # fmt: skip
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    assert read_plan(path).sampling == {}


def test_a_store_of_another_version_is_refused_in_words(tmp_path):
    path = Path(tmp_path / "samples.jsonl")
    path.write_bytes(packed({**old_line(0, 0), "v": 2}) + b"\n")
    with Store(path) as store, pytest.raises(ValueError, match="record of version 2, and this isoflop reads version 1"):
        store.get(old_line(0, 0)["key"])
