"""Topics on a real broker: made, brought in line, and ready when `create_topics` returns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from busbar.kafka_topics import TopicError
from busbar.local.kafka import TEST, KafkaCluster
from busbar.topics import all_topics, create_topics, topic_configuration


@pytest.fixture(scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A broker of this module's own: it changes topics that other tests need."""
    async with KafkaCluster(tmp_path_factory.mktemp("kafka"), profile=TEST) as cluster:
        yield cluster.bootstrap_servers


@pytest.fixture
async def admin(servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=servers)
    await client.start()
    yield client
    await client.close()


async def partitions(admin: AIOKafkaAdminClient) -> dict[str, int]:
    return {entry["topic"]: len(entry["partitions"]) for entry in await admin.describe_topics()}


async def configuration(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    """What is set for the topic itself."""
    (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    return {name: value for name, value, _, source, *_ in response.resources[0][4] if source == 1}


async def test_every_partition_of_every_topic_takes_records_at_once(
    servers: str, admin: AIOKafkaAdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[int, int]] = []
    await create_topics(servers, "local", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (len(all_topics()), len(all_topics()))
    counts = await partitions(admin)
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all")
    await producer.start()
    try:
        for topic in all_topics().values():
            assert counts[topic.name] == topic.partitions("local")
            for number in range(counts[topic.name]):
                await producer.send_and_wait(topic.name, b"value", key=b"key", partition=number)
    finally:
        await producer.stop()
    assert [record.message for record in caplog.records if "producer" in record.name] == []  # no refusal, no retry
    for topic in (all_topics()["ocpp.v16.Heartbeat"], all_topics()["csms.station-status"]):
        assert await configuration(admin, topic.name) == topic_configuration(topic, 1)


async def test_again_it_changes_nothing(servers: str, admin: AIOKafkaAdminClient) -> None:
    await create_topics(servers, "local")
    before = await partitions(admin)
    await create_topics(servers, "local")
    assert await partitions(admin) == before


async def test_a_configuration_that_differs_is_set_again_and_what_is_set_beside_it_stays(
    servers: str, admin: AIOKafkaAdminClient
) -> None:
    await create_topics(servers, "local", topics=["csms.edges"])
    other = {"retention.ms": "5", "segment.bytes": "1048576"}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, "csms.edges", configs=other)])
    await create_topics(servers, "local", topics=["csms.edges"])
    expected = topic_configuration(all_topics()["csms.edges"], 1) | {"segment.bytes": "1048576"}
    assert await configuration(admin, "csms.edges") == expected


async def test_partitions_are_raised_and_never_lowered(servers: str, admin: AIOKafkaAdminClient) -> None:
    await create_topics(servers, "local", topics=["csms.commands"])
    assert (await partitions(admin))["csms.commands"] == 4
    for profile in ("small", "local"):
        await create_topics(servers, profile, topics=["csms.commands"])
        assert (await partitions(admin))["csms.commands"] == 12


async def test_a_topic_that_the_cluster_refuses_is_named_with_its_reason(
    servers: str, admin: AIOKafkaAdminClient
) -> None:
    await admin.delete_topics(["csms.cdrs"])
    while "csms.cdrs" in await partitions(admin):  # noqa: ASYNC110 - the broker deletes it in its own time
        await asyncio.sleep(0.05)
    with pytest.raises(TopicError, match=r"cannot create csms\.cdrs: .*replication factor of 3"):
        await create_topics(servers, "local", replication_factor=3, topics=["csms.cdrs"])


async def test_a_broker_that_never_answers_is_given_up() -> None:
    with pytest.raises(TimeoutError):
        await create_topics("127.0.0.1:9", "local", timeout_seconds=1.0)
