"""`encode` and `decode`: the bytes are fastavro's, and nothing but `InvalidAvro` comes of bad ones."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.avro import InvalidAvro, decode, encode
from busbar.avro.examples import example_value
from busbar.topics import Topic
from tests.unit.busbar.avro import reference
from tests.unit.busbar.avro.reference import OTHER_TOPICS, datum, fastavro_decode, fastavro_encode, schema_of


@pytest.mark.parametrize("topic", OTHER_TOPICS, ids=lambda topic: topic.name)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_bytes_of_csms_topics_are_those_of_fastavro(topic: Topic, data: st.DataObject) -> None:
    schema = schema_of(topic)
    value = data.draw(reference.values(schema.root, schema))
    encoded = encode(topic.schema, value)
    assert encoded == fastavro_encode(topic.schema, datum(value, schema.root, schema))
    assert decode(encoded) == (topic.schema, fastavro_decode(topic.schema, encoded))


def outbound(**fields: Any) -> dict[str, Any]:
    return {**example_value("csms.outbound", "csms.OutboundMessage"), **fields}


def test_absent_fields_get_their_defaults() -> None:
    value = outbound()
    for name in ("payload", "priority", "deadline_at"):
        value.pop(name, None)
    _, decoded = decode(encode("csms.OutboundMessage", value))
    assert (decoded["payload"], decoded["priority"], decoded["deadline_at"]) == ("", 0, 0)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"kind": 3}, "OutboundMessage.kind: int is not a string"),
        ({"kind": None}, "OutboundMessage.kind: NoneType is not a string"),
        ({"priority": "1"}, "OutboundMessage.priority: str is not a whole number"),
        ({"priority": True}, "OutboundMessage.priority: bool is not a whole number"),
        ({"priority": 2**31}, "OutboundMessage.priority: 2147483648 is not between -2147483648 and 2147483647"),
        ({"deadline_at": 2**63}, "OutboundMessage.deadline_at: 9223372036854775808 is not between"),
        ({"speed": 1}, "OutboundMessage: unknown speed"),
        ({"kind": "\ud800"}, "surrogates not allowed"),
    ],
)
def test_a_value_that_is_not_of_the_schema_is_refused_with_its_path(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidAvro, match=told.replace(".", r"\.")):
        encode("csms.OutboundMessage", outbound(**fields))


def test_a_missing_field_is_named() -> None:
    value = outbound()
    del value["kind"]
    with pytest.raises(InvalidAvro, match="OutboundMessage: missing kind"):
        encode("csms.OutboundMessage", value)


def test_the_message_of_a_refusal_does_not_repeat_the_value() -> None:
    with pytest.raises(InvalidAvro) as caught:
        encode("csms.OutboundMessage", outbound(payload=b"04E91C5A2B7F80"))
    assert "04E9" not in str(caught.value)


def test_subclasses_of_plain_types_are_taken_as_those() -> None:
    class Kind(str):
        pass

    assert encode("csms.OutboundMessage", outbound(kind=Kind("result"))) == encode(
        "csms.OutboundMessage", outbound(kind="result")
    )


@pytest.mark.parametrize(
    "value", [Decimal("0.00001"), Decimal(10) ** 14, Decimal("NaN"), Decimal("Infinity"), 1.5, True, "1", None]
)
def test_a_decimal_that_would_lose_digits_is_refused(value: Any) -> None:
    cdr = example_value("csms.cdrs", "csms.Cdr")
    with pytest.raises(InvalidAvro, match=r"Cdr\.total_cost_excl_vat"):
        encode("csms.Cdr", {**cdr, "total_cost_excl_vat": value})


@pytest.mark.parametrize("value", [Decimal("1E+3"), Decimal("-0.0001"), Decimal("1.50000000"), Decimal("-0"), 12])
def test_a_decimal_is_read_with_the_scale_of_its_field(value: Decimal | int) -> None:
    cdr = {**example_value("csms.cdrs", "csms.Cdr"), "total_cost_excl_vat": value}
    read = decode(encode("csms.Cdr", cdr))[1]["total_cost_excl_vat"]
    assert read == value
    assert read.as_tuple().exponent == -4


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "Confluent wire format"),
        (b"\x00\x00\x00\x00", "Confluent wire format"),
        (b"{}[]{}", "Confluent wire format"),
        (b"\x00\xff\xff\xff\xff\x00", "schema id 4294967295 is not in the lock"),
    ],
)
def test_data_without_a_known_schema_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(InvalidAvro, match=told):
        decode(data)


def test_an_unknown_schema_is_named() -> None:
    with pytest.raises(InvalidAvro, match=r"no schema is called csms\.Nothing"):
        encode("csms.Nothing", {})
