"""What an importer is: one function from a source to the runs that a tool recorded there.

    @importer(files=lambda path: path.name == "trainer_state.json")
    def trainer_state(source): yield Logged(...)

It says what the tool wrote, in the tool's own names; `_mapping.py` gives these isoflop's names and counts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from isoflop import _find
from isoflop._columns import Array, RunsError, plain, show
from isoflop.importers._safe import real, walk


@dataclass(frozen=True)
class Series:
    """One metric of a run: where it was logged (its step, or the tool's own count of rows) and what."""

    at: Array
    values: Array


@dataclass(frozen=True)
class Logged:
    """One run as its tool recorded it."""

    run: str
    place: str  # the file or address, for messages
    config: Mapping[str, Any] = field(default_factory=dict)  # settings, flat
    summary: Mapping[str, Any] = field(default_factory=dict)  # final values
    series: Mapping[str, Series] = field(default_factory=dict)
    status: str = ""
    counts_rows: bool = False  # `at` counts logged rows, which need not be optimiser steps
    names: Mapping[str, str] = field(default_factory=dict)  # {our column: their name} that the tool fixes
    row: Mapping[str, Any] = field(default_factory=dict)  # columns that are ours already, as (value, what it was)
    model: Mapping[str, Any] | None = None  # a Hugging Face config.json
    samples: tuple[Mapping[str, Any], ...] = ()  # rows of single answers, as replay reads them
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """What is imported: a path, or an address; its files; and the pattern for plain logs."""

    text: str
    files: tuple[Path, ...] = ()
    pattern: str | None = None

    @property
    def root(self) -> Path:
        """The path that was given, from the top: every folder has a name."""
        return _absolute(self.text)

    def label(self, path: Path) -> str:
        """A run's name from where its file lies below the root."""
        if path == self.root:
            return path.name
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name


@dataclass(frozen=True)
class Importer:
    """An importer with what it recognises: `files` says of one path whether it is the tool's, `address` of a text."""

    name: str
    function: Callable[[Source], Iterable[Logged]]
    files: Callable[[Path], bool]
    address: Callable[[str], bool]

    def __call__(self, source: Source) -> Iterator[Logged]:
        """The runs. Raises RunsError where a file is not what it should be."""
        try:
            yield from self.function(source)
        except (AttributeError, KeyError, IndexError, TypeError, OverflowError, RecursionError) as exc:
            what = f"{type(exc).__name__}: {exc}"
            raise RunsError(f"{plain(source.text)} is not laid out as {self.name} writes it ({what[:160]})") from exc

    @property
    def formula(self) -> str:
        """The first line of the docstring."""
        return (self.function.__doc__ or "").strip().split("\n", 1)[0]


def importer(
    files: Callable[[Path], bool] = lambda path: False, *, address: Callable[[str], bool] = lambda text: False
) -> Callable[[Callable[[Source], Iterable[Logged]]], Importer]:
    """Make an importer of a function."""

    def decorate(function: Callable[[Source], Iterable[Logged]]) -> Importer:
        return Importer(function.__name__, function, files, address)

    return decorate


def get_importer(kind: str) -> Importer:
    """An importer by name, or by "file.py:name". Raises LookupError where there is none."""
    found = _find.get("importers", kind)
    if not isinstance(found, Importer):
        raise LookupError(f"{kind!r} is not an importer; write one with @importer")
    return found


# The first that fits wins: folders of a trainer often hold several of these, the most telling first.
_ORDER = ("wandb", "mlflow", "lm_eval", "inspect", "trainer_state", "lightning", "tensorboard", "log")


def opened(text: str, kind: str | None, pattern: str | None) -> tuple[Importer, Source, list[str]]:
    """The importer for a source, the source with its files, and other kinds that would fit too.

    Raises RunsError where the source is not there or no kind fits.
    """
    names = _find.names("importers")
    ranked = sorted(names, key=lambda n: _ORDER.index(n) if n in _ORDER else len(_ORDER))
    if kind is None and pattern is not None:
        kind = "log"
    choice = [get_importer(n) for n in ([kind] if kind else ranked)]
    for one in choice:
        if one.address(text):
            return one, Source(text, (), pattern), []
    paths = _paths(text)
    given = paths == [_absolute(text)] and bool(kind)  # one file, and told what it is
    fitting = [(one, chosen) for one in choice if (chosen := paths if given else [p for p in paths if one.files(p)])]
    if not fitting:
        if kind:
            raise RunsError(f"{plain(text)} holds nothing that --kind {choice[0].name} reads: {choice[0].formula}")
        raise RunsError(f"{plain(text)} is of no kind that is recognised; give --kind, one of {', '.join(ranked)}")
    (first, chosen), *others = fitting
    return first, Source(text, tuple(chosen), pattern), [one.name for one, _ in others if one.name != "log"]


def _absolute(text: str) -> Path:
    return Path(os.path.abspath(Path(text).expanduser()))


def _paths(text: str) -> list[Path]:
    try:
        path = _absolute(text)
        if path.is_dir():
            return walk(path)
        if path.exists():
            return [path]
    except (OSError, ValueError, RuntimeError) as exc:  # RuntimeError: of a home that is not there
        raise RunsError(f"cannot read {show(text, 200)}: {getattr(exc, 'strerror', None) or exc}") from exc
    raise RunsError(f"no file or folder {plain(text) if len(text) < 200 else show(text)}")


def series_of(points: Mapping[str, list[tuple[float, float]]]) -> dict[str, Series]:
    """Series from (where, value) pairs, in order of where; of two at one place the later stays."""
    out = {}
    for name, pairs in points.items():
        table = np.array(list(dict(pairs).items()), dtype=np.float64).reshape(-1, 2)
        order = np.argsort(table[:, 0], kind="stable")
        out[name] = Series(table[order, 0], table[order, 1])
    return out


def points_of(rows: Iterable[tuple[float, Mapping[str, Any]]]) -> dict[str, list[tuple[float, float]]]:
    """Points by metric from rows of (where, {metric: value}); values that are no numbers are passed over."""
    points: dict[str, list[tuple[float, float]]] = {}
    for at, row in rows:
        for name, value in row.items():
            number = real(value)
            if number is not None:
                points.setdefault(str(name), []).append((at, number))
    return points


def beside(path: Path, *names: str) -> Path | None:
    """The first of these files that lies beside `path` and is no link."""
    for name in names:
        other = path.with_name(name)
        if other.is_file() and not other.is_symlink():
            return other
    return None
