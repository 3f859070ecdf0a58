"""Arrays to PostgreSQL's binary form and back, a column at a time.

asyncpg looks at every element of an array in order to find out whether it is an array itself, which for what a batch
stores takes three times as long as encoding it. Here an array has one dimension, and what all elements have in common
is done once: lengths and bytes of numbers are put in place with strides, texts that come again are remembered.
What goes over the wire is the same byte for byte. Only connections that `install` was called on are concerned.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any

from asyncpg.pgproto.pgproto import UUID

_HEAD = struct.Struct(">5i")
"""Dimensions (1), no nulls (0: the server looks for itself), the element's type, its count, the first index (1)."""
_EMPTY = struct.Struct(">3i")
_LENGTH = struct.Struct(">i")
_NULL = b"\xff\xff\xff\xff"
_SWAPPED = sys.byteorder == "little"

BOOL, BYTEA, INT8, INT4, TEXT, FLOAT8, UUIDS = 16, 17, 20, 23, 25, 701, 2950
"""The types of elements: their OIDs in every PostgreSQL (`pg_type.dat`)."""


class _Texts(dict[str | None, bytes]):
    """Texts with their length before them; those that are short are remembered, as many as there is room for."""

    _ROOM = 32_768
    _SHORT = 24

    def __missing__(self, text: str | None) -> bytes:
        if text is None:
            return _NULL
        raw = text.encode()
        found = _LENGTH.pack(len(raw)) + raw
        if len(raw) <= self._SHORT:
            if len(self) >= self._ROOM:
                self.clear()
            self[text] = found
        return found


_texts = _Texts()


def encode_texts(values: Sequence[str | None]) -> bytes:
    """A `text[]`."""
    return _array(TEXT, len(values), b"".join(map(_texts.__getitem__, values)))


def encode_bytes(values: Sequence[bytes | None]) -> bytes:
    """A `bytea[]`."""
    pack, parts = _LENGTH.pack, []
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts.append(pack(len(value)))
            parts.append(value)
    return _array(BYTEA, len(values), b"".join(parts))


def encode_int8s(values: Sequence[int | None]) -> bytes:
    """A `bigint[]`."""
    return _numbers(INT8, "q", 8, values)


def encode_int4s(values: Sequence[int | None]) -> bytes:
    """An `int[]`."""
    return _numbers(INT4, "i", 4, values)


def encode_doubles(values: Sequence[float | None]) -> bytes:
    """A `double precision[]`."""
    return _numbers(FLOAT8, "d", 8, values)


def encode_bools(values: Sequence[bool | None]) -> bytes:
    """A `boolean[]`."""
    try:
        raw = _bool_bytes(values)
    except TypeError:
        parts = [_NULL if value is None else b"\0\0\0\1" + _bool_bytes((value,)) for value in values]
        return _array(BOOL, len(values), b"".join(parts))
    return _array(BOOL, len(values), _strided(raw, 1))


def _bool_bytes(values: Sequence[Any]) -> bytes:
    raw = bytes(values)
    if raw.strip(b"\0\1"):
        raise ValueError("an element is no boolean")
    return raw


def encode_uuids(values: Sequence[Any]) -> bytes:
    """A `uuid[]` of UUIDs, or of their texts in the usual form."""
    try:
        raw = _uuid_bytes(values)
    except TypeError:  # nulls, or no texts
        parts = [_NULL if value is None else b"\0\0\0\x10" + _uuid_bytes([str(value)]) for value in values]
        return _array(UUIDS, len(values), b"".join(parts))
    return _array(UUIDS, len(values), _strided(raw, 16))


def _uuid_bytes(texts: Sequence[str]) -> bytes:
    raw = bytes.fromhex("".join(texts).replace("-", ""))
    if len(raw) != 16 * len(texts) or set(map(len, texts)) - {36}:
        raise ValueError("an element is no UUID")
    return raw


def _numbers(oid: int, code: str, size: int, values: Sequence[Any]) -> bytes:
    try:
        raw = struct.pack(f"{len(values)}{code}", *values)  # in the machine's order: much faster than in any other
    except struct.error:
        if None not in values:
            raise
        pack = struct.Struct(f">i{code}").pack
        parts = [_NULL if value is None else pack(size, value) for value in values]
        return _array(oid, len(values), b"".join(parts))
    return _array(oid, len(values), _strided(raw, size, swapped=_SWAPPED))


def _strided(raw: bytes, size: int, *, swapped: bool = False) -> bytearray:
    """Elements of `size` bytes each, with their length before each of them.

    Args:
        swapped: Whether the last byte of each comes first.
    """
    stride = size + 4
    count = len(raw) // size
    out = bytearray(stride * count)
    out[3::stride] = bytes((size,)) * count
    for index in range(size):
        out[4 + index :: stride] = raw[size - 1 - index if swapped else index :: size]
    return out


def _array(oid: int, count: int, elements: bytes | bytearray) -> bytes:
    if count == 0:
        return _EMPTY.pack(0, 0, oid)
    return _HEAD.pack(1, 0, oid, count, 1) + elements


def decoder(read: Callable[[bytes], Any]) -> Callable[[bytes], list[Any]]:
    """The decoder of arrays whose elements `read` reads."""

    def decode(data: bytes) -> list[Any]:
        dimensions, _, _ = _EMPTY.unpack_from(data)
        if dimensions == 0:
            return []
        if dimensions != 1:
            raise ValueError(f"an array of {dimensions} dimensions, where one is expected")
        count, position = _LENGTH.unpack_from(data, 12)[0], _HEAD.size
        found: list[Any] = []
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(data, position)
            position += 4
            if length < 0:
                found.append(None)
            else:
                found.append(read(data[position : position + length]))
                position += length
        return found

    return decode


def _reader(form: str) -> Callable[[bytes], Any]:
    unpack = struct.Struct(form).unpack
    return lambda raw: unpack(raw)[0]


_ARRAYS: tuple[tuple[int, str, Callable[[Any], bytes], Callable[[bytes], Any]], ...] = (
    (1000, "_bool", encode_bools, _reader(">?")),
    (1001, "_bytea", encode_bytes, bytes),
    (1007, "_int4", encode_int4s, _reader(">i")),
    (1009, "_text", encode_texts, bytes.decode),
    (1016, "_int8", encode_int8s, _reader(">q")),
    (1022, "_float8", encode_doubles, _reader(">d")),
    (2951, "_uuid", encode_uuids, UUID),
)
"""The OID and the name of each array type, how it is written, and how an element is read."""


def install(connection: Any) -> None:
    """Have an asyncpg connection use these codecs; before its first statement.

    asyncpg's `set_type_codec` is for scalar types alone, so this is what it calls itself.
    """
    settings = connection._protocol.get_settings()
    for oid, name, encode, read in _ARRAYS:
        settings.add_python_codec(oid, name, "pg_catalog", [], "scalar", encode, decoder(read), "binary")
