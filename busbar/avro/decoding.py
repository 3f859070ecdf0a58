"""What generated decoders call for all but the commonest bytes."""

from __future__ import annotations

from typing import Any, NoReturn

from busbar.avro import primitives
from busbar.avro.errors import InvalidAvro


def bad_branch(index: int, position: int) -> NoReturn:
    """Refuse the index of a union that is neither null nor the other type."""
    raise InvalidAvro(f"byte {position - 1}: {index} is no branch of a union of two")


def bad_boolean(value: int, position: int) -> NoReturn:
    """Refuse a boolean that is neither 0 nor 1."""
    raise InvalidAvro(f"byte {position - 1}: {value} is no boolean")


def not_null(value: Any) -> Any:
    """A value that an older schema allowed to be null. Raises `InvalidAvro` where it is."""
    if value is None:
        raise InvalidAvro("null, which the newer schema does not allow")
    return value


def decode_extra(data: bytes, position: int, value: dict[str, Any]) -> int:
    """Read the map of an open record's other members into its value; returns the position behind it."""
    count, position = primitives.decode_block(data, position)
    while count:
        for _ in range(count):
            length, position = primitives.decode_length(data, position)
            name = data[position : position + length].decode()
            length, position = primitives.decode_length(data, position + length)
            value[name] = primitives.load_json(data[position : position + length].decode())
            position += length
        count, position = primitives.decode_block(data, position)
    return position
