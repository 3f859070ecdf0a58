"""What asks Kafka for records: aiokafka's fetcher, with fetch sessions (KIP-227), and records made once.

Without a session every request and every answer lists every partition that is read, and coding fifty of them costs a
worker and the broker more than the ten records do that an answer brings. In a session the broker remembers what is
read and from where: a request names the partitions that have moved on, an answer those that have something to say.
Whenever it is not certain what the broker remembers, the session is begun anew with a full list.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from struct import Struct
from typing import Any, NamedTuple, Self

from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka import errors
from aiokafka.consumer import fetcher as base
from aiokafka.record.memory_records import MemoryRecords

from busbar.records import Record

logger = logging.getLogger(__name__)

_API_KEY = 1
_VERSION = 11
"""Of Kafka 2.3 and later: the last one that aiokafka knows, and the first that knows racks."""
_HEADER = Struct(">hhi")
_REQUEST = Struct(">iiiibii")
_PARTITION = Struct(">iiqqi")
_THROTTLED = Struct(">ihii")
"""How long it was throttled, error, session, number of topics."""
_ANSWERED_PARTITION = Struct(">ihqqqi")
_ABORTED = Struct(">qq")
_READ_REPLICA = Struct(">ii")
_INT32 = Struct(">i")
_INT16 = Struct(">h")
_SESSION_ERRORS = {70: "FETCH_SESSION_ID_NOT_FOUND", 71: "INVALID_FETCH_SESSION_EPOCH"}
_LAST_EPOCH = 2**31 - 1
_WAIT_BESIDE_PAUSED_MS = 20
"""How long a node may hold its answer while partitions of it are paused: it is asked for those only after that. In a
backlog they are paused for as long as it takes to fold what is buffered; the other topics may well stay empty."""


class AnsweredPartition(NamedTuple):
    """What an answer says of one partition."""

    name: KafkaTopicPartition
    error_code: int
    highwater: int
    last_stable_offset: int
    aborted: list[tuple[int, int]]
    """Producer id and first offset of each aborted transaction."""
    read_replica: int
    records: bytes


class FetchAnswer:
    """A Fetch response, version 11."""

    API_VERSION = _VERSION
    __slots__ = ("error_code", "partitions", "session_id")

    def __init__(self, error_code: int, session_id: int, partitions: list[AnsweredPartition]) -> None:
        self.error_code = error_code
        self.session_id = session_id
        self.partitions = partitions

    @classmethod
    def decode(cls, buffer: BytesIO) -> Self:
        """Read it, in straight lines, from where the buffer stands."""
        data = buffer.getvalue()
        _, error_code, session_id, topic_count = _THROTTLED.unpack_from(data, buffer.tell())
        position = buffer.tell() + _THROTTLED.size
        partitions = []
        for _ in range(topic_count):
            (length,) = _INT16.unpack_from(data, position)
            position += 2
            topic = data[position : position + length].decode()
            (partition_count,) = _INT32.unpack_from(data, position + length)
            position += length + 4
            for _ in range(partition_count):
                number, code, highwater, stable, _, aborted_count = _ANSWERED_PARTITION.unpack_from(data, position)
                position += _ANSWERED_PARTITION.size
                aborted = []
                for _ in range(aborted_count):  # -1: none
                    aborted.append(_ABORTED.unpack_from(data, position))
                    position += _ABORTED.size
                replica, size = _READ_REPLICA.unpack_from(data, position)
                position += _READ_REPLICA.size
                records = data[position : position + size] if size > 0 else b""
                position += max(0, size)
                partitions.append(
                    AnsweredPartition(
                        KafkaTopicPartition(topic, number), code, highwater, stable, aborted, replica, records
                    )
                )
        return cls(error_code, session_id, partitions)


class _RequestHeader(NamedTuple):
    correlation_id: int
    client_id: str

    def encode(self) -> bytes:
        name = self.client_id.encode()
        return _HEADER.pack(_API_KEY, _VERSION, self.correlation_id) + _INT16.pack(len(name)) + name


class _AnswerHeader(NamedTuple):
    correlation_id: int


class FetchRequest:
    """A Fetch request, version 11, as aiokafka's connections send one.

    Args:
        session: Its id and epoch.
        positions: What to read from where: all of it in a full request, what has changed in an incremental one.
        forgotten: What the session is not to read any more.
    """

    RESPONSE_TYPE = FetchAnswer

    def __init__(
        self,
        *,
        max_wait_ms: int,
        min_bytes: int,
        max_bytes: int,
        isolation_level: int,
        session: tuple[int, int],
        positions: Sequence[tuple[KafkaTopicPartition, int]],
        max_partition_bytes: int,
        forgotten: Sequence[KafkaTopicPartition] = (),
        rack_id: str = "",
    ) -> None:
        topics: dict[str, list[bytes]] = {}
        for name, position in positions:
            entry = _PARTITION.pack(name.partition, -1, position, -1, max_partition_bytes)
            topics.setdefault(name.topic, []).append(entry)
        dropped: dict[str, list[bytes]] = {}
        for name in forgotten:
            dropped.setdefault(name.topic, []).append(_INT32.pack(name.partition))
        self._body = b"".join(
            (
                _REQUEST.pack(-1, max_wait_ms, min_bytes, max_bytes, isolation_level, *session),
                *_by_topic(topics),
                *_by_topic(dropped),
                _text(rack_id),
            )
        )

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> Self:
        """What a connection asks of a request: one for the versions that its broker speaks."""
        oldest, newest = versions.get(_API_KEY, (0, -1))
        if not oldest <= _VERSION <= newest:
            raise errors.IncompatibleBrokerVersion(f"the broker speaks versions {oldest} to {newest} of Fetch")
        return self

    def build_request_header(self, correlation_id: int, client_id: str) -> _RequestHeader:
        """As aiokafka's requests do."""
        return _RequestHeader(correlation_id, client_id)

    def parse_response_header(self, buffer: BytesIO) -> _AnswerHeader:
        """As aiokafka's requests do."""
        return _AnswerHeader(*_INT32.unpack(buffer.read(4)))

    def encode(self) -> bytes:
        """As aiokafka's requests do."""
        return self._body


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _INT16.pack(len(encoded)) + encoded


