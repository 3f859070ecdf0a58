"""The billing service on real servers: its tables, its topic, being killed, and a replay from the start."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from busbar.avro import encode
from busbar.pricing.assignment import read_tariff
from busbar.pricing.jsontext import serialize_json
from busbar.records import Record, TopicPartition
from busbar.stream.kafka import KafkaConsumer, KafkaProducer
from busbar.stream.partitioner import Partitioner
from busbar.tariffs import TariffBook
from services.billing.model import Policy
from services.billing.processor import SESSION_EVENTS_TOPIC, BillingProcessor, Heard
from tests.support import kafka_topics
from tests.unit.services.billing.scenario import TARIFFS, random_sessions
from tests.unit.services.billing.world import World

ROOT = Path(__file__).resolve().parents[3]
PARTITIONS = 4
_place = Partitioner()
_STATE = ("sessions", "facts", "cdrs", "unattributed", "journal")


async def configure(connection: Any) -> None:
    """The tariffs of the scenario."""
    for key, source in TARIFFS.items():
        tariff_id, _, version = key.partition("/")
        content = serialize_json(source)
        await connection.execute(
            "INSERT INTO config.tariffs (tariff_id, version, content, format, currency, fingerprint)"
            " VALUES ($1, $2, $3, 'ocpi-2.3.0', $4, $5) ON CONFLICT DO NOTHING",
            tariff_id,
            int(version),
            content,
            source["currency"],
            read_tariff(content).fingerprint,
        )


async def forget(connection: Any) -> None:
    """Empty tables, and offsets at the start of the log."""
    for table in _STATE:
        await connection.execute(f"DELETE FROM billing.{table}")
    await connection.execute("DELETE FROM stream.progress WHERE group_name = 'billing'")


async def tables(connection: Any) -> dict[str, list[str]]:
    """What must be the same after a replay."""
    charges = "session_id, station_id, status, reason, cost_excl, cost_incl, energy_wh, cdr_id, cdr_count, flags"
    wanted = {
        "cdrs": "SELECT * FROM billing.cdrs",
        "sessions": f"SELECT {charges} FROM billing.sessions WHERE status <> 'open'",
        "unattributed": "SELECT * FROM billing.unattributed",
    }
    return {name: sorted(map(repr, await connection.fetch(query))) for name, query in wanted.items()}


def now_ms() -> int:
    """Of records in Kafka, which deletes what is older than the retention: the sessions are."""
    return time.time_ns() // 1_000_000


def encoded(sessions: Sequence[tuple[str, dict[str, Any]]]) -> list[tuple[bytes, bytes, int, int]]:
    """(key, value, partition, timestamp) of each event."""
    return [
        (
            station.encode(),
            encode("csms.SessionEvent", event),
            _place.partition(station.encode(), PARTITIONS),
            event["received_at"],
        )
        for station, event in sessions
    ]


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(postgres_url)
    await configure(connection)
    await forget(connection)
    yield connection
    await connection.close()


Encoded = tuple[bytes, bytes, int, int]


async def batch(
    connection: Any, processor: BillingProcessor, events: Sequence[Encoded], *, commit: bool = True
) -> None:
    """As the stream runtime does it."""
    records = [Record(SESSION_EVENTS_TOPIC, place, 0, at_ms, key, value) for key, value, place, at_ms in events]
    await handle(connection, processor, [processor.decode(record) for record in records], commit=commit)


async def wait(connection: Any, processor: BillingProcessor, seconds: float) -> None:
    """Let so much time pass, and fold what has come due then."""
    now_ms = time.time_ns() // 1_000_000 + round(seconds * 1000)
    await handle(connection, processor, await processor.due(connection, range(PARTITIONS), now_ms))


async def handle(connection: Any, processor: BillingProcessor, events: Sequence[Heard], *, commit: bool = True) -> None:
    """Fold and store a batch."""
    state = await processor.load(connection, events)
    for event in events:
        list(processor.fold(state, event))
    transaction = connection.transaction()
    await transaction.start()
    await processor.store(connection, state)
    if commit:
        await transaction.commit()
        processor.committed(state)
    else:
        await transaction.rollback()
        processor.lost()


async def test_the_tables_hold_what_the_fold_says(connection: Any) -> None:
    events = encoded(random_sessions(11, 40))
    world = World(TARIFFS)
    world.raw_batch([(value, place) for _, value, place, _ in events])
    policy = Policy(journal_batches=3, few_events=4)
    processor = BillingProcessor(TariffBook(), policy)
    chance = random.Random(5)
    place = 0
    while place < len(events):
        size, fate = chance.choice((1, 5, 40)), chance.random()
        if fate < 0.1:
            await batch(connection, processor, events[place : place + size], commit=False)
            continue
        if fate < 0.2:
            processor = BillingProcessor(TariffBook(), policy)
        await batch(connection, processor, events[place : place + size])
        place += size
    found = {row["cdr_id"]: row for row in await connection.fetch("SELECT * FROM billing.cdrs")}
    assert found.keys() == world.tables.cdrs.keys()
    assert len(found) > 20
    for cdr_id, expected in world.tables.cdrs.items():
        row = found[cdr_id]
        assert (row["ocpi"], row["bill"]) == (expected["ocpi"], expected["bill"])
        assert (row["total_excl"], row["total_incl"]) == (expected["total_excl"], expected["total_incl"])
        assert (row["credit"], row["credit_reference_id"] or "") == (bool(expected["reference"]), expected["reference"])
        assert row["energy_wh"] * 10**6 == expected["energy"]
    await wait(connection, processor, 61)
    before = await tables(connection)
    await forget(connection)
    processor = BillingProcessor(TariffBook())
    await batch(connection, processor, events)
    await wait(connection, processor, 61)
    assert await tables(connection) == before


class Service:
    """`python -m services.billing`, started and killed; what all its processes log goes into one file."""

    def __init__(self, servers: str, url: str, log: Path) -> None:
        self.log = log
        self.environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": servers,
            "DATABASE_URL": url,
            "BUSBAR_HEALTH_ADDRESS": "127.0.0.1:0",
            "BUSBAR_LEASE_SECONDS": "1",
            "BUSBAR_BILLING_LINGER_SECONDS": "0.05",
        }
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.billing", cwd=ROOT, env=self.environment, stderr=log, stdout=log
            )

    async def logged(self) -> str:
        """The end of its log."""
        return (await asyncio.to_thread(self.log.read_text))[-8000:]

    async def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            ended = self.process.returncode
            assert ended is None, f"it ended by itself with {ended}\n{await self.logged()}"
            self.process.send_signal(how)
            await self.process.wait()
            self.process = None


@asynccontextmanager
async def running(servers: str, url: str, log: Path) -> AsyncIterator[Service]:
    service = Service(servers, url, log)
    await service.start()
    try:
        yield service
    finally:
        if service.process is not None and service.process.returncode is None:
            service.process.kill()
            await service.process.wait()


async def settled(service: Service, connection: Any, count: int, ends: dict[int, int], seconds: float = 60.0) -> None:
    """Wait until billing has read everything, has so many records, and all of its results are in Kafka.

    What a process committed just before it was killed is produced by the next owner, once the lease has ended.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        rows = await connection.fetch(
            "SELECT partition, offsets, results FROM stream.progress WHERE group_name = 'billing'"
        )
        read = {row["partition"]: orjson.loads(row["offsets"]).get(SESSION_EVENTS_TOPIC, 0) for row in rows}
        found = await connection.fetchval("SELECT count(*) FROM billing.cdrs")
        left = {row["partition"]: len(row["results"]) for row in rows if row["results"]}
        if found >= count and not left and all(read.get(number, 0) >= end for number, end in ends.items()):
            return
        if asyncio.get_running_loop().time() > deadline:
            ended, log = service.process and service.process.returncode, await service.logged()
            raise AssertionError(
                f"read {read} of {ends}, {found} of {count} records, bytes not produced {left}, ended {ended}\n{log}"
            )
        await asyncio.sleep(0.1)


