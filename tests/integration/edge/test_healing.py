"""What the edge does while PostgreSQL hangs or Kafka takes nothing: seen in a metric, and healed without a person."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import orjson
import pytest
from prometheus_client import CollectorRegistry
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from busbar.avro import decode_call
from busbar.local.kafka import TEST, KafkaCluster
from services.edge.metrics import EdgeMetrics
from tests.chaos.proxy import Line
from tests.integration.edge.test_edge import _connect, _edge, _register
from tests.integration.stream.conftest import read_all, until
from tests.support import kafka_topics
from tests.support.servers import port_of, with_port

LOOK_UP_SECONDS = 5.0
"""How long the edge waits for Postgres while a station stands at the door; docs/failures.md says so."""
MAX_UNACKNOWLEDGED_BYTES = 1024 * 1024
CALL_BYTES = 64 * 1024


@pytest.fixture
def metric(monkeypatch: pytest.MonkeyPatch) -> Callable[..., float]:
    """Reads a metric of the edge by its name."""
    registry = CollectorRegistry()
    made = EdgeMetrics.__init__

    def make(self: EdgeMetrics) -> None:
        made(self)
        registry.register(self)

    monkeypatch.setattr(EdgeMetrics, "__init__", make)

    def read(name: str, **labels: str) -> float:
        value = registry.get_sample_value(name, labels)
        assert value is not None, name
        return value

    return read


async def _gets_in(port: int, station_id: str, password: str) -> bool:
    try:
        async with _connect(port, station_id, password):
            return True
    except InvalidStatus as refused:
        if refused.response.status_code == 503:
            return False
        raise


async def test_while_postgres_hangs_known_stations_get_in_and_others_are_told_to_come_back(
    topics: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch, metric: Callable[..., float]
) -> None:
    passwords = {name: await _register(postgres_url, name) for name in ("HANG-1", "HANG-2")}
    line = Line("edge to postgres", port_of(postgres_url))
    await line.open()
    settings = {"BUSBAR_EDGE_STATION_CACHE": "0.1"}
    url = with_port(postgres_url, line.port)
    async with _edge(topics, url, monkeypatch, **settings) as (port, _, _):
        assert await _gets_in(port, "HANG-1", passwords["HANG-1"])
        await asyncio.sleep(0.2)
        async with line.hole():
            loop = asyncio.get_running_loop()
            for _ in range(2):
                began = loop.time()
                assert await _gets_in(port, "HANG-1", passwords["HANG-1"])
                assert not await _gets_in(port, "HANG-2", passwords["HANG-2"])
                assert loop.time() - began < LOOK_UP_SECONDS + 4, "before the station or the edge loses patience"
                await asyncio.sleep(1.5)  # so that the next one asks Postgres again
            assert metric("csms_edge_directory_up") == 0
            assert metric("csms_edge_handshakes_total", outcome="no_directory") >= 2
        await until(partial(_gets_in, port, "HANG-2", passwords["HANG-2"]), 30)
        await until(lambda: _is(metric("csms_edge_directory_up"), 1))
    await line.close()


async def _is(value: float, wanted: float) -> bool:
    return value == wanted


@pytest.fixture
async def own_kafka(tmp_path: Path) -> AsyncIterator[KafkaCluster]:
    """A broker that the test may stop, with every topic."""
    async with KafkaCluster(tmp_path / "kafka", profile=TEST) as cluster:
        await kafka_topics.create(cluster.bootstrap_servers)
        yield cluster


async def test_a_full_buffer_stops_the_reading_and_empties_once_and_in_order(
    own_kafka: KafkaCluster, postgres_url: str, monkeypatch: pytest.MonkeyPatch, metric: Callable[..., float]
) -> None:
    password = await _register(postgres_url, "FULL-1")
    settings = {
        "BUSBAR_EDGE_MAX_UNACKNOWLEDGED_BYTES": str(MAX_UNACKNOWLEDGED_BYTES),
        "BUSBAR_EDGE_KAFKA_GRACE": "120",
    }
    count = 4 * MAX_UNACKNOWLEDGED_BYTES // CALL_BYTES
    async with (
        _edge(own_kafka.bootstrap_servers, postgres_url, monkeypatch, **settings) as (port, _, _),
        _connect(port, "FULL-1", password) as socket,
    ):
        own_kafka.send_signal(signal.SIGSTOP)
        try:
            sending = asyncio.create_task(_send_all(socket, count))
            await until(lambda: _is(metric("csms_edge_paused_sockets"), 1), 30)
            await asyncio.sleep(0.5)
            held = metric("csms_edge_unacknowledged_bytes")
            assert MAX_UNACKNOWLEDGED_BYTES < held < MAX_UNACKNOWLEDGED_BYTES + 4 * CALL_BYTES
            assert metric("csms_edge_backpressure_pauses_total") >= 1
            assert metric("csms_edge_received_frames_total") < count
        finally:
            own_kafka.send_signal(signal.SIGCONT)
        await asyncio.wait_for(sending, 60)
        await until(lambda: _is(metric("csms_edge_received_frames_total"), count), 60)
        await until(lambda: _is(metric("csms_edge_unacknowledged_bytes"), 0), 60)
        await until(lambda: _is(metric("csms_edge_paused_sockets"), 0))
    records = await read_all(own_kafka.bootstrap_servers, "ocpp.v201.DataTransfer")
    assert [decode_call(record.value or b"").message_id for record in records] == [str(n) for n in range(count)]


async def _send_all(socket: ClientConnection, count: int) -> None:
    for number in range(count):
        payload = {"vendorId": "V", "data": "x" * CALL_BYTES}
        await socket.send(orjson.dumps([2, str(number), "DataTransfer", payload]).decode())
