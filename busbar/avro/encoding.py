"""What generated encoders call for all but the commonest values."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

from busbar.avro import primitives
from busbar.avro.errors import InvalidAvro

MISSING: Final = object()
pack_present_double: Final = struct.Struct("<Bd").pack
_KNOWN_TEXTS = 1024
_KNOWN_TEXT_BYTES = 64


def refuse(path: str, expected: str, value: Any) -> Any:
    """Raise `InvalidAvro` for a value of the wrong type; the value stays out of the message, it may be a secret."""
    raise InvalidAvro(f"{path}: {type(value).__name__} is not {expected}")


def refuse_fields(path: str, value: Mapping[str, Any], known: frozenset[str], needed: frozenset[str]) -> None:
    """Raise `InvalidAvro` for a mapping with members that a closed record has no field for, or without needed ones."""
    missing = ", ".join(sorted(needed.difference(value)))
    unknown = ", ".join(sorted(map(str, set(value).difference(known))))
    raise InvalidAvro(f"{path}: unknown {unknown}" if unknown else f"{path}: missing {missing}")


def encode_extra(out: bytearray, value: Mapping[str, Any], known: frozenset[str], left: tuple[str, ...]) -> None:
    """Append the map of what an open record's fields do not hold: unknown members, and those in `left`."""
    entries = [
        primitives.encode_text(name) + primitives.encode_octets(primitives.dump_json(member))
        for name, member in value.items()
        if name not in known or name in left
    ]
    if entries:
        out += primitives.encode_long(len(entries))
        out += b"".join(entries)
    out += b"\x00"


def other_long(value: Any) -> bytes | None:
    """A long that is not small; an integral float counts as one. `None` if the field cannot hold the value."""
    if value.__class__ is float and value.is_integer():
        value = int(value)
    elif value.__class__ is not int:
        return None
    return primitives.encode_long(value) if primitives.LONG_MIN <= value <= primitives.LONG_MAX else None


def other_double(value: Any) -> bytes | None:
    """A whole number as a double. `None` if a double cannot hold the value exactly."""
    if value.__class__ is not int or primitives.nearest_double(value) != value:
        return None
    return primitives.pack_double(value)


def nearest_long(path: str, value: Any) -> bytes:
    """The long that is nearest to a number beyond 64 bits."""
    if value.__class__ is int or (value.__class__ is float and value.is_integer()):
        return primitives.encode_long(primitives.nearest_long(value))
    return bytes(refuse(path, "a whole number", value))


def nearest_double(path: str, value: Any) -> bytes:
    """The double that is nearest to a whole number."""
    if value.__class__ is not int:
        refuse(path, "a number", value)
    return primitives.pack_double(primitives.nearest_double(value))


def closed_long(path: str, value: Any, lowest: int, highest: int) -> bytes:
    """A long or int of a closed record."""
    if not isinstance(value, int) or isinstance(value, bool):
        refuse(path, "a whole number", value)
    if not lowest <= value <= highest:
        raise InvalidAvro(f"{path}: {value} is not between {lowest} and {highest}")
    return primitives.encode_long(value)


def closed_text(path: str, value: Any, known: dict[str, bytes]) -> bytes:
    """A string that is likely to come again; it is remembered while there is room."""
    if not isinstance(value, str):
        refuse(path, "a string", value)
    encoded = primitives.encode_text(value)
    if len(known) < _KNOWN_TEXTS and len(encoded) < _KNOWN_TEXT_BYTES:
        known[str(value)] = encoded
    return encoded


def closed_double(path: str, value: Any) -> float:
    """A double or float of a closed record."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        refuse(path, "a number", value)
    return float(value)
