"""Plain logs, by a pattern with named groups."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isoflop._columns import RunsError, number, plain, show
from isoflop.importers import _log_child
from isoflop.importers._importer import Logged, Source, importer, points_of, series_of

SECONDS = 20.0  # a file, before its pattern is given up: a bad one can take longer than any file is worth


@importer(lambda path: path.suffix in (".log", ".out", ".txt"))
def log(source: Source) -> Iterator[Logged]:
    """Plain text logs, a run a file, with --pattern '(?P<step>\\d+).*loss=(?P<loss>\\S+)'.

    Each line that the pattern finds is a row of the history; groups are metrics under their own names, `step` says
    where (the number of the match, where there is no such group). A group `run` tells several runs in one file apart.
    """
    if not source.pattern:
        raise RunsError(r"a plain log needs --pattern with named groups, as in '(?P<step>\d+) loss=(?P<loss>\S+)'")
    groups = _groups(source.pattern)
    for path in source.files:
        yield from _runs(path, source.label(path), source.pattern, groups)


def _groups(pattern: str) -> list[str]:
    try:
        groups = list(re.compile(pattern).groupindex)
    except (re.error, RecursionError, OverflowError) as exc:
        raise RunsError(f"--pattern {show(pattern)} is no regular expression: {exc}") from None
    if not set(groups) - {"step", "run"}:
        raise RunsError(f"--pattern {show(pattern)} names no group for a metric, as (?P<loss>\\S+) would")
    return groups


def _runs(path: Path, label: str, pattern: str, groups: list[str]) -> Iterator[Logged]:
    found = _search(path, pattern)
    if not found["rows"]:
        raise RunsError(f"{plain(path.name)}: --pattern {show(pattern)} matches none of {found['lines']} lines")
    long = found["long"]
    notes = [f"{path.name}: {long} lines of over {_log_child.LONGEST} characters passed over"] if long else []
    runs: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for count, row in enumerate(found["rows"]):
        values = {k: number(v) if v is not None else None for k, v in zip(groups, row, strict=True) if k != "run"}
        step = values.pop("step", float(count)) if "step" in groups else float(count)
        if step is None or step != step:
            raise RunsError(f"{plain(path.name)}: the group step matched {show(row[groups.index('step')])}, no number")
        name = str(row[groups.index("run")]) if "run" in groups else Path(label).with_suffix("").as_posix()
        runs.setdefault(name, []).append((float(step), values))
    for name, rows in runs.items():
        counted = "step" not in groups
        yield Logged(name, str(path), series=series_of(points_of(rows)), counts_rows=counted, notes=tuple(notes))


def _search(path: Path, pattern: str) -> dict[str, Any]:
    """What the pattern finds, searched by a process of its own, so that one that takes for ever can be ended."""
    command = [sys.executable, "-I", _log_child.__file__, str(path.resolve())]
    try:
        done = subprocess.run(command, input=pattern.encode(), capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        why = "nested repeats such as (a+)+ take for ever on lines that nearly match"
        raise RunsError(f"--pattern {show(pattern)} took over {SECONDS:.0f} s on {plain(path.name)}: {why}") from None
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no reason given"]
        raise RunsError(f"cannot read {plain(path.name)}: {plain(last[0])[:160]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
