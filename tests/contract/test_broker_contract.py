"""What every broker keeps to: once on the one in memory, once on real Kafka."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.structs import TopicPartition as KafkaTopicPartition

from busbar.records import Record, TopicPartition
from busbar.stream.interfaces import EARLIEST, Consumer, RecordTooLarge, UnknownTopic
from busbar.stream.kafka import KafkaConsumer, KafkaProducer
from busbar.stream.memory import MemoryBroker

_numbers = itertools.count()


@dataclass
class Broker:
    """A broker under test."""

    create_topic: Callable[[str, int], Awaitable[None]]
    producer: Callable[[], Awaitable[Any]]
    consumer: Callable[[], Awaitable[Any]]
    trim: Callable[[TopicPartition, int], Awaitable[None]]

    async def topic(self, partitions: int = 1) -> str:
        """A new topic's name."""
        name = f"contract.{next(_numbers)}.{time.time_ns()}"
        await self.create_topic(name, partitions)
        return name


@pytest.fixture(params=["memory", "kafka"])
def servers(request: pytest.FixtureRequest) -> str | None:
    """Of real Kafka, or `None` for the broker in memory."""
    return request.getfixturevalue("kafka_servers") if request.param == "kafka" else None


@pytest.fixture
async def broker(servers: str | None) -> AsyncIterator[Broker]:
    async with AsyncExitStack() as stack:
        yield _kafka(servers, stack) if servers is not None else _memory(stack)


def _memory(stack: AsyncExitStack) -> Broker:
    memory = MemoryBroker()

    async def create_topic(name: str, partitions: int) -> None:
        memory.create_topic(name, partitions)

    async def producer() -> Any:
        return await stack.enter_async_context(memory.producer(flush_interval_seconds=0.005))

    async def consumer() -> Any:
        return await stack.enter_async_context(memory.consumer(lookup_seconds=0.5))

    async def trim(partition: TopicPartition, start: int) -> None:
        memory.trim(partition, start)

    return Broker(create_topic, producer, consumer, trim)


