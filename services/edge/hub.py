"""All sockets of one edge process: who is connected, what is delivered to whom, and the one sweep over all of them."""

from __future__ import annotations

import logging
import random
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from busbar.avro import InvalidAvro, decode, encode
from busbar.ocpp.versions import SUBPROTOCOLS, Version
from busbar.records import Record
from busbar.stream.interfaces import Producer
from services.edge.clock import Clock, Instant
from services.edge.config import EdgeConfig
from services.edge.connection import ConnectionRules, StationConnection
from services.edge.door import Admitted, Door
from services.edge.handshake import Refusal, busy
from services.edge.metrics import EdgeMetrics
from services.edge.path import KafkaPath
from services.edge.records import (
    COMMAND_EVENTS_TOPIC,
    CONNECTIONS_TOPIC,
    EDGES_TOPIC,
    OUTBOUND_TOPIC,
    Identity,
    Publication,
    undelivered_value,
)
from services.edge.routes import make_routes

if TYPE_CHECKING:
    from services.edge.protocol import StationProtocol

logger = logging.getLogger(__name__)

BUCKETS = 16
"""The sweep visits one bucket of sockets after another, so that it never holds up the loop for long."""
SWEEP_SECONDS = 1.0
"""In which every socket is visited once."""
STARVED_SECONDS = 0.1
STARVED_FRAMES = 2_000
"""So long after the last tick, and after so many frames since, sockets that bring something wait for the next."""
_LOG_AGAIN_SECONDS = 60.0
_MAX_LOGGED = 10_000


