"""A station's connection: fed and drained, without I/O."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from busbar.ocpp.versions import Version
from services.edge.connection import MAX_PENDING_CALLS
from services.edge.records import MALFORMED_TOPIC
from tests.unit.services.edge.bench import START_MS, Bench

STATUS = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
BOOT201 = {"reason": "PowerUp", "chargingStation": {"model": "M", "vendorName": "V"}}


# CALLs


def test_a_call_is_published_and_waits_for_its_owner() -> None:
    bench = Bench()
    assert bench.send(2, "m1", "StatusNotification", STATUS) == []
    (record,) = bench.publications()
    assert record.topic == "ocpp.v16.StatusNotification"
    assert (record.partition, record.key, record.timestamp_ms) == (2, b"CP1", START_MS)
    bench.send(2, "m2", "StatusNotification", STATUS)
    (call,) = bench.calls()
    assert (call.station_id, call.connection_id, call.edge_partition) == ("CP1", "c-1", 3)
    assert (call.action, call.message_id, call.sequence, call.payload) == ("StatusNotification", "m2", 2, STATUS)
    assert call.received_at_ms == START_MS


def test_a_record_carries_a_trace_and_the_headers_of_a_cloud_event() -> None:
    bench = Bench()
    bench.send(2, "m1", "StatusNotification", STATUS)
    (record,) = bench.publications()
    assert record.headers == (
        ("traceparent", b"00-0123456789abcdef0000000000000001-0000000000000001-01"),
        ("ce_id", b"0123456789abcdef:1"),
        ("ce_type", b"ocpp.v16.StatusNotification"),
        ("ce_source", b"/edges/edge-0/stations/CP1"),
        ("ce_specversion", b"1.0"),
    )


def test_the_reply_of_the_owner_goes_to_the_call_with_its_message_id() -> None:
    bench = Bench()
    bench.send(2, "m1", "Authorize", {"idTag": "A"})
    answer = bench.deliver(message_id="m1", payload={"idTagInfo": {"status": "Accepted"}})
    assert answer == [[3, "m1", {"idTagInfo": {"status": "Accepted"}}]]
    assert bench.deliver(message_id="m1", payload={}) == []
    assert bench.metrics.outbound["result", "stale"] == 1


def test_the_owner_may_answer_with_an_error() -> None:
    bench = Bench()
    bench.send(2, "m1", "Authorize", {"idTag": "A"})
    answer = bench.deliver(kind="error", message_id="m1", error_code="InternalError", error_description="no")
    assert answer == [[4, "m1", "InternalError", "no", {}]]


def test_a_heartbeat_is_answered_at_once_and_published_all_the_same() -> None:
    bench = Bench(Version.V201)
    assert bench.send(2, "h", "Heartbeat", {}) == [[3, "h", {"currentTime": "2026-01-01T00:00:00.000Z"}]]
    (call,) = bench.calls()
    assert call.action == "Heartbeat"
    # One station uses one id for all its heartbeats.
    bench.seconds = 60
    assert bench.send(2, "h", "Heartbeat", {}) == [[3, "h", {"currentTime": "2026-01-01T00:01:00.000Z"}]]
    assert len(bench.calls()) == 1


def test_several_calls_at_once_are_all_forwarded_and_answered_by_id() -> None:
    bench = Bench()
    for number in range(3):
        bench.send(2, f"m{number}", "StatusNotification", {**STATUS, "connectorId": number})
    assert [call.sequence for call in bench.calls()] == [1, 2, 3]
    assert bench.deliver(message_id="m2", payload={}) == [[3, "m2", {}]]
    assert bench.deliver(message_id="m0", payload={}) == [[3, "m0", {}]]


def test_a_station_that_never_waits_makes_us_forget_its_oldest_calls_only() -> None:
    bench = Bench()
    for number in range(MAX_PENDING_CALLS + 1):
        bench.send(2, f"m{number}", "StatusNotification", {**STATUS, "connectorId": number})
    assert len(bench.calls()) == MAX_PENDING_CALLS + 1
    assert bench.deliver(message_id="m0", payload={}) == []
    assert bench.deliver(message_id="m1", payload={}) == [[3, "m1", {}]]


# The same CALL again


def test_a_call_that_comes_again_before_its_answer_is_answered_once() -> None:
    bench = Bench()
    bench.send(2, "m1", "Authorize", {"idTag": "A"})
    bench.send(2, "m1", "Authorize", {"idTag": "A"})
    assert len(bench.calls()) == 1
    assert bench.deliver(message_id="m1", payload={}) == [[3, "m1", {}]]


def test_a_call_that_comes_again_after_its_answer_gets_the_stored_answer() -> None:
    bench = Bench()
    bench.send(2, "m1", "Authorize", {"idTag": "A"})
    bench.deliver(message_id="m1", payload={"x": 1})
    bench.publications()
    assert bench.send(2, "m1", "Authorize", {"idTag": "A"}) == [[3, "m1", {"x": 1}]]
    assert bench.publications() == []


def test_another_call_with_the_same_id_is_a_new_call() -> None:
    bench = Bench()
    bench.send(2, "1", "Authorize", {"idTag": "A"})
    bench.deliver(message_id="1", payload={})
    assert bench.send(2, "1", "Authorize", {"idTag": "B"}) == []
    assert [call.payload["idTag"] for call in bench.calls()] == ["A", "B"]
    assert bench.deliver(message_id="1", payload={"y": 2}) == [[3, "1", {"y": 2}]]


def test_two_calls_with_one_id_are_both_published_even_before_an_answer() -> None:
    bench = Bench()
    bench.send(2, "1", "Authorize", {"idTag": "A"})
    bench.send(2, "1", "Authorize", {"idTag": "B"})
    assert [call.payload["idTag"] for call in bench.calls()] == ["A", "B"]


# Late answers (rule 9)


def test_an_owner_that_is_late_is_stood_in_for_once_the_event_is_durable() -> None:
    bench = Bench(late_seconds=20)
    bench.send(2, "m1", "StatusNotification", STATUS)
    bench.make_durable()
    bench.wait(19.9)
    assert bench.frames() == []
    bench.wait(0.2)
    assert bench.frames() == [[3, "m1", {}]]
    assert bench.deliver(message_id="m1", payload={}) == []
    assert bench.send(2, "m1", "StatusNotification", STATUS) == [[3, "m1", {}]]


def test_an_event_that_is_not_durable_gets_no_late_answer() -> None:
    bench = Bench(late_seconds=20)
    bench.send(2, "m1", "StatusNotification", STATUS)
    bench.wait(60)
    assert bench.frames() == []
    bench.make_durable()
    bench.wait(1)
    assert bench.frames() == [[3, "m1", {}]]


def test_an_action_that_only_its_owner_can_answer_gets_no_late_answer() -> None:
    bench = Bench(late_seconds=20)
    bench.send(2, "m1", "Authorize", {"idTag": "A"})
    bench.make_durable()
    bench.wait(100)
    assert bench.frames() == []
    assert bench.deliver(message_id="m1", payload={}) == [[3, "m1", {}]]


def test_a_call_that_nobody_answers_is_forgotten_after_ten_minutes() -> None:
    bench = Bench()
    bench.send(2, "m1", "Authorize", {"idTag": "A"})
    bench.wait(601)
    assert bench.metrics.of_action("1.6", "Authorize").unanswered == 1
    assert bench.deliver(message_id="m1", payload={}) == []


# What is refused


@pytest.mark.parametrize(
    ("version", "action", "code"),
    [
        (Version.V16, "Nonsense", "NotImplemented"),
        (Version.V16, "TransactionEvent", "NotSupported"),
        (Version.V16, "Reset", "NotSupported"),
        (Version.V201, "StartTransaction", "NotSupported"),
        (Version.V201, "NotifyPeriodicEventStream", "NotSupported"),
        (Version.V21, "NotifyPeriodicEventStream", "NotSupported"),
        (Version.V21, "", "NotImplemented"),
    ],
)
def test_an_action_that_is_not_for_us_is_refused(version: Version, action: str, code: str) -> None:
    bench = Bench(version)
    ((kind, message_id, answered, *_),) = bench.send(2, "m1", action, {})
    assert (kind, message_id, answered) == (4, "m1", code)
    (event,) = bench.events()
    assert (event["action"], event["error_code"], event["meta"]["message_id"]) == (action, code, "m1")


@pytest.mark.parametrize(
    ("version", "code"),
    [(Version.V16, "OccurenceConstraintViolation"), (Version.V201, "OccurrenceConstraintViolation")],
)
def test_a_payload_that_breaks_its_schema_is_refused_in_the_versions_spelling(version: Version, code: str) -> None:
    bench = Bench(version)
    assert bench.send(2, "m1", "Authorize", {})[0][:3] == [4, "m1", code]
    (record,) = bench.publications()
    assert record.topic == MALFORMED_TOPIC
    assert bench.metrics.malformed[version.value, code] == 1


def test_a_quirk_is_repaired_counted_and_published() -> None:
    bench = Bench()
    assert bench.send(2, "m1", "StatusNotification", {**STATUS, "connectorId": "1", "info": None}) == []
    (call,) = bench.calls()
    assert call.payload == STATUS
    assert bench.metrics.repairs == {("1.6", "integer-from-string"): 1, ("1.6", "null-removed"): 1}


def test_a_repair_that_loses_something_keeps_the_frame() -> None:
    bench = Bench()
    stop = {"transactionId": "x\u0000y", "meterStop": 1, "timestamp": "2026-01-01T00:00:00Z"}
    bench.send(2, "m1", "StopTransaction", stop)
    malformed, call = bench.publications()
    assert malformed.topic == MALFORMED_TOPIC
    assert call.topic == "ocpp.v16.StopTransaction"


def test_nul_characters_do_not_reach_the_log() -> None:
    bench = Bench()
    bench.send(2, "m1", "Authorize", {"idTag": "A\0B", "x\0": ["\0"]})
    (call,) = bench.calls()
    assert call.payload == {"idTag": "AB", "x": [""]}


@pytest.mark.parametrize(
    ("version", "text", "answer"),
    [
        (Version.V16, b"garbage", []),
        (Version.V201, b"garbage", [[4, "-1", "RpcFrameworkError"]]),
        (Version.V16, b'[2,"m1","Authorize",{"idTag":NaN}]', [[4, "m1", "FormationViolation"]]),
        (Version.V201, b'[2,"m1","Authorize",{"idToken":NaN}]', [[4, "m1", "FormatViolation"]]),
        (Version.V16, b'[2,"m1","Authorize"]', [[4, "m1", "FormationViolation"]]),
        (Version.V201, b'[2,"m1","Authorize",7]', [[4, "m1", "ProtocolError"]]),
        (Version.V16, b'[6,"m1","NotifyPeriodicEventStream",{}]', []),
        (Version.V201, b'[6,"m1","NotifyPeriodicEventStream",{}]', [[4, "m1", "MessageTypeNotSupported"]]),
        (Version.V201, b'[5,"m1","X","",{}]', [[4, "m1", "MessageTypeNotSupported"]]),
        (Version.V16, b'[9,"m1",{}]', []),
        (Version.V21, b'[9,"m1",{}]', [[4, "m1", "MessageTypeNotSupported"]]),
        (Version.V201, b'[4,"m1"]', []),
        (Version.V16, b"\xff\xfe\x00", []),
        (Version.V16, b"[" * 100_000, []),
    ],
)
def test_a_frame_that_cannot_be_read_is_answered_as_its_version_says(
    version: Version, text: bytes, answer: list[Any]
) -> None:
    bench = Bench(version)
    assert [frame[:3] for frame in bench.send_text(text)] == answer
    (event,) = bench.events()
    assert event["frame_bytes"] == len(text)
    assert event["frame"] == text[:8192].decode("utf-8", "replace").replace("\0", "")


def test_a_frame_with_a_byte_order_mark_is_read() -> None:
    bench = Bench()
    assert bench.send_text(b'\xef\xbb\xbf[2,"h","Heartbeat",{}]\0')[0][:2] == [3, "h"]


def test_a_binary_message_is_recorded_and_ends_the_connection() -> None:
    bench = Bench()
    bench.connection.receive_binary(b"\x00\x01\xff", bench.now)
    assert bench.connection.close_to_send() == (1003, "OCPP messages are text")
    (event,) = bench.events()
    assert event["frame"] == "0001ff"
    assert bench.send(2, "h", "Heartbeat", {}) == []


def test_an_oversized_message_is_recorded() -> None:
    bench = Bench()
    bench.connection.receive_oversize(2**60, 262144, bench.now)
    (event,) = bench.events()
    assert event["error_description"] == "a message of more than 262144 bytes"
    assert event["frame_bytes"] == 2**31 - 1


def test_a_record_that_kafka_cannot_take_is_answered_with_an_error() -> None:
    bench = Bench()
    bench.send(2, "m1", "Authorize", {"idTag": "A"})
    (record,) = bench.publications()
    bench.connection.refuse_record(record, bench.now)
    assert bench.frames() == [[4, "m1", "InternalError", "the message is too large to be recorded", {}]]


def test_a_rejected_station_may_send_nothing_but_boot_notifications() -> None:
    bench = Bench(Version.V201)
    bench.send(2, "b", "BootNotification", BOOT201)
    bench.deliver(message_id="b", payload={"status": "Rejected", "interval": 60, "currentTime": "2026-01-01T00:00:00Z"})
    assert bench.send(2, "m1", "Authorize", {"idToken": {"idToken": "A", "type": "Central"}})[0][2] == "SecurityError"
    bench.send(2, "b2", "BootNotification", BOOT201)
    bench.deliver(message_id="b2", payload={"status": "Accepted"})
    assert bench.send(2, "m2", "Authorize", {"idToken": {"idToken": "A", "type": "Central"}}) == []


def test_a_16_station_is_heard_after_a_rejection_too() -> None:
    bench = Bench()
    bench.send(2, "b", "BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"})
    bench.deliver(message_id="b", payload={"status": "Rejected"})
    assert bench.send(2, "m1", "Authorize", {"idTag": "A"}) == []
    assert len(bench.calls()) == 2


def test_the_log_lines_of_a_connection_name_no_value(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    for _ in range(3):
        bench.send(2, "m1", "Authorize", {"idTag": {"SECRET": "SECRET"}})
    assert len(caplog.records) == 1
    assert "SECRET" not in caplog.text


# SEND and CALLRESULTERROR of 2.1


def test_a_send_is_published_and_never_answered() -> None:
    bench = Bench(Version.V21, late_seconds=1)
    payload = {"id": 1, "pending": 0, "basetime": "2026-01-01T00:00:00Z", "data": [{"t": 0, "v": "1"}]}
    assert bench.send(6, "s1", "NotifyPeriodicEventStream", payload) == []
    (call,) = bench.calls()
    assert call.payload == payload
    bench.wait(100)
    assert bench.frames() == []
    assert bench.send(6, "s2", "NotifyPeriodicEventStream", {}) == []
    assert bench.send(6, "s3", "Heartbeat", {}) == []
    assert bench.send(6, "s4", "Nonsense", {}) == []
    assert [event["error_code"] for event in bench.events()] == [
        "OccurrenceConstraintViolation",
        "NotSupported",
        "NotImplemented",
    ]


def test_an_answer_that_the_station_refuses_is_recorded() -> None:
    bench = Bench(Version.V21)
    assert bench.send(5, "m1", "FormatViolation", "bad", {}) == []
    (event,) = bench.events()
    assert event["error_code"] == "CallResultError"


# Commands


def test_a_command_is_sent_and_its_answer_reported() -> None:
    bench = Bench()
    assert bench.deliver(kind="call", message_id="c1", action="Reset", payload={"type": "Soft"}) == [
        [2, "c1", "Reset", {"type": "Soft"}]
    ]
    (sent,) = bench.events()
    assert (sent["command_id"], sent["stage"], sent["connection_id"], sent["edge"]) == ("c1", "sent", "c-1", "edge-0")
    bench.send(3, "c1", {"status": "Accepted"})
    (answered,) = bench.events()
    assert (answered["stage"], answered["ocpp_version"]) == ("answered", "1.6")
    assert orjson.loads(answered["payload"]) == {"status": "Accepted"}


def test_a_command_that_the_station_refuses_is_reported_with_its_error() -> None:
    bench = Bench()
    bench.deliver(kind="call", message_id="c1", action="Reset", payload={"type": "Soft"})
    bench.events()
    bench.send(4, "c1", "NotSupported", "no reset", {"a": "\0"})
    (event,) = bench.events()
    assert (event["stage"], event["error_code"], event["error_description"]) == ("error", "NotSupported", "no reset")
    assert event["error_details"] == '{"a":""}'


def test_commands_go_out_one_at_a_time_and_by_priority() -> None:
    bench = Bench()
    for message_id, priority in (("c1", 0), ("c2", 0), ("c3", 5), ("c4", 0)):
        bench.deliver(kind="call", message_id=message_id, action="ClearCache", payload={}, priority=priority)
    order = ["c1"]
    for _ in range(3):
        ((_, message_id, *_),) = bench.send(3, order[-1], {"status": "Accepted"})
        order.append(message_id)
    assert order == ["c1", "c3", "c2", "c4"]


def test_a_command_without_an_answer_times_out_and_the_next_is_sent() -> None:
    bench = Bench(call_timeout_seconds=30)
    bench.deliver(kind="call", message_id="c1", action="ClearCache", payload={})
    bench.deliver(kind="call", message_id="c2", action="ClearCache", payload={})
    bench.wait(30)
    assert [frame[1] for frame in bench.frames()] == ["c2"]
    assert bench.stages() == [("c1", "sent"), ("c1", "timeout"), ("c2", "sent")]


def test_a_late_answer_to_a_command_is_reported_once_and_closes_nothing() -> None:
    bench = Bench(call_timeout_seconds=30)
    bench.deliver(kind="call", message_id="c1", action="ClearCache", payload={})
    bench.wait(31)
    bench.publications()
    bench.send(3, "c1", {"status": "Accepted"})
    bench.send(3, "c1", {"status": "Accepted"})
    (event,) = bench.events()
    assert (event["command_id"], event["stage"], event["action"]) == ("c1", "late", "ClearCache")


def test_a_command_expires_at_its_deadline_sent_or_not() -> None:
    bench = Bench(call_timeout_seconds=30)
    deadline = START_MS + 10_000
    bench.deliver(kind="call", message_id="c1", action="ClearCache", payload={}, deadline_at=deadline)
    bench.deliver(kind="call", message_id="c2", action="ClearCache", payload={}, deadline_at=deadline)
    bench.wait(10)
    assert bench.frames() == []
    assert bench.stages() == [("c1", "sent"), ("c1", "timeout"), ("c2", "timeout")]
    assert bench.deliver(kind="call", message_id="c3", action="ClearCache", payload={}, deadline_at=deadline) == []
    assert bench.stages() == [("c3", "timeout")]


def test_a_command_that_is_dispatched_twice_is_sent_once() -> None:
    bench = Bench()
    for _ in range(2):
        bench.deliver(kind="call", message_id="c1", action="ClearCache", payload={})
        bench.deliver(kind="call", message_id="c2", action="ClearCache", payload={})
    bench.send(3, "c1", {"status": "Accepted"})
    assert bench.deliver(kind="call", message_id="c1", action="ClearCache", payload={}) == []
    assert bench.stages() == [("c1", "sent"), ("c1", "answered"), ("c2", "sent")]


def test_an_answer_to_no_command_is_dropped() -> None:
    bench = Bench()
    assert bench.send(3, "x", {}) == []
    assert bench.send(4, "x", "GenericError") == []
    assert bench.publications() == []
    assert bench.metrics.outbound["answer", "unknown"] == 2


@pytest.mark.parametrize(
    ("version", "frames"), [(Version.V201, []), (Version.V21, [[5, "c1", "TypeConstraintViolation"]])]
)
def test_an_answer_that_breaks_its_schema_ends_the_command_with_an_error(version: Version, frames: list[Any]) -> None:
    bench = Bench(version)
    bench.deliver(kind="call", message_id="c1", action="ClearCache", payload={})
    assert [frame[:3] for frame in bench.send(3, "c1", {"status": {}})] == frames
    _, malformed, error = bench.events()
    assert malformed["action"] == "ClearCache"
    assert (error["stage"], error["error_code"]) == ("error", "TypeConstraintViolation")
    assert error["payload"] == '{"status":{}}'


@pytest.mark.parametrize("text", [b'[3,"c1"]', b'[3,"c1",{"a":NaN}]', b'[4,"c1"]'])
def test_an_answer_that_cannot_be_read_ends_the_command_with_an_error(text: bytes) -> None:
    bench = Bench(Version.V201)
    bench.deliver(kind="call", message_id="c1", action="ClearCache", payload={})
    assert bench.send_text(text) == []
    assert bench.stages() == [("c1", "sent"), ("c1", "error")]


def test_an_order_to_close_carries_its_code_and_reason() -> None:
    bench = Bench()
    bench.deliver(kind="close", message_id="", close_code=1000, error_description="replaced by a newer connection")
    assert bench.connection.close_to_send() == (1000, "replaced by a newer connection")


# The end


def test_the_end_of_a_connection_fails_what_was_sent_and_hands_back_what_was_not() -> None:
    bench = Bench()
    bench.send(2, "m1", "Authorize", {"idTag": "A"})
    for message_id in ("c1", "c2", "c3"):
        bench.deliver(kind="call", message_id=message_id, action="ClearCache", payload={})
    bench.publications()
    bench.connection.connection_lost(bench.now)
    assert bench.stages() == [("c1", "disconnected"), ("c2", "undelivered"), ("c3", "undelivered")]
    bench.connection.connection_lost(bench.now)
    assert bench.publications() == []


def test_what_arrives_for_a_connection_that_closes_is_not_lost_silently() -> None:
    bench = Bench()
    bench.send(2, "m1", "Authorize", {"idTag": "A"})
    bench.connection.request_close(1012, "restart")
    bench.publications()
    assert bench.deliver(message_id="m1", payload={}) == []
    assert bench.deliver(kind="call", message_id="c1", action="ClearCache", payload={}) == []
    assert bench.stages() == [("c1", "undelivered")]
    assert bench.metrics.outbound["result", "closing"] == 1
