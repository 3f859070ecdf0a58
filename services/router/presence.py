"""Who holds the socket of a station: connections and edges, folded.

A station may have several connections in the log, on different edges and out of order; each is known by its id.
The current one is the newest that is open on a living edge. A disconnect closes its own connection and no other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from services.router.events import Close, ConnectionChanged, EdgeHeard, EdgeSilent

KEPT_CLOSED = 6
"""Closed connections that are remembered per station, so that a record of theirs that comes late changes nothing."""
KEPT_OPEN = 16
KEPT_INSTANCES = 32
CLOSE_ATTEMPTS = 3

_ABNORMAL_CLOSURE = 1006
_FOREVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge pod."""

    edge: str
    edge_instance: str
    edge_partition: int
    event: str
    connections: int
    address: str
    last_seen_ms: int
    instance_since_ms: int
    past_instances: tuple[str, ...]
    silent: bool
    partition: int


@dataclass(frozen=True, slots=True)
class Connection:
    """One WebSocket of a station."""

    connection_id: str
    edge: str
    edge_instance: str
    edge_partition: int
    ocpp_version: str
    subprotocol: str
    remote_address: str
    security_profile: int
    connected_at_ms: int
    disconnected_at_ms: int | None = None
    close_code: int = 0
    close_reason: str = ""
    unreachable: bool = False
    """Open as far as is known, but its edge is silent."""
    closes_sent: int = 0

    @property
    def open(self) -> bool:
        return self.disconnected_at_ms is None

    @property
    def age_rank(self) -> tuple[int, str]:
        """Orders the connections of a station, whatever the order of their records."""
        return self.connected_at_ms, self.connection_id


@dataclass(frozen=True, slots=True)
class Station:
    """What is known of a station's connections, the current one first."""

    station_id: str
    partition: int
    connections: tuple[Connection, ...] = ()
    close_due_at_ms: int | None = None

    def find(self, connection_id: str) -> Connection | None:
        for connection in self.connections:
            if connection.connection_id == connection_id:
                return connection
        return None


class Standing(Enum):
    """What the edge of a connection says about it."""

    ALIVE = "alive"
    UNREACHABLE = "unreachable"
    """Its edge is silent or unknown, and may be heard of again."""
    GONE = "gone"
    """Its edge has stopped or started anew: the socket cannot exist any more."""


@dataclass(frozen=True, slots=True)
class PresenceRules:
    """How long is too long."""

    close_grace_ms: int = 10_000
    """How long an older connection of a station may live beside a newer one."""
    close_retry_ms: int = 30_000
    unknown_instance_ms: int = 30_000
    unknown_edge_ms: int = 60_000


def lost_before(edge: Edge | None, edge_instance: str, now_ms: int, rules: PresenceRules) -> tuple[int, Standing]:
    """Up to which connect time the connections of an edge's instance are lost, and how.

    Connections and edges are different keys, so their records are folded at different times, by different workers
    maybe: an instance that the router has not met may be newer than the one it knows, or long forgotten.
    """
    if edge is None:
        return now_ms - rules.unknown_edge_ms, Standing.UNREACHABLE
    if edge_instance == edge.edge_instance:
        if edge.event == "stopped":
            return _FOREVER, Standing.GONE
        return (_FOREVER, Standing.UNREACHABLE) if edge.silent else (-1, Standing.ALIVE)
    if edge_instance in edge.past_instances:
        return _FOREVER, Standing.GONE
    # The instance that is known was heard of well after this connection was made: then this one is the older.
    return edge.last_seen_ms - rules.unknown_instance_ms, Standing.UNREACHABLE


def standing(connection: Connection, edges: Mapping[str, Edge], now_ms: int, rules: PresenceRules) -> Standing:
    """Whether the edge of a connection can still hold it."""
    bound, lost = lost_before(edges.get(connection.edge), connection.edge_instance, now_ms, rules)
    return lost if connection.connected_at_ms < bound else Standing.ALIVE


def usable_connection(
    station: Station | None,
    edges: Mapping[str, Edge],
    now_ms: int,
    rules: PresenceRules,
    avoid: Collection[str] = (),
) -> Connection | None:
    """The newest connection that a command can go to, not in `avoid`."""
    if station is None:
        return None
    candidates = [
        connection
        for connection in station.connections
        if connection.open
        and connection.connection_id not in avoid
        and standing(connection, edges, now_ms, rules) is Standing.ALIVE
    ]
    return max(candidates, key=lambda connection: connection.age_rank, default=None)


def fold_edge(edge: Edge | None, event: EdgeHeard) -> Edge:
    """What is known of an edge after one more sign of life.

    An instance that was replaced, or that is older than the present one, is never taken for the present one again.
    """
    if edge is None:
        return _edge(event, ())
    if event.edge_instance == edge.edge_instance:
        return _edge(event, edge.past_instances, edge.instance_since_ms) if event.at_ms >= edge.last_seen_ms else edge
    if event.edge_instance in edge.past_instances:
        return edge
    if event.at_ms < edge.instance_since_ms:
        return replace(edge, past_instances=_remember(edge.past_instances, event.edge_instance))
    return _edge(event, _remember(edge.past_instances, edge.edge_instance))


def fold_silence(edge: Edge | None, event: EdgeSilent) -> Edge | None:
    """The edge, marked as silent, unless it was heard of in the meantime."""
    if edge is None or (edge.edge_instance, edge.last_seen_ms) != (event.edge_instance, event.last_seen_ms):
        return edge
    return edge if edge.silent else replace(edge, silent=True)


