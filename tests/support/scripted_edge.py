"""An edge without sockets: it announces connections, and does with commands what a test says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from busbar.avro import decode, encode
from busbar.records import TopicPartition
from busbar.stream.kafka import KafkaConsumer, KafkaProducer


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class ScriptedEdge:
    """One edge pod, as the topics see it."""

    name: str
    partition: int
    producer: KafkaProducer
    consumer: KafkaConsumer
    instance: str = "i1"
    answer: Callable[[dict[str, Any]], str | None] = lambda _: '{"status":"Accepted"}'
    """The payload of the answer to a CALL; `None`: the station stays silent."""
    connections: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)
    closes: list[dict[str, Any]] = field(default_factory=list)

    async def run(self) -> None:
        """Announce liveness and carry commands out, until cancelled."""
        last = 0.0
        while True:
            if time.monotonic() - last > 2:
                last = time.monotonic()
                self.announce("alive")
            for records in (await self.consumer.fetch(0.2)).values():
                for record in records:
                    self.receive(decode(record.value or b"")[1])

    def announce(self, event: str) -> None:
        value = {
            "edge": self.name,
            "edge_instance": self.instance,
            "edge_partition": self.partition,
            "event": event,
            "connections": len(self.connections),
            "address": "127.0.0.1:1",
            "at": now_ms(),
        }
        self._produce("csms.edges", self.name, "csms.EdgeEvent", value)

    def connect(self, station_id: str, connection_id: str, version: str = "1.6") -> None:
        self.connections[connection_id] = {
            "station_id": station_id,
            "event": "connected",
            "connection_id": connection_id,
            "edge": self.name,
            "edge_instance": self.instance,
            "edge_partition": self.partition,
            "ocpp_version": version,
            "subprotocol": f"ocpp{version}",
            "remote_address": "192.0.2.1",
            "security_profile": 1,
            "at": now_ms(),
            "connected_at": now_ms(),
        }
        self._produce("csms.connections", station_id, "csms.ConnectionEvent", self.connections[connection_id])

    def disconnect(self, connection_id: str) -> None:
        known = self.connections.pop(connection_id)
        value = {**known, "event": "disconnected", "at": now_ms(), "close_code": 1000, "reason": "left"}
        self._produce("csms.connections", known["station_id"], "csms.ConnectionEvent", value)

    def receive(self, message: dict[str, Any]) -> None:
        if message["kind"] == "close":
            self.closes.append(message)
            if message["connection_id"] in self.connections:
                self.disconnect(message["connection_id"])
        elif message["kind"] == "call":
            self.calls.append(message)
            if message["connection_id"] not in self.connections:
                self.report(message, "undelivered")
                return
            self.report(message, "sent")
            answer = self.answer(message)
            if answer is not None:
                self.report(message, "answered", payload=answer)

    def report(self, message: dict[str, Any], stage: str, **fields: Any) -> None:
        value = {
            "command_id": message["command_id"],
            "station_id": message["station_id"],
            "action": message["action"],
            "stage": stage,
            "source": "edge",
            "at": now_ms(),
            "connection_id": message["connection_id"],
            "edge": self.name,
            "ocpp_version": self.connections.get(message["connection_id"], {}).get("ocpp_version", ""),
            **fields,
        }
        self._produce("csms.command-events", message["station_id"], "csms.CommandEvent", value)

    def _produce(self, topic: str, key: str, schema: str, value: dict[str, Any]) -> None:
        raw = key.encode()
        partition = self.producer.partition_for(topic, raw)
        self.producer.append(topic, partition, key=raw, value=encode(schema, value), timestamp_ms=value["at"])


@asynccontextmanager
async def scripted_edge(
    bootstrap_servers: str, name: str, partition: int, instance: str = "i1"
) -> AsyncIterator[ScriptedEdge]:
    """An edge that runs."""
    async with KafkaProducer(bootstrap_servers) as producer, KafkaConsumer(bootstrap_servers) as consumer:
        edge = ScriptedEdge(name, partition, producer, consumer, instance)
        await consumer.assign({TopicPartition("csms.outbound", partition): None})
        edge.announce("started")
        running = asyncio.create_task(edge.run())
        try:
            yield edge
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
