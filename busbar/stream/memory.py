"""A broker in memory: partitions, offsets, timestamps and acknowledgements as Kafka has them, without Kafka.

For tests and simulations. It lives on the event loop's clock alone, so that a loop with virtual time drives it, and
one contract suite runs on it and on real Kafka. A simulation may send the broker away and bring it back, delay its
acknowledgements, crash a producer or stop it, and make fetches come in pieces and in any order.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from busbar.records import Headers, Record, Result, TopicPartition
from busbar.stream.interfaces import EARLIEST, RecordTooLarge, UnknownTopic
from busbar.stream.partitioner import Partitioner
from busbar.stream.results import record_size

MAX_REQUEST_BYTES = 1_000_000


@dataclass(slots=True)
class _Log:
    start: int = 0
    """The offset of the first record that is still held."""
    records: list[Record] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.start + len(self.records)


class MemoryBroker:
    """Topics with their partitions; hands out producers and consumers.

    Args:
        topics: Partition counts by topic name.
        rng: If given, fetches bring a random part of what there is, from partitions in random order.
    """

    def __init__(self, topics: Mapping[str, int] | None = None, *, rng: random.Random | None = None) -> None:
        self.ack_seconds = 0.0
        """From the arrival of a batch to its acknowledgement."""
        self.committed: dict[str, dict[TopicPartition, int]] = {}
        """What groups have committed, for lag tools."""
        self._logs: dict[TopicPartition, _Log] = {}
        self._counts: dict[str, int] = {}
        self._away_since: float | None = None
        self._arrivals: dict[asyncio.Future[None], None] = {}  # in order, so that a seed repeats its history
        self._rng = rng
        for name, partitions in (topics or {}).items():
            self.create_topic(name, partitions)

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic, or add partitions to it."""
        for number in range(self._counts.get(name, 0), partitions):
            self._logs[TopicPartition(name, number)] = _Log()
        self._counts[name] = max(partitions, self._counts.get(name, 0))
        self._announce()

    def producer(self, **settings: float) -> MemoryProducer:
        """A producer; `flush_interval_seconds` as in `KafkaProducer`."""
        return MemoryProducer(self, **settings)

    def consumer(
        self, *, group_id: str | None = None, max_records: int = 2_000, lookup_seconds: float = 10.0
    ) -> MemoryConsumer:
        """A consumer.

        Args:
            max_records: The most that one fetch takes from a partition.
            lookup_seconds: How long it waits for a broker that is away, or a partition that does not exist.
        """
        return MemoryConsumer(self, group_id=group_id, max_records=max_records, lookup_seconds=lookup_seconds)

    # Faults

    def go_away(self) -> None:
        """Stop answering: nothing is acknowledged, nothing is fetched, lookups time out."""
        if self._away_since is None:
            self._away_since = asyncio.get_running_loop().time()

    def come_back(self) -> None:
        """Answer again."""
        self._away_since = None
        self._announce()

    def trim(self, partition: TopicPartition, start: int) -> None:
        """Forget what lies below an offset, as retention does."""
        log = self._logs[partition]
        del log.records[: max(0, start - log.start)]
        log.start = max(log.start, start)

    # Looking in

    def records(self, topic: str) -> list[Record]:
        """Everything a topic holds, partition by partition."""
        return [
            record
            for number in range(self._counts[topic])
            for record in self._logs[TopicPartition(topic, number)].records
        ]

    def write(
        self,
        topic: str,
        partition: int,
        *,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Headers = (),
    ) -> Record:
        """Put one record at the end of a partition."""
        log = self._logs[TopicPartition(topic, partition)]
        record = Record(topic, partition, log.end, timestamp_ms, key, value, headers)
        log.records.append(record)
        self._announce()
        return record

    # For its producers and consumers

    @property
    def away_since(self) -> float | None:
        return self._away_since

    def count(self, topic: str) -> int | None:
        return self._counts.get(topic)

    def log(self, partition: TopicPartition) -> _Log | None:
        return self._logs.get(partition)

    def some(self, records: list[Record]) -> list[Record]:
        """What one fetch brings of these: all, or a random part if the broker was given a source of chance."""
        if self._rng is None or not records:
            return records
        return records[: self._rng.randint(0, len(records))] if self._rng.random() < 0.3 else records

    def arrange(self, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        """The order in which one fetch visits partitions."""
        arranged = list(partitions)
        if self._rng is not None:
            self._rng.shuffle(arranged)
        return arranged

    async def arrival(self, timeout_seconds: float) -> None:
        """Wait until something changes, or for the timeout."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrivals[waiter] = None
        try:
            await asyncio.wait([waiter], timeout=timeout_seconds)
        finally:
            del self._arrivals[waiter]

    def _announce(self) -> None:
        for waiter in self._arrivals:
            if not waiter.done():
                waiter.set_result(None)


@dataclass(slots=True, eq=False)
class _Waiting:
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Headers
    on_ack: Callable[[], None] | None
    size: int
    since: float


class MemoryProducer:
    """A `Producer` on a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, *, flush_interval_seconds: float = 0.0) -> None:
        self.unacknowledged_bytes = 0
        self.max_request_bytes = MAX_REQUEST_BYTES
        self._broker = broker
        self._interval = flush_interval_seconds
        self._partitioner = Partitioner()
        self._waiting: list[_Waiting] = []
        self._delivered: list[_Waiting] = []
        self._tick: asyncio.TimerHandle | None = None
        self._flushes: list[tuple[set[_Waiting], asyncio.Future[None]]] = []
        self._stopped = False
        self._crashed = False

    async def start(self, topics: Iterable[str] = ()) -> None:
        """As `KafkaProducer.start`: waits while the broker is away."""
        while self._broker.away_since is not None:
            await self._broker.arrival(1.0)

    async def stop(self, deadline_seconds: float = 5.0) -> bool:
        """Send what is left, for so long at most. Returns whether all of it was acknowledged."""
        try:
            await asyncio.wait_for(self.flush(), deadline_seconds)
        except TimeoutError:
            return False
        return True

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def crash(self, deliver: int = 0) -> None:
        """Die, as in SIGKILL: so many of the waiting records still arrive, the others never do."""
        for waiting in self._waiting[:deliver]:
            self._write(waiting)
        self._waiting.clear()
        self._crashed = True

    def pause(self) -> None:
        """Stop, as in SIGSTOP: nothing leaves until `resume`."""
        self._stopped = True

    def resume(self) -> None:
        """Go on, as in SIGCONT."""
        self._stopped = False
        self._schedule(0.0)

    def append(
        self,
        topic: str,
        partition: int,
        *,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Headers = (),
        on_ack: Callable[[], None] | None = None,
    ) -> None:
        """See `Producer.append`."""
        if self._crashed:
            return
        size = record_size(key, value, headers)
        if size > self.max_request_bytes:
            raise RecordTooLarge(f"a record of {size} bytes for {topic} exceeds {self.max_request_bytes}")
        now = asyncio.get_running_loop().time()
        self._waiting.append(_Waiting(topic, partition, key, value, timestamp_ms, headers, on_ack, size, now))
        self.unacknowledged_bytes += size
        self._schedule(self._interval)

    def append_results(self, results: Sequence[Result]) -> None:
        """See `Producer.append_results`."""
        for result in results:
            self.append(
                result.topic,
                result.partition or 0,
                key=result.key,
                value=result.value,
                timestamp_ms=result.timestamp_ms or 0,
                headers=result.headers,
            )

    def oldest_unacknowledged_seconds(self) -> float:
        """See `Producer.oldest_unacknowledged_seconds`."""
        outstanding = [waiting.since for waiting in (*self._delivered, *self._waiting)]
        return asyncio.get_running_loop().time() - min(outstanding) if outstanding else 0.0

    def partitions(self, topic: str) -> int | None:
        """See `Producer.partitions`."""
        return self._broker.count(topic)

    async def refresh(self, topic: str) -> int | None:
        """See `Producer.refresh`."""
        return self._broker.count(topic)

    def partition_for(self, topic: str, key: bytes) -> int:
        """See `Producer.partition_for`."""
        count = self._broker.count(topic)
        if count is None:
            raise UnknownTopic(f"there is no topic {topic}")
        return self._partitioner.partition(key, count)

    async def send(self) -> None:
        """See `Producer.send`."""
        await asyncio.sleep(0)

    async def flush(self) -> None:
        """See `Producer.flush`."""
        outstanding = {*self._delivered, *self._waiting}
        if outstanding:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._flushes.append((outstanding, done))
            self._schedule(0.0)
            await done

    def problem(self) -> str | None:
        """As `KafkaProducer.problem`."""
        age = self.oldest_unacknowledged_seconds()
        return f"the broker has acknowledged nothing for {age:.0f} s" if age > 15 else None

    def _schedule(self, delay: float) -> None:
        loop = asyncio.get_running_loop()
        if self._tick is not None:
            if self._tick.when() <= loop.time() + delay:
                return
            self._tick.cancel()
        self._tick = loop.call_later(delay, self._deliver)

    def _deliver(self) -> None:
        self._tick = None
        if not self._waiting or self._stopped or self._crashed:
            return
        if self._broker.away_since is not None:
            self._schedule(0.1)
            return
        batch: list[_Waiting] = []
        homeless: list[_Waiting] = []
        for waiting in self._waiting:
            (batch if self._write(waiting) else homeless).append(waiting)
        self._waiting = homeless
        if homeless:
            self._schedule(1.0)
        self._delivered.extend(batch)
        asyncio.get_running_loop().call_later(self._broker.ack_seconds, self._acknowledge, batch)

    def _write(self, waiting: _Waiting) -> bool:
        if self._broker.log(TopicPartition(waiting.topic, waiting.partition)) is None:
            return False
        self._broker.write(
            waiting.topic,
            waiting.partition,
            key=waiting.key,
            value=waiting.value,
            timestamp_ms=waiting.timestamp_ms,
            headers=waiting.headers,
        )
        return True

    def _acknowledge(self, batch: list[_Waiting]) -> None:
        if self._crashed:
            return
        for waiting in batch:
            self._delivered.remove(waiting)
            self.unacknowledged_bytes -= waiting.size
            if waiting.on_ack is not None:
                waiting.on_ack()
        for outstanding, done in self._flushes:
            outstanding.difference_update(batch)
            if not outstanding and not done.done():
                done.set_result(None)
        self._flushes = [flush for flush in self._flushes if flush[0]]


