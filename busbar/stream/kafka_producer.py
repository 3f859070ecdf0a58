"""The Kafka producer: batches per partition, a flush tick of its own, and a supervisor that heals it.

Records gather per (topic, partition) and leave together in aiokafka's `create_batch`/`send_batch`; a partition
with a batch on its way goes on collecting. An idempotent aiokafka producer can be lost for good: after a refused
batch its partition fails for ever with `OutOfOrderSequenceNumber`, and an unexpected error ends its sender task.
The supervisor then replaces it and sends what was not acknowledged again, in order. What had been written without
our knowing appears twice, and consumers deduplicate by business keys (rule 7).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from aiokafka import AIOKafkaProducer, errors

from busbar.records import Headers, Result
from busbar.stream import metrics
from busbar.stream.interfaces import RecordTooLarge, UnknownTopic
from busbar.stream.kafka_batches import Entry, PartitionQueue
from busbar.stream.kafka_connect import connect_timeouts
from busbar.stream.partitioner import Partitioner
from busbar.stream.results import record_size

logger = logging.getLogger(__name__)

_LOOK_TICKS = 64
"""So many ticks lie between two looks at how busy this process is."""

_STEPS_TO_SOCKET = 6
"""Turns of the event loop from a tick until aiokafka has written the request: the flush task, the sender's wait, the
sender, its task for the node, and the client's lock."""

MAX_REQUEST_BYTES = 1_000_000
"""Of one record with its headers: below the broker's `message.max.bytes` (1,048,588) by the batch's overhead."""
MAX_BATCH_BYTES = 256 * 1024
"""Of a batch before compression, unless one record alone is larger."""

_REFUSALS: tuple[type[BaseException], ...] = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.InvalidTimestampError,
    errors.PolicyViolationError,
    errors.UnsupportedForMessageFormatError,
)
"""What the broker says to a batch that it will never take."""
_SUSPECTS: tuple[type[BaseException], ...] = (
    errors.UnknownError,  # also what aiokafka makes of INVALID_RECORD (87), which it does not know
    errors.CorruptRecordException,
)
"""What it says to such a batch or, now and then, to a good one."""
_SUSPICION_LIMIT = 5