CDR_PARTITIONS = [TopicPartition("csms.cdrs", number) for number in range(PARTITIONS)]


async def cdr_topic(
    servers: str, since: dict[TopicPartition, int], expected: int, seconds: float = 30.0
) -> dict[str, tuple[bytes, int]]:
    """The records of csms.cdrs by key, until there are so many; those that came twice must be the same.

    Args:
        since: From where on: what other tests have left cannot be removed from a compacted topic.
    """
    consumer = KafkaConsumer(servers, group_id="look", client_id="look")
    await consumer.start()
    found: dict[str, tuple[bytes, int]] = {}
    try:
        await consumer.assign({name: since.get(name, 0) for name in CDR_PARTITIONS})
        async with asyncio.timeout(seconds):
            while len(found) < expected:
                for records in (await consumer.fetch(0.5)).values():
                    for record in records:
                        key = (record.key or b"").decode()
                        told = (record.value or b"", record.partition)
                        assert found.setdefault(key, told) == told
    finally:
        await consumer.stop()
    return found


async def test_killed_under_load_and_replayed_from_the_start(
    topics: str, postgres_url: str, connection: Any, tmp_path: Path
) -> None:
    seed = random.Random().randrange(10**9)
    print(f"seed {seed}")  # shown if it fails
    silent = seed % PARTITIONS  # whose stations do not charge; what was in its log is gone
    events = [each for each in encoded(random_sessions(seed, 150, stations=12)) if each[2] != silent]
    world = World(TARIFFS)
    world.raw_batch([(value, place) for _, value, place, _ in events])
    expected = world.tables.cdrs
    producer = KafkaProducer(topics, flush_interval_seconds=0.0, client_id="events")
    await producer.start()
    ends: dict[int, int] = {}
    consumer = KafkaConsumer(topics, group_id="ends", client_id="ends")
    await consumer.start()
    try:
        for place in range(PARTITIONS):
            producer.append(SESSION_EVENTS_TOPIC, place, key=b"OLD", value=b"", timestamp_ms=now_ms())
        await producer.flush()
        await kafka_topics.empty(topics)
        since = {TopicPartition(*name): end for name, end in (await kafka_topics.end_offsets(topics)).items()}
        async with running(topics, postgres_url, tmp_path / "log") as service:
            for part in range(4):
                chunk = events[part * len(events) // 4 : (part + 1) * len(events) // 4]
                for number, (key, value, place, _) in enumerate([*chunk, *chunk[-20:]]):  # some come twice
                    producer.append(SESSION_EVENTS_TOPIC, place, key=key, value=value, timestamp_ms=now_ms())
                    if number % 50 == 0:
                        await asyncio.sleep(0.01)
                await producer.flush()
                await asyncio.sleep(0.5)
                await service.end(signal.SIGKILL)
                await service.start()
            # Where nothing is read, no offset is stored, wherever the log begins.
            partitions = [TopicPartition(SESSION_EVENTS_TOPIC, number) for number in {each[2] for each in events}]
            ends = {each.partition: end for each, end in (await consumer.ends(partitions)).items()}
            await settled(service, connection, len(expected), ends)
            await service.end()
        before = await tables(connection)
        assert len(before["cdrs"]) == len(expected)
        produced = await cdr_topic(topics, since, len(expected))
        assert {key: value for key, (value, _) in produced.items()} == {
            result.key.decode(): result.value for result in world.results
        }
        await forget(connection)
        async with running(topics, postgres_url, tmp_path / "log") as service:
            await settled(service, connection, len(expected), ends)
            await service.end()
        assert await tables(connection) == before
        assert await cdr_topic(topics, since, len(expected)) == produced
    finally:
        await consumer.stop()
        await producer.stop()