def _by_topic(topics: Mapping[str, list[bytes]]) -> Iterator[bytes]:
    yield _INT32.pack(len(topics))
    for topic, entries in topics.items():
        yield _text(topic)
        yield _INT32.pack(len(entries))
        yield from entries


class Session:
    """What one node remembers of what is read from it."""

    __slots__ = ("epoch", "known", "session_id")

    def __init__(self) -> None:
        self.session_id = 0
        self.epoch = 0
        """Of the next request; 0 makes it a full one, which ends the session of that id and begins another."""
        self.known: dict[KafkaTopicPartition, int] = {}
        """The partitions of the session, and from where they are read."""

    def next_request(
        self, wanted: Mapping[KafkaTopicPartition, int]
    ) -> tuple[tuple[int, int], list[tuple[KafkaTopicPartition, int]], list[KafkaTopicPartition]]:
        """Id and epoch, the positions to name, and the partitions to forget."""
        known = self.known
        if not self.epoch:
            positions = list(wanted.items())
            random.shuffle(positions)  # in an established session it is the broker that takes turns
            forgotten = []
        else:
            positions = [entry for entry in wanted.items() if known.get(entry[0]) != entry[1]]
            forgotten = [name for name in known if name not in wanted]
        self.known = dict(wanted)
        return (self.session_id, self.epoch), positions, forgotten

    def answered(self, session_id: int) -> None:
        """The broker has done what the last request asked for."""
        self.session_id = session_id
        if session_id:
            self.epoch = self.epoch + 1 if self.epoch < _LAST_EPOCH else 1
        else:  # it has no room for our session
            self.restart()

    def restart(self) -> None:
        """It is not certain any more what the broker remembers."""
        self.epoch = 0
        self.known = {}


class PartitionRecords(base.PartitionRecords):  # type: ignore[misc] # aiokafka has no types
    """The records of one partition in one answer, made ours without one of aiokafka's in between."""

    def __iter__(self) -> Any:
        return self._records_iterator

    def _consumer_record(self, tp: KafkaTopicPartition, record: Any) -> Record:
        headers = record.headers
        return Record(
            tp.topic,
            tp.partition,
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            tuple(headers) if headers else (),
        )


