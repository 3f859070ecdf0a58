"""Progress rows in PostgreSQL: schema `stream`, one connection per worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson

from busbar.postgres import CONNECTION_ERRORS, DATABASE_ERRORS, connect
from busbar.stream.interfaces import Processor, StoreCall
from busbar.stream.leases import NO_STATE, Advance, Claim, Overtaken, Row, StoreUnavailable, Survey, Unstorable

COMMAND_TIMEOUT_SECONDS = 10.0

_OVERTAKEN = "BB001"
_DATA_CLASSES = ("22", "23")
"""SQLSTATE: data exception, integrity constraint violation."""
_BROKEN_CLASSES = ("08", "25", "40", "53", "55", "57", "58", "XX")
"""SQLSTATE: connection, transaction state, rollback, resources, operator intervention, system, internal errors."""

_ENSURE = """
INSERT INTO stream.progress (group_name, partition)
SELECT $1, n FROM generate_series(0, $2 - 1) AS n
ON CONFLICT DO NOTHING
"""
_FORGET_OLD_WORKERS = "DELETE FROM stream.workers WHERE heartbeat_at < clock_timestamp() - interval '1 hour'"
# The rows, then the workers under partition -1: one round trip.
_SURVEY = """
SELECT partition, owner, owner IS NULL OR lease_until < clock_timestamp() AS free
FROM stream.progress WHERE group_name = $1
UNION ALL
SELECT -1, worker_id, false
FROM stream.workers WHERE group_name = $1 AND heartbeat_at > clock_timestamp() - make_interval(secs => $2)
"""
_KEEP = """
WITH heartbeat AS (
    INSERT INTO stream.workers (group_name, worker_id, heartbeat_at) VALUES ($1, $2, clock_timestamp())
    ON CONFLICT (group_name, worker_id) DO UPDATE SET heartbeat_at = EXCLUDED.heartbeat_at
)
UPDATE stream.progress AS p
SET lease_until = clock_timestamp() + make_interval(secs => $3),
    results = CASE WHEN p.partition = ANY ($6::int[]) THEN ''::bytea ELSE p.results END
FROM unnest($4::int[], $5::bigint[]) AS o (partition, version)
WHERE p.group_name = $1 AND p.partition = o.partition AND p.version = o.version AND p.owner = $2
RETURNING p.partition
"""
_CLAIM = """
WITH free AS (
    SELECT partition FROM stream.progress
    WHERE group_name = $1 AND (owner IS NULL OR owner = $2 OR lease_until < clock_timestamp())
      AND partition <> ALL ($4::int[])
    ORDER BY partition LIMIT $5
    FOR UPDATE SKIP LOCKED
)
UPDATE stream.progress AS p
SET owner = $2, version = p.version + 1, lease_until = clock_timestamp() + make_interval(secs => $3),
    updated_at = clock_timestamp()
FROM free
WHERE p.group_name = $1 AND p.partition = free.partition
RETURNING p.partition, p.version, p.offsets, p.results
"""
_RELEASE = """
UPDATE stream.progress AS p
SET owner = NULL, lease_until = NULL,
    results = CASE WHEN p.partition = ANY ($5::int[]) THEN ''::bytea ELSE p.results END
