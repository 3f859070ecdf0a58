"""What `busbar tail` makes of the records of a station."""

from __future__ import annotations

import json
from typing import Any

import pytest

from busbar.avro import encode, meta_prefix
from busbar.avro.calls import call_encoder
from busbar.cli._frames import HIDDEN, Line, json_line, read_line, text_line
from busbar.ocpp.versions import Version
from busbar.records import Record

AT_MS = 1_772_366_400_000
META = {
    "station_id": "CS-1",
    "connection_id": "c-1",
    "edge": "edge-0",
    "edge_partition": 0,
    "ocpp_version": "1.6",
    "sequence": 1,
    "message_id": "m-1",
    "received_at": AT_MS,
}


def record(topic: str, value: bytes) -> Record:
    return Record(topic, 0, 0, AT_MS, b"CS-1", value)


def call(version: Version, action: str, payload: dict[str, Any]) -> Record:
    prefix = meta_prefix("CS-1", "c-1", "edge-0", 0, version)
    return record(f"ocpp.{version.label}.{action}", call_encoder(version, action)(prefix, 1, "m-1", AT_MS, payload))


def outbound(kind: str, **fields: Any) -> Record:
    value = {
        "station_id": "CS-1",
        "connection_id": "c-1",
        "kind": kind,
        "message_id": "m-1",
        "action": "Reset",
        "produced_by": "router",
        "produced_at": AT_MS,
        **fields,
    }
    return record("csms.outbound", encode("csms.OutboundMessage", value))


def stage(name: str, source: str = "edge", **fields: Any) -> Record:
    value = {
        "command_id": "k-1",
        "station_id": "CS-1",
        "action": "Reset",
        "stage": name,
        "source": source,
        "at": AT_MS,
        "connection_id": "c-1",
        **fields,
    }
    return record("csms.command-events", encode("csms.CommandEvent", value))


def read(one: Record) -> Line:
    line = read_line(one, "CS-1")
    assert line is not None
    return line


def test_a_call_of_the_station_points_to_the_csms() -> None:
    line = read(call(Version.V16, "BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"}))
    assert (line.sender, line.kind, line.action, line.message_id) == ("station", "CALL", "BootNotification", "m-1")
    assert text_line(line) == (
        '12:00:00.000 → \x1b[36mCALL      \x1b[0m BootNotification {"chargePointVendor":"V","chargePointModel":"M"}'
        "\x1b[2m m-1\x1b[0m"
    )


def test_a_send_is_told_apart_from_a_call() -> None:
    stream = {"id": 1, "pending": 0, "basetime": "2026-03-01T12:00:00Z", "data": [{"t": 0, "v": "1"}]}
    assert read(call(Version.V21, "NotifyPeriodicEventStream", stream)).kind == "SEND"


@pytest.mark.parametrize(
    ("one", "sender", "kind", "content"),
    [
        (outbound("result", payload='{"status":"Accepted"}'), "csms", "CALLRESULT", {"status": "Accepted"}),
        (
            outbound("error", error_code="InternalError", error_description="why", error_details='{"a":1}'),
            "csms",
            "CALLERROR",
            {"code": "InternalError", "description": "why", "details": {"a": 1}},
        ),
        (outbound("call", payload='{"type":"Soft"}', command_id="k-1"), "csms", "CALL", {"type": "Soft"}),
        (
            outbound("close", close_code=1008, error_description="a newer one"),
            "",
            "CONNECTION",
            "told to close: 1008 a newer one",
        ),
        (stage("answered", payload='{"status":"Accepted"}'), "station", "CALLRESULT", {"status": "Accepted"}),
        (
            stage("error", error_code="NotSupported", error_description="no"),
            "station",
            "CALLERROR",
            {"code": "NotSupported", "description": "no"},
        ),
        (stage("timeout", error_description="30 s are over"), "", "COMMAND", "timeout 30 s are over"),
        (stage("parked", "router"), "", "COMMAND", "parked"),
    ],
)
def test_what_goes_to_the_station_and_what_comes_back(one: Record, sender: str, kind: str, content: Any) -> None:
    line = read(one)
    assert (line.sender, line.kind, line.content) == (sender, kind, content)


@pytest.mark.parametrize("one", [outbound("marker"), stage("dispatched", "router"), stage("answered", "router")])
def test_what_another_line_says_already_is_left_out(one: Record) -> None:
    assert read_line(one, "CS-1") is None


@pytest.mark.parametrize(
    "one",
    [call(Version.V16, "Heartbeat", {}), outbound("result"), stage("sent")],
)
def test_other_stations_of_the_partition_are_left_out(one: Record) -> None:
    assert read_line(one, "CS-2") is None


def test_connections_and_malformed_frames_are_told() -> None:
    opened = {
        **{name: META[name] for name in ("station_id", "connection_id", "edge", "edge_partition", "ocpp_version")},
        "event": "connected",
        "edge_instance": "i-1",
        "subprotocol": "ocpp1.6",
        "remote_address": "192.0.2.1",
        "security_profile": 1,
        "at": AT_MS,
        "connected_at": AT_MS,
    }
    line = read(record("csms.connections", encode("csms.ConnectionEvent", opened)))
    assert line.content == "connected to edge-0 from 192.0.2.1, ocpp1.6"
    closed = {**opened, "event": "disconnected", "close_code": 1006, "reason": "gone"}
    line = read(record("csms.connections", encode("csms.ConnectionEvent", closed)))
    assert line.content == "disconnected from edge-0, 1006 gone"
    frame = {
        "meta": META,
        "frame": "[2",
        "frame_bytes": 2,
        "error_code": "FormationViolation",
        "error_description": "x",
    }
    line = read(record("ocpp.malformed", encode("csms.MalformedFrame", frame)))
    assert (line.kind, line.content) == ("MALFORMED", "FormationViolation: x   [2")


def test_a_record_that_cannot_be_decoded_is_a_line_and_no_crash() -> None:
    assert "undecodable" in read(record("ocpp.v16.Heartbeat", b"\x00\x00\x00\x00\x01")).content
    assert "undecodable" in read(record("csms.outbound", b"junk")).content


def test_what_asks_goes_before_what_answers_in_the_same_millisecond() -> None:
    lines = [read(outbound("result", payload="{}")), read(call(Version.V16, "Heartbeat", {}))]
    assert [line.kind for line in sorted(lines, key=lambda line: line.order)] == ["CALL", "CALLRESULT"]


def test_passwords_are_hidden_however_they_are_sent() -> None:
    secret = "correct horse battery"
    variables = [
        {"component": {"name": "SecurityCtrlr"}, "variable": {"name": "BasicAuthPassword"}, "attributeValue": secret},
        {"component": {"name": "OCPPCommCtrlr"}, "variable": {"name": "HeartbeatInterval"}, "attributeValue": "60"},
    ]
    for payload in (
        {"key": "AuthorizationKey", "value": secret},
        {"setVariableData": variables},
        {"connectionData": {"basicAuthPassword": secret}},
    ):
        line = read(outbound("call", payload=json.dumps(payload)))
        for shown in (text_line(line), json_line(line)):
            assert secret not in shown
            assert HIDDEN in shown
    assert '"60"' in text_line(read(outbound("call", payload=json.dumps({"setVariableData": variables}))))


def test_a_line_is_cut_to_the_width_and_stays_one_line() -> None:
    line = read(outbound("call", payload=json.dumps({"text": "a\nb" * 100})))
    shown = text_line(line, 60)
    assert "\n" not in shown
    assert "…" in shown
    assert json.loads(json_line(line))["content"]["text"] == "a\nb" * 100
