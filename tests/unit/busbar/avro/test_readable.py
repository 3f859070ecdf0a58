"""Records as a person reads them."""

from __future__ import annotations

import json

import pytest

from busbar.avro import InvalidAvro, encode
from busbar.avro.examples import example_value, read_example
from busbar.avro.readable import instant, parse_readable, readable_record, readable_value
from busbar.records import Record
from busbar.topics import all_topics


@pytest.mark.parametrize("topic", all_topics())
def test_a_record_of_any_topic_is_shown_as_json_and_read_back(topic: str) -> None:
    schema = all_topics()[topic].schema
    data = encode(schema, example_value(topic, schema))
    shown = readable_value(data)
    assert shown is not None
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert encode(schema, parse_readable(schema, shown)) == data
    example = read_example(topic)
    assert {name: shown[name] for name in example} == example


def record(value: bytes | None, key: bytes | None = b"CS-1") -> Record:
    return Record("csms.edges", 3, 7, 1_777_889_472_412, key, value, (("traceparent", b"00-a"), ("raw", b"\xff")))


def test_a_record_is_shown_with_where_it_stands() -> None:
    value = encode("csms.EdgeEvent", example_value("csms.edges", "csms.EdgeEvent"))
    assert readable_record(record(value)) == {
        "topic": "csms.edges",
        "partition": 3,
        "offset": 7,
        "timestamp": "2026-05-04T10:11:12.412Z",
        "key": "CS-1",
        "headers": {"traceparent": "00-a", "raw": {"base64": "/w=="}},
        "value": read_example("csms.edges"),
    }


def test_a_value_that_cannot_be_decoded_is_shown_with_the_reason() -> None:
    shown = readable_record(record(b"\x00\xff\xff\xff\xff"))
    assert shown["value"] == {"base64": "AP////8="}
    assert shown["error"] == "schema id 4294967295 is not in the lock"
    assert readable_record(record(b"plain"))["value"] == "plain"


def test_a_tombstone_has_no_value() -> None:
    assert readable_record(record(None, None)) | {"value": None, "key": None} == readable_record(record(None, None))


def test_numbers_that_json_cannot_say_are_shown_as_text() -> None:
    insight = example_value("csms.insights.sites", "csms.SiteInsight") | {"power_w": float("inf")}
    shown = readable_value(encode("csms.SiteInsight", insight))
    assert shown is not None
    assert shown["power_w"] == "inf"


@pytest.mark.parametrize("milliseconds", [2**63 - 1, -(2**63)])
def test_an_instant_beyond_the_calendar_is_a_number(milliseconds: int) -> None:
    assert instant(milliseconds) == str(milliseconds)


def test_instants_are_exact_to_the_millisecond() -> None:
    edge = read_example("csms.edges")
    for text in ("2026-05-04T10:11:12.999Z", "1969-12-31T23:59:59.001Z", "2262-01-01T00:00:00.123Z"):
        data = encode("csms.EdgeEvent", parse_readable("csms.EdgeEvent", edge | {"at": text}))
        shown = readable_value(data)
        assert shown is not None
        assert shown["at"] == text


def test_what_is_not_avro_is_refused() -> None:
    with pytest.raises(InvalidAvro):
        readable_value(b"{}")
