"""The router as the stream runtime sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from busbar.records import Record, Result
from busbar.stream.interfaces import StoreCall
from services.router import metrics, store
from services.router.core import Rules, State, apply
from services.router.events import Event, KnownStage, Stage, StageReported
from services.router.presence import Edge, Standing, lost_before
from services.router.records import TOPICS, read_record, write_outcome
from services.router.watch import EdgeWatch

_SHARE = 1_000


class OwnStages:
    """Remembers the stages that this process wrote, which come back on `csms.command-events`.

    The tables have them already, so that neither needs to be loaded. What is forgotten, or was written by another
    process, is folded like anything else and changes nothing.
    """

    def __init__(self, size: int = 20_000) -> None:
        self._size = size
        self._young: set[tuple[str, str, int]] = set()
        self._old: set[tuple[str, str, int]] = set()

    def wrote(self, stage: Stage) -> None:
        """Remember a stage that goes out."""
        self._young.add((stage.command_id, stage.stage, stage.at_ms))
        if len(self._young) >= self._size:
            self._old, self._young = self._young, set()

    def knows(self, event: StageReported) -> bool:
        """Whether the record is one of ours."""
        key = event.command_id, event.stage, event.at_ms
        return event.source == "router" and (key in self._young or key in self._old)


def wall_clock_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


class RouterProcessor:
    """Folds connections, edges and commands of the partitions that it is given.

    Args:
        clock: Unix milliseconds; tests give their own.
    """

    group = "router"
    topics: Sequence[str] = TOPICS

    def __init__(self, rules: Rules, *, edge_silent_ms: int = 15_000, clock: Callable[[], int] = wall_clock_ms) -> None:
        self._rules = rules
        self._clock = clock
        self._watch = EdgeWatch(edge_silent_ms)
        self._own = OwnStages()

    def decode(self, record: Record) -> Event:
        """Read a record. Raises `InvalidRecord`."""
        event = read_record(record)
        if isinstance(event, StageReported) and self._own.knows(event):
            return KnownStage(event.partition)
        return event

    async def load(self, connection: Any, events: Sequence[Event]) -> State:
        """Load the stations, edges and commands of these events."""
        return await store.load(connection, events, self._clock(), self._rules)

    def fold(self, state: State, event: Event) -> Iterable[Result]:
        """Apply one event."""
        results = []
        for outcome in apply(state, event):
            if isinstance(outcome, Stage):
                self._own.wrote(outcome)
            results.append(write_outcome(outcome))
        return results

    def store_call(self, state: State) -> StoreCall:
        """What changed, to be written in the statement that moves the offsets."""
        return store.store_call(state)

    async def store(self, connection: Any, state: State) -> None:
        """Write what changed, where that is not done by `store_call`."""
        await store.save(connection, state)

    def committed(self, state: State) -> None:
        """The batch of this state is committed: it counts."""
        metrics.count_batch(state)

    async def due(self, connection: Any, partitions: Sequence[int], now_ms: int) -> Sequence[Event]:
        """Edges that fell silent, stations whose edge died or came back, old sockets to close, overdue commands."""
        edges = await store.edges(connection)
        metrics.show_edges(edges.values())
        silent = self._watch.look(edges.values(), partitions, now_ms)
        stations: list[Event] = [
            *await self._lost(connection, edges, partitions, now_ms),
            *await self._found(connection, edges, partitions, now_ms),
            *await store.closes_due(connection, partitions, now_ms),
        ]
        commands = await store.commands_due(connection, partitions, now_ms)
        # A thousand of each: a dead edge with many stations must not keep commands waiting.
        due: dict[str, Sequence[Event]] = {
            "edges": silent,
            "stations": list(dict.fromkeys(stations))[:_SHARE],
            "commands": commands[:_SHARE],
        }
        for kind, events in due.items():
            metrics.DUE.labels(kind).inc(len(events))
        return [event for events in due.values() for event in events]

    async def _lost(
        self, connection: Any, edges: dict[str, Edge], partitions: Sequence[int], now_ms: int
    ) -> list[Event]:
        events: list[Event] = []
        for edge, instance in await store.holding_edges(connection):
            bound, _ = lost_before(edges.get(edge), instance, now_ms, self._rules.presence)
            if bound > 0:
                events += await store.lost_stations(connection, edge, instance, partitions, bound)
        return events

    async def _found(
        self, connection: Any, edges: dict[str, Edge], partitions: Sequence[int], now_ms: int
    ) -> list[Event]:
        events: list[Event] = []
        for edge, instance in await store.unreachable_edges(connection):
            bound, lost = lost_before(edges.get(edge), instance, now_ms, self._rules.presence)
            # Heard of again, or gone for good; if it is silent still, there is nothing new.
            if bound <= 0 or lost is Standing.GONE:
                events += await store.unreachable_stations(connection, edge, instance, partitions)
        return events

    def partition_of_event(self, event: Event) -> int:
        """The partition whose owner folds this event."""
        return event.partition
