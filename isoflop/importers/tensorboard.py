"""TensorBoard event files, read without TensorBoard: record framing with checksums, then scalar summaries.

Framing: uint64 length, its masked CRC-32C, data, its masked CRC-32C (tensorflow/core/lib/io/record_writer.h). Messages:
event.proto (step 2, summary 5), summary.proto (value 1: tag 1, simple_value 2, tensor 8), tensor.proto.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isoflop._columns import RunsError, plain
from isoflop.importers._importer import Logged, Source, importer, series_of
from isoflop.importers._wire import Damaged, crc32c, fields, masked, one, signed

_CHECKED = 1 << 16  # bytes of data whose checksum is computed: a scalar has about fifty, larger records are media
_LONGEST = 1 << 30
_HPARAMS = "_hparams_/session_start_info"


@importer(lambda path: ".tfevents." in path.name or path.name.startswith("events.out.tfevents"))
def tensorboard(source: Source) -> Iterator[Logged]:
    """TensorBoard event files (events.out.tfevents.*): a file, or a folder of runs.

    A folder that holds event files is a run; settings are those of add_hparams.
    """
    folders: dict[Path, list[Path]] = {}
    for path in source.files:
        folders.setdefault(path.parent, []).append(path)
    runs = {folder: _Run() for folder in folders}
    for folder, paths in folders.items():
        for path in sorted(paths):
            runs[folder].read(path)
    for folder in sorted(runs):  # add_hparams writes its settings one folder below the run it belongs to
        above, run = runs.get(folder.parent), runs[folder]
        if above and run.config and not above.config and len(run.points) <= 2:
            above.config |= run.config
            above.notes += run.notes
            run.points = {}
    for folder in sorted(runs):
        run = runs[folder]
        if run.points:
            name = source.label(folder) if source.root.is_dir() else folder.name
            name = folder.name if name == "." else name
            yield Logged(name, str(folder), run.config, series=series_of(run.points), notes=tuple(run.notes))
        elif not any(r.points for r in runs.values()):
            raise RunsError(f"{plain(str(folder))}: its event files hold no scalars")


class _Run:
    def __init__(self) -> None:
        self.points: dict[str, list[tuple[float, float]]] = {}
        self.config: dict[str, Any] = {}
        self.notes: list[str] = []

    def read(self, path: Path) -> None:
        try:
            for event in _records(path):
                self._event(event)
        except Damaged as exc:
            if not self.points:
                raise RunsError(f"{plain(path.name)} is no event file that can be read: {exc}") from None
            self.notes.append(f"{path.name} ends early: {exc}; what came before it was read")

    def _event(self, event: bytes) -> None:
        step, summary = 0, b""
        for number, value in fields(event):
            if number == 2 and isinstance(value, int):
                step = signed(value)
            elif number == 5 and isinstance(value, bytes):
                summary = value
        for number, value in fields(summary):
            if number == 1 and isinstance(value, bytes):
                self._value(step, value)

    def _value(self, step: int, value: bytes) -> None:
        tag, scalar = one(value, 1).decode("utf-8", "replace"), None
        for number, part in fields(value):
            if number == 2 and isinstance(part, bytes) and len(part) == 4:
                scalar = struct.unpack("<f", part)[0]
            elif number == 8 and isinstance(part, bytes):
                scalar = _tensor(part)
        if tag == _HPARAMS:
            self.config |= _hparams(one(one(one(value, 9), 1), 2))
        elif scalar is not None:
            self.points.setdefault(tag, []).append((float(step), float(scalar)))


def _records(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while head := file.read(12):
                if len(head) < 12:
                    raise Damaged("its last record is cut off")
                size, check = struct.unpack("<QI", head)
                if masked(crc32c(head[:8])) != check or size > _LONGEST:
                    raise Damaged("the checksum of a record's length is wrong")
                data = file.read(size + 4)
                if len(data) < size + 4:
                    raise Damaged("its last record is cut off")
                data, end = data[:size], data[size:]
                if size <= _CHECKED:
                    if masked(crc32c(data)) != struct.unpack("<I", end)[0]:
                        raise Damaged("the checksum of a record is wrong")
                    yield data
    except OSError as exc:
        raise RunsError(f"cannot read {plain(str(path))}: {exc.strerror or exc}") from exc


def _tensor(message: bytes) -> float | None:
    """A tensor of one number (dtype float 1, double 2, int32 3, int64 9), or None."""
    kind, content, packed = 0, b"", {5: b"", 6: b""}
    for number, value in fields(message):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 4 and isinstance(value, bytes):
            content = value
        elif number in packed and isinstance(value, bytes):
            packed[number] = value
    form = {1: "<f", 2: "<d", 3: "<i", 9: "<q"}.get(kind)
    data = content or packed.get({1: 5, 2: 6}.get(kind, 0), b"")
    return float(struct.unpack(form, data)[0]) if form and len(data) == struct.calcsize(form) else None


def _hparams(content: bytes) -> dict[str, Any]:
    """Settings of add_hparams: HParamsPluginData.session_start_info (3), its map hparams (1) to Value (plugin_data)."""
    out: dict[str, Any] = {}
    for number, entry in fields(one(content, 3)):
        if number == 1 and isinstance(entry, bytes):
            for kind, value in fields(one(entry, 2)):
                out[one(entry, 1).decode("utf-8", "replace")] = _setting(kind, value)
    return {name: value for name, value in out.items() if value is not None}


def _setting(kind: int, value: int | bytes) -> Any:
    """google.protobuf.Value: number 2, string 3, bool 4."""
    if kind == 2 and isinstance(value, bytes):
        return struct.unpack("<d", value)[0] if len(value) == 8 else None
    if kind == 3 and isinstance(value, bytes):
        text = value.decode("utf-8", "replace")
        return text if not text.startswith(("[", "{")) else json.dumps(text)
    return bool(value) if kind == 4 else None
