"""Avro schemas as values: parsed from their JSON form, and written in one canonical form.

Busbar uses a part of Avro: records, arrays, maps, primitives and unions of null with one other type. Enumerations
are strings here, so that a station's new value is not an error. Two attributes of our own stand beside Avro's,
which other readers ignore:

- `"contentType": "application/json"` on a string: the string is JSON text, and the codec reads and writes the value;
- `"ocppName"` on a field: the JSON member's name where it is not a name in Avro.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from busbar.avro.errors import SchemaError

JSON_TEXT = {"type": "string", "contentType": "application/json"}
"""The type of a value of any shape, kept as JSON text."""

EXTRA = "extra"
"""The field of an open record that keeps what its schema has no place for, as JSON text by member name."""

_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "string", "bytes"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Primitive:
    """A primitive type, with the logical types that the codec knows."""

    name: str
    json_text: bool = False
    """A string that is JSON text."""
    logical: str | None = None
    precision: int = 0
    scale: int = 0
    """Of a decimal."""


@dataclass(frozen=True, slots=True)
class Array:
    """An array."""

    items: Type


@dataclass(frozen=True, slots=True)
class Map:
    """A map with string keys."""

    values: Type


@dataclass(frozen=True, slots=True)
class Nullable:
    """The union of null, which comes first, and one other type."""

    of: Type


@dataclass(frozen=True, slots=True)
class Reference:
    """A record that stands elsewhere in the schema, by its full name."""

    name: str


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record."""

    name: str
    type: Type
    default: Any
    """The default in its JSON form, or `NO_DEFAULT`."""
    json_name: str
    """What the payload calls it: `name` unless that is no name in Avro."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record and its fields."""

    name: str
    """The full name."""
    fields: tuple[Field, ...]

    @property
    def is_open(self) -> bool:
        """Whether it keeps unknown members: it stands for a JSON object that a station sent."""
        return any(f.name == EXTRA and f.type == Map(Primitive("string", json_text=True)) for f in self.fields)


Type = Primitive | Array | Map | Nullable | Reference | Record


class _NoDefault:
    def __repr__(self) -> str:
        return "NO_DEFAULT"


NO_DEFAULT = _NoDefault()


@dataclass(frozen=True)
class Schema:
    """A record with everything that it refers to."""

    root: Record
    records: Mapping[str, Record] = field(default_factory=dict)
    """Every record in it, by full name."""

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def canonical(self) -> str:
        """The schema as text in one form: no white space, no docs, attributes in a fixed order, full names.

        As Avro's parsing canonical form, but defaults, logical types and our own attributes stay, because readers
        and the codec depend on them.
        """
        return json.dumps(_plain(self.root), ensure_ascii=False, separators=(",", ":"))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical form, in hexadecimal digits."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    def resolve(self, type_: Type) -> Type:
        """The record that a reference stands for; any other type as it is."""
        return self.records[type_.name] if isinstance(type_, Reference) else type_


def parse_schema(source: Any, known: Mapping[str, Any] | None = None) -> Schema:
    """Read a schema from its JSON form.

    Args:
        source: A record in Avro's JSON form, as text or already read.
        known: Other schemas in JSON form by full name; one that is referred to becomes part of the result.

    Raises:
        SchemaError: It is not Avro, or outside the part of Avro that Busbar uses.
    """
    if isinstance(source, str):
        try:
            source = json.loads(source)
        except ValueError as error:
            raise SchemaError(f"not JSON: {error}") from None
    parser = _Parser(known or {})
    root = parser.type(source, "")
    if not isinstance(root, Record):
        raise SchemaError("the value of a topic is a record")
    return Schema(root, parser.records)


