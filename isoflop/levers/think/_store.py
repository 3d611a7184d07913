"""Every sample ever paid for, one JSON line each, on disk before it is used.

Lines are appended under a lock by a thread of the store's own, which syncs all that came in since its last sync at
once; `put` returns when the disk has them. Several processes may append to one file. A line that a killed process left
half written is cut off by the next one that appends. In memory there are 16 bytes a sample: a piece of its key, and
where its line begins.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

try:
    import orjson as _orjson
except ModuleNotFoundError as error:
    raise ImportError("the think lever needs orjson: pip install 'isoflop[think]'") from error

_HEAD, _TAIL = b'{"v":1,"key":"', b'"error":null}'
_BLOCK = 1 << 20
_MERGE = 1 << 16


class Store:
    """Samples by key. `get` looks among all lines of all processes; `put` appends. Use from one event loop."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.in_flight: dict[str, asyncio.Future[Any]] = {}  # keys that somebody in this process is paying for
        new = not self.path.exists()
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        if new:
            _sync_folder(self.path.parent)
        self._index = _Index()
        self._scanned = 0
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._busy = False  # the writer has lines, or is about to be given some
        self._queue: queue.SimpleQueue[list[tuple[bytes, asyncio.Future[None]]] | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self, key: str) -> dict[str, Any] | None:
        """The record of a key, None where there is none that ended without an error."""
        self._scan()
        at = self._index.find(int(key[:16], 16))
        if at is None:
            return None
        record = _loads(self._line(at))
        return record if record["key"] == key else None

    def __len__(self) -> int:
        self._scan()
        return len(self._index)

    async def put(self, records: Sequence[dict[str, Any]]) -> None:
        """Append records, in which "v" and "key" come first and "error" last, and wait until they are on disk."""
        loop = asyncio.get_running_loop()
        if self._writer is None:
            self._loop = loop
            self._writer = threading.Thread(target=self._write_all, daemon=True)
            self._writer.start()
        done = loop.create_future()
        self._waiting.append((b"".join(_dumps(record) + b"\n" for record in records), done))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._hand_over)  # with whatever else is put in this turn of the loop
        await done

    def _hand_over(self) -> None:
        """Give the writer all that waits: one sync serves every line that came while it was at the last one."""
        self._busy = bool(self._waiting)
        if self._waiting:
            self._queue.put(self._waiting)
            self._waiting = []

    def _settle(self, written: list[tuple[bytes, asyncio.Future[None]]], error: OSError | None) -> None:
        for _, done in written:
            if done.done():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)
        self._hand_over()

    def close(self) -> None:
        """Write what is waiting, and let go of the file."""
        self._hand_over()
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join()
            self._writer = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- reading -----------------------------------------------------------------------------------------------------

    def _scan(self) -> None:
        """Take up whole lines that were appended, by whichever process, since the last look."""
        size = os.fstat(self._file).st_size
        while self._scanned < size:
            block = os.pread(self._file, min(_BLOCK, size - self._scanned), self._scanned)
            end = block.rfind(b"\n") + 1
            if not end and len(block) == _BLOCK:
                block = self._line(self._scanned)  # a line longer than a block
                end = len(block) if block.endswith(b"\n") else 0
            if not end:
                return
            at = self._scanned
            for line in block[:end].split(b"\n")[:-1]:
                self._take_up(line, at)
                at += len(line) + 1
            self._scanned = at

    def _take_up(self, line: bytes, at: int) -> None:
        if line.startswith(_HEAD) and line.endswith(_TAIL):
            self._index.add(int(line[len(_HEAD) : len(_HEAD) + 16], 16), at)
            return
        try:
            record = _loads(line)
            key, error, version = int(record["key"][:16], 16), record["error"], record["v"]
        except (ValueError, KeyError, TypeError) as wrong:
            raise ValueError(f"{self.path}, byte {at}: not a record of a sample; remove that line") from wrong
        if version != 1:
            raise ValueError(
                f"{self.path}, byte {at}: a record of version {version}, and this isoflop reads version 1; "
                "give another store, or use the isoflop that wrote it"
            )
        if error is None:
            self._index.add(key, at)

    def _line(self, at: int) -> bytes:
        """The line that begins at a byte, its end included where it has one."""
        parts, size = [], 4096
        while True:
            part = os.pread(self._file, size, at)
            end = part.find(b"\n") + 1
            parts.append(part[: end or None])
            if end or not part:
                return b"".join(parts)
            at, size = at + len(part), min(4 * size, _BLOCK)

    # -- writing: all below runs in the store's own thread -------------------------------------------------------------

    def _write_all(self) -> None:
        while (batch := self._queue.get()) is not None:
            error: OSError | None = None
            try:
                self._append(b"".join(data for data, _ in batch))
            except OSError as caught:
                error = caught
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._settle, batch, error)

    def _append(self, data: bytes) -> None:
        if not data:
            return
        with _locked(self._file):
            self._cut_torn_line()
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)

    def _cut_torn_line(self) -> None:
        """Whoever held the lock before died in a line if the file does not end with a line's end."""
        at = os.fstat(self._file).st_size
        if not at or os.pread(self._file, 1, at - 1) == b"\n":
            return
        found = -1
        while at and found < 0:
            start = max(0, at - _BLOCK)
            found = os.pread(self._file, at - start, start).rfind(b"\n")
            at = start + found + 1
        os.ftruncate(self._file, at)


@contextmanager
def _locked(file: int) -> Iterator[None]:
    """Hold the file against other processes' appends; the lock dies with its process. None where fcntl is missing."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Index:
    """64 bits of a key -> where its line begins: sorted arrays, and a dictionary of what came since they were made."""

    def __init__(self) -> None:
        self.keys, self.places = np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
        self.fresh: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.keys) + len(self.fresh)

    def add(self, key: int, at: int) -> None:
        self.fresh[key] = at
        if len(self.fresh) >= max(_MERGE, len(self.keys) // 16):
            self._merge()

    def find(self, key: int) -> int | None:
        if (at := self.fresh.get(key)) is not None:
            return at
        if not len(self.keys):
            return None
        place = int(np.searchsorted(self.keys, np.uint64(key)))
        return int(self.places[place]) if place < len(self.keys) and int(self.keys[place]) == key else None

    def _merge(self) -> None:
        keys = np.concatenate([np.fromiter(self.fresh.keys(), np.uint64, len(self.fresh)), self.keys])
        places = np.concatenate([np.fromiter(self.fresh.values(), np.int64, len(self.fresh)), self.places])
        self.keys, first = np.unique(keys, return_index=True)
        self.places, self.fresh = places[first], {}


def _dumps(value: Any) -> bytes:
    return _orjson.dumps(value)


def _loads(text: bytes) -> Any:
    return _orjson.loads(text)