class Fetcher(base.Fetcher):  # type: ignore[misc] # aiokafka has no types
    """aiokafka's fetcher, but for what it asks, how it is told, and that `getmany` returns our records."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._sessions: dict[int, Session] = {}
        self._sessions_of: Any = None
        self._places: dict[int, list[tuple[KafkaTopicPartition, Any]]] = {}
        self._leaders: dict[KafkaTopicPartition, int | None] = {}
        """As the metadata have it: -1 or `None` where there is none."""
        self._placed_ms = -1
        super().__init__(*args, **options)

    def _get_actions_per_node(self, assignment: Any) -> Any:
        """What aiokafka's own decides, from leaders that were looked up once: this is asked twice a batch."""
        if assignment is not self._sessions_of:
            # What an answer told of its partitions went with the assignment before this one.
            self._sessions_of = assignment
            self._placed_ms = -1
            for session in self._sessions.values():
                session.restart()
        if self._client_rack:
            return self._as_aiokafka(assignment)  # others than the leader may be asked
        if self._placed_ms != self._client.cluster._last_successful_refresh_ms:
            self._place(assignment)
        records, in_flight = self._records, self._in_flight
        backoffs: dict[int | None, float] = {}
        for name, result in records.items():
            backoff = result.calculate_backoff()
            if backoff:
                node_id = self._leaders.get(name)
                backoffs[node_id] = max(backoff, backoffs.get(node_id, 0.0))
        wanted: dict[int, tuple[dict[KafkaTopicPartition, int], int]] = {}
        resumes = []
        for node_id, places in self._places.items():
            if node_id in in_flight:
                continue
            positions = {}
            wait_ms = self._fetch_max_wait_ms
            for name, state in places:
                if name in records:
                    continue
                position = state._position
                if position is None or node_id < 0:
                    return self._as_aiokafka(assignment)  # something has to be looked up first
                if state._paused:
                    resumes.append(state._resume_fut)
                    wait_ms = min(wait_ms, _WAIT_BESIDE_PAUSED_MS)
                else:
                    positions[name] = position
            if positions and node_id not in backoffs:
                wanted[node_id] = positions, wait_ms
        requests = [(node_id, self._request(node_id, *what)) for node_id, what in wanted.items()]
        return requests, {}, min(backoffs.values(), default=self._fetcher_timeout), False, resumes

    def _place(self, assignment: Any) -> None:
        """Note which node leads which partition."""
        cluster = self._client.cluster
        self._placed_ms = cluster._last_successful_refresh_ms
        self._places, self._leaders = {}, {}
        for name in assignment.tps:
            self._leaders[name] = leader = cluster.leader_for_partition(name)
            node_id = -1 if leader is None else leader
            self._places.setdefault(node_id, []).append((name, assignment.state_value(name)))

    def _as_aiokafka(self, assignment: Any) -> Any:
        requests, resets, timeout, invalid_metadata, resumes = super()._get_actions_per_node(assignment)
        made = []
        for node_id, full in requests:
            positions = {
                KafkaTopicPartition(topic, number): position
                for topic, partitions in full.topics
                for number, position, _ in partitions
            }
            made.append((node_id, self._request(node_id, positions, self._fetch_max_wait_ms)))
        return made, resets, timeout, invalid_metadata, resumes

    def _request(self, node_id: int, wanted: Mapping[KafkaTopicPartition, int], wait_ms: int) -> FetchRequest:
        """A request for these positions, as one of the node's session."""
        session = self._sessions.get(node_id)
        if session is None:
            session = self._sessions[node_id] = Session()
        identity, positions, forgotten = session.next_request(wanted)
        return FetchRequest(
            max_wait_ms=wait_ms,
            min_bytes=self._fetch_min_bytes,
            max_bytes=self._fetch_max_bytes,
            isolation_level=self._isolation_level,
            session=identity,
            positions=positions,
            max_partition_bytes=self._max_partition_fetch_bytes,
            forgotten=forgotten,
            rack_id=self._client_rack or "",
        )

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: FetchRequest) -> bool:
        session = self._sessions[node_id]
        asked = session.known
        try:
            answer: FetchAnswer = await self._client.send(node_id, request)
        except errors.KafkaError as error:
            logger.error("fetching from a Kafka node failed", extra={"node": node_id, "error": repr(error)})
            for name in asked:
                if self._preferred_read_replica.get(name, (None,))[0] == node_id:
                    del self._preferred_read_replica[name]
            session.restart()
            await asyncio.sleep(self._retry_backoff)
            return False
        except BaseException as error:
            session.restart()
            if isinstance(error, asyncio.CancelledError):
                return False  # closed, or assigned anew
            raise
        if answer.error_code:
            name = _SESSION_ERRORS.get(answer.error_code) or errors.for_code(answer.error_code).__name__
            logger.info("a fetch session begins anew", extra={"node": node_id, "error": name})
            session.restart()
            if answer.error_code not in _SESSION_ERRORS:
                await asyncio.sleep(self._retry_backoff)
            elif answer.error_code == 70:
                session.session_id = 0
            return False
        session.answered(answer.session_id)
        if not assignment.active:
            return False
        now_ms = int(1000 * time.time())
        failed = {each.name for each in answer.partitions if each.error_code}
        state_of = assignment.state_value
        for name in asked:
            if name not in failed:  # whatever has nothing to say is well
                state_of(name).timestamp = now_ms
        has_news = False
        for each in answer.partitions:
            if each.name in asked and self._take_in(assignment, each, asked[each.name]):
                has_news = True
        return has_news

    def _take_in(self, assignment: Any, answered: AnsweredPartition, asked: int) -> bool:
        """Keep what was answered of a partition; whether that is anything to wake somebody for."""
        name = answered.name
        state = assignment.state_value(name)
        if not answered.error_code:
            # Also if the position has been moved meanwhile: in a session this may not be told a second time.
            state.highwater = answered.highwater
            state.lso = answered.last_stable_offset
        if not state.has_valid_position or state.position != asked:
            return False
        if not answered.error_code:
            if self._client_rack:
                self._update_preferred_read_replica(name, answered.read_replica)
            return self._keep(name, answered, asked, assignment)
        self._preferred_read_replica.pop(name, None)
        error = errors.for_code(answered.error_code)
        if error in (errors.NotLeaderForPartitionError, errors.UnknownTopicOrPartitionError):
            self._client.force_metadata_update()
        elif error is errors.OffsetOutOfRangeError:
            self._set_error(name, error({name: asked}))
            return True
        elif error is errors.TopicAuthorizationFailedError:
            self._set_error(name, error(name.topic))
            return True
        else:
            logger.warning(
                "fetching from a partition failed",
                extra={"topic": name.topic, "partition": name.partition, "error": error.__name__},
            )
        return False

    def _keep(self, name: KafkaTopicPartition, answered: AnsweredPartition, asked: int, assignment: Any) -> bool:
        records = MemoryRecords(answered.records)
        if records.has_next():
            unpacked = PartitionRecords(
                name, records, answered.aborted, asked, None, None, self._check_crcs, self._isolation_level
            )
            self._records[name] = base.FetchResult(
                name, partition_records=unpacked, assignment=assignment, backoff=self._prefetch_backoff
            )
            return True
        if records.size_in_bytes() > 0:  # not one whole batch: it is larger than what a fetch may bring
            self._set_error(name, errors.RecordTooLargeError(f"at offset {asked} of {name}"))
            state = assignment.state_value(name)
            state.consumed_to(state.position + 1)
            return True
        return False


async def install(consumer: Any, *, prefetch_backoff: float) -> None:
    """Give a started aiokafka consumer this fetcher in place of its own."""
    old = consumer._fetcher
    await old.close()
    consumer._fetcher = Fetcher(
        old._client,
        old._subscriptions,
        fetch_min_bytes=old._fetch_min_bytes,
        fetch_max_bytes=old._fetch_max_bytes,
        fetch_max_wait_ms=old._fetch_max_wait_ms,
        max_partition_fetch_bytes=old._max_partition_fetch_bytes,
        check_crcs=old._check_crcs,
        fetcher_timeout=old._fetcher_timeout,
        prefetch_backoff=prefetch_backoff,
        retry_backoff_ms=old._retry_backoff * 1000,
        auto_offset_reset="none",
        isolation_level="read_committed" if old._isolation_level == base.READ_COMMITTED else "read_uncommitted",
        client_rack=old._client_rack,
    )
