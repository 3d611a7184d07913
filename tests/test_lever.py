"""Sweeps: every run once, whatever happens; and the check that a lever keeps its contract."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from isoflop._lever import RunFailed, check_lever, record, run_id, sweep


@dataclass(frozen=True)
class Toy:
    """loss = 1 + 1 / x, at a cost of x FLOPs; each run has a curve of three steps."""

    axis: ClassVar[str] = "x"
    count: int = field(default=3, metadata={"ladder": True})
    offset: float = 1.0
    repeats_of_first: int = field(default=1, metadata={"ladder": True})
    sleep: float = field(default=0.0, metadata={"ladder": True})

    def ladder(self) -> list[dict[str, Any]]:
        settings: list[dict[str, Any]] = [{"x": x} for x in range(1, self.count + 1)]
        return [settings[0] | {"repeats": self.repeats_of_first}, *settings[1:]]

    def run(self, setting: dict[str, Any], *, seed: int, cache: Path | None = None) -> dict[str, Any]:
        time.sleep(self.sleep)
        x = setting["x"]
        curve = [{"step": step, "loss": self.offset + 2 / x} for step in (1, 2, 3)]
        return {"x": x, "loss": self.offset + 1 / x, "flops": float(x), "curve": curve}


@dataclass(frozen=True)
class Breaks(Toy):
    """A toy that breaks at x = 2 in one of four ways."""

    how: str = "raise"
    mended: bool = field(default=False, metadata={"ladder": True})

    def run(self, setting: dict[str, Any], *, seed: int, cache: Path | None = None) -> dict[str, Any]:
        row = super().run(setting, seed=seed)
        if setting["x"] != 2 or self.mended:
            return row
        if self.how == "nan":
            return row | {"loss": float("nan")}
        if self.how == "inf":
            return row | {"loss": np.float32("inf")}
        if self.how == "cost":
            raise RunFailed("diverged at step 7", row={"flops": 1.5})
        raise OSError("disk on fire")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def whole(out: Path, settings: int) -> None:
    """Every run is there once and right, with exactly its own curve."""
    rows, points = lines(out / "runs.jsonl"), lines(out / "curves" / "curves.jsonl")
    assert Counter(row["x"] for row in rows) == Counter(range(1, settings + 1))
    assert all(row["status"] == "ok" and row["loss"] == 1 + 1 / row["x"] for row in rows)
    assert Counter((p["run"], p["step"]) for p in points) == Counter((r["run"], s) for r in rows for s in (1, 2, 3))


def test_sweep_writes_rows_curves_and_what_is_held_fixed(tmp_path: Path) -> None:
    table = sweep(Toy(), out=tmp_path, progress=False)
    whole(tmp_path, 3)
    assert list(table["loss"]) == [2.0, 1.5, 1 + 1 / 3]
    assert {"run", "x", "seed", "status", "source", "seconds", "flops", "isoflop_version"} <= set(table.columns)
    held = json.loads((tmp_path / "lever.json").read_text())
    assert held == {"lever": "Toy", "offset": 1.0}


def test_finished_runs_are_skipped_and_a_longer_ladder_goes_on(tmp_path: Path) -> None:
    sweep(Toy(count=2), out=tmp_path, progress=False)
    first = lines(tmp_path / "runs.jsonl")
    sweep(Toy(count=5), out=tmp_path, progress=False)
    assert lines(tmp_path / "runs.jsonl")[:2] == first
    whole(tmp_path, 5)


def test_seeds_and_repeats(tmp_path: Path) -> None:
    assert len(sweep(Toy(count=2), out=tmp_path / "a", seeds=2, progress=False)) == 4
    table = sweep(Toy(count=2, repeats_of_first=3), out=tmp_path / "b", progress=False)
    assert list(zip(table["x"], table["seed"], strict=True)) == [(1, 0), (1, 1), (1, 2), (2, 0)]
    assert "repeats" not in table


def test_run_names_depend_on_setting_and_seed_only() -> None:
    assert run_id({"a": 1, "b": 2}, seed=0) == run_id({"b": 2, "a": 1}, seed=0)
    assert len({run_id({"a": a}, seed=s) for a in range(5) for s in range(5)}) == 25


def test_another_lever_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    sweep(Toy(), out=tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"holds a sweep with offset=1\.0, and this one has 2\.0"):
        sweep(Toy(offset=2.0), out=tmp_path, progress=False)
    with pytest.raises(ValueError, match='holds a sweep with lever="Toy"'):
        sweep(Breaks(), out=tmp_path, progress=False)
    (tmp_path / "lever.json").unlink()
    with pytest.raises(ValueError, match=r"runs\.jsonl but no lever\.json"):
        sweep(Toy(), out=tmp_path, progress=False)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(ValueError, match="is a file; give a folder"):
        sweep(Toy(), out=tmp_path / "runs", progress=False)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl", reason="no file locks here")
    with (tmp_path / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is writing"):
            sweep(Toy(), out=tmp_path, progress=False)
    sweep(Toy(), out=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("how", "error", "flops"),
    [
        ("raise", "OSError: disk on fire", None),
        ("nan", "loss is nan", 2.0),
        ("inf", "loss is inf", 2.0),
        ("cost", "RunFailed: diverged", 1.5),
    ],
)
def test_a_failed_run_is_a_row_with_its_cost_and_no_metric(tmp_path: Path, how: str, error: str, flops: float) -> None:
    sweep(Breaks(how=how), out=tmp_path, progress=False)
    bad = lines(tmp_path / "runs.jsonl")[1]
    assert bad["status"] == "failed"
    assert bad["error"].startswith(error)
    assert (bad["x"], bad.get("flops")) == (2, flops)
    assert "loss" not in bad
    assert bad["seconds"] >= 0
    assert {p["run"] for p in lines(tmp_path / "curves" / "curves.jsonl")}.isdisjoint({bad["run"]})


def test_failed_runs_stay_until_a_retry_is_asked_for(tmp_path: Path) -> None:
    sweep(Breaks(), out=tmp_path, progress=False)
    assert len(sweep(Breaks(mended=True), out=tmp_path, progress=False)) == 3
    sweep(Breaks(), out=tmp_path, progress=False, retry_failed=True)
    table = sweep(Breaks(mended=True), out=tmp_path, progress=False, retry_failed=True)
    name = run_id({"x": 2}, seed=0)
    tried = table[table["x"] == 2]
    assert list(tried["run"]) == [name, f"{name}~2", f"{name}~3"]
    assert list(tried["status"]) == ["failed", "failed", "ok"]
    assert len(sweep(Breaks(mended=True), out=tmp_path, progress=False, retry_failed=True)) == 5


def test_missing_software_stops_the_sweep_and_fails_no_run(tmp_path: Path) -> None:
    class Needs(Toy):
        def run(self, setting: dict[str, Any], *, seed: int, cache: Path | None = None) -> dict[str, Any]:
            raise ImportError("the toy lever needs bricks")

    with pytest.raises(ImportError, match="needs bricks"):
        sweep(Needs(), out=tmp_path, progress=False)
    assert not (tmp_path / "runs.jsonl").exists()


def test_resuming_from_every_state_a_crash_can_leave(tmp_path: Path) -> None:
    """Cut the stream of appended bytes anywhere, as a crash would, and resume."""
    done = tmp_path / "done"
    sweep(Toy(count=2), out=done, progress=False)
    runs, curves = (done / "runs.jsonl").read_bytes(), (done / "curves" / "curves.jsonl").read_bytes()
    one, half = runs.index(b"\n") + 1, len(curves) // 2
    order = [("curves/curves.jsonl", curves[:half]), ("runs.jsonl", runs[:one])]
    order += [("curves/curves.jsonl", curves[half:]), ("runs.jsonl", runs[one:])]
    total = sum(len(data) for _, data in order)
    for cut in range(0, total + 1, 5):
        out, left = tmp_path / str(cut), cut
        (out / "curves").mkdir(parents=True)
        (out / "lever.json").write_bytes((done / "lever.json").read_bytes())
        for name, data in order:
            with (out / name).open("ab") as stream:
                stream.write(data[: max(left, 0)])
            left -= len(data)
        sweep(Toy(count=2), out=out, progress=False)
        whole(out, 2)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from test_lever import Toy
from isoflop._lever import sweep
print("ready", flush=True)
sweep(Toy(count={count}, sleep=0.001), out={out!r}, progress=False)
"""


