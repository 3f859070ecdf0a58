"""What topics and tables hold, read without any code of the system.

Topics are read with aiokafka and decoded with fastavro by the lock file of schema ids; tables are read with SQL.
"""

from __future__ import annotations

import asyncio
import io
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import fastavro
from aiokafka import AIOKafkaConsumer, TopicPartition

Row = dict[str, Any]

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
LABELS = {"1.6": "v16", "2.0.1": "v201", "2.1": "v21"}
ACTIONS = {
    "1.6": ("BootNotification", "StatusNotification", "StartTransaction", "MeterValues", "StopTransaction"),
    "2.0.1": ("BootNotification", "StatusNotification", "TransactionEvent"),
    "2.1": ("BootNotification", "StatusNotification", "TransactionEvent"),
}
"""What the fleet sends and the services answer."""
SYSTEM_TOPICS = (
    "csms.session-events",
    "csms.meter-samples",
    "csms.cdrs",
    "csms.station-status",
    "csms.command-events",
    "csms.dead-letters",
    "ocpp.malformed",
)
TABLES = {
    "sessions": "SELECT session_id::text, station_id, transaction_id, state, is_open, energy_wh, energy_rung, flags,"
    " opened_at FROM sessions.transactions",
    "meter_values": "SELECT session_id::text, event_key, station_id, event, happened_at, received_at"
    " FROM sessions.meter_values WHERE in_session",
    "charges": "SELECT session_id::text, station_id, status, reason FROM billing.sessions",
    "cdrs": "SELECT cdr_id, session_id::text, number, credit, total_excl, energy_wh FROM billing.cdrs",
    "stations": "SELECT station_id, registration_status, vendor FROM stations.stations",
    "connectors": "SELECT station_id, evse_id, connector_id, status FROM stations.connectors",
    "commands": "SELECT command_id, station_id, action, stage, outcome FROM router.commands",
}


@dataclass(slots=True)
class Evidence:
    """Everything there is, after the ordeal."""

    topics: dict[str, list[list[Row]]] = field(default_factory=dict)
    """Values by topic, a list per partition, each in the order of the log."""
    tables: dict[str, list[Row]] = field(default_factory=dict)
    """By the names of `TABLES`."""

    def records(self, topic: str) -> list[Row]:
        """All values of a topic."""
        return [value for partition in self.topics.get(topic, ()) for value in partition]


class Reader:
    """Decodes Confluent-framed Avro by the lock file alone."""

    def __init__(self) -> None:
        entries = json.loads((SCHEMAS / "registry.lock.json").read_text())
        self._texts = {entry["id"]: entry["schema"] for entry in entries}
        self._parsed: dict[int, Any] = {}

    def __call__(self, value: bytes) -> Row:
        magic, schema_id = struct.unpack(">bI", value[:5])
        assert magic == 0
        if schema_id not in self._parsed:
            self._parsed[schema_id] = fastavro.parse_schema(json.loads(self._texts[schema_id]))
        decoded = fastavro.schemaless_reader(io.BytesIO(value[5:]), self._parsed[schema_id], None)
        assert isinstance(decoded, dict)
        return decoded


async def read_topics(servers: str, topics: Iterable[str]) -> dict[str, list[list[Row]]]:
    """Every record of these topics, from the first to the last one of now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = []
        for topic in topics:
            # Metadata of a topic that nobody has asked for comes with the first assignment.
            await consumer._client.add_topic(topic)
            partitions += [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        reader = Reader()
        found: dict[TopicPartition, list[Row]] = {partition: [] for partition in partitions}
        left = {partition for partition in partitions if ends[partition] > 0}
        while left:
            batches = await consumer.getmany(timeout_ms=500)
            for partition, records in batches.items():
                found[partition] += [reader(record.value) for record in records if record.value is not None]
            left = {partition for partition in left if await consumer.position(partition) < ends[partition]}
    finally:
        await consumer.stop()
    by_topic: dict[str, list[list[Row]]] = {}
    for partition in sorted(found):
        by_topic.setdefault(partition.topic, []).append(found[partition])
    return by_topic


async def collect(servers: str, database_url: str) -> Evidence:
    """Read all that the fleet's doings have led to."""
    actions = [f"ocpp.{LABELS[version]}.{action}" for version, names in ACTIONS.items() for action in names]
    topics = await read_topics(servers, [*actions, *SYSTEM_TOPICS])
    connection = await asyncpg.connect(database_url)
    try:
        tables = {name: [dict(row) for row in await connection.fetch(query)] for name, query in TABLES.items()}
    finally:
        await connection.close()
    return Evidence(topics, tables)


async def settle(database_url: str, deadline_seconds: float = 60.0) -> None:
    """Wait until no session is open or without its bill and no command without outcome, or the deadline has passed."""
    connection = await asyncpg.connect(database_url)
    try:
        for _ in range(int(deadline_seconds * 2)):
            waiting = await connection.fetchval(
                "SELECT (SELECT count(*) FROM sessions.transactions WHERE is_open)"
                " + (SELECT count(*) FROM sessions.transactions)"
                " - (SELECT count(*) FROM billing.sessions WHERE status <> 'open')"
                " + (SELECT count(*) FROM router.commands WHERE outcome IS NULL)"
            )
            if waiting == 0:
                break
            await asyncio.sleep(0.5)
        await asyncio.sleep(2.0)  # results are produced after their commit
    finally:
        await connection.close()
