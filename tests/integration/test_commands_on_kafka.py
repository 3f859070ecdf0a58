"""A command from the HTTP API through the router to an edge and back, on real Kafka and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest

from busbar.config import Env
from busbar.postgres import connect_pool
from busbar.service import Health
from services.api.app import create_app, opened_gateway
from services.api.auth import KeyRing
from services.api.clock import wall_clock_ms
from services.api.config import ApiConfig
from services.api.context import Api
from services.api.directory import StationDirectory
from services.api.keys import create_key
from services.router.app import main as router_main
from tests.support.scripted_edge import ScriptedEdge, scripted_edge

RESET = {"type": "Soft"}


@pytest.fixture(scope="module")
async def pool(postgres_url: str) -> AsyncIterator[asyncpg.Pool[Any]]:
    opened = await connect_pool(postgres_url, service="test")
    yield opened
    opened.terminate()


@asynccontextmanager
async def router(servers: str, url: str) -> AsyncIterator[None]:
    """A router that runs; it hands its partitions over at the end."""
    env = Env({"KAFKA_BOOTSTRAP_SERVERS": servers, "DATABASE_URL": url, "BUSBAR_ROUTER_CLOSE_GRACE_SECONDS": "1"})
    stop = asyncio.Event()
    running = asyncio.create_task(router_main(env, Health(), stop))
    try:
        yield
    finally:
        stop.set()
        await running


@pytest.fixture(scope="module")
async def client(topics: str, postgres_url: str, pool: asyncpg.Pool[Any]) -> AsyncIterator[httpx.AsyncClient]:
    config = ApiConfig(bootstrap_servers=topics, database_url=postgres_url, station_cache_seconds=0)
    async with opened_gateway(config, pool) as gateway:
        async with pool.acquire() as connection:
            key = await create_key(connection, "test", "admin")  # type: ignore[arg-type]
        keys = KeyRing(pool)
        await keys.refresh()
        api = Api(config, pool, keys, StationDirectory(pool, 0), gateway, wall_clock_ms)
        running = asyncio.create_task(gateway.run())
        transport = httpx.ASGITransport(app=create_app(api, Health()))
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://t", headers=headers, timeout=60) as http:
            yield http
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture(scope="module")
async def running_router(topics: str, postgres_url: str) -> AsyncIterator[None]:
    async with router(topics, postgres_url):
        yield


@pytest.fixture(scope="module")
async def edge(topics: str) -> AsyncIterator[ScriptedEdge]:
    async with scripted_edge(topics, "edge-0", 0) as opened:
        yield opened


@pytest.fixture(scope="module")
async def other_edge(topics: str) -> AsyncIterator[ScriptedEdge]:
    async with scripted_edge(topics, "edge-1", 1) as opened:
        yield opened


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - another process brings it about
            await asyncio.sleep(0.05)


async def online(pool: asyncpg.Pool[Any], station: str, connection: str, value: bool = True) -> None:
    query = "SELECT online AND connection_id = $2 FROM router.connections WHERE station_id = $1"
    if not value:
        query = "SELECT NOT online AND connection_id = $2 FROM router.connections WHERE station_id = $1"
    await until(lambda: pool.fetchval(query, station, connection))


pytestmark = pytest.mark.usefixtures("running_router")


async def test_a_command_reaches_its_station_and_the_answer_the_caller(
    client: httpx.AsyncClient, pool: asyncpg.Pool[Any], edge: ScriptedEdge
) -> None:
    edge.connect("CS-A", "a1")
    await online(pool, "CS-A", "a1")
    response = await client.post("/v1/stations/CS-A/commands/Reset", json=RESET)
    assert response.status_code == 200
    assert response.json()["answer"] == {"status": "Accepted"}
    shown = (await client.get(response.headers["location"])).json()
    assert shown["stages"][0]["stage"] == "dispatched"
    system = (await client.get("/v1/system")).json()
    assert [item["group"] for item in system["processors"]] == ["router"]


async def test_a_station_that_has_moved_is_reached_on_its_new_edge_and_its_old_socket_is_closed(
    client: httpx.AsyncClient, pool: asyncpg.Pool[Any], edge: ScriptedEdge, other_edge: ScriptedEdge
) -> None:
    edge.connect("CS-B", "b1")
    await online(pool, "CS-B", "b1")
    other_edge.connect("CS-B", "b2")
    await online(pool, "CS-B", "b2")
    response = await client.post("/v1/stations/CS-B/commands/Reset", json=RESET)
    assert response.json()["outcome"] == "answered"
    assert [call["connection_id"] for call in other_edge.calls] == ["b2"]

    async def closed() -> bool:
        return [close["connection_id"] for close in edge.closes] == ["b1"]

    await until(closed)


async def test_a_command_to_a_socket_that_has_just_gone_is_not_lost(
    client: httpx.AsyncClient, pool: asyncpg.Pool[Any], edge: ScriptedEdge, other_edge: ScriptedEdge
) -> None:
    edge.connect("CS-C", "c1")
    await online(pool, "CS-C", "c1")
    gone = edge.connections.pop("c1")  # the edge knows, the log does not yet
    request = asyncio.create_task(client.post("/v1/stations/CS-C/commands/Reset", json=RESET))

    async def handed_back() -> bool:
        return any(call["connection_id"] == "c1" for call in edge.calls)

    await until(handed_back)
    edge.connections["c1"] = gone
    edge.disconnect("c1")
    other_edge.connect("CS-C", "c2")
    response = await request
    assert response.json()["outcome"] == "answered"
    shown = (await client.get(response.headers["location"])).json()
    assert [stage["stage"] for stage in shown["stages"] if stage["source"] == "router"] == ["dispatched"] * 2


async def test_an_offline_station_is_reported_and_a_parked_command_waits_for_it(
    client: httpx.AsyncClient, pool: asyncpg.Pool[Any], edge: ScriptedEdge
) -> None:
    edge.connect("CS-D", "d1")
    await online(pool, "CS-D", "d1")
    edge.disconnect("d1")
    await online(pool, "CS-D", "d1", value=False)
    offline = await client.post("/v1/stations/CS-D/commands/Reset", json=RESET)
    assert (offline.status_code, offline.json()["outcome"]) == (409, "offline")
    request = asyncio.create_task(client.post("/v1/stations/CS-D/commands/Reset?park=true", json=RESET))
    await until(lambda: pool.fetchval("SELECT true FROM router.commands WHERE stage = 'parked'"))
    edge.connect("CS-D", "d2")
    assert (await request).json()["outcome"] == "answered"


async def test_a_silent_station_and_an_edge_that_dies_lead_to_an_outcome(
    client: httpx.AsyncClient, pool: asyncpg.Pool[Any], topics: str
) -> None:
    async with scripted_edge(topics, "edge-9", 9) as doomed:
        doomed.answer = lambda _: None
        doomed.connect("CS-E", "e1")
        await online(pool, "CS-E", "e1")
        request = asyncio.create_task(client.post("/v1/stations/CS-E/commands/Reset?wait=30", json=RESET))
        await until(lambda: pool.fetchval("SELECT true FROM router.commands WHERE stage = 'sent'"))
    async with scripted_edge(topics, "edge-9", 9, instance="i2"):
        response = await request
    assert (response.status_code, response.json()["outcome"]) == (502, "disconnected")
    await online(pool, "CS-E", "e1", value=False)


async def test_commands_wait_in_the_log_while_the_router_is_away(
    client: httpx.AsyncClient, pool: asyncpg.Pool[Any], edge: ScriptedEdge, topics: str, postgres_url: str
) -> None:
    edge.connect("CS-F", "f1")
    await online(pool, "CS-F", "f1")
    requests = [asyncio.create_task(client.post("/v1/stations/CS-F/commands/Reset", json=RESET)) for _ in range(20)]
    async with router(topics, postgres_url):  # a second one takes its share, and gives it back
        requests += [
            asyncio.create_task(client.post("/v1/stations/CS-F/commands/Reset", json=RESET)) for _ in range(20)
        ]
        await asyncio.sleep(1)
    outcomes = [(await request).json()["outcome"] for request in requests]
    assert outcomes == ["answered"] * 40
    sent = [call["command_id"] for call in edge.calls if call["connection_id"] == "f1"]
    assert len(set(sent)) == 40
