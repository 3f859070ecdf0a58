"""What became of bills: the records in PostgreSQL and on `csms.cdrs`, read without the services' code."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson

from busbar.local.runfile import RunFile
from tests.load.replay_check import end_offsets, reader, records

TOPIC = "csms.cdrs"
READ = {
    "sessions": (
        "ocpp.v16.StartTransaction",
        "ocpp.v16.MeterValues",
        "ocpp.v16.StopTransaction",
        "ocpp.v201.TransactionEvent",
    ),
    "billing": ("csms.session-events",),
}
"""What a replay writes, directly or not, by the group that reads it."""
QUIET_SECONDS = 5.0
"""Results are produced after their commit; if their worker was killed in between, by the next one after a lease."""

PROGRESS = "SELECT partition, offsets FROM stream.progress WHERE group_name = $1"
RECORDS = """
SELECT c.cdr_id, c.session_id::text, c.number, c.credit, c.station_id, c.currency, c.total_excl, c.total_incl,
       c.energy_wh, c.ocpi, c.bill, c::text AS whole
  FROM billing.cdrs c
 WHERE c.station_id = ANY($1::text[])
"""
STANDING = """
SELECT c.session_id::text, s.status, count(*) FILTER (WHERE NOT c.credit) - count(*) FILTER (WHERE c.credit) AS standing
  FROM billing.cdrs c LEFT JOIN billing.sessions s USING (session_id)
 WHERE c.station_id = ANY($1::text[])
 GROUP BY c.session_id, s.status
HAVING count(*) FILTER (WHERE NOT c.credit) - count(*) FILTER (WHERE c.credit)
       <> CASE WHEN s.status = 'priced' THEN 1 ELSE 0 END
"""
CHARGES = """
SELECT session_id::text, row (station_id, transaction_id, status, reason, tariff_id, tariff_version, currency,
       cost_excl, cost_incl, energy_wh, energy_rung, started_at, ended_at, cdr_id, cdr_count, flags)::text
  FROM billing.sessions
 WHERE station_id = ANY($1::text[])
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """All records of some stations, credits included."""

    rows: Mapping[str, str]
    """Whole rows of the table, by the record's id."""
    charges: Mapping[str, str]
    """What the table of sessions says, by the session's id."""
    told: Mapping[str, bytes]
    """The values on the topic, by the record's id."""
    copies: int
    """How many records there are on the topic: some come twice."""
    problems: tuple[str, ...]
    """What table and topic do not agree on, and sessions that are not billed once."""

    def differences(self, after: Kept) -> Iterator[str]:
        """What is not the same, byte for byte, in another look."""
        for name in ("rows", "charges", "told"):
            mine, theirs = getattr(self, name), getattr(after, name)
            for key in sorted(mine.keys() | theirs.keys()):
                if mine.get(key) != theirs.get(key):
                    yield f"{name} of {key}: {mine.get(key)!r}, afterwards {theirs.get(key)!r}"


async def kept(run: RunFile, stations: Collection[str], seconds: float = 30.0) -> Kept:
    """What table and topic hold, once they agree or the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        found = await _look(run, stations)
        if not found.problems or time.monotonic() > deadline:
            return found
        await asyncio.sleep(1.0)


async def _look(run: RunFile, stations: Collection[str]) -> Kept:
    connection = await asyncpg.connect(run.postgres.url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            rows = {row["cdr_id"]: dict(row) for row in await connection.fetch(RECORDS, list(stations))}
            charges = {row[0]: row[1] for row in await connection.fetch(CHARGES, list(stations))}
            standing = await connection.fetch(STANDING, list(stations))
    finally:
        await connection.close()
    problems = [f"{row[0]} ({row[1] or 'no session'}) has {row[2]} records that stand" for row in standing]
    read, wanted = reader("csms.Cdr"), frozenset(stations)
    told: dict[str, bytes] = {}
    copies: Counter[str] = Counter()
    async for record in records(run.kafka.url, TOPIC):
        key, said = record.key.decode(), read(record.value)
        if said["station_id"] not in wanted:
            continue
        copies[key] += 1
        if told.setdefault(key, record.value) != record.value:
            problems.append(f"{key} is on {TOPIC} in more than one form")
        if copies[key] == 1 and key in rows:
            problems += _unlike(rows[key], said)
    for key in sorted(rows.keys() - told.keys()):
        problems.append(f"{key} is not on {TOPIC}")
    for key in sorted(told.keys() - rows.keys()):
        problems.append(f"{key} is on {TOPIC} and not in the table")
    whole = {key: row["whole"] for key, row in rows.items()}
    return Kept(whole, charges, told, copies.total(), tuple(problems))


def _unlike(row: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[str]:
    names = {"total_excl": "total_cost_excl_vat", "total_incl": "total_cost_incl_vat"}
    same = ("cdr_id", "session_id", "number", "credit", "station_id", "currency", "energy_wh", "ocpi", "bill")
    for name in (*same, *names):
        if row[name] != said[names.get(name, name)]:
            yield f"{row['cdr_id']}: {name} is {row[name]!r} in the table, {said[names.get(name, name)]!r} on {TOPIC}"


async def caught_up(run: RunFile, seconds: float = 120.0) -> None:
    """Wait until sessions and billing have read whatever there is, and nothing more comes for a while.

    Raises:
        TimeoutError: They have not, after so long.
    """
    deadline = time.monotonic() + seconds
    connection = await asyncpg.connect(run.postgres.url)
    try:
        quiet_since = time.monotonic()
        last: dict[tuple[str, int], int] = {}
        while time.monotonic() - quiet_since < QUIET_SECONDS:
            ends = await end_offsets(run.kafka.url, [topic for topics in READ.values() for topic in topics])
            behind = await _behind(connection, ends)
            if behind or ends != last:
                quiet_since, last = time.monotonic(), ends
            if time.monotonic() > deadline:
                raise TimeoutError(f"still to be read after {seconds:g} s: {behind}")
            await asyncio.sleep(0.5)
    finally:
        await connection.close()


async def _behind(connection: Any, ends: Mapping[tuple[str, int], int]) -> dict[str, int]:
    """How many records each group has not read, of the partitions that it has begun or not."""
    found: dict[str, int] = {}
    for group, topics in READ.items():
        rows = await connection.fetch(PROGRESS, group)
        read = {row["partition"]: orjson.loads(row["offsets"]) for row in rows}
        lag = sum(end - read.get(number, {}).get(topic, 0) for (topic, number), end in ends.items() if topic in topics)
        if lag:
            found[group] = lag
    return found
