"""Events of the router's tests, in few words, and the clock that brings what is due."""

from __future__ import annotations

from dataclasses import replace

from services.router.core import State, apply
from services.router.events import (
    TERMINAL_STAGES,
    CommandDue,
    CommandRequested,
    ConnectionChanged,
    Dispatch,
    EdgeHeard,
    EdgeSilent,
    Event,
    Outcome,
    Stage,
    StageReported,
    StationDue,
)

T0 = 1_790_000_000_000
RESET = '{"type":"Soft"}'


def connected(
    connection_id: str,
    *,
    station: str = "CS-1",
    edge: str = "edge-0",
    instance: str = "i1",
    edge_partition: int = 0,
    at: int = T0,
    version: str = "1.6",
) -> ConnectionChanged:
    return ConnectionChanged(
        station_id=station,
        opened=True,
        connection_id=connection_id,
        edge=edge,
        edge_instance=instance,
        edge_partition=edge_partition,
        ocpp_version=version,
        subprotocol=f"ocpp{version}",
        remote_address="192.0.2.1",
        security_profile=1,
        at_ms=at,
        connected_at_ms=at,
        close_code=0,
        reason="",
        partition=0,
    )


def disconnected(opened: ConnectionChanged, *, at: int) -> ConnectionChanged:
    return replace(opened, opened=False, at_ms=at, close_code=1000, reason="left")


def heard(
    edge: str = "edge-0", instance: str = "i1", *, at: int = T0, event: str = "alive", edge_partition: int = 0
) -> EdgeHeard:
    return EdgeHeard(edge, instance, edge_partition, event, 1, "192.0.2.9:9310", at, 0)


def requested(
    command_id: str = "c1",
    *,
    station: str = "CS-1",
    action: str = "Reset",
    payload: str = RESET,
    at: int = T0,
    within: int = 30_000,
    priority: int = 0,
    park: bool = False,
) -> CommandRequested:
    return CommandRequested(command_id, station, action, payload, "test", at, at + within, priority, park, 0)


def reported(
    stage: str,
    connection_id: str = "a",
    *,
    command_id: str = "c1",
    station: str = "CS-1",
    at: int = T0,
    source: str = "edge",
    payload: str = "",
    attempt: int = 1,
) -> StageReported:
    return StageReported(
        command_id=command_id,
        station_id=station,
        action="Reset",
        stage=stage,
        source=source,
        at_ms=at,
        attempt=attempt,
        connection_id=connection_id,
        edge="edge-0",
        ocpp_version="1.6",
        payload=payload,
        error_code="",
        error_description="",
        error_details="",
        partition=0,
    )


def read_back(stage: Stage) -> StageReported:
    """The router's own record, as it comes back on `csms.command-events`."""
    return StageReported(
        command_id=stage.command_id,
        station_id=stage.station_id,
        action=stage.action,
        stage=stage.stage,
        source="router",
        at_ms=stage.at_ms,
        attempt=stage.attempt,
        connection_id=stage.connection_id,
        edge=stage.edge,
        ocpp_version=stage.ocpp_version,
        payload=stage.payload,
        error_code=stage.error_code,
        error_description=stage.error_description,
        error_details=stage.error_details,
        partition=0,
    )


def fold(state: State, *events: Event) -> list[Outcome]:
    return [outcome for event in events for outcome in apply(state, event)]


def dispatches(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    """Command and connection of each CALL that goes out."""
    return [(item.command_id, item.connection_id) for item in outcomes if isinstance(item, Dispatch)]


def stages(outcomes: list[Outcome]) -> list[str]:
    return [item.stage for item in outcomes if isinstance(item, Stage)]


def terminal(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    return [
        (item.command_id, item.stage) for item in outcomes if isinstance(item, Stage) and item.stage in TERMINAL_STAGES
    ]


def due(state: State, silent_ms: int = 15_000) -> list[Event]:
    """What the clock brings, for everything that the state holds."""
    events: list[Event] = [
        EdgeSilent(edge.edge, edge.edge_instance, edge.last_seen_ms, edge.partition)
        for edge in state.edges.values()
        if not edge.silent and edge.event != "stopped" and state.now_ms - edge.last_seen_ms > silent_ms
    ]
    events += [StationDue(station.station_id, station.partition) for station in state.stations.values()]
    events += [
        CommandDue(command.command_id, command.station_id, command.partition)
        for command in state.commands.values()
        if command.review_at_ms is not None and command.review_at_ms <= state.now_ms
    ]
    return events


def pass_time(state: State, milliseconds: int, step_ms: int = 1_000) -> list[Outcome]:
    """Let the clock run, with what comes due each second."""
    outcomes: list[Outcome] = []
    end = state.now_ms + milliseconds
    while state.now_ms < end:
        state.now_ms = min(state.now_ms + step_ms, end)
        outcomes += fold(state, *due(state))
    return outcomes
