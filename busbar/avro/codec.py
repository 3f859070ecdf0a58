"""Values to bytes and back, in the Confluent wire format: a zero, the schema's id in four bytes, Avro's encoding."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from busbar.avro.decoders import DECODE_ERRORS, Decoder, compile_decoder
from busbar.avro.encoders import Encoder, compile_encoder
from busbar.avro.errors import InvalidAvro, SchemaError
from busbar.avro.lock import LockedSchema, shipped_lock

ENCODE_ERRORS = (TypeError, ValueError, OverflowError, AttributeError, KeyError, RecursionError)
"""What an encoder raises for a value that is far from its schema."""


def encode(name: str, value: Mapping[str, Any]) -> bytes:
    """Encode a value with the newest version of a schema.

    Args:
        name: The schema's full name, such as `csms.OutboundMessage`.
        value: Its fields; those with a default may be absent. Instants are Unix milliseconds, decimals `Decimal`.

    Raises:
        InvalidAvro: The value is not of the schema.
    """
    header, encoder = encoder_of(name)
    out = bytearray(header)
    try:
        encoder(out, value)
    except InvalidAvro:
        raise
    except ENCODE_ERRORS as error:
        raise InvalidAvro(f"{name}: {type(error).__name__}: {error}") from error
    return bytes(out)


def decode(data: bytes) -> tuple[str, dict[str, Any]]:
    """Decode a record's value and return the schema's full name with it.

    Data of an older schema comes back in the shape of the newest one.

    Raises:
        InvalidAvro: The data is not of any schema in the lock.
    """
    entry, decoder = decoder_of(data[:5])
    try:
        value, end = decoder(data, 5)
    except DECODE_ERRORS as error:
        raise InvalidAvro(f"{entry.name}: {type(error).__name__}: {error}") from error
    if end != len(data):
        raise InvalidAvro(f"{entry.name}: {len(data)} bytes, of which {end} were expected")
    return entry.name, value


def entry_of(header: bytes) -> LockedSchema:
    """The schema that the first five bytes of a record name. Raises `InvalidAvro` if it is in no lock."""
    if len(header) < 5 or header[0]:
        raise InvalidAvro("not in the Confluent wire format: a zero and four bytes of schema id come first")
    number = int.from_bytes(header[1:5], "big")
    entry = shipped_lock().by_id.get(number)
    if entry is None:
        raise InvalidAvro(f"schema id {number} is not in the lock")
    return entry


def header_of(entry: LockedSchema) -> bytes:
    """The first five bytes of every record of a schema."""
    return b"\x00" + entry.id.to_bytes(4, "big")


def newest(name: str) -> LockedSchema:
    """The newest version of a schema. Raises `InvalidAvro` for an unknown name."""
    try:
        return shipped_lock().latest(name)
    except KeyError:
        raise InvalidAvro(f"no schema is called {name}") from None


@cache
def encoder_of(name: str) -> tuple[bytes, Encoder]:
    entry = newest(name)
    return header_of(entry), compile_encoder(entry.parsed())


@cache
def decoder_of(header: bytes) -> tuple[LockedSchema, Decoder]:
    entry = entry_of(header)
    try:
        return entry, compile_decoder(entry.parsed(), newest(entry.name).parsed())
    except SchemaError as error:
        raise InvalidAvro(f"schema id {entry.id}: {error}") from error
