"""The `.wandb` file of a Weights & Biases run, record by record, read without the wandb package.

Format: a 7-byte header ":W&B" 0xBEE1 0; then LevelDB's log format in blocks of 32 KiB, each chunk a CRC-32 of type and
data, uint16 length, type (1 whole, 2 first, 3 middle, 4 last); each record a protobuf message
(wandb/proto/wandb_internal.proto: history 2, summary 3, config 5, run 17, exit 18).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isoflop._columns import RunsError, plain
from isoflop.importers._wire import Damaged, double, fields, one, signed, whole, zigzag

_BLOCK = 32768
_LONGEST = 1 << 28


class WandbLog:
    """What one `.wandb` file says: settings, rows of history, summary, name, exit code."""

    def __init__(self, path: Path) -> None:
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.rows: list[tuple[float, dict[str, Any]]] = []
        self.run = self.name = ""
        self.exit: int | None = None
        self.notes: list[str] = []
        try:
            for record in _records(path):
                self._record(record)
        except Damaged as exc:  # a run that is being written, or was killed, ends anywhere
            if not self.run:
                raise RunsError(f"{plain(path.name)} is no .wandb file that can be read: {exc}") from None
            self.notes.append(f"{path.name} ends early: {exc}; what came before it was read")

    def _record(self, record: bytes) -> None:
        for number, value in fields(record):
            if not isinstance(value, bytes):
                continue
            if number == 2:
                self._history(value)
            elif number == 3:
                _update(self.summary, value)
            elif number == 5:
                _update(self.config, value)
            elif number == 17:
                self._run(value)
            elif number == 18:
                self.exit = signed(whole(value, 1) or 0)

    def _run(self, message: bytes) -> None:
        self.run = one(message, 1).decode("utf-8", "replace") or self.run
        self.name = one(message, 8).decode("utf-8", "replace") or self.name
        _update(self.config, one(message, 4))
        _update(self.summary, one(message, 5))

    def _history(self, message: bytes) -> None:
        row: dict[str, Any] = {}
        _update(row, message)
        step = row.get("_step", whole(one(message, 2), 1))
        if isinstance(step, (int, float)):
            self.rows.append((float(step), row))


def _update(into: dict[str, Any], message: bytes) -> None:
    """Apply a record of items (field 1) to a nested dict."""
    for number, item in fields(message):
        if number == 1 and isinstance(item, bytes):
            keys, value = _item(item)
            place = into
            for key in keys[:-1]:
                inner = place.get(key)
                place[key] = place = inner if isinstance(inner, dict) else {}
            if keys:
                place[keys[-1]] = value


def _item(message: bytes) -> tuple[list[str], Any]:
    """(keys, value) of an item: key 1, nested_key 2, value_json 16; lately also boolean 4 to json 8."""
    key, nested, value = "", [], None
    for number, part in fields(message):
        if number == 1 and isinstance(part, bytes):
            key = part.decode("utf-8", "replace")
        elif number == 2 and isinstance(part, bytes):
            nested.append(part.decode("utf-8", "replace"))
        elif number in (8, 16) and isinstance(part, bytes):
            value = _json(part)
        elif number == 5 and isinstance(part, int):
            value = zigzag(part)
        elif number == 6 and isinstance(part, bytes):
            value = double(part)
        elif number == 7 and isinstance(part, bytes):
            value = part.decode("utf-8", "replace")
        elif number == 4 and isinstance(part, int):
            value = bool(part)
    return nested or [key], value


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Damaged("a value that is not JSON") from None


def _records(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            head = file.read(7)
            if head[:6] != b":W&B\xe1\xbe":
                raise Damaged("it does not begin as one")
            yield from _chunks(file, 7)
    except OSError as exc:
        raise RunsError(f"cannot read {plain(str(path))}: {exc.strerror or exc}") from exc


def _chunks(file: Any, place: int) -> Iterator[bytes]:
    held: list[bytes] = []
    while True:
        left = _BLOCK - place % _BLOCK
        if left < 7:  # the rest of a block that is too short for a chunk's head
            file.read(left)
            place += left
        head = file.read(7)
        if not head:
            return
        if len(head) < 7:
            raise Damaged("its last record is cut off")
        check, size, kind = struct.unpack("<IHB", head)
        data = file.read(size)
        if len(data) < size:
            raise Damaged("its last record is cut off")
        place += 7 + size
        if not kind or zlib.crc32(data, zlib.crc32(bytes([kind]))) != check:
            raise Damaged("the checksum of a record is wrong")
        held = [data] if kind in (1, 2) else [*held, data]
        if sum(map(len, held)) > _LONGEST:
            raise Damaged("a record that has no end")
        if kind in (1, 4):
            yield b"".join(held)
            held = []
