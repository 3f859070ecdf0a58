"""The shapes of the stream runtime: what a processor gives it, and what it asks of a broker.

The broker has two implementations, Kafka and an in-memory one, and one contract suite runs on both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from busbar.records import Headers, Record, Result, TopicPartition

State = TypeVar("State")
Event = Any
"""What `Processor.decode` makes of a record, or what `Processor.due` says has come due."""


class InvalidRecord(Exception):  # noqa: N818 - it names the record's fate, as `Busy` does
    """This record can never be processed: it goes to `csms.dead-letters` and the offset moves on."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        """A short stable word for metrics, such as `undecodable`."""
        self.detail = detail


class Busy(Exception):  # noqa: N818
    """Not now: the partition pauses and the record is offered again after `retry_after_seconds`."""

    def __init__(self, reason: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class StoreCall:
    """Everything that a state wants written, as one call of an SQL function.

    The runtime calls it in the very statement that moves the offsets: a batch then commits in one round trip.
    """

    function: str
    """Its name with the schema, such as `sessions.store`. Empty: there is nothing to write."""
    arguments: tuple[Any, ...] = ()
    """As `asyncpg` passes them; their types are those of the function's parameters."""


class Processor(Protocol[State]):
    """A service as the runtime sees it: a fold with a loader and a storer (rules 5 and 6).

    For each batch the runtime calls `load`, then `fold` once per event in order, then `store` inside the
    transaction that also moves the offsets, and produces the results after the commit.

    A processor may have one method more: `store_call(self, state) -> StoreCall | None`. What it returns is used
    instead of `store`; `None` asks for `store` all the same (a large batch that is better copied, say).

    One that keeps state in memory between batches has two more: `committed(self, state)` is called once the batch of
    that state is committed, and `lost(self)` when partitions are not owned any more, or what a commit did is not known.

    One whose states of different partitions have nothing in common may say so with `folds_ahead = True`: in a backlog,
    a batch of some partitions is then loaded and folded while that of others is being committed.
    """

    group: str
    """The consumer group's name, such as `sessions`; also the name in the progress table."""
    topics: Sequence[str]
    """Co-partitioned topics that make up one state."""

    def decode(self, record: Record) -> Event | None:
        """Read a record; `None` if it is nothing to this processor. Raises `InvalidRecord`."""

    async def load(self, connection: Any, events: Sequence[Event]) -> State:
        """Load what folding these events needs, from an `asyncpg` connection. Nothing else may be read later."""

    def fold(self, state: State, event: Event) -> Iterable[Result]:
        """Apply one event to the state, in place, and return the results. Pure but for the state.

        Raises:
            InvalidRecord: Dead-letters the record; the state must not have been changed.
            Busy: Pauses the partition; the state must not have been changed.
        """

    async def store(self, connection: Any, state: State) -> None:
        """Write what changed, inside the open transaction. Must not commit."""

    async def due(self, connection: Any, partitions: Sequence[int], now_ms: int) -> Sequence[Event]:
        """What has come due by the clock (deadlines, watchdogs) in these partitions; `()` if nothing ever does.

        Called about once a second, for partitions that have nothing left to read: while one lags, its deadlines
        wait, because the record that meets them may stand in the log. The events are folded like records and must be
        harmless when repeated.
        """

    def partition_of_event(self, event: Event) -> int:
        """The partition of an event that `due` returned."""


class Producer(Protocol):
    """Appends records and reports when they are durable (`acks=all`, idempotent)."""

    unacknowledged_bytes: int
    """Bytes handed over and not yet acknowledged; the edge stops reading above its bound."""

    max_request_bytes: int
    """The most that `busbar.stream.results.record_size` of one record may be."""

    def oldest_unacknowledged_seconds(self) -> float:
        """How long the oldest record has been waiting for its acknowledgement; 0.0 when nothing is waiting.

        It grows without bound while Kafka is away, and is how a service tells.
        """

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
        """Hand over one record: a plain call. It leaves with the next tick, in order within its partition.

        A record for a partition that does not exist (yet) waits until it does.

        Raises:
            RecordTooLarge: Before anything is sent, so that no refused record poisons a partition.
        """

    def append_results(self, results: Sequence[Result]) -> None:
        """Hand over results, in order; each has its partition and timestamp."""

    def partitions(self, topic: str) -> int | None:
        """How many partitions the topic is known to have; `None` while it is unknown."""

    async def refresh(self, topic: str) -> int | None:
        """Ask the broker again how many partitions the topic has; `None` if there is no such topic."""

    def partition_for(self, topic: str, key: bytes) -> int:
        """The partition of a key by murmur2, as Java's default partitioner, Flink and Connect place it.

        Raises:
            UnknownTopic: The topic's partition count is not known.
        """

    async def send(self) -> None:
        """Let what was appended leave now, not with the next tick; it is under way when this returns.

        For a caller that is about to keep the event loop busy: what it appended would wait for that long.
        """

    async def flush(self) -> None:
        """Wait until everything appended before this call is acknowledged."""


class RecordTooLarge(ValueError):  # noqa: N818
    """The record exceeds what one request may carry."""


class UnknownTopic(LookupError):  # noqa: N818
    """No broker has told how many partitions this topic has."""


EARLIEST = -2
"""In `Consumer.assign`: from the first record that the log still holds."""


class Consumer(Protocol):
    """Reads partitions that were assigned by hand. No consumer group is joined."""

    async def assign(self, positions: Mapping[TopicPartition, int | None]) -> None:
        """Read exactly these partitions from these offsets.

        `None` stands for the end of the log and `EARLIEST` for its start; both are looked up before this returns,
        so that nothing written after it is missed. Partitions that were assigned before are repositioned too, and none
        is paused any more.

        Raises:
            TimeoutError: The broker did not say in time where the partitions begin and end.
        """

    async def fetch(self, timeout_seconds: float) -> Mapping[TopicPartition, Sequence[Record]]:
        """Whatever has arrived, waiting up to the timeout if nothing has. Called from one task, as `assign` is."""

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Fetch nothing more from these partitions until `resume`; their positions stay."""

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Fetch from these partitions again."""

    def position(self, partition: TopicPartition) -> int:
        """The offset of the next record that `fetch` will return."""

    def end(self, partition: TopicPartition) -> int | None:
        """The last known end of the partition (high watermark), `None` while unknown."""

    async def ends(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Ask the broker for the ends of partitions, assigned or not.

        Raises:
            TimeoutError: It did not answer in time, or there is no such partition.
        """

    def silent_seconds(self) -> float:
        """How long a partition that is read has had no answer from its broker, not even an empty one.

        A consumer gives no other sign that its broker is gone.
        """

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell Kafka, for lag tools only: progress lives in Postgres."""
