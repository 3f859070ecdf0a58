"""Results get their partition and time before they are stored."""

from __future__ import annotations

from typing import Any

from busbar.records import Result
from busbar.stream.batch import Outbox
from busbar.stream.dead_letters import DEAD_LETTER_TOPIC
from busbar.stream.partitioner import Partitioner

COUNTS = {"few": 3, "many": 7, "as-many": 7, DEAD_LETTER_TOPIC: 5}


class Placing:
    """A producer as far as it places records."""

    max_request_bytes = 1_000

    def __init__(self) -> None:
        self.partitioner = Partitioner()

    def partitions(self, topic: str) -> int | None:
        return COUNTS.get(topic)

    def partition_for(self, topic: str, key: bytes) -> int:
        return self.partitioner.partition(key, COUNTS[topic])


async def test_each_result_is_placed_by_its_own_key_and_topic() -> None:
    producer: Any = Placing()
    names = ("many", "as-many", "few", "many")
    results = [Result(name, f"CS{n}".encode(), b"v") for n in range(20) for name in names]
    addressed = await Outbox(producer, "unit").address([(1, result) for result in results], 5)
    for (source, placed), result in zip(addressed, results, strict=True):
        expected = producer.partition_for(result.topic, result.key)
        assert (source, placed) == (1, Result(result.topic, result.key, b"v", expected, (), 5))


async def test_a_dead_letter_between_them_is_placed_by_its_own_topic() -> None:
    producer: Any = Placing()
    for number in range(20):
        key = f"CS{number}".encode()
        results = [
            Result("many", key, b"v"),
            Result("many", key, bytes(2_000)),
            Result("as-many", key, b"v", None, (), 3),
        ]
        addressed = await Outbox(producer, "unit").address([(1, result) for result in results], 5)
        placed = [(result.topic, result.partition, result.timestamp_ms) for _, result in addressed]
        of_seven, of_five = producer.partition_for("many", key), producer.partition_for(DEAD_LETTER_TOPIC, key)
        assert placed == [("many", of_seven, 5), (DEAD_LETTER_TOPIC, of_five, 5), ("as-many", of_seven, 3)]


async def test_a_topic_that_has_grown_is_asked_about_once_for_all_results() -> None:
    class Growing(Placing):
        asked = 0

        async def refresh(self, topic: str) -> int | None:
            self.asked += 1
            return self.partitions(topic)

        def partitions(self, topic: str) -> int | None:
            return 12 if self.asked else COUNTS[topic]

    producer: Any = Growing()
    results = [Result("few", b"CS1", b"v", number) for number in (0, 11, 12, 9)]
    addressed = await Outbox(producer, "unit").address([(1, result) for result in results], 5)
    assert [(result.topic, result.partition) for _, result in addressed if result.topic == "few"] == [
        ("few", 0),
        ("few", 11),
        ("few", 9),
    ]
    assert addressed[2][1].topic == DEAD_LETTER_TOPIC
    assert producer.asked == 1
