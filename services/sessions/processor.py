"""The sessions service as the stream runtime sees it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from busbar.avro import InvalidAvro, decode, decode_packed_call
from busbar.config import ConfigError
from busbar.pricing import Options
from busbar.records import Record, Result
from busbar.stream.interfaces import InvalidRecord, StoreCall
from busbar.stream.partitioner import Partitioner
from busbar.tariffs import TariffBook
from busbar.topics import all_topics, topics_read_by
from services.sessions import metrics
from services.sessions.cache import StationCache
from services.sessions.core import apply
from services.sessions.decoding import (
    RESERVATION_ACTIONS,
    Event,
    ReservationAnswer,
    ReservationCommand,
    ReservationDue,
    SessionDue,
    TariffRequest,
    event_of,
    reservation_answer_of,
    reservation_command_of,
    tariff_request_of,
)
from services.sessions.events import SERVICE
from services.sessions.model import Policy, State
from services.sessions.store import CONFIGURED_SINCE, load_due, load_reservations_due, load_state, store_call

logger = logging.getLogger(__name__)

TARIFF_CHANGES_TOPIC = "csms.tariff-changes"
COMMANDS_TOPIC = "csms.commands"
COMMAND_EVENTS_TOPIC = "csms.command-events"
_SYSTEM_TOPICS = (TARIFF_CHANGES_TOPIC, COMMANDS_TOPIC, COMMAND_EVENTS_TOPIC)
_ABOUT_RESERVATIONS = tuple(action.encode() for action in RESERVATION_ACTIONS)

KNOWN_SHAPES = "SELECT shape_id FROM sessions.sample_shapes WHERE shape_id = ANY($1::bigint[])"

_DUE_LIMIT = 10_000
_MOST_SHAPES = 65_536
_CONFIGURATION_SECONDS = 5.0


class SessionsProcessor:
    """Folds authorizations, transactions and meter values into sessions.

    Args:
        partitions: The partition count of the topics, which says whose a session is that has come due.
        due_every_ms: How often to look for sessions that have come due.
        time_zone: Whose wall clock decides over tariffs where a site has none.
    """

    group = SERVICE
    folds_ahead = True
    topics: Sequence[str] = tuple(
        name for name in topics_read_by(SERVICE) if all_topics()[name].action is not None or name in _SYSTEM_TOPICS
    )

    def __init__(self, policy: Policy, *, partitions: int, due_every_ms: int = 5_000, time_zone: str = "UTC") -> None:
        self._policy = policy
        self._partitions = partitions
        self._due_every_ms = due_every_ms
        self._next_due_ms = 0
        self._partitioner = Partitioner()
        self._known_shapes: set[int] = set()
        self._sent_shapes: set[int] = set()
        self._placed: set[int] = set()
        self._cache = StationCache()
        self._tariffs = TariffBook(time_zone, options=Options(keep_periods=False))
        self._next_configuration = 0.0
        self._configured_at: datetime | None = None

    def decode(self, record: Record) -> Event | None:
        """Read a record; `None` for a command that is about no reservation, which most are."""
        if record.partition not in self._placed:
            self._check_place(record)
        if record.topic in _SYSTEM_TOPICS:
            raw = record.value or b""
            return _tariff_request(raw) if record.topic == TARIFF_CHANGES_TOPIC else _reservation(record.topic, raw)
        try:
            call = decode_packed_call(record.value or b"")
        except InvalidAvro as error:
            raise InvalidRecord("undecodable", str(error)) from error
        try:
            return event_of(call)
        except KeyError:
            raise InvalidRecord("unowned-action", f"{call.version} {call.action}") from None

    async def load(self, connection: Any, events: Sequence[Event]) -> State:
        if self._sent_shapes:
            # What was sent may have been rolled back: only what is found in the table is known.
            rows = await connection.fetch(KNOWN_SHAPES, list(self._sent_shapes))
            if len(self._known_shapes) > _MOST_SHAPES:
                self._known_shapes.clear()
            self._known_shapes.update(row[0] for row in rows)
            self._sent_shapes.clear()
        if self._cache and time.monotonic() >= self._next_configuration:
            await self._read_configuration(connection)
        return await load_state(connection, events, self._policy, self._cache, self._tariffs)

    def committed(self, state: State) -> None:
        """The batch of this state is committed: it counts, and the next one need not load it again."""
        metrics.count(state)
        self._cache.put_back(state)

    def lost(self) -> None:
        """Partitions are not owned any more, or what the last commit did is not known: keep nothing."""
        self._cache.forget()

    def look_at_configuration(self) -> None:
        """Do not wait with the next look at what operators have changed."""
        self._next_configuration = 0.0

    async def _read_configuration(self, connection: Any) -> None:
        """What operators have changed of stations meanwhile; loaded stations bring theirs with them."""
        self._next_configuration = time.monotonic() + _CONFIGURATION_SECONDS
        since, self._configured_at = self._configured_at, await connection.fetchval("SELECT clock_timestamp()")
        if since is None:
            self._cache.forget()
            return
        for station_id, site_id, quirks in await connection.fetch(CONFIGURED_SINCE, since):
            self._cache.configure(station_id, (site_id or "", orjson.loads(quirks)))

    def fold(self, state: State, event: Event) -> Iterable[Result]:
        return apply(state, event)

    def store_call(self, state: State) -> StoreCall:
        """Everything in one call, whatever the size of the batch."""
        self._sent_shapes.update(state.shapes.keys() - self._known_shapes)
        return store_call(state, self._known_shapes)

    async def store(self, connection: Any, state: State) -> None:
        call = self.store_call(state)
        places = ", ".join(f"${index + 1}" for index in range(len(call.arguments)))
        await connection.execute(f"SELECT {call.function}({places})", *call.arguments)

    async def due(self, connection: Any, partitions: Sequence[int], now_ms: int) -> Sequence[Event]:
        """Sessions whose deadline has passed, or is to be worked out anew, and stations with expired reservations."""
        if now_ms < self._next_due_ms:
            return []
        self._next_due_ms = now_ms + self._due_every_ms
        ours = set(partitions)
        found: list[Event] = []
        for session_id, station_id in await load_due(connection, now_ms, _DUE_LIMIT):
            partition = self._partitioner.partition(station_id.encode(), self._partitions)
            if partition in ours:
                found.append(SessionDue(partition, station_id, session_id, now_ms))
        expired_ms = now_ms - self._policy.reservation_grace_ms
        for station_id in await load_reservations_due(connection, expired_ms, _DUE_LIMIT):
            partition = self._partitioner.partition(station_id.encode(), self._partitions)
            if partition in ours:
                found.append(ReservationDue(partition, station_id, now_ms))
        return found

    def _check_place(self, record: Record) -> None:
        """Refuse to go on with another partition count than the topics have: what comes due would have two owners."""
        if record.key is None:
            return
        expected = self._partitioner.partition(record.key, self._partitions)
        if expected != record.partition:
            raise ConfigError(
                f"BUSBAR_PARTITIONS: it means {self._partitions} partitions, and a record that belongs into"
                f" {expected} of them stands in {record.partition} of {record.topic}"
            )
        self._placed.add(record.partition)

    def partition_of_event(self, event: Event) -> int:
        if not isinstance(event, SessionDue | ReservationDue):
            raise TypeError("only events that have come due have a partition of their own")
        return event.partition


def _reservation(topic: str, raw: bytes) -> ReservationCommand | ReservationAnswer | None:
    """A command or an answer about a reservation; `None` for any other, which is told without decoding it.

    Raises:
        InvalidRecord: It seems to be one and cannot be read, or PostgreSQL has no room for it.
    """
    if not any(action in raw for action in _ABOUT_RESERVATIONS):
        return None
    expected = "csms.Command" if topic == COMMANDS_TOPIC else "csms.CommandEvent"
    try:
        name, value = decode(raw)
    except InvalidAvro as error:
        raise InvalidRecord("undecodable", str(error)) from error
    if name != expected:
        raise InvalidRecord("undecodable", f"{name} is not {expected}")
    if "\0" in value["command_id"] or "\0" in value["station_id"]:
        raise InvalidRecord("undecodable", f"{expected}: an id with a NUL character")
    event = reservation_command_of(value) if topic == COMMANDS_TOPIC else reservation_answer_of(value)
    if event is None and topic == COMMANDS_TOPIC and value["action"] in RESERVATION_ACTIONS:
        facts = {"station_id": value["station_id"], "action": value["action"], "command_id": value["command_id"]}
        logger.warning("a command about a reservation cannot be read: no reservation follows from it", extra=facts)
    return event


def _tariff_request(raw: bytes) -> TariffRequest:
    """Raises `InvalidRecord` for anything but a `csms.TariffChange`."""
    try:
        name, value = decode(raw)
        if name != "csms.TariffChange":
            raise InvalidRecord("undecodable", f"{name} is not csms.TariffChange")
        UUID(value["change_id"]), UUID(value["session_id"])
    except InvalidAvro as error:
        raise InvalidRecord("undecodable", str(error)) from error
    except ValueError as error:
        raise InvalidRecord("undecodable", f"csms.TariffChange: an id is no UUID: {error}") from error
    return tariff_request_of(value)
