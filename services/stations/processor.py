"""The stations service as the stream runtime sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from busbar.avro import InvalidAvro, decode, decode_call
from busbar.records import Record, Result
from busbar.stream.interfaces import InvalidRecord
from busbar.topics import topics_read_by
from services.stations import metrics
from services.stations.core import SERVICE, TRIGGERS, apply, may_speak
from services.stations.policy import Policy
from services.stations.state import CommandNews, State, StationEvent
from services.stations.store import load_connectors, load_settings, load_stations, store_state

COMMAND_EVENTS_TOPIC = "csms.command-events"

OUTCOMES = frozenset({"answered", "error", "timeout", "offline", "disconnected", "rejected"})
"""The stages that end a command."""

_STATUS_ACTIONS = frozenset({"StatusNotification", "NotifyEvent"})

Event = StationEvent | CommandNews | None
"""`None` for stages of commands that nothing here depends on."""


class StationsProcessor:
    """Folds what stations say of themselves into the registry and the device shadow.

    Args:
        now_ms: The clock, read once a batch; it goes into answers only.
    """

    group = SERVICE
    topics: Sequence[str] = topics_read_by(SERVICE)

    def __init__(self, policy: Policy, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._policy = policy
        self._now_ms = now_ms

    def decode(self, record: Record) -> Event:
        try:
            if record.topic == COMMAND_EVENTS_TOPIC:
                return read_command_event(record)
            return StationEvent(record.partition, decode_call(record.value or b""))
        except InvalidAvro as error:
            raise InvalidRecord("undecodable", str(error)) from error

    async def load(self, connection: Any, events: Sequence[Event]) -> State:
        station_ids: set[str] = set()
        told_status: set[str] = set()
        booted: set[str] = set()
        for event in events:
            if isinstance(event, StationEvent):
                call = event.call
                station_ids.add(call.station_id)
                if call.action in _STATUS_ACTIONS:
                    told_status.add(call.station_id)
                elif call.action == "BootNotification":
                    booted.add(call.station_id)
            elif event is not None:
                station_ids.add(event.station_id)
        return State(
            now_ms=self._now_ms(),
            policy=self._policy,
            settings=await load_settings(connection, booted),
            stations=await load_stations(connection, station_ids),
            connectors=await load_connectors(connection, told_status),
        )

    def fold(self, state: State, event: Event) -> Iterable[Result]:
        if event is None:
            return ()
        results = apply(state, event)
        _count(state, event)
        return results

    async def store(self, connection: Any, state: State) -> None:
        await store_state(connection, state)

    async def due(self, connection: Any, partitions: Sequence[int], now_ms: int) -> Sequence[Event]:
        """Nothing here depends on the passing of time."""
        return ()

    def partition_of_event(self, event: Event) -> int:
        if event is None:
            raise ValueError("an event without a partition")
        return event.partition


def read_command_event(record: Record) -> CommandNews | None:
    """A stage of a command, if the shadow shows it.

    Raises:
        InvalidAvro: The record is not a CommandEvent.
    """
    _, value = decode(record.value or b"")
    stage, action = value["stage"], value["action"]
    if stage not in OUTCOMES and not (stage == "sent" and action in TRIGGERS):
        return None
    answered = stage == "answered"
    error = {
        "code": value["error_code"],
        "description": value["error_description"],
        "details": value["error_details"],
    }
    return CommandNews(
        partition=record.partition,
        station_id=value["station_id"],
        command_id=value["command_id"],
        action=action,
        stage=stage,
        connection_id=value["connection_id"],
        version=value["ocpp_version"],
        payload=_parse(value["payload"]) if answered else None,
        error=None if answered else {name: text for name, text in error.items() if text},
        at_ms=value["at"],
    )


def _parse(text: str) -> Any:
    """The answer's payload; a text that is not JSON is kept as a string."""
    try:
        return orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:
        return text


def _count(state: State, event: StationEvent | CommandNews) -> None:
    if isinstance(event, CommandNews):
        metrics.command_events(event.stage).inc()
        return
    call = event.call
    metrics.events(call.version.value, call.action).inc()
    station = state.stations[call.station_id]
    if call.action == "BootNotification":
        metrics.boots(station.registration_status or "Accepted").inc()
    elif not may_speak(station, call):
        metrics.REFUSED.labels(call.action).inc()
