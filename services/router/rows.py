"""Values of the fold to and from rows of Postgres. Instants are milliseconds here and `timestamptz` there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import orjson

from services.router.commands import Command
from services.router.events import Stage, StageReported
from services.router.presence import Connection, Edge, Station

END_OF_TIME_MS = 253_402_300_799_000


def instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def optional_instant(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _milliseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def _optional_milliseconds(instant: datetime | None) -> int | None:
    return None if instant is None else round(instant.timestamp() * 1000)


def columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def storable_json(text: str) -> str | None:
    """JSON text as `jsonb` takes it: no NUL characters, no number beyond a double. Other text becomes a JSON string."""
    if not text:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = text
    if "\\u0000" in text or "\0" in text:
        value = _without_nul(value)
    return orjson.dumps(value).decode()


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    return value


def read_edge(row: Any) -> Edge:
    return Edge(
        edge=row["edge"],
        edge_instance=row["edge_instance"],
        edge_partition=row["edge_partition"],
        event=row["event"],
        connections=row["connections"],
        address=row["address"],
        last_seen_ms=_milliseconds(row["last_seen"]),
        instance_since_ms=_milliseconds(row["instance_since"]),
        past_instances=tuple(orjson.loads(row["past_instances"])),
        silent=row["silent"],
        partition=row["partition"],
    )


def edge_row(edge: Edge) -> tuple[Any, ...]:
    return (
        edge.edge,
        edge.edge_instance,
        edge.edge_partition,
        edge.event,
        edge.connections,
        edge.address,
        instant(edge.last_seen_ms),
        instant(edge.instance_since_ms),
        orjson.dumps(edge.past_instances).decode(),
        edge.silent,
        edge.partition,
    )


def read_station(row: Any) -> Station:
    current = Connection(
        connection_id=row["connection_id"],
        edge=row["edge"],
        edge_instance=row["edge_instance"],
        edge_partition=row["edge_partition"],
        ocpp_version=row["ocpp_version"],
        subprotocol=row["subprotocol"],
        remote_address=row["remote_address"],
        security_profile=row["security_profile"],
        connected_at_ms=_milliseconds(row["connected_at"]),
        disconnected_at_ms=_optional_milliseconds(row["disconnected_at"]),
        close_code=row["close_code"],
        close_reason=row["close_reason"],
        unreachable=row["unreachable"],
    )
    others = tuple(Connection(**item) for item in orjson.loads(row["others"]))
    due = _optional_milliseconds(row["close_due_at"])
    return Station(row["station_id"], row["partition"], (current, *others), due)


def station_row(station: Station) -> tuple[Any, ...]:
    current, *others = station.connections
    return (
        station.station_id,
        station.partition,
        current.connection_id,
        current.edge,
        current.edge_instance,
        current.edge_partition,
        current.ocpp_version,
        current.subprotocol,
        current.remote_address,
        current.security_profile,
        instant(current.connected_at_ms),
        optional_instant(current.disconnected_at_ms),
        current.open and not current.unreachable,
        current.close_code,
        current.close_reason,
        current.unreachable,
        orjson.dumps([asdict(item) for item in others]).decode(),
        optional_instant(station.close_due_at_ms),
    )


def read_command(row: Any) -> Command:
    return Command(
        command_id=row["command_id"],
        partition=row["partition"],
        station_id=row["station_id"],
        action=row["action"],
        payload=row["payload"],
        requested_by=row["requested_by"],
        requested_at_ms=_milliseconds(row["requested_at"]),
        deadline_at_ms=_milliseconds(row["deadline_at"]),
        priority=row["priority"],
        park=row["park"],
        stage=row["stage"],
        outcome=row["outcome"],
        attempts=row["attempts"],
        answer=row["answer"] or "",
        error_code=row["error_code"],
        error_description=row["error_description"],
        error_details=row["error_details"] or "",
        connection_id=row["connection_id"],
        edge=row["edge"],
        ocpp_version=row["ocpp_version"],
        tried=tuple(orjson.loads(row["tried"])),
        handed_back_ms=_optional_milliseconds(row["handed_back_at"]),
        dispatched_at_ms=_optional_milliseconds(row["dispatched_at"]),
        sent_at_ms=_optional_milliseconds(row["sent_at"]),
        finished_at_ms=_optional_milliseconds(row["finished_at"]),
        waiting_since_ms=_optional_milliseconds(row["waiting_since"]),
        review_at_ms=_optional_milliseconds(row["review_at"]),
    )


def changing_columns(command: Command) -> tuple[Any, ...]:
    return (
        command.command_id,
        command.stage,
        command.outcome,
        command.attempts,
        storable_json(command.answer),
        command.error_code,
        command.error_description,
        storable_json(command.error_details),
        command.connection_id,
        command.edge,
        command.ocpp_version,
        orjson.dumps(command.tried).decode(),
        optional_instant(command.dispatched_at_ms),
        optional_instant(command.sent_at_ms),
        optional_instant(command.finished_at_ms),
        optional_instant(command.waiting_since_ms),
        optional_instant(command.review_at_ms),
        optional_instant(command.handed_back_ms),
    )


def constant_columns(command: Command) -> tuple[Any, ...]:
    return (
        command.partition,
        command.station_id,
        command.action,
        storable_json(command.payload),
        command.requested_by,
        instant(command.requested_at_ms),
        instant(command.deadline_at_ms),
        command.priority,
        command.park,
    )


def history_row(item: Stage | StageReported) -> tuple[Any, ...]:
    return (
        item.command_id,
        instant(item.at_ms),
        item.stage,
        item.source if isinstance(item, StageReported) else "router",
        item.connection_id,
        item.attempt,
        item.station_id,
        item.edge,
        item.error_code,
        item.error_description,
    )