def _kafka(servers: str, stack: AsyncExitStack) -> Broker:
    async def create_topic(name: str, partitions: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        try:
            answer = await admin.create_topics([NewTopic(name, partitions, 1)])
            if any(code == 36 for _, code, *_ in answer.topic_errors):  # it exists: more partitions
                await admin.create_partitions({name: NewPartitions(partitions)})
        finally:
            await admin.close()

    async def producer() -> Any:
        return await stack.enter_async_context(KafkaProducer(servers))

    async def consumer() -> Any:
        return await stack.enter_async_context(KafkaConsumer(servers, group_id="contract", lookup_seconds=2.0))

    async def trim(partition: TopicPartition, start: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        try:
            name = KafkaTopicPartition(partition.topic, partition.partition)
            await admin.delete_records({name: RecordsToDelete(before_offset=start)})
        finally:
            await admin.close()

    return Broker(create_topic, producer, consumer, trim)


def append(producer: Any, topic: str, partition: int, *values: bytes, **more: Any) -> None:
    for value in values:
        producer.append(topic, partition, key=b"k", value=value, timestamp_ms=1_700_000_000_000, **more)


async def read(consumer: Consumer, count: int, seconds: float = 10.0) -> list[Record]:
    """The next so many records, in the order of arrival."""
    records: list[Record] = []
    async with asyncio.timeout(seconds):
        while len(records) < count:
            for fetched in (await consumer.fetch(0.5)).values():
                records.extend(fetched)
    return records


async def test_a_record_comes_back_as_it_went_in(broker: Broker) -> None:
    topic = await broker.topic()
    producer, consumer = await broker.producer(), await broker.consumer()
    await consumer.assign({TopicPartition(topic, 0): 0})
    await producer.refresh(topic)
    producer.append(
        topic, 0, key=b"\xff\x00", value=b"v", timestamp_ms=1_234_567_890_123, headers=(("a", b"1"), ("a", b"\x00"))
    )
    assert await read(consumer, 1) == [
        Record(topic, 0, 0, 1_234_567_890_123, b"\xff\x00", b"v", (("a", b"1"), ("a", b"\x00")))
    ]


async def test_records_of_a_partition_keep_their_order_and_have_offsets_without_gaps(broker: Broker) -> None:
    topic = await broker.topic(2)
    producer, consumer = await broker.producer(), await broker.consumer()
    names = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    await consumer.assign(dict.fromkeys(names, 0))
    await producer.refresh(topic)
    for number in range(3_000):
        append(producer, topic, number % 2, b"%d" % number)
        if number % 100 == 0:
            await asyncio.sleep(0.002)
    records = await read(consumer, 3_000)
    for partition in (0, 1):
        mine = [record for record in records if record.partition == partition]
        assert [record.offset for record in mine] == list(range(1_500))
        assert [int(record.value or b"") for record in mine] == list(range(partition, 3_000, 2))


async def test_an_acknowledgement_comes_once_per_record_and_in_order(broker: Broker) -> None:
    topic = await broker.topic()
    producer = await broker.producer()
    await producer.refresh(topic)
    acknowledged: list[int] = []
    for number in range(50):
        append(producer, topic, 0, b"%d" % number, on_ack=lambda number=number: acknowledged.append(number))
    assert acknowledged == []
    assert producer.unacknowledged_bytes > 0
    await producer.flush()
    assert acknowledged == list(range(50))
    assert producer.unacknowledged_bytes == 0
    assert producer.oldest_unacknowledged_seconds() == 0.0


async def test_flush_waits_for_what_was_appended_before_it_and_returns_at_once_without_anything(
    broker: Broker,
) -> None:
    topic = await broker.topic()
    producer, consumer = await broker.producer(), await broker.consumer()
    await producer.flush()
    append(producer, topic, 0, b"1", b"2")
    await producer.flush()
    assert (await consumer.ends([TopicPartition(topic, 0)]))[TopicPartition(topic, 0)] == 2


async def test_keys_are_placed_as_javas_default_partitioner_places_them(broker: Broker) -> None:
    topic = await broker.topic(48)
    producer = await broker.producer()
    assert await producer.refresh(topic) == producer.partitions(topic) == 48
    placed = [producer.partition_for(topic, key) for key in (b"", b"a", b"CP-0001", "Ladestation-ß".encode())]
    assert placed == [JAVA[key] % 48 for key in ("", "a", "CP-0001", "Ladestation-ß")]


JAVA = {"": 275646681, "a": 584102524, "CP-0001": 992506712, "Ladestation-ß": 1211368728}
"""What `Utils.toPositive(Utils.murmur2(key))` of kafka-clients 4.3.1 printed."""


async def test_the_partition_of_a_key_of_an_unknown_topic_is_not_guessed(broker: Broker) -> None:
    producer = await broker.producer()
    assert await producer.refresh("contract.nowhere") is None
    with pytest.raises(UnknownTopic):
        producer.partition_for("contract.nowhere", b"k")


async def test_a_record_that_is_too_large_is_refused_before_anything_is_sent(broker: Broker) -> None:
    topic = await broker.topic()
    producer, consumer = await broker.producer(), await broker.consumer()
    with pytest.raises(RecordTooLarge):
        append(producer, topic, 0, bytes(producer.max_request_bytes))
    append(producer, topic, 0, b"small")
    append(producer, topic, 0, bytes(producer.max_request_bytes - 1_000))
    await producer.flush()
    await consumer.assign({TopicPartition(topic, 0): 0})
    assert [len(record.value or b"") for record in await read(consumer, 2)] == [5, producer.max_request_bytes - 1_000]


async def test_large_records_arrive_from_every_partition(broker: Broker) -> None:
    topic = await broker.topic(3)
    producer, consumer = await broker.producer(), await broker.consumer()
    await producer.refresh(topic)
    for _ in range(2):
        for partition in range(3):
            append(producer, topic, partition, random.Random(partition).randbytes(900_000))
    await producer.flush()
    await consumer.assign({TopicPartition(topic, number): 0 for number in range(3)})
    places = sorted((record.partition, record.offset) for record in await read(consumer, 6, 20))
    assert places == [(number, offset) for number in range(3) for offset in range(2)]


async def test_a_record_for_a_partition_that_does_not_exist_waits_until_it_does(broker: Broker) -> None:
    topic = await broker.topic(1)
    producer, consumer = await broker.producer(), await broker.consumer()
    await producer.refresh(topic)
    append(producer, topic, 1, b"early")
    append(producer, topic, 0, b"other")
    await asyncio.sleep(0.3)
    assert producer.oldest_unacknowledged_seconds() > 0.1
    await broker.create_topic(topic, 2)
    await asyncio.wait_for(producer.flush(), 10)
    await consumer.assign({TopicPartition(topic, 1): 0})
    assert [record.value for record in await read(consumer, 1)] == [b"early"]


async def test_reading_from_the_end_misses_nothing_written_after_assign_has_returned(broker: Broker) -> None:
    topic = await broker.topic(4)
    producer, consumer = await broker.producer(), await broker.consumer()
    await producer.refresh(topic)
    names = [TopicPartition(topic, number) for number in range(4)]
    for round_number in range(5):
        for name in names:
            append(producer, topic, name.partition, b"before")
        await producer.flush()
        await consumer.assign(dict.fromkeys(names))
        for name in names:
            append(producer, topic, name.partition, b"after %d" % round_number)
        assert {record.value for record in await read(consumer, 4)} == {b"after %d" % round_number}


async def test_reading_from_the_earliest_begins_where_the_log_begins(broker: Broker) -> None:
    topic = await broker.topic()
    producer, consumer = await broker.producer(), await broker.consumer()
    name = TopicPartition(topic, 0)
    append(producer, topic, 0, *(b"%d" % number for number in range(10)))
    await producer.flush()
    await broker.trim(name, 4)
    await consumer.assign({name: EARLIEST})
    assert consumer.position(name) == 4
    assert [record.offset for record in await read(consumer, 6)] == list(range(4, 10))


@pytest.mark.parametrize("position", [1, 1_000])
async def test_a_position_that_the_log_does_not_hold_leads_to_its_start(broker: Broker, position: int) -> None:
    topic = await broker.topic()
    producer, consumer = await broker.producer(), await broker.consumer()
    name = TopicPartition(topic, 0)
    append(producer, topic, 0, *(b"%d" % number for number in range(10)))
    await producer.flush()
    await broker.trim(name, 4)
    await consumer.assign({name: position})
    assert [record.offset for record in await read(consumer, 6)] == list(range(4, 10))


async def test_position_and_end_tell_what_is_left_to_read(broker: Broker) -> None:
    topic = await broker.topic()
    producer, consumer = await broker.producer(), await broker.consumer()
    name = TopicPartition(topic, 0)
    append(producer, topic, 0, b"1", b"2", b"3")
    await producer.flush()
    await consumer.assign({name: 1})
    assert (consumer.position(name), consumer.end(name)) == (1, 3)
    await read(consumer, 2)
    assert (consumer.position(name), consumer.end(name)) == (3, 3)
    assert consumer.silent_seconds() < 5


async def test_assigning_again_repositions_and_leaves_other_partitions_out(broker: Broker) -> None:
    topic = await broker.topic(2)
    producer, consumer = await broker.producer(), await broker.consumer()
    await producer.refresh(topic)
    for partition in (0, 1):
        append(producer, topic, partition, b"1", b"2")
    await producer.flush()
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    await consumer.assign({first: 0, second: 0})
    await read(consumer, 4)
    await consumer.assign({first: 1})
    assert [(record.partition, record.offset) for record in await read(consumer, 1)] == [(0, 1)]
    assert await consumer.fetch(0.7) == {}
    await consumer.assign({})
    assert await consumer.fetch(0.05) == {}


async def test_a_paused_partition_brings_nothing_until_it_is_resumed_or_assigned_again(broker: Broker) -> None:
    topic = await broker.topic(2)
    producer, consumer = await broker.producer(), await broker.consumer()
    await producer.refresh(topic)
    names = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    await consumer.assign(dict.fromkeys(names, 0))
    consumer.pause(names[:1])
    for partition in (0, 1):
        append(producer, topic, partition, b"1")
    await producer.flush()
    assert [record.partition for record in await read(consumer, 1)] == [1]
    assert await consumer.fetch(0.7) == {}
    consumer.resume(names)
    assert [record.partition for record in await read(consumer, 1)] == [0]
    consumer.pause(names)
    await consumer.assign(dict.fromkeys(names, 0))
    assert len(await read(consumer, 2)) == 2


async def test_giving_up_a_fetch_loses_no_record(broker: Broker) -> None:
    topic = await broker.topic()
    producer, consumer = await broker.producer(), await broker.consumer()
    await producer.refresh(topic)
    await consumer.assign({TopicPartition(topic, 0): 0})
    seen: list[int] = []
    for number in range(60):
        append(producer, topic, 0, b"%d" % number)
        try:
            async with asyncio.timeout(0.001 * (number % 8)):
                for records in (await consumer.fetch(0.5)).values():
                    seen.extend(record.offset for record in records)
        except TimeoutError:
            pass
    seen.extend(record.offset for record in await read(consumer, 60 - len(seen)))
    assert seen == list(range(60))


async def test_a_partition_that_does_not_exist_is_reported_in_time(broker: Broker) -> None:
    consumer = await broker.consumer()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(consumer.ends([TopicPartition("contract.nowhere", 0)]), 15)


async def test_telling_the_group_how_far_reading_has_come_joins_no_group(broker: Broker) -> None:
    topic = await broker.topic()
    producer, consumer = await broker.producer(), await broker.consumer()
    name = TopicPartition(topic, 0)
    append(producer, topic, 0, b"1", b"2")
    await producer.flush()
    await consumer.assign({name: 0})
    await read(consumer, 2)
    await consumer.commit({name: 2})
    await consumer.commit({TopicPartition("not.assigned", 0): 5})
    assert consumer.position(name) == 2
