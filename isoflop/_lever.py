"""The Lever contract, `sweep` to run a lever's whole ladder once for all, and `check_lever` for a lever of your own.

A sweep's folder holds

    runs.jsonl            one JSON object per attempt, appended and synced: the commit point of a run
    curves/curves.jsonl   checkpoint rows (run, step, ...), written before the run that commits them
    lever.json            what was held fixed, so that nothing else is mixed in later
    cache/                partial work that a lever may keep; safe to delete

so that a process killed at any moment loses at most the run it was in, and a resumed one repeats nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    import pandas as pd

Setting = dict[str, Any]
Row = dict[str, Any]


class Lever(Protocol):
    """A frozen dataclass of what is held fixed.

    A field whose metadata has ladder=True only lists settings, or changes no result: it may differ when a sweep is
    resumed. A lever may also have `cost(setting) -> float`, for the estimate of the time left, and
    `facts() -> dict`, which is kept in lever.json and compared as the fields are.
    """

    @property
    def axis(self) -> str:
        """The column that the ladder climbs; a plain class attribute will do."""
        ...

    def ladder(self) -> list[Setting]:
        """Settings, cheap to dear; plain JSON values. A key "repeats" asks for so many seeds of that setting."""
        ...

    def run(self, setting: Setting, *, seed: int, cache: Path | None = None) -> Row:
        """One row: axis, metrics and costs, plain JSON values; under "curve", a list of checkpoint rows with a step.

        Results never depend on `cache`, a folder for partial work. A failure is raised, best as `RunFailed`.
        """
        ...


class RunFailed(RuntimeError):
    """A run ended without a metric; `row` holds what is known of it, such as the cost spent so far."""

    def __init__(self, message: str, *, row: Row | None = None) -> None:
        super().__init__(message)
        self.row = row or {}


def sweep(
    lever: Lever,
    *,
    out: str | Path,
    seeds: int = 1,
    progress: bool = True,
    retry_failed: bool = False,
) -> pd.DataFrame:
    """Run the whole ladder of a lever into the folder `out`, and return all rows there as a table.

    seeds: seeds 0..seeds-1 of every setting; progress: one line on stderr; retry_failed: run failed settings anew,
    as further rows (their run has "~2", "~3", ... after its name).

    Finished runs are skipped, so the same call resumes. A run that raises becomes a row with status "failed", its
    error, and its cost where known. Raises ValueError where `out` holds a sweep of another lever or is in use.
    """
    folder = Path(out)
    if folder.is_file():
        raise ValueError(f"{folder} is a file; give a folder as out")
    (folder / "curves").mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _claim(folder, lever)
        rows = _repair(folder)
        todo = _todo(lever, rows, seeds=seeds, retry_failed=retry_failed)
        shown = _Progress(todo, lever, enabled=progress)
        for item in todo:
            row, curve = _attempt(lever, item, folder / "cache")
            _append(folder / "curves" / "curves.jsonl", curve)
            _append(folder / "runs.jsonl", [row])
            rows.append(row)
            shown.done(item, row)
        shown.summary(rows)
    import pandas as pd

    return pd.DataFrame(rows)


def record(folder: str | Path, out: str | Path) -> None:
    """Write a sweep as runs.csv and curves.csv into the folder `out`, floats to seven significant digits."""
    import pandas as pd

    Path(out).mkdir(parents=True, exist_ok=True)
    for name, part in (("runs", "runs.jsonl"), ("curves", "curves/curves.jsonl")):
        rows, _ = _read_lines(Path(folder) / part)
        pd.DataFrame(rows).to_csv(Path(out) / f"{name}.csv", index=False, float_format="%.7g", lineterminator="\n")


# -- what there is to do ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Item:
    """One attempt: `run` is stable, made of what was set and the seed."""

    run: str
    setting: Setting
    seed: int


def run_id(setting: Setting, *, seed: int) -> str:
    """Name of a run: the same for the same setting and seed, whatever the order of the ladder."""
    text = json.dumps(setting, sort_keys=True, default=str)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:10]}-s{seed}"


def _todo(lever: Lever, rows: list[Row], *, seeds: int, retry_failed: bool) -> list[_Item]:
    """What is not finished, in the ladder's order; a failed run only if it is to be retried."""
    attempts: dict[str, list[str]] = {}
    for row in rows:
        attempts.setdefault(str(row["run"]).split("~")[0], []).append(row["status"])
    items = []
    for entry in lever.ladder():
        setting = {k: v for k, v in entry.items() if k != "repeats"}
        for seed in range(max(seeds, entry.get("repeats", 1))):
            run = run_id(setting, seed=seed)
            tried = attempts.get(run, [])
            if not tried or (retry_failed and "ok" not in tried):
                items.append(_Item(run + (f"~{len(tried) + 1}" if tried else ""), setting, seed))
    return items