class MemoryConsumer:
    """A `Consumer` on a `MemoryBroker`."""

    def __init__(
        self, broker: MemoryBroker, *, group_id: str | None, max_records: int, lookup_seconds: float = 10.0
    ) -> None:
        self._broker = broker
        self._lookup_seconds = lookup_seconds
        self._group_id = group_id
        self._max_records = max_records
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()

    async def start(self) -> None:
        """As `KafkaConsumer.start`: waits while the broker is away."""
        while self._broker.away_since is not None:
            await self._broker.arrival(1.0)

    async def stop(self) -> None:
        """Read nothing any more."""
        self._positions = {}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def assign(self, positions: Mapping[TopicPartition, int | None]) -> None:
        """See `Consumer.assign`."""
        logs = await self._logs_of(list(positions))
        self._positions = {}
        for partition, position in positions.items():
            log = logs[partition]
            self._ends[partition] = log.end
            self._positions[partition] = (
                log.end if position is None else log.start if position == EARLIEST else position
            )
        self._paused.clear()

    async def fetch(self, timeout_seconds: float) -> dict[TopicPartition, list[Record]]:
        """See `Consumer.fetch`."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while True:
            fetched = self._read() if self._broker.away_since is None else {}
            remaining = deadline - asyncio.get_running_loop().time()
            if fetched or remaining <= 0:
                return fetched
            await self._broker.arrival(remaining)

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """See `Consumer.pause`."""
        self._paused.update(partition for partition in partitions if partition in self._positions)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """See `Consumer.resume`."""
        self._paused.difference_update(partitions)

    def position(self, partition: TopicPartition) -> int:
        """See `Consumer.position`."""
        return self._positions[partition]

    def end(self, partition: TopicPartition) -> int | None:
        """See `Consumer.end`."""
        return self._ends.get(partition)

    async def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See `Consumer.ends`."""
        logs = await self._logs_of(list(partitions))
        return {partition: log.end for partition, log in logs.items()}

    def silent_seconds(self) -> float:
        """See `Consumer.silent_seconds`."""
        since = self._broker.away_since
        return asyncio.get_running_loop().time() - since if since is not None else 0.0

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See `Consumer.commit`."""
        if self._group_id is not None and self._broker.away_since is None:
            self._broker.committed.setdefault(self._group_id, {}).update(offsets)

    async def _logs_of(self, partitions: list[TopicPartition]) -> dict[TopicPartition, _Log]:
        if not partitions:
            return {}
        deadline = asyncio.get_running_loop().time() + self._lookup_seconds
        while True:
            logs = {p: log for p in partitions if (log := self._broker.log(p)) is not None}
            if len(logs) == len(partitions) and self._broker.away_since is None:
                return logs
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0:
                raise TimeoutError("the broker did not tell where the partitions begin and end")
            await self._broker.arrival(remaining)

    def _read(self) -> dict[TopicPartition, list[Record]]:
        fetched = {}
        for partition in self._broker.arrange(self._positions):
            log = self._broker.log(partition)
            if log is None or partition in self._paused:
                continue
            self._ends[partition] = log.end
            position = self._positions[partition]
            if not log.start <= position <= log.end:
                position = log.start  # as `KafkaConsumer`: the log does not hold it, go on at its start
            index = position - log.start
            records = self._broker.some(log.records[index : index + self._max_records])
            self._positions[partition] = position + len(records)
            if records:
                fetched[partition] = records
        return fetched
