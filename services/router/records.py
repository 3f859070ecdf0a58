"""The router's topics: records to events, and outcomes to records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from busbar.avro import InvalidAvro, decode, encode
from busbar.records import Record, Result, ReturnAddress
from busbar.stream.interfaces import InvalidRecord
from busbar.stream.replies import with_return_address
from services.router.events import (
    Close,
    CommandRequested,
    ConnectionChanged,
    Dispatch,
    EdgeHeard,
    Event,
    Outcome,
    Stage,
    StageReported,
)

_SERVICE = "router"
_LATEST_MS = 253_402_300_799_999
"""The end of the year 9999: Postgres and Python hold no more."""
_LONGEST_NAME = 255
_LONGEST_WORD = 32
_NORMAL_CLOSURE = 1000


def read_record(record: Record) -> Event:
    """Read a record of one of the router's topics.

    Raises:
        InvalidRecord: It is empty, not of the topic's schema, or holds an instant that no clock shows.
    """
    if record.value is None:
        raise InvalidRecord("empty")
    try:
        name, value = decode(record.value)
    except InvalidAvro as error:
        raise InvalidRecord("undecodable", str(error)) from error
    expected, read = _READERS[record.topic]
    if name != expected:
        raise InvalidRecord("wrong-schema", f"{name} instead of {expected}")
    return read(value, record.partition)


def _identity(value: dict[str, Any], *names: str) -> None:
    """Refuse names that no table and no index could hold; nothing is called so."""
    for name in names:
        text = value[name]
        if "\0" in text:
            raise InvalidRecord("nul-character", name)
        if len(text) > _LONGEST_NAME:
            raise InvalidRecord("over-long-name", name)


def _instant(value: dict[str, Any], name: str) -> int:
    instant: int = value[name]
    if not 0 <= instant <= _LATEST_MS:
        raise InvalidRecord("impossible-instant", f"{name} is {instant}")
    return instant


def _connection(value: dict[str, Any], partition: int) -> Event:
    _identity(value, "station_id", "connection_id", "edge", "edge_instance")
    event = value["event"]
    if event not in ("connected", "disconnected"):
        raise InvalidRecord("unknown-event", event[:50])
    if value["edge_partition"] < 0:
        raise InvalidRecord("impossible-partition", str(value["edge_partition"]))
    return ConnectionChanged(
        station_id=value["station_id"],
        opened=event == "connected",
        connection_id=value["connection_id"],
        edge=value["edge"],
        edge_instance=value["edge_instance"],
        edge_partition=value["edge_partition"],
        ocpp_version=value["ocpp_version"],
        subprotocol=value["subprotocol"],
        remote_address=value["remote_address"],
        security_profile=value["security_profile"],
        at_ms=_instant(value, "at"),
        connected_at_ms=_instant(value, "connected_at"),
        close_code=value["close_code"],
        reason=value["reason"],
        partition=partition,
    )


def _edge(value: dict[str, Any], partition: int) -> Event:
    _identity(value, "edge", "edge_instance")
    return EdgeHeard(
        edge=value["edge"],
        edge_instance=value["edge_instance"],
        edge_partition=value["edge_partition"],
        event=value["event"],
        connections=value["connections"],
        address=value["address"],
        at_ms=_instant(value, "at"),
        partition=partition,
    )


def _command(value: dict[str, Any], partition: int) -> Event:
    _identity(value, "command_id", "station_id")
    return CommandRequested(
        command_id=value["command_id"],
        station_id=value["station_id"],
        action=value["action"],
        payload=value["payload"],
        requested_by=value["requested_by"],
        requested_at_ms=_instant(value, "requested_at"),
        deadline_at_ms=_instant(value, "deadline_at"),
        priority=value["priority"],
        park=value["park"],
        partition=partition,
    )


def _stage_reported(value: dict[str, Any], partition: int) -> Event:
    _identity(value, "command_id", "station_id", "connection_id", "edge")
    if len(value["stage"]) > _LONGEST_WORD or len(value["source"]) > _LONGEST_WORD:
        raise InvalidRecord("unknown-stage", value["stage"][:_LONGEST_WORD])
    return StageReported(
        command_id=value["command_id"],
        station_id=value["station_id"],
        action=value["action"],
        stage=value["stage"],
        source=value["source"],
        at_ms=_instant(value, "at"),
        attempt=value["attempt"],
        connection_id=value["connection_id"],
        edge=value["edge"],
        ocpp_version=value["ocpp_version"],
        payload=value["payload"],
        error_code=value["error_code"],
        error_description=value["error_description"],
        error_details=value["error_details"],
        partition=partition,
    )


_READERS: dict[str, tuple[str, Callable[[dict[str, Any], int], Event]]] = {
    "csms.connections": ("csms.ConnectionEvent", _connection),
    "csms.edges": ("csms.EdgeEvent", _edge),
    "csms.commands": ("csms.Command", _command),
    "csms.command-events": ("csms.CommandEvent", _stage_reported),
}
TOPICS = tuple(_READERS)
"""Everything that the router reads; all four have the same partitions."""


def write_outcome(outcome: Outcome) -> Result:
    """The record that an outcome becomes."""
    match outcome:
        case Dispatch():
            return _dispatch(outcome)
        case Close():
            return _close(outcome)
        case Stage():
            return _stage(outcome)


def _dispatch(call: Dispatch) -> Result:
    return with_return_address(
        ReturnAddress(call.edge_partition, call.connection_id, call.command_id),
        call.station_id,
        "call",
        produced_by=_SERVICE,
        now_ms=call.at_ms,
        action=call.action,
        payload=call.payload,
        command_id=call.command_id,
        deadline_at=call.deadline_at_ms,
        priority=call.priority,
    )


def _close(order: Close) -> Result:
    return with_return_address(
        ReturnAddress(order.edge_partition, order.connection_id, ""),
        order.station_id,
        "close",
        produced_by=_SERVICE,
        now_ms=order.at_ms,
        error_description=order.reason,
        close_code=_NORMAL_CLOSURE,
    )


def _stage(stage: Stage) -> Result:
    value = encode(
        "csms.CommandEvent",
        {
            "command_id": stage.command_id,
            "station_id": stage.station_id,
            "action": stage.action,
            "stage": stage.stage,
            "source": _SERVICE,
            "at": stage.at_ms,
            "attempt": stage.attempt,
            "connection_id": stage.connection_id,
            "edge": stage.edge,
            "ocpp_version": stage.ocpp_version,
            "payload": stage.payload,
            "error_code": stage.error_code,
            "error_description": stage.error_description,
            "error_details": stage.error_details,
        },
    )
    return Result("csms.command-events", stage.station_id.encode(), value)
