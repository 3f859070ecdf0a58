"""Any bytes in, only `InvalidAvro` out; and data of older schemas in the shape of newer ones."""

from __future__ import annotations

import json
import random
import tracemalloc
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.avro import InvalidAvro, SchemaError, decode, decode_call, encode
from busbar.avro.codec import newest
from busbar.avro.decoders import DECODE_ERRORS, compile_decoder
from busbar.avro.encoders import compile_encoder
from busbar.avro.examples import example_value
from busbar.avro.lock import shipped_lock
from busbar.avro.schema import Schema, parse_schema
from busbar.ocpp.versions import Version
from busbar.topics import all_topics

EXAMPLES = {
    topic.name: encode(topic.schema, example_value(topic.name, topic.schema)) for topic in all_topics().values()
}


def read(data: bytes) -> Any:
    """Decode by both ways, which have to agree; returns the value or `None` if the data is refused."""
    try:
        value = decode(data)[1]
    except InvalidAvro:
        value = None
    if shipped_lock().by_id[int.from_bytes(data[1:5], "big")].name.startswith("ocpp."):
        try:
            call = decode_call(data)
        except InvalidAvro:
            assert value is None or value["meta"]["ocpp_version"] not in list(Version)
            return None
        assert value is not None
        assert json.dumps(call.payload, sort_keys=True) == json.dumps(value["payload"], sort_keys=True)
        assert call.message_id == value["meta"]["message_id"]
    return value


@pytest.mark.parametrize("topic", EXAMPLES)
def test_a_record_that_is_cut_short_or_too_long_is_refused(topic: str) -> None:
    data = EXAMPLES[topic]
    for end in range(5, len(data)):
        assert read(data[:end]) is None, end
    assert read(data + b"\x00") is None


@pytest.mark.parametrize("topic", EXAMPLES)
def test_corrupt_bytes_raise_nothing_but_invalid_avro(topic: str) -> None:
    data = EXAMPLES[topic]
    chance = random.Random(topic)
    for _ in range(60):
        spoilt = bytearray(data)
        for _ in range(chance.choice([1, 1, 2, 8])):
            position = chance.randrange(5, len(data))
            spoilt[position] = chance.choice([0, 1, 2, 3, 127, 128, 255, chance.randrange(256)])
        read(bytes(spoilt))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_random_bodies_raise_nothing_but_invalid_avro(data: st.DataObject) -> None:
    entry = data.draw(st.sampled_from(shipped_lock().entries))
    body = data.draw(st.binary(max_size=200))
    read(b"\x00" + entry.id.to_bytes(4, "big") + body)


@pytest.mark.parametrize(
    "lie",
    [
        b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # 2**63 - 1
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # -2**63
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # eleven bytes
        b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # 70 bits
        b"\x80\x80\x80\x80\x08",  # 2**30
    ],
)
@pytest.mark.parametrize("topic", ["ocpp.v201.TransactionEvent", "ocpp.v16.MeterValues", "csms.session-events"])
def test_a_length_that_lies_allocates_nothing(topic: str, lie: bytes) -> None:
    data = EXAMPLES[topic]
    read(data)
    tracemalloc.start()
    try:
        for position in range(5, len(data)):
            read(data[:position] + lie + data[position + 1 :])
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_json_text_that_is_none_is_refused() -> None:
    data = EXAMPLES["ocpp.v201.DataTransfer"]
    assert read(data) is not None
    assert data.count(b'"') > 1
    assert read(data.replace(b'"', b"'")) is None


# -- schemas that have changed --------------------------------------------------------------------------------


def schema(*fields: tuple[Any, ...]) -> Schema:
    """A record `T` of fields given as name, type and perhaps a default."""
    entries = [dict(zip(("name", "type", "default"), entry, strict=False)) for entry in fields]
    return parse_schema(json.dumps({"type": "record", "name": "T", "fields": entries}))


