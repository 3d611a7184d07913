"""Records in binary logs: protobuf messages field by field, and the checksums of their frames."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache


class Damaged(Exception):
    """Bytes that are not what the format says; the text tells why."""


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field of a protobuf message: varints as int, everything else as its bytes.

    Encoding: protobuf.dev/programming-guides/encoding. Raises Damaged where the bytes are no message.
    """
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise Damaged(f"a field of type {kind}")
        if place + size > end:
            raise Damaged("a field that is cut off")
        yield key >> 3, message[place : place + size]
        place += size


def one(message: bytes, number: int) -> bytes:
    """The last field of that number as bytes, b"" where there is none or it is a number."""
    found = b""
    for n, value in fields(message):
        if n == number and isinstance(value, bytes):
            found = value
    return found


def whole(message: bytes, number: int) -> int | None:
    """The last varint field of that number."""
    found = None
    for n, value in fields(message):
        if n == number and isinstance(value, int):
            found = value
    return found


def signed(value: int) -> int:
    """A varint as the 64-bit signed number that int32 and int64 fields mean."""
    return value - (1 << 64) if value >= 1 << 63 else value


def zigzag(value: int) -> int:
    """A varint as the signed number that sint32 and sint64 fields mean."""
    return (value >> 1) ^ -(value & 1)


def double(data: bytes) -> float:
    """A fixed 8-byte field as a number. Raises Damaged for another length."""
    if len(data) != 8:
        raise Damaged("a number of another length")
    return float(struct.unpack("<d", data)[0])


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise Damaged("a number that is cut off")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), as TensorFlow's record files use it; RFC 3720, appendix B.4."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """A checksum as record files store it, so that checksums of checksums stay sound."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    table = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return tuple(table)
