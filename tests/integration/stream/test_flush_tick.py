"""When records leave: together, with the tick, however soon the broker answers."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest
from prometheus_client import REGISTRY

from busbar.stream.kafka import KafkaProducer
from tests.integration.stream.conftest import create_topics, read_all, until


@pytest.fixture
async def topic(kafka_servers: str) -> str:
    name = f"tick.{time.time_ns()}"
    await create_topics(kafka_servers, {name: 1})
    return name


def _batches() -> float:
    return REGISTRY.get_sample_value("csms_stream_produce_ack_seconds_count") or 0.0


class _Writer:
    """Appends records and remembers in which order they were acknowledged."""

    def __init__(self, producer: KafkaProducer, topic: str) -> None:
        self.producer, self.topic = producer, topic
        self.sent = 0
        self.acknowledged: list[int] = []

    def append(self, value: bytes = b"v") -> None:
        number, self.sent = self.sent, self.sent + 1
        now_ms = time.time_ns() // 1_000_000
        on_ack = partial(self.acknowledged.append, number)
        self.producer.append(self.topic, 0, key=b"%d" % number, value=value, timestamp_ms=now_ms, on_ack=on_ack)


async def test_what_gathers_behind_a_batch_waits_for_the_tick(kafka_servers: str, topic: str) -> None:
    """Else the tick is as short as the broker's answer takes, and most requests carry a record or two."""
    async with KafkaProducer(kafka_servers, flush_interval_seconds=0.2) as producer:
        await until(partial(producer.refresh, topic))
        writer = _Writer(producer, topic)
        writer.append()
        await producer.flush()  # makes connections
        before, began = _batches(), time.monotonic()
        while time.monotonic() - began < 1.5:
            writer.append()
            await asyncio.sleep(0.005)
        ticks = (time.monotonic() - began) / 0.2
        await producer.flush()
        assert 2 <= _batches() - before <= ticks + 2
        assert writer.acknowledged == list(range(writer.sent))
    assert len(await read_all(kafka_servers, topic, 1)) == writer.sent


async def test_what_did_not_fit_into_a_batch_does_not_wait(kafka_servers: str, topic: str) -> None:
    """After an outage a partition has many batches to send, and a tick each would be too slow."""
    async with KafkaProducer(kafka_servers, flush_interval_seconds=1.0, max_batch_bytes=50_000) as producer:
        await until(partial(producer.refresh, topic))
        writer = _Writer(producer, topic)
        writer.append()
        await producer.flush()
        began = time.monotonic()
        for _ in range(40):
            writer.append(bytes(20_000))
        async with asyncio.timeout(15):
            while len(writer.acknowledged) < 41:
                writer.append()  # the tick is always under way
                await asyncio.sleep(0.01)
        assert time.monotonic() - began < 5, "twenty batches"
    assert writer.acknowledged[:41] == list(range(41))


@pytest.mark.parametrize(("share", "interval"), [(0.05, 0.1), (0.2, 0.1), (0.45, 0.15), (0.7, 0.2), (1.0, 0.2)])
async def test_a_busy_process_lets_records_gather_for_longer(
    kafka_servers: str, topic: str, monkeypatch: pytest.MonkeyPatch, share: float, interval: float
) -> None:
    producer = KafkaProducer(kafka_servers, flush_interval_seconds=0.1)
    seen = [0.0]

    def now() -> float:
        seen[0] = asyncio.get_running_loop().time()
        return seen[0]

    producer._now = now
    monkeypatch.setattr("busbar.stream.kafka_producer.time.process_time", lambda: share * seen[0])
    await producer.start()
    await until(partial(producer.refresh, topic))
    writer = _Writer(producer, topic)
    for _ in range(2 * 64):
        writer.append()
        await producer.send()
        await asyncio.sleep(0.001)
    writer.append()
    await producer.flush()
    assert producer._interval == pytest.approx(interval)
    await producer.stop()