class _Parser:
    def __init__(self, known: Mapping[str, Any]) -> None:
        self.known = known
        self.records: dict[str, Record] = {}
        self.begun: set[str] = set()

    def type(self, source: Any, namespace: str) -> Type:
        match source:
            case str():
                return self.named(source, namespace)
            case list():
                return self.union(source, namespace)
            case {"type": "record"}:
                return self.record(source, namespace)
            case {"type": "array", "items": items}:
                return Array(self.type(items, namespace))
            case {"type": "map", "values": values}:
                return Map(self.type(values, namespace))
            case {"type": str(name)} if name in _PRIMITIVES:
                return self.primitive(source)
            case {"type": dict() | list() as inner}:
                return self.type(inner, namespace)
            case _:
                raise SchemaError(f"unsupported type {json.dumps(source)[:200]}")

    def named(self, name: str, namespace: str) -> Type:
        if name in _PRIMITIVES:
            return Primitive(name)
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        if full in self.begun:
            return Reference(full)
        if full in self.known:
            return self.type(self.known[full], full.rpartition(".")[0])
        raise SchemaError(f"unknown type {name!r}")

    def union(self, branches: list[Any], namespace: str) -> Type:
        if len(branches) != 2 or branches[0] != "null":
            raise SchemaError(f"a union is null and one other type, not {json.dumps(branches)[:200]}")
        of = self.type(branches[1], namespace)
        if isinstance(of, Nullable) or of == Primitive("null"):
            raise SchemaError("a union of null and null")
        return Nullable(of)

    def primitive(self, source: Mapping[str, Any]) -> Type:
        logical = source.get("logicalType")
        if logical == "decimal" and source["type"] == "bytes":
            precision, scale = source.get("precision"), source.get("scale", 0)
            if not isinstance(precision, int) or not isinstance(scale, int) or not 0 <= scale <= precision:
                raise SchemaError("a decimal has a precision and a scale between 0 and the precision")
            return Primitive("bytes", logical="decimal", precision=precision, scale=scale)
        json_text = source.get("contentType") == JSON_TEXT["contentType"]
        if json_text and source["type"] != "string":
            raise SchemaError("JSON text is a string")
        return Primitive(source["type"], json_text=json_text, logical=logical)

    def record(self, source: Mapping[str, Any], namespace: str) -> Type:
        name = source.get("name", "")
        namespace = name.rpartition(".")[0] or source.get("namespace", namespace)
        name = name.rpartition(".")[2]
        if not _NAME.fullmatch(name):
            raise SchemaError(f"{name!r} is not a name in Avro")
        full = f"{namespace}.{name}" if namespace else name
        if full in self.begun:
            raise SchemaError(f"{full} is defined twice")
        self.begun.add(full)
        fields = tuple(self.field(entry, namespace, full) for entry in source.get("fields", ()))
        names = [entry.name for entry in fields]
        if len(set(names)) != len(names):
            raise SchemaError(f"{full} has a field twice")
        record = Record(full, fields)
        self.records[full] = record
        return record

    def field(self, source: Mapping[str, Any], namespace: str, owner: str) -> Field:
        name = source.get("name", "")
        if not _NAME.fullmatch(name):
            raise SchemaError(f"{owner}: {name!r} is not a name in Avro")
        try:
            type_ = self.type(source["type"], namespace)
        except SchemaError as error:
            raise SchemaError(f"{owner}.{name}: {error}") from None
        if _may_be_empty(type_):
            raise SchemaError(f"{owner}.{name}: items of no bytes could be counted without end")
        default = source.get("default", NO_DEFAULT)
        if isinstance(type_, Nullable) and default not in (None, NO_DEFAULT):
            raise SchemaError(f"{owner}.{name}: the default of a union is of its first type, null")
        return Field(name, type_, default, source.get("ocppName", name))


def _may_be_empty(type_: Type) -> bool:
    """Whether it is an array or map of items that take no bytes at all."""
    match type_:
        case Array(items) | Map(items):
            return items == Primitive("null") or (isinstance(items, Record) and not items.fields)
        case _:
            return False


def _plain(type_: Type) -> Any:
    match type_:
        case Primitive(name, json_text, logical, precision, scale):
            plain: dict[str, Any] = {"type": name}
            if json_text:
                plain["contentType"] = JSON_TEXT["contentType"]
            if logical is not None:
                plain["logicalType"] = logical
            if logical == "decimal":
                plain |= {"precision": precision, "scale": scale}
            return plain if len(plain) > 1 else name
        case Array(items):
            return {"type": "array", "items": _plain(items)}
        case Map(values):
            return {"type": "map", "values": _plain(values)}
        case Nullable(of):
            return ["null", _plain(of)]
        case Reference(name):
            return name
        case Record(name, fields):
            return {"name": name, "type": "record", "fields": [_plain_field(entry) for entry in fields]}


def _plain_field(entry: Field) -> dict[str, Any]:
    plain: dict[str, Any] = {"name": entry.name, "type": _plain(entry.type)}
    if entry.default is not NO_DEFAULT:
        plain["default"] = entry.default
    if entry.json_name != entry.name:
        plain["ocppName"] = entry.json_name
    return plain
