"""From the JSON schemas of OCPP to Avro."""

from __future__ import annotations

from typing import Any

import pytest

from busbar.avro import SchemaError
from busbar.avro.conversion import _Converter, action_record, requests
from busbar.avro.schema import Array, Nullable, Primitive, Record, parse_schema
from busbar.ocpp.versions import Version
from tests.unit.busbar.avro.reference import payload_record, schema_of

JSON = Primitive("string", json_text=True)


def converted(properties: dict[str, Any], required: list[str] | None = None, **definitions: Any) -> Record:
    root = {"properties": properties, "required": required or [], "definitions": definitions}
    source = _Converter(root).record(root, "Request", "")
    return parse_schema({**source, "namespace": "n"}).root


def types(record: Record) -> dict[str, Any]:
    return {entry.name: entry.type for entry in record.fields}


def test_types_follow_the_json_schema() -> None:
    record = converted(
        {
            "s": {"type": "string", "enum": ["A", "B"]},
            "t": {"type": "string", "format": "date-time"},
            "i": {"type": "integer"},
            "n": {"type": "number"},
            "b": {"type": "boolean"},
            "l": {"type": "array", "items": {"type": "integer"}},
            "any": {},
            "free": {"type": "object"},
            "bag": {"type": "array"},
        },
        ["s", "t", "i", "n", "b", "l", "any", "free", "bag"],
    )
    plain = {"s": "string", "t": "string", "i": "long", "n": "double", "b": "boolean"}
    expected: dict[str, Any] = {name: Primitive(type_) for name, type_ in plain.items()}
    expected |= {"l": Array(Primitive("long")), "any": JSON, "free": JSON, "bag": Array(JSON)}
    found = types(record)
    assert record.is_open
    assert {name: found[name] for name in expected} == expected


def test_what_is_optional_may_be_null_and_comes_after_what_is_required() -> None:
    record = converted({"customData": {"type": "object"}, "b": {"type": "string"}, "a": {"type": "string"}}, ["a"])
    assert list(types(record)) == ["a", "b", "customData", "extra"]
    assert types(record)["b"] == Nullable(Primitive("string"))
    assert record.fields[1].default is None


def test_a_member_whose_name_avro_does_not_allow_keeps_it_beside_another() -> None:
    record = converted({"15118Hash": {"type": "string"}, "a-b": {"type": "string"}, "a_b": {"type": "string"}})
    assert [(entry.name, entry.json_name) for entry in record.fields[:3]] == [
        ("_15118Hash", "15118Hash"),
        ("a_b", "a-b"),
        ("a_b_", "a_b"),
    ]


def test_a_member_called_extra_makes_room_for_the_map() -> None:
    record = converted({"extra": {"type": "string"}})
    assert [(entry.name, entry.json_name) for entry in record.fields] == [("extra_", "extra"), ("extra", "extra")]


def test_objects_of_one_name_and_two_shapes_get_two_names() -> None:
    def holder(type_: str) -> dict[str, Any]:
        return {"type": "object", "properties": {"item": {"type": "object", "properties": {"x": {"type": type_}}}}}

    schema = converted({"a": holder("string"), "b": holder("integer"), "c": holder("string")})
    names = [type_.of.fields[0].type.of.name for type_ in list(types(schema).values())[:3]]
    assert names[:2] == ["n.Item", "n.BItem"]
    assert names[2] == "n.Item"


def test_definitions_may_refer_to_themselves() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/definitions/Node"}}}
    record = converted({"first": {"$ref": "#/definitions/Node"}}, Node=node)
    first = types(record)["first"].of
    assert isinstance(first, Record)
    assert types(first)["next"].of.name == "n.Node"


def test_a_reference_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(SchemaError, match="leads nowhere"):
        converted({"a": {"$ref": "#/definitions/Nothing"}})


def test_an_action_that_a_version_lacks_is_refused() -> None:
    with pytest.raises(SchemaError, match="has no schema"):
        action_record(Version.V16, "TransactionEvent")


def test_every_action_of_every_version_converts() -> None:
    assert [len(requests(version)) for version in Version] == [39, 64, 91]
    for version in Version:
        for action in requests(version):
            meta = {"type": "record", "name": "Meta", "namespace": "csms", "fields": []}
            parse_schema(action_record(version, action), {"csms.Meta": meta})


def test_the_records_of_a_payload_have_the_names_of_the_specification() -> None:
    schema = schema_of("ocpp.v201.TransactionEvent")
    assert payload_record(schema).name == "ocpp.v201.TransactionEvent_types.TransactionEventRequest"
    assert "ocpp.v201.TransactionEvent_types.SampledValueType" in schema.records