def reread(writer: Schema, reader: Schema, value: dict[str, Any]) -> dict[str, Any]:
    """Write with one schema and read with another."""
    out = bytearray()
    compile_encoder(writer)(out, value)
    read_value, end = compile_decoder(writer, reader)(bytes(out), 0)
    assert end == len(out)
    result: dict[str, Any] = read_value
    return result


INNER = {"type": "record", "name": "Inner", "fields": [{"name": "x", "type": "string"}]}
WIDER = {
    "type": "record",
    "name": "Inner",
    "fields": [{"name": "y", "type": "long", "default": 4}, {"name": "x", "type": "string"}],
}


@pytest.mark.parametrize(
    ("old", "new", "value", "expected"),
    [
        ([("a", "string"), ("b", "long")], [("b", "long")], {"a": "x", "b": 2}, {"b": 2}),
        ([("a", "long")], [("a", "long"), ("b", "string", "-")], {"a": 1}, {"a": 1, "b": "-"}),
        ([("a", "long")], [("b", ["null", "long"], None), ("a", "long")], {"a": 1}, {"a": 1, "b": None}),
        ([("a", "int")], [("a", "double")], {"a": 3}, {"a": 3.0}),
        ([("a", "string")], [("a", "bytes")], {"a": "é"}, {"a": "é".encode()}),
        ([("a", "string")], [("a", ["null", "string"])], {"a": "x"}, {"a": "x"}),
        ([("a", ["null", "string"])], [("a", "string")], {"a": "x"}, {"a": "x"}),
        ([("a", INNER)], [("a", WIDER)], {"a": {"x": "1"}}, {"a": {"y": 4, "x": "1"}}),
        (
            [("a", {"type": "array", "items": WIDER})],
            [("a", {"type": "array", "items": INNER})],
            {"a": [{"x": "1"}, {"x": "2", "y": 9}]},
            {"a": [{"x": "1"}, {"x": "2"}]},
        ),
        (
            [("a", {"type": "map", "values": "int"})],
            [("a", {"type": "map", "values": "long"})],
            {"a": {"k": 1}},
            {"a": {"k": 1}},
        ),
        ([("a", "long")], [("a", "long"), ("b", {"type": "array", "items": "long"}, [])], {"a": 1}, {"a": 1, "b": []}),
        ([("a", "long")], [("a", "long"), ("b", "bytes", "\u00ff")], {"a": 1}, {"a": 1, "b": b"\xff"}),
    ],
)
def test_old_data_is_read_in_the_shape_of_the_newest_schema(
    old: list[Any], new: list[Any], value: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = reread(schema(*old), schema(*new), value)
    assert found == expected
    assert {name: type(member) for name, member in found.items()} == {
        name: type(member) for name, member in expected.items()
    }


# -- plain tuples ---------------------------------------------------------------------------------------------

ENERGY = {"type": "bytes", "logicalType": "decimal", "precision": 24, "scale": 6}
POINT = {
    "type": "record",
    "name": "Point",
    "fields": [{"name": "at", "type": "long"}, {"name": "wh", "type": ["null", ENERGY]}],
}


def reread_plain(writer: Schema, reader: Schema, value: dict[str, Any]) -> Any:
    """Write with one schema and read with another as tuples."""
    out = bytearray()
    compile_encoder(writer)(out, value)
    found, end = compile_decoder(writer, reader, plain=True)(bytes(out), 0)
    assert end == len(out)
    return found


def test_records_are_tuples_of_the_readers_fields_in_its_order() -> None:
    old = schema(("a", "string"), ("unread", "string"), ("points", {"type": "array", "items": POINT}), ("b", "long"))
    new = schema(("b", "long"), ("c", "string", "-"), ("points", {"type": "array", "items": POINT}), ("a", "string"))
    points = [{"at": 5, "wh": Decimal("-1.5")}, {"at": 6, "wh": None}]
    found = reread_plain(old, new, {"a": "x", "unread": "y", "points": points, "b": 2})
    assert found == (2, "-", [(5, -1_500_000), (6, None)], "x")
    assert reread_plain(schema(), schema(), {}) == ()


@given(st.integers(1 - (1 << 63), (1 << 63) - 1))
def test_plain_decimals_are_whole_numbers_of_their_smallest_unit(micro: int) -> None:
    energy = schema(("wh", ENERGY))
    assert reread_plain(energy, energy, {"wh": Decimal(micro).scaleb(-6)}) == (micro,)


def test_plain_decimals_have_64_bits_at_most_and_are_not_cut_short() -> None:
    decoder = compile_decoder(schema(("wh", ENERGY)), plain=True)
    assert decoder(b"\x00", 0) == ((0,), 1)
    with pytest.raises(InvalidAvro, match="a decimal of 9 bytes at byte 1"):
        decoder(b"\x12" + bytes(9), 0)
    with pytest.raises(DECODE_ERRORS):
        decoder(b"\x08\x01\x02", 0)


def test_a_record_with_members_of_any_name_is_no_tuple() -> None:
    with pytest.raises(SchemaError, match="no tuple"):
        compile_decoder(newest("ocpp.v16.Heartbeat").parsed(), plain=True)


def test_defaults_are_not_shared() -> None:
    old, new = schema(("a", "long")), schema(("a", "long"), ("b", {"type": "map", "values": "long"}, {}))
    decoder = compile_decoder(old, new)
    first, _ = decoder(b"\x02", 0)
    first["b"]["spoilt"] = 1
    assert decoder(b"\x02", 0)[0] == {"a": 1, "b": {}}


def test_a_null_that_the_newest_schema_does_not_allow_is_refused() -> None:
    old, new = schema(("a", ["null", "string"])), schema(("a", "string"))
    with pytest.raises(DECODE_ERRORS, match="does not allow"):
        reread(old, new, {"a": None})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([("a", "long")], [("a", "long"), ("b", "long")]),
        ([("a", "long")], [("a", "string")]),
        ([("a", "long")], [("a", "int")]),
        ([("a", "long")], [("a", {"type": "array", "items": "long"})]),
        ([("a", {"type": "array", "items": "long"})], [("a", "long")]),
    ],
)
def test_a_reader_that_cannot_follow_is_told_before_it_reads(old: list[Any], new: list[Any]) -> None:
    with pytest.raises(SchemaError):
        compile_decoder(schema(*old), schema(*new))


