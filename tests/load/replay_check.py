"""What became of a replay: the sessions in PostgreSQL and on `csms.session-events`, read without the services' code."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import fastavro
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

ROOT = Path(__file__).resolve().parents[2]
SETTLE_SECONDS = 60.0
TOPIC = "csms.session-events"


@dataclass(frozen=True, slots=True)
class Found:
    """Sessions that were found somewhere."""

    where: str
    sessions: int
    energy_wh: Decimal
    twice: int
    """Sessions of which there is another one with the same station and begin."""
    unfinished: int
    """Sessions that may not be billed yet."""

    def problems(self, sessions: int, energy_wh: Decimal) -> list[str]:
        """What is not as it should be."""
        found = []
        if self.sessions != sessions:
            found.append(f"{self.where}: {self.sessions} sessions, not {sessions}")
        if self.energy_wh != energy_wh:
            found.append(f"{self.where}: {self.energy_wh:,} Wh, not {energy_wh:,}: {self.energy_wh - energy_wh:+,} Wh")
        if self.twice:
            found.append(f"{self.where}: {self.twice} sessions are there twice")
        if self.unfinished:
            found.append(f"{self.where}: {self.unfinished} sessions are not final")
        return found


TABLE = """
SELECT count(*) AS sessions, coalesce(sum(energy_wh), 0) AS energy_wh,
       count(*) - count(DISTINCT (station_id, started_at)) AS twice,
       count(*) FILTER (WHERE NOT is_final) AS unfinished
  FROM sessions.transactions
 WHERE station_id = ANY($1::text[]) AND state <> 'joined'
"""


async def in_postgres(url: str, stations: Collection[str], expected: int) -> Found:
    """The sessions in the table, once as many are final as there should be, or after a while."""
    connection = await asyncpg.connect(url)
    try:
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            row = await connection.fetchrow(TABLE, list(stations))
            assert row is not None
            found = Found(
                "PostgreSQL", row["sessions"], Decimal(row["energy_wh"]).normalize(), row["twice"], row["unfinished"]
            )
            if (found.sessions == expected and not found.unfinished) or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.5)
    finally:
        await connection.close()


async def in_kafka(bootstrap_servers: str, stations: Collection[str]) -> Found:
    """The sessions on the topic: of each, its last event says how it is."""
    last: dict[str, dict[str, Any]] = {}
    ids: Counter[str] = Counter()
    for event in await _events(bootstrap_servers, frozenset(name.encode() for name in stations)):
        if not event["session_id"] or event["kind"] == "unattributed":
            continue
        ids[event["event_id"]] += 1
        known = last.get(event["session_id"])
        if known is None or event["sequence"] >= known["sequence"]:
            last[event["session_id"]] = event
    sessions = [event for event in last.values() if event["state"] != "joined"]
    begins = Counter((event["station_id"], event["started_at"]) for event in sessions)
    return Found(
        TOPIC,
        len(sessions),
        sum((event["energy_wh"] for event in sessions), Decimal(0)).normalize(),
        sum(count - 1 for count in begins.values()),
        sum(not event["final"] for event in sessions),
    )


async def _events(bootstrap_servers: str, keys: frozenset[bytes]) -> list[dict[str, Any]]:
    """All session events of these stations."""
    read = reader("csms.SessionEvent")
    return [read(record.value) async for record in records(bootstrap_servers, TOPIC) if record.key in keys]


def reader(name: str) -> Callable[[bytes], dict[str, Any]]:
    """Decodes records of a schema by `fastavro` with the lock file."""
    lock = json.loads((ROOT / "schemas" / "registry.lock.json").read_text())
    schemas = {entry["id"]: fastavro.parse_schema(json.loads(entry["schema"])) for entry in lock}
    newest = schemas[max(entry["id"] for entry in lock if entry["name"] == name)]

    def read(value: bytes) -> dict[str, Any]:
        found: Any = fastavro.schemaless_reader(
            io.BytesIO(value[5:]), schemas[int.from_bytes(value[1:5], "big")], newest
        )
        return dict(found)

    return read


async def records(bootstrap_servers: str, topic: str) -> AsyncIterator[Any]:
    """Every record of a topic, from the first to the last one of now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=None, auto_offset_reset="earliest")
    await consumer.start()
    try:
        count = await _partition_count(bootstrap_servers, topic)
        partitions = [TopicPartition(topic, number) for number in range(count)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(each) < ends[each] for each in partitions]):
            for found in (await consumer.getmany(timeout_ms=500)).values():
                for record in found:
                    yield record
    finally:
        await consumer.stop()


async def end_offsets(bootstrap_servers: str, topics: Collection[str]) -> dict[tuple[str, int], int]:
    """Where each partition of these topics ends at this moment."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=None)
    await consumer.start()
    try:
        partitions = [
            TopicPartition(topic, number)
            for topic in topics
            for number in range(await _partition_count(bootstrap_servers, topic))
        ]
        found = await consumer.end_offsets(partitions)
        return {(each.topic, each.partition): end for each, end in found.items()}
    finally:
        await consumer.stop()


async def _partition_count(bootstrap_servers: str, topic: str) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        (described,) = await admin.describe_topics([topic])
        return len(described["partitions"])
    finally:
        await admin.close()