@dataclass(frozen=True, slots=True)
class RefusedRecord:
    """A record that the broker will never accept; it has been given up."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Headers
    error: str


class KafkaProducer:
    """Appends records to Kafka: `acks=all`, idempotent, compressed. An async context manager.

    Args:
        flush_interval_seconds: How long records gather before they leave; up to twice as long in a busy process. The
            only deliberate delay of the pipeline is the edge's; processors pass 0.
        stall_seconds: A batch that has been on its way for so long makes the supervisor try a new producer.
        client_options: Passed to aiokafka as they are (`security_protocol`, `ssl_context`, `sasl_…`).
        on_refused: Told of each record given up because the broker refuses it for good.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        flush_interval_seconds: float = 0.005,
        compression: str | None = "zstd",
        max_request_bytes: int = MAX_REQUEST_BYTES,
        max_batch_bytes: int = MAX_BATCH_BYTES,
        request_timeout_seconds: float = 10.0,
        stall_seconds: float = 15.0,
        client_id: str = "busbar",
        client_options: Mapping[str, Any] | None = None,
        on_refused: Callable[[RefusedRecord], None] | None = None,
    ) -> None:
        self.unacknowledged_bytes = 0
        self.max_request_bytes = max_request_bytes
        self.on_refused = on_refused
        self._flush_interval = self._interval = flush_interval_seconds
        self._ticks = 0
        self._looked_at = self._used = 0.0
        self._stall_seconds = stall_seconds
        self._options: dict[str, Any] = {
            "bootstrap_servers": bootstrap_servers,
            "client_id": client_id,
            "acks": "all",
            "enable_idempotence": True,
            "compression_type": compression,
            "linger_ms": 0,
            "max_batch_size": min(max_batch_bytes, max_request_bytes),
            "max_request_size": max_request_bytes,
            "request_timeout_ms": int(request_timeout_seconds * 1000),
            "metadata_max_age_ms": 30_000,
            "retry_backoff_ms": 100,
            **(client_options or {}),
        }
        self._topics: set[str] = set()
        self._counts: dict[str, int] = {}
        self._partitioner = Partitioner()
        self._queues: dict[str, dict[int, PartitionQueue]] = {}
        self._dirty: dict[PartitionQueue, None] = {}
        self._homeless: dict[PartitionQueue, None] = {}
        self._generation = 0
        self._producer: Any = None
        self._broken: str | None = None
        self._replacing = False
        self._stopping = False
        self._timer: asyncio.Handle | None = None
        self._wake = asyncio.Event()
        self._alarm = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._farewells: set[asyncio.Task[None]] = set()
        self._refreshing: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        loop = asyncio.get_running_loop()
        self._failed_future: asyncio.Future[None] = loop.create_future()
        self._now: Callable[[], float] = loop.time

    # Life

    async def start(self, topics: Iterable[str] = ()) -> None:
        """Connect, waiting for as long as the broker is away, and learn these topics' partition counts.

        Args:
            topics: Those that will be written to; all topics of the cluster are tracked if none is named.
        """
        self._topics.update(topics)
        self._adopt(await self._connect_patiently())
        self._tasks = [
            asyncio.create_task(self._flush_loop(), name="producer-flush"),
            asyncio.create_task(self._supervise(), name="producer-supervisor"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._own_task_ended)

    async def stop(self, deadline_seconds: float = 5.0) -> bool:
        """Send what is left, for so long at most. Returns whether all of it was acknowledged."""
        complete = True
        if self._producer is not None:
            try:
                await asyncio.wait_for(self.flush(), deadline_seconds)
            except (TimeoutError, RuntimeError):  # a producer that has failed sends nothing any more
                complete = False
                logger.error("stopped with unacknowledged records", extra={"bytes": self.unacknowledged_bytes})
        self._stopping = True
        tasks = [*self._tasks, *([self._refreshing] if self._refreshing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        self._generation += 1
        if self._producer is not None:
            await _dismiss(self._producer)
            self._producer = None
        await asyncio.gather(*self._farewells, return_exceptions=True)
        return complete

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # What services use

    def append(
        self,
        topic: str,
        partition: int,
        *,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Headers = (),
        on_ack: Callable[[], None] | None = None,
    ) -> None:
        """See `Producer.append`."""
        if self._failure is not None:
            raise RuntimeError("the producer has failed") from self._failure
        size = record_size(key, value, headers)
        if size > self.max_request_bytes:
            raise RecordTooLarge(f"a record of {size} bytes for {topic} exceeds the limit of {self.max_request_bytes}")
        try:
            queue = self._queues[topic][partition]
        except KeyError:
            queue = self._queues.setdefault(topic, {})[partition] = PartitionQueue(topic, partition)
        if not queue.waiting:
            queue.waiting_since = self._now()
            self._dirty[queue] = None
        queue.waiting.append((key, value, timestamp_ms, headers, on_ack, size))
        queue.appended += 1
        self.unacknowledged_bytes += size
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._tick)

    def append_results(self, results: Sequence[Result]) -> None:
        """See `Producer.append_results`."""
        for result in results:
            self.append(
                result.topic,
                result.partition or 0,
                key=result.key,
                value=result.value,
                timestamp_ms=result.timestamp_ms or 0,
                headers=result.headers,
            )

    def oldest_unacknowledged_seconds(self) -> float:
        """See `Producer.oldest_unacknowledged_seconds`."""
        oldest = now = self._now()
        for queue in self._outstanding():
            oldest = min(oldest, queue.oldest())
        return now - oldest

    def partitions(self, topic: str) -> int | None:
        """See `Producer.partitions`."""
        return self._counts.get(topic) or self._learn(topic)

    async def refresh(self, topic: str) -> int | None:
        """See `Producer.refresh`."""
        client = self._producer.client
        if self._topics:  # otherwise all topics are tracked
            self._topics.add(topic)
            client.set_topics(self._topics)
        await asyncio.wait([client.force_metadata_update()], timeout=10.0)
        return self._learn(topic)

    def partition_for(self, topic: str, key: bytes) -> int:
        """See `Producer.partition_for`."""
        count = self.partitions(topic)
        if count is None:
            raise UnknownTopic(f"the partition count of {topic} is not known")
        return self._partitioner.partition(key, count)

    async def send(self) -> None:
        """See `Producer.send`."""
        if self._timer is not None:
            self._tick()
            for _ in range(_STEPS_TO_SOCKET):
                await asyncio.sleep(0)

    async def flush(self) -> None:
        """See `Producer.flush`. Ends for refused records too, once they have been given up."""
        queues = list(self._outstanding())
        if not queues:
            return
        done = asyncio.get_running_loop().create_future()
        left = len(queues)

        def reached() -> None:
            nonlocal left
            left -= 1
            if left == 0 and not done.done():
                done.set_result(None)

        for queue in queues:
            queue.notify_at(queue.appended, reached)
        self._tick()
        await asyncio.wait((done, self._failed_future), return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise RuntimeError("the producer has failed") from self._failure

    def problem(self) -> str | None:
        """For health checks: what is wrong with the path to Kafka, if anything is known to be."""
        if self._producer is None:
            return "not connected to Kafka"
        age = self.oldest_unacknowledged_seconds()
        if age > self._stall_seconds:
            return f"Kafka has acknowledged nothing for {age:.0f} s"
        if self._failure is not None:
            return "the producer's own task has ended"
        return None

    # Sending

    def _outstanding(self) -> Iterable[PartitionQueue]:
        return (queue for topic in self._queues.values() for queue in topic.values() if queue.appended > queue.settled)

    def _tick(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake.set()
        self._ticks += 1
        if self._ticks % _LOOK_TICKS == 0 and self._flush_interval:
            self._adapt()

    def _adapt(self) -> None:
        """Let records gather for longer while this process is busy.

        A request costs us, the broker and every reader of it about as much with one record as with ten. Where there is
        time to spare that does not matter; where there is none, waiting for each other takes longer than the tick.
        """
        now, used = self._now(), time.process_time()
        if self._looked_at and now > self._looked_at:
            share = (used - self._used) / (now - self._looked_at)
            self._interval = self._flush_interval * min(2.0, max(1.0, 0.6 + 2 * share))
        self._looked_at, self._used = now, used

    async def _flush_loop(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            metrics.UNACKNOWLEDGED_BYTES.set(self.unacknowledged_bytes)
            while self._dirty and not self._replacing:
                queue = next(iter(self._dirty))
                del self._dirty[queue]
                if queue.waiting and not queue.in_flight:
                    await self._send(queue)

    async def _send(self, queue: PartitionQueue) -> None:
        producer, generation = self._producer, self._generation
        if not _has_leader(producer, queue):
            self._hold(queue)
            return
        batch = producer.create_batch()
        queue.depart(batch)
        try:
            future = await producer.send_batch(batch, queue.topic, partition=queue.partition)
        except Exception as error:  # a producer that cannot even take a batch
            if generation == self._generation:
                self._failed(queue, error)
        else:
            future.add_done_callback(partial(self._arrived, queue, generation))

    def _arrived(self, queue: PartitionQueue, generation: int, future: asyncio.Future[Any]) -> None:
        error = errors.ProducerClosed() if future.cancelled() else future.exception()
        if generation != self._generation:
            return  # the replacement has sent it again
        if error is not None:
            self._failed(queue, error)
            return
        entries = queue.in_flight
        metrics.ACK_SECONDS.observe(self._now() - queue.in_flight_since)
        self.unacknowledged_bytes -= queue.arrive()
        for entry in entries:
            if (on_ack := entry[4]) is not None:
                try:
                    on_ack()
                except Exception:
                    logger.exception("a callback after an acknowledgement failed")
        queue.settle(len(entries))
        if queue.waiting:  # it gathered while its predecessor was on its way
            self._dirty[queue] = None
            if self._timer is None or queue.overflows:  # else it leaves with the next tick
                self._wake.set()

    def _failed(self, queue: PartitionQueue, error: BaseException) -> None:
        batch_length = len(queue.in_flight)
        queue.come_back()
        self._dirty[queue] = None
        logger.warning(
            "a batch failed",
            extra={"topic": queue.topic, "partition": queue.partition, "records": batch_length, "error": repr(error)},
        )
        if isinstance(error, (*_REFUSALS, *_SUSPECTS)):
            queue.refusals += 1
            certain = isinstance(error, _REFUSALS) or queue.refusals >= _SUSPICION_LIMIT
            if batch_length > 1:
                queue.limit = max(1, batch_length // 2)
            elif certain:
                self._give_up_first(queue, error)
        self._break(type(error).__name__)

    def _give_up_first(self, queue: PartitionQueue, error: BaseException) -> None:
        entry: Entry = queue.waiting.pop(0)
        queue.refusals = 0
        self.unacknowledged_bytes -= entry[5]
        metrics.REFUSED.labels(queue.topic, type(error).__name__).inc()
        logger.error(
            "the broker refuses a record for good: given up",
            extra={"topic": queue.topic, "partition": queue.partition, "bytes": entry[5], "error": repr(error)},
        )
        if self.on_refused is not None:
            key, value, timestamp_ms, headers = entry[:4]
            refused = RefusedRecord(
                queue.topic, queue.partition, key, value, timestamp_ms, headers, type(error).__name__
            )
            try:
                self.on_refused(refused)
            except Exception:
                logger.exception("a refused record could not be handed on")
        queue.settle(1)

    # Partitions that are not known (yet)

    def _hold(self, queue: PartitionQueue) -> None:
        self._homeless[queue] = None
        metrics.UNKNOWN_PARTITION.labels(queue.topic).inc()
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._find_homes(), name="producer-metadata")
            self._refreshing.add_done_callback(self._own_task_ended)

    async def _find_homes(self) -> None:
        pause = 0.0
        while self._homeless:
            await asyncio.sleep(pause)
            for topic in {queue.topic for queue in self._homeless}:
                await self.refresh(topic)
            for queue in list(self._homeless):
                if _has_leader(self._producer, queue):
                    del self._homeless[queue]
                    self._dirty[queue] = None
                elif pause == 0.0:
                    logger.error(
                        "records wait for a partition that does not exist or has no leader",
                        extra={"topic": queue.topic, "partition": queue.partition},
                    )
            self._wake.set()
            pause = min(5.0, pause * 2 + 0.1)

    def _learn(self, topic: str) -> int | None:
        known = self._producer.client.cluster.partitions_for_topic(topic) if self._producer is not None else None
        if known:
            self._counts[topic] = len(known)
        return self._counts.get(topic)

    def _learn_all(self, producer: Any) -> None:
        cluster = producer.client.cluster
        for topic in cluster.topics():
            self._counts[topic] = len(cluster.partitions_for_topic(topic))

    # Supervision

    def _break(self, reason: str) -> None:
        if self._broken is None:
            self._broken = reason
        self._replacing = True
        self._alarm.set()

    def _own_task_ended(self, task: asyncio.Task[None]) -> None:
        """Fail loudly: a producer that sends nothing, and says nothing, would hold up its worker for ever."""
        if self._stopping:
            return
        # Not by us: aiokafka lets cancellations of its own out, now and then.
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            return  # the metadata has been found
        logger.error("%s has ended", task.get_name(), exc_info=error)
        self._failure = error
        if not self._failed_future.done():
            self._failed_future.set_result(None)

    def _adopt(self, producer: Any) -> None:
        self._producer = producer
        generation = self._generation

        def ended(_: object) -> None:
            if generation == self._generation:
                self._break("SenderEnded")

        producer._sender.sender_task.add_done_callback(ended)
        producer.client.cluster.add_listener(lambda _cluster: self._learn_all(producer))
        self._learn_all(producer)

    async def _connect(self, timeout_seconds: float) -> Any:
        producer = AIOKafkaProducer(**self._options)
        try:
            async with asyncio.timeout(timeout_seconds):
                await producer.start()
                client = producer.client
                await (client.set_topics(self._topics) if self._topics else client.force_metadata_update())
        except BaseException:
            await _dismiss(producer)
            raise
        return producer

    async def _connect_patiently(self) -> Any:
        pause, timeouts = 0.1, connect_timeouts()
        while True:
            try:
                return await self._connect(next(timeouts))
            except (errors.KafkaError, OSError, TimeoutError) as error:
                logger.warning("Kafka cannot be reached: trying again", extra={"error": repr(error)})
            await asyncio.sleep(pause)
            pause = min(2.0, pause * 2)

    async def _supervise(self) -> None:
        patience = self._stall_seconds
        while True:
            try:
                async with asyncio.timeout(1.0):
                    await self._alarm.wait()
            except TimeoutError:
                now = self._now()
                if not any(now - queue.in_flight_since > patience for queue in self._outstanding() if queue.in_flight):
                    patience = self._stall_seconds
                    continue
                try:
                    replacement = await self._connect(10.0)
                except (errors.KafkaError, OSError, TimeoutError):
                    continue  # Kafka is away: the batches stay where they are
                patience = min(240.0, patience * 2)
                self._replacing = True
                await self._replace("Stalled", replacement)
            else:
                await self._let_others_arrive(deadline_seconds=2.0)
                await self._replace(self._broken or "Unknown", None)

    async def _let_others_arrive(self, deadline_seconds: float) -> None:
        """Give the batches of other partitions the chance not to be written twice."""
        deadline = self._now() + deadline_seconds
        while self._now() < deadline and any(queue.in_flight for queue in self._outstanding()):
            if self._broken in ("SenderEnded", "ProducerClosed"):
                return
            await asyncio.sleep(0.01)

    async def _replace(self, reason: str, replacement: Any) -> None:
        metrics.PRODUCER_REPLACED.labels(reason).inc()
        logger.warning("replacing the Kafka producer", extra={"reason": reason})
        self._generation += 1
        farewell = asyncio.create_task(_dismiss(self._producer), name="producer-farewell")
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)
        for queue in self._outstanding():
            queue.come_back()
        self._alarm.clear()
        self._broken = None
        self._adopt(replacement if replacement is not None else await self._connect_patiently())
        self._replacing = False
        for queue in self._outstanding():
            self._dirty[queue] = None
        self._wake.set()


async def _dismiss(producer: Any) -> None:
    """End an aiokafka producer at once, whatever state it is in.

    Its `stop()` flushes, and so never returns while the broker is away; what it has not delivered is ours to send.
    """
    sender_task = producer._sender.sender_task
    if sender_task is not None:
        sender_task.remove_done_callback(producer._sender._fail_all)  # it fails on idempotent producers
        sender_task.cancel()
    producer._closed = True
    try:
        async with asyncio.timeout(2.0):
            await producer.client.close()
            if sender_task is not None:
                await asyncio.gather(sender_task, return_exceptions=True)
    except TimeoutError:
        logger.warning("an old Kafka producer would not end in time")
    except Exception:
        logger.exception("an old Kafka producer ended badly")


def _has_leader(producer: Any, queue: PartitionQueue) -> bool:
    return producer.client.cluster.leader_for_partition(queue.kafka_name) not in (None, -1)
