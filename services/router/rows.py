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
    """A column's value."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _milliseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def _optional_milliseconds(instant: datetime | None) -> int | None:
    return None if instant is None else round(instant.timestamp() * 1000)


def dump_rows(rows: Sequence[dict[str, Any]]) -> str | None:
    """The rows as one JSON array, without NUL characters, which Postgres does not hold; `None` if there are none."""
    if not rows:
        return None
    text = orjson.dumps(rows)
    if b"\\u0000" in text:
        text = orjson.dumps(_without_nul(orjson.loads(text)))
    return text.decode()


def embedded_json(text: str) -> Any:
    """JSON text, to be put into a row as it is; text that is not JSON becomes a JSON string."""
    if not text:
        return None
    try:
        # Read and written anew: what is left holds no number that Postgres could not take.
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


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


def edge_row(edge: Edge) -> dict[str, Any]:
    return asdict(edge)


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


def station_row(station: Station) -> dict[str, Any]:
    current, *others = station.connections
    return {
        "station_id": station.station_id,
        "partition": station.partition,
        "connection_id": current.connection_id,
        "edge": current.edge,
        "edge_instance": current.edge_instance,
        "edge_partition": current.edge_partition,
        "ocpp_version": current.ocpp_version,
        "subprotocol": current.subprotocol,
        "remote_address": current.remote_address,
        "security_profile": current.security_profile,
        "connected_at_ms": current.connected_at_ms,
        "disconnected_at_ms": current.disconnected_at_ms,
        "online": current.open and not current.unreachable,
        "close_code": current.close_code,
        "close_reason": current.close_reason,
        "unreachable": current.unreachable,
        "others": [asdict(item) for item in others],
        "close_due_at_ms": station.close_due_at_ms,
    }


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
        handed_back=orjson.loads(row["handed_back"]),
        dispatched_at_ms=_optional_milliseconds(row["dispatched_at"]),
        sent_at_ms=_optional_milliseconds(row["sent_at"]),
        finished_at_ms=_optional_milliseconds(row["finished_at"]),
        waiting_since_ms=_optional_milliseconds(row["waiting_since"]),
        review_at_ms=_optional_milliseconds(row["review_at"]),
    )


def changing_columns(command: Command) -> dict[str, Any]:
    return {
        "command_id": command.command_id,
        "stage": command.stage,
        "outcome": command.outcome,
        "attempts": command.attempts,
        "answer": embedded_json(command.answer),
        "error_code": command.error_code,
        "error_description": command.error_description,
        "error_details": embedded_json(command.error_details),
        "connection_id": command.connection_id,
        "edge": command.edge,
        "ocpp_version": command.ocpp_version,
        "tried": command.tried,
        "handed_back": command.handed_back,
        "dispatched_at_ms": command.dispatched_at_ms,
        "sent_at_ms": command.sent_at_ms,
        "finished_at_ms": command.finished_at_ms,
        "waiting_since_ms": command.waiting_since_ms,
        "review_at_ms": command.review_at_ms,
    }


def constant_columns(command: Command) -> dict[str, Any]:
    return {
        "partition": command.partition,
        "station_id": command.station_id,
        "action": command.action,
        "payload": embedded_json(command.payload),
        "requested_by": command.requested_by,
        "requested_at_ms": command.requested_at_ms,
        "deadline_at_ms": command.deadline_at_ms,
        "priority": command.priority,
        "park": command.park,
    }


def history_row(item: Stage | StageReported) -> dict[str, Any]:
    return {
        "command_id": item.command_id,
        "at_ms": item.at_ms,
        "stage": item.stage,
        "source": item.source if isinstance(item, StageReported) else "router",
        "connection_id": item.connection_id,
        "attempt": item.attempt,
        "station_id": item.station_id,
        "edge": item.edge,
        "error_code": item.error_code,
        "error_description": item.error_description,
    }
