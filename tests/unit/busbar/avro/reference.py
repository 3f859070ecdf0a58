"""What the tests hold the generated code against: fastavro, and a plain account of what goes where.

`datum` says field by field how a value is laid out in Avro, slowly and with no code of the encoders; fastavro turns
that into bytes.
"""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import fastavro
from hypothesis import strategies as st

from busbar.avro.lock import shipped_lock
from busbar.avro.primitives import dump_json
from busbar.avro.schema import Array, Map, Nullable, Primitive, Record, Schema, Type
from busbar.topics import Topic, all_topics

LONGEST = 2**63 - 1
ACTION_TOPICS = [topic for topic in all_topics().values() if topic.action is not None]
OTHER_TOPICS = [topic for topic in all_topics().values() if topic.action is None]

_fastavro_schemas: dict[int, Any] = {}


def schema_of(topic: Topic | str) -> Schema:
    """The newest schema of a topic, or of a full name."""
    return shipped_lock().latest(topic if isinstance(topic, str) else topic.schema).parsed()


def payload_record(schema: Schema) -> Record:
    """The record of an action's payload."""
    payload = next(entry.type for entry in schema.root.fields if entry.name == "payload")
    assert isinstance(payload, Record)
    return payload


def fastavro_schema(name: str) -> Any:
    """A schema of the lock as fastavro wants it; instants stay numbers."""
    entry = shipped_lock().latest(name)
    if entry.id not in _fastavro_schemas:
        plain = json.loads(entry.schema.replace(',"logicalType":"timestamp-millis"', ""))
        _fastavro_schemas[entry.id] = fastavro.parse_schema(plain)
    return _fastavro_schemas[entry.id]


