"""A processor whose tables show any record that was folded twice, left out or out of order; also as a process.

`python -m tests.integration.stream.chain SERVERS DATABASE_URL GROUP LEASE_SECONDS OUT TOPIC...` runs one worker until
SIGTERM.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvloop

from busbar.records import Record, Result
from busbar.service import Health
from busbar.stream.interfaces import Busy, InvalidRecord, StoreCall
from busbar.stream.worker import WorkerSettings, run_processor

TABLE = """
CREATE TABLE IF NOT EXISTS chains (
    group_name text, topic text, partition int, count int, digest text, wrong text[],
    PRIMARY KEY (group_name, topic, partition)
);
CREATE OR REPLACE FUNCTION store_chains(g text, ts text[], ps int[], cs int[], ds text[], ws text[])
RETURNS void LANGUAGE sql AS $$
    INSERT INTO chains SELECT g, t, p, c, d, CASE WHEN w = '' THEN '{}' ELSE string_to_array(w, ';') END
    FROM unnest(ts, ps, cs, ds, ws) AS u (t, p, c, d, w)
    ON CONFLICT (group_name, topic, partition)
    DO UPDATE SET count = EXCLUDED.count, digest = EXCLUDED.digest, wrong = chains.wrong || EXCLUDED.wrong
$$
"""


def digest_of(count: int) -> str:
    """The digest of the numbers from 0 to below `count`, in order."""
    digest = ""
    for number in range(count):
        digest = chained(digest, number)
    return digest


def chained(digest: str, number: int) -> str:
    return hashlib.blake2b(f"{digest}{number}".encode(), digest_size=8).hexdigest()


@dataclass(slots=True)
class Chain:
    count: int = 0
    digest: str = ""
    wrong: list[str] = field(default_factory=list)


class ChainProcessor:
    """Values are numbers that count up per topic and partition; each gives one result, named after its place.

    Other values: `poison` is invalid, `busy` waits until `patience` is set, `nul` is what Postgres refuses to store,
    `bug` is an error of ours, and `nowhere` leads to a result that no topic can take.
    """

    def __init__(self, group: str, topics: Sequence[str], out: str, *, by_call: bool = True) -> None:
        self.group = group
        self.topics = topics
        self.patience = asyncio.Event()
        self._out = out
        if by_call:
            self.store_call = self._store_call

    def decode(self, record: Record) -> Record:
        if record.value is None:
            raise InvalidRecord("empty")
        return record

    async def load(self, connection: Any, events: Sequence[Record]) -> dict[tuple[str, int], Chain]:
        chains = {(event.topic, event.partition): Chain() for event in events}
        rows = await connection.fetch(
            "SELECT topic, partition, count, digest FROM chains WHERE group_name = $1", self.group
        )
        for topic, partition, count, digest in rows:
            if (topic, partition) in chains:
                chains[topic, partition] = Chain(count, digest)
        return chains

    def fold(self, state: dict[tuple[str, int], Chain], event: Record) -> Iterable[Result]:
        value = (event.value or b"").decode()
        chain = state[event.topic, event.partition]
        if value == "poison":
            raise InvalidRecord("poisoned", "as the test wants it")
        if value == "busy":
            if not self.patience.is_set():
                raise Busy("as the test wants it", 0.1)
            return ()
        if value == "nul":
            chain.wrong.append("\x00")
            return ()
        if value == "bug":
            raise ZeroDivisionError
        if value == "nowhere":
            return [Result(self._out, b"k", b"lost", partition=1_000_000)]
        number = int(value)
        if number != chain.count:
            chain.wrong.append(f"{number} after {chain.count} records")
        chain.count += 1
        chain.digest = chained(chain.digest, number)
        return [Result(self._out, event.key or b"", f"{event.topic}/{event.partition}/{number}".encode())]

    async def store(self, connection: Any, state: dict[tuple[str, int], Chain]) -> None:
        call = self._store_call(state)
        await connection.execute(f"SELECT {call.function}($1, $2, $3, $4, $5, $6)", *call.arguments)

    def _store_call(self, state: dict[tuple[str, int], Chain]) -> StoreCall:
        return StoreCall(
            "store_chains",
            (
                self.group,
                [topic for topic, _ in state],
                [partition for _, partition in state],
                [chain.count for chain in state.values()],
                [chain.digest for chain in state.values()],
                [";".join(chain.wrong) for chain in state.values()],
            ),
        )

    async def due(self, connection: Any, partitions: Sequence[int], now_ms: int) -> Sequence[Any]:
        return ()

    def partition_of_event(self, event: Record) -> int:
        return event.partition


async def _main(servers: str, url: str, group: str, lease_seconds: float, out: str, topics: Sequence[str]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run_processor(
        ChainProcessor(group, topics, out),
        bootstrap_servers=servers,
        database_url=url,
        health=Health(),
        stop=stop,
        settings=WorkerSettings(lease_seconds=lease_seconds),
    )


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), sys.argv[5], sys.argv[6:]))
