"""The real application on a real PostgreSQL, with a broker in memory, and a router that a test plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import pytest

from busbar.avro import decode, encode
from busbar.postgres import connect_pool
from busbar.service import Health
from busbar.stream.memory import MemoryBroker
from busbar.tariffs import TariffBook
from busbar.topics import all_topics
from services.api.app import create_app
from services.api.auth import KeyRing
from services.api.clock import wall_clock_ms
from services.api.config import ApiConfig
from services.api.context import Api
from services.api.directory import StationDirectory
from services.api.gateway import COMMANDS, EVENTS, CommandGateway
from services.api.keys import create_key

TABLES = (
    "config.stations",
    "config.tokens",
    "config.api_keys",
    "config.tariffs",
    "config.tariff_assignments",
    "config.sites",
    "router.connections",
    "router.edges",
    "router.commands",
    "router.command_events",
    "stations.stations",
    "stations.connectors",
    "sessions.transactions",
    "sessions.meter_values",
    "sessions.sample_shapes",
    "sessions.signed_values",
    "sessions.tariff_changes",
    "sessions.reservations",
    "billing.facts",
    "billing.cdrs",
    "billing.sessions",
    "billing.settlements",
    "billing.station_costs",
    "billing.unattributed",
)
EMPTY = "; ".join(f"DELETE FROM {table}" for table in TABLES)


@dataclass
class Rig:
    """The API and what is around it."""

    api: Api
    health: Health
    broker: MemoryBroker
    pool: asyncpg.Pool[Any]
    admin: httpx.AsyncClient
    operator: httpx.AsyncClient
    viewer: httpx.AsyncClient
    stranger: httpx.AsyncClient

    def commands(self) -> list[dict[str, Any]]:
        """Everything on `csms.commands`."""
        return [decode(record.value or b"")[1] for record in self.broker.records(COMMANDS)]

    async def next_command(self, number: int = 0) -> dict[str, Any]:
        """The command of this number, once it is on the topic."""
        async with asyncio.timeout(5):
            while len(self.commands()) <= number:
                await self.broker.arrival(0.1)
        return self.commands()[number]

    def report(self, command: dict[str, Any], stage: str, *, source: str = "edge", **fields: Any) -> None:
        """Put a stage of a command on `csms.command-events`, as the edge and the router do."""
        value = {
            "command_id": command["command_id"],
            "station_id": command["station_id"],
            "action": command["action"],
            "stage": stage,
            "source": source,
            "at": wall_clock_ms(),
            "connection_id": "a",
            "edge": "edge-0",
            "ocpp_version": "1.6",
            **fields,
        }
        now_ms = wall_clock_ms()
        self.broker.write(EVENTS, 0, key=b"x", value=encode("csms.CommandEvent", value), timestamp_ms=now_ms)

    async def online(self, station_id: str, version: str = "1.6", edge_partition: int = 3) -> None:
        """Give a station a connection, as the router writes it."""
        await self.pool.execute(
            "INSERT INTO router.connections (station_id, partition, connection_id, edge, edge_instance,"
            " edge_partition, ocpp_version, subprotocol, remote_address, security_profile, connected_at, online)"
            " VALUES ($1, 0, 'a', 'edge-0', 'i1', $3, $2, 'ocpp' || $2, '192.0.2.1', 1, now(), true)",
            station_id,
            version,
            edge_partition,
        )


@pytest.fixture(scope="module")
async def module_pool(postgres_url: str) -> AsyncIterator[asyncpg.Pool[Any]]:
    pool = await connect_pool(postgres_url, service="api-test")
    yield pool
    pool.terminate()


def memory_broker() -> MemoryBroker:
    return MemoryBroker({name: topic.partitions("local") for name, topic in all_topics().items()})


@pytest.fixture
async def rig(module_pool: asyncpg.Pool[Any]) -> AsyncIterator[Rig]:
    async with opened_rig(module_pool, ApiConfig(pepper=b"p" * 32, station_cache_seconds=0)) as opened:
        yield opened


@pytest.fixture
def make_rig(module_pool: asyncpg.Pool[Any]) -> Callable[[ApiConfig], Any]:
    return lambda config: opened_rig(module_pool, config)


@asynccontextmanager
async def opened_rig(pool: asyncpg.Pool[Any], config: ApiConfig) -> AsyncIterator[Rig]:
    await pool.execute(EMPTY)
    broker = memory_broker()
    producer = broker.producer()
    gateway = CommandGateway(producer, broker.consumer(), pool, max_waiting=config.max_waiting)
    await gateway.start()
    async with pool.acquire() as connection:
        keys = {role: await create_key(connection, role, role) for role in ("admin", "operator", "viewer")}  # type: ignore[arg-type]
    ring = KeyRing(pool)
    await ring.refresh()
    directory = StationDirectory(pool, config.station_cache_seconds)
    api = Api(config, pool, ring, directory, gateway, wall_clock_ms, TariffBook(config.time_zone))
    health = Health(ready={"all": lambda: None})
    app = create_app(api, health)
    running = asyncio.create_task(gateway.run())

    def client(key: str | None) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        transport = httpx.ASGITransport(app=app)
        return httpx.AsyncClient(transport=transport, base_url="http://api.test", headers=headers)

    async with (
        client(keys["admin"]) as admin,
        client(keys["operator"]) as operator,
        client(keys["viewer"]) as viewer,
        client(None) as stranger,
    ):
        yield Rig(api, health, broker, pool, admin, operator, viewer, stranger)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
