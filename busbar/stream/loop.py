"""The loop that runs a processor: fetch, merge, decode, load, fold, commit, produce; batch after batch.

One task does it all, so that a loop that hangs also stops renewing its leases. Rule 6 in short: the state, the offsets
and the results of a batch are committed together, under the version of each progress row; results are produced after
that commit, by the process that made it; and before the next commit replaces them in the rows, they are known to be
durable in Kafka. A worker that was stopped between its commit and its producing may wake up and produce results that
its successor has produced already: they are the same records with the same ids.

While a batch is being committed the next one is decoded; in a backlog it is folded as well, if it is of other
partitions. It is done again if that commit fails or its partitions are lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from busbar.records import Record, TopicPartition
from busbar.stream import metrics
from busbar.stream.batch import Batch, Folded, Outbox, Ready, as_unstorable, decode, fold, report
from busbar.stream.interfaces import Busy, Consumer, Processor, Producer
from busbar.stream.leases import NO_STATE, Overtaken, ProgressStore, StoreUnavailable, Unstorable
from busbar.stream.merge import Merge
from busbar.stream.ownership import Owned, Ownership
from busbar.stream.results import pack_by_partition
from busbar.stream.settings import WorkerSettings

logger = logging.getLogger(__name__)

_STEPS_TO_DATABASE = 2
"""Turns of the event loop until a statement has been written to its socket."""


def _nothing(*_: Any) -> None:
    """Stands in for what a processor does not care to be told."""


class Worker:
    """One worker of a processor's group.

    Args:
        store: For this worker alone.
        wall_clock: Unix seconds.
    """

    def __init__(
        self,
        processor: Processor[Any],
        *,
        producer: Producer,
        consumer: Consumer,
        store: ProgressStore,
        worker_id: str,
        settings: WorkerSettings,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._processor = processor
        self._group = processor.group
        self._topics = tuple(processor.topics)
        self._producer = producer
        self._consumer = consumer
        self._store = store
        self._settings = settings
        self._wall_clock = wall_clock
        self._now: Callable[[], float] = asyncio.get_running_loop().time
        self._outbox = Outbox(producer, self._group)
        self._merge = Merge(
            self._topics,
            consumer,
            self._now,
            buffer_limit=settings.buffer_limit,
            patience_seconds=settings.merge_patience_seconds,
            on_wait=metrics.MERGE_WAIT_SECONDS.labels(self._group).inc,
        )
        self.ownership = Ownership(
            self._group,
            self._topics,
            worker_id,
            producer=producer,
            consumer=consumer,
            store=store,
            merge=self._merge,
            outbox=self._outbox,
            settings=settings,
            now=self._now,
            on_lost=getattr(processor, "lost", _nothing),
        )
        self._committed: Callable[[Any], None] = getattr(processor, "committed", _nothing)
        self._folds_ahead: bool = getattr(processor, "folds_ahead", False) and not settings.linger_seconds
        self.started = False
        self.turned_at = self._now()
        """When the loop last went round."""
        self._stop = asyncio.Event()
        self._nap: asyncio.Timeout | None = None
        self._limit = settings.batch_limit
        self._pace = 0.0002
        """Seconds that a record takes, lately."""
        self._ahead: Batch | None = None
        """The next batch, decoded already."""
        self._ahead_of: dict[int, Owned] = {}
        """Its partitions, as they were owned then."""
        self._other_half = False
        self._idle: Batch | None = None
        """Records that need nothing but their offsets moved: they wait for a batch that commits anyway, or a second."""
        self._idle_of: dict[int, Owned] = {}
        self._idle_until = 0.0
        self._flushes: set[asyncio.Task[None]] = set()
        self._partitions = 0
        self._next_batch = self._next_due = self._next_tell = self._next_kafka_commit = 0.0
        self._kafka_commit: asyncio.Task[None] | None = None
        self._batch_size = metrics.BATCH_SIZE.labels(self._group)
        self._load_seconds = metrics.LOAD_SECONDS.labels(self._group)
        self._fold_seconds = metrics.FOLD_SECONDS.labels(self._group)
        self._commit_seconds = metrics.COMMIT_SECONDS.labels(self._group)
        self._ack_wait_seconds = metrics.ACK_WAIT_SECONDS.labels(self._group)

    # The loop

    async def run(self, stop: asyncio.Event) -> None:
        """Process until `stop` is set, then hand the partitions over. Raises what a restart may help against."""
        self._stop = stop
        waker = asyncio.create_task(self._wake_on_stop())
        try:
            await self._until_stopped(self._count_partitions())
            await self._open_store()
            if stop.is_set():
                return
            self.started = True
            while not stop.is_set():
                self.turned_at = self._now()
                try:
                    await self._turn()
                except StoreUnavailable as error:
                    await self._wait_for_store(error)
            await self._hand_over()
        finally:
            waker.cancel()
            if self._kafka_commit is not None:
                self._kafka_commit.cancel()
            for flush in self._flushes:
                flush.cancel()
            await self._store.close()

    async def _turn(self) -> None:
        """One round: tend the leases if it is time, gather a batch, process it."""
        if self._now() >= self.ownership.next_look:
            await self.ownership.tend()
            self._drop_lost_ahead()
        now = self._now()
        self._tell(now)
        if now < self._next_batch:
            await self._rest(max(0.001, min(self._next_batch, self.ownership.next_look) - now))
            return
        limit = self._paced_limit()
        batch, self._ahead = self._ahead, None
        if batch is None:
            batch = decode(self._processor, await self._gather(limit, self._nap_seconds(now)))
        if batch.ready is None:
            batch.due.extend(await self._due())
            if self._idles(batch, limit):
                return
        if batch.size:
            is_full = len(batch.records) >= limit
            await self._process(batch)
            if not is_full:
                self._next_batch = self._now() + self._settings.linger_seconds

    async def _gather(self, limit: int, timeout_seconds: float) -> list[Record]:
        """The next records in order, waiting for so long if there are none."""
        resting = self._resting()
        records = self._take(limit, resting)
        # Also with a full batch at hand: only what is taken out of the consumer lets it ask for more.
        fetched = await self._fetch(0.0 if records else timeout_seconds)
        if fetched:
            self.ownership.take_in(fetched)
            if len(records) < limit:
                records += self._merge.take(limit - len(records), resting)
        return records

    def _resting(self) -> set[int]:
        now = self._now()
        return {number for number, owned in self.ownership.owned.items() if owned.paused_until > now}

    def _take(self, limit: int, resting: set[int]) -> list[Record]:
        """The next records: in a backlog only those of every other partition, if the rest can be folded meanwhile.

        What batches of other partitions read and write has nothing in common, so neither waits for the other.
        """
        if self._folds_ahead and self._is_backlog():
            able = [number for number in self._merge.owned if number not in resting]
            self._other_half = not self._other_half
            records = self._merge.take(limit, resting.union(able[self._other_half :: 2]))
            if records:
                return records
        return self._merge.take(limit, resting)

    async def _look_ahead(self, under_way: Collection[int]) -> None:
        """Decode the next batch while the database is busy with this one, if there is much of it; and fold it, too,
        if it is of other partitions than those under way.

        A few records wait: until the commit is done more will have come, and one batch is cheaper than two.
        """
        if self._settings.linger_seconds or self._stop.is_set():
            return
        fetched = await self._fetch(0.0)
        if fetched:
            self.ownership.take_in(fetched)
        if self._merge.buffered < self._settings.ahead_least:
            return
        limit, resting = self._paced_limit(), self._resting()
        # What comes due goes with a batch that is not folded ahead.
        by_halves = self._folds_ahead and not self._may_be_due() and self._is_backlog()
        records = self._merge.take(limit, resting.union(under_way)) if by_halves else []
        by_halves = bool(records)
        records = records or self._take(limit, resting)
        if records:
            self._ahead = batch = decode(self._processor, records)
            self._ahead_of = {record.partition: self.ownership.owned[record.partition] for record in records}
            if by_halves:
                with contextlib.suppress(Busy, StoreUnavailable, Unstorable):  # then it is folded in its turn
                    batch.ready = await self._prepare(batch, beside=True)

    def _return_ahead(self) -> None:
        """Undo `_look_ahead`: something comes first again, or the partitions may be lost."""
        if self._ahead is not None:
            self._merge.put_back(self._ahead.records)
            self._ahead = None

    def _idles(self, batch: Batch, limit: int) -> bool:
        """Put what has waited before a batch; or let the batch wait as well, if no record of it needs anything.

        So nothing waits any more when a batch is committed and another one is folded ahead of its turn.
        """
        now = self._now()
        idle, self._idle = self._idle, None
        if idle is not None:
            batch.records[:0], batch.events[:0] = idle.records, idle.events
        elif batch.is_idle:
            self._idle_of, self._idle_until = {}, now + self._settings.idle_seconds
        if not batch.is_idle or now >= self._idle_until or len(batch.records) >= limit:
            return False
        self._idle = batch
        self._idle_of |= {record.partition: self.ownership.owned[record.partition] for record in batch.records}
        return True

    def _drop_lost_ahead(self) -> None:
        """Forget what was looked at of partitions that were lost meanwhile, even if they have been claimed anew."""
        if self._ahead is not None:
            self._ahead = self._without_lost(self._ahead, self._ahead_of)
        if self._idle is not None:
            self._idle = self._without_lost(self._idle, self._idle_of)

    def _without_lost(self, batch: Batch, partitions: Mapping[int, Owned]) -> Batch:
        owned = self.ownership.owned
        lost = frozenset(number for number, entry in partitions.items() if owned.get(number) is not entry)
        return batch.without(lost, self._processor) if lost else batch

    async def _rest(self, seconds: float) -> None:
        if self._stop.is_set():
            return
        try:
            async with asyncio.timeout(None) as self._nap:
                await asyncio.sleep(seconds)
        except TimeoutError:  # woken in order to stop
            pass
        finally:
            self._nap = None

    async def _fetch(self, timeout_seconds: float) -> Mapping[TopicPartition, Sequence[Record]]:
        if self._stop.is_set():
            return {}
        try:
            async with asyncio.timeout(None) as self._nap:
                return await self._consumer.fetch(timeout_seconds)
        except TimeoutError:  # woken in order to stop
            return {}
        finally:
            self._nap = None

    def _nap_seconds(self, now: float) -> float:
        wake = min(self.ownership.next_look, self._next_due)
        if self._idle is not None:
            wake = min(wake, self._idle_until)
        for owned in self.ownership.owned.values():
            if owned.paused_until > now:
                wake = min(wake, owned.paused_until)
        return max(0.001, wake - now)

    async def _due(self) -> list[Any]:
        now = self._now()
        if now < self._next_due:
            return []
        self._next_due = now + self._settings.due_seconds
        partitions = self._current(now)
        if not partitions:
            return []
        due = await self._store.due(self._processor, partitions, self._now_ms())
        return [event for event in due if self._processor.partition_of_event(event) in partitions][: self._limit]

    def _may_be_due(self) -> bool:
        now = self._now()
        return now >= self._next_due and bool(self._current(now))

    def _current(self, now: float) -> list[int]:
        """The partitions that have nothing left to read."""
        return [
            number
            for number, owned in self.ownership.owned.items()
            if owned.paused_until <= now and not self._merge.lags(number)
        ]

    # A batch

    async def _process(self, batch: Batch) -> None:
        """Load, fold and commit a batch; then produce its results.

        Partitions found to be lost are left out and the rest is done again from fresh state. A batch that the database
        refuses is done again in parts, until the record at fault stands alone and becomes a dead letter.
        """
        while batch.size:
            try:
                await self._attempt(batch)
            except Overtaken as overtaken:
                self.ownership.lose(overtaken.lost)
                batch = batch.without(overtaken.lost, self._processor)
            except Unstorable as error:
                logger.warning("the database refuses a batch", extra={"records": len(batch.records)})
                if len(batch.records) != 1 or batch.due:
                    self._merge.put_back(batch.records)
                    self._limit = max(1, min(self._limit, len(batch.records)) // 2)
                    return
                batch = as_unstorable(batch, str(error))
            else:
                return

    async def _attempt(self, batch: Batch) -> None:
        began = self._now()
        ready, batch.ready = batch.ready, None
        by_halves = ready is not None
        if ready is None:
            try:
                ready = await self._prepare(batch)
            except Busy as busy:
                self._merge.put_back(batch.records)
                seconds = busy.retry_after_seconds
                self.ownership.rest(dict.fromkeys({record.partition for record in batch.records}, seconds))
                return
        state, folded, results = ready.state, ready.folded, ready.results
        if folded.offsets:
            waited = await self._acknowledgements(folded.offsets)
            if await self._commit(state, folded, results):
                self._outbox.produce([result for _, result in results])
                await self._producer.send()
                if by_halves or (self._ahead is not None and self._ahead.ready is not None):
                    self._watch_results(folded.offsets)
            report(self._group, batch, folded)
            self._batch_size.observe(folded.folded)
            self._adapt(batch.size, self._now() - began - waited + (ready.seconds if by_halves else 0.0))
        self._merge.put_back(folded.held)
        self.ownership.rest(folded.busy)

    async def _prepare(self, batch: Batch, *, beside: bool = False) -> Ready:
        """Load what a batch needs and fold it. Raises `Busy`.

        Args:
            beside: While another batch is being committed.
        """
        began, now_ms = self._now(), self._now_ms()
        state: Any = NO_STATE
        if events := batch.loadable:
            state = await self._store.load(self._processor, events, beside=beside)
        loaded = self._now()
        self._load_seconds.observe(loaded - began)
        folded = fold(self._processor, state, batch, now_ms)
        results = await self._outbox.address(folded.results, now_ms)
        folded_at = self._now()
        self._fold_seconds.observe(folded_at - loaded)
        return Ready(state, folded, results, folded_at - began)

    async def _commit(self, state: Any, folded: Folded, results: Sequence[tuple[int, Any]]) -> bool:
        """Commit; `False` if that took longer than the lease: the results are then for whoever claims next."""
        advances = self.ownership.advances(folded.offsets, pack_by_partition(results))
        began = self._now()
        commit = asyncio.ensure_future(self._store.commit(self._processor, state, advances))
        try:
            if not (folded.held or folded.busy):
                for _ in range(_STEPS_TO_DATABASE):
                    await asyncio.sleep(0)
                await self._look_ahead(folded.offsets.keys())
            await commit
        except BaseException:
            self._return_ahead()
            raise
        finally:
            commit.cancel()
        took = self._now() - began
        self._commit_seconds.observe(took)
        if took >= self._settings.lease_seconds:
            logger.warning("a commit outlasted its lease", extra={"seconds": round(took, 1)})
            self._return_ahead()
            self.ownership.lose(folded.offsets.keys())
            return False
        self.ownership.advanced(advances)
        if state is not NO_STATE:
            self._committed(state)
        return True

    def _watch_results(self, partitions: Iterable[int]) -> None:
        """Learn when what has been produced so far is durable, though more is produced all the time."""
        flush = asyncio.create_task(self._producer.flush())
        self._flushes.add(flush)
        flush.add_done_callback(self._flushed)
        for number in partitions:
            self.ownership.owned[number].flush = flush

    def _flushed(self, flush: asyncio.Task[None]) -> None:
        self._flushes.discard(flush)
        if not flush.cancelled():
            flush.exception()  # the next batch meets it

    async def _acknowledgements(self, partitions: Iterable[int]) -> float:
        """Wait until the last results of these partitions are durable, keeping the leases; returns for how long."""
        if self.ownership.note_acknowledgements():
            return 0.0
        flushes = self.ownership.flushes(partitions)
        if not flushes:
            return 0.0
        began = self._now()
        own = asyncio.create_task(self._producer.flush()) if None in flushes else None
        waited_for = [own] if own is not None else [flush for flush in flushes if flush is not None]
        try:
            left: Collection[asyncio.Task[None]] = waited_for
            while left:
                _, left = await asyncio.wait(left, timeout=self._settings.poll_seconds)
                self.turned_at = self._now()
                if left and self._now() >= self.ownership.next_keep:
                    await self.ownership.keep()
                if left and self._stop.is_set() and self._now() - began > self._settings.stop_seconds:
                    raise StoreUnavailable("stopping, and Kafka does not acknowledge the results before these")
            for flush in waited_for:
                flush.result()
        finally:
            if own is not None:
                own.cancel()
        self.ownership.settle(self.ownership.owned if own is not None else partitions)
        waited = self._now() - began
        self._ack_wait_seconds.observe(waited)
        return waited

    def _paced_limit(self) -> int:
        """How many records to take: while somebody waits for replies, no more than take a moment.

        Replies of a batch leave together, after its commit. Large batches would have the whole fleet, the edge and this
        process take turns instead of working side by side; in a backlog they are cheaper, and nobody waits.
        """
        if self._settings.linger_seconds:  # it answers nobody
            return self._limit
        if self._is_backlog():
            return self._limit
        paced = int(self._settings.batch_seconds / max(self._pace, 1e-6))
        return min(self._limit, max(self._settings.ahead_least, paced))

    def _is_backlog(self) -> bool:
        """Whether records are so old that their edges and stations do not wait for them any more."""
        heads = (self._merge.oldest_ms(number) for number in self._merge.owned)
        oldest_ms = min((at for at in heads if at is not None), default=None)
        return oldest_ms is not None and self._now_ms() - oldest_ms > self._settings.backlog_seconds * 1000

    def _adapt(self, size: int, took: float) -> None:
        """Smaller batches if one takes a good part of a lease, larger ones again if not."""
        if size >= self._settings.ahead_least:
            self._pace += (took / size - self._pace) / 8
        if took > self._settings.lease_seconds / 3:
            self._limit = max(1, min(self._limit, size) // 2)
        elif self._limit < self._settings.batch_limit:
            self._limit = min(self._settings.batch_limit, self._limit * 2)

    # Beginning, waiting, ending

    async def _count_partitions(self) -> None:
        """Learn the partition count that all topics of the processor have in common."""
        told = False
        while True:
            counts = {topic: self._producer.partitions(topic) for topic in self._topics}
            missing = [topic for topic, count in counts.items() if count is None]
            if not missing:
                break
            for topic in missing:
                await self._producer.refresh(topic)
            if told:
                await asyncio.sleep(0.5)
            elif any(self._producer.partitions(topic) is None for topic in missing):
                logger.error("topics do not exist: waiting for them", extra={"topics": missing})
                told = True
            self.turned_at = self._now()
        if len(set(counts.values())) > 1:
            raise ValueError(f"the topics of {self._group} must have the same partition count: {counts}")
        self._partitions = counts[self._topics[0]] or 0

    async def _open_store(self) -> None:
        pause = 0.1
        while not self._stop.is_set():
            self.turned_at = self._now()
            try:
                await self._store.open(self._partitions)
            except StoreUnavailable as error:
                logger.warning("the database cannot be reached: trying again", extra={"error": str(error)})
                await self._until_stopped(asyncio.sleep(pause))
                pause = min(2.0, pause * 2)
            else:
                self.ownership.stored_at = self._now()
                self.ownership.next_look = self.ownership.next_keep = 0.0
                return

    async def _wait_for_store(self, error: StoreUnavailable) -> None:
        metrics.STORE_FAILURES.labels(self._group).inc()
        logger.error("the database cannot be used: waiting for it", extra={"error": str(error)})
        await self.ownership.forget_all()
        await self._open_store()

    async def _hand_over(self) -> None:
        """Give everything back, so that others need not wait for the leases to end."""
        try:
            async with asyncio.timeout(self._settings.stop_seconds):
                await self.ownership.leave()
        except (StoreUnavailable, TimeoutError) as error:
            logger.warning("partitions could not be handed over: their leases will end", extra={"error": repr(error)})

    async def _wake_on_stop(self) -> None:
        await self._stop.wait()
        if self._nap is not None:
            self._nap.reschedule(self._now())

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            task.cancel()
            stopping.cancel()

    def _now_ms(self) -> int:
        return int(self._wall_clock() * 1000)

    # Telling

    def _tell(self, now: float) -> None:
        """Measure the lag, and tell Kafka the offsets for the sake of lag tools; nothing rests on either."""
        if now < self._next_tell:
            return
        self._next_tell = now + self._settings.tell_seconds
        lags = dict.fromkeys(self._topics, 0)
        oldest: int | None = None
        for number in self._merge.owned:
            for topic, buffered in self._merge.waiting(number).items():
                name = TopicPartition(topic, number)
                lags[topic] += buffered + max(0, (self._consumer.end(name) or 0) - self._consumer.position(name))
            head = self._merge.oldest_ms(number)
            if head is not None and (oldest is None or head < oldest):
                oldest = head
        for topic, lag in lags.items():
            metrics.LAG_RECORDS.labels(self._group, topic).set(lag)
        metrics.LAG_SECONDS.labels(self._group).set(0 if oldest is None else max(0, self._now_ms() - oldest) / 1000)
        if now >= self._next_kafka_commit and (self._kafka_commit is None or self._kafka_commit.done()):
            self._next_kafka_commit = now + self._settings.kafka_commit_seconds
            offsets = self.ownership.committed()
            if offsets:
                self._kafka_commit = asyncio.create_task(self._consumer.commit(offsets))
