"""The Kafka consumer: partitions assigned by hand, positions looked up, and a watch on the broker's silence.

aiokafka gives no sign when its broker is gone (`getmany` returns `{}`), and now and then stays silent after the
broker has come back. Every answer of the broker stamps its partitions here; when one has been silent for too long
the consumer is replaced and goes on at the same positions.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, errors
from aiokafka import TopicPartition as KafkaTopicPartition

from busbar.records import Record, TopicPartition
from busbar.stream import metrics
from busbar.stream.interfaces import EARLIEST
from busbar.stream.kafka_connect import connect_timeouts
from busbar.stream.kafka_fetcher import install
from busbar.stream.kafka_offsets import GroupOffsets

logger = logging.getLogger(__name__)

_CHECK_SECONDS = 1.0
_REPLACE_SECONDS = 5.0
"""To connect a replacement: less than a lease, for whoever fetches is held up meanwhile."""
_HOLD_SECONDS = 2.0


class KafkaConsumer:
    """Reads partitions that were assigned by hand. An async context manager; used from one task.

    Args:
        group_id: Under which `commit` tells Kafka how far reading has come. No group is joined.
        stall_seconds: A partition without any answer for so long makes the consumer be replaced.
        lookup_seconds: How long to wait for the broker to tell where a partition begins or ends.
        max_partition_fetch_bytes: Of one partition in one answer, as compressed on the wire. An answer is unpacked as
            a whole, so this bounds memory.
        fetch_max_bytes: Of one answer.
        client_options: Passed to aiokafka as they are (`security_protocol`, `ssl_context`, `client_rack` …).
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        group_id: str | None = None,
        stall_seconds: float = 15.0,
        lookup_seconds: float = 5.0,
        max_partition_fetch_bytes: int = 128 * 1024,
        fetch_max_bytes: int = 4 * 1024 * 1024,
        client_id: str = "busbar",
        client_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._group = GroupOffsets(group_id) if group_id is not None else None
        self._stall_seconds = stall_seconds
        self._lookup_seconds = lookup_seconds
        self._options: dict[str, Any] = {
            "bootstrap_servers": bootstrap_servers,
            "client_id": client_id,
            "group_id": None,
            "auto_offset_reset": "none",
            "fetch_min_bytes": 1,
            "fetch_max_wait_ms": 500,
            "max_partition_fetch_bytes": max_partition_fetch_bytes,
            "fetch_max_bytes": fetch_max_bytes,
            "request_timeout_ms": 10_000,
            "metadata_max_age_ms": 30_000,
            "retry_backoff_ms": 100,
            **(client_options or {}),
        }
        self._consumer: Any = None
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._names: dict[TopicPartition, KafkaTopicPartition] = {}
        self._known: dict[KafkaTopicPartition, TopicPartition] = {}
        self._states: dict[TopicPartition, Any] = {}
        self._paused: set[TopicPartition] = set()
        self._heard: dict[TopicPartition, float] = {}
        self._poll_times: dict[TopicPartition, int | None] = {}
        self._checked = 0.0
        self._retry_at = 0.0
        self._complain_at = 0.0

    # Life

    async def start(self) -> None:
        """Connect, waiting for as long as the broker is away (aiokafka itself fails at once)."""
        pause, timeouts = 0.1, connect_timeouts()
        while self._consumer is None:
            try:
                self._consumer = await self._connect(next(timeouts))
            except (errors.KafkaError, OSError, TimeoutError) as error:
                logger.warning("Kafka cannot be reached: trying again", extra={"error": repr(error)})
                await asyncio.sleep(pause)
                pause = min(2.0, pause * 2)

    async def stop(self) -> None:
        """Disconnect, within two seconds."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await _dismiss(consumer)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # What services use

    async def assign(self, positions: Mapping[TopicPartition, int | None]) -> None:
        """See `Consumer.assign`."""
        names = {partition: KafkaTopicPartition(partition.topic, partition.partition) for partition in positions}
        ends = await self._lookup("end_offsets", names.values())
        starts_wanted = [names[partition] for partition, position in positions.items() if position == EARLIEST]
        starts = await self._lookup("beginning_offsets", starts_wanted)
        resolved: dict[TopicPartition, int] = {}
        for partition, position in positions.items():
            if position is None:
                resolved[partition] = ends[names[partition]]
            elif position == EARLIEST:
                resolved[partition] = starts[names[partition]]
            else:
                resolved[partition] = position
        self._names = names
        self._known = {name: partition for partition, name in names.items()}
        self._positions = resolved
        self._ends = {partition: ends[name] for partition, name in names.items()}
        self._paused.clear()
        self._point(self._consumer)
        self._forgive()

    async def fetch(self, timeout_seconds: float) -> dict[TopicPartition, list[Record]]:
        """See `Consumer.fetch`."""
        if not self._positions:
            await asyncio.sleep(timeout_seconds)
            return {}
        if time.monotonic() - self._checked >= _CHECK_SECONDS:
            await self._check(time.monotonic())
        try:
            fetched = await self._consumer.getmany(timeout_ms=int(timeout_seconds * 1000))
        except errors.OffsetOutOfRangeError as error:
            await self._jump(error)
            return {}
        except errors.NoOffsetForPartitionError:
            self._point(self._consumer)
            return {}
        except errors.KafkaError as error:
            self._complain(error)
            await asyncio.sleep(min(timeout_seconds, 0.1))
            fetched = {}
        # From here on nothing is awaited: a caller that gives up while waiting loses no record.
        now = time.monotonic()
        result = {}
        for name, records in fetched.items():
            partition = self._known.get(name)
            if partition is None or not records:
                continue
            self._heard[partition] = now
            self._positions[partition] = records[-1].offset + 1
            result[partition] = records
        return result

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """See `Consumer.pause`."""
        for partition in partitions:
            if partition in self._names and partition not in self._paused:
                self._paused.add(partition)
                self._consumer.pause(self._names[partition])

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """See `Consumer.resume`."""
        for partition in partitions:
            if partition in self._paused:
                self._paused.discard(partition)
                self._heard[partition] = time.monotonic()
                self._consumer.resume(self._names[partition])

    def position(self, partition: TopicPartition) -> int:
        """See `Consumer.position`."""
        # aiokafka's own position also moves over what holds no record, such as the marker of a transaction.
        position: int = self._states[partition].position
        return position

    def end(self, partition: TopicPartition) -> int | None:
        """See `Consumer.end`."""
        state = self._states.get(partition)
        if state is not None and state.highwater is not None:
            end: int = state.highwater
            return end
        return self._ends.get(partition)

    async def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See `Consumer.ends`."""
        names = {KafkaTopicPartition(partition.topic, partition.partition): partition for partition in partitions}
        found = await self._lookup("end_offsets", names)
        return {names[name]: end for name, end in found.items()}

    def silent_seconds(self) -> float:
        """See `Consumer.silent_seconds`."""
        if self._consumer is None:
            return float("inf")
        active = [heard for partition, heard in self._heard.items() if partition not in self._paused]
        # As of the last look: while nobody fetches, aiokafka asks nothing, and silence says nothing.
        return max(0.0, self._checked - min(active)) if active else 0.0

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See `Consumer.commit`. Gives up after two seconds; nothing rests on it."""
        if self._group is None or self._consumer is None or not offsets:
            return
        try:
            async with asyncio.timeout(2.0):
                await self._group.commit(self._consumer._client, offsets)
        except (errors.KafkaError, TimeoutError) as error:
            logger.debug("offsets were not committed to Kafka", extra={"error": repr(error)})

    # Inside

    def _point(self, consumer: Any) -> None:
        """Assign and seek, without an `await` between the two: nothing is fetched from anywhere else."""
        consumer.assign(list(self._names.values()))
        for partition, name in self._names.items():
            consumer.seek(name, self._positions[partition])
            if partition in self._paused:
                consumer.pause(name)
        assignment = consumer._subscription.subscription.assignment
        self._states = {partition: assignment.state_value(name) for partition, name in self._names.items()}

    async def _lookup(self, what: str, names: Iterable[KafkaTopicPartition]) -> dict[KafkaTopicPartition, int]:
        wanted = list(names)
        if not wanted:
            return {}
        try:
            async with asyncio.timeout(self._lookup_seconds):
                await self._learn({name.topic for name in wanted})
                found: dict[KafkaTopicPartition, int] = await getattr(self._consumer, what)(wanted)
        except errors.KafkaError as error:
            raise TimeoutError(f"Kafka did not tell the {what}: {error!r}") from error
        return found

    async def _learn(self, topics: set[str]) -> None:
        """Ask where these topics are, all at once: aiokafka's own look-up asks for one after the other.

        A worker that reads fifty topics would need six seconds for its first positions.
        """
        client = self._consumer._client
        if not topics <= client.cluster.topics():
            await client.set_topics(topics | client._topics)

    def _complain(self, error: Exception) -> None:
        now = time.monotonic()
        if now >= self._complain_at:
            self._complain_at = now + 10.0
            logger.warning("fetching fails: trying again", extra={"error": repr(error)})

    async def _jump(self, error: errors.OffsetOutOfRangeError) -> None:
        """The log does not hold a position any more, or not yet: go on at its start, and say so loudly.

        Records below the start are gone by retention. A position beyond the end means that the topic was made
        anew or lost its tail; folding what is there again is harmless (rule 5), skipping it would not be.
        """
        for name in error.args[0]:
            partition = self._known.get(name)
            if partition is None:
                continue
            try:
                start = (await self._lookup("beginning_offsets", [name]))[name]
                end = (await self._lookup("end_offsets", [name]))[name]
            except TimeoutError:
                continue  # the next fetch meets the same error
            position = self._positions[partition]
            if not start <= position <= end:
                metrics.OFFSET_JUMPS.labels(partition.topic).inc()
                logger.error(
                    "the log does not hold the position: reading goes on at its start",
                    extra={
                        "topic": partition.topic,
                        "partition": partition.partition,
                        "position": position,
                        "start": start,
                        "end": end,
                    },
                )
                self._positions[partition] = start
                self._ends[partition] = end
            self._consumer.seek(name, self._positions[partition])

    async def _check(self, now: float) -> None:
        """Once a second: note which partitions the broker has answered for, and replace a silent consumer."""
        if now - self._checked > 5 * _CHECK_SECONDS:
            self._forgive()  # nobody asked for so long; that was us, not the broker
        self._checked = now
        for partition in self._names:
            polled = self._states[partition].timestamp
            if polled != self._poll_times.get(partition):
                self._poll_times[partition] = polled
                self._heard[partition] = now
        silent = self.silent_seconds()
        if silent > self._stall_seconds and now >= self._retry_at:
            self._retry_at = now + self._stall_seconds / 3
            await self._replace(silent)

    def _forgive(self) -> None:
        now = time.monotonic()
        self._heard = dict.fromkeys(self._names, now)
        self._poll_times = {}
        self._checked = now

    async def _replace(self, silent: float) -> None:
        try:
            replacement = await self._connect(_REPLACE_SECONDS)
        except (errors.KafkaError, OSError, TimeoutError) as error:
            logger.warning(
                "Kafka is silent and cannot be reached",
                extra={"silent_seconds": round(silent, 1), "error": repr(error)},
            )
            return
        metrics.CONSUMER_REPLACED.labels("silent").inc()
        logger.warning("replacing a silent Kafka consumer", extra={"silent_seconds": round(silent, 1)})
        old, self._consumer = self._consumer, replacement
        self._point(replacement)
        self._heard = dict.fromkeys(self._names, time.monotonic() - self._stall_seconds / 2)
        self._poll_times = {}
        await _dismiss(old)

    async def _connect(self, timeout_seconds: float) -> Any:
        consumer = AIOKafkaConsumer(**self._options)
        try:
            async with asyncio.timeout(timeout_seconds):
                await consumer.start()
                # What has been fetched waits for a caller that is busy with a batch. After 0.1 s of that, aiokafka
                # asks for the other partitions alone, in a long poll that nothing may end for half a second, and
                # meanwhile it does not ask for those that do have records.
                await install(consumer, prefetch_backoff=_HOLD_SECONDS)
        except BaseException:
            await _dismiss(consumer)
            raise
        return consumer


async def _dismiss(consumer: Any) -> None:
    """End an aiokafka consumer, whatever state it is in.

    Its `stop()` lets the cancellation of its own tasks out, now and then. In ours it would pass for somebody's wish to
    end us, and the edge would go on without reading replies: hence tasks for it, and the connections closed at last.
    """
    if await _ended(consumer.stop()):
        return
    await _ended(consumer._client.close())


async def _ended(closing: Coroutine[Any, Any, None]) -> bool:
    """Whether this came to its end within two seconds."""
    task = asyncio.create_task(closing)
    try:
        await asyncio.wait([task], timeout=2.0)
    finally:
        in_time = task.done()
        task.cancel()
    if not in_time:
        logger.warning("a Kafka consumer would not end in time")
    elif task.cancelled():
        logger.debug("a Kafka consumer was cancelled by itself")
    elif (error := task.exception()) is not None:
        logger.error("a Kafka consumer ended badly", exc_info=error)
    else:
        return True
    return False
