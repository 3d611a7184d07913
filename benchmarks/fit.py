"""How fast and how well isoflop fits, against what scaling laws are fitted with today. One command:

    python benchmarks/fit.py [--quick] [--json out.json] [--only ABCDE]

A: best fit of the Chinchilla rows, and the audit from the published 4500 starts. B: bootstrap. C: growth with the rows.
D: the other laws. E: derivatives. The rows are chinchilla/points.csv under ISOFLOP_DATA, else under ../shared/data
beside the repository, else planted ones of the same shape. Peers that are not installed are skipped
(pip install 'isoflop[bench]'). README.md here says how to read the numbers.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import _peers
import numpy as np
from _tables import AUDIT, BEST, BOOTSTRAP, REFITTED, SHELL, Row, busy, find, goals, heading, machine, tables

HERE = Path(__file__).resolve().parent
GRID, REFITS = 4500, 4000
OPTIMUM = 1.0182740178e-3  # of the 240 rows, as far as it is known: all good solvers agree on these digits
# of 4000 refits in the notebook of arXiv 2404.10102
STANDARD_ERRORS = {"A": 124.5, "B": 1293, "E": 0.0257, "alpha": 0.0154, "beta": 0.0206}
# arXiv 2203.15556, approach 3: log A, log B, log E, alpha, beta, where the published notebook starts its bootstrap
PUBLISHED = np.array([np.log(406.4), np.log(410.7), np.log(1.6934), 0.3392, 0.2849])


@dataclass(frozen=True)
class Sample:
    """What a peer is timed on: some of the 4500 starts and of the 4000 resamples, and where those start."""

    starts: int
    resamples: int
    warm: bool = True  # at the best fit; else at the published constants


SAMPLES = {
    "scipy L-BFGS-B, numeric gradient": Sample(450, 100, warm=False),
    "scipy L-BFGS-B, exact gradient": Sample(450, 100),
    "scipy L-BFGS-B, exact gradient, tight": Sample(450, 100),
    "scipy BFGS, exact gradient": Sample(450, 100, warm=False),
    "scipy least_squares (huber)": Sample(200, 100),
    "lmfit least_squares (huber)": Sample(100, 40),
    "chinchilla package": Sample(96, 0),
    "optimistix BFGS": Sample(512, 100),
    "optimistix LM": Sample(512, 100),
}


@dataclass
class Bench:
    """The rows to fit, where files go, how thorough to be, and what was found."""

    folder: Path
    table: Path  # the CSV that the command line is given
    columns: Path  # .npy (3, n): params, tokens, loss
    planted: bool
    quick: bool
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def log_rows(self) -> np.ndarray:
        """log N, log D, log L, (3, n)."""
        return np.log(np.load(self.columns))

    def few(self, many: int, least: int = 2) -> int:
        """`many`, or a tenth of it under --quick."""
        return max(least, many // 10) if self.quick else many

    def add(self, row: Row) -> None:
        """Keep a row, and show that something happens."""
        self.rows.append(row)
        took = row.note if row.wall is None else f"{row.wall:.3g} s"
        print(f"[{row.section}] {row.name}: {took}", file=sys.stderr, flush=True)


# ---- processes -------------------------------------------------------------------------------------------------------


class Failed(Exception):
    """A contestant could not run; the message is the last line it wrote."""


def run(bench: Bench, command: list[str], **settings: str) -> dict[str, Any]:
    """Run a process that prints one JSON object last. Adds `process`, its wall seconds from start to end."""
    # bytecode goes to a folder of this benchmark's: it is compiled once, as it is for an installed package
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPYCACHEPREFIX": str(bench.folder / "bytecode"), **settings}
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    took = time.perf_counter() - began
    if done.returncode or "{" not in done.stdout:
        raise Failed((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1][:160])
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return found | {"process": took}


def task(bench: Bench, name: str, *given: object, repeats: int = 1) -> list[dict[str, Any]]:
    """A task of isoflop's, each time in a fresh process. With repeats a first one, which compiles, is not counted."""
    command = [sys.executable, str(HERE / "_tasks.py"), name, *map(str, given)]
    if repeats > 1:
        run(bench, command)
    return [run(bench, command) for _ in range(repeats)]


