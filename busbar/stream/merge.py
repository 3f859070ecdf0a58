"""The order in which records are folded: a k-way merge of topics by record timestamp, per partition number.

A plain fetch brings a million MeterValues before the first StartTransaction of the same hour. The merge takes the
oldest head of all topics, and waits for an empty topic only while that topic is known to lag: while its position
is below its known end. It is best effort by nature (the ends of two topics are not one snapshot); folds tolerate
the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heapreplace

from busbar.records import Record, TopicPartition
from busbar.stream.interfaces import Consumer


class _Lane:
    """One partition number of all topics."""

    __slots__ = ("blocked_since", "buffered", "buffers", "ignored", "names", "paused")

    def __init__(self, partition: int, topics: Sequence[str]) -> None:
        self.names = [TopicPartition(topic, partition) for topic in topics]
        self.buffers: list[deque[Record]] = [deque() for _ in topics]
        self.buffered = 0
        self.blocked_since: float | None = None
        self.ignored: set[int] = set()
        """Topics that have lagged for too long to be waited for."""
        self.paused: set[int] = set()


class Merge:
    """Buffers what was fetched and gives it out in order.

    Args:
        topics: In the order that breaks ties of timestamps.
        buffer_limit: A topic's partition with so many records buffered is paused until half of them are taken.
        patience_seconds: The longest wait for a topic that lags and brings nothing.
        on_wait: Told how long a partition number has waited for lagging topics, once it goes on.
    """

    def __init__(
        self,
        topics: Sequence[str],
        consumer: Consumer,
        now: Callable[[], float],
        *,
        buffer_limit: int = 2_000,
        patience_seconds: float = 30.0,
        on_wait: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._topics = tuple(topics)
        self._index = {topic: index for index, topic in enumerate(self._topics)}
        self._consumer = consumer
        self._now = now
        self._buffer_limit = buffer_limit
        self._patience = patience_seconds
        self._on_wait = on_wait
        self._lanes: dict[int, _Lane] = {}
        self._turn = 0

    def own(self, partitions: Iterable[int]) -> None:
        """Merge exactly these partition numbers; what is buffered of others is dropped."""
        self._lanes = {number: self._lanes.get(number) or _Lane(number, self._topics) for number in sorted(partitions)}
        # A consumer forgets its pauses when it is assigned anew.
        paused = [lane.names[index] for lane in self._lanes.values() for index in lane.paused]
        if paused:
            self._consumer.pause(paused)

    @property
    def owned(self) -> list[int]:
        """The partition numbers that are merged."""
        return list(self._lanes)

    @property
    def buffered(self) -> int:
        """How many records wait here."""
        return sum(lane.buffered for lane in self._lanes.values())

    def waiting(self, partition: int) -> dict[str, int]:
        """How many records of a partition number wait here, by topic."""
        lane = self._lanes[partition]
        return {topic: len(buffer) for topic, buffer in zip(self._topics, lane.buffers, strict=True)}

    def oldest_ms(self, partition: int) -> int | None:
        """The timestamp of the next record of a partition number, if one waits here."""
        heads = [buffer[0].timestamp_ms for buffer in self._lanes[partition].buffers if buffer]
        return min(heads, default=None)

    def lags(self, partition: int) -> bool:
        """Whether records of a partition number are known to be unread or wait here."""
        lane = self._lanes[partition]
        return lane.buffered > 0 or any(self._behind(name) for name in lane.names)

    def add(self, fetched: Mapping[TopicPartition, Sequence[Record]]) -> None:
        """Buffer what a fetch brought."""
        full = []
        for name, records in fetched.items():
            lane = self._lanes.get(name.partition)
            if lane is None:
                continue
            index = self._index[name.topic]
            buffer = lane.buffers[index]
            buffer.extend(records)
            lane.buffered += len(records)
            lane.ignored.discard(index)
            if len(buffer) >= self._buffer_limit and index not in lane.paused:
                lane.paused.add(index)
                full.append(name)
        if full:
            self._consumer.pause(full)

    def take(self, limit: int, without: Container[int] = ()) -> list[Record]:
        """The next records in order, at most so many, shared among the partition numbers.

        Args:
            without: Partition numbers that give nothing now.
        """
        lanes = [lane for number, lane in self._lanes.items() if lane.buffered and number not in without]
        if not lanes:
            return []
        self._turn += 1
        turn = self._turn % len(lanes)
        lanes = lanes[turn:] + lanes[:turn]
        taken: list[Record] = []
        for position, lane in enumerate(lanes):
            share = (limit - len(taken)) // (len(lanes) - position)
            if share:
                self._drain(lane, share, taken)
        if len(taken) < limit:  # some had less than their share
            for lane in lanes:
                if lane.buffered and lane.blocked_since is None and len(taken) < limit:
                    self._drain(lane, limit - len(taken), taken)
        return taken

    def put_back(self, records: Sequence[Record]) -> None:
        """Undo a `take`: these come first again. They must be in the order in which they were taken."""
        for record in reversed(records):
            lane = self._lanes.get(record.partition)
            if lane is not None:
                lane.buffers[self._index[record.topic]].appendleft(record)
                lane.buffered += 1

    def _drain(self, lane: _Lane, limit: int, taken: list[Record]) -> None:
        heads: list[tuple[int, int]] = []
        blocked = False
        for index, buffer in enumerate(lane.buffers):
            if buffer:
                heads.append((buffer[0].timestamp_ms, index))
            elif self._must_wait_for(lane, index):
                blocked = True
        if blocked and not self._lose_patience(lane):
            return
        if lane.blocked_since is not None:
            self._on_wait(self._now() - lane.blocked_since)
            lane.blocked_since = None
        heapify(heads)
        enough = len(taken) + limit
        while heads and len(taken) < enough:
            index = heads[0][1]
            buffer = lane.buffers[index]
            # With the records of one topic alone, as in most backlogs, there is nothing to compare.
            count = min(len(buffer), enough - len(taken)) if len(heads) == 1 else 1
            taken.extend([buffer.popleft() for _ in range(count)])
            lane.buffered -= count
            if buffer:
                heapreplace(heads, (buffer[0].timestamp_ms, index))
            else:
                heappop(heads)
                if self._must_wait_for(lane, index):
                    lane.blocked_since = self._now()
                    break
        if lane.paused:
            self._relieve(lane)

    def _must_wait_for(self, lane: _Lane, index: int) -> bool:
        return index not in lane.ignored and self._behind(lane.names[index])

    def _behind(self, name: TopicPartition) -> bool:
        end = self._consumer.end(name)
        return end is None or self._consumer.position(name) < end

    def _lose_patience(self, lane: _Lane) -> bool:
        """Whether to go on without the topics that this lane has been waiting for."""
        now = self._now()
        if lane.blocked_since is None:
            lane.blocked_since = now
        if now - lane.blocked_since < self._patience:
            return False
        for index, buffer in enumerate(lane.buffers):
            if not buffer and self._behind(lane.names[index]):
                lane.ignored.add(index)
        return True

    def _relieve(self, lane: _Lane) -> None:
        few = self._buffer_limit // 2
        relieved = [index for index in lane.paused if len(lane.buffers[index]) <= few]
        lane.paused.difference_update(relieved)
        self._consumer.resume([lane.names[index] for index in relieved])
