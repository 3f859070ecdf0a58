"""Replies: written in straight lines, in the bytes of the schema."""

from __future__ import annotations

import json
from typing import Any

import pytest

from busbar.avro import encode
from busbar.ocpp.versions import Version
from busbar.records import Result, StationCall
from busbar.stream.replies import reply


@pytest.mark.parametrize("payload", [{}, {"idTokenInfo": {"status": "Accepted"}}, {"text": "ä" * 9000}])
@pytest.mark.parametrize(("station_id", "message_id"), [("CS-1", "m-1"), ("Säule/1", "x" * 300), ("", "")])
def test_a_reply_has_the_bytes_of_its_schema(payload: dict[str, Any], station_id: str, message_id: str) -> None:
    call = StationCall(station_id, "connection-1", "edge-0", 3, Version.V201, 1, message_id, 5, "TransactionEvent", {})
    for _ in range(2):  # the second time from what is remembered of the connection
        made = reply(call, payload, "sessions", 1_777_889_472_345)
        value = {
            "station_id": station_id,
            "connection_id": "connection-1",
            "kind": "result",
            "message_id": message_id,
            "action": "TransactionEvent",
            "payload": json.dumps(payload, ensure_ascii=False, separators=(",", ":")),
            "produced_by": "sessions",
            "produced_at": 1_777_889_472_345,
        }
        expected = encode("csms.OutboundMessage", value)
        assert made == Result("csms.outbound", station_id.encode(), expected, 3, (), 1_777_889_472_345)