def peer(bench: Bench, name: str, starts: np.ndarray, picks: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """One peer on given problems: its seconds and its ends (k, 5). Raises Failed."""
    problem, answer = bench.folder / "problem.npz", bench.folder / "answer.npy"
    np.savez(problem, rows=bench.log_rows, starts=starts, picks=picks)
    # one BLAS thread: on five coefficients scipy's L-BFGS-B is up to forty times slower with two
    single = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    seconds = run(bench, [sys.executable, str(HERE / "_peers.py"), name, str(problem), str(answer)], **single)
    return seconds, np.load(answer)


def measured(found: list[dict[str, Any]], wall: str = "wall", cpu: str = "cpu") -> dict[str, Any]:
    """Medians and ranges over repeats, as Row takes them."""
    walls = [one[wall] for one in found]
    out = {"wall": statistics.median(walls), "low": min(walls), "high": max(walls)}
    if cpu in found[0]:
        out["cpu"] = statistics.median(one[cpu] for one in found)
    if "peak" in found[0]:
        out["peak"] = max(one["peak"] for one in found)
    return out


# ---- A: best fit -----------------------------------------------------------------------------------------------------


def best_fit(bench: Bench) -> None:
    """isoflop from a fresh process and through the command line, its audit, and peers over the same 4500 starts."""
    for name, draws, repeats in ((BEST, 0, 9), (REFITTED, REFITS, 7)):
        found = task(bench, "fit", bench.columns, draws, repeats=bench.few(repeats))
        loaded = sorted({module for one in found for module in one["loaded"]})
        if loaded:
            raise SystemExit(f"benchmarks/fit.py: a fit from arrays imported {', '.join(loaded)}, which it must not")
        agree = f"{found[0]['agreeing']} of its {found[0]['starts']} starts agree; neither pandas nor scipy imported"
        more = {"values": [found[0]["value"]], "se": found[0]["se"]}
        bench.add(Row("A", name, **measured(found), note=agree, more=more))
    command_line(bench)
    found = task(bench, "audit", bench.columns, repeats=bench.few(3))
    bench.add(Row("A", AUDIT, **measured(found), more={"values": found[0]["values"]}))
    grid_peers(bench)
    score(bench)


def command_line(bench: Bench) -> None:
    """The same from a CSV through the shell: the whole process."""
    command = [sys.executable, "-m", "isoflop", "fit", str(bench.table), "--law", "chinchilla", "--draws", str(REFITS)]
    command += ["--json"] if bench.planted else ["--json", "--where", "point_id > 4"]
    try:
        run(bench, command)
        found = [run(bench, command) for _ in range(bench.few(5))]
    except Failed as why:
        bench.add(Row("A", SHELL, note=f"skipped: {why}"))
        return
    bench.add(Row("A", SHELL, **measured(found, "process"), more={"values": [found[0]["objective"]["value"]]}))


def grid_peers(bench: Bench) -> None:
    """Peers on a random sample of the published starts; the chinchilla package on a part that is itself a grid."""
    whole = _peers.grid()
    order = np.random.default_rng(0).permutation(len(whole))
    for name, sample in SAMPLES.items():
        starts = whole[order[: bench.few(sample.starts, 8)]]
        if name == "chinchilla package":
            starts = part_of_grid(bench.quick)
        everything = np.tile(np.arange(bench.log_rows.shape[1]), (len(starts), 1))
        try:
            seconds, ends = peer(bench, name, starts, everything)
        except Failed as why:
            bench.add(Row("A", name, note=f"skipped: {why}"))
            continue
        values = [_peers.objective(end, bench.log_rows) for end in ends]
        row = Row("A", name, **scaled(seconds, GRID, len(starts)), note=compiling(seconds), more={"values": values})
        bench.add(row)


def scaled(seconds: dict[str, Any], whole: int, part: int) -> dict[str, Any]:
    """A sample's seconds as if all had been run."""
    return {"wall": seconds["wall"] * whole / part, "cpu": seconds["cpu"] * whole / part, "sample": part}


def compiling(seconds: dict[str, Any]) -> str:
    """What it cost before the first problem, where that is more than an import."""
    return f"after {seconds['compile']:.1f} s of compiling" if seconds["compile"] else ""


def part_of_grid(quick: bool) -> np.ndarray:
    """96 of the 4500 starts (or 12) that are all combinations of some values: log A, log B, log E, alpha, beta."""
    axes = ([0, 10, 20], [5, 15], [-1, 1], [0, 1], [0, 0.5, 1, 1.5])
    if quick:
        axes = ([5, 10, 15], [5, 15], [0], [0, 1], [0.5])
    return np.array(list(itertools.product(*axes)), dtype=float)


def score(bench: Bench) -> None:
    """Gaps and hits of section A against the lowest objective that anyone found."""
    mine = [row for row in bench.rows if row.section == "A" and row.wall is not None]
    values = [np.array(row.more.pop("values")) for row in mine]
    lowest = min(np.nanmin(found) for found in values)
    for row, found in zip(mine, values, strict=True):
        row.gap = float(np.nanmin(found) / lowest - 1)
        if len(found) > 1:
            row.hits = float((found <= lowest * (1 + 1e-9)).mean())
            row.more["hits_1e-6"] = float((found <= lowest * (1 + 1e-6)).mean())
    known = "" if bench.planted else f", {lowest / OPTIMUM - 1:+.0e} relative to the known optimum"
    bench.notes.append(f"lowest objective that anyone found: {lowest:.13g}{known}")
    refitted = find(bench.rows, "A", REFITTED)
    if refitted and not bench.planted:
        pairs = [f"{name} {refitted.more['se'][name]:.3g} ({se:g})" for name, se in STANDARD_ERRORS.items()]
        bench.notes.append(f"standard errors from {REFITS} refits (published): {', '.join(pairs)}")


# ---- B: bootstrap ----------------------------------------------------------------------------------------------------


def bootstraps(bench: Bench) -> None:
    """isoflop's bootstrap, and its first resamples refitted by the peers."""
    found = task(bench, "grow", bench.columns, REFITS, repeats=bench.few(5))
    bench.add(Row("B", BOOTSTRAP, **measured(found, "draws_wall", "draws_cpu")))
    file, most = bench.folder / "resamples.npz", bench.few(100)
    task(bench, "resamples", bench.columns, most, file)
    given = np.load(file)
    ends = {BOOTSTRAP: given["ends"]}
    for name, sample in SAMPLES.items():
        if not sample.resamples:
            bench.add(Row("B", name, note="has no bootstrap"))
            continue
        picks = given["picks"][: bench.few(sample.resamples)]
        starts = np.tile(given["best"] if sample.warm else PUBLISHED, (len(picks), 1))
        try:
            seconds, ends[name] = peer(bench, name, starts, picks)
        except Failed as why:
            bench.add(Row("B", name, note=f"skipped: {why}"))
            continue
        note = compiling(seconds) if sample.warm else "from the published constants, as the published notebook does"
        bench.add(Row("B", name, **scaled(seconds, REFITS, len(picks)), note=note))
    score_refits(bench, ends, given["picks"])


def score_refits(bench: Bench, ends: dict[str, np.ndarray], picks: np.ndarray) -> None:
    """Worst gap and share within 1e-9 of the lowest objective that anyone found on each resample."""
    lowest = np.full(len(picks), np.inf)
    values = {}
    for name, found in ends.items():
        pairs = zip(found, picks[: len(found)], strict=True)
        values[name] = np.array([_peers.objective(end, bench.log_rows[:, pick]) for end, pick in pairs])
        lowest[: len(found)] = np.fmin(lowest[: len(found)], values[name])
    for name, found in values.items():
        row = find(bench.rows, "B", name)
        if row:
            gaps = found / lowest[: len(found)] - 1
            row.gap, row.hits = float(np.nanmax(gaps)), float((gaps <= 1e-9).mean())


# ---- C, D, E ---------------------------------------------------------------------------------------------------------


def growth(bench: Bench) -> None:
    """Planted Chinchilla rows, ten times more at a time."""
    for n in (10**k for k in range(2, 5 if bench.quick else 7)):
        file = bench.folder / "planted.npy"
        np.save(file, planted(n))
        found = task(bench, "grow", file, 1000, repeats=3 if n <= 10_000 and not bench.quick else 1)
        more = {key: statistics.median(one[key] for one in found) for key in ("draws_wall", "draws_cpu")}
        row = Row("C", f"{n:,} rows", **measured(found), note=found[0]["method"], more=more)
        bench.add(row)
        row.more |= {"cpu_a_row": (row.cpu or 0) / n, "coef": found[0]["coef"]}


def other_laws(bench: Bench) -> None:
    """Every law of the package on its own planted rows."""
    (found,) = task(bench, "laws", bench.few(5))
    found.pop("process")
    for name, one in found.items():
        bench.add(Row("D", name, wall=one.pop("wall"), cpu=one.pop("cpu"), more=one))


def derivatives(bench: Bench) -> None:
    """What objective, gradient and exact Hessian cost a row."""
    (found,) = task(bench, "derivatives", bench.columns)
    for name, words in (("tape", "isoflop's tape"), ("jets", "second-order forward jets in numpy")):
        bench.add(Row("E", words, note=f"{found[name]:.3g} ns a row", more={"ns_a_row": found[name]}))
    bench.notes.append(f"tape and jets agree in the objective to {found['disagree']:.0e}")


# ---- the rows --------------------------------------------------------------------------------------------------------


def planted(n: int) -> np.ndarray:
    """Rows (3, n) of the Chinchilla law at its refitted coefficients, three decades each, 1 % lognormal noise."""
    rng = np.random.default_rng(n)
    params, tokens = np.exp(rng.uniform(np.log([[1e7], [1e9]]), np.log([[1e10], [1e12]]), (2, n)))
    loss = (1.8172 + 477.83 / params**0.3473 + 2143.4 / tokens**0.3672) * np.exp(0.01 * rng.standard_normal(n))
    return np.array([params, tokens, loss])


def source() -> Path | None:
    """chinchilla/points.csv, where it is to be had."""
    told = os.environ.get("ISOFLOP_DATA")
    file = (Path(told) if told else HERE.parents[1] / "shared" / "data") / "chinchilla" / "points.csv"
    return file if file.exists() else None


def prepare(folder: Path, *, quick: bool) -> Bench:
    """The 240 rows of the published fit (the five highest losses left out), or planted ones."""
    names, file, columns = ("params", "tokens", "loss"), source(), folder / "columns.npy"
    if file:
        with file.open(newline="") as lines:
            kept = [row for row in csv.DictReader(lines) if int(row["point_id"]) > 4]
        np.save(columns, np.array([[float(row[name]) for row in kept] for name in names]))
        return Bench(folder, file, columns, planted=False, quick=quick)
    rows = planted(240)
    np.save(columns, rows)
    with (folder / "planted.csv").open("w", newline="") as out:
        csv.writer(out).writerows([names, *rows.T.tolist()])
    return Bench(folder, folder / "planted.csv", columns, planted=True, quick=quick)


SECTIONS = {"A": best_fit, "B": bootstraps, "C": growth, "D": other_laws, "E": derivatives}


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description="isoflop's fits against what people use today")
    parser.add_argument("--json", metavar="FILE", help="write every figure there")
    parser.add_argument("--quick", action="store_true", help="a minute instead of several, for trying it out")
    parser.add_argument("--only", default="ABCDE", metavar="LETTERS", help="which sections, all unless told")
    asked = parser.parse_args()
    letters = [letter for letter in SECTIONS if letter in asked.only.upper()]
    host = machine()
    with tempfile.TemporaryDirectory() as folder:
        bench = prepare(Path(folder), quick=asked.quick)
        print(*heading(host, planted=bench.planted, quick=bench.quick), sep="\n", flush=True)
        for letter in letters:
            SECTIONS[letter](bench)
    print(*tables(bench.rows), "", *(f"note: {n}" for n in bench.notes), *goals(bench.rows), *busy(host), sep="\n")
    if asked.json:
        whole = {"machine": host, "planted": bench.planted, "quick": bench.quick, "notes": bench.notes}
        Path(asked.json).write_text(json.dumps(whole | {"rows": [asdict(row) for row in bench.rows]}, indent=1))


if __name__ == "__main__":
    main()