def _attempt(lever: Lever, item: _Item, cache: Path) -> tuple[Row, list[Row]]:
    """Run one item; whatever it raises becomes its row. A failed run leaves no curve."""
    cache.mkdir(exist_ok=True)
    began = time.perf_counter()
    head = {"run": item.run, **item.setting, "seed": item.seed}
    try:
        row = dict(lever.run(item.setting, seed=item.seed, cache=cache))
        row, status = _finite(row)
    except ImportError:
        raise  # missing software is no result of the run: stop, rather than fail every setting
    except Exception as error:  # a failed run is a row, whatever went wrong in it
        row = dict(getattr(error, "row", {}))
        status = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    curve = [{"run": item.run, **point} for point in row.pop("curve", [])] if status["status"] == "ok" else []
    defaults = {"seconds": time.perf_counter() - began, "source": f"isoflop sweep {type(lever).__name__.lower()}"}
    return {**head, **defaults, **row, **status, "isoflop_version": _version()}, curve


def _finite(row: Row) -> tuple[Row, Row]:
    """The row without numbers that are none, and its status: failed where there were any."""
    row = {k: _scalar(v) for k, v in row.items()}
    kept = {k: v for k, v in row.items() if not isinstance(v, float) or math.isfinite(v)}
    if lost := [f"{k} is {row[k]}" for k in row if k not in kept]:
        return kept, {"status": "failed", "error": ", ".join(lost)}
    return kept, {"status": "ok"}


def _version() -> str:
    try:
        return importlib.metadata.version("isoflop")
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get("isoflop"), "__version__", "unknown"))


# -- files that survive a kill ------------------------------------------------------------------------------------


def _append(path: Path, rows: list[Row]) -> None:
    """Append rows as JSON lines in one write, and wait until they are on disk."""
    text = "".join(json.dumps(_plain(row), allow_nan=False) + "\n" for row in rows)
    with path.open("ab") as stream:
        stream.write(text.encode())
        stream.flush()
        os.fsync(stream.fileno())


