"""What an answer of the broker becomes: our records in our consumers, aiokafka's own in those of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiokafka import ConsumerRecord
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from busbar.records import Record
from busbar.stream.kafka_consumer import _ours


def answer(fetch_offset: int, key_deserializer: Callable[[bytes], bytes] | None) -> Any:
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
    return fetcher.PartitionRecords(name, raw, [], fetch_offset, key_deserializer, None, True, 0)


def test_our_consumers_get_our_records() -> None:
    records = answer(0, _ours)
    assert list(records) == [
        Record("a.topic", 3, 0, 1_000, b"CS-1", b"first"),
        Record("a.topic", 3, 1, 2_000, None, None, (("name", b"content"),)),
    ]
    assert records.next_fetch_offset == 2


def test_records_before_the_position_are_left_out() -> None:
    assert [record.offset for record in answer(1, _ours)] == [1]


def test_reading_goes_on_where_it_was_left() -> None:
    records = answer(0, _ours)
    for record in records:
        assert record.offset == 0
        break
    assert [record.offset for record in records] == [1]


def test_consumers_of_others_get_what_aiokafka_gives() -> None:
    first, second = answer(0, None)
    assert isinstance(first, ConsumerRecord)
    assert (first.key, first.value, first.timestamp) == (b"CS-1", b"first", 1_000)
    assert second.headers == (("name", b"content"),)