class Hub:
    """What the sockets of a process share."""

    def __init__(self, config: EdgeConfig, producer: Producer, door: Door, metrics: EdgeMetrics, clock: Clock) -> None:
        self.config = config
        self.producer = producer
        self.door = door
        self.metrics = metrics
        self.clock = clock
        self.path = KafkaPath(config.kafka_grace_seconds)
        self.instance = secrets.token_hex(8)
        """Changes at each start, so that nothing stale matches."""
        self.address = ""
        """Where it listens, for `csms.edges`."""
        self.draining = False
        self.connections: dict[str, StationProtocol] = {}
        self.max_unacknowledged_bytes = config.max_unacknowledged_bytes
        """Above this a socket that brings something is not read until Kafka has caught up."""
        self.patience_until = float("inf")
        """After this (monotonic) the loop's timers are starved by busy sockets, which then wait for the next tick."""
        self._buckets: list[set[StationProtocol]] = [set() for _ in range(BUCKETS)]
        self._next_bucket = 0
        self._connection_number = 0
        self._marker_number = 0
        self._frames_at_tick = 0
        self._paused: set[StationProtocol] = set()
        self._logged: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._rules = ConnectionRules(config.late_seconds, config.call_timeout_seconds)
        self._routes = {version: make_routes(version, metrics) for version in Version}
        self._partition_key = config.edge.encode()
        door.gates.append(self._gate)

    def _gate(self) -> Refusal | None:
        if self.draining:
            return busy("draining", "this edge is stopping: connect again")
        if self.path.is_down:
            # An offline station keeps its transactions; a connected one may throw them away after its retries.
            return busy("kafka_down", "the event log cannot be reached: keep your messages and try again")
        return None

    # Sockets

    def opened(self, protocol: StationProtocol) -> None:
        """A socket was accepted; its handshake begins."""
        self._buckets[protocol.number % BUCKETS].add(protocol)
        self.metrics.handshaking += 1

    def next_number(self) -> int:
        """The number of the next socket, unique in this process."""
        self._connection_number += 1
        return self._connection_number

    def connect(self, protocol: StationProtocol, admitted: Admitted, now: Instant) -> StationConnection:
        """A handshake succeeded: make the connection and tell the router. Raises `UnknownTopic`."""
        settings, version = admitted.settings, SUBPROTOCOLS[admitted.subprotocol]
        key = settings.station_id.encode()
        identity = Identity(
            station_id=settings.station_id,
            connection_id=f"{self.instance}-{protocol.number:x}",
            edge=self.config.edge,
            edge_partition=self.config.edge_partition,
            version=version,
            # All topics that are keyed by station have the same number of partitions.
            partition=self.producer.partition_for(CONNECTIONS_TOPIC, key),
        )
        connection = StationConnection(
            identity,
            self._routes[version],
            self.metrics,
            self._rules,
            trace=secrets.token_hex(8).encode(),
            source=f"/edges/{quote(self.config.edge)}/stations/{quote(settings.station_id, safe='')}".encode(),
        )
        self.connections[identity.connection_id] = protocol
        self.metrics.handshaking -= 1
        self.metrics.connections[version.value] += 1
        return connection

    def publish_connected(self, protocol: StationProtocol, identity: Identity, now: Instant) -> None:
        """Tell the router who holds the socket."""
        self._publish_connection(protocol, identity, now, event="connected")

    def closed(
        self, protocol: StationProtocol, identity: Identity | None, now: Instant, code: int, reason: str
    ) -> None:
        """A socket is gone."""
        self._buckets[protocol.number % BUCKETS].discard(protocol)
        self._paused.discard(protocol)
        self.metrics.paused_sockets = len(self._paused)
        if identity is None:
            self.metrics.handshaking -= 1
            return
        del self.connections[identity.connection_id]
        self.metrics.connections[identity.version.value] -= 1
        self._publish_connection(protocol, identity, now, event="disconnected", close_code=code, reason=reason)

    def _publish_connection(self, protocol: StationProtocol, identity: Identity, now: Instant, **fields: Any) -> None:
        value = {
            "station_id": identity.station_id,
            "connection_id": identity.connection_id,
            "edge": identity.edge,
            "edge_instance": self.instance,
            "edge_partition": identity.edge_partition,
            "ocpp_version": identity.version.value,
            "subprotocol": protocol.subprotocol,
            "remote_address": protocol.address,
            "security_profile": protocol.security_profile,
            "at": now.unix_ms,
            "connected_at": protocol.connected_at_ms,
            **fields,
        }
        self.produce(
            Publication(
                CONNECTIONS_TOPIC,
                identity.partition,
                identity.key,
                encode("csms.ConnectionEvent", value),
                now.unix_ms,
            )
        )

    # Kafka

    def produce(self, record: Publication) -> None:
        """Hand a record to the producer. Raises `RecordTooLarge`."""
        topic, partition, key, value, timestamp_ms, headers, call = record
        self.producer.append(
            topic,
            partition,
            key=key,
            value=value,
            timestamp_ms=timestamp_ms,
            headers=headers,
            on_ack=None if call is None else call.mark_durable,
        )

    def deliver(self, records: Iterable[Record]) -> None:
        """Hand each record of our partition of `csms.outbound` to its connection, or drop and count it (rule 4)."""
        now = self.clock.read()
        for record in records:
            try:
                _, message = decode(record.value or b"")
            except InvalidAvro as error:
                self.metrics.outbound["unreadable", "dropped"] += 1
                logger.error("an outbound record cannot be read", extra={"offset": record.offset, "error": str(error)})
                continue
            protocol = self.connections.get(message["connection_id"])
            if protocol is not None:
                protocol.receive_outbound(message, now)
            elif message["kind"] == "marker":
                self._receive_marker(message, now)
            else:
                self._drop(message, now)

    def _drop(self, message: Mapping[str, Any], now: Instant) -> None:
        kind = message["kind"]
        self.metrics.outbound[kind, "stale"] += 1
        if kind != "call":
            return
        # A command for a connection that has gone is handed back, so that the router can try another.
        key = message["station_id"].encode()
        partition = self.producer.partition_for(COMMAND_EVENTS_TOPIC, key)
        self.metrics.commands["undelivered"] += 1
        value = undelivered_value(message, self.config.edge, now)
        self.produce(Publication(COMMAND_EVENTS_TOPIC, partition, key, value, now.unix_ms))

    def send_marker(self) -> None:
        """Send a record to ourselves."""
        now = self.clock.read()
        self._marker_number += 1
        value = {
            "station_id": "",
            "connection_id": self.instance,
            "kind": "marker",
            "message_id": str(self._marker_number),
            "action": "",
            "produced_by": self.config.edge,
            "produced_at": now.unix_ms,
        }
        encoded = encode("csms.OutboundMessage", value)
        self.produce(Publication(OUTBOUND_TOPIC, self.config.edge_partition, self._partition_key, encoded, now.unix_ms))

    def _receive_marker(self, message: Mapping[str, Any], now: Instant) -> None:
        if message["connection_id"] == self.instance and self.path.prove(now.monotonic):
            logger.info("the way through Kafka works: stations are let in")

    def announce(self, event: str) -> None:
        """Tell `csms.edges` that this process started, is alive, drains or has stopped."""
        now = self.clock.read()
        value = {
            "edge": self.config.edge,
            "edge_instance": self.instance,
            "edge_partition": self.config.edge_partition,
            "event": event,
            "connections": len(self.connections),
            "address": self.address,
            "at": now.unix_ms,
        }
        partition = self.producer.partition_for(EDGES_TOPIC, self._partition_key)
        encoded = encode("csms.EdgeEvent", value)
        self.produce(Publication(EDGES_TOPIC, partition, self._partition_key, encoded, now.unix_ms))

    # Back-pressure

    def is_overloaded(self, now: Instant) -> bool:
        """Whether a socket that has brought something has to wait: for Kafka, or for the loop's timers."""
        if self.producer.unacknowledged_bytes > self.max_unacknowledged_bytes:
            return True
        # A process that was merely not scheduled for a while has handled few frames since.
        return (
            now.monotonic > self.patience_until and self.metrics.frames_received - self._frames_at_tick > STARVED_FRAMES
        )

    def pause(self, protocol: StationProtocol) -> None:
        """Remember a socket that is not read until the next tick."""
        self._paused.add(protocol)
        self.metrics.backpressure_pauses += 1
        self.metrics.paused_sockets = len(self._paused)

    def tick(self) -> None:
        """Read from paused sockets again, unless more than three quarters of the bound are unacknowledged.

        uvloop polls busy sockets dozens of times before it runs a timer: 5,000 stations that send without a pause
        would hold up the producer's own tick for a second. So sockets that bring something while a tick is overdue
        are paused.
        """
        self.patience_until = self.clock.read().monotonic + STARVED_SECONDS
        self._frames_at_tick = self.metrics.frames_received
        if self._paused and self.producer.unacknowledged_bytes <= self.max_unacknowledged_bytes * 3 // 4:
            paused, self._paused = self._paused, set()
            self.metrics.paused_sockets = 0
            for protocol in paused:
                protocol.resume_after_backpressure()

    # Time

    def sweep(self) -> None:
        """Visit the next bucket of sockets. Called `BUCKETS` times in `SWEEP_SECONDS`."""
        now = self.clock.read()
        bucket = self._buckets[self._next_bucket]
        self._next_bucket = (self._next_bucket + 1) % BUCKETS
        for protocol in list(bucket):
            protocol.sweep(now)

    def all_sockets(self) -> list[StationProtocol]:
        """Every socket, those in their handshake or closing included."""
        return [protocol for bucket in self._buckets for protocol in bucket]

    def sockets(self) -> list[StationProtocol]:
        """All sockets with a connection, in random order, for closing them one after another."""
        found = list(self.connections.values())
        random.shuffle(found)
        return found

    def should_log(self, who: str, outcome: str, now: Instant) -> bool:
        """Whether to write a line about something that a station or address may do again and again."""
        last = self._logged.get((who, outcome))
        if last is not None and now.monotonic - last < _LOG_AGAIN_SECONDS:
            return False
        self._logged[who, outcome] = now.monotonic
        self._logged.move_to_end((who, outcome))
        if len(self._logged) > _MAX_LOGGED:
            self._logged.popitem(last=False)
        return True
