"""The router's fold: who holds which socket, and what becomes of each command. Pure: state in, outcomes out.

`State` holds what one batch of events needs. The clock is the state's: it was read when the batch was loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from services.router import commands
from services.router.commands import WAITING_STAGES, Command, CommandRules
from services.router.events import (
    TERMINAL_STAGES,
    CommandDue,
    CommandRequested,
    ConnectionChanged,
    EdgeHeard,
    EdgeSilent,
    Event,
    KnownStage,
    Outcome,
    Stage,
    StageReported,
    StationDue,
)
from services.router.presence import (
    Connection,
    Edge,
    PresenceRules,
    Standing,
    Station,
    fold_connection,
    fold_edge,
    fold_silence,
    review_station,
    standing,
    usable_connection,
)


@dataclass(frozen=True, slots=True)
class Rules:
    """The router's time limits."""

    presence: PresenceRules = field(default_factory=PresenceRules)
    commands: CommandRules = field(default_factory=CommandRules)


@dataclass(slots=True)
class State:
    """What the events of a batch touch, and what they changed."""

    now_ms: int
    rules: Rules = field(default_factory=Rules)
    edges: dict[str, Edge] = field(default_factory=dict)
    """All edges."""
    stations: dict[str, Station] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)
    """The commands that the events name, and those without an outcome of the stations whose connections change."""
    changed_edges: set[str] = field(default_factory=set)
    changed_stations: set[str] = field(default_factory=set)
    new_commands: set[str] = field(default_factory=set)
    changed_commands: set[str] = field(default_factory=set)
    history: list[Stage | StageReported] = field(default_factory=list)
    """Every stage of every command, for `router.command_events`."""
    _of_station: dict[str, list[str]] = field(default_factory=dict)

    def add(self, command: Command) -> None:
        """Put a command into the state."""
        self.commands[command.command_id] = command
        self._of_station.setdefault(command.station_id, []).append(command.command_id)

    def of_station(self, station_id: str) -> list[Command]:
        """The commands of a station, as far as they are here."""
        return [self.commands[command_id] for command_id in self._of_station.get(station_id, ())]

    def usable(self, command: Command, *, avoid: str = "") -> Connection | None:
        """The newest living connection that the command can go to; none once its deadline has passed.

        Not one that it may have been sent on already, nor the one to avoid.
        """
        if command.deadline_at_ms <= self.now_ms:
            return None
        return usable_connection(
            self.stations.get(command.station_id),
            self.edges,
            self.now_ms,
            self.rules.presence,
            avoid=(*command.tried, avoid),
        )

    def waiting(self, station_id: str) -> list[Command]:
        """The station's commands that wait for a connection, the most urgent first."""
        found = [command for command in self.of_station(station_id) if command.stage in WAITING_STAGES]
        return sorted(found, key=lambda command: command.urgency)


def apply(state: State, event: Event) -> list[Outcome]:
    """Fold one event into the state and return what is to be sent and reported. Harmless when repeated."""
    match event:
        case StageReported():
            outcomes = _report(state, event)
        case KnownStage():
            outcomes = []
        case CommandRequested():
            outcomes = _request(state, event)
        case ConnectionChanged():
            outcomes = _connection(state, event)
        case EdgeHeard():
            outcomes = _edge(state, event.edge, fold_edge(state.edges.get(event.edge), event))
        case EdgeSilent():
            outcomes = _edge(state, event.edge, fold_silence(state.edges.get(event.edge), event))
        case StationDue():
            outcomes = _review_station(state, event)
        case CommandDue():
            outcomes = _review_command(state, event)
    state.history.extend(outcome for outcome in outcomes if isinstance(outcome, Stage))
    return outcomes


def _edge(state: State, name: str, edge: Edge | None) -> list[Outcome]:
    if edge is not None and edge is not state.edges.get(name):
        state.edges[name] = edge
        state.changed_edges.add(name)
    # Its connections belong to other partitions: their owners notice by the clock.
    return []


def _connection(state: State, event: ConnectionChanged) -> list[Outcome]:
    before = state.stations.get(event.station_id)
    after = fold_connection(before, event, state.edges, state.now_ms, state.rules.presence)
    if after is before:
        return []
    state.stations[event.station_id] = after
    state.changed_stations.add(event.station_id)
    _hasten(state, after)
    return _resume(state, event.station_id)


