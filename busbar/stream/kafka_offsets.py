"""Telling Kafka how far a group has come, for lag tools and autoscalers, without joining the group.

aiokafka's own consumer can do that only with its group coordinator, which broke in manual assignment when the broker
went away and came back; here two plain requests do it, and nothing else depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiokafka import errors
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.protocol.commit import OffsetCommitRequest

from busbar.records import TopicPartition


class GroupOffsets:
    """Commits offsets under a group's name."""

    def __init__(self, group_id: str) -> None:
        self._group_id = group_id
        self._coordinator: int | None = None

    async def commit(self, client: Any, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit by an aiokafka client. Raises `KafkaError`; the next call then looks for the coordinator again."""
        node, self._coordinator = self._coordinator, None
        if node is None:
            node = await client.coordinator_lookup(CoordinationType.GROUP, self._group_id)
        topics: dict[str, list[tuple[int, int, str]]] = {}
        for name, offset in offsets.items():
            topics.setdefault(name.topic, []).append((name.partition, offset, ""))
        request = OffsetCommitRequest(
            self._group_id,
            OffsetCommitRequest.DEFAULT_GENERATION_ID,
            "",
            OffsetCommitRequest.DEFAULT_RETENTION_TIME,
            list(topics.items()),
        )
        response = await client.send(node, request, group=ConnectionGroup.COORDINATION)
        for _, partitions in response.topics:
            for _, code in partitions:
                if code:
                    raise errors.for_code(code)()
        self._coordinator = node
