"""Creating the topics of `topics.toml` on a test's broker, and emptying them between test modules."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from busbar.topics import all_topics, create_topics


async def create(bootstrap_servers: str) -> None:
    """Create every topic and wait until each takes records."""
    await create_topics(bootstrap_servers, "local")


async def empty(bootstrap_servers: str) -> None:
    """Remove every record of every topic but the compacted ones, where Kafka refuses it. Offsets go on."""
    known = all_topics()
    ends = {
        partition: end
        for partition, end in (await end_offsets(bootstrap_servers)).items()
        if end > 0 and known[partition.topic].policy == "delete"
    }
    if not ends:
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({partition: RecordsToDelete(end) for partition, end in ends.items()})
    finally:
        await admin.close()


async def end_offsets(bootstrap_servers: str) -> dict[TopicPartition, int]:
    """The offset after the last record, for every partition of every topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=None)
    await consumer.start()
    try:
        known = all_topics().values()
        partitions = [TopicPartition(topic.name, p) for topic in known for p in range(topic.partitions("local"))]
        consumer.assign(partitions)  # without it the client asks for each topic's metadata by itself
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        return ends
    finally:
        await consumer.stop()
