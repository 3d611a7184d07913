"""Files that others wrote, opened with care: sizes bounded, links not followed, nothing in them run."""

from __future__ import annotations

import json
import math
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from isoflop._columns import RunsError, plain

JSON_LIMIT = 1 << 29
YAML_LIMIT = 1 << 24
_ENTRY_LIMIT, _ARCHIVE_LIMIT, _RATIO_LIMIT = 1 << 28, 1 << 34, 2000
_DEPTH, _FILES, _KEYS = 8, 200_000, 20_000
_ZSTANDARD = 93


def read_bytes(path: str | os.PathLike[str], *, limit: int) -> bytes:
    """The whole of a regular file. Raises RunsError where it is larger than `limit` bytes, or cannot be read."""
    try:
        with open(path, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise RunsError(f"{plain(str(path))} is no regular file")
            data = file.read(limit + 1)
    except OSError as exc:
        raise RunsError(f"cannot read {plain(str(path))}: {exc.strerror or exc}") from exc
    if len(data) > limit:
        raise RunsError(f"{plain(str(path))} is larger than {limit / 1e6:.0f} MB, the most that is read of such a file")
    return data


def head_of(path: Path, size: int) -> bytes:
    """The first bytes of a file, b"" where it cannot be read: enough to tell what it is."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""


def load_json(path: str | os.PathLike[str], *, limit: int = JSON_LIMIT) -> Any:
    """A JSON file's content. Raises RunsError where it is none."""
    return parse_json(read_bytes(path, limit=limit), Path(path).name)


def parse_json(data: bytes, name: str) -> Any:
    """JSON bytes as Python values. Raises RunsError where they are not JSON."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as exc:
        raise RunsError(f"{plain(name)} line {exc.lineno} is not JSON ({exc.msg}); is the file cut off?") from None
    except (UnicodeDecodeError, RecursionError, ValueError) as exc:
        why = {UnicodeDecodeError: "not UTF-8", RecursionError: "nested too deeply"}.get(type(exc), str(exc))
        raise RunsError(f"{plain(name)} is not JSON that can be read: {why}") from None


def load_yaml(path: str | os.PathLike[str]) -> Any:
    """A YAML file's content as plain values; a tuple is a list, any other Python object None: nothing is made of it.

    Raises RunsError where it is not YAML, ImportError where PyYAML is not there.
    """
    try:
        import yaml
    except ImportError as exc:
        raise ImportError(f"reading {Path(path).name} needs PyYAML: pip install 'isoflop[import]'") from exc

    class Loader(yaml.SafeLoader):
        """Safe, calm about tags that only Python knows, and without merges, which can grow without bound."""

        def flatten_mapping(self, node: Any) -> None:
            if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
                raise yaml.constructor.ConstructorError(None, None, "a merge key (<<), which is not read")

    def python_tag(loader: Any, suffix: str, node: Any) -> Any:
        is_list = suffix == "tuple" and isinstance(node, yaml.SequenceNode)
        return loader.construct_sequence(node, deep=True) if is_list else None

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", python_tag)
    data = read_bytes(path, limit=YAML_LIMIT)
    try:
        return yaml.load(data, Loader)  # a subclass of SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        first = " ".join(str(exc).split())[:160] or "nested too deeply"
        raise RunsError(f"{plain(Path(path).name)} is not YAML that can be read: {first}") from None


def walk(folder: Path) -> list[Path]:
    """Regular files below a folder in order of name, links not followed, hidden folders passed over."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder, followlinks=False):
        deep = len(Path(place).relative_to(folder).parts) >= _DEPTH
        folders[:] = [] if deep else sorted(n for n in folders if not n.startswith(".") and n != "__pycache__")
        paths = (Path(place, name) for name in sorted(files))
        found += [p for p in paths if not p.is_symlink() and p.is_file()]
        if len(found) > _FILES:
            raise RunsError(f"{plain(str(folder))} holds more than {_FILES} files; give a folder further down")
    return found


def flat(settings: Any, *, place: str) -> dict[str, Any]:
    """Nested settings as {"model.width": 64}; lists are left out. Raises RunsError where there are far too many."""
    out: dict[str, Any] = {}
    todo: list[tuple[str, Any, int]] = [("", settings, 0)]
    while todo:
        prefix, value, depth = todo.pop()
        if isinstance(value, Mapping) and set(value) <= {"value", "desc"} and "value" in value:
            value = value["value"]  # how W&B writes a setting
        if isinstance(value, Mapping):
            parts = [(f"{prefix}.{k}" if prefix else str(k), v, depth + 1) for k, v in value.items()]
            todo += reversed(parts) if depth < 12 else []
        elif prefix and isinstance(value, (str, int, float, bool)):
            out[prefix] = value
        if len(out) + len(todo) > _KEYS:
            raise RunsError(f"{plain(place)} has more than {_KEYS} settings, more than any run's")
    return out


def real(value: Any) -> float | None:
    """A logged value as a number: nan and infinities in any spelling too; None where it is none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if isinstance(value, str) and value.strip():
        try:
            return float(value)
        except ValueError:
            return None
    return None


# ---- archives --------------------------------------------------------------------------------------------------------


@contextmanager
def archive(path: Path) -> Iterator[Archive]:
    """A zip file whose entries were checked first. Raises RunsError where one could do harm or it is no zip file."""
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as opened:
            _check_entries(opened, path.name)
            yield Archive(path.name, opened, file)
    except zipfile.BadZipFile as exc:
        raise RunsError(f"{plain(path.name)} is no whole zip file ({exc}); copy it again") from None
    except OSError as exc:
        raise RunsError(f"cannot read {plain(str(path))}: {exc.strerror or exc}") from exc


class Archive:
    """An open, checked zip file; entries compressed with Zstandard (Inspect's) are read too."""

    def __init__(self, name: str, opened: zipfile.ZipFile, file: BinaryIO) -> None:
        self.name, self._zip, self._file = name, opened, file

    def names(self) -> list[str]:
        """Its entries."""
        return self._zip.namelist()

    def json(self, entry: str) -> Any:
        """One entry as JSON. Raises RunsError where it is not there, damaged, or not JSON."""
        place = f"{self.name}: {entry}"
        try:
            info = self._zip.getinfo(entry)
            data = self._zstandard(info) if info.compress_type == _ZSTANDARD else self._zip.read(entry)
        except KeyError:
            raise RunsError(f"{plain(self.name)} holds no {entry}") from None
        except (zipfile.BadZipFile, EOFError, struct.error, NotImplementedError) as exc:
            raise RunsError(f"{plain(place)} cannot be unpacked: {exc}") from None
        return parse_json(data, place)

    def _zstandard(self, info: zipfile.ZipInfo) -> bytes:
        """Python's zipfile knows Zstandard from 3.14 on only."""
        try:
            import zstandard
        except ImportError as exc:
            raise ImportError(f"reading {self.name} needs zstandard: pip install 'isoflop[import]'") from exc
        self._file.seek(info.header_offset)
        head = self._file.read(30)
        if head[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile("no local header where the directory says")
        self._file.seek(sum(struct.unpack("<HH", head[26:30])), os.SEEK_CUR)
        packed = self._file.read(info.compress_size)
        try:
            data = zstandard.ZstdDecompressor().stream_reader(packed).read(info.file_size + 1)
        except zstandard.ZstdError as exc:
            raise zipfile.BadZipFile(str(exc)) from None
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise zipfile.BadZipFile("its size or checksum is not what the directory says")
        return data


def _check_entries(opened: zipfile.ZipFile, name: str) -> None:
    total = 0
    for info in opened.infolist():
        parts = info.filename.replace("\\", "/").split("/")
        if info.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise RunsError(f"{plain(name)} holds an entry outside itself, {plain(info.filename)[:80]}; not read")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise RunsError(f"{plain(name)} holds a link, {plain(info.filename)[:80]}; not read")
        if info.flag_bits & 1:
            raise RunsError(f"{plain(name)} is encrypted; not read")
        total += info.file_size
        if info.file_size > _ENTRY_LIMIT or total > _ARCHIVE_LIMIT:
            raise RunsError(f"{plain(name)} unpacks to more than is read of such a file ({info.filename[:80]!r})")
        if info.file_size > 1 << 24 and info.file_size > _RATIO_LIMIT * max(info.compress_size, 1):
            raise RunsError(f"{plain(name)} is a zip bomb: {info.filename[:80]!r} shrinks {_RATIO_LIMIT}-fold")
