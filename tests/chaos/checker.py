"""Compares what the fleet knows with what the topics and the tables say. It shares no code with the system.

Topics are read with aiokafka and decoded with fastavro by the lock file of schema ids; tables are read with SQL.
"""

from __future__ import annotations

import asyncio
import io
import json
import struct
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import fastavro
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.chaos.ledger import Ledger, Transaction

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
_LABELS = {"1.6": "v16", "2.0.1": "v201", "2.1": "v21"}


class Reader:
    """Decodes Confluent-framed Avro by the lock file alone."""

    def __init__(self) -> None:
        entries = json.loads((SCHEMAS / "registry.lock.json").read_text())
        self._texts = {entry["id"]: entry["schema"] for entry in entries}
        self._parsed: dict[int, Any] = {}

    def __call__(self, value: bytes) -> dict[str, Any]:
        magic, schema_id = struct.unpack(">bI", value[:5])
        assert magic == 0
        if schema_id not in self._parsed:
            self._parsed[schema_id] = fastavro.parse_schema(json.loads(self._texts[schema_id]))
        decoded = fastavro.schemaless_reader(io.BytesIO(value[5:]), self._parsed[schema_id], None)
        assert isinstance(decoded, dict)
        return decoded


async def read_topic(servers: str, topic: str) -> list[dict[str, Any]]:
    """Every record of a topic, from the first to the last one of now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        if not partitions:
            # Metadata of a topic that nobody has asked for comes with the first assignment.
            await consumer._client.add_topic(topic)
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        reader = Reader()
        found: list[dict[str, Any]] = []
        left = {partition for partition in partitions if ends[partition] > 0}
        while left:
            batches = await consumer.getmany(timeout_ms=500)
            for records in batches.values():
                found += [reader(record.value) for record in records if record.value is not None]
            left = {partition for partition in left if await consumer.position(partition) < ends[partition]}
        return found
    finally:
        await consumer.stop()


@dataclass(slots=True)
class Verdict:
    """What does not agree; empty when all invariants hold."""

    problems: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def expect(self, condition: bool, problem: str) -> None:
        if not condition:
            self.problems.append(problem)

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.counted.items()))
        return f"checked {counts}\n" + ("\n".join(self.problems[:50]) if self.problems else "every invariant holds")


async def check(ledger: Ledger, servers: str, database_url: str) -> Verdict:
    """Hold the ledger against topics and tables."""
    verdict = Verdict()
    verdict.problems += ledger.violations
    await _check_log(verdict, ledger, servers)
    connection = await asyncpg.connect(database_url)
    try:
        await _check_tables(verdict, ledger, connection)
        await _check_session_events(verdict, ledger, servers, connection)
        await _check_commands(verdict, ledger, connection)
    finally:
        await connection.close()
    letters = await read_topic(servers, "csms.dead-letters")
    verdict.expect(not letters, f"{len(letters)} dead letters, first: {letters[:1]}")
    malformed = await read_topic(servers, "ocpp.malformed")
    verdict.expect(not malformed, f"{len(malformed)} malformed frames, first: {malformed[:1]}")
    return verdict


async def _check_log(verdict: Verdict, ledger: Ledger, servers: str) -> None:
    """No acknowledged event is lost: for each acknowledged sending there is a record in its action's topic."""
    expected: dict[str, Counter[str]] = defaultdict(Counter)
    versions = {transaction.station_id: transaction.version for transaction in ledger.transactions}
    for fact in ledger.facts:
        if fact.acknowledged:
            topic = f"ocpp.{_LABELS[versions[fact.station_id]]}.{fact.action}"
            expected[topic][_fingerprint(fact.station_id, fact.action, fact.payload)] += len(fact.replies)
    for topic, wanted in expected.items():
        records = await read_topic(servers, topic)
        action = topic.rpartition(".")[2]
        seen = Counter(_fingerprint(r["meta"]["station_id"], action, r["payload"]) for r in records)
        verdict.counted[topic] = len(records)
        for fingerprint, count in wanted.items():
            verdict.expect(
                seen[fingerprint] >= count,
                f"{topic}: {fingerprint} acknowledged {count} times, {seen[fingerprint]} kept",
            )


def _fingerprint(station_id: str, action: str, payload: dict[str, Any]) -> str:
    """What tells a fact apart, by the business keys of the specification."""
    match action:
        case "TransactionEvent":
            key = f"{payload['transactionInfo']['transactionId']}/{payload['seqNo']}/{payload['eventType']}"
        case "StartTransaction":
            key = f"{payload['connectorId']}/{payload['meterStart']}/{payload['timestamp']}"
        case "StopTransaction":
            key = f"{payload['transactionId']}/{payload['meterStop']}"
        case "MeterValues":
            key = f"{payload['transactionId']}/{payload['meterValue'][0]['timestamp']}"
        case _:
            key = action
    return f"{station_id} {key}"


