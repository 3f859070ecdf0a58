"""Which partitions a worker owns and reads: claims, leases, positions, and giving back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from busbar.records import Record, TopicPartition
from busbar.stream import metrics
from busbar.stream.batch import Outbox
from busbar.stream.interfaces import EARLIEST, Consumer, Producer
from busbar.stream.leases import Advance, Claim, Overtaken, ProgressStore, StoreUnavailable, plan_share
from busbar.stream.merge import Merge
from busbar.stream.results import unpack_results
from busbar.stream.settings import WorkerSettings

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Owned:
    """A partition that this worker owns."""

    version: int
    offsets: dict[str, int]
    """The next offset by topic, as committed."""
    pending: bool = False
    """Its stored results are not known to be durable in Kafka."""
    wipe: bool = False
    """They are, and the row may forget them."""
    paused_until: float = 0.0
    flush: asyncio.Task[None] | None = None
    """Ends when its last results are durable; `None` if nobody watches these alone."""


class Ownership:
    """The partitions of one worker. Used between batches and by the batch's commit, always from one task.

    Args:
        topics: Of the processor.
        now: The event loop's clock; what a lease lasts is the database's business.
        on_lost: Called when partitions are not owned any more.
    """

    def __init__(
        self,
        group: str,
        topics: Sequence[str],
        worker_id: str,
        *,
        producer: Producer,
        consumer: Consumer,
        store: ProgressStore,
        merge: Merge,
        outbox: Outbox,
        settings: WorkerSettings,
        now: Callable[[], float],
        on_lost: Callable[[], None],
    ) -> None:
        self.owned: dict[int, Owned] = {}
        self.next_look = 0.0
        self.next_keep = 0.0
        self.fit = True
        """Whether Kafka can be read. A worker that cannot must not hold what another could work on."""
        self.stored_at = float("-inf")
        """When the database last answered."""
        self._group = group
        self._topics = tuple(topics)
        self._worker_id = worker_id
        self._producer = producer
        self._consumer = consumer
        self._store = store
        self._merge = merge
        self._outbox = outbox
        self._settings = settings
        self._now = now
        self._on_lost = on_lost
        self._expected: dict[TopicPartition, int | None] = {}
        """What is read, with the offset that comes next; `None` where reading begins at the log's start."""
        self._stale = False
        """Whether the consumer still reads what is not owned any more."""

    # Tending

    async def tend(self) -> None:
        """Keep the leases, take free partitions up to the share, give surplus ones back."""
        now = self._now()
        self.next_look = now + self._settings.poll_seconds
        if not await self._is_fit():
            return
        if now >= self.next_keep:
            await self.keep()
        survey = await self._store.survey()
        self.stored_at = self._now()
        self.lose(
            {row.partition for row in survey.rows if row.owner != self._worker_id and row.partition in self.owned}
        )
        plan = plan_share(survey, self._worker_id, self.owned)
        if plan.release:
            await self.release(plan.release)
        if plan.claim:
            await self._take_over(await self._store.claim(plan.claim, list(self.owned)))
        if self._stale:
            await self._assign()

    async def keep(self) -> None:
        """Send a heartbeat, renew the leases, and let the rows forget results that are durable."""
        self.note_acknowledgements()
        wiped = [number for number, owned in self.owned.items() if owned.wipe]
        lost = await self._store.keep(self._versions(self.owned), wiped)
        for number in wiped:
            self.owned[number].wipe = False
        self.next_keep = self._now() + self._settings.lease_seconds / 4
        self.lose(lost)

    async def _take_over(self, claims: Collection[Claim]) -> None:
        """Produce what the last owners committed last, then read on from where they came to."""
        for claim in claims:
            stored = unpack_results(claim.results)
            self._outbox.produce(stored)
            self.owned[claim.partition] = Owned(claim.version, dict(claim.offsets), pending=bool(stored))
            metrics.TAKEOVERS.labels(self._group).inc()
        if claims:
            self._stale = True
            logger.info("partitions claimed", extra={"partitions": [claim.partition for claim in claims]})

    async def _assign(self) -> None:
        positions: dict[TopicPartition, int | None] = {}
        expected: dict[TopicPartition, int | None] = {}
        for name in self._names(self.owned):
            if name in self._expected:
                positions[name] = self._consumer.position(name)
                expected[name] = self._expected[name]
            else:
                committed = self.owned[name.partition].offsets.get(name.topic)
                positions[name] = EARLIEST if committed is None else committed
                expected[name] = committed
        try:
            await self._consumer.assign(positions)
        except TimeoutError as error:
            logger.error("Kafka does not answer: partitions are given back", extra={"error": str(error)})
            await self._retire()
            return
        self._expected = expected
        self._stale = False
        self._merge.own(self.owned)
        metrics.LEASES_OWNED.labels(self._group).set(len(self.owned))

    # Reading

    def take_in(self, fetched: Mapping[TopicPartition, Sequence[Record]]) -> None:
        """Buffer what was fetched, once its offsets are seen to follow on."""
        clean: dict[TopicPartition, Sequence[Record]] = {}
        for name, records in fetched.items():
            if name not in self._expected:
                continue  # lost since it was asked for
            expected = self._expected[name]
            first = records[0].offset
            if expected is not None and first != expected:
                metrics.OFFSET_GAPS.labels(name.topic).inc()
                logger.error(
                    "offsets do not follow on",
                    extra={"topic": name.topic, "partition": name.partition, "expected": expected, "found": first},
                )
            self._expected[name] = records[-1].offset + 1
            clean[name] = records
        self._merge.add(clean)

    # Committing

    def advances(self, offsets: Mapping[int, Mapping[str, int]], results: Mapping[int, bytes]) -> list[Advance]:
        """What a commit moves. Raises `Overtaken` if some of the partitions have been lost already."""
        missing = frozenset(number for number in offsets if number not in self.owned)
        if missing:
            raise Overtaken(missing)
        return [
            Advance(number, self.owned[number].version, moved, results.get(number, b""))
            for number, moved in offsets.items()
        ]

    def advanced(self, advances: Iterable[Advance]) -> None:
        """They were committed."""
        self.stored_at = self._now()
        for advance in advances:
            owned = self.owned[advance.partition]
            owned.version += 1
            owned.offsets.update(advance.offsets)
            owned.pending = bool(advance.results)
            owned.wipe = False
            owned.flush = None

    def flushes(self, partitions: Iterable[int]) -> set[asyncio.Task[None] | None]:
        """What to wait for until the results of these partitions are durable, as far as it is known."""
        ours = (self.owned[number] for number in partitions if number in self.owned)
        return {owned.flush for owned in ours if owned.pending}

    def note_acknowledgements(self) -> bool:
        """Whether all results so far are durable; remembered for the rows."""
        if self._producer.unacknowledged_bytes:
            return False
        self.settle(self.owned)
        return True

    def settle(self, partitions: Iterable[int]) -> None:
        """The results of these partitions are durable."""
        for number in partitions:
            owned = self.owned.get(number)
            if owned is not None and owned.pending:
                owned.pending = False
                owned.wipe = True
                owned.flush = None

    def rest(self, busy: Mapping[int, float]) -> None:
        """Let partitions pause for so many seconds."""
        for number, seconds in busy.items():
            if number in self.owned:
                self.owned[number].paused_until = self._now() + seconds

    def committed(self) -> dict[TopicPartition, int]:
        """The next offsets of what is read, for lag tools."""
        return {
            name: offset
            for number, owned in self.owned.items()
            for topic, offset in owned.offsets.items()
            if (name := TopicPartition(topic, number)) in self._expected
        }

    # Losing and giving back

    def lose(self, partitions: Collection[int]) -> None:
        """Others own these now: forget all about them; nothing of theirs leaves this process any more."""
        lost = [number for number in partitions if number in self.owned]
        if lost:
            logger.warning("overtaken: partitions lost", extra={"partitions": sorted(lost)})
            metrics.OVERTAKEN.labels(self._group).inc(len(lost))
            self._forget(lost)
            self.next_look = 0.0

    async def release(self, partitions: Iterable[int]) -> None:
        """Give partitions back, between two batches."""
        released = {number: self.owned[number] for number in partitions}
        if not released:
            return
        if any(owned.pending for owned in released.values()) and not self.note_acknowledgements():
            try:
                await asyncio.wait_for(self._producer.flush(), 2.0)
            except TimeoutError:
                pass  # the next owner produces their results once more
            self.note_acknowledgements()
        await self._store.release(self._versions(released), self._settled(released))
        self._forget(list(released))
        logger.info("partitions given back", extra={"partitions": sorted(released)})

    async def leave(self) -> None:
        """Give everything back and count for nothing: the worker ends."""
        if self.fit:
            await self.release(list(self.owned))
            await self._store.leave()

    async def forget_all(self) -> None:
        """The database is away. Whether the last commit took place, the next claim tells."""
        self._forget(list(self.owned))
        await self._consumer.assign({})
        self._stale = False

    async def _is_fit(self) -> bool:
        if self.fit:
            if self._consumer.silent_seconds() <= self._settings.silence_seconds:
                return True
            logger.error("Kafka is silent: partitions are given back")
            await self._retire()
        try:
            await self._consumer.ends([TopicPartition(self._topics[0], 0)])
        except TimeoutError:
            return False
        logger.info("Kafka answers")
        self.fit = True
        self.next_keep = 0.0
        return True

    async def _retire(self) -> None:
        """Own nothing and count for nothing until Kafka answers."""
        self.fit = False
        self.note_acknowledgements()
        try:
            await self._store.release(self._versions(self.owned), self._settled(self.owned))
            await self._store.leave()
        except StoreUnavailable:
            logger.warning("partitions could not be given back: their leases will end")
        await self.forget_all()

    def _forget(self, partitions: Iterable[int]) -> None:
        self._on_lost()
        for number in partitions:
            del self.owned[number]
            for name in self._names([number]):
                self._expected.pop(name, None)
        self._stale = True
        self._merge.own(self.owned)
        metrics.LEASES_OWNED.labels(self._group).set(len(self.owned))

    def _names(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in partitions for topic in self._topics]

    @staticmethod
    def _versions(owned: Mapping[int, Owned]) -> dict[int, int]:
        return {number: entry.version for number, entry in owned.items()}

    @staticmethod
    def _settled(owned: Mapping[int, Owned]) -> list[int]:
        return [number for number, entry in owned.items() if not entry.pending]
