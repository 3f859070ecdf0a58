"""The records that the edge produces, apart from the CALLs themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from busbar.avro import encode, meta_prefix
from busbar.ocpp.versions import Version
from busbar.records import Headers
from services.edge.clock import Instant

MALFORMED_TOPIC = "ocpp.malformed"
COMMAND_EVENTS_TOPIC = "csms.command-events"
CONNECTIONS_TOPIC = "csms.connections"
EDGES_TOPIC = "csms.edges"
OUTBOUND_TOPIC = "csms.outbound"

MAX_MALFORMED_TEXT = 8 * 1024
_MAX_INT = 2**31 - 1


class Durable(Protocol):
    """Wants to know when its record is safe."""

    def mark_durable(self) -> None: ...


class Publication(NamedTuple):
    """A record to produce. `call` is told when it is durable."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    timestamp_ms: int
    headers: Headers = ()
    call: Durable | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """What does not change while a connection lives."""

    station_id: str
    connection_id: str
    edge: str
    edge_partition: int
    version: Version
    partition: int
    """Of every topic that is keyed by station."""
    key: bytes = field(init=False)
    prefix: bytes = field(init=False)
    """The beginning of `csms.Meta`, encoded."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.station_id.encode())
        prefix = meta_prefix(self.station_id, self.connection_id, self.edge, self.edge_partition, self.version)
        object.__setattr__(self, "prefix", prefix)


@dataclass(frozen=True, slots=True)
class Malformed:
    """What was wrong with a frame."""

    text: str
    """The frame, or its beginning."""
    size: int
    """Of all of it, in bytes."""
    code: str
    description: str
    message_id: str = ""
    action: str = ""


def malformed_record(identity: Identity, sequence: int, what: Malformed, now: Instant) -> Publication:
    """A `csms.MalformedFrame`."""
    value = {
        "meta": {
            "station_id": identity.station_id,
            "connection_id": identity.connection_id,
            "edge": identity.edge,
            "edge_partition": identity.edge_partition,
            "ocpp_version": identity.version.value,
            "sequence": sequence,
            "message_id": what.message_id,
            "received_at": now.unix_ms,
        },
        "frame": without_nul(what.text),
        "frame_bytes": min(what.size, _MAX_INT),
        "action": without_nul(what.action)[:255],
        "error_code": what.code,
        "error_description": without_nul(what.description),
    }
    encoded = encode("csms.MalformedFrame", value)
    return Publication(MALFORMED_TOPIC, identity.partition, identity.key, encoded, now.unix_ms)


def command_record(
    identity: Identity, command_id: str, action: str, stage: str, now: Instant, **fields: str
) -> Publication:
    """A `csms.CommandEvent` of a connection."""
    value = {
        "command_id": command_id,
        "station_id": identity.station_id,
        "action": action,
        "stage": stage,
        "source": "edge",
        "at": now.unix_ms,
        "connection_id": identity.connection_id,
        "edge": identity.edge,
        "ocpp_version": identity.version.value,
        **fields,
    }
    encoded = encode("csms.CommandEvent", value)
    return Publication(COMMAND_EVENTS_TOPIC, identity.partition, identity.key, encoded, now.unix_ms)


def undelivered_value(message: Mapping[str, Any], edge: str, now: Instant) -> bytes:
    """The `csms.CommandEvent` for a command whose connection is not here (any more)."""
    value = {
        "command_id": message["command_id"] or message["message_id"],
        "station_id": message["station_id"],
        "action": message["action"],
        "stage": "undelivered",
        "source": "edge",
        "at": now.unix_ms,
        "connection_id": message["connection_id"],
        "edge": edge,
    }
    return encode("csms.CommandEvent", value)


def without_nul(text: str) -> str:
    """A station's text as PostgreSQL can store it."""
    return text.replace("\0", "")