def _review_station(state: State, event: StationDue) -> list[Outcome]:
    before = state.stations.get(event.station_id)
    if before is None:
        return []
    after, closes = review_station(before, state.edges, state.now_ms, state.rules.presence)
    if after != before:
        state.stations[event.station_id] = after
        state.changed_stations.add(event.station_id)
        _hasten(state, after)
    return [*closes, *_resume(state, event.station_id)]


def _hasten(state: State, station: Station) -> None:
    """Look soon at the commands whose connection has closed: its edge may not live to say what became of them."""
    soon = state.now_ms + state.rules.commands.settle_ms
    for command in state.of_station(station.station_id):
        if command.stage not in ("dispatched", "sent") or (command.review_at_ms or 0) <= soon:
            continue
        connection = station.find(command.connection_id)
        if connection is None or not connection.open:
            command.review_at_ms = soon
            state.changed_commands.add(command.command_id)


def _resume(state: State, station_id: str) -> list[Outcome]:
    """Dispatch what waited for the station, if it has a connection now."""
    outcomes: list[Outcome] = []
    for command in state.waiting(station_id):
        connection = _next_connection(state, command)
        if connection is not None:
            outcomes += _dispatch(state, command, connection)
    return outcomes


def _request(state: State, event: CommandRequested) -> list[Outcome]:
    if event.command_id in state.commands:
        return []
    command = commands.new_command(event)
    state.add(command)
    state.new_commands.add(command.command_id)
    reason = commands.unreadable(command.payload)
    if reason is not None:
        command.payload = "{}"
        return commands.finish(command, "rejected", state.now_ms, "FormatViolation", reason)
    if command.deadline_at_ms <= state.now_ms:
        # It is read late: the router was away, or the tables are being rebuilt. If nothing in the log says what
        # became of it, it gets its outcome by the clock; it is not sent any more.
        command.review_at_ms = state.now_ms + state.rules.commands.settle_ms
        return []
    return _place(state, command, "it is not connected")


def _place(state: State, command: Command, why_not: str) -> list[Outcome]:
    """Send the command to its station now, or park it, or say that the station is offline."""
    connection = state.usable(command)
    if connection is not None:
        return _dispatch(state, command, connection)
    state.changed_commands.add(command.command_id)
    if command.park:
        return commands.park(command, state.now_ms, _parked_review(state, command))
    return commands.finish(command, "offline", state.now_ms, "StationOffline", why_not)


def _parked_review(state: State, command: Command) -> int:
    """At its deadline, or soon while a silent edge, which may come back, holds a connection of its station."""
    station = state.stations.get(command.station_id)
    if station is not None and any(connection.open for connection in station.connections):
        return min(state.now_ms + state.rules.commands.longest_review_ms, command.deadline_at_ms)
    return command.deadline_at_ms


def _dispatch(state: State, command: Command, connection: Connection) -> list[Outcome]:
    state.changed_commands.add(command.command_id)
    return commands.dispatch(command, connection, state.now_ms, state.rules.commands)


def _report(state: State, event: StageReported) -> list[Outcome]:
    command = state.commands.get(event.command_id)
    state.history.append(event)
    if command is None:
        return []
    if event.source == "router":
        return _read_back(state, command, event)
    if event.stage in TERMINAL_STAGES:
        return _report_terminal(state, command, event)
    if command.outcome is not None or event.connection_id != command.connection_id:
        # What an earlier connection did no longer matters.
        return []
    if event.stage == "sent":
        commands.record_sent(command, event, state.now_ms, state.rules.commands)
        state.changed_commands.add(command.command_id)
    elif event.stage == "undelivered" and command.stage == "dispatched" and _is_news(command, event):
        commands.hand_back(command, event.at_ms)
        return _retry(state, command, "")
    return []


def _is_news(command: Command, event: StageReported) -> bool:
    return event.at_ms > command.handed_back.get(event.connection_id, -1)


def _report_terminal(state: State, command: Command, event: StageReported) -> list[Outcome]:
    if command.outcome is not None:
        stage = commands.late(command, event)
        return [] if stage is None else [stage]
    # A dead connection says nothing of the one that the command has since been dispatched to, an answer does.
    if event.stage in ("timeout", "disconnected") and event.connection_id not in ("", command.connection_id):
        return []
    commands.record_outcome(command, event)
    state.changed_commands.add(command.command_id)
    return []


