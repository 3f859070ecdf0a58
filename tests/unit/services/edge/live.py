"""A whole edge on loopback sockets, with a broker in memory and stations in a dictionary."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from busbar.avro import decode, decode_call, encode
from busbar.passwords import hash_password
from busbar.records import StationCall
from busbar.service import Health
from busbar.stream.memory import MemoryBroker
from busbar.topics import all_topics
from services.edge.app import Edge, attach, make_edge, serve
from services.edge.config import EdgeConfig
from services.edge.handshake import StationSettings
from services.edge.metrics import EdgeMetrics
from tests.unit.services.edge.bench import outbound

PEPPER = b"pepper"
PASSWORD = "correct-horse-battery"


class Stations:
    """A `Source` that a test fills."""

    def __init__(self) -> None:
        self.rows: dict[str, StationSettings] = {}
        self.is_away = False
        self.reads: list[list[str]] = []

    def add(self, station_id: str, password: str | bytes | None = PASSWORD, **settings: Any) -> None:
        stored = None if password is None else hash_password(password, PEPPER, generated=True)
        settings.setdefault("password_hash", stored)
        self.rows[station_id] = StationSettings(station_id, **settings)

    async def read(self, station_ids: Iterable[str]) -> Mapping[str, StationSettings]:
        wanted = list(station_ids)
        self.reads.append(wanted)
        if self.is_away:
            raise ConnectionRefusedError("no Postgres")
        return {station_id: self.rows[station_id] for station_id in wanted if station_id in self.rows}


class LiveEdge:
    """An edge that serves, and hands to look into it."""

    def __init__(
        self, edge: Edge, broker: MemoryBroker, stations: Stations, stop: asyncio.Event, health: Health
    ) -> None:
        self.edge = edge
        self.broker = broker
        self.stations = stations
        self.stop = stop
        self.health = health
        self.host, self.port = edge.addresses[0]
        self.done: asyncio.Task[None] | None = None

    @property
    def metrics(self) -> EdgeMetrics:
        return self.edge.hub.metrics

    def url(self, station_id: str) -> str:
        return f"ws://{self.host}:{self.port}/ocpp/{station_id}"

    def connect(
        self,
        station_id: str = "CP1",
        password: str | bytes | None = PASSWORD,
        subprotocols: Iterable[str] | None = ("ocpp1.6",),
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> connect:
        """A WebSocket of a station."""
        fields = dict(headers or {})
        if password is not None:
            fields.setdefault("Authorization", basic(station_id, password))
        offered = None if subprotocols is None else [Subprotocol(name) for name in subprotocols]
        return connect(
            self.url(options.pop("path", station_id)),
            subprotocols=offered,
            additional_headers=fields,
            compression=None,
            ping_interval=None,
            proxy=None,
            **options,
        )

    async def http(self, request: bytes) -> bytes:
        """Everything that comes back to some bytes."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(request)
        try:
            return await asyncio.wait_for(reader.read(), 5)
        finally:
            writer.close()

    async def calls(self, topic: str, count: int = 1) -> list[StationCall]:
        """Wait until a topic of an action has so many records."""
        await self.until(lambda: len(self.broker.records(topic)) >= count)
        return [decode_call(record.value or b"") for record in self.broker.records(topic)]

    async def events(self, topic: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until another topic has so many records."""
        await self.until(lambda: len(self.broker.records(topic)) >= count)
        records = sorted(self.broker.records(topic), key=lambda record: record.timestamp_ms)
        return [decode(record.value or b"")[1] for record in records]

    def send(self, **fields: Any) -> None:
        """Put a record on the edge's partition of `csms.outbound`."""
        if not isinstance(fields.get("payload", ""), str):
            fields["payload"] = orjson.dumps(fields["payload"]).decode()
        value = encode("csms.OutboundMessage", outbound(**fields))
        key = str(fields.get("station_id", "CP1")).encode()
        partition = self.edge.hub.config.edge_partition
        self.broker.write("csms.outbound", partition, key=key, value=value, timestamp_ms=0)

    def answer(self, call: StationCall, payload: Any, **fields: Any) -> None:
        """Answer a CALL as its owner does."""
        self.send(
            station_id=call.station_id,
            connection_id=call.connection_id,
            message_id=call.message_id,
            action=call.action,
            payload=payload,
            **fields,
        )

    @staticmethod
    async def until(condition: Any, seconds: float = 5.0) -> None:
        """Wait for something that is about to happen."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - conditions of all kinds
                await asyncio.sleep(0.005)


def basic(user: str, password: str | bytes) -> str:
    """An Authorization header."""
    raw = password.encode() if isinstance(password, str) else password
    return "Basic " + b64encode(user.encode() + b":" + raw).decode()


def frame(*parts: Any) -> str:
    return orjson.dumps(parts).decode()


async def ask(socket: ClientConnection, *parts: Any) -> Any:
    """Send a frame and wait for the next one."""
    await socket.send(frame(*parts))
    return await hear(socket)


async def hear(socket: ClientConnection) -> Any:
    return orjson.loads(await asyncio.wait_for(socket.recv(), 5))


@asynccontextmanager
async def live_edge(**settings: Any) -> AsyncIterator[LiveEdge]:
    """A serving edge, drained at the end."""
    config = EdgeConfig(
        edge="edge-0",
        edge_partition=3,
        listen=("127.0.0.1", 0),
        password_pepper=PEPPER,
        **{"marker_interval_seconds": 0.1, "drain_seconds": 0.1, "close_timeout_seconds": 0.5, **settings},
    )
    broker = MemoryBroker({topic.name: topic.partitions("local") for topic in all_topics().values()})
    stations, stop, health = Stations(), asyncio.Event(), Health()
    stations.add("CP1")
    producer = broker.producer(flush_interval_seconds=0.001)
    await producer.start()
    async with make_edge(config, producer, stations, EdgeMetrics()) as edge:
        consumer = broker.consumer()
        await attach(edge, consumer)
        live = LiveEdge(edge, broker, stations, stop, health)
        live.done = asyncio.create_task(serve(edge, consumer, health, stop))
        try:
            await live.until(lambda: not edge.hub.path.is_down)
            yield live
        finally:
            stop.set()
            await asyncio.wait_for(live.done, 15)
