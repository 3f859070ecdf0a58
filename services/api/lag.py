"""How far behind each processor is: its progress in Postgres against the ends of its topics in Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition, errors

_LOOKUP_SECONDS = 3.0


class LogEnds:
    """Asks Kafka where partitions begin and end; connects on the first question."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._consumer: Any = None
        self._lock = asyncio.Lock()

    async def lag(self, progress: Mapping[tuple[str, int], int | None]) -> dict[tuple[str, int], int] | None:
        """Records that are still to be read, by topic and partition; `None` if Kafka does not answer.

        Args:
            progress: The next offset to read; `None` if nothing was read yet.
        """
        partitions = [TopicPartition(topic, number) for topic, number in progress]
        try:
            async with self._lock, asyncio.timeout(_LOOKUP_SECONDS):
                consumer = await self._connected()
                ends = await consumer.end_offsets(partitions)
                starts = await consumer.beginning_offsets(partitions)
        except (errors.KafkaError, OSError, AssertionError):
            await self.close()
            return None
        lag = {}
        for partition, end in ends.items():
            # What retention has removed is not read any more.
            following = max(progress[partition.topic, partition.partition] or 0, starts[partition])
            lag[partition.topic, partition.partition] = max(end - following, 0)
        return lag

    async def _connected(self) -> Any:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap_servers, group_id=None)
            try:
                await consumer.start()
            except BaseException:
                await consumer.stop()
                raise
            self._consumer = consumer
        return self._consumer

    async def close(self) -> None:
        """Disconnect."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()
