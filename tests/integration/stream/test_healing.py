"""aiokafka dies in silence now and then: our producer and consumer notice, replace it and go on."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest
from aiokafka.conn import collect_hosts
from prometheus_client import REGISTRY

from busbar.records import TopicPartition
from busbar.stream.interfaces import EARLIEST
from busbar.stream.kafka import KafkaConsumer, KafkaProducer
from busbar.topics import all_topics
from tests.integration.stream.conftest import create_topics, read_all, until


async def _topic(servers: str) -> str:
    name = f"healing.{time.time_ns()}"
    await create_topics(servers, {name: 1})
    return name


def _append(producer: KafkaProducer, topic: str, *values: int) -> None:
    for value in values:
        # Of now: Kafka deletes what is older than the retention, whenever it looks.
        producer.append(topic, 0, key=b"k", value=b"%d" % value, timestamp_ms=time.time_ns() // 1_000_000)


def _replacements(kind: str, reason: str) -> float:
    return REGISTRY.get_sample_value(f"csms_stream_{kind}_replacements_total", {"reason": reason}) or 0.0


async def test_a_producer_whose_sender_has_died_is_replaced_and_what_it_had_is_sent(kafka_servers: str) -> None:
    topic = await _topic(kafka_servers)
    before = _replacements("producer", "SenderEnded")
    async with KafkaProducer(kafka_servers) as producer:
        await until(partial(producer.refresh, topic))
        _append(producer, topic, 0)
        await producer.flush()
        producer._producer._sender._sender_task.cancel()
        _append(producer, topic, 1, 2)
        await asyncio.wait_for(producer.flush(), 10)
        _append(producer, topic, 3)
        await asyncio.wait_for(producer.flush(), 10)
        assert producer.problem() is None
    values = [int(record.value or b"") for record in await read_all(kafka_servers, topic, 1)]
    assert list(dict.fromkeys(values)) == [0, 1, 2, 3]
    assert _replacements("producer", "SenderEnded") == before + 1


async def test_a_producer_that_hangs_is_replaced_once_a_new_one_can_connect(kafka_servers: str) -> None:
    topic = await _topic(kafka_servers)
    before = _replacements("producer", "Stalled")
    async with KafkaProducer(kafka_servers, stall_seconds=1.0) as producer:
        await until(partial(producer.refresh, topic))
        _append(producer, topic, 0)
        await producer.flush()
        producer._producer._sender._muted_partitions.add(producer._queues[topic][0].kafka_name)  # never drained again
        _append(producer, topic, 1, 2)
        await asyncio.sleep(0.5)
        assert producer.oldest_unacknowledged_seconds() > 0.4
        await asyncio.wait_for(producer.flush(), 10)
        assert producer.oldest_unacknowledged_seconds() == 0.0
    values = [int(record.value or b"") for record in await read_all(kafka_servers, topic, 1)]
    assert values == [0, 1, 2]
    assert _replacements("producer", "Stalled") == before + 1


@pytest.mark.parametrize("number", [0, 1])
async def test_a_producer_whose_own_task_is_cancelled_says_so(kafka_servers: str, number: int) -> None:
    topic = await _topic(kafka_servers)
    producer = KafkaProducer(kafka_servers)
    await producer.start()
    await until(partial(producer.refresh, topic))
    _append(producer, topic, 0)
    producer._tasks[number].cancel()
    with pytest.raises(RuntimeError, match="has failed"):
        await asyncio.wait_for(producer.flush(), 5)
    assert producer.problem() == "the producer's own task has ended"
    assert not await producer.stop()


async def test_a_producer_that_cannot_look_for_a_partition_says_so(
    kafka_servers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: str) -> None:
        raise OSError("unforeseen")

    async with KafkaProducer(kafka_servers) as producer:
        monkeypatch.setattr(producer, "refresh", fail)
        _append(producer, f"nowhere.{time.time_ns()}", 0)
        with pytest.raises(RuntimeError, match="has failed"):
            await asyncio.wait_for(producer.flush(), 5)
        assert producer.problem() is not None


async def test_what_aiokafka_cancels_in_itself_ends_nobody_else(kafka_servers: str) -> None:
    # A consumer that is stopped before its tasks have begun is one of the cases.
    consumer = KafkaConsumer(kafka_servers)
    await consumer.start()
    await consumer.stop()


@pytest.mark.parametrize("client", [KafkaConsumer, KafkaProducer])
async def test_a_node_that_hangs_does_not_keep_clients_from_the_others(
    kafka_servers: str, client: type[KafkaConsumer | KafkaProducer], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    hanging = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    # aiokafka tries them in random order: here the one that hangs is first, and at the next attempt last.
    orders = iter([[hanging, kafka_servers]])
    monkeypatch.setattr("aiokafka.client.collect_hosts", lambda _: collect_hosts(next(orders, [kafka_servers]), False))
    # One attempt used to take ten seconds.
    async with server, asyncio.timeout(9.5), client(f"{hanging},{kafka_servers}"):
        pass


async def test_positions_in_many_topics_are_found_without_asking_for_each(topics: str) -> None:
    names = [name for name in all_topics() if name.startswith("ocpp.")]
    assert len(names) > 60
    # aiokafka by itself learns of one topic at a time, a tenth of a second each.
    async with KafkaConsumer(topics, lookup_seconds=0.07 * len(names)) as consumer:
        await consumer.assign({TopicPartition(name, number): EARLIEST for name in names for number in range(4)})
        assert all(consumer.end(TopicPartition(name, 3)) is not None for name in names)


async def test_a_consumer_that_has_fallen_silent_is_replaced_and_misses_nothing(kafka_servers: str) -> None:
    topic = await _topic(kafka_servers)
    name = TopicPartition(topic, 0)
    before = _replacements("consumer", "silent")
    async with KafkaProducer(kafka_servers) as producer, KafkaConsumer(kafka_servers, stall_seconds=1.5) as consumer:
        await until(partial(producer.refresh, topic))
        await consumer.assign({name: 0})
        seen: list[int] = []

        async def read_to(count: int) -> bool:
            for records in (await consumer.fetch(0.2)).values():
                seen.extend(record.offset for record in records)
            return len(seen) >= count

        _append(producer, topic, 0, 1)
        await until(partial(read_to, 2))
        consumer._consumer._fetcher._fetch_task.cancel()
        _append(producer, topic, 2, 3)
        await until(partial(read_to, 4))
        assert seen == [0, 1, 2, 3]
        assert consumer.silent_seconds() < 1.5
    assert _replacements("consumer", "silent") == before + 1


async def test_a_fetch_session_that_the_broker_does_not_know_is_begun_anew_and_nothing_is_missed(
    kafka_servers: str,
) -> None:
    topic, other = await _topic(kafka_servers), await _topic(kafka_servers)
    name, quiet = TopicPartition(topic, 0), TopicPartition(other, 0)
    async with KafkaProducer(kafka_servers) as producer, KafkaConsumer(kafka_servers) as consumer:
        await until(partial(producer.refresh, topic))
        await until(partial(producer.refresh, other))
        await consumer.assign({name: 0, quiet: 0})
        seen: list[tuple[str, int]] = []

        async def read_to(count: int) -> bool:
            for partition, records in (await consumer.fetch(0.2)).items():
                seen.extend((partition.topic, record.offset) for record in records)
            return len(seen) >= count

        _append(producer, topic, 0, 1)
        await until(partial(read_to, 2))
        (session,) = consumer._consumer._fetcher._sessions.values()
        assert session.session_id > 0, "the broker keeps a session for us"
        first, session.session_id = session.session_id, session.session_id + 1
        _append(producer, topic, 2)
        await until(partial(read_to, 3))
        session.epoch += 5
        _append(producer, topic, 3)
        await until(partial(read_to, 4))
        consumer.pause([name])
        _append(producer, topic, 4)
        _append(producer, other, 0)
        await until(partial(read_to, 5))
        consumer.resume([name])
        await until(partial(read_to, 6))
        assert seen == [*((topic, offset) for offset in range(4)), (other, 0), (topic, 4)]
        assert session.session_id not in (0, first)


async def test_a_consumer_that_nobody_asks_is_not_taken_for_a_silent_broker(kafka_servers: str) -> None:
    topic = await _topic(kafka_servers)
    name = TopicPartition(topic, 0)
    async with KafkaProducer(kafka_servers) as producer, KafkaConsumer(kafka_servers, stall_seconds=1.0) as consumer:
        await until(partial(producer.refresh, topic))
        await consumer.assign({name: 0})
        _append(producer, topic, 0)
        await producer.flush()
        await asyncio.sleep(2.5)  # a large backlog is being folded, say
        assert consumer.silent_seconds() < 1.0
        records: list[int] = []

        async def read_one() -> bool:
            for fetched in (await consumer.fetch(0.2)).values():
                records.extend(record.offset for record in fetched)
            return bool(records)

        await until(read_one)
        assert records == [0]


async def test_stopping_while_the_broker_is_away_keeps_its_deadline(kafka_servers: str) -> None:
    producer = KafkaProducer(kafka_servers)
    await producer.start()
    _append(producer, "healing.nowhere", 1)
    began = time.monotonic()
    assert await producer.stop(deadline_seconds=0.5) is False
    assert time.monotonic() - began < 4
