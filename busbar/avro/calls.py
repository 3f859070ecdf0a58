"""CALLs of stations to bytes and back: the hot path of every service.

A record on an action topic is `meta` and the typed payload. The first fields of `meta` are the same for every CALL of
a connection, so they are encoded once per connection, and recognised by their bytes when they are read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from busbar.avro.codec import ENCODE_ERRORS, decode, entry_of, header_of, newest
from busbar.avro.decoders import DECODE_ERRORS, compile_decoder
from busbar.avro.encoders import compile_encoder, encode_default
from busbar.avro.errors import InvalidAvro, SchemaError
from busbar.avro.lock import LockedSchema
from busbar.avro.primitives import (
    INSTANTS_READ,
    VARINTS,
    decode_instant,
    decode_length,
    decode_long,
    encode_long,
    encode_text,
)
from busbar.avro.schema import NO_DEFAULT, Primitive, Record, Schema
from busbar.ocpp.versions import Version
from busbar.records import StationCall

CallEncoder = Callable[[bytes, int, str, int, dict[str, Any]], bytes]
"""Takes the connection's prefix, sequence, message id, receive time in Unix milliseconds and payload."""

_CONNECTION_FIELDS = ("station_id", "connection_id", "edge", "edge_partition", "ocpp_version")
_CALL_FIELDS = ("sequence", "message_id", "received_at")
_PREFIX_MEMO_SIZE = 16_384

_Prefix = tuple[str, str, str, int, Version]
_prefixes: dict[bytes, _Prefix] = {}
_Decoders = dict[bytes, Callable[[bytes], StationCall]]
_decoders: _Decoders = {}
_packed_decoders: _Decoders = {}


def meta_prefix(station_id: str, connection_id: str, edge: str, edge_partition: int, version: Version) -> bytes:
    """The encoding of what every CALL of one connection begins with; made once per connection."""
    try:
        texts = [encode_text(text) for text in (station_id, connection_id, edge)]
        return b"".join((*texts, encode_long(edge_partition), encode_text(version.value)))
    except ENCODE_ERRORS as error:
        raise InvalidAvro(f"csms.Meta: {error}") from error


@cache
def call_encoder(version: Version, action: str) -> CallEncoder:
    """The encoder of one action's topic. It raises `InvalidAvro` for a payload that the schema cannot hold.

    Raises:
        InvalidAvro: The version has no such station-to-CSMS action.
    """
    entry = newest(f"ocpp.{version.label}.{action}")
    name, header, schema = entry.name, header_of(entry), entry.parsed()
    later_meta = b"".join(encode_default(schema, field) for field in _later_fields(schema))
    encode_payload = compile_encoder(schema, _record(schema, "payload"))
    last_ms, last_raw = 0, encode_long(0)

    def encode_call(prefix: bytes, sequence: int, message_id: str, received_at_ms: int, payload: Any) -> bytes:
        nonlocal last_ms, last_raw
        out = bytearray(header)
        out += prefix
        try:
            out += VARINTS[sequence] if 0 <= sequence < 8192 else encode_long(sequence)
            raw = message_id.encode()
            size = len(raw)
            out += VARINTS[size] if size < 8192 else encode_long(size)
            out += raw
            if received_at_ms != last_ms:
                last_raw = encode_long(received_at_ms)
                last_ms = received_at_ms
            out += last_raw
            out += later_meta
            encode_payload(out, payload)
        except InvalidAvro:
            raise
        except ENCODE_ERRORS as error:
            raise InvalidAvro(f"{name}: {type(error).__name__}: {error}") from error
        return bytes(out)

    return encode_call


def decode_call(data: bytes) -> StationCall:
    """Decode a record of an action topic. The payload is the caller's own.

    Raises:
        InvalidAvro: The data is not of an action's schema.
    """
    header = data[:5]
    decoder = _decoders.get(header)
    if decoder is None:
        decoder = _decoders[header] = call_decoder(entry_of(header))
    return decoder(data)


def decode_packed_call(data: bytes) -> StationCall:
    """As `decode_call`, but for sampled values that are like some before: the payload has them as `PackedSamples`."""
    header = data[:5]
    decoder = _packed_decoders.get(header)
    if decoder is None:
        decoder = _packed_decoders[header] = call_decoder(entry_of(header), packed_samples=True)
    return decoder(data)


