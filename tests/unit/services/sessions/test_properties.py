"""What holds for any history of any station: duplicates, reordering, losses, late stops, any batches, replays."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from busbar.ocpp.versions import Version
from busbar.records import StationCall
from services.sessions.units import MICRO
from tests.unit.services.sessions.world import HOUR, MINUTE, T0, Station2x, Station16, World

QUICK = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
DAY = 24 * HOUR


def accepting(*, cached: bool = False) -> World:
    world = World(cached=cached)
    world.token("TAG", allow_concurrent=True)
    return world


class History:
    """Sessions of one station on two EVSEs, as the CALLs that a perfect link would carry, and what they add up to."""

    def __init__(self, rng: random.Random, sessions: int) -> None:
        self.rng = rng
        self.calls: list[StationCall] = []
        self.energy_wh: dict[str, Decimal] = {}
        self.registers = {1: Decimal("1234567.891"), 2: Decimal("42.5")}
        self.station = Station2x(rng.choice((Version.V201, Version.V21)))
        for n in range(sessions):
            self._session(f"tx-{n}", 1 + n % 2, n * 3 * HOUR)

    def _session(self, transaction_id: str, evse: int, ms: int) -> None:
        rng, station = self.rng, self.station
        begin = register = self.registers[evse]
        more: dict[str, Any] = {"transaction_id": transaction_id}
        self.calls.append(station.started(float(register), ms, evse=evse, state="Charging", **more))
        updates = rng.randrange(12)
        for n in range(1, updates + 1):
            register += Decimal(rng.randrange(0, 900_000)) / 1000
            self.calls.append(station.updated(n, float(register), ms + n * 5 * MINUTE, **more))
        register += Decimal(rng.randrange(0, 900_000)) / 1000
        self.calls.append(station.ended(updates + 1, float(register), ms + 2 * HOUR, **more))
        self.registers[evse] = register
        self.energy_wh[transaction_id] = register - begin


def check(world: World, history: History) -> None:
    """One session per transaction, ended, with exactly its energy, told as final once."""
    sessions = world.all_sessions()
    assert sorted(session.transaction_id for session in sessions) == sorted(history.energy_wh)
    for session in sessions:
        assert Decimal(session.energy.total_uwh) / MICRO == history.energy_wh[session.transaction_id]
        assert (session.state, session.is_complete) == ("ended", True)
    ended = [event["session_id"] for event in world.out.events if event["kind"] == "ended"]
    assert sorted(ended) == sorted(session.session_id for session in sessions)
    keys = [(row.session_id, row.event_key) for row in world.rows]
    assert len(keys) == len(set(keys)) == len(history.calls)


def reordered(rng: random.Random, calls: list[StationCall], window: int) -> list[StationCall]:
    """The calls with each moved by less than the window."""
    keyed = [(index + rng.uniform(0, window), call) for index, call in enumerate(calls)]
    return [call for _, call in sorted(keyed, key=lambda each: each[0])]


def resent(call: StationCall) -> StationCall:
    """The same CALL with a new message id, as a retry has."""
    return StationCall(
        call.station_id,
        call.connection_id,
        call.edge,
        call.edge_partition,
        call.version,
        call.sequence + 1000,
        f"again-{call.message_id}",
        call.received_at_ms,
        call.action,
        call.payload,
    )


def in_batches(world: World, rng: random.Random, calls: list[StationCall], largest: int = 40) -> None:
    rest = list(calls)
    while rest:
        size = rng.randrange(1, largest + 1)
        world.batch(*rest[:size])
        rest = rest[size:]


@QUICK
@given(st.integers(0, 2**32))
def test_duplicates_and_reordering_give_every_session_once_with_its_exact_energy(seed: int) -> None:
    """5 % duplicates, reordering inside 50, in batches of any size."""
    rng = random.Random(seed)
    history = History(rng, 8)
    calls = [each for call in history.calls for each in ([call, resent(call)] if rng.random() < 0.05 else [call])]
    # Buffered: everything is received at the end, in whatever order.
    for call in calls:
        call.received_at_ms = T0 + DAY
    world = accepting()
    in_batches(world, rng, reordered(rng, calls, 50))
    check(world, history)


@QUICK
@given(st.integers(0, 2**32))
def test_a_started_that_is_lost_costs_no_session_and_no_energy_behind_the_first_register(seed: int) -> None:
    rng = random.Random(seed)
    history = History(rng, 6)
    lost = {f"tx-{n}" for n in range(6) if rng.random() < 0.3}
    calls = [
        call
        for call in history.calls
        if call.payload["eventType"] != "Started" or call.payload["transactionInfo"]["transactionId"] not in lost
    ]
    world = accepting()
    in_batches(world, rng, calls)
    world.due(100 * DAY)
    world.due(200 * DAY)
    for session in world.all_sessions():
        own = [call for call in calls if call.payload["transactionInfo"]["transactionId"] == session.transaction_id]
        values = [Decimal(str(call.payload["meterValue"][0]["sampledValue"][0]["value"])) for call in own]
        assert Decimal(session.energy.total_uwh) / MICRO == values[-1] - values[0]
        assert session.is_final
        assert session.is_complete == (session.transaction_id not in lost)
    assert len(world.all_sessions()) == 6


@QUICK
@given(st.integers(0, 2**32))
def test_stops_that_are_days_late_give_every_session_its_exact_energy(seed: int) -> None:
    rng = random.Random(seed)
    history = History(rng, 6)
    late = [call for call in history.calls if call.payload["eventType"] == "Ended" and rng.random() < 0.5]
    calls = [call for call in history.calls if call not in late]
    world = accepting()
    in_batches(world, rng, calls, 3)
    world.due(2 * DAY)
    for call in late:
        call.received_at_ms = T0 + 4 * DAY
    rng.shuffle(late)
    in_batches(world, rng, late, 3)
    world.due(9 * DAY)
    for session in world.all_sessions():
        assert Decimal(session.energy.total_uwh) / MICRO == history.energy_wh[session.transaction_id]
        assert (session.state, session.is_complete) == ("ended", True)
    last = {}
    for event in world.out.events:
        if event["kind"] != "unattributed":
            last[event["session_id"]] = event
    assert all(event["final"] for event in last.values())
    assert world.unattributed_wh() == 0


@QUICK
@given(st.integers(0, 2**32))
def test_the_size_of_batches_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    calls = reordered(rng, History(rng, 4).calls, 10)
    one_by_one, at_once = accepting(), accepting()
    one_by_one.each(calls)
    at_once.batch(*calls)
    assert one_by_one.sessions == at_once.sessions
    assert one_by_one.stations == at_once.stations
    assert one_by_one.out == at_once.out


@QUICK
@given(st.integers(0, 2**32))
def test_a_worker_that_remembers_stations_does_what_one_does_that_loads_them(seed: int) -> None:
    rng = random.Random(seed)
    history = History(rng, 6)
    calls = [each for call in history.calls for each in ([call, resent(call)] if rng.random() < 0.1 else [call])]
    calls = reordered(rng, calls, 20)
    one = Station16("CP1")
    for n in range(12):
        calls.insert(rng.randrange(len(calls)), one.start(n, n * HOUR))
        calls.insert(rng.randrange(len(calls)), one.stop(rng.choice((-1, 4711, 0)), n + 50, n * HOUR + MINUTE))
        calls.insert(rng.randrange(len(calls)), one.meter(str(n), n * HOUR, transaction_id=rng.choice((None, 4711))))
    loading, remembering = accepting(), accepting(cached=True)
    for world in (loading, remembering):
        in_batches(world, random.Random(seed), calls, 5)
        world.due(9 * DAY)
    assert (loading.sessions, loading.stations) == (remembering.sessions, remembering.stations)
    assert (loading.rows, loading.out) == (remembering.rows, remembering.out)
    assert remembering.queries <= loading.queries


@QUICK
@given(st.integers(0, 2**32))
def test_a_replay_into_empty_tables_gives_the_same_tables_and_events(seed: int) -> None:
    rng = random.Random(seed)
    calls = reordered(rng, History(rng, 5).calls, 20)
    first, second = accepting(), accepting()
    in_batches(first, rng, calls)
    in_batches(second, rng, calls)
    assert (first.sessions, first.stations, first.rows) == (second.sessions, second.stations, second.rows)
    assert first.out.events == second.out.events


@QUICK
@given(st.integers(0, 2**32))
def test_the_same_record_twice_gives_the_same_state_and_the_same_reply(seed: int) -> None:
    rng = random.Random(seed)
    world = accepting()
    for call in reordered(rng, History(rng, 3).calls, 10):
        first = world.batch(call)
        state = (dict(world.sessions), dict(world.stations), len(world.rows))
        second = world.batch(call)
        assert second.replies == first.replies
        assert (second.events, second.samples) == ([], [])
        assert (world.sessions, world.stations, len(world.rows)) == state


@QUICK
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_sessions_of_1_6_in_any_order_within_their_queue_are_exact(seed: int, window: int) -> None:
    rng = random.Random(seed)
    station, world = Station16(), accepting()
    expected: dict[str, int] = {}
    register = 1000
    for n in range(4):
        begin, ms = register, n * 3 * HOUR
        start = station.start(begin, ms, late=DAY)
        number = world.batch(start).reply["transactionId"]
        queue = []
        for m in range(rng.randrange(10)):
            register += rng.randrange(900)
            queue.append(station.meter(str(register), ms + (m + 1) * MINUTE, transaction_id=number, late=DAY))
        register += rng.randrange(900)
        queue.append(station.stop(number, register, ms + HOUR, late=DAY))
        queue += [resent(call) for call in (start, *queue) if rng.random() < 0.1]
        in_batches(world, rng, reordered(rng, queue, window), 5)
        expected[str(number)] = register - begin
    assert {s.transaction_id: s.energy.total_uwh // MICRO for s in world.all_sessions()} == expected
    assert all(session.is_complete for session in world.all_sessions())
    assert world.unattributed_wh() == 0


@QUICK
@given(st.integers(0, 2**32))
def test_sessions_unattributed_and_open_energy_always_add_up_to_the_registers(seed: int) -> None:
    """The invariant of §3.4 over lost events, late events and energy that flows between sessions."""
    rng = random.Random(seed)
    station, world = Station2x(), accepting()
    first = register = Decimal("5000.125")
    late: list[StationCall] = []
    for n in range(6):
        ms = n * 3 * HOUR
        more: dict[str, Any] = {"transaction_id": f"tx-{n}"}
        register += Decimal(rng.choice((0, 0, 0, 250))) / 8 if n else 0
        world.batch(station.started(float(register), ms, **more))
        for m in (1, 2):
            register += Decimal(rng.randrange(900_000)) / 1000
            call = station.updated(m, float(register), ms + m * MINUTE, **more)
            (late.append if rng.random() < 0.2 else world.batch)(call)
        register += Decimal(rng.randrange(900_000)) / 1000
        call = station.ended(3, float(register), ms + HOUR, **more)
        (late.append if rng.random() < 0.3 else world.batch)(call)
    world.batch(station.started(float(register), DAY, transaction_id="last"))
    total = sum(Decimal(session.energy.total_uwh) for session in world.all_sessions()) / MICRO
    assert total + world.unattributed_wh() == register - first
    for call in late:
        call.received_at_ms = T0 + DAY + HOUR
    rng.shuffle(late)
    for call in late:
        world.batch(call)
        total = sum(Decimal(session.energy.total_uwh) for session in world.all_sessions()) / MICRO
        assert total + world.unattributed_wh() == register - first


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        ["", "\0", "2025-11-21T08:00:00Z", "NaN", "1e999", "Started", "Ended", "SignedData", "OCMF|{}|x"]
    ),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)

_NAMES = {
    "Authorize": ["idTag", "idToken", "certificate"],
    "StartTransaction": ["connectorId", "idTag", "meterStart", "timestamp", "reservationId"],
    "StopTransaction": ["transactionId", "idTag", "meterStop", "timestamp", "reason", "transactionData"],
    "MeterValues": ["connectorId", "transactionId", "meterValue", "evseId"],
    "TransactionEvent": [
        "eventType",
        "timestamp",
        "triggerReason",
        "seqNo",
        "transactionInfo",
        "meterValue",
        "evse",
        "idToken",
        "offline",
        "reservationId",
        "costDetails",
    ],
    "ReservationStatusUpdate": ["reservationId", "reservationUpdateStatus"],
}
_INNER = ["timestamp", "sampledValue", "value", "unit", "unitOfMeasure", "multiplier", "signedMeterValue", "format"]
_INNER += ["signedMeterData", "publicKey", "idToken", "type", "id", "connectorId", "transactionId", "chargingState"]
poison = st.recursive(
    json_values,
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(_INNER) | st.text(max_size=5), children, max_size=5)
    ),
    max_leaves=15,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
@pytest.mark.parametrize(
    ("version", "action"),
    [
        (Version.V16, "Authorize"),
        (Version.V16, "StartTransaction"),
        (Version.V16, "StopTransaction"),
        (Version.V16, "MeterValues"),
        (Version.V201, "Authorize"),
        (Version.V201, "TransactionEvent"),
        (Version.V21, "TransactionEvent"),
        (Version.V201, "MeterValues"),
        (Version.V201, "ReservationStatusUpdate"),
    ],
)
def test_any_content_is_answered_once_and_leaves_healthy_sessions_alone(
    version: Version, action: str, data: st.DataObject
) -> None:
    """J01.FR.18, J02.FR.19, 1.6 §4.7, §4.8, §4.10: never a CALLERROR, whatever the content."""
    world = accepting()
    healthy = Station16(station_id="CS1") if version is Version.V16 else Station2x(version)
    if isinstance(healthy, Station16):
        number = world.batch(healthy.start(1000)).reply["transactionId"]
    else:
        world.batch(healthy.started(1000.0))
    payload = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(_NAMES[action], poison)))
    call = Station2x(version).call(action, payload, MINUTE)
    out = world.batch(call)
    assert len(out.replies) == 1
    out = world.batch(healthy.stop(number, 3000) if isinstance(healthy, Station16) else healthy.ended(1, 3000.0, HOUR))
    assert len(out.replies) == 1
    own = [session for session in world.all_sessions() if session.started and session.opened_ms == T0 + 100]
    assert len(own) == 1
