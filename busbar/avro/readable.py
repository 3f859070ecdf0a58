"""Records as a person reads them: instants in ISO 8601, decimals in digits, and nothing that JSON cannot say."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any

from busbar.avro.codec import decode, newest
from busbar.avro.errors import InvalidAvro
from busbar.avro.schema import Array, Map, Nullable, Primitive, Schema, Type
from busbar.avro.schema import Record as RecordType
from busbar.records import Record

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def readable_value(data: bytes | None) -> dict[str, Any] | None:
    """The value of any topic's record as plain JSON. `None` for the tombstone of a compacted topic.

    Raises:
        InvalidAvro: The data is not of any schema in the lock.
    """
    if data is None:
        return None
    name, value = decode(data)
    schema = newest(name).parsed()
    readable: dict[str, Any] = _readable(value, schema.root, schema)
    return readable


def readable_record(record: Record) -> dict[str, Any]:
    """A record with where it stands. A value that cannot be decoded is shown as it is, with the reason."""
    shown: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": instant(record.timestamp_ms),
        "key": None if record.key is None else _octets(record.key),
    }
    if record.headers:
        shown["headers"] = {name: _octets(value) for name, value in record.headers}
    try:
        return shown | {"value": readable_value(record.value)}
    except InvalidAvro as error:
        return shown | {"error": str(error), "value": _octets(record.value or b"")}


def parse_readable(name: str, shown: Mapping[str, Any]) -> dict[str, Any]:
    """A value as `encode` takes it, from the form that `readable_value` shows; the schema is the newest of the name."""
    schema = newest(name).parsed()
    value: dict[str, Any] = _parse(shown, schema.root, schema)
    return value


def instant(milliseconds: int) -> str:
    """Unix milliseconds in ISO 8601 with a `Z`; as they are where no calendar reaches."""
    try:
        moment = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return str(milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _readable(value: Any, type_: Type, schema: Schema) -> Any:
    type_ = schema.resolve(type_)
    match type_:
        case Nullable(of):
            return None if value is None else _readable(value, of, schema)
        case Primitive(logical="timestamp-millis"):
            return instant(value)
        case Primitive(logical="decimal"):
            return str(value)
        case Primitive("bytes"):
            return _octets(value)
        case Primitive("double" | "float") if not isfinite(value):
            return str(value)
        case Array(items):
            return [_readable(item, items, schema) for item in value]
        case Map(of):
            return {name: _readable(item, of, schema) for name, item in value.items()}
        case RecordType(fields=fields) if not type_.is_open:
            return {entry.name: _readable(value[entry.name], entry.type, schema) for entry in fields}
        case _:
            return value  # what a station sent, which is JSON


def _parse(shown: Any, type_: Type, schema: Schema) -> Any:
    type_ = schema.resolve(type_)
    match type_:
        case Nullable(of):
            return None if shown is None else _parse(shown, of, schema)
        case Primitive(logical="timestamp-millis") if isinstance(shown, str):
            return (datetime.fromisoformat(shown) - _EPOCH) // timedelta(milliseconds=1)
        case Primitive(logical="decimal"):
            return Decimal(shown)
        case Primitive("bytes"):
            return shown.encode() if isinstance(shown, str) else base64.b64decode(shown["base64"])
        case Array(items):
            return [_parse(item, items, schema) for item in shown]
        case Map(of):
            return {name: _parse(item, of, schema) for name, item in shown.items()}
        case RecordType(fields=fields) if not type_.is_open:
            types = {entry.name: entry.type for entry in fields}
            return {name: _parse(item, types[name], schema) if name in types else item for name, item in shown.items()}
        case _:
            return shown


def _octets(raw: bytes) -> Any:
    """Bytes as text where they are printable text, in base64 otherwise."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return _base64(raw)
    return text if text.isprintable() else _base64(raw)


def _base64(raw: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(raw).decode()}
