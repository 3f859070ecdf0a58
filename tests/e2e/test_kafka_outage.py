"""Kafka is killed under a busy system (rule 9): stations are sent away, and what they kept arrives once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from busbar.ocpp.versions import Version
from tests.e2e.scripted import Script, Tables, booted, check_energy, register, settled
from tests.e2e.system import System, dial, eventually, running
from tests.load.replay_client import Counts

STATIONS = 16
IDLE = 100
"""More stations, which only hold a connection to the first edge."""
STRETCH = 5.0
SPEED = 40.0 * STRETCH
"""Seconds of the stations' clocks in one of ours."""
GRACE_SECONDS = 5.0
"""Shorter than in the field, and longer than a busy machine stalls."""
RETRY_AFTER_SECONDS = 2


@pytest.fixture(scope="module")
async def system(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A system with a broker that may be killed."""
    settings = {
        "edge": {
            "BUSBAR_EDGE_KAFKA_GRACE": str(GRACE_SECONDS),
            "BUSBAR_EDGE_MARKER_INTERVAL": "0.5",
            "BUSBAR_EDGE_RETRY_AFTER": str(RETRY_AFTER_SECONDS),
        }
    }
    async with running(tmp_path_factory.mktemp("outage"), None, postgres_url, settings, edge=2) as one:
        yield one


class Idle:
    """A station that says nothing."""

    def __init__(self, system: System, number: int, password: str) -> None:
        self.station_id = f"IDLE-{number}"
        self.closed_at = 0.0
        self._system = system
        self._password = password
        self._socket: ClientConnection | None = None
        self._watching: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        self._socket = await dial(self._system.edges[0], self.station_id, self._password, "ocpp1.6")
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        assert self._socket is not None
        await self._socket.wait_closed()
        self.closed_at = time.monotonic()

    @property
    def close_code(self) -> int | None:
        return None if self._socket is None else self._socket.close_code

    async def leave(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._watching is not None:
            await self._watching


async def test_an_outage_of_kafka_sends_stations_away_and_brings_back_all_that_they_kept(
    system: System, postgres_url: str
) -> None:
    cluster = system.stack.kafka
    assert cluster is not None
    base = datetime.now(UTC) - timedelta(hours=2)
    scripts = [Script("OUTAGE", number, base, stretch=STRETCH) for number in range(STATIONS)]
    passwords, tables, counts = await register(system, scripts), Tables(postgres_url), Counts()
    idle = [Idle(system, number, await system.register(f"IDLE-{number}")) for number in range(IDLE)]
    players = await booted(system, scripts, passwords, counts)
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        playing = asyncio.gather(
            *(player.play(lambda: (time.monotonic() - began) * SPEED, SPEED) for player in players)
        )
        stack.callback(playing.cancel)
        for each in idle:
            await each.connect()
            stack.push_async_callback(each.leave)
        await eventually(lambda: all(player.done > 1 for player in players), "everybody to be busy", 60)
        assert [status for status, _ in await system.readiness("edge")] == [200, 200]

        await cluster.kill()

        async def sent_away() -> bool:
            metrics = await system.metrics("edge")
            return metrics.total("csms_edge_kafka_down") == 2 and metrics.total("csms_edge_connections") == 0

        await eventually(sent_away, "both edges to have no connection left", 60)
        await eventually(lambda: all(each.closed_at for each in idle), "the idle stations to notice")
        assert {each.close_code for each in idle} == {1013}
        closed = sorted(each.closed_at for each in idle)
        assert closed[-1] - closed[0] > 0.1, "ten at a time, and a pause of 50 ms between"
        for status, problems in await system.readiness("edge"):
            assert status == 503
            assert "no marker record has come back from Kafka" in problems["kafka"]
        for edge in system.edges:
            with pytest.raises(InvalidStatus) as refused:
                await dial(edge, "IDLE-0", "whatever", "ocpp1.6")
            response = refused.value.response
            assert response.status_code == 503
            assert RETRY_AFTER_SECONDS <= int(response.headers["Retry-After"]) <= 2 * RETRY_AFTER_SECONDS
        assert (await system.metrics("edge")).total("csms_edge_handshakes_total", outcome="kafka_down") > 2
        done = [player.done for player in players]
        await asyncio.sleep(4)
        assert [player.done for player in players] == done, "nothing is answered that is not durable"

        await cluster.restart()

        async def ready() -> bool:
            return [status for status, _ in await system.readiness("edge")] == [200, 200]

        await eventually(ready, "both edges to be ready", 90)
        back = [eventually(partial(_connects, each), f"{each.station_id} to be back", 60) for each in idle]
        await asyncio.gather(*back)
        await asyncio.wait_for(playing, 120)
        # Those that have said everything have hung up; the router knows of the others.

        async def all_back() -> bool:
            metrics = await system.metrics("edge")
            return (metrics.total("csms_edge_connections"), metrics.total("csms_edge_kafka_down")) == (IDLE, 0)

        await eventually(all_back, "all idle stations to be connected, and nobody else", 30)

        async def online() -> bool:
            listed = [await system.get(f"/v1/stations/{each.station_id}") for each in idle[::20]]
            return all(station["online"] for station in listed)

        await eventually(online, "the router to know who is back", 60)
    assert counts.reconnects >= STATIONS
    rows = await settled(tables, scripts)
    check_energy(rows, scripts)
    v2 = [row for row in rows["meter_values"] if row["event"] in ("Started", "Updated", "Ended")]
    numbers = [(row["session_id"], row["event_key"]) for row in v2]
    assert len(numbers) == len(set(numbers)) == sum(s.events for s in scripts if s.version is not Version.V16)


async def _connects(station: Idle) -> bool:
    try:
        await station.connect()
    except InvalidStatus as refused:
        return refused.response.status_code != 503
    return True
