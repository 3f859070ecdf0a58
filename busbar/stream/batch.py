"""One batch: decoded, folded, and its results made ready to be stored and produced."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from busbar.records import Record, Result
from busbar.stream import metrics
from busbar.stream.dead_letters import dead_letter, undeliverable
from busbar.stream.interfaces import Busy, InvalidRecord, Processor, Producer
from busbar.stream.results import record_size

logger = logging.getLogger(__name__)

_ASK_AGAIN_SECONDS = 5.0
"""For the partition count of a topic to which somebody wants to write beyond its last partition."""


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Stands in for the event of a record that cannot be read."""

    reason: str
    detail: str


@dataclass(slots=True)
class Batch:
    """Records in the order in which they are folded, their events beside them, and what has come due."""

    records: list[Record]
    events: list[Any]
    due: list[Any]
    ready: Ready | None = None
    """What came of it, if it has been folded ahead."""

    @property
    def loadable(self) -> list[Any]:
        """The events for which state is needed."""
        found = [event for event in self.events if event is not None and type(event) is not Undecodable]
        return [*self.due, *found]

    @property
    def is_idle(self) -> bool:
        """Whether there are records, and none of them is anything to the processor."""
        return bool(self.records) and not self.due and all(event is None for event in self.events)

    @property
    def size(self) -> int:
        return len(self.records) + len(self.due)

    def without(self, partitions: frozenset[int], processor: Processor[Any]) -> Batch:
        """What is left of it when some partitions are not ours any more."""
        kept = [i for i, record in enumerate(self.records) if record.partition not in partitions]
        return Batch(
            [self.records[i] for i in kept],
            [self.events[i] for i in kept],
            [event for event in self.due if processor.partition_of_event(event) not in partitions],
        )


@dataclass(slots=True)
class Folded:
    """What came of folding a batch."""

    offsets: dict[int, dict[str, int]] = field(default_factory=dict)
    """The next offsets of the topics that moved, by partition."""
    results: list[tuple[int, Result]] = field(default_factory=list)
    """With the partition of the event that led to each, in the order of the fold."""
    held: list[Record] = field(default_factory=list)
    """Of partitions that are busy, from the record on that was not taken."""
    busy: dict[int, float] = field(default_factory=dict)
    """Seconds after which to offer them again, by partition."""
    dead: list[tuple[Record, str]] = field(default_factory=list)
    """Records given up, with the reason."""
    folded: int = 0


@dataclass(slots=True)
class Ready:
    """A batch that has been folded and waits to be committed."""

    state: Any
    folded: Folded
    results: list[tuple[int, Result]]
    """Those of the fold, addressed."""
    seconds: float
    """That it took."""


def decode(processor: Processor[Any], records: list[Record]) -> Batch:
    """Read the records of a batch."""
    events: list[Any] = []
    for record in records:
        try:
            events.append(processor.decode(record))
        except InvalidRecord as invalid:
            events.append(Undecodable(invalid.reason, invalid.detail))
        except Exception:
            _log_failure("decode", processor, record)
            raise
    return Batch(records, events, [])


def fold(processor: Processor[Any], state: Any, batch: Batch, now_ms: int) -> Folded:
    """Fold the records, one after the other, and then what has come due: a record may have met a deadline.

    Only `InvalidRecord` and `Busy` are fates of a record; anything else ends the process.
    """
    folded = Folded()
    results, offsets, busy = folded.results, folded.offsets, folded.busy
    apply = processor.fold
    for record, event in zip(batch.records, batch.events, strict=True):
        partition = record.partition
        if partition in busy:
            folded.held.append(record)
            continue
        if type(event) is Undecodable:
            _give_up(processor, folded, record, event.reason, event.detail, now_ms)
        elif event is not None:
            try:
                produced = list(apply(state, event))
            except InvalidRecord as invalid:
                _give_up(processor, folded, record, invalid.reason, invalid.detail, now_ms)
            except Busy as not_now:
                busy[partition] = not_now.retry_after_seconds
                folded.held.append(record)
                continue
            except Exception:
                _log_failure("fold", processor, record)
                raise
            else:
                for result in produced:
                    results.append((partition, result))
        folded.folded += 1
        if partition not in offsets:
            offsets[partition] = {}
        offsets[partition][record.topic] = record.offset + 1
    _fold_due(processor, state, batch.due, folded)
    return folded


def as_unstorable(batch: Batch, detail: str) -> Batch:
    """The same records, which the database refuses, with dead letters to be in place of their events."""
    return Batch(batch.records, [Undecodable("unstorable", detail) for _ in batch.records], [])


def report(group: str, batch: Batch, folded: Folded) -> None:
    """Count and log what has been committed."""
    topics = [record.topic for record in batch.records]
    fates = {topic: topics.count(topic) for topic in set(topics)}
    for fate, records in (("held", folded.held), ("dead-letter", [record for record, _ in folded.dead])):
        for topic, count in Counter(record.topic for record in records).items():
            fates[topic] -= count
            metrics.records(group, topic, fate).inc(count)
    for topic, count in fates.items():
        metrics.records(group, topic, "handled").inc(count)
    if folded.busy:
        metrics.BUSY.labels(group).inc(len(folded.busy))
    for record, reason in folded.dead:
        metrics.DEAD_LETTERS.labels(group, reason).inc()
        logger.warning(
            "record given up: dead-lettered",
            extra={
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "reason": reason,
            },
        )