def test_records_that_hold_themselves_are_read_and_written() -> None:
    source = {
        "type": "record",
        "name": "Node",
        "fields": [
            {"name": "name", "type": "string"},
            {"name": "children", "type": {"type": "array", "items": "Node"}, "default": []},
        ],
    }
    node = parse_schema(json.dumps(source))
    assert parse_schema(node.canonical) == node
    tree = {"name": "a", "children": [{"name": "b", "children": []}, {"name": "c", "children": []}]}
    assert reread(node, node, tree) == tree


def test_fields_that_are_gone_are_passed_over_whatever_they_are() -> None:
    entry = {"type": "record", "name": "Entry", "fields": [{"name": "x", "type": "string"}]}
    gone = [
        *(
            ("a", "string", "é"),
            ("b", ["null", "bytes"], b"x" * 200),
            ("c", ["null", "double"], 1.5),
            ("d", "float", 2.0),
        ),
        *(("e", ["null", "string"], None), ("f", "boolean", True), ("g", "long", -(2**63))),
        ("h", {"type": "array", "items": entry}, [{"x": "1"}, {"x": "2"}]),
    ]
    old = schema(*[(name, type_) for name, type_, _ in gone], ("last", "string"))
    value = {name: member for name, _, member in gone} | {"last": "there"}
    assert reread(old, schema(("last", "string")), value) == {"last": "there"}
