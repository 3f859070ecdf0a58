"""The smallest parts of Avro's binary encoding, and JSON text inside it.

The generated encoders and decoders handle the common cases in line and call these functions for the others.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from decimal import Context, Decimal, Inexact, InvalidOperation, Rounded
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import orjson

from busbar.avro.errors import InvalidAvro

if TYPE_CHECKING:
    from mypy_extensions import i64

LONG_MIN: Final = -(1 << 63)
LONG_MAX: Final = (1 << 63) - 1
INT_MIN: Final = -(1 << 31)
INT_MAX: Final = (1 << 31) - 1
EXACT_DOUBLE = 1 << 53
"""Whole numbers up to this magnitude are the same as a double."""

pack_double: Final = struct.Struct("<d").pack
unpack_double: Final = struct.Struct("<d").unpack_from
pack_float: Final = struct.Struct("<f").pack
unpack_float: Final = struct.Struct("<f").unpack_from

_ONE = Decimal(1)
_MAX_DOUBLE = 1.7976931348623157e308
_LONG_DIGITS = re.compile(r"\d{19}")


def encode_varint(value: int) -> bytes:
    """An int or long: zigzag, then seven bits to the byte, the lowest first."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


VARINTS: Final = tuple(encode_varint(number) for number in range(8192))
"""The encodings of the whole numbers that lengths, counts and most fields have."""
PRESENT_VARINTS: Final = tuple(b"\x02" + encoded for encoded in VARINTS[:1024])
"""The same after the index of a union's second branch."""


INSTANTS: Final[dict[int, bytes]] = {}
"""Instants that were encoded lately; those of one event are often the same. `encode_long` fills it."""
INSTANTS_READ: Final[dict[bytes, int]] = {}
"""Instants that were decoded lately, by their six bytes. `decode_instant` fills it."""

_MEMO_SIZE: Final = 4096
_INSTANT_BYTES: Final = 6  # of Unix milliseconds from 2004 to 2039


def encode_long(value: int) -> bytes:
    """A long. Raises `InvalidAvro` outside 64 bits."""
    if 0 <= value < 8192:
        return VARINTS[value]
    known = INSTANTS.get(value)
    if known is not None:
        return known
    if not LONG_MIN <= value <= LONG_MAX:
        raise InvalidAvro("a number does not fit into 64 bits")
    encoded = encode_varint(value)
    return remember_instant(value, encoded) if len(encoded) == _INSTANT_BYTES else encoded


def remember_instant(value: int, encoded: bytes) -> bytes:
    """Remember how an instant is encoded; returns that."""
    if len(INSTANTS) >= _MEMO_SIZE:
        INSTANTS.clear()
    INSTANTS[value] = encoded
    return encoded


def encode_text(text: str) -> bytes:
    """A string of any length."""
    raw = text.encode()
    return encode_long(len(raw)) + raw


def encode_octets(raw: bytes) -> bytes:
    """Bytes of any length."""
    return encode_long(len(raw)) + raw


def decode_long(data: bytes, position: int) -> tuple[int, int]:
    """Read an int or long and return it with the position behind it. Raises `IndexError` at the end of the data."""
    byte = data[position]
    position += 1
    rest = byte & 0x7F
    shift = 7
    while byte & 0x80:
        if shift > 63:
            raise InvalidAvro(f"a number of more than ten bytes ends at byte {position}")
        byte = data[position]
        position += 1
        rest |= (byte & 0x7F) << shift
        shift += 7
    if rest >> 64:
        raise InvalidAvro(f"a number of more than 64 bits ends at byte {position}")
    return (rest >> 1) ^ -(rest & 1), position


def decode_instant(data: bytes, position: int) -> tuple[int, int]:
    """Read a long that is Unix milliseconds and return it with the position behind it."""
    value, end = decode_long(data, position)
    if end == position + _INSTANT_BYTES:
        if len(INSTANTS_READ) >= _MEMO_SIZE:
            INSTANTS_READ.clear()
        INSTANTS_READ[data[position:end]] = value
    return value, end