def _fold_due(processor: Processor[Any], state: Any, due: Sequence[Any], folded: Folded) -> None:
    for event in due:
        partition = processor.partition_of_event(event)
        if partition in folded.busy:
            continue
        try:
            produced = list(processor.fold(state, event))
        except Busy:
            continue  # it will have come due again in a second
        except InvalidRecord as invalid:
            logger.error("an event that came due is invalid", extra={"reason": invalid.reason})
            continue
        folded.folded += 1
        folded.offsets.setdefault(partition, {})
        folded.results.extend((partition, result) for result in produced)


def _give_up(processor: Processor[Any], folded: Folded, record: Record, reason: str, detail: str, now_ms: int) -> None:
    folded.dead.append((record, reason))
    folded.results.append((record.partition, dead_letter(record, processor.group, reason, detail, now_ms)))


def _log_failure(step: str, processor: Processor[Any], record: Record) -> None:
    logger.exception(
        "%s failed: the process ends",
        step,
        extra={"topic": record.topic, "partition": record.partition, "offset": record.offset},
    )


def _topics(results: Sequence[tuple[int, Result]]) -> set[str]:
    return {result.topic for _, result in results}


def _outgrown(results: Sequence[tuple[int, Result]], counts: Mapping[str, int]) -> set[str]:
    """The topics that may have more partitions than we know, for a result is for one of them."""
    found = set()
    for _, result in results:
        number = result.partition
        if number is not None and number >= counts[result.topic]:
            found.add(result.topic)
    return found


def _completed(result: Result, partition: int, now_ms: int) -> Result:
    """A result with the partition and the timestamp that it lacks."""
    partition = partition if result.partition is None else result.partition
    timestamp_ms = now_ms if result.timestamp_ms is None else result.timestamp_ms
    return Result(result.topic, result.key, result.value, partition, result.headers, timestamp_ms)


class Outbox:
    """Gives results their partition and timestamp, and finds those that no topic can take, before the commit.

    After the commit it would be too late: a result that can never be produced would hold up its partition for ever.
    """

    def __init__(self, producer: Producer, group: str) -> None:
        self._producer = producer
        self._group = group
        self._asked: dict[str, float] = {}

    async def address(self, results: Sequence[tuple[int, Result]], now_ms: int) -> list[tuple[int, Result]]:
        """The same results, ready to be stored; what cannot be delivered is replaced by its dead letter."""
        counts = {topic: self._producer.partitions(topic) or await self._ask(topic) for topic in _topics(results)}
        for topic in _outgrown(results, counts):
            counts[topic] = await self._ask(topic)
        return self._placed(results, counts, now_ms)

    def _placed(
        self, results: Sequence[tuple[int, Result]], counts: Mapping[str, int], now_ms: int
    ) -> list[tuple[int, Result]]:
        limit = self._producer.max_request_bytes
        addressed = []
        key, partition, of_count = b"", 0, 0  # the last that was looked up: one event has several results
        for source, result in results:
            topic, number = result.topic, result.partition
            count = counts[topic]
            if count == 0 or (number is not None and not 0 <= number < count):
                result = self._undeliverable(result, "unknown-partition", now_ms)
            elif record_size(result.key, result.value, result.headers) > limit:
                result = self._undeliverable(result, "too-large", now_ms)
            if result.partition is None or result.timestamp_ms is None:
                is_dead = result.topic != topic
                if result.partition is None and (result.key != key or count != of_count or is_dead):
                    partition = self._producer.partition_for(result.topic, result.key)
                    key, of_count = result.key, 0 if is_dead else count
                result = _completed(result, partition, now_ms)
            addressed.append((source, result))
        return addressed

    def produce(self, results: Sequence[Result]) -> None:
        """Hand results over, in order."""
        self._producer.append_results(results)
        topics = [result.topic for result in results]
        for topic in set(topics):
            metrics.results(self._group, topic).inc(topics.count(topic))

    async def _ask(self, topic: str) -> int:
        """The topic's partition count, from the broker unless it was asked a moment ago; 0 if there is none."""
        now = asyncio.get_running_loop().time()
        if now >= self._asked.get(topic, now):
            self._asked[topic] = now + _ASK_AGAIN_SECONDS
            await self._producer.refresh(topic)
        return self._producer.partitions(topic) or 0

    def _undeliverable(self, result: Result, reason: str, now_ms: int) -> Result:
        metrics.UNDELIVERABLE.labels(self._group, reason).inc()
        logger.error(
            "a result cannot be delivered: dead-lettered",
            extra={"topic": result.topic, "partition": result.partition, "reason": reason},
        )
        return undeliverable(result, self._group, reason, "no topic can take this result", now_ms)
