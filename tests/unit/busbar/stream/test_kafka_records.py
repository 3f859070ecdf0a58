"""What an answer of the broker becomes: records of ours, from where reading stands."""

from __future__ import annotations

from typing import Any

from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from busbar.records import Record
from busbar.stream.kafka_fetcher import PartitionRecords


def answer(fetch_offset: int) -> Any:
    """Two records of an answer, read from an offset on."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1_000,
    )
    builder.append(0, timestamp=1_000, key=b"CS-1", value=b"first", headers=[])
    builder.append(1, timestamp=2_000, key=None, value=None, headers=[("name", b"content")])
    raw = MemoryRecords(bytes(builder.build()))
    name = KafkaTopicPartition("a.topic", 3)
    return PartitionRecords(name, raw, [], fetch_offset, None, None, True, 0)


def test_an_answer_becomes_our_records() -> None:
    records = answer(0)
    assert list(records) == [
        Record("a.topic", 3, 0, 1_000, b"CS-1", b"first"),
        Record("a.topic", 3, 1, 2_000, None, None, (("name", b"content"),)),
    ]
    assert records.next_fetch_offset == 2


def test_records_before_the_position_are_left_out() -> None:
    assert [record.offset for record in answer(1)] == [1]


def test_reading_goes_on_where_it_was_left() -> None:
    records = answer(0)
    for record in records:
        assert record.offset == 0
        break
    assert [record.offset for record in records] == [1]