def decode_length(data: bytes, position: int) -> tuple[int, int]:
    """Read the length of a string or of bytes. Raises `InvalidAvro` if it is negative or leads past the data."""
    length, position = decode_long(data, position)
    if not 0 <= length <= len(data) - position:
        raise InvalidAvro(f"a length of {length} at byte {position} of {len(data)}")
    return length, position


def decode_block(data: bytes, position: int) -> tuple[int, int]:
    """Read the head of a block of an array or map: how many items follow. Raises `InvalidAvro` for too many."""
    count, position = decode_long(data, position)
    if count < 0:  # the size of the block in bytes follows, for those who skip it
        count = -count
        _, position = decode_length(data, position)
    if count > len(data) - position:  # every item takes a byte at least
        raise InvalidAvro(f"{count} items at byte {position} of {len(data)}")
    return count, position


def dump_json(value: Any) -> bytes:
    """A value as JSON text, whole numbers of any size included. Raises `InvalidAvro` for what JSON cannot say."""
    try:
        raw = orjson.dumps(value)
        if b"null" not in raw or not _has_non_finite(value):
            return raw
    except TypeError:
        pass  # whole numbers beyond 64 bits and deep nesting are left to the standard library
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidAvro(f"no JSON: {error}") from None


def load_json(text: str) -> Any:
    """The value of JSON text. Raises `InvalidAvro` if it is none."""
    try:
        if len(text) >= 19 and _LONG_DIGITS.search(text):
            return json.loads(text)  # orjson reads whole numbers beyond 64 bits as floats
        return orjson.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidAvro(f"no JSON: {error}") from None


def _has_non_finite(value: Any) -> bool:
    """Whether a float in it is infinite or not a number; orjson writes those as null."""
    if isinstance(value, float):
        return value != value or value in (float("inf"), float("-inf"))
    if isinstance(value, Mapping):
        return any(map(_has_non_finite, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_non_finite, value))


def nearest_long(value: float) -> int:
    """The 64-bit whole number that is nearest."""
    return int(max(min(value, LONG_MAX), LONG_MIN))


def nearest_double(value: int) -> float:
    """The finite double that is nearest."""
    try:
        return float(value)
    except OverflowError:
        return _MAX_DOUBLE if value > 0 else -_MAX_DOUBLE


@cache
def decimal_context(precision: int, *, strict: bool = False) -> Context:
    """A context that keeps every digit, or raises; a strict one does not take trailing zeros off either."""
    return Context(prec=precision, traps=[Inexact, InvalidOperation, *([Rounded] if strict else [])])


def encode_decimal(path: str, value: Any, scale: int, context: Context) -> bytes:
    """The unscaled two's complement of a decimal, without its length. Raises `InvalidAvro` if digits would be lost."""
    if value.__class__ is not Decimal:
        if isinstance(value, bool) or not isinstance(value, (Decimal, int)):
            raise InvalidAvro(f"{path}: {type(value).__name__} is not a Decimal")
        value = Decimal(value)
    try:
        unscaled = int(value.scaleb(scale, context).quantize(_ONE, context=context))
    except (ArithmeticError, ValueError):
        told = f"{path}: {value} does not fit into {context.prec} digits with {scale} decimal places"
        raise InvalidAvro(told) from None
    return unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)


def decode_unscaled(data: bytes, begin: i64, end: i64) -> int:
    """Read a decimal as a whole number of its smallest unit, big-endian. Raises `InvalidAvro` outside of 64 bits."""
    if end - begin > 8:
        raise InvalidAvro(f"a decimal of {end - begin} bytes at byte {begin}")
    value: i64 = -1 if begin < end and data[begin] > 127 else 0
    while begin < end:
        value = value << 8 | data[begin]
        begin += 1
    return value


def decode_decimal(raw: bytes, scale: int, context: Context) -> Decimal:
    """Read a decimal from its unscaled two's complement; the context is a strict one.

    Raises:
        InvalidAvro: It has more digits than the context allows.
    """
    if len(raw) <= context.prec:
        try:
            return Decimal(int.from_bytes(raw, "big", signed=True)).scaleb(-scale, context)
        except ArithmeticError:
            pass
    raise InvalidAvro(f"a decimal of more than {context.prec} digits")