def test_kill_9_at_random_moments_loses_and_repeats_nothing(tmp_path: Path) -> None:
    count, rng = 250, random.Random(0)
    script = KILLED.format(tests=str(Path(__file__).parent), count=count, out=str(tmp_path))
    killed = 0
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.communicate()
        killed += process.returncode == -9
    before = (tmp_path / "runs.jsonl").read_bytes().count(b"\n")
    assert killed >= 15, "the runs are too short for the kills to hit them"
    assert before > 0
    sweep(Toy(count=count), out=tmp_path, progress=False)
    whole(tmp_path, count)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    sweep(Toy(), out=tmp_path, progress=False)
    path = tmp_path / "runs.jsonl"
    path.write_bytes(path.read_bytes().replace(b"{", b"[", 1))
    with pytest.raises(ValueError, match=r"runs\.jsonl, line 1: not a JSON object"):
        sweep(Toy(), out=tmp_path, progress=False)


def test_progress_is_on_stderr_and_can_be_silenced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(Toy(), out=tmp_path / "a", progress=False)
    assert capsys.readouterr() == ("", "")
    sweep(Breaks(), out=tmp_path / "b")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0].startswith("1/3 runs, ok, about 0:00:0")
    assert err.splitlines()[-1] == "2 runs, 1 failed"


def test_record_writes_small_csv(tmp_path: Path) -> None:
    import pandas as pd

    sweep(Toy(), out=tmp_path / "sweep", progress=False)
    record(tmp_path / "sweep", tmp_path / "csv")
    runs, curves = (pd.read_csv(tmp_path / "csv" / f"{name}.csv") for name in ("runs", "curves"))
    assert list(runs["loss"]) == [2.0, 1.5, 1.333333]
    assert len(curves) == 9
    assert set(curves["run"]) == set(runs["run"])


def test_check_lever_passes_a_good_one_and_says_what_is_wrong_with_others() -> None:
    report = check_lever(Toy())
    assert report.ok
    assert str(report) == "ok"
    assert report.costs == {"flops": (1.0, 2.0)}

    class Random(Toy):
        def run(self, setting: dict[str, Any], *, seed: int, cache: Path | None = None) -> dict[str, Any]:
            return {"loss": random.random(), "flops": 1.0}

    problems = check_lever(Random()).problems
    assert [p.split()[0] for p in problems] == ["loss", "the", "no"]
    with pytest.raises(ValueError, match="a check needs two"):
        check_lever(Toy(count=1))
