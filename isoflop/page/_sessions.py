"""Sessions: what one browser has opened and fitted. Bounded in number, time, disk and memory."""

from __future__ import annotations

import gzip
import json
import re
import secrets
import shutil
import time
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isoflop.page._jobs import Job

FITS = 8  # kept of a session, the oldest goes first
UPLOADS = 12
_JOBS = 6
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


class Full(Exception):
    """No further session can be had at the moment."""


@dataclass
class Table:
    """A table that a session may open: its name in the page, and where it lies."""

    id: str
    name: str
    path: Path
    size: int
    uploaded: bool


@dataclass
class Fitted:
    """A fit of a session: a few facts, what the page shows of it (JSON, compressed), and where it is saved."""

    id: str
    facts: dict[str, Any]
    view: bytes = field(repr=False)
    path: Path
    asked: dict[str, Any]
    plans: dict[str, bytes] = field(default_factory=dict, repr=False)  # the last answers

    @classmethod
    def of(cls, id: str, view: dict[str, Any], path: Path, asked: dict[str, Any]) -> Fitted:
        """From what a worker found."""
        facts = {k: view[k] for k in ("title", "law", "columns", "target", "table", "fixed")}
        packed = gzip.compress(json.dumps(view | {"id": id}, allow_nan=False).encode(), 5)
        return cls(id, facts, packed, path, asked)

    @property
    def title(self) -> str:
        """The law and the table."""
        return str(self.facts["title"])


@dataclass
class Session:
    """One browser's tables, fits and jobs."""

    id: str
    folder: Path
    seen: float = field(default_factory=time.monotonic)
    uploads: dict[str, Table] = field(default_factory=dict)
    fits: dict[str, Fitted] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)  # the page's own choices, given back on reload
    made: int = 0
    answering: int = 0  # requests under way

    def number(self) -> str:
        """A new name for a fit or an upload."""
        self.made += 1
        return str(self.made)

    def add_fit(self, fitted: Fitted) -> None:
        """Keep a fit; the oldest beyond the limit is forgotten."""
        self.fits[fitted.id] = fitted
        while len(self.fits) > FITS:
            gone = self.fits.pop(next(iter(self.fits)))
            gone.path.unlink(missing_ok=True)

    def add_job(self, job: Job) -> None:
        """Keep a job; ended ones beyond the limit are forgotten."""
        self.jobs[job.id] = job
        for old in [j.id for j in self.jobs.values() if j.ended][: max(0, len(self.jobs) - _JOBS)]:
            del self.jobs[old]

    def busy(self) -> int:
        """Jobs under way."""
        return sum(not job.ended for job in self.jobs.values())

    def used(self) -> bool:
        """Whether something is being done for it."""
        return bool(self.answering or self.busy())

    def disk(self) -> int:
        """Bytes of what was uploaded."""
        return sum(t.size for t in self.uploads.values())


class Sessions:
    """All sessions: at most `most`, each forgotten after `idle` seconds without a request."""

    def __init__(self, folder: Path, *, most: int, idle: float) -> None:
        self._folder, self.most, self.idle = folder, most, idle
        self._all: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._all)

    def find(self, id: str) -> Session | None:
        """The session of a cookie, if it still lives."""
        found = self._all.get(id)
        if found is not None:
            found.seen = time.monotonic()
        return found

    def make(self) -> Session:
        """A new session; where there is no room, in place of one that never did anything. Raises Full."""
        if len(self._all) >= self.most:
            spare = min((s for s in self._all.values() if not (s.fits or s.uploads or s.used())),
                        key=lambda s: s.seen, default=None)  # fmt: skip
            if spare is None or time.monotonic() - spare.seen < min(60.0, self.idle):
                raise Full
            self.drop(spare)
        name = secrets.token_urlsafe(24)
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        self._all[name] = Session(name, folder)
        return self._all[name]

    def drop(self, session: Session) -> None:
        """Forget a session and what it uploaded."""
        self._all.pop(session.id, None)
        shutil.rmtree(session.folder, ignore_errors=True)

    def stale(self) -> list[Session]:
        """Sessions that nobody has used for long and that do nothing."""
        before = time.monotonic() - self.idle
        return [s for s in self._all.values() if s.seen < before and not s.used()]


def safe_name(name: str) -> str:
    """A file name to store an upload under: the last part of what was sent, in letters and digits of any script.

    Raises ValueError where its ending is not one that can be read.
    """
    last = re.split(r"[\\/]", name)[-1]
    stem, _, suffix = last.rpartition(".")
    if f".{suffix.lower()}" not in SUFFIXES or not stem:
        raise ValueError(f"files that end in {' '.join(SUFFIXES)} can be opened; this one does not")
    plain = re.sub(r"[^\w. -]+", "_", unicodedata.normalize("NFC", stem)).strip(" .")[:60]  # at most 240 bytes
    return f"{plain or 'runs'}.{suffix.lower()}"


def tables_in(root: Path | None, *, most: int = 500) -> dict[str, Table]:
    """The tables of a folder and of the folders in it, by their path within; of a file, that file alone."""
    if root is None:
        return {}
    if root.is_file():
        return {root.name: Table(root.name, root.name, root, root.stat().st_size, False)}
    home, found = root.resolve(), {}
    for path in sorted(p for depth in ("*", "*/*", "*/*/*") for p in root.glob(depth)):
        name = path.relative_to(root).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if path.suffix.lower() not in SUFFIXES or hidden or name.endswith((".refused.csv", "lever.json")):
            continue
        if path.is_file() and path.resolve().is_relative_to(home):
            found[name] = Table(name, name, path, path.stat().st_size, False)
        if len(found) == most:
            break
    return found
