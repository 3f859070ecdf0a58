"""Events of stations for the tests of the fold, and a look at what it made of them."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import orjson

from busbar.avro import decode
from busbar.ocpp.versions import Version
from busbar.records import Result, StationCall
from services.stations.core import apply
from services.stations.data_transfer import read_table
from services.stations.policy import Policy
from services.stations.state import CommandNews, State, StationEvent, StationSettings

NOW_MS = 1_772_366_400_000
"""2026-03-01T12:00:00Z"""

POLICY = Policy(interval_jitter=0.0, data_transfer=read_table())
_numbers = itertools.count(1)


def new_state(**settings: Any) -> State:
    """An empty state; `settings` are what operators decided on station CS-1."""
    chosen = {"CS-1": StationSettings(**settings)} if settings else {}
    return State(now_ms=NOW_MS, policy=POLICY, settings=chosen)


def event(
    version: Version,
    action: str,
    payload: dict[str, Any],
    *,
    at_ms: int = NOW_MS,
    connection_id: str = "connection-1",
    sequence: int | None = None,
    station_id: str = "CS-1",
) -> StationEvent:
    number = next(_numbers)
    call = StationCall(
        station_id=station_id,
        connection_id=connection_id,
        edge="edge-0",
        edge_partition=3,
        version=version,
        sequence=number if sequence is None else sequence,
        message_id=f"message-{number}",
        received_at_ms=at_ms,
        action=action,
        payload=copy.deepcopy(payload),
    )
    return StationEvent(2, call)


def command(action: str, stage: str, **fields: Any) -> CommandNews:
    values: dict[str, Any] = {
        "partition": 2,
        "station_id": "CS-1",
        "command_id": "command-1",
        "action": action,
        "stage": stage,
        "connection_id": "connection-1",
        "version": "2.0.1",
        "payload": None,
        "error": None,
        "at_ms": NOW_MS,
    }
    return CommandNews(**{**values, **fields})


def fold(state: State, *events: StationEvent | CommandNews) -> list[Result]:
    """Apply the events; returns the results of the last one."""
    results: list[Result] = []
    for each in events:
        results = apply(state, each)
    return results


def outbound(results: list[Result]) -> list[dict[str, Any]]:
    """The messages to the station among the results."""
    return [decode(result.value)[1] for result in results if result.topic == "csms.outbound"]


def answer(results: list[Result]) -> dict[str, Any]:
    """The payload of the one reply among the results."""
    (message,) = outbound(results)
    assert message["kind"] == "result", message
    payload: dict[str, Any] = orjson.loads(message["payload"])
    return payload


def statuses(results: list[Result]) -> list[dict[str, Any]]:
    """The values for `csms.station-status` among the results."""
    return [decode(result.value)[1] for result in results if result.topic == "csms.station-status"]


def rows(state: State) -> dict[str, Any]:
    """Everything that would be written."""
    return {
        "stations": copy.deepcopy(state.stations),
        "connectors": copy.deepcopy(state.connectors),
        "notifications": dict(state.notifications),
        "variables": dict(state.variables),
        "documents": dict(state.documents),
    }
