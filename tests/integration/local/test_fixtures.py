"""What the fixtures of `tests.support.servers` promise to every other test."""

from __future__ import annotations

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from busbar.postgres import migrations, missing_migrations
from busbar.topics import all_topics
from tests.support import kafka_topics


async def test_the_database_has_all_tables(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        assert migrations()
        assert await missing_migrations(connection) == []
    finally:
        await connection.close()


async def test_the_database_is_this_modules_own(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        assert await connection.fetchval("SELECT current_database()") != "busbar_template"
        assert await connection.fetchval("SELECT count(*) FROM config.stations") == 0
    finally:
        await connection.close()


async def test_every_topic_is_there_and_empties(topics: str) -> None:
    partition = TopicPartition("csms.connections", 0)
    producer = AIOKafkaProducer(bootstrap_servers=topics, acks="all")
    await producer.start()
    written = await producer.send_and_wait(partition.topic, b"value", partition=partition.partition)
    await producer.stop()
    ends = await kafka_topics.end_offsets(topics)
    assert {found.topic for found in ends} == set(all_topics())
    assert ends[partition] == written.offset + 1

    await kafka_topics.empty(topics)

    consumer = AIOKafkaConsumer(bootstrap_servers=topics, group_id=None)
    await consumer.start()
    assert await consumer.beginning_offsets([partition]) == {partition: written.offset + 1}
    await consumer.stop()


async def test_topics_have_the_partitions_of_the_profile_for_one_machine(topics: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=topics)
    await admin.start()
    counts = {entry["topic"]: len(entry["partitions"]) for entry in await admin.describe_topics()}
    await admin.close()
    expected = {name: topic.partitions("local") for name, topic in all_topics().items()}
    assert {name: counts.get(name) for name in expected} == expected
