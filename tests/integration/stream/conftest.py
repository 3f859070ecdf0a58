"""A place to run workers in: topics of their own on the shared broker, tables in the module's database."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from busbar.records import Record, TopicPartition
from busbar.stream.interfaces import EARLIEST
from busbar.stream.kafka import KafkaConsumer, KafkaProducer
from tests.integration.stream.chain import TABLE, digest_of

ROOT = Path(__file__).resolve().parents[3]
PARTITIONS = 4
_numbers = itertools.count()


async def create_topics(servers: str, names: dict[str, int]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1) for name, partitions in names.items()])
    finally:
        await admin.close()


async def until(condition: Callable[[], Awaitable[object]], seconds: float = 15.0) -> float:
    """Wait until something holds; returns the seconds that took. Raises `TimeoutError`."""
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return time.monotonic() - began
            await asyncio.sleep(0.03)


class Chains:
    """One group's topics, what is written to them, and what came of it."""

    def __init__(self, servers: str, url: str, producer: KafkaProducer) -> None:
        unique = f"{time.time_ns()}.{next(_numbers)}"
        self.servers = servers
        self.url = url
        self.group = f"chain-{unique}"
        self.topics = [f"chain.{unique}.alpha", f"chain.{unique}.beta"]
        self.out = f"chain.{unique}.out"
        self.producer = producer
        self.written = {(topic, number): 0 for topic in self.topics for number in range(PARTITIONS)}

    async def create(self) -> None:
        await create_topics(self.servers, {**dict.fromkeys(self.topics, PARTITIONS), self.out: PARTITIONS})
        for topic in (*self.topics, self.out):
            await until(partial(self.producer.refresh, topic))

    def write(self, count: int = 1, *, topic: int = 0, partition: int | None = None) -> None:
        """Write the next numbers, to one partition or to all in turn."""
        for index in range(count):
            number = index % PARTITIONS if partition is None else partition
            name = self.topics[topic]
            self.put(str(self.written[name, number]), topic=topic, partition=number)
            self.written[name, number] += 1

    def put(self, value: str | None, *, topic: int = 0, partition: int = 0) -> None:
        """Write anything."""
        self.producer.append(
            self.topics[topic],
            partition,
            key=b"station-%d" % partition,
            value=None if value is None else value.encode(),
            timestamp_ms=time.time_ns() // 1_000_000,
        )

    async def counts(self) -> dict[tuple[str, int], int]:
        rows = await self.query("SELECT topic, partition, count FROM chains WHERE group_name = $1", self.group)
        return {(topic, partition): count for topic, partition, count in rows}

    async def has_counts(self, wanted: dict[tuple[str, int], int]) -> bool:
        return await self.counts() == wanted

    async def query(self, statement: str, *arguments: Any) -> list[Any]:
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def owners(self) -> dict[int, str | None]:
        rows = await self.query("SELECT partition, owner FROM stream.progress WHERE group_name = $1", self.group)
        return dict(sorted(tuple(row) for row in rows))

    async def wait_for_owners(self, count: int, seconds: float = 15.0) -> dict[int, str | None]:
        """Wait until so many workers share all partitions, evenly."""
        async with asyncio.timeout(seconds):
            while True:
                owners = await self.owners()
                shares = [list(owners.values()).count(owner) for owner in set(owners.values()) if owner]
                if len(shares) == count and sum(shares) == PARTITIONS and max(shares) - min(shares) <= 1:
                    return owners
                await asyncio.sleep(0.05)

    async def wait_until_folded(self, seconds: float = 30.0) -> None:
        await self.producer.flush()
        wanted = {place: count for place, count in self.written.items() if count}
        try:
            await until(lambda: self.has_counts(wanted), seconds)
        except TimeoutError:
            raise AssertionError(f"folded {await self.counts()} instead of {wanted}") from None

    async def check(self) -> None:
        """Each record folded once and in order, each result produced at least once and in order."""
        rows = await self.query(
            "SELECT topic, partition, count, digest, wrong FROM chains WHERE group_name = $1", self.group
        )
        for topic, partition, count, digest, wrong in rows:
            assert wrong == [], f"{topic}/{partition}"
            assert digest == digest_of(count)
        expected = {
            f"{topic}/{number}/{value}" for (topic, number), count in self.written.items() for value in range(count)
        }
        async with asyncio.timeout(10):
            produced = await self.produced()
            while set(produced) < expected:
                await asyncio.sleep(0.1)
                produced = await self.produced()
        assert set(produced) == expected
        last: dict[str, int] = {}
        for name in dict.fromkeys(produced):
            place, _, number = name.rpartition("/")
            assert int(number) == last.get(place, -1) + 1
            last[place] = int(number)

    async def produced(self) -> list[str]:
        """The values on the output topic, partition by partition."""
        return [(record.value or b"").decode() for record in await read_all(self.servers, self.out)]


async def read_all(servers: str, topic: str, partitions: int = PARTITIONS) -> list[Record]:
    """Everything a topic holds now."""
    async with KafkaConsumer(servers) as consumer:
        names = [TopicPartition(topic, number) for number in range(partitions)]
        await consumer.assign(dict.fromkeys(names, EARLIEST))
        records: dict[TopicPartition, list[Record]] = {name: [] for name in names}
        while any(consumer.position(name) < (consumer.end(name) or 0) for name in names):
            for name, fetched in (await consumer.fetch(0.5)).items():
                records[name].extend(fetched)
        return [record for name in names for record in records[name]]


class WorkerProcess:
    """A worker in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, chains: Chains, lease_seconds: float) -> WorkerProcess:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.integration.stream.chain",
            chains.servers,
            chains.url,
            chains.group,
            str(lease_seconds),
            chains.out,
            *chains.topics,
            cwd=ROOT,
        )
        return cls(process)

    @property
    def worker_id_part(self) -> str:
        """What its worker id contains."""
        return f"-{self._process.pid}-"

    def send(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    async def ended(self, seconds: float = 10.0) -> int:
        return await asyncio.wait_for(self._process.wait(), seconds)

    async def remove(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@pytest.fixture
async def chains(topics: str, postgres_url: str) -> AsyncIterator[Chains]:
    """A fresh group."""
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(TABLE)
    await connection.close()
    async with KafkaProducer(topics) as producer:
        fresh = Chains(topics, postgres_url, producer)
        await fresh.create()
        yield fresh