def _plain(value: Any) -> Any:
    """A value as JSON knows it: infinity and NaN become null, numpy's and torch's scalars become Python's."""
    value = _scalar(value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _scalar(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _replace(path: Path, text: bytes) -> None:
    """Write a whole file so that it is there old or new, never half."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def _read_lines(path: Path) -> tuple[list[Row], bool]:
    """Rows of a JSON lines file, and whether its last line was cut short by a crash (it is then left out)."""
    if not path.exists():
        return [], False
    *lines, last = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
            rows[-1]["run"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, line {number}: not a JSON object with a run; remove it, then resume") from error
    return rows, last != b""


def _repair(folder: Path) -> list[Row]:
    """The committed rows, once truncated last lines and curves of uncommitted runs are cut off."""
    rows, cut = _read_lines(folder / "runs.jsonl")
    if cut:
        _rewrite(folder / "runs.jsonl", rows)
    committed = {row["run"] for row in rows}
    points, cut = _read_lines(folder / "curves" / "curves.jsonl")
    kept = [point for point in points if point["run"] in committed]
    if cut or len(kept) < len(points):
        _rewrite(folder / "curves" / "curves.jsonl", kept)
    return rows


def _rewrite(path: Path, rows: list[Row]) -> None:
    _replace(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _claim(folder: Path, lever: Lever) -> None:
    """Note in lever.json what is held fixed, or compare it with what is noted there."""
    path, now = folder / "lever.json", _held_fixed(lever)
    if not path.exists():
        if (folder / "runs.jsonl").exists():
            raise ValueError(f"{folder} has runs.jsonl but no lever.json; give another folder as out")
        _replace(path, (json.dumps(now, indent=2, sort_keys=True) + "\n").encode())
        return
    before = _defaults(lever) | json.loads(path.read_text(encoding="utf-8"))
    for key in sorted(before | now):
        if before.get(key) != now.get(key):
            raise ValueError(
                f"{folder} holds a sweep with {key}={json.dumps(before.get(key))}, and this one has "
                f"{json.dumps(now.get(key))}; give another folder as out, or set {key} back"
            )


def _held_fixed(lever: Lever) -> dict[str, Any]:
    """Name and fields of a lever as JSON values, without those that only list settings."""
    values: dict[str, Any] = {"lever": type(lever).__name__}
    if dataclasses.is_dataclass(lever):
        fields = [f.name for f in dataclasses.fields(lever) if not f.metadata.get("ladder")]
        values |= {name: getattr(lever, name) for name in fields}
    if hasattr(lever, "facts"):
        values["facts"] = lever.facts()
    return _as_json(values)


def _defaults(lever: Lever) -> dict[str, Any]:
    """Fields at their defaults: what they were in a folder that is older than they are."""
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(lever) if dataclasses.is_dataclass(lever) else ()
    fixed = [f for f in fields if not f.metadata.get("ladder")]
    values: dict[str, Any] = {f.name: f.default for f in fixed if f.default is not dataclasses.MISSING}
    values |= {f.name: f.default_factory() for f in fixed if f.default_factory is not dataclasses.MISSING}
    return _as_json(values)


def _as_json(values: dict[str, Any]) -> dict[str, Any]:
    held: dict[str, Any] = json.loads(json.dumps(_plain(values), default=str))
    return held


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder against other processes; the lock dies with its process. No lock where fcntl is missing."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is writing to {folder}; wait for it, or give another folder") from None
        yield


# -- progress -----------------------------------------------------------------------------------------------------


class _Progress:
    """One line on stderr: how many runs are done, and the time left at the rate of cost per second so far."""

    def __init__(self, todo: list[_Item], lever: Lever, *, enabled: bool, stream: TextIO | None = None) -> None:
        cost: Callable[[Setting], float] = getattr(lever, "cost", lambda setting: 1.0)
        self.enabled = enabled
        self.costs = {item.run: cost(item.setting) for item in todo} if enabled else {}
        self.total, self.count, self.began = sum(self.costs.values()), 0, time.perf_counter()
        self.left = self.total
        self.stream = stream or sys.stderr

    def summary(self, rows: list[Row]) -> None:
        """What the folder holds, and what runs saved by going on from one another."""
        if not self.enabled:
            return
        ok = [row for row in rows if row["status"] == "ok"]
        text = f"{len(ok)} runs, {len(rows) - len(ok)} failed"
        tokens, saved = (sum(row.get(key) or 0 for row in ok) for key in ("tokens", "saved_tokens"))
        if saved:
            text += f"; shared trunks saved {saved / tokens:.0%} of the tokens"
        print(("\n" if self.count and self.stream.isatty() else "") + text, file=self.stream)

    def done(self, item: _Item, row: Row) -> None:
        if not self.enabled:
            return
        self.count += 1
        self.left -= self.costs[item.run]
        spent = time.perf_counter() - self.began
        share = 1 - self.left / self.total if self.total else 1.0
        text = f"{self.count}/{len(self.costs)} runs, {row['status']}, about {_clock(spent / share - spent)} left"
        end = "" if self.stream.isatty() else "\n"
        print(("\r\033[K" if end == "" else "") + text, end=end, file=self.stream, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


# -- a check for levers of your own -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class LeverReport:
    """What `check_lever` found: whether a run repeats, and the costs at both ends of the ladder."""

    repeats: bool
    costs: dict[str, tuple[float, float]]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        return "ok" if self.ok else "; ".join(self.problems)


COSTS = ("flops", "tokens", "gen_tokens", "prompt_tokens", "usd", "joules", "seconds")


def check_lever(lever: Lever, *, dear: int = 1, seed: int = 0) -> LeverReport:
    """Whether a lever keeps the contract: its cheapest setting repeats under one seed, and cost goes up the ladder.

    dear: index in the ladder of the second setting to run. Runs the cheapest setting twice and that one once.
    """
    ladder = [{k: v for k, v in s.items() if k != "repeats"} for s in lever.ladder()]
    if len(ladder) < 2:
        raise ValueError(f"{type(lever).__name__}.ladder() gives {len(ladder)} settings; a check needs two")
    one, two, high = (lever.run(setting, seed=seed) for setting in (ladder[0], ladder[0], ladder[dear]))
    measured = {key for key in one if key.endswith("seconds") or key.endswith("per_second")}
    differing = sorted(k for k in one.keys() | two.keys() if k not in measured and one.get(k) != two.get(k))
    costs = {key: (float(one[key]), float(high[key])) for key in COSTS if one.get(key) is not None and key in high}
    counted = {key: pair for key, pair in costs.items() if key != "seconds"} or costs
    problems = [f"{key} differs between two runs of seed {seed}" for key in differing]
    problems += [] if lever.axis in one else [f"the row has no axis column {lever.axis!r}"]
    problems += [] if costs else [f"the row has no cost column (one of {', '.join(COSTS)})"]
    if counted and not any(low < up for low, up in counted.values()):
        problems.append(f"no cost goes up the ladder: {counted}")
    return LeverReport(repeats=not differing, costs=costs, problems=tuple(problems))
