"""The router's metrics."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

from services.router.core import State
from services.router.events import StageReported
from services.router.presence import Edge

COMMAND_STAGES = Counter(
    "csms_router_command_stages_total",
    "Stages of commands that were recorded, by stage and by who decided it (router or edge).",
    ["stage", "source"],
)
COMMAND_SECONDS = Histogram(
    "csms_router_command_seconds",
    "Time from the request of a command to its outcome, by outcome.",
    ["outcome"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)
STATIONS_CHANGED = Counter(
    "csms_router_stations_changed_total",
    "Stations whose connections changed: connected, disconnected, lost with their edge, or found again.",
)
EDGES = Gauge("csms_router_edges", "Edge pods by state: alive, draining, silent or stopped.", ["state"])
EDGE_CONNECTIONS = Gauge(
    "csms_router_edge_connections", "Open sockets that the living edge pods reported, all together."
)
DUE = Counter("csms_router_due_total", "Events that the clock brought, by kind: edges, stations or commands.", ["kind"])
FORGOTTEN = Counter("csms_router_forgotten_commands_total", "Commands deleted because they were too old to keep.")

_STATES = ("alive", "draining", "silent", "stopped")


@cache
def stages(stage: str, source: str) -> Counter:
    """The child of `COMMAND_STAGES`, looked up once: labels cost more than the increment."""
    return COMMAND_STAGES.labels(stage, source)


def count_batch(state: State) -> None:
    """Count what a batch did, once it is committed."""
    for item in state.history:
        if not isinstance(item, StageReported):
            stages(item.stage, "router").inc()
        elif item.source != "router":
            stages(item.stage, "edge").inc()
    for command_id in state.new_commands | state.changed_commands:
        command = state.commands[command_id]
        if command.outcome is not None and command.finished_at_ms is not None:
            seconds = max(command.finished_at_ms - command.requested_at_ms, 0) / 1000
            COMMAND_SECONDS.labels(command.outcome).observe(seconds)
    if state.changed_stations:
        STATIONS_CHANGED.inc(len(state.changed_stations))


def show_edges(edges: Iterable[Edge]) -> None:
    """Set the gauges of the edges."""
    counts = dict.fromkeys(_STATES, 0)
    connections = 0
    for edge in edges:
        state = edge_state(edge)
        counts[state] += 1
        if state in ("alive", "draining"):
            connections += edge.connections
    for state, count in counts.items():
        EDGES.labels(state).set(count)
    EDGE_CONNECTIONS.set(connections)


def edge_state(edge: Edge) -> str:
    """One word for an edge: alive, draining, silent or stopped."""
    if edge.event == "stopped":
        return "stopped"
    if edge.silent:
        return "silent"
    return "draining" if edge.event == "draining" else "alive"