def call_decoder(entry: LockedSchema, *, packed_samples: bool = False) -> Callable[[bytes], StationCall]:
    name, schema = entry.name, entry.parsed()
    namespace, _, action = name.rpartition(".")
    if not namespace.startswith("ocpp."):
        raise InvalidAvro(f"{name} is not the schema of an action")
    if _later_fields(schema):
        return _call_from_fields
    decode_payload = compile_decoder(schema, record=_record(schema, "payload"), packed_samples=packed_samples)

    def decode_this_call(data: bytes) -> StationCall:
        try:
            # Short texts and a small number; if they are not, no such prefix is known.
            position = 6 + (data[5] >> 1)
            position += 1 + (data[position] >> 1)
            position += 1 + (data[position] >> 1)
            position += 1 if data[position] < 128 else 2
            position += 1 + (data[position] >> 1)
            prefix = _prefixes.get(data[5:position])
        except IndexError:
            prefix = None
        try:
            if prefix is None:
                prefix, position = _read_prefix(data)
            sequence = data[position]
            if sequence & 129:
                sequence, position = decode_long(data, position)
            else:
                sequence >>= 1
                position += 1
            size = data[position]
            if size & 129:
                size, position = decode_length(data, position)
            else:
                size >>= 1
                position += 1
            message_id = data[position : position + size].decode()
            position += size
            received_at_ms = INSTANTS_READ.get(data[position : position + 6])
            if received_at_ms is None:
                received_at_ms, position = decode_instant(data, position)
            else:
                position += 6
            payload, position = decode_payload(data, position)
        except DECODE_ERRORS as error:
            raise InvalidAvro(f"{name}: {type(error).__name__}: {error}") from error
        if position != len(data):
            raise InvalidAvro(f"{name}: {len(data)} bytes, of which {position} were expected")
        station_id, connection_id, edge, edge_partition, version = prefix
        return StationCall(
            station_id,
            connection_id,
            edge,
            edge_partition,
            version,
            sequence,
            message_id,
            received_at_ms,
            action,
            payload,
        )

    return decode_this_call


def _read_prefix(data: bytes) -> tuple[_Prefix, int]:
    """Read the fields of the connection; remembers them if they have the shape that the fast path looks for."""
    position, texts, short = 5, [], True
    for index in range(5):
        if index == 3:
            edge_partition, end = decode_long(data, position)
            short &= end <= position + 2
            position = end
            continue
        short &= data[position] < 128
        length, position = decode_length(data, position)
        texts.append(data[position : position + length].decode())
        position += length
    prefix = (texts[0], texts[1], texts[2], edge_partition, Version(texts[3]))
    if short:
        if len(_prefixes) >= _PREFIX_MEMO_SIZE:
            _prefixes.clear()
        _prefixes[data[5:position]] = prefix
    return prefix, position


def _call_from_fields(data: bytes) -> StationCall:
    """Read a CALL whose `meta` has fields that this module does not know."""
    name, value = decode(data)
    meta = value["meta"]
    return StationCall(
        station_id=meta["station_id"],
        connection_id=meta["connection_id"],
        edge=meta["edge"],
        edge_partition=meta["edge_partition"],
        version=Version(meta["ocpp_version"]),
        sequence=meta["sequence"],
        message_id=meta["message_id"],
        received_at_ms=meta["received_at"],
        action=name.rpartition(".")[2],
        payload=value["payload"],
    )


def _record(schema: Schema, field: str) -> Record:
    """The record that a field of the root holds."""
    for entry in schema.root.fields:
        type_ = schema.resolve(entry.type)
        if entry.name == field and isinstance(type_, Record):
            return type_
    raise SchemaError(f"{schema.name} has no record {field}")


def _later_fields(schema: Schema) -> tuple[Any, ...]:
    """The fields of `meta` behind those that this module knows. Raises `SchemaError` if those have changed."""
    fields = _record(schema, "meta").fields
    known = _CONNECTION_FIELDS + _CALL_FIELDS
    texts = {"station_id", "connection_id", "edge", "ocpp_version", "message_id"}
    for expected, entry in zip(known, fields, strict=False):
        kind = entry.type.name if isinstance(entry.type, Primitive) else ""
        if entry.name != expected or kind not in (("string",) if expected in texts else ("int", "long")):
            raise SchemaError("csms.Meta: its first fields are fixed, new ones go to the end")
    later = fields[len(known) :]
    if any(entry.default is NO_DEFAULT for entry in later):
        raise SchemaError("csms.Meta: a new field needs a default")
    return later