def fastavro_encode(name: str, value: Any) -> bytes:
    """Wire format by fastavro; the value is a datum."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro_schema(name), value, strict=True)
    return b"\x00" + shipped_lock().latest(name).id.to_bytes(4, "big") + out.getvalue()


def fastavro_decode(name: str, data: bytes) -> Any:
    """The datum by fastavro, which has to read every byte."""
    body = io.BytesIO(data[5:])
    value = fastavro.schemaless_reader(body, fastavro_schema(name), None)
    assert not body.read()
    return value


# -- where the members of a value go --------------------------------------------------------------------------


def datum(value: Any, type_: Type, schema: Schema) -> Any:
    """A value in the form that fastavro writes."""
    type_ = schema.resolve(type_)
    match type_:
        case Nullable(of):
            return None if value is None else datum(value, of, schema)
        case Primitive("string", json_text=True):
            return dump_json(value).decode()
        case Primitive("long"):
            return int(min(max(value, -LONGEST - 1), LONGEST))
        case Primitive("double"):
            return _nearest_double(value)
        case Array(items):
            return [datum(item, items, schema) for item in value]
        case Map(of):
            return {name: datum(item, of, schema) for name, item in value.items()}
        case Record() if type_.is_open:
            return _open_datum(value, type_, schema)
        case Record(fields=fields):
            return {entry.name: datum(value[entry.name], entry.type, schema) for entry in fields}
        case _:
            return value


def _open_datum(value: dict[str, Any], record: Record, schema: Schema) -> dict[str, Any]:
    result: dict[str, Any] = {}
    exact = set()
    for entry in record.fields[:-1]:
        optional = isinstance(entry.type, Nullable)
        type_ = entry.type.of if isinstance(entry.type, Nullable) else entry.type
        result[entry.name] = None
        if entry.json_name not in value:
            continue
        member = value[entry.json_name]
        if _is_json(type_):
            result[entry.name] = datum(member, type_, schema)
            exact.add(entry.json_name)
            continue
        if _fits(member, type_, schema, exactly=optional and isinstance(type_, Primitive)):
            result[entry.name] = datum(member, type_, schema)
        if _fits(member, type_, schema, exactly=True):
            exact.add(entry.json_name)
    result["extra"] = {name: dump_json(member).decode() for name, member in value.items() if name not in exact}
    return result


def _is_json(type_: Type) -> bool:
    return isinstance(type_, Primitive) and type_.json_text


def _fits(value: Any, type_: Type, schema: Schema, *, exactly: bool) -> bool:
    match schema.resolve(type_):
        case Primitive(json_text=True):
            return True
        case Primitive("string"):
            return isinstance(value, str)
        case Primitive("boolean"):
            return isinstance(value, bool)
        case Primitive("long"):
            whole = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1
            return whole and (not exactly or -LONGEST - 1 <= value <= LONGEST)
        case Primitive("double"):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            return number and (not exactly or _nearest_double(value) == value)
        case Array(items):
            item = schema.resolve(items)
            plain = isinstance(item, Primitive)
            return isinstance(value, list) and (
                not plain or all(_fits(entry, item, schema, exactly=exactly) for entry in value)
            )
        case _:
            return isinstance(value, dict)


def _nearest_double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return 1.7976931348623157e308 if value > 0 else -1.7976931348623157e308


# -- strategies -----------------------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.sampled_from(["", "Sample.Periodic", "CS-1", "2026-05-04T10:11:12.345Z", "é" * 40, "x" * 9000]),
    st.text(max_size=8),
)
LONGS = st.one_of(
    st.integers(-3, 9000),
    st.sampled_from([63, 64, -64, -65, 8191, 8192, 2**31, 1_777_889_472_345, LONGEST, -LONGEST - 1]),
    st.integers(-LONGEST - 1, LONGEST),
)
DOUBLES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-1000, 1000), st.sampled_from([-0.0, 1e300, 2**53])
)
BEYOND = st.sampled_from([2**63, -(2**63) - 1, 2**64, 10**25, 2**53 + 1, 10**400, -(10**400), 1e19])
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), DOUBLES, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


def values(type_: Type, schema: Schema, *, wild: bool = False) -> st.SearchStrategy[Any]:
    """Values of a type; `wild` ones have members that the schema does not know or cannot hold."""
    return _Strategies(schema, wild).of(type_)


class _Strategies:
    def __init__(self, schema: Schema, wild: bool) -> None:
        self.schema = schema
        self.wild = wild

    def of(self, type_: Type) -> st.SearchStrategy[Any]:
        type_ = self.schema.resolve(type_)
        match type_:
            case Nullable(of):
                return st.one_of(st.none(), self.of(of))
            case Primitive("string", json_text=True):
                return JSON
            case Primitive("string"):
                return TEXTS
            case Primitive("long"):
                return st.one_of(LONGS, BEYOND, st.just(5.0)) if self.wild else LONGS
            case Primitive("int"):
                return st.integers(-(2**31), 2**31 - 1)
            case Primitive("double" | "float"):
                return st.one_of(DOUBLES, BEYOND) if self.wild else DOUBLES
            case Primitive("boolean"):
                return st.booleans()
            case Primitive("bytes", logical="decimal", precision=precision, scale=scale):
                return _decimals(precision, scale)
            case Primitive("bytes"):
                return st.binary(max_size=80)
            case Array(items):
                return st.lists(self.of(items), max_size=3)
            case Map(of):
                return st.dictionaries(TEXTS, self.of(of), max_size=3)
            case Record() if type_.is_open:
                return self.open_record(type_)
            case Record(fields=fields):
                return st.fixed_dictionaries({entry.name: self.of(entry.type) for entry in fields})
        raise AssertionError(type_)

    def open_record(self, record: Record) -> st.SearchStrategy[dict[str, Any]]:
        required, optional = {}, {}
        for entry in record.fields[:-1]:
            if isinstance(entry.type, Nullable):
                optional[entry.json_name] = self.of(entry.type.of)
                if self.wild and isinstance(entry.type.of, Primitive):
                    optional[entry.json_name] |= st.sampled_from([None, [], {}, "x", True, 1, 0.5])
            else:
                required[entry.json_name] = self.of(entry.type)
        known = st.fixed_dictionaries(required, optional=optional)
        if not self.wild:
            return known
        unknown = st.dictionaries(st.sampled_from(["vendorX", "extra", "ü"]), JSON, max_size=1)
        return st.builds(lambda one, other: {**other, **one}, known, unknown)


def _decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    whole = st.one_of(
        st.integers(-(10**precision) + 1, 10**precision - 1),
        st.sampled_from([0, 127, 128, -127, -128, -129, 255, -256]),
    )
    return whole.map(lambda number: Decimal(number).scaleb(-scale))
