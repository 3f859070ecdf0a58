"""What travels between the services: Kafka records, results to produce, and the events inside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from busbar.ocpp.versions import Version

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class TopicPartition:
    """A partition of a topic."""

    topic: str
    partition: int


@dataclass(slots=True)
class Record:
    """A record as read from the log.

    Not frozen, and `Result` neither, because a processor makes tens of thousands of these a second; they are values
    all the same.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """The edge's receive time for events of a station; the produce time otherwise. Unix milliseconds."""
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(slots=True)
class Result:
    """A record to produce once the batch that led to it is committed."""

    topic: str
    key: bytes
    """The station id in UTF-8, unless `schemas/topics.toml` gives the topic another key."""
    value: bytes
    """Avro in the Confluent wire format."""
    partition: int | None = None
    """Set for `csms.outbound` (the edge's partition); elsewhere murmur2 of the key decides."""
    headers: Headers = ()
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ReturnAddress:
    """Where the reply to a CALL goes: it is delivered to that very connection, or dropped (rule 4)."""

    edge_partition: int
    connection_id: str
    message_id: str


@dataclass(slots=True)
class StationCall:
    """A CALL of a station, as it travels on `ocpp.<version>.<Action>`.

    Not frozen, because a processor makes tens of thousands of these a second.
    """

    station_id: str
    connection_id: str
    edge: str
    """The pod that received it."""
    edge_partition: int
    version: Version
    sequence: int
    """Counts the CALLs of one connection from 1; orders them where topics interleave."""
    message_id: str
    received_at_ms: int
    """Unix milliseconds at the edge, never the station's clock."""
    action: str
    payload: dict[str, Any] = field(default_factory=dict)
    """The payload as the station sent it (after the repair of known quirks), unknown fields included."""

    @property
    def return_address(self) -> ReturnAddress:
        return ReturnAddress(self.edge_partition, self.connection_id, self.message_id)
