"""A group of workers in virtual time, on a broker and a database in memory, and what may happen to them.

One seed is one history: kills, stops and continues, graceful ends, outages, answers that are lost after the commit took
place, busy and poisoned records. The processor keeps a hash chain per topic and partition, so that its committed state
shows any record that was folded twice, left out or out of order.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from busbar.avro import decode
from busbar.records import Record, Result, TopicPartition
from busbar.stream.interfaces import Busy, InvalidRecord
from busbar.stream.leases import StoreUnavailable
from busbar.stream.leases_memory import MemoryConnection, MemoryDatabase, MemoryProgressStore
from busbar.stream.loop import Worker
from busbar.stream.memory import MemoryBroker, MemoryConsumer, MemoryProducer
from busbar.stream.settings import WorkerSettings

TOPICS = ("alpha", "beta")
PARTITIONS = 2
GROUP = "chain"
POISON = b"poison"
NOBODYS = b"nobody's"
"""Is nothing to the processor."""

SETTINGS = WorkerSettings(
    lease_seconds=1.5,
    poll_seconds=0.3,
    batch_limit=12,
    buffer_limit=16,
    merge_patience_seconds=3.0,
    silence_seconds=2.0,
    stop_seconds=1.0,
)


@dataclass(slots=True)
class Chain:
    """What is kept per topic and partition."""

    count: int = 0
    digest: bytes = b""
    wrong: list[str] = field(default_factory=list)
    """Records that did not follow on."""


@dataclass(slots=True)
class ChainState:
    chains: dict[tuple[str, int], Chain]
    changed: set[tuple[str, int]] = field(default_factory=set)


class ChainProcessor:
    """Counts and chains what it is given; every record gives one result, named after it."""

    group = GROUP
    topics: Sequence[str] = TOPICS

    def __init__(self, rng: random.Random, busy_share: float) -> None:
        self._rng = rng
        self._busy_share = busy_share

    def decode(self, record: Record) -> Record | None:
        if record.value == NOBODYS:
            return None
        if record.value == POISON and record.offset % 2:
            raise InvalidRecord("undecodable")
        return record

    async def load(self, connection: MemoryConnection, events: Sequence[Record]) -> ChainState:
        chains = {}
        for event in events:
            key = (event.topic, event.partition)
            stored = connection.read("chains", key) or Chain()
            chains[key] = Chain(stored.count, stored.digest, list(stored.wrong))
        return ChainState(chains)

    def fold(self, state: ChainState, event: Record) -> Iterable[Result]:
        if event.value == POISON:
            raise InvalidRecord("poisoned")
        if self._rng.random() < self._busy_share:
            raise Busy("not now", self._rng.choice((0.05, 0.4)))
        key = (event.topic, event.partition)
        chain = state.chains[key]
        number = int(event.value or b"")
        if number != chain.count:
            chain.wrong.append(f"{number} after {chain.count} records")
        chain.count += 1
        chain.digest = hashlib.blake2b(chain.digest + (event.value or b""), digest_size=8).digest()
        state.changed.add(key)
        return [Result("out", event.key or b"", f"{event.topic}/{event.partition}/{event.offset}".encode())]

    async def store(self, connection: MemoryConnection, state: ChainState) -> None:
        for key in state.changed:
            connection.write("chains", key, state.chains[key])

    async def due(self, connection: Any, partitions: Sequence[int], now_ms: int) -> Sequence[Any]:
        return ()

    def partition_of_event(self, event: Record) -> int:
        return event.partition


class GatedConsumer(MemoryConsumer):
    """A consumer of a process that may be stopped."""

    gate: asyncio.Event

    async def assign(self, positions: Mapping[TopicPartition, int | None]) -> None:
        await self.gate.wait()
        await super().assign(positions)
        await self.gate.wait()

    async def fetch(self, timeout_seconds: float) -> dict[TopicPartition, list[Record]]:
        await self.gate.wait()
        fetched = await super().fetch(timeout_seconds)
        await self.gate.wait()
        return fetched


class WatchedProducer(MemoryProducer):
    """A producer that lets nothing out that is not committed."""

    database: MemoryDatabase
    gate: asyncio.Event

    async def flush(self) -> None:
        await self.gate.wait()
        await super().flush()
        await self.gate.wait()

    def append(self, topic: str, partition: int, **record: Any) -> None:
        if topic == "out":
            source, number, offset = record["value"].decode().split("/")
            committed = self.database.rows[GROUP, int(number)].offsets.get(source, 0)
            assert int(offset) < committed, f"{source}/{number}/{offset} is produced before its commit"
        super().append(topic, partition, **record)


class Process:
    """A worker with its own producer and consumer: what a kill takes away at once."""

    def __init__(self, simulation: Simulation, worker_id: str) -> None:
        self.worker_id = worker_id
        self.gate = asyncio.Event()
        self.gate.set()
        self.stop = asyncio.Event()
        self.dead = False
        self.producer = WatchedProducer(simulation.broker)
        self.producer.database = simulation.database
        self.producer.gate = self.gate
        self.consumer = GatedConsumer(simulation.broker, group_id=GROUP, max_records=simulation.rng.choice((3, 1000)))
        self.consumer.gate = self.gate
        store = MemoryProgressStore(
            simulation.database, group=GROUP, worker_id=worker_id, lease_seconds=simulation.settings.lease_seconds
        )
        loop = asyncio.get_running_loop()
        self.worker = Worker(
            simulation.processor,
            producer=self.producer,
            consumer=self.consumer,
            store=store,
            worker_id=worker_id,
            settings=simulation.settings,
            wall_clock=lambda: 1_700_000_000 + loop.time(),
        )
        self.task = asyncio.create_task(self.worker.run(self.stop))

    def kill(self, rng: random.Random) -> None:
        """SIGKILL: what is in its producer may have left in part."""
        self.dead = True
        self.producer.crash(deliver=rng.randint(0, 10))
        self.task.cancel()

    def pause(self) -> None:
        """SIGSTOP."""
        self.gate.clear()
        self.producer.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self.gate.set()
        self.producer.resume()


class Simulation:
    """One history.

    Attributes:
        settings: Of all workers.
        partitions: Of each topic that is read.

    Args:
        seed: Decides everything.
        faults: Whether anything goes wrong at all.
    """

    settings = SETTINGS
    partitions = PARTITIONS

    def __init__(self, seed: int, *, faults: bool = True, records: int = 120, seconds: float = 5.0) -> None:
        self.rng = random.Random(seed)
        self.faults = faults
        self.records = records
        self.seconds = seconds
        self.broker = MemoryBroker(
            {**dict.fromkeys(TOPICS, self.partitions), "out": 2, "csms.dead-letters": 2},
            rng=self.rng if faults else None,
        )
        self.broker.ack_seconds = self.rng.choice((0.0, 0.002, 0.2)) if faults else 0.001
        self.database = MemoryDatabase()
        self.database.hook = self._hook
        self.processor = ChainProcessor(self.rng, 0.01 if faults else 0.0)
        self.processes: dict[str, Process] = {}
        self.started = 0
        self.written: dict[tuple[str, int], int] = {(t, p): 0 for t in TOPICS for p in range(self.partitions)}
        self.poisoned: set[str] = set()
        self.nobodys: set[str] = set()
        self.log: list[str] = []

    async def run(self) -> None:
        """Live through the history, then heal everything and wait until all is processed."""
        for _ in range(self.rng.choice((1, 2, 2, 3)) if self.faults else 2):
            self._start()
        feeder = asyncio.create_task(self._feed())
        if self.faults:
            await self._trouble()
        await feeder
        self.faults = False
        self.database.available = True
        self.broker.come_back()
        for process in self._alive():
            process.resume()
        self._start()
        deadline = asyncio.get_running_loop().time() + 60.0
        while not self._done():
            self._raise_failures()
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"not everything was processed: {self._missing()}")
            await asyncio.sleep(0.25)
        for process in self._alive():
            process.stop.set()
        await asyncio.wait_for(asyncio.gather(*(process.task for process in self._alive())), 30.0)
        self.check()

    def check(self) -> None:
        """The invariants."""
        for (topic, partition), count in self.written.items():
            chain = self.database.tables.get("chains", {}).get((topic, partition)) or Chain()
            assert chain.wrong == [], f"{topic}/{partition}: {chain.wrong}"
            assert chain.count == count
            digest = b""
            for number in range(count):
                digest = hashlib.blake2b(digest + str(number).encode(), digest_size=8).digest()
            assert chain.digest == digest
        produced = [(record.value or b"").decode() for record in self.broker.records("out")]
        assert set(produced) == self._expected()
        self._check_order_of_results()
        assert self._dead() == self.poisoned

    def _check_order_of_results(self) -> None:
        """Leaving repetitions aside, each output partition has the results of a source partition in its order."""
        seen: set[str] = set()
        last: dict[tuple[int, str, str], int] = {}
        for record in self.broker.records("out"):
            name = (record.value or b"").decode()
            if name not in seen:
                seen.add(name)
                topic, partition, offset = name.split("/")
                key = (record.partition, topic, partition)
                assert int(offset) > last.get(key, -1), f"{name} comes after {last[key]}"
                last[key] = int(offset)

    # Trouble

    async def _trouble(self) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < self.seconds:
            await asyncio.sleep(self.rng.expovariate(1 / 0.5))
            self._raise_failures()
            alive = self._alive()
            what = self.rng.choice(("kill", "pause", "pause", "stop", "start", "database", "broker", "ack"))
            self.log.append(f"{loop.time():.2f} {what}")
            if what == "start" or not alive:
                if len(alive) < 4:
                    self._start()
            elif what == "kill":
                self.rng.choice(alive).kill(self.rng)
            elif what == "pause":
                process = self.rng.choice(alive)
                process.pause()
                loop.call_later(self.rng.choice((0.2, 1.4, 1.6, 4.0)), process.resume)
            elif what == "stop":
                self.rng.choice(alive).stop.set()
            elif what == "database":
                self.database.available = False
                loop.call_later(self.rng.uniform(0.1, 2.5), self._database_back)
            elif what == "broker":
                self.broker.go_away()
                loop.call_later(self.rng.uniform(0.1, 4.0), self.broker.come_back)
            else:
                self.broker.ack_seconds = self.rng.choice((0.0, 0.002, 0.5))

    async def _hook(self, worker_id: str, operation: str, moment: str) -> None:
        process = self.processes[worker_id]
        await process.gate.wait()
        if self.faults:
            await asyncio.sleep(self.rng.choice((0.0, 0.0, 0.001, 0.01, 0.1)))
        if self.faults:  # still: the trouble may have ended meanwhile
            dice = self.rng.random()
            if dice < 0.004 or (operation == "commit" and dice < 0.02):
                self.log.append(f"{self.database.now():.2f} {worker_id} dies {moment} {operation}")
                process.kill(self.rng)
                await asyncio.sleep(0)
            elif dice < 0.03:
                raise StoreUnavailable(f"lost {moment} {operation}")
            elif operation == "commit" and dice < 0.06:
                process.pause()
                asyncio.get_running_loop().call_later(self.rng.choice((0.3, 2.0, 4.0)), process.resume)
        await process.gate.wait()

    def _database_back(self) -> None:
        self.database.available = True

    def _start(self) -> None:
        self.started += 1
        name = f"{self.rng.choice('abcdef')}{self.started}"
        self.processes[name] = Process(self, name)

    def _alive(self) -> list[Process]:
        return [process for process in self.processes.values() if not process.dead and not process.task.done()]

    def _raise_failures(self) -> None:
        for process in self.processes.values():
            if process.task.done() and not process.task.cancelled() and process.task.exception() is not None:
                raise AssertionError(f"{process.worker_id} failed") from process.task.exception()

    # Work

    async def _feed(self) -> None:
        loop = asyncio.get_running_loop()
        backlog = self.rng.random() < 0.5
        for _ in range(self.records):
            topic = self.rng.choice(TOPICS)
            partition = self.rng.randrange(self.partitions)
            number = self.written[topic, partition]
            poisoned = self.faults and self.rng.random() < 0.02
            nobodys = self.faults and not poisoned and self.rng.random() < 0.2
            record = self.broker.write(
                topic,
                partition,
                key=b"station-%d" % self.rng.randrange(8),
                value=POISON if poisoned else NOBODYS if nobodys else str(number).encode(),
                timestamp_ms=int(1_700_000_000_000 + loop.time() * 1000),
            )
            if poisoned:
                self.poisoned.add(f"{topic}/{partition}/{record.offset}")
            elif nobodys:
                self.nobodys.add(f"{topic}/{partition}/{record.offset}")
            else:
                self.written[topic, partition] += 1
            if not backlog:
                await asyncio.sleep(self.seconds / self.records)

    def _expected(self) -> set[str]:
        names = {
            f"{record.topic}/{record.partition}/{record.offset}"
            for topic in TOPICS
            for record in self.broker.records(topic)
        }
        return names - self.poisoned - self.nobodys

    def _missing(self) -> list[str]:
        produced = {(record.value or b"").decode() for record in self.broker.records("out")}
        return sorted(self._expected() - produced)[:10]

    def _dead(self) -> set[str]:
        letters = [decode(record.value or b"")[1] for record in self.broker.records("csms.dead-letters")]
        return {f"{letter['topic']}/{letter['partition']}/{letter['offset']}" for letter in letters}

    def _done(self) -> bool:
        return not self._missing() and self._dead() == self.poisoned
