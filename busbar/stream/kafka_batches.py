"""The records of one partition on their way into Kafka: those that gather, and the batch that has left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from aiokafka import TopicPartition as KafkaTopicPartition

from busbar.records import Headers
from busbar.stream import metrics

Entry = tuple[bytes | None, bytes | None, int, Headers, Callable[[], None] | None, int]
"""Key, value, timestamp, headers, what to call on the acknowledgement, and the size that was counted."""


class PartitionQueue:
    """One partition's records, in order. At most one batch is in flight, and the rest goes on gathering."""

    __slots__ = (
        "_produced",
        "_waiters",
        "appended",
        "in_flight",
        "in_flight_since",
        "kafka_name",
        "limit",
        "overflows",
        "partition",
        "refusals",
        "settled",
        "topic",
        "waiting",
        "waiting_since",
    )

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.kafka_name = KafkaTopicPartition(topic, partition)
        self.waiting: list[Entry] = []
        self.waiting_since = 0.0
        """When the oldest of those that wait was appended."""
        self.in_flight: list[Entry] = []
        self.in_flight_since = 0.0
        """When the oldest of those in flight was appended."""
        self.overflows = False
        """Not all that had gathered went into the batch in flight."""
        self.limit = 0
        """After a refusal: at most so many records in the next batch, to find the one at fault. 0: no limit."""
        self.refusals = 0
        self.appended = 0
        self.settled = 0
        """Acknowledged or given up; reaches `appended` when nothing is outstanding."""
        self._waiters: deque[tuple[int, Callable[[], None]]] = deque()
        self._produced = metrics.PRODUCED.labels(topic)

    def oldest(self) -> float:
        """When the oldest outstanding record was appended."""
        return self.in_flight_since if self.in_flight else self.waiting_since

    def depart(self, batch: Any) -> None:
        """Move records into a new aiokafka batch until it is full."""
        waiting = self.waiting
        count = 0
        limit = self.limit or len(waiting)
        # What `batch.append` does around this for each record takes longer than the record.
        append = batch._builder.append
        for key, value, timestamp_ms, headers, _, _ in waiting:
            if count >= limit or append(count, timestamp_ms, key, value, list(headers)) is None:
                break
            count += 1
        batch._relative_offset = count
        batch.close()
        self.in_flight_since = self.waiting_since
        self.overflows = count < len(waiting)
        if not self.overflows:
            self.in_flight = waiting
            self.waiting = []
        else:
            self.in_flight = waiting[:count]
            del waiting[:count]

    def arrive(self) -> int:
        """The batch in flight is durable. Returns its size in bytes."""
        size = sum(entry[5] for entry in self.in_flight)
        self._produced.inc(len(self.in_flight))
        self.in_flight = []
        self.refusals = 0
        self.limit *= 2
        if self.limit >= 4096:
            self.limit = 0
        return size

    def come_back(self) -> None:
        """Put the batch in flight back in front of what waits, to be sent again."""
        if self.in_flight:
            self.waiting_since = self.in_flight_since
            self.waiting[:0] = self.in_flight
            self.in_flight = []

    def settle(self, count: int) -> None:
        """So many more of the oldest records need nothing any more."""
        self.settled += count
        waiters = self._waiters
        while waiters and waiters[0][0] <= self.settled:
            waiters.popleft()[1]()

    def notify_at(self, settled: int, callback: Callable[[], None]) -> None:
        """Call back once so many records have settled. Targets must not decrease from call to call."""
        if settled <= self.settled:
            callback()
        else:
            self._waiters.append((settled, callback))
