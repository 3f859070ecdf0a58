"""The router's tables: loading what a batch needs, saving what it changed, and finding what has come due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from busbar.stream.interfaces import StoreCall
from services.router.core import Rules, State
from services.router.events import (
    CommandDue,
    CommandRequested,
    ConnectionChanged,
    EdgeHeard,
    EdgeSilent,
    Event,
    StageReported,
    StationDue,
)
from services.router.presence import Edge
from services.router.rows import (
    END_OF_TIME_MS,
    changing_columns,
    constant_columns,
    dump_rows,
    edge_row,
    history_row,
    instant,
    read_command,
    read_edge,
    read_station,
    station_row,
)

DUE_LIMIT = 1_000
"""How many events of one kind come due at a time; the rest follow a second later."""

_EDGE_COLUMNS = """edge, edge_instance, edge_partition, event, connections, address, last_seen, instance_since,
    past_instances, silent, partition"""

LOAD_STATIONS = """
SELECT station_id, partition, connection_id, edge, edge_instance, edge_partition, ocpp_version, subprotocol,
    remote_address, security_profile, connected_at, disconnected_at, close_code, close_reason, unreachable, others,
    close_due_at
FROM router.connections WHERE station_id = ANY($1::text[])
"""

LOAD_EDGES = f"SELECT {_EDGE_COLUMNS} FROM router.edges WHERE edge = ANY($1::text[])"  # noqa: S608 - a constant

ALL_EDGES = f"SELECT {_EDGE_COLUMNS} FROM router.edges"  # noqa: S608 - a constant

LOAD_COMMANDS = """
SELECT command_id, partition, station_id, action, payload, requested_by, requested_at, deadline_at, priority, park,
    stage, outcome, attempts, answer, error_code, error_description, error_details, connection_id, edge, ocpp_version,
    tried, handed_back, dispatched_at, sent_at, finished_at, waiting_since, review_at
