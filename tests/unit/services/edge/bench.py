"""A station's connection on the test bench: frames in as Python values, frames and records out."""

from __future__ import annotations

from typing import Any

import orjson

from busbar.avro import decode, decode_call
from busbar.ocpp.versions import Version
from busbar.records import StationCall
from services.edge.clock import Instant
from services.edge.connection import ConnectionRules, StationConnection
from services.edge.metrics import EdgeMetrics
from services.edge.records import Identity, Publication
from services.edge.routes import make_routes

START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def outbound(**fields: Any) -> dict[str, Any]:
    """The fields of a `csms.OutboundMessage`."""
    return {
        "station_id": "CP1", "connection_id": "c-1", "kind": "result", "message_id": "1", "action": "", "payload": "",
        "error_code": "", "error_description": "", "error_details": "", "command_id": "", "deadline_at": 0,
        "priority": 0, "close_code": 0, "produced_by": "test", "produced_at": START_MS, **fields,
    }  # fmt: skip


class Bench:
    """One `StationConnection` and its clock."""

    def __init__(self, version: Version = Version.V16, **rules: float) -> None:
        self.version = version
        self.metrics = EdgeMetrics()
        identity = Identity("CP1", "c-1", "edge-0", 3, version, 2)
        self.connection = StationConnection(
            identity,
            make_routes(version, self.metrics),
            self.metrics,
            ConnectionRules(**rules),
            trace=b"0123456789abcdef",
            source=b"/edges/edge-0/stations/CP1",
        )
        self.seconds = 0.0

    @property
    def now(self) -> Instant:
        return Instant.at(START_MS + int(self.seconds * 1000), 1000.0 + self.seconds)

    def wait(self, seconds: float) -> None:
        """Let time pass, and sweep."""
        self.seconds += seconds
        self.connection.sweep(self.now)

    def send(self, *frame: Any) -> list[Any]:
        """Send a frame as the station; returns the frames that come back at once."""
        return self.send_text(orjson.dumps(frame))

    def send_text(self, text: bytes) -> list[Any]:
        self.connection.receive_text(text, self.now)
        return self.frames()

    def deliver(self, **fields: Any) -> list[Any]:
        """Deliver a record of `csms.outbound`; returns the frames that it leads to."""
        if not isinstance(fields.get("payload", ""), str):
            fields["payload"] = orjson.dumps(fields["payload"]).decode()
        if fields.get("kind") == "call":
            fields.setdefault("command_id", fields["message_id"])
        self.connection.receive_outbound(outbound(**fields), self.now)
        return self.frames()

    def frames(self) -> list[Any]:
        return [orjson.loads(frame) for frame in self.connection.frames_to_send()]

    def publications(self) -> list[Publication]:
        return list(self.connection.records_to_publish())

    def make_durable(self) -> None:
        for record in self.publications():
            if record.call is not None:
                record.call.mark_durable()

    def calls(self) -> list[StationCall]:
        """The CALLs that were published since the last look."""
        return [decode_call(record.value) for record in self.publications() if record.topic.startswith("ocpp.v")]

    def events(self) -> list[dict[str, Any]]:
        """The other records that were published since the last look, decoded."""
        return [decode(record.value)[1] for record in self.publications() if not record.topic.startswith("ocpp.v")]

    def stages(self) -> list[tuple[str, str]]:
        """The command events since the last look: command id and stage."""
        return [(event["command_id"], event["stage"]) for event in self.events() if "stage" in event]
