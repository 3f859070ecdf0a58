"""The embedded broker: durable, restartable, and gone when it should be."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from busbar.local.errors import StackError
from busbar.local.kafka import KafkaCluster

TOPIC = "numbers"


async def create_topic(cluster: KafkaCluster, replicas: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=replicas)])
    await admin.close()


async def leader_of_topic(cluster: KafkaCluster) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap_servers)
    await admin.start()
    [topic] = await admin.describe_topics([TOPIC])
    await admin.close()
    return int(topic["partitions"][0]["leader"])


async def produce(cluster: KafkaCluster, numbers: range) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap_servers, acks="all", enable_idempotence=True)
    await producer.start()
    for number in numbers:
        await producer.send_and_wait(TOPIC, str(number).encode(), partition=0)
    await producer.stop()


async def commit_offset(cluster: KafkaCluster) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap_servers, group_id="g", enable_auto_commit=False)
    await consumer.start()
    consumer.assign([TopicPartition(TOPIC, 0)])
    await consumer.commit({TopicPartition(TOPIC, 0): 1})
    await consumer.stop()


async def read(cluster: KafkaCluster) -> list[int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap_servers, group_id=None)
    await consumer.start()
    partition = TopicPartition(TOPIC, 0)
    consumer.assign([partition])
    await consumer.seek_to_beginning(partition)
    end = (await consumer.end_offsets([partition]))[partition]
    found: list[int] = []
    while len(found) < end:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            found += [int(record.value) for record in records]
    await consumer.stop()
    return found


async def test_records_survive_kill_and_restart(tmp_path: Path) -> None:
    async with KafkaCluster(tmp_path) as cluster:
        servers = cluster.bootstrap_servers
        await create_topic(cluster, 1)
        await produce(cluster, range(10))
        await commit_offset(cluster)  # Kafka keeps it in a topic of its own, which has to come back, too
        await cluster.kill()
        await cluster.restart()
        assert cluster.bootstrap_servers == servers
        await produce(cluster, range(10, 20))
        await cluster.restart()
        await produce(cluster, range(20, 30))
        assert await read(cluster) == list(range(30))
    assert not any(node.running for node in cluster.nodes.values())

    async with KafkaCluster(tmp_path) as cluster:  # another start, other ports, the same data
        assert await read(cluster) == list(range(30))


@pytest.mark.slow
async def test_three_nodes_go_on_without_the_leader(tmp_path: Path) -> None:
    async with KafkaCluster(tmp_path, nodes=3) as cluster:
        await create_topic(cluster, 3)
        await produce(cluster, range(5))
        leader = await leader_of_topic(cluster)
        await cluster.kill(leader)
        async with asyncio.timeout(60):
            await produce(cluster, range(5, 10))
        assert await leader_of_topic(cluster) != leader
        await cluster.restart(leader)
        assert await read(cluster) == list(range(10))


async def test_a_broker_that_cannot_start_says_why_at_once(tmp_path: Path) -> None:
    cluster = KafkaCluster(tmp_path)
    (tmp_path / "node-1" / "log").mkdir(parents=True)
    (tmp_path / "node-1" / "formatted").touch()  # and yet there is nothing in it
    begin = time.monotonic()
    with pytest.raises(StackError, match=r"Kafka ended with 1 at its start: .*kafka\.log"):
        await cluster.start()
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize(("there", "wanted"), [(1, 3), (3, 1)])
async def test_a_folder_of_another_size_is_refused(tmp_path: Path, there: int, wanted: int) -> None:
    for number in range(1, there + 1):
        (tmp_path / f"node-{number}").mkdir()
        (tmp_path / f"node-{number}" / "formatted").touch()
    with pytest.raises(StackError, match=rf"holds a cluster of {there} nodes?, not of {wanted}"):
        await KafkaCluster(tmp_path, nodes=wanted).start()


async def test_an_interrupted_first_start_is_made_good(tmp_path: Path) -> None:
    half = tmp_path / "node-1" / "log"
    half.mkdir(parents=True)
    (half / "meta.properties").write_text("version=1\n")
    async with KafkaCluster(tmp_path) as cluster:
        assert cluster.java is not None
