"""Progress rows in memory, on the event loop's clock: for tests and simulations.

`MemoryDatabase` is what several workers share; a hook may delay, fail or kill a worker before and after each of its
operations, so that a simulation reaches the worst moments.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from busbar.stream.interfaces import Processor
from busbar.stream.leases import NO_STATE, Advance, Claim, Overtaken, Row, StoreUnavailable, Survey

T = TypeVar("T")

Hook = Callable[[str, str, str], Awaitable[None]]
"""Worker id, operation and `before` or `after`; may raise `StoreUnavailable`, which loses the answer only if after."""


@dataclass(slots=True)
class _StoredRow:
    owner: str | None = None
    lease_until: float = 0.0
    version: int = 0
    offsets: dict[str, int] = field(default_factory=dict)
    results: bytes = b""


class MemoryDatabase:
    """Tables of processors, progress rows and heartbeats."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[Any, Any]] = {}
        """Of processors. Values are replaced, never changed in place."""
        self.available = True
        self.hook: Hook | None = None
        self.rows: dict[tuple[str, int], _StoredRow] = {}
        self.heartbeats: dict[tuple[str, str], float] = {}

    def now(self) -> float:
        return asyncio.get_running_loop().time()


class MemoryConnection:
    """What a processor gets for a connection: reads see what is committed, writes wait for the commit."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database
        self._writes: list[tuple[str, Any, Any]] = []

    def read(self, table: str, key: Any) -> Any:
        """The committed value, or `None`."""
        return self._database.tables.get(table, {}).get(key)

    def write(self, table: str, key: Any, value: Any) -> None:
        """Set a value with the commit."""
        self._writes.append((table, key, value))

    def apply(self) -> None:
        """Commit."""
        for table, key, value in self._writes:
            self._database.tables.setdefault(table, {})[key] = value


class MemoryProgressStore:
    """A `ProgressStore` on a `MemoryDatabase`."""

    def __init__(self, database: MemoryDatabase, *, group: str, worker_id: str, lease_seconds: float) -> None:
        self._database = database
        self._group = group
        self._worker_id = worker_id
        self._lease_seconds = lease_seconds

    async def open(self, partitions: int) -> None:
        """See `ProgressStore.open`."""

        def ensure() -> None:
            for number in range(partitions):
                self._database.rows.setdefault((self._group, number), _StoredRow())

        await self._run("open", ensure)

    async def close(self) -> None:
        """See `ProgressStore.close`."""

    async def survey(self) -> Survey:
        """See `ProgressStore.survey`."""

        def look() -> Survey:
            now = self._database.now()
            rows = [Row(number, row.owner, self._is_free(row)) for number, row in self._mine()]
            workers = [
                worker
                for (group, worker), at in self._database.heartbeats.items()
                if group == self._group and at > now - self._lease_seconds
            ]
            return Survey(rows, workers)

        return await self._run("survey", look)

    async def keep(self, owned: Mapping[int, int], settled: Collection[int]) -> frozenset[int]:
        """See `ProgressStore.keep`."""

        def renew() -> frozenset[int]:
            now = self._database.now()
            self._database.heartbeats[self._group, self._worker_id] = now
            lost = set()
            for number, version in owned.items():
                row = self._database.rows[self._group, number]
                if row.owner != self._worker_id or row.version != version:
                    lost.add(number)
                    continue
                row.lease_until = now + self._lease_seconds
                if number in settled:
                    row.results = b""
            return frozenset(lost)

        return await self._run("keep", renew)

    async def claim(self, limit: int, owned: Collection[int]) -> list[Claim]:
        """See `ProgressStore.claim`."""

        def take() -> list[Claim]:
            claims: list[Claim] = []
            for number, row in self._mine():
                if len(claims) < limit and number not in owned and (self._is_free(row) or row.owner == self._worker_id):
                    row.owner = self._worker_id
                    row.version += 1
                    row.lease_until = self._database.now() + self._lease_seconds
                    claims.append(Claim(number, row.version, dict(row.offsets), row.results))
            return claims

        return await self._run("claim", take)

    async def release(self, owned: Mapping[int, int], settled: Collection[int]) -> None:
        """See `ProgressStore.release`."""

        def give_back() -> None:
            for number, version in owned.items():
                row = self._database.rows[self._group, number]
                if row.owner == self._worker_id and row.version == version:
                    row.owner = None
                    if number in settled:
                        row.results = b""

        await self._run("release", give_back)

    async def leave(self) -> None:
        """See `ProgressStore.leave`."""
        await self._run("leave", lambda: self._database.heartbeats.pop((self._group, self._worker_id), None))

    async def load(self, processor: Processor[Any], events: Sequence[Any], *, beside: bool = False) -> Any:
        """See `ProgressStore.load`."""
        await self._run("load", lambda: None)
        return await processor.load(MemoryConnection(self._database), events)

    async def due(self, processor: Processor[Any], partitions: Sequence[int], now_ms: int) -> Sequence[Any]:
        """See `ProgressStore.due`."""
        await self._run("due", lambda: None)
        return await processor.due(MemoryConnection(self._database), partitions, now_ms)

    async def commit(self, processor: Processor[Any], state: Any, advances: Sequence[Advance]) -> None:
        """See `ProgressStore.commit`."""
        connection = MemoryConnection(self._database)
        if state is not NO_STATE:
            await processor.store(connection, state)

        def move() -> None:
            rows = {advance.partition: self._database.rows[self._group, advance.partition] for advance in advances}
            lost = {
                advance.partition
                for advance in advances
                if rows[advance.partition].owner != self._worker_id
                or rows[advance.partition].version != advance.version
            }
            if lost:
                raise Overtaken(frozenset(lost))
            connection.apply()
            for advance in advances:
                row = rows[advance.partition]
                row.version += 1
                row.offsets.update(advance.offsets)
                row.results = advance.results
                row.lease_until = self._database.now() + self._lease_seconds

        await self._run("commit", move)

    def _mine(self) -> list[tuple[int, _StoredRow]]:
        return [(number, row) for (group, number), row in self._database.rows.items() if group == self._group]

    def _is_free(self, row: _StoredRow) -> bool:
        return row.owner is None or row.lease_until < self._database.now()

    async def _run(self, operation: str, action: Callable[[], T]) -> T:
        hook = self._database.hook
        if hook is not None:
            await hook(self._worker_id, operation, "before")
        if not self._database.available:
            raise StoreUnavailable("the database is away")
        result = action()
        if hook is not None:
            await hook(self._worker_id, operation, "after")
        return result
