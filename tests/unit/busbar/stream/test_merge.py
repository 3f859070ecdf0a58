"""The merge: topics in the order of their timestamps, waiting only for those known to lag."""

from __future__ import annotations

import random
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from busbar.records import Record, TopicPartition
from busbar.stream.interfaces import Consumer
from busbar.stream.merge import Merge
from busbar.stream.partitioner import Partitioner, murmur2

TOPICS = ("start", "meter", "stop")


class FakeConsumer:
    """Positions and ends as a test sets them."""

    def __init__(self) -> None:
        self.positions: dict[TopicPartition, int] = {}
        self.ends: dict[TopicPartition, int | None] = {}
        self.paused: set[TopicPartition] = set()

    def position(self, partition: TopicPartition) -> int:
        return self.positions.get(partition, 0)

    def end(self, partition: TopicPartition) -> int | None:
        return self.ends.get(partition, self.position(partition))

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        self.paused.update(partitions)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self.paused.difference_update(partitions)


class Bench:
    """A merge on a fake consumer, and a clock."""

    def __init__(self, partitions: int = 1, **settings: float) -> None:
        self.now = 0.0
        self.consumer = FakeConsumer()
        self.waits: list[float] = []
        consumer: Consumer = self.consumer  # type: ignore[assignment]
        self.merge = Merge(TOPICS, consumer, lambda: self.now, on_wait=self.waits.append, **settings)  # type: ignore[arg-type]
        self.merge.own(range(partitions))

    def bring(self, topic: str, *timestamps: int, partition: int = 0, end: int | None = None) -> None:
        """Fetch records with these timestamps; `end` is where the log is known to end."""
        name = TopicPartition(topic, partition)
        first = self.consumer.positions.get(name, 0)
        records = [
            Record(topic, partition, first + index, timestamp, b"k", b"v") for index, timestamp in enumerate(timestamps)
        ]
        self.consumer.positions[name] = first + len(records)
        self.consumer.ends[name] = end if end is not None else first + len(records)
        self.merge.add({name: records})

    def lag(self, topic: str, partition: int = 0, behind: int = 1) -> None:
        """The topic is known to have records that have not come yet."""
        name = TopicPartition(topic, partition)
        self.consumer.ends[name] = self.consumer.positions.get(name, 0) + behind

    def take(self, limit: int = 1_000) -> list[tuple[str, int]]:
        return [(record.topic, record.timestamp_ms) for record in self.merge.take(limit)]


def test_records_come_in_the_order_of_their_timestamps_across_topics() -> None:
    bench = Bench()
    bench.bring("meter", 2, 3, 5)
    bench.bring("stop", 6)
    bench.bring("start", 1, 4)
    assert bench.take() == [("start", 1), ("meter", 2), ("meter", 3), ("start", 4), ("meter", 5), ("stop", 6)]


def test_equal_timestamps_come_in_the_order_of_the_topics() -> None:
    bench = Bench()
    for topic in ("stop", "meter", "start"):
        bench.bring(topic, 7, 7)
    assert bench.take() == [("start", 7), ("start", 7), ("meter", 7), ("meter", 7), ("stop", 7), ("stop", 7)]


def test_the_order_within_a_topic_is_that_of_the_log_even_if_its_timestamps_go_back() -> None:
    bench = Bench()
    bench.bring("meter", 5, 1, 9)
    bench.bring("start", 3)
    assert bench.take() == [("start", 3), ("meter", 5), ("meter", 1), ("meter", 9)]


def test_a_topic_that_lags_is_waited_for() -> None:
    bench = Bench()
    bench.bring("meter", 2, 3)
    bench.lag("start")
    assert bench.take() == []
    bench.now = 1.5
    bench.bring("start", 1)
    assert bench.take() == [("start", 1), ("meter", 2), ("meter", 3)]
    assert bench.waits == [1.5]


def test_an_empty_topic_that_is_read_to_its_end_holds_up_nothing() -> None:
    bench = Bench()
    bench.bring("meter", 2)
    assert bench.take() == [("meter", 2)]


def test_a_topic_whose_end_is_unknown_is_waited_for() -> None:
    bench = Bench()
    bench.bring("meter", 2)
    bench.consumer.ends[TopicPartition("start", 0)] = None
    assert bench.take() == []


def test_taking_stops_where_a_topic_runs_dry_that_has_more() -> None:
    bench = Bench()
    bench.bring("start", 1, 3, end=9)
    bench.bring("meter", 2, 4, 5)
    assert bench.take() == [("start", 1), ("meter", 2), ("start", 3)]
    bench.bring("start", 4, end=3)
    assert bench.take() == [("start", 4), ("meter", 4), ("meter", 5)]


def test_patience_with_a_topic_that_brings_nothing_ends() -> None:
    bench = Bench(patience_seconds=30.0)
    bench.bring("meter", 2, 3)
    bench.lag("start")
    assert bench.take() == []
    bench.now = 29.0
    assert bench.take() == []
    bench.now = 30.0
    assert bench.take(1) == [("meter", 2)]
    assert bench.take() == [("meter", 3)], "it is not waited for again"
    bench.bring("start", 1, end=5)
    bench.bring("meter", 4)
    assert bench.take() == [("start", 1)], "it has brought something, so it is waited for again"


