"""Results as bytes and back, replies, dead letters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busbar.avro import decode
from busbar.ocpp.versions import Version
from busbar.records import Record, Result, ReturnAddress, StationCall
from busbar.stream.dead_letters import dead_letter, undeliverable
from busbar.stream.replies import reply, reply_error, with_return_address
from busbar.stream.results import pack_by_partition, pack_results, record_size, unpack_results

HEADERS = st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=30)), max_size=3).map(tuple)
RESULTS = st.builds(
    Result,
    topic=st.sampled_from(["csms.outbound", "csms.session-events", "ä"]),
    key=st.binary(max_size=20),
    value=st.binary(max_size=300),
    partition=st.integers(0, 2**31 - 1),
    headers=HEADERS,
    timestamp_ms=st.integers(0, 2**53),
)


@given(st.lists(RESULTS, max_size=20))
def test_results_come_back_as_they_were_stored(results: list[Result]) -> None:
    assert unpack_results(pack_results(results)) == results


def test_results_that_are_alike_take_little_room() -> None:
    results = [Result("csms.outbound", b"CS-1", bytes(range(200)) + bytes([n]), 0, (), n) for n in range(100)]
    stored = pack_results(results)
    assert len(stored) < 5_000
    assert unpack_results(stored) == results


def test_results_that_the_version_before_has_stored_are_read() -> None:
    plain = bytes.fromhex("0100010000000100017400000000000300000000000000050000000100000002")
    assert unpack_results(plain + bytes.fromhex("0000") + b"kvv") == [Result("t", b"k", b"vv", 3, (), 5)]


def test_no_results_are_no_bytes() -> None:
    assert pack_results([]) == b""
    assert unpack_results(b"") == []


@pytest.mark.parametrize("missing", [{"partition": None, "timestamp_ms": 1}, {"partition": 1, "timestamp_ms": None}])
def test_a_result_without_its_place_or_time_cannot_be_stored(missing: dict[str, int | None]) -> None:
    with pytest.raises(ValueError, match="partition and a timestamp"):
        pack_results([Result("t", b"k", b"v", **missing)])  # type: ignore[arg-type]


def test_results_of_an_unknown_format_are_not_guessed_at() -> None:
    stored = pack_results([Result("t", b"k", b"v", 0, (), 1)])
    with pytest.raises(ValueError, match="format 9"):
        unpack_results(b"\x09" + stored[1:])


@given(st.lists(RESULTS, min_size=1, max_size=1))
def test_a_records_size_is_never_underestimated(results: list[Result]) -> None:
    from aiokafka.record.default_records import DefaultRecordBatchBuilder

    result = results[0]
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 1)
    builder.append(0, 1_700_000_000_000, result.key, result.value, list(result.headers))
    assert record_size(result.key, result.value, result.headers) >= builder.size()


CALL = StationCall(
    station_id="CP-1",
    connection_id="c-7",
    edge="edge-0",
    edge_partition=3,
    version=Version.V16,
    sequence=1,
    message_id="m-1",
    received_at_ms=1_700_000_000_000,
    action="BootNotification",
    payload={},
)


def test_a_reply_goes_to_the_partition_and_connection_that_asked() -> None:
    result = reply(CALL, {"status": "Accepted", "interval": 300}, "stations", 1_700_000_000_050)
    assert (result.topic, result.key, result.partition) == ("csms.outbound", b"CP-1", 3)
    name, message = decode(result.value)
    assert name == "csms.OutboundMessage"
    assert (message["kind"], message["connection_id"], message["message_id"]) == ("result", "c-7", "m-1")
    assert message["payload"] == '{"status":"Accepted","interval":300}'
    assert (message["produced_by"], message["produced_at"]) == ("stations", 1_700_000_000_050)


def test_the_same_call_gives_the_same_reply_byte_for_byte() -> None:
    assert reply(CALL, {"a": 1}, "stations", 5) == reply(CALL, {"a": 1}, "stations", 5)


def test_an_error_carries_its_code_and_details() -> None:
    result = reply_error(CALL, "SecurityError", "no", "stations", 5, {"why": "because"})
    message = decode(result.value)[1]
    assert (message["kind"], message["error_code"], message["error_description"]) == ("error", "SecurityError", "no")
    assert message["error_details"] == '{"why":"because"}'
    assert decode(reply_error(CALL, "x", "", "stations", 5).value)[1]["error_details"] == ""


def test_a_command_is_addressed_like_a_reply() -> None:
    result = with_return_address(
        ReturnAddress(9, "c-8", "cmd-1"),
        "CP-2",
        "call",
        produced_by="router",
        now_ms=5,
        action="Reset",
        payload='{"type":"Soft"}',
        command_id="cmd-1",
        deadline_at=65,
    )
    message = decode(result.value)[1]
    assert result.partition == 9
    assert (message["kind"], message["action"], message["deadline_at"]) == ("call", "Reset", 65)


RECORD = Record("ocpp.v16.StopTransaction", 2, 41, 1_700_000_000_000, b"CP-1", b"\x00bad", (("h", b"1"),))


def test_a_dead_letter_tells_where_the_record_stood_and_why() -> None:
    result = dead_letter(RECORD, "sessions", "undecodable", "schema id 9 is not in the lock", 77)
    assert (result.topic, result.key) == ("csms.dead-letters", b"CP-1")
    name, letter = decode(result.value)
    assert name == "csms.DeadLetter"
    assert letter == {
        "topic": "ocpp.v16.StopTransaction",
        "partition": 2,
        "offset": 41,
        "timestamp": 1_700_000_000_000,
        "group": "sessions",
        "reason": "undecodable",
        "detail": "schema id 9 is not in the lock",
        "failed_at": 77,
        "key": b"CP-1",
        "value": b"\x00bad",
        "headers": {"h": b"1"},
    }
    assert dict(result.headers)["reason"] == b"undecodable"


def test_a_dead_letter_of_a_huge_record_leaves_the_value_where_it_stands() -> None:
    huge = Record("t", 0, 0, 1, None, bytes(990_000))
    letter = decode(dead_letter(huge, "g", "r", "d", 1).value)[1]
    assert letter["value"] is None
    assert "990000 bytes is left out" in letter["detail"]


def test_a_dead_letter_takes_any_text_for_a_detail() -> None:
    letter = decode(dead_letter(RECORD, "g", "r", "\ud800" + "x" * 5_000, 1).value)[1]
    assert letter["detail"].startswith("\\ud800x")
    assert len(letter["detail"]) < 2_100


def test_a_result_that_cannot_be_delivered_never_stood_anywhere() -> None:
    letter = decode(undeliverable(Result("t", b"k", b"v", 99), "g", "unknown-partition", "d", 5).value)[1]
    assert (letter["topic"], letter["partition"], letter["offset"], letter["value"]) == ("t", 99, -1, b"v")


def test_results_are_packed_by_the_partition_that_they_came_from() -> None:
    results = [(number % 3, Result("t", f"key {number}".encode(), b"v", number, (), 5)) for number in range(7)]
    packed = pack_by_partition(results)
    assert {source: unpack_results(data) for source, data in packed.items()} == {
        source: [result for of, result in results if of == source] for source in range(3)
    }
