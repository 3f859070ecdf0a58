"""What the router folds, and what comes out: plain values, before and after Avro.

Instants are Unix milliseconds; the columns of Postgres make them timestamps.
"""

from __future__ import annotations

from dataclasses import dataclass

TERMINAL_STAGES = frozenset({"answered", "error", "timeout", "offline", "disconnected", "rejected"})
"""The first of these that is reported is the outcome of the command."""


@dataclass(frozen=True, slots=True)
class ConnectionChanged:
    """A record of `csms.connections`."""

    station_id: str
    opened: bool
    connection_id: str
    edge: str
    edge_instance: str
    edge_partition: int
    ocpp_version: str
    subprotocol: str
    remote_address: str
    security_profile: int
    at_ms: int
    connected_at_ms: int
    close_code: int
    reason: str
    partition: int


@dataclass(frozen=True, slots=True)
class EdgeHeard:
    """A record of `csms.edges`."""

    edge: str
    edge_instance: str
    edge_partition: int
    event: str
    connections: int
    address: str
    at_ms: int
    partition: int


@dataclass(frozen=True, slots=True)
class CommandRequested:
    """A record of `csms.commands`."""

    command_id: str
    station_id: str
    action: str
    payload: str
    """JSON text."""
    requested_by: str
    requested_at_ms: int
    deadline_at_ms: int
    priority: int
    park: bool
    partition: int


@dataclass(frozen=True, slots=True)
class StageReported:
    """A record of `csms.command-events`: of the edge, or our own, which a rebuild from the log needs."""

    command_id: str
    station_id: str
    action: str
    stage: str
    source: str
    """`edge` or `router`."""
    at_ms: int
    attempt: int
    connection_id: str
    edge: str
    ocpp_version: str
    payload: str
    error_code: str
    error_description: str
    error_details: str
    partition: int


@dataclass(frozen=True, slots=True)
class KnownStage:
    """A record of `csms.command-events` that this very process wrote: there is nothing to do."""

    partition: int


@dataclass(frozen=True, slots=True)
class EdgeSilent:
    """By the clock: nothing has been heard of the edge since `last_seen_ms`, though its partition was read."""

    edge: str
    edge_instance: str
    last_seen_ms: int
    partition: int


@dataclass(frozen=True, slots=True)
class StationDue:
    """By the clock: an edge that holds a connection of the station died or came back, or an old socket should close."""

    station_id: str
    partition: int


@dataclass(frozen=True, slots=True)
class CommandDue:
    """By the clock: nothing was heard of the command for a while."""

    command_id: str
    station_id: str
    partition: int


Event = (
    ConnectionChanged | EdgeHeard | CommandRequested | StageReported | KnownStage | EdgeSilent | StationDue | CommandDue
)


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A CALL on its way to a connection: `csms.outbound`, kind `call`."""

    station_id: str
    edge_partition: int
    connection_id: str
    command_id: str
    action: str
    payload: str
    deadline_at_ms: int
    priority: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Close:
    """An order to close an old connection: `csms.outbound`, kind `close`."""

    station_id: str
    edge_partition: int
    connection_id: str
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage that the router itself decided: `csms.command-events`, and a row of its history."""

    command_id: str
    station_id: str
    action: str
    stage: str
    at_ms: int
    attempt: int = 0
    connection_id: str = ""
    edge: str = ""
    ocpp_version: str = ""
    payload: str = ""
    error_code: str = ""
    error_description: str = ""
    error_details: str = ""


Outcome = Dispatch | Close | Stage
