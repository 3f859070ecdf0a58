"""CALLs of stations: what goes in comes out, in fastavro's bytes, whatever the station sent."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.avro import InvalidAvro, call_encoder, decode, decode_call, decode_packed_call, encode, meta_prefix
from busbar.avro.examples import example_value
from busbar.avro.samples import PackedSamples
from busbar.ocpp.versions import Version
from busbar.records import StationCall
from busbar.topics import Topic, all_topics
from tests.unit.busbar.avro import reference
from tests.unit.busbar.avro.reference import ACTION_TOPICS, datum, fastavro_encode, payload_record, schema_of

PREFIX = meta_prefix("CS-1", "connection-1", "edge-0", 3, Version.V201)
META = {
    "station_id": "CS-1",
    "connection_id": "connection-1",
    "edge": "edge-0",
    "edge_partition": 3,
    "ocpp_version": "2.0.1",
    "sequence": 7,
    "message_id": "m-1",
    "received_at": 1_777_889_472_345,
}


def encode_payload(version: Version, action: str, payload: dict[str, Any]) -> bytes:
    return call_encoder(version, action)(PREFIX, 7, "m-1", 1_777_889_472_345, payload)


def came_through(version: Version, action: str, payload: dict[str, Any]) -> dict[str, Any]:
    return decode_call(encode_payload(version, action, payload)).payload


def as_json(value: Any) -> str:
    """Text that tells 1, 1.0, -0.0 and true apart."""
    return json.dumps(value, sort_keys=True)


def check(topic: Topic, payload: dict[str, Any]) -> None:
    assert topic.version is not None
    assert topic.action is not None
    schema = schema_of(topic)
    before = as_json(payload)
    encoded = encode_payload(topic.version, topic.action, payload)
    assert as_json(payload) == before
    assert encoded == fastavro_encode(
        topic.schema, {"meta": META, "payload": datum(payload, payload_record(schema), schema)}
    )
    assert encoded == encode(topic.schema, {"meta": META, "payload": payload})
    call = decode_call(encoded)
    assert call.payload == payload
    assert decode(encoded) == (topic.schema, {"meta": META, "payload": payload})


@pytest.mark.parametrize("topic", ACTION_TOPICS, ids=lambda topic: topic.name)
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_a_payload_comes_out_as_it_went_in_and_in_fastavros_bytes(topic: Topic, data: st.DataObject) -> None:
    schema = schema_of(topic)
    check(topic, data.draw(reference.values(payload_record(schema), schema)))


@pytest.mark.parametrize("topic", ACTION_TOPICS, ids=lambda topic: topic.name)
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_what_the_schema_has_no_place_for_is_kept_beside_it(topic: Topic, data: st.DataObject) -> None:
    schema = schema_of(topic)
    check(topic, data.draw(reference.values(payload_record(schema), schema, wild=True)))


@pytest.mark.parametrize("name", ["ocpp.v16.MeterValues", "ocpp.v16.StopTransaction", "ocpp.v201.TransactionEvent"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_meter_values_come_through_by_whatever_path(name: str, data: st.DataObject) -> None:
    schema = schema_of(name)
    payload = data.draw(reference.values(payload_record(schema), schema, wild=data.draw(st.booleans())))
    for _ in range(2):  # the second time by the layouts that the first one left
        check(all_topics()[name], payload)


def test_a_call_is_read_with_its_return_address() -> None:
    call = decode_call(encode_payload(Version.V201, "Heartbeat", {}))
    assert call == StationCall(
        "CS-1", "connection-1", "edge-0", 3, Version.V201, 7, "m-1", 1_777_889_472_345, "Heartbeat", {}
    )


@given(
    texts=st.tuples(*[st.one_of(st.text(max_size=5), st.just("x" * 70), st.just("é" * 40))] * 4),
    partition=st.integers(0, 20_000),
    sequence=st.integers(0, 2**40),
    received_at=st.integers(0, 2**42),
)
@settings(max_examples=200, deadline=None)
def test_meta_of_any_length_is_read_again(
    texts: tuple[str, str, str, str], partition: int, sequence: int, received_at: int
) -> None:
    station, connection, edge, message = texts
    encoder = call_encoder(Version.V16, "Heartbeat")
    for version in Version:
        prefix = meta_prefix(station, connection, edge, partition, version)
        data = encoder(prefix, sequence, message, received_at, {})
        expected = StationCall(
            station, connection, edge, partition, version, sequence, message, received_at, "Heartbeat", {}
        )
        assert decode_call(data) == expected
        assert decode_call(data) == expected


def test_every_example_comes_through() -> None:
    for topic in ACTION_TOPICS:
        assert topic.version is not None
        assert topic.action is not None
        payload = example_value(topic.name, topic.schema)["payload"]
        assert as_json(came_through(topic.version, topic.action, payload)) == as_json(payload)


# -- numbers --------------------------------------------------------------------------------------------------


def sample(value: Any) -> dict[str, Any]:
    return {"evseId": 1, "meterValue": [{"timestamp": "2026-05-04T10:11:12Z", "sampledValue": [{"value": value}]}]}


@pytest.mark.parametrize(
    "text", ["0.1", "-0.0", "230", "1211340.123456", "5e-324", "1.7976931348623157e308", "9007199254740993", "1e22"]
)
def test_the_digits_of_a_number_survive(text: str) -> None:
    value = orjson.loads(text)
    read = came_through(Version.V201, "MeterValues", sample(value))["meterValue"][0]["sampledValue"][0]["value"]
    assert Decimal(repr(read)) == Decimal(repr(value)) == Decimal(text)
    assert str(read).startswith("-") == text.startswith("-")


@pytest.mark.parametrize("number", [2**53 + 1, 10**400, -(10**400)])
def test_a_number_that_no_double_equals_is_kept_exactly_beside_the_nearest_one(number: int) -> None:
    data = encode_payload(Version.V201, "MeterValues", sample(number))
    stored = reference.fastavro_decode("ocpp.v201.MeterValues", data)["payload"]["meterValue"][0]["sampledValue"][0]
    assert stored["extra"] == {"value": str(number)}
    assert abs(stored["value"]) > 9e15
    assert decode_call(data).payload == sample(number)


def status(**members: Any) -> dict[str, Any]:
    return {"connectorId": 1, "errorCode": "NoError", "status": "Available", **members}


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**30, 1e300])
def test_a_whole_number_beyond_64_bits_is_kept(number: float) -> None:
    assert came_through(Version.V16, "StatusNotification", status(connectorId=number)) == status(connectorId=number)


def test_an_integral_float_becomes_the_whole_number_that_it_is() -> None:
    assert as_json(came_through(Version.V16, "StatusNotification", status(connectorId=3.0))) == as_json(
        status(connectorId=3)
    )


# -- what is not of the schema --------------------------------------------------------------------------------


@pytest.mark.parametrize("member", [None, 5, 1.5, True, [], {}, {"a": [1, None]}])
def test_an_optional_member_of_another_type_is_kept(member: Any) -> None:
    payload = status(info=member)
    assert as_json(came_through(Version.V16, "StatusNotification", payload)) == as_json(payload)


@pytest.mark.parametrize("member", [None, "5", True, [], {}, 1.5])
def test_a_required_member_of_another_type_is_refused(member: Any) -> None:
    with pytest.raises(InvalidAvro, match=r"StatusNotificationRequest\.connectorId: \w+ is not a whole number"):
        encode_payload(Version.V16, "StatusNotification", status(connectorId=member))


def test_a_required_member_that_is_missing_is_refused() -> None:
    with pytest.raises(InvalidAvro, match=r"StatusNotificationRequest\.status"):
        encode_payload(Version.V16, "StatusNotification", {"connectorId": 1, "errorCode": "NoError"})


@pytest.mark.parametrize("payload", [None, [], "x", 3])
def test_a_payload_that_is_no_object_is_refused(payload: Any) -> None:
    with pytest.raises(InvalidAvro, match="is not an object"):
        encode_payload(Version.V16, "Heartbeat", payload)


@pytest.mark.parametrize(
    "payload", [{"x": float("nan")}, {"x": {"y": [float("inf")]}}, {"x": "\ud800"}, {"\ud800": 1}, {"x": {1, 2}}]
)
def test_what_json_cannot_say_is_refused(payload: dict[str, Any]) -> None:
    with pytest.raises(InvalidAvro):
        encode_payload(Version.V16, "Heartbeat", payload)


def test_an_object_nested_too_deep_is_refused_and_a_deep_one_is_kept() -> None:
    def nested(depth: int) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for _ in range(depth):
            value = {"a": value}
        return value

    assert came_through(Version.V16, "Heartbeat", nested(300)) == nested(300)
    with pytest.raises(InvalidAvro):
        encode_payload(Version.V16, "Heartbeat", nested(100_000))


@pytest.mark.parametrize("data", [None, 0, "", [], {}, {"vendorId": "x", "n": [1, {"b": None}]}, True])
def test_data_of_any_type_is_kept(data: Any) -> None:
    payload = {"vendorId": "com.ampersand", "data": data}
    assert as_json(came_through(Version.V201, "DataTransfer", payload)) == as_json(payload)


def test_a_payload_is_the_callers_own() -> None:
    data = encode_payload(Version.V201, "MeterValues", sample(1.5))
    for _ in range(3):
        payload = decode_call(data).payload
        assert payload == sample(1.5)
        payload["meterValue"][0]["sampledValue"][0]["value"] = "spoilt"
        payload["meterValue"].clear()


def test_only_actions_have_encoders_and_only_their_records_are_calls() -> None:
    with pytest.raises(InvalidAvro, match="no schema is called"):
        call_encoder(Version.V16, "Reset")
    with pytest.raises(InvalidAvro, match="not the schema of an action"):
        decode_call(encode("csms.EdgeEvent", example_value("csms.edges", "csms.EdgeEvent")))


def test_a_station_id_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidAvro):
        meta_prefix("\ud800", "c", "e", 0, Version.V16)


def expanded(value: Any) -> Any:
    if isinstance(value, PackedSamples):
        return value.expand()
    if isinstance(value, list):
        return [expanded(member) for member in value]
    return {name: expanded(member) for name, member in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("name", ["ocpp.v16.MeterValues", "ocpp.v16.StopTransaction", "ocpp.v201.TransactionEvent"])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_packed_samples_hold_what_the_objects_would(name: str, data: st.DataObject) -> None:
    topic = all_topics()[name]
    assert topic.version is not None
    assert topic.action is not None
    schema = schema_of(topic)
    encoded = encode_payload(topic.version, topic.action, data.draw(reference.values(payload_record(schema), schema)))
    for _ in range(3):  # the first time teaches the layout, the second the sizes of texts
        call = decode_packed_call(encoded)
        assert as_json(expanded(call.payload)) == as_json(decode_call(encoded).payload)


@pytest.mark.parametrize(
    ("version", "action", "values"),
    [(Version.V16, "MeterValues", ("1.5", "20")), (Version.V201, "MeterValues", (1.5, 20.0))],
)
def test_samples_like_some_before_stay_packed(version: Version, action: str, values: tuple[Any, ...]) -> None:
    sampled = [{"value": value, "measurand": f"Frequency.{index}"} for index, value in enumerate(values)]
    place = {"connectorId": 1} if version is Version.V16 else {"evseId": 1}
    payload = {**place, "meterValue": [{"timestamp": "2026-01-01T00:00:00Z", "sampledValue": sampled}]}
    encoded = encode_payload(version, action, payload)
    decode_packed_call(encoded)
    packed = decode_packed_call(encoded).payload["meterValue"][0]["sampledValue"]
    assert isinstance(packed, PackedSamples)
    assert list(packed.values) == list(values)
    assert packed.expand() == sampled
    assert packed.expand() is not packed.expand()