FROM router.commands
WHERE command_id = ANY($1::text[])
"""

LOAD_OPEN = """
SELECT command_id FROM router.commands WHERE station_id = ANY($1::text[]) AND review_at IS NOT NULL
"""

STORE = "SELECT router.store($1, $2, $3, $4, $5)"

HOLDING_EDGES = """
-- Every (edge, instance) that holds sockets, by jumping through the index from one to the next.
WITH RECURSIVE held AS (
    (SELECT edge, edge_instance FROM router.connections WHERE online ORDER BY edge, edge_instance LIMIT 1)
    UNION ALL
    SELECT following.edge, following.edge_instance FROM held CROSS JOIN LATERAL (
        SELECT c.edge, c.edge_instance FROM router.connections AS c
        WHERE c.online AND (c.edge, c.edge_instance) > (held.edge, held.edge_instance)
        ORDER BY c.edge, c.edge_instance LIMIT 1
    ) AS following
)
SELECT edge, edge_instance FROM held
"""

LOST_STATIONS = """
SELECT station_id, partition FROM router.connections
WHERE online AND edge = $1 AND edge_instance = $2 AND partition = ANY($3::integer[]) AND connected_at < $4
LIMIT $5
"""

UNREACHABLE_EDGES = "SELECT DISTINCT edge, edge_instance FROM router.connections WHERE unreachable"

UNREACHABLE_STATIONS = """
SELECT station_id, partition FROM router.connections
WHERE unreachable AND edge = $1 AND edge_instance = $2 AND partition = ANY($3::integer[])
LIMIT $4
"""

CLOSE_DUE = """
SELECT station_id, partition FROM router.connections
WHERE close_due_at <= $1 AND partition = ANY($2::integer[]) ORDER BY close_due_at LIMIT $3
"""

COMMANDS_DUE = """
SELECT command_id, station_id, partition FROM router.commands
WHERE review_at <= $1 AND partition = ANY($2::integer[]) ORDER BY priority DESC, review_at LIMIT $3
"""

DELETE_FINISHED = """
WITH old AS (
    SELECT command_id FROM router.commands WHERE finished_at < $1 ORDER BY finished_at LIMIT $2
), events AS (
    DELETE FROM router.command_events USING old WHERE router.command_events.command_id = old.command_id
)
DELETE FROM router.commands USING old WHERE router.commands.command_id = old.command_id
"""


async def load(connection: Any, events: Sequence[Event], now_ms: int, rules: Rules) -> State:
    """Everything that folding these events needs."""
    stations, with_commands, command_ids, edges = _needs(events)
    state = State(now_ms, rules)
    if stations:
        for row in await connection.fetch(LOAD_STATIONS, list(stations)):
            state.stations[row["station_id"]] = read_station(row)
    for station in state.stations.values():
        edges.update(item.edge for item in station.connections)
    if edges:
        for row in await connection.fetch(LOAD_EDGES, list(edges)):
            state.edges[row["edge"]] = read_edge(row)
    if with_commands:
        command_ids.update(row["command_id"] for row in await connection.fetch(LOAD_OPEN, list(with_commands)))
    if command_ids:
        for row in await connection.fetch(LOAD_COMMANDS, list(command_ids)):
            state.add(read_command(row))
    return state


def _needs(events: Sequence[Event]) -> tuple[set[str], set[str], set[str], set[str]]:
    """Stations, stations whose commands without an outcome are needed, commands, and edges."""
    stations: set[str] = set()
    with_commands: set[str] = set()
    commands: set[str] = set()
    edges: set[str] = set()
    for event in events:
        match event:
            case StageReported():
                commands.add(event.command_id)
                if event.stage == "undelivered":
                    stations.add(event.station_id)
            case CommandRequested() | CommandDue():
                commands.add(event.command_id)
                stations.add(event.station_id)
            case ConnectionChanged():
                edges.add(event.edge)
                stations.add(event.station_id)
                with_commands.add(event.station_id)
            case StationDue():
                stations.add(event.station_id)
                with_commands.add(event.station_id)
            case EdgeHeard() | EdgeSilent():
                edges.add(event.edge)
    return stations, with_commands, commands, edges


def store_call(state: State) -> StoreCall:
    """Everything that changed, as one call of `router.store`."""
    edges = [edge_row(state.edges[name]) for name in sorted(state.changed_edges)]
    stations = [station_row(state.stations[name]) for name in sorted(state.changed_stations)]
    fresh = [state.commands[name] for name in sorted(state.new_commands)]
    changed = [state.commands[name] for name in sorted(state.changed_commands - state.new_commands)]
    rows = (
        edges,
        stations,
        [changing_columns(command) | constant_columns(command) for command in fresh],
        [changing_columns(command) for command in changed],
        [history_row(item) for item in state.history],
    )
    arguments = tuple(dump_rows(item) for item in rows)
    return StoreCall("router.store", arguments) if any(arguments) else StoreCall("")


async def save(connection: Any, state: State) -> None:
    """Write what changed."""
    call = store_call(state)
    if call.function:
        await connection.execute(STORE, *call.arguments)


async def edges(connection: Any) -> dict[str, Edge]:
    """All edges that were ever heard of, by name."""
    return {row["edge"]: read_edge(row) for row in await connection.fetch(ALL_EDGES)}


async def holding_edges(connection: Any) -> list[tuple[str, str]]:
    """The (edge, instance) pairs that hold the current connection of some station, as far as is known."""
    return [(row["edge"], row["edge_instance"]) for row in await connection.fetch(HOLDING_EDGES)]


async def unreachable_edges(connection: Any) -> list[tuple[str, str]]:
    """The (edge, instance) pairs that were silent when last looked at."""
    return [(row["edge"], row["edge_instance"]) for row in await connection.fetch(UNREACHABLE_EDGES)]


async def lost_stations(
    connection: Any, edge: str, edge_instance: str, partitions: Sequence[int], connected_before_ms: int
) -> list[StationDue]:
    """Stations whose current connection is on this instance of an edge and was made before that time."""
    before = instant(min(connected_before_ms, END_OF_TIME_MS))
    rows = await connection.fetch(LOST_STATIONS, edge, edge_instance, list(partitions), before, DUE_LIMIT)
    return [StationDue(row["station_id"], row["partition"]) for row in rows]


async def unreachable_stations(
    connection: Any, edge: str, edge_instance: str, partitions: Sequence[int]
) -> list[StationDue]:
    """Stations that wait for this instance of an edge to be heard of again."""
    rows = await connection.fetch(UNREACHABLE_STATIONS, edge, edge_instance, list(partitions), DUE_LIMIT)
    return [StationDue(row["station_id"], row["partition"]) for row in rows]


async def closes_due(connection: Any, partitions: Sequence[int], now_ms: int) -> list[StationDue]:
    """Stations with an older connection whose grace has ended."""
    rows = await connection.fetch(CLOSE_DUE, instant(now_ms), list(partitions), DUE_LIMIT)
    return [StationDue(row["station_id"], row["partition"]) for row in rows]


async def commands_due(connection: Any, partitions: Sequence[int], now_ms: int) -> list[CommandDue]:
    """Commands that are to be looked at, the most urgent first."""
    rows = await connection.fetch(COMMANDS_DUE, instant(now_ms), list(partitions), DUE_LIMIT)
    return [CommandDue(row["command_id"], row["station_id"], row["partition"]) for row in rows]


async def delete_finished(connection: Any, before_ms: int, limit: int = 2_000) -> int:
    """Forget commands that had their outcome before that time; returns how many."""
    status: str = await connection.execute(DELETE_FINISHED, instant(before_ms), limit)
    return int(status.rpartition(" ")[2])
