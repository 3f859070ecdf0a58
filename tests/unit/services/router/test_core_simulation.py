"""The router's fold in a world that loses edges, moves stations, repeats and delays records."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import given as hypothesis_given
from hypothesis import settings
from hypothesis import strategies as st

from services.router.core import State, apply
from services.router.events import (
    TERMINAL_STAGES,
    Close,
    ConnectionChanged,
    Dispatch,
    Event,
    Outcome,
    Stage,
)
from services.router.presence import Standing, standing
from tests.unit.services.router.given import (
    T0,
    connected,
    disconnected,
    due,
    heard,
    read_back,
    reported,
    requested,
)


@dataclass
class World:
    """Two edges and a few stations around the fold; everything that they say reaches it late, and some of it twice."""

    random: Random
    state: State = field(default_factory=lambda: State(T0))
    instances: dict[str, int] = field(default_factory=lambda: {"edge-0": 1, "edge-1": 1})
    alive: dict[str, bool] = field(default_factory=lambda: {"edge-0": True, "edge-1": True})
    sockets: dict[str, ConnectionChanged] = field(default_factory=dict)
    under_way: list[tuple[int, Event]] = field(default_factory=list)
    outcomes_seen: dict[str, str] = field(default_factory=dict)
    dispatched: set[tuple[str, str]] = field(default_factory=set)
    count: int = 0

    @property
    def now(self) -> int:
        return self.state.now_ms

    def say(self, event: Event) -> None:
        for _ in range(2 if self.random.random() < 0.2 else 1):
            self.under_way.append((self.now + self.random.choice((5, 50, 900, 2_500)), event))

    def step(self) -> None:
        self.state.now_ms += 500
        for edge, living in self.alive.items():
            if living:
                self.say(heard(edge, f"i{self.instances[edge]}", at=self.now))
        self.act()
        ready = [item for item in self.under_way if item[0] <= self.now]
        self.under_way = [item for item in self.under_way if item[0] > self.now]
        for _, event in sorted(ready, key=lambda item: item[0]):
            self.fold(event)
        for event in due(self.state, silent_ms=5_000):
            self.fold(event)

    def act(self) -> None:
        match self.random.randrange(12):
            case 0 | 1 | 2:
                self.connect(self.random.choice(("CS-1", "CS-2")))
            case 3:
                self.leave()
            case 4 | 5 | 6 | 7:
                self.request()
            case 8:
                self.kill(self.random.choice(("edge-0", "edge-1")))
            case 9 | 10:
                self.revive()

    def connect(self, station: str) -> None:
        living = [edge for edge, alive in self.alive.items() if alive]
        if living:
            edge = self.random.choice(living)
            self.count += 1
            opened = connected(
                f"conn-{self.count}",
                station=station,
                edge=edge,
                instance=f"i{self.instances[edge]}",
                edge_partition=int(edge[-1]),
                at=self.now,
            )
            self.sockets[opened.connection_id] = opened
            self.say(opened)

    def leave(self) -> None:
        if self.sockets:
            opened = self.sockets.pop(self.random.choice(sorted(self.sockets)))
            self.say(disconnected(opened, at=self.now))

    def kill(self, edge: str) -> None:
        self.alive[edge] = False
        self.sockets = {name: opened for name, opened in self.sockets.items() if opened.edge != edge}

    def revive(self) -> None:
        for edge, alive in self.alive.items():
            if not alive:
                self.alive[edge] = True
                self.instances[edge] += 1
                self.say(heard(edge, f"i{self.instances[edge]}", at=self.now, event="started"))

    def request(self) -> None:
        self.count += 1
        self.say(
            requested(
                f"cmd-{self.count}",
                station=self.random.choice(("CS-1", "CS-2")),
                at=self.now,
                within=self.random.choice((1, 2_000, 10_000)),
                park=self.random.random() < 0.4,
            )
        )

    def fold(self, event: Event) -> None:
        for outcome in apply(self.state, event):
            self.obey(outcome)
        for command in self.state.commands.values():
            if command.outcome is not None:
                first = self.outcomes_seen.setdefault(command.command_id, command.outcome)
                assert command.outcome == first, "an outcome is for ever"
                assert command.review_at_ms is None
            else:
                assert command.review_at_ms is not None, "a command without an outcome is looked at again"

    def obey(self, outcome: Outcome) -> None:
        match outcome:
            case Dispatch():
                self.deliver(outcome)
            case Close():
                if self.sockets.pop(outcome.connection_id, None) is not None:
                    self.say(disconnected(self.find(outcome.station_id, outcome.connection_id), at=self.now))
            case Stage():
                if outcome.stage in TERMINAL_STAGES:
                    assert self.state.commands[outcome.command_id].outcome == outcome.stage
                self.say(read_back(outcome))

    def find(self, station: str, connection_id: str) -> ConnectionChanged:
        known = self.state.stations[station].find(connection_id)
        assert known is not None
        return connected(
            connection_id,
            station=station,
            edge=known.edge,
            instance=known.edge_instance,
            at=known.connected_at_ms,
        )

    def deliver(self, call: Dispatch) -> None:
        assert call.deadline_at_ms > self.now, "nothing goes out after its deadline"
        assert (call.command_id, call.connection_id) not in self.dispatched, "not where it may have been sent"
        self.dispatched.add((call.command_id, call.connection_id))
        known = self.state.stations[call.station_id].find(call.connection_id)
        assert known is not None
        assert known.open
        rules = self.state.rules.presence
        assert standing(known, self.state.edges, self.now, rules) is Standing.ALIVE, "not to a void connection"
        if not self.alive[known.edge] or known.edge_instance != f"i{self.instances[known.edge]}":
            return
        ids = {"command_id": call.command_id, "station": call.station_id}
        if call.connection_id not in self.sockets or self.random.random() < 0.1:
            self.dispatched.discard((call.command_id, call.connection_id))
            self.say(reported("undelivered", call.connection_id, at=self.now, **ids))  # type: ignore[arg-type]
            return
        self.say(reported("sent", call.connection_id, at=self.now, **ids))  # type: ignore[arg-type]
        end = self.random.choice(("answered", "error", "timeout", "disconnected", ""))
        if end:
            self.say(reported(end, call.connection_id, at=self.now + 1, payload="{}", **ids))  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@hypothesis_given(st.integers(0, 2**32))
def test_no_command_is_without_an_outcome_and_none_has_two(seed: int) -> None:
    world = World(Random(seed))
    for _ in range(80):
        world.step()
    commands = set(world.state.commands)
    world.act = lambda: None  # type: ignore[method-assign]
    for _ in range(80):
        world.step()
    assert commands
    for command in world.state.commands.values():
        assert command.outcome in TERMINAL_STAGES, command


@settings(max_examples=25, deadline=None)
@hypothesis_given(st.integers(0, 2**32))
def test_when_the_world_comes_to_rest_presence_is_the_truth(seed: int) -> None:
    world = World(Random(seed))
    for _ in range(60):
        world.step()
    world.revive()
    world.act = lambda: None  # type: ignore[method-assign]
    for _ in range(150):
        world.step()
    for station in world.state.stations.values():
        held = {name for name, opened in world.sockets.items() if opened.station_id == station.station_id}
        open_ones = {c.connection_id for c in station.connections if c.open and not c.unreachable}
        assert open_ones == held
        assert len(held) <= 1, "older connections were told to close"