async def _check_tables(verdict: Verdict, ledger: Ledger, connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Each transaction is in the table once, over, with its energy to the Wh."""
    rows = await connection.fetch(
        "SELECT station_id, transaction_id, ocpp_version, state, is_open, energy_wh, energy_rung, flags"
        " FROM sessions.transactions"
    )
    found: dict[tuple[str, str], list[asyncpg.Record]] = defaultdict(list)
    for row in rows:
        found[row["station_id"], row["transaction_id"]].append(row)
    verdict.counted["sessions"] = len(rows)
    verdict.expect(len(rows) == len(ledger.transactions), f"{len(ledger.transactions)} transactions, {len(rows)} rows")
    for transaction in ledger.transactions:
        verdict.expect(transaction.complete, f"{_name(transaction)}: not complete in its own ledger")
        mine = found[transaction.station_id, transaction.transaction_id]
        verdict.expect(len(mine) == 1, f"{_name(transaction)}: {len(mine)} rows")
        for row in mine:
            energy = Decimal(transaction.stop_wh or 0) - transaction.start_wh
            verdict.expect(not row["is_open"], f"{_name(transaction)}: still {row['state']}")
            verdict.expect(
                row["energy_wh"] == energy, f"{_name(transaction)}: {row['energy_wh']} Wh for {energy} ({row})"
            )


async def _check_session_events(
    verdict: Verdict, ledger: Ledger, servers: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    """Each session event once by its id, the sequence without a hole, the last energy as the tables have it."""
    energies = {
        str(row["session_id"]): row["energy_wh"]
        for row in await connection.fetch("SELECT session_id, energy_wh FROM sessions.transactions")
    }
    events: dict[str, dict[str, Any]] = {}
    for event in await read_topic(servers, "csms.session-events"):
        before = events.setdefault(event["event_id"], event)
        verdict.expect(event == before, f"session event {event['event_id']} was produced with two contents")
    by_session: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events.values():
        if event["session_id"] in energies:
            by_session[event["session_id"]].append(event)
    verdict.counted["session events"] = len(events)
    verdict.expect(len(by_session) == len(ledger.transactions), f"{len(by_session)} sessions on csms.session-events")
    for session_id, mine in by_session.items():
        mine.sort(key=lambda event: int(event["sequence"]))
        sequences = [event["sequence"] for event in mine]
        verdict.expect(
            sequences == list(range(1, len(mine) + 1)), f"session {session_id}: sequence {sequences} has a hole"
        )
        kinds = Counter(event["kind"] for event in mine)
        verdict.expect(kinds["ended"] == 1, f"session {session_id}: {kinds['ended']} ended events ({kinds})")
        told = [event["energy_wh"] for event in mine if event["kind"] != "unattributed"][-1]
        verdict.expect(
            energies[session_id] == told,
            f"session {session_id}: {told} Wh on the topic, {energies[session_id]} in the table",
        )


async def _check_commands(verdict: Verdict, ledger: Ledger, connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """No command that was taken is lost, none is without an outcome, and none answered that was not received."""
    rows = await connection.fetch("SELECT command_id, action, stage, outcome FROM router.commands")
    known = {str(row["command_id"]): row for row in rows}
    for command_id in ledger.accepted_commands:
        verdict.expect(command_id in known, f"command {command_id} was taken and is not known")
    for command_id, row in known.items():
        outcome = row["outcome"]
        verdict.counted[f"commands {outcome}"] += 1
        verdict.expect(outcome is not None, f"command {command_id} {row['action']}: only {row['stage']}")
        if outcome == "answered":
            verdict.expect(command_id in ledger.commands, f"command {command_id} was answered and never received")


def _name(transaction: Transaction) -> str:
    return f"{transaction.station_id} {transaction.version} #{transaction.number} ({transaction.transaction_id})"


async def settle(database_url: str, servers: str, deadline_seconds: float = 60.0) -> None:
    """Wait until no session is open and no command is without outcome, or the deadline has passed."""
    connection = await asyncpg.connect(database_url)
    try:
        for _ in range(int(deadline_seconds * 2)):
            waiting = await connection.fetchval(
                "SELECT (SELECT count(*) FROM sessions.transactions WHERE is_open)"
                " + (SELECT count(*) FROM router.commands WHERE outcome IS NULL)"
            )
            if waiting == 0:
                break
            await asyncio.sleep(0.5)
        await asyncio.sleep(2.0)  # results are produced after their commit
    finally:
        await connection.close()
