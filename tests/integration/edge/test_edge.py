"""The edge on a real broker and a real database: what it writes, what it delivers, and how it ends."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from busbar.avro import decode, decode_call, encode
from busbar.config import Env
from busbar.local.ports import free_port
from busbar.passwords import generate_password, hash_password
from busbar.records import Record, TopicPartition
from busbar.service import Health
from busbar.stream.kafka import KafkaConsumer, KafkaProducer
from busbar.topics import all_topics
from services.edge import app
from services.edge.metrics import EdgeMetrics

PEPPER = b"pepper"


class Log:
    """Reads topics from where they end now."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer
        self._seen: list[Record] = []

    async def next(self, topic: str) -> Record:
        """The next record of a topic."""
        async with asyncio.timeout(20):
            while True:
                for record in self._seen:
                    if record.topic == topic:
                        self._seen.remove(record)
                        return record
                for records in (await self._consumer.fetch(0.2)).values():
                    self._seen += records


@asynccontextmanager
async def _log(servers: str, *topics: str) -> AsyncIterator[Log]:
    async with KafkaConsumer(servers) as consumer:
        partitions = [(name, number) for name in topics for number in range(all_topics()[name].partitions("local"))]
        await consumer.assign({TopicPartition(name, number): None for name, number in partitions})
        yield Log(consumer)


@asynccontextmanager
async def _edge(
    servers: str, database: str, monkeypatch: pytest.MonkeyPatch, **settings: str
) -> AsyncIterator[tuple[int, Health, asyncio.Event]]:
    """A running edge: its port, its health, and the event that stops it."""
    monkeypatch.setattr(EdgeMetrics, "register", lambda self: None)
    monkeypatch.setattr(app, "_tune_garbage_collection", lambda: None)
    port, health, stop = free_port(), Health(), asyncio.Event()
    values = {
        "BUSBAR_EDGE_ID": "edge-5",
        "BUSBAR_EDGE_LISTEN": f"127.0.0.1:{port}",
        "BUSBAR_PASSWORD_PEPPER": b64encode(PEPPER).decode(),
        "BUSBAR_EDGE_MARKER_INTERVAL": "0.5",
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "DATABASE_URL": database,
        **settings,
    }
    running = asyncio.create_task(app.run(Env(values), health, stop))
    try:
        async with asyncio.timeout(60):
            while running.done() or not health.ready or health.problems(health.ready):
                await asyncio.sleep(0.05)
                if running.done():
                    running.result()
        yield port, health, stop
    finally:
        stop.set()
        await asyncio.wait_for(running, 30)


async def _register(database: str, station_id: str) -> str:
    password = generate_password()
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(
            "INSERT INTO config.stations (station_id, password_hash) VALUES ($1, $2)",
            station_id,
            hash_password(password, PEPPER, generated=True),
        )
    finally:
        await connection.close()
    return password


def _connect(port: int, station_id: str, password: str) -> connect:
    credentials = b64encode(f"{station_id}:{password}".encode()).decode()
    return connect(
        f"ws://127.0.0.1:{port}/ocpp/{station_id}",
        subprotocols=[Subprotocol("ocpp2.0.1")],
        additional_headers={"Authorization": f"Basic {credentials}"},
        compression=None,
        proxy=None,
    )


async def _hear(socket: ClientConnection) -> Any:
    return orjson.loads(await asyncio.wait_for(socket.recv(), 20))


async def test_a_call_goes_through_kafka_and_its_reply_comes_back(
    topics: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = await _register(postgres_url, "REAL-1")
    names = ("ocpp.v201.StatusNotification", "csms.connections", "csms.edges", "csms.command-events")
    async with _log(topics, *names) as log, _edge(topics, postgres_url, monkeypatch) as (port, health, stop):
        assert decode((await log.next("csms.edges")).value or b"")[1]["event"] == "started"
        with pytest.raises(InvalidStatus) as refused:
            await _connect(port, "REAL-1", "wrong")
        assert refused.value.response.status_code == 401
        async with _connect(port, "REAL-1", password) as socket, KafkaProducer(topics) as producer:
            connected = decode((await log.next("csms.connections")).value or b"")[1]
            assert (connected["event"], connected["edge_partition"]) == ("connected", 5)

            status = {
                "timestamp": "2026-01-01T00:00:00Z",
                "connectorStatus": "Available",
                "evseId": 1,
                "connectorId": 1,
            }
            await socket.send(orjson.dumps([2, "m1", "StatusNotification", status]).decode())
            record = await log.next("ocpp.v201.StatusNotification")
            call = decode_call(record.value or b"")
            assert (record.key, record.timestamp_ms, call.payload) == (b"REAL-1", call.received_at_ms, status)
            assert dict(record.headers)["ce_type"] == b"ocpp.v201.StatusNotification"

            def send(**fields: Any) -> None:
                message = {"station_id": "REAL-1", "connection_id": call.connection_id, "produced_by": "test"}
                value = encode("csms.OutboundMessage", {**message, "produced_at": 0, "action": "", **fields})
                producer.append("csms.outbound", 5, key=b"REAL-1", value=value, timestamp_ms=call.received_at_ms)

            send(kind="result", message_id="m1", payload="{}")
            assert await _hear(socket) == [3, "m1", {}]
            send(kind="call", message_id="c1", command_id="c1", action="ClearCache", payload="{}")
            assert await _hear(socket) == [2, "c1", "ClearCache", {}]
            await socket.send('[3,"c1",{"status":"Accepted"}]')
            stages = [decode((await log.next("csms.command-events")).value or b"")[1] for _ in range(2)]
            assert [stage["stage"] for stage in stages] == ["sent", "answered"]

            stop.set()
            with pytest.raises(ConnectionClosed):
                await _hear(socket)
            assert socket.close_code == 1012
            assert "draining" in health.problems(health.ready)
        gone = decode((await log.next("csms.connections")).value or b"")[1]
        assert (gone["event"], gone["close_code"]) == ("disconnected", 1012)
        edges = [decode((await log.next("csms.edges")).value or b"")[1]["event"]]
        while edges[-1] != "stopped":
            edges.append(decode((await log.next("csms.edges")).value or b"")[1]["event"])
        assert edges[-2:] == ["draining", "stopped"]