def _read_back(state: State, command: Command, event: StageReported) -> list[Outcome]:
    before = replace(command)
    if command.outcome is None and event.stage in TERMINAL_STAGES:
        commands.record_outcome(command, event)
    else:
        commands.record_own(command, event)
    if command != before:
        state.changed_commands.add(command.command_id)
    return []


def _retry(state: State, command: Command, reason: str) -> list[Outcome]:
    """The command did not reach the socket: another connection, or a short wait for one."""
    state.changed_commands.add(command.command_id)
    connection = state.usable(command, avoid=command.connection_id)
    if connection is not None:
        return _dispatch(state, command, connection)
    return commands.await_connection(command, state.now_ms, reason)


def _review_command(state: State, event: CommandDue) -> list[Outcome]:
    """Nothing was heard of the command for a while: find out what holds it up."""
    command = state.commands.get(event.command_id)
    if command is None or command.review_at_ms is None or command.review_at_ms > state.now_ms:
        return []
    state.changed_commands.add(command.command_id)
    if command.stage in WAITING_STAGES:
        return _review_waiting(state, command)
    if state.now_ms >= command.deadline_at_ms + state.rules.commands.slack_ms:
        return commands.finish(command, "timeout", state.now_ms, "NoAnswer", "no answer before the deadline")
    return _review_under_way(state, command)


def _review_waiting(state: State, command: Command) -> list[Outcome]:
    now_ms = state.now_ms
    if now_ms >= command.deadline_at_ms:
        station = state.stations.get(command.station_id)
        if usable_connection(station, state.edges, now_ms, state.rules.presence) is None:
            return commands.finish(command, "offline", now_ms, "StationOffline", "not connected by the deadline")
        return commands.finish(command, "timeout", now_ms, "DeadlinePassed", "the deadline passed before it was sent")
    connection = _next_connection(state, command)
    if connection is not None:
        return _dispatch(state, command, connection)
    if command.stage == "parked":
        command.review_at_ms = _parked_review(state, command)
        return []
    if _waited_ms(state, command) >= state.rules.commands.undelivered_wait_ms:
        return _place(state, command, "its connection closed before the command was sent, and it has no other")
    command.review_at_ms = now_ms + 1_000
    return []


def _next_connection(state: State, command: Command) -> Connection | None:
    """Where a waiting command can go now.

    To another connection at once; to the one that handed it back (it had too many, or was closing) after a while.
    """
    patient = command.stage != "undelivered" or _waited_ms(state, command) >= state.rules.commands.same_connection_ms
    return state.usable(command, avoid="" if patient else command.connection_id)


def _waited_ms(state: State, command: Command) -> int:
    return state.now_ms - (command.waiting_since_ms or 0)


def _review_under_way(state: State, command: Command) -> list[Outcome]:
    station = state.stations.get(command.station_id)
    connection = station.find(command.connection_id) if station else None
    gone_for_ms = _gone_for_ms(state, connection)
    if gone_for_ms is not None and gone_for_ms >= state.rules.commands.settle_ms:
        if command.stage == "sent":
            description = "the connection ended before the answer, and its edge could not say so"
            return commands.finish(command, "disconnected", state.now_ms, "EdgeGone", description)
        return _retry(state, command, "its connection ended before it was sent")
    if command.stage == "dispatched" and gone_for_ms is None and _unreachable(state, connection):
        other = state.usable(command)
        if other is not None:
            return _dispatch(state, command, other)
    commands.review_again(command, state.now_ms, state.rules.commands)
    return []


def _gone_for_ms(state: State, connection: Connection | None) -> int | None:
    """For how long the connection cannot have existed any more; `None`: it may exist."""
    if connection is None:
        return state.rules.commands.settle_ms
    if connection.disconnected_at_ms is not None:
        return max(state.now_ms - connection.disconnected_at_ms, 0)
    if standing(connection, state.edges, state.now_ms, state.rules.presence) is Standing.GONE:
        edge = state.edges[connection.edge]
        replaced = edge.edge_instance != connection.edge_instance
        return max(state.now_ms - (edge.instance_since_ms if replaced else edge.last_seen_ms), 0)
    return None


def _unreachable(state: State, connection: Connection | None) -> bool:
    if connection is None:
        return False
    return standing(connection, state.edges, state.now_ms, state.rules.presence) is Standing.UNREACHABLE