def _edge(event: EdgeHeard, past_instances: tuple[str, ...], instance_since_ms: int | None = None) -> Edge:
    return Edge(
        edge=event.edge,
        edge_instance=event.edge_instance,
        edge_partition=event.edge_partition,
        event=event.event,
        connections=event.connections,
        address=event.address,
        last_seen_ms=event.at_ms,
        instance_since_ms=event.at_ms if instance_since_ms is None else instance_since_ms,
        past_instances=past_instances,
        silent=False,
        partition=event.partition,
    )


def _remember(past: tuple[str, ...], instance: str) -> tuple[str, ...]:
    return (*past, instance)[-KEPT_INSTANCES:]


def fold_connection(
    station: Station | None,
    event: ConnectionChanged,
    edges: Mapping[str, Edge],
    now_ms: int,
    rules: PresenceRules,
) -> Station:
    """What is known of a station after one of its sockets opened or closed."""
    station = station or Station(event.station_id, event.partition)
    known = station.find(event.connection_id)
    if known is None:
        # A close that comes before its open is kept as a closed connection, and the open then changes nothing.
        connections = (*station.connections, _connection(event))
    elif known.open and not event.opened:
        closed = replace(
            known,
            disconnected_at_ms=event.at_ms,
            close_code=event.close_code,
            close_reason=event.reason,
            unreachable=False,
        )
        connections = _replaced(station.connections, closed)
    else:
        return station
    return _arranged(replace(station, connections=connections), edges, now_ms, rules)


def review_station(
    station: Station, edges: Mapping[str, Edge], now_ms: int, rules: PresenceRules
) -> tuple[Station, list[Close]]:
    """Hold the open connections of a station against what is known of their edges, and close old ones."""
    connections = tuple(_reviewed(connection, edges, now_ms, rules) for connection in station.connections)
    station = _arranged(replace(station, connections=connections), edges, now_ms, rules)
    if station.close_due_at_ms is None or station.close_due_at_ms > now_ms:
        return station, []
    return _close_older(station, edges, now_ms, rules)


def _reviewed(connection: Connection, edges: Mapping[str, Edge], now_ms: int, rules: PresenceRules) -> Connection:
    if not connection.open:
        return connection
    found = standing(connection, edges, now_ms, rules)
    if found is Standing.GONE:
        return _lost(connection, now_ms, "the edge that held it is gone")
    unreachable = found is Standing.UNREACHABLE
    return connection if connection.unreachable == unreachable else replace(connection, unreachable=unreachable)


def _lost(connection: Connection, now_ms: int, reason: str) -> Connection:
    return replace(
        connection,
        disconnected_at_ms=now_ms,
        close_code=_ABNORMAL_CLOSURE,
        close_reason=reason,
        unreachable=False,
    )


def _close_older(
    station: Station, edges: Mapping[str, Edge], now_ms: int, rules: PresenceRules
) -> tuple[Station, list[Close]]:
    current, *others = station.connections
    closes, connections = [], [current]
    for connection in others:
        if connection.open and connection.closes_sent >= CLOSE_ATTEMPTS:
            connection = _lost(connection, now_ms, "its edge did not confirm that it closed")
        elif connection.open:
            connection = replace(connection, closes_sent=connection.closes_sent + 1)
            if standing(connection, edges, now_ms, rules) is Standing.ALIVE:
                reason = "replaced by a newer connection"
                closes.append(
                    Close(station.station_id, connection.edge_partition, connection.connection_id, reason, now_ms)
                )
        connections.append(connection)
    station = replace(station, connections=tuple(connections), close_due_at_ms=now_ms + rules.close_retry_ms)
    return _arranged(station, edges, now_ms, rules), closes


def _arranged(station: Station, edges: Mapping[str, Edge], now_ms: int, rules: PresenceRules) -> Station:
    """The same connections with the current one first, the forgettable ones dropped, and the closing hour set."""

    def rank(connection: Connection) -> tuple[bool, bool, int, str]:
        reachable = connection.open and standing(connection, edges, now_ms, rules) is Standing.ALIVE
        return reachable, connection.open, *connection.age_rank

    ranked = sorted(station.connections, key=rank, reverse=True)
    opened = [connection for connection in ranked if connection.open][:KEPT_OPEN]
    closed = [connection for connection in ranked if not connection.open][:KEPT_CLOSED]
    due = station.close_due_at_ms
    if len(opened) < 2:
        due = None
    elif due is None:
        due = now_ms + rules.close_grace_ms
    return replace(station, connections=(*opened, *closed), close_due_at_ms=due)


def _replaced(connections: tuple[Connection, ...], changed: Connection) -> tuple[Connection, ...]:
    return tuple(changed if item.connection_id == changed.connection_id else item for item in connections)


def _connection(event: ConnectionChanged) -> Connection:
    return Connection(
        connection_id=event.connection_id,
        edge=event.edge,
        edge_instance=event.edge_instance,
        edge_partition=event.edge_partition,
        ocpp_version=event.ocpp_version,
        subprotocol=event.subprotocol,
        remote_address=event.remote_address,
        security_profile=event.security_profile,
        connected_at_ms=event.connected_at_ms,
        disconnected_at_ms=None if event.opened else event.at_ms,
        close_code=event.close_code,
        close_reason=event.reason,
    )