def test_steady_progress_never_uses_patience_up() -> None:
    bench = Bench(patience_seconds=30.0)
    bench.bring("meter", *range(100))
    for second in range(40):
        bench.now = float(second)
        bench.bring("start", second, end=100)
        assert bench.take()[-1] == ("start", second)
    assert bench.merge.waiting(0)["meter"] == 100 - 39


def test_partitions_share_a_batch_and_one_that_waits_leaves_its_share_to_the_others() -> None:
    bench = Bench(partitions=3)
    for partition in range(3):
        bench.bring("meter", *range(100), partition=partition)
    bench.lag("start", partition=2)
    taken = bench.merge.take(60)
    counts = [sum(1 for record in taken if record.partition == partition) for partition in range(3)]
    assert sum(counts) == 60
    assert counts[2] == 0
    assert min(counts[:2]) >= 20


def test_partitions_that_rest_give_nothing() -> None:
    bench = Bench(partitions=2)
    bench.bring("meter", 1, partition=0)
    bench.bring("meter", 2, partition=1)
    assert [record.partition for record in bench.merge.take(9, without={0})] == [1]
    assert [record.partition for record in bench.merge.take(9)] == [0]


def test_what_is_put_back_comes_first_again() -> None:
    bench = Bench()
    bench.bring("start", 1, 4)
    bench.bring("meter", 2, 3)
    taken = bench.merge.take(3)
    bench.merge.put_back(taken[1:])
    assert bench.take() == [("meter", 2), ("meter", 3), ("start", 4)]


def test_what_is_put_back_of_a_lost_partition_is_dropped() -> None:
    bench = Bench(partitions=2)
    bench.bring("meter", 1, partition=1)
    taken = bench.merge.take(9)
    bench.merge.own([0])
    bench.merge.put_back(taken)
    assert bench.merge.buffered == 0


def test_a_full_buffer_pauses_its_partition_until_half_of_it_is_taken() -> None:
    bench = Bench(buffer_limit=10)
    name = TopicPartition("meter", 0)
    bench.bring("meter", *range(9))
    assert bench.consumer.paused == set()
    bench.bring("meter", *range(9, 12))
    assert bench.consumer.paused == {name}
    bench.take(6)
    assert bench.consumer.paused == {name}
    bench.take(1)
    assert bench.consumer.paused == set()


def test_a_pause_lasts_when_other_partitions_come_and_ends_with_its_own() -> None:
    bench = Bench(partitions=1, buffer_limit=2)
    bench.bring("meter", 1, 2, 3)
    bench.consumer.paused.clear()  # as an assignment does
    bench.merge.own([0, 1])
    assert bench.consumer.paused == {TopicPartition("meter", 0)}
    bench.consumer.paused.clear()
    bench.merge.own([1])
    bench.merge.own([0, 1])
    assert bench.consumer.paused == set()
    assert bench.merge.buffered == 0


def test_a_partition_lags_while_records_wait_or_are_known_to_be_unread() -> None:
    bench = Bench(partitions=2)
    assert not bench.merge.lags(0)
    bench.bring("meter", 1)
    assert bench.merge.lags(0)
    bench.take()
    assert not bench.merge.lags(0)
    bench.lag("stop")
    assert bench.merge.lags(0)
    assert not bench.merge.lags(1)


def test_the_oldest_record_is_told() -> None:
    bench = Bench()
    assert bench.merge.oldest_ms(0) is None
    bench.bring("meter", 7)
    bench.bring("start", 5)
    assert bench.merge.oldest_ms(0) == 5


@given(st.integers(0, 10_000))
def test_a_backlog_comes_out_as_it_happened_however_it_is_fetched(seed: int) -> None:
    """Whatever the pieces in which it is fetched, and however small the takes."""
    rng = random.Random(seed)
    history = sorted((timestamp, rng.randrange(3)) for timestamp in rng.sample(range(1_000), rng.randint(1, 60)))
    logs = {index: [timestamp for timestamp, topic in history if topic == index] for index in range(3)}
    bench = Bench(buffer_limit=rng.choice((2, 5, 100)))
    for index, log in logs.items():
        bench.consumer.ends[TopicPartition(TOPICS[index], 0)] = len(log)
    taken: list[tuple[str, int]] = []
    while len(taken) < len(history):
        index = rng.randrange(3)
        name = TopicPartition(TOPICS[index], 0)
        if name not in bench.consumer.paused:
            position = bench.consumer.position(name)
            piece = logs[index][position : position + rng.randint(1, 8)]
            if piece:
                bench.bring(name.topic, *piece, end=len(logs[index]))
        taken += bench.take(rng.randint(1, 5))
    assert taken == [(TOPICS[topic], timestamp) for timestamp, topic in history]


@given(st.binary(max_size=64))
def test_a_partitioner_remembers_what_murmur2_says(key: bytes) -> None:
    partitioner = Partitioner()
    assert partitioner.partition(key, 7) == partitioner.partition(key, 7) == (murmur2(key) & 0x7FFFFFFF) % 7


def test_murmur2_is_kafkas() -> None:
    # Utils.murmur2 of kafka-clients 4.3.1, the sign bit masked
    known = {b"": 275646681, b"a": 584102524, b"CP-0001": 992506712, "Ladestation-ß".encode(): 1211368728}
    assert {key: murmur2(key) & 0x7FFFFFFF for key in known} == known