FROM unnest($3::int[], $4::bigint[]) AS o (partition, version)
WHERE p.group_name = $1 AND p.partition = o.partition AND p.version = o.version AND p.owner = $2
"""
_LEAVE = "DELETE FROM stream.workers WHERE group_name = $1 AND worker_id = $2"
_ADVANCE = "stream.advance($1, $2, $3, $4, $5, $6, $7)"


class PostgresProgressStore:
    """A `ProgressStore` on one connection.

    Args:
        command_timeout_seconds: A statement that takes longer means a connection that hangs.
    """

    def __init__(
        self,
        url: str,
        *,
        group: str,
        worker_id: str,
        lease_seconds: float,
        command_timeout_seconds: float = COMMAND_TIMEOUT_SECONDS,
    ) -> None:
        self._command_timeout_seconds = command_timeout_seconds
        self._url = url
        self._group = group
        self._worker_id = worker_id
        self._lease_seconds = lease_seconds
        self._connection: Any = None
        self._beside: Any = None
        """For reading while the other one commits; connected when it is first needed."""
        self._statements: dict[tuple[str, int], str] = {}

    async def open(self, partitions: int) -> None:
        """See `ProgressStore.open`."""
        await self.close()
        async with _sorted_errors():
            self._connection = connection = await self._connect()
            await connection.execute(_ENSURE, self._group, partitions)
            await connection.execute(_FORGET_OLD_WORKERS)

    async def close(self) -> None:
        """See `ProgressStore.close`."""
        connections, self._connection, self._beside = (self._connection, self._beside), None, None
        for connection in connections:
            if connection is not None:
                await _end(connection)

    async def survey(self) -> Survey:
        """See `ProgressStore.survey`."""
        async with self._errors() as connection:
            found = await connection.fetch(_SURVEY, self._group, self._lease_seconds)
        rows = [Row(partition, owner, free) for partition, owner, free in found if partition >= 0]
        return Survey(rows, [owner for partition, owner, _ in found if partition < 0])

    async def keep(self, owned: Mapping[int, int], settled: Collection[int]) -> frozenset[int]:
        """See `ProgressStore.keep`."""
        async with self._errors() as connection:
            kept = await connection.fetch(
                _KEEP,
                self._group,
                self._worker_id,
                self._lease_seconds,
                list(owned),
                list(owned.values()),
                list(settled),
            )
        return frozenset(owned) - {row[0] for row in kept}

    async def claim(self, limit: int, owned: Collection[int]) -> list[Claim]:
        """See `ProgressStore.claim`."""
        async with self._errors() as connection:
            rows = await connection.fetch(_CLAIM, self._group, self._worker_id, self._lease_seconds, list(owned), limit)
        return [
            Claim(partition, version, orjson.loads(offsets), results)
            for partition, version, offsets, results in sorted(rows)
        ]

    async def release(self, owned: Mapping[int, int], settled: Collection[int]) -> None:
        """See `ProgressStore.release`."""
        async with self._errors() as connection:
            await connection.execute(
                _RELEASE, self._group, self._worker_id, list(owned), list(owned.values()), list(settled)
            )

    async def leave(self) -> None:
        """See `ProgressStore.leave`."""
        async with self._errors() as connection:
            await connection.execute(_LEAVE, self._group, self._worker_id)

    async def load(self, processor: Processor[Any], events: Sequence[Any], *, beside: bool = False) -> Any:
        """See `ProgressStore.load`."""
        if not beside:
            async with self._errors() as connection:
                return await processor.load(connection, events)
        try:
            async with _sorted_errors():
                if self._beside is None:
                    self._beside = await self._connect()
                return await processor.load(self._beside, events)
        except BaseException:
            connection, self._beside = self._beside, None
            if connection is not None:
                connection.terminate()
            raise

    async def due(self, processor: Processor[Any], partitions: Sequence[int], now_ms: int) -> Sequence[Any]:
        """See `ProgressStore.due`."""
        async with self._errors() as connection:
            return await processor.due(connection, partitions, now_ms)

    async def commit(self, processor: Processor[Any], state: Any, advances: Sequence[Advance]) -> None:
        """See `ProgressStore.commit`. One round trip if the processor stores by one function call."""
        arguments = (
            self._group,
            self._worker_id,
            self._lease_seconds,
            [advance.partition for advance in advances],
            [advance.version for advance in advances],
            [orjson.dumps(advance.offsets).decode() for advance in advances],
            [advance.results for advance in advances],
        )
        by_call = getattr(processor, "store_call", None)
        call: StoreCall | None = by_call(state) if by_call is not None and state is not NO_STATE else None
        async with self._errors() as connection:
            if state is NO_STATE:
                await connection.execute(f"SELECT {_ADVANCE}", *arguments)
            elif call is not None:
                await connection.execute(self._statement(call), *arguments, *call.arguments)
            else:
                async with connection.transaction():
                    await processor.store(connection, state)
                    await connection.execute(f"SELECT {_ADVANCE}", *arguments)

    async def _connect(self) -> Any:
        async with asyncio.timeout(self._command_timeout_seconds):
            return await connect(self._url, service=self._group, command_timeout=self._command_timeout_seconds)

    def _statement(self, call: StoreCall) -> str:
        key = (call.function, len(call.arguments))
        statement = self._statements.get(key)
        if statement is None:
            statement = f"SELECT {_ADVANCE}"
            if call.function:
                places = ", ".join(f"${8 + index}" for index in range(len(call.arguments)))
                statement += f", {call.function}({places})"
            self._statements[key] = statement
        return statement

    @asynccontextmanager
    async def _errors(self) -> AsyncIterator[Any]:
        if self._connection is None:
            raise StoreUnavailable("not connected")
        async with _sorted_errors():
            yield self._connection


async def _end(connection: Any) -> None:
    try:
        await connection.close(timeout=1.0)
    except DATABASE_ERRORS:
        connection.terminate()


@asynccontextmanager
async def _sorted_errors() -> AsyncIterator[None]:
    """Sort what the database says into what a worker can do about it; the rest is a bug and passes."""
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _translated(error) from error
    except UnicodeEncodeError as error:
        raise Unstorable("a text that is not Unicode") from error
    except CONNECTION_ERRORS as error:
        raise StoreUnavailable(repr(error)) from error


def _translated(error: asyncpg.PostgresError) -> Exception:
    state = error.sqlstate or ""
    if state == _OVERTAKEN:
        return Overtaken(frozenset(orjson.loads(error.detail or "[]")))
    if state.startswith(_DATA_CLASSES):
        return Unstorable(f"{state} {type(error).__name__}: {error}")
    if state.startswith(_BROKEN_CLASSES):
        return StoreUnavailable(f"{state} {type(error).__name__}")
    return error
