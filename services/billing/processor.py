"""The billing service as the stream runtime sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from busbar.avro import InvalidAvro, decode_call
from busbar.records import Record, Result
from busbar.stream.interfaces import InvalidRecord, StoreCall
from busbar.tariffs import TariffBook
from services.billing import metrics
from services.billing.core import apply, look, make_facts, needs_facts, take, unplug
from services.billing.decoding import Event, read_event
from services.billing.model import QUIET_MS, RESERVATION, Charge, Partition, Policy, Quiet, State, add_batch
from services.billing.reservations import fold_reservation
from services.billing.store import (
    UNPLUGGED,
    due_charges,
    load_cdrs,
    load_charges,
    load_cost_quirks,
    load_facts,
    load_journal,
    store_call,
)
from services.billing.telling import Look
from services.billing.unplugged import DATA_TRANSFER_TOPIC, Unplugged, read_unplugged

SESSION_EVENTS_TOPIC = "csms.session-events"
TOPICS = (SESSION_EVENTS_TOPIC, DATA_TRANSFER_TOPIC)
_CONFIGURATION_SECONDS = 5.0
_MOST_CHARGES = 50_000
_MANY = 2_000
"""Observations that are not loaded and priced anew for every event."""
_MOST_QUIRKS = 200_000

Heard = Event | Look | Quiet | Unplugged | None
"""What a batch is made of; `None` for a DataTransfer that says nothing of a cost."""


class BillingProcessor:
    """Folds the events of sessions into what they cost, and into charge detail records.

    Sessions that go on stay in memory. What is handed to a batch leaves it and comes back once the batch is committed;
    whatever else happens, it is loaded again.

    Args:
        book: The tariffs and sites that are configured.
    """

    group = "billing"
    topics: Sequence[str] = TOPICS

    def __init__(
        self,
        book: TariffBook,
        policy: Policy | None = None,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._book = book
        self._policy = policy or Policy()
        self._partitions: dict[int, Partition] = {}
        self._next_configuration = 0.0
        self._now_ms = now_ms
        self._cost_quirks: dict[str, str] = {}
        self._asked_quirks: set[str] = set()

    def decode(self, record: Record) -> Event | Unplugged | None:
        if record.topic == DATA_TRANSFER_TOPIC:
            try:
                return read_unplugged(decode_call(record.value or b""), record.partition)
            except InvalidAvro as error:
                raise InvalidRecord("undecodable", str(error)) from error
        return read_event(record.value or b"", record.partition)

    async def load(self, connection: Any, events: Sequence[Heard]) -> State:
        if time.monotonic() >= self._next_configuration:
            self._next_configuration = time.monotonic() + _CONFIGURATION_SECONDS
            await self._book.refresh(connection)
            self._asked_quirks.clear()
        state = State(self._book, self._policy, now_ms=self._now_ms(), cost_quirks=self._cost_quirks)
        by_partition: dict[int, dict[str, list[Event]]] = {}
        for event in events:
            if event is None:
                continue
            sessions = by_partition.setdefault(event.partition, {})
            if isinstance(event, Event) and event.head.session_id:
                sessions.setdefault(event.head.session_id, []).append(event)
        unknown = []
        for number in by_partition:
            known = self._partitions.pop(number, None)
            if known is None:
                unknown.append(number)
            state.partitions[number] = Partition(number) if known is None else known
        for event in events:
            if isinstance(event, Quiet):
                state.partitions[event.partition].due_ms = event.since_ms
        await self._load_partitions(connection, state, unknown)
        for event in events:
            if isinstance(event, Unplugged):
                await self._find_unplugged(connection, state, event, by_partition[event.partition])
        await self._load_sessions(connection, state, by_partition)
        await self._load_quirks(connection, events)
        return state

    async def _find_unplugged(
        self, connection: Any, state: State, event: Unplugged, sessions: dict[str, list[Event]]
    ) -> None:
        """The session of a car that was unplugged, to be loaded with the others."""
        name = (event.station_id, event.transaction_id)
        for session_id, charge in state.partitions[event.partition].charges.items():
            if (charge.head.station_id, charge.head.transaction_id) == name:
                state.unplugged[name] = session_id
        if name not in state.unplugged:
            found = await connection.fetchval(UNPLUGGED, *name)
            if found is None:
                return
            state.unplugged[name] = str(found)
        sessions.setdefault(state.unplugged[name], [])

    async def _load_quirks(self, connection: Any, events: Sequence[Heard]) -> None:
        """How the stations of sessions with a tariff are told what they cost; asked again with the configuration."""
        unknown = {event.head.station_id for event in events if isinstance(event, Event) and event.head.tariff_id}
        unknown |= {event.station_id for event in events if isinstance(event, Unplugged)}
        unknown -= self._asked_quirks
        if not unknown:
            return
        if len(self._cost_quirks) > _MOST_QUIRKS:
            self._cost_quirks.clear()
        for station_id in unknown:
            self._cost_quirks.pop(station_id, None)
        self._cost_quirks.update(await load_cost_quirks(connection, unknown))
        self._asked_quirks |= unknown

    async def _load_partitions(self, connection: Any, state: State, numbers: Sequence[int]) -> None:
        """What the journal holds of partitions that are new here."""
        if not numbers:
            return
        journal = [
            (state.partitions[number], batch, [read_event(raw, number) for raw in values])
            for number, batch, values in await load_journal(connection, numbers)
        ]
        ids = {event.head.session_id for _, _, events in journal for event in events}
        charges = await load_charges(connection, ids)
        for partition, batch, events in journal:
            partition.batch = batch
            touched = []
            for event in events:
                session_id = event.head.session_id
                charge = charges.get(session_id)
                if charge is None:
                    charge = charges[session_id] = Charge(event.head)
                if event.sequence > charge.sequence:
                    take_again(charge, event)
                    partition.charges[session_id] = charge
                    touched.append(charge)
            add_batch(partition, touched, 0)
            partition.batch = batch + 1

    async def _load_sessions(
        self, connection: Any, state: State, by_partition: dict[int, dict[str, list[Event]]]
    ) -> None:
        """The sessions that the batch needs, with facts and records where they will be needed."""
        unknown = {
            session_id: state.partitions[number]
            for number, sessions in by_partition.items()
            for session_id in sessions
            if session_id not in state.partitions[number].charges
        }
        for session_id, charge in (await load_charges(connection, unknown)).items():
            unknown[session_id].charges[session_id] = charge
        whole: list[Charge] = []
        recorded: list[Charge] = []
        tariffs = set()
        for number, sessions in by_partition.items():
            partition = state.partitions[number]
            few = sum(map(len, sessions.values())) <= self._policy.few_events
            priced = set()
            for session_id, events in sessions.items():
                found = partition.charges.get(session_id)
                for event in events:
                    head = event.head
                    if head.tariff_id:
                        priced.add(session_id)
                        tariffs.add((head.tariff_id, head.tariff_version))
                    for change in event.frame.changes:
                        tariffs.add(change[1:])
                if found is not None:
                    is_needed = False
                    if not events:  # nothing is heard of it but that its car was unplugged
                        tariffs |= tariffs_of(found)
                        is_needed = bool(found.written) and found.loaded is None
                    elif session_id in priced:
                        make_facts(found)
                        is_needed = needs_facts(found, events) or (few and found.written < _MANY and _is_inexact(found))
                    if is_needed:
                        whole.append(found)
                    if found.cdr_id and found.standing is None:
                        recorded.append(found)
            for charge in due_charges(partition, self._policy.journal_batches):
                tariffs |= tariffs_of(charge)
                if (charge.head.tariff_id or charge.head.session_id in priced) and _is_inexact(charge):
                    whole.append(charge)
        await load_facts(connection, whole)
        await load_cdrs(connection, recorded)
        await self._book.load(connection, (each for each in tariffs if each[0]))

    def fold(self, state: State, event: Heard) -> Iterable[Result]:
        match event:
            case Event():
                return fold_reservation(state, event) if event.kind == RESERVATION else apply(state, event)
            case Look():
                return look(state, event)
            case Unplugged():
                return unplug(state, event)
            case Quiet() | None:
                return ()

    def store_call(self, state: State) -> StoreCall:
        """Everything in one call, whatever the size of the batch."""
        return store_call(state)

    async def store(self, connection: Any, state: State) -> None:
        call = self.store_call(state)
        places = ", ".join(f"${index + 1}" for index in range(len(call.arguments)))
        await connection.execute(f"SELECT {call.function}({places})", *call.arguments)

    def committed(self, state: State) -> None:
        """The batch of this state is committed: it counts, and the next one need not load it again."""
        metrics.count(state)
        for written in state.written:
            written.due, written.loaded = False, None
        for number, partition in state.partitions.items():
            charges = partition.charges
            for session_id in [event.head.session_id for event in partition.events] + [*partition.changed]:
                charge = charges.get(session_id)
                if charge is not None and _is_over(charge):
                    del charges[session_id]
            partition.events.clear()
            partition.changed.clear()
            partition.due_ms = None
            if len(partition.charges) > _MOST_CHARGES:
                partition.charges = {key: each for key, each in partition.charges.items() if each.since is not None}
            self._partitions[number] = partition

    def lost(self) -> None:
        """Partitions are not owned any more, or what the last commit did is not known: keep nothing."""
        self._partitions.clear()

    async def due(self, connection: Any, partitions: Sequence[int], now_ms: int) -> Sequence[Look | Quiet]:
        """Sessions whose stations may have to be told a cost by the clock, and partitions whose rows have waited."""
        found: list[Look | Quiet] = []
        for number in partitions:
            partition = self._partitions.get(number)
            if partition is None:  # nothing has come of it since it was taken over
                found.append(Quiet(number, 0))
                continue
            found += [Look(number, session_id, at_ms) for at_ms, session_id in partition.looks.due(now_ms)]
            oldest = next(iter(partition.begun.values()), None)
            if oldest is not None and now_ms - oldest[0] >= QUIET_MS:
                found.append(Quiet(number, now_ms - QUIET_MS))
        return found

    def partition_of_event(self, event: Event | Look | Quiet | Unplugged) -> int:
        return event.partition


def take_again(charge: Charge, event: Event) -> None:
    """Fold an event of the journal: what it led to is committed."""
    if event.kind == "unattributed":
        charge.sequence = event.sequence
    else:
        take(charge, event)


def tariffs_of(charge: Charge) -> set[tuple[str, int]]:
    """Everything that a session is or was priced with."""
    return {charge.head.tariff[:2], *(change[1:] for change in charge.frame.changes)}


def _is_inexact(charge: Charge) -> bool:
    """Its price takes observations that are not at hand."""
    return not charge.feed.exact and bool(charge.written) and charge.loaded is None


def _is_over(charge: Charge) -> bool:
    """Few events follow, if any: it is loaded again for them."""
    return charge.since is None and (charge.final or charge.state == "joined")
