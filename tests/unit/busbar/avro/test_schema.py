"""Reading Avro schemas, and the form in which the lock keeps them."""

from __future__ import annotations

import json
from typing import Any

import fastavro
import pytest

from busbar.avro import SchemaError
from busbar.avro.schema import parse_schema
from tests.unit.busbar.avro.reference import ACTION_TOPICS, OTHER_TOPICS, schema_of


def record(*fields: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    return {"type": "record", "name": "T", "fields": list(fields), **attributes}


def field(type_: Any, **attributes: Any) -> dict[str, Any]:
    return {"name": "a", "type": type_, **attributes}


def test_the_canonical_form_is_the_schema_again_and_fastavro_reads_it() -> None:
    for topic in [*ACTION_TOPICS, *OTHER_TOPICS]:
        schema = schema_of(topic)
        assert parse_schema(schema.canonical) == schema
        fastavro.parse_schema(json.loads(schema.canonical))


def test_words_about_a_schema_do_not_change_it() -> None:
    plain = parse_schema(record(field("long", default=0)))
    told = parse_schema(record(field({"type": "long"}, default=0, doc="A number."), doc="A thing.", aliases=["U"]))
    assert told.fingerprint == plain.fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        field("long"),
        field("long", default=1),
        field("int", default=0),
        field({"type": "long", "logicalType": "timestamp-millis"}, default=0),
        field("long", default=0, ocppName="1a"),
    ],
)
def test_what_readers_depend_on_changes_the_fingerprint(changed: dict[str, Any]) -> None:
    assert parse_schema(record(changed)).fingerprint != parse_schema(record(field("long", default=0))).fingerprint


def test_names_are_looked_up_in_the_namespace_around_them_and_among_the_known() -> None:
    inner = {"type": "record", "name": "Inner", "fields": []}
    meta = {"type": "record", "name": "Meta", "namespace": "csms", "fields": []}
    source = record(
        {"name": "a", "type": inner},
        {"name": "b", "type": "Inner"},
        {"name": "c", "type": "n.Inner"},
        {"name": "m", "type": "csms.Meta"},
        namespace="n",
    )
    assert set(parse_schema(source, {"csms.Meta": meta}).records) == {"n.T", "n.Inner", "csms.Meta"}


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{", "not JSON"),
        ("[]", "union"),
        ('"string"', "is a record"),
        (record(field("unknown")), "unknown type 'unknown'"),
        (record(field({"type": "enum", "name": "E", "symbols": ["A"]})), "unsupported type"),
        (record(field({"type": "fixed", "name": "F", "size": 2})), "unsupported type"),
        (record(field(["string", "null"])), "a union is null and one other type"),
        (record(field(["null", "string", "long"])), "a union is null and one other type"),
        (record(field(["null", "null"])), "null and null"),
        (record(field(["null", "string"], default="x")), "default of a union"),
        (record(field("long"), field("long")), "a field twice"),
        (record({"name": "1a", "type": "long"}), "not a name"),
        (record(name="a-b"), "not a name"),
        (record(field({"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 3})), "a decimal has"),
        (record(field({"type": "bytes", "logicalType": "decimal"})), "a decimal has"),
        (record(field({"type": "long", "contentType": "application/json"})), "JSON text is a string"),
        (record(field({"type": "array", "items": "null"})), "no bytes"),
        (record(field({"type": "array", "items": {"type": "record", "name": "E", "fields": []}})), "no bytes"),
        (record(field({"type": "record", "name": "T", "fields": []})), "defined twice"),
    ],
)
def test_what_busbar_cannot_use_is_refused_with_the_reason(source: Any, told: str) -> None:
    with pytest.raises(SchemaError, match=told):
        parse_schema(source)
