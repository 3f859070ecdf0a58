"""Reservations on a real PostgreSQL: kept with their station, found by the clock, bound to sessions that are over."""

from __future__ import annotations

from typing import Any

import pytest

from busbar.ocpp.versions import Version
from services.sessions.processor import SessionsProcessor
from tests.integration.sessions.test_pricing import configure
from tests.integration.sessions.test_pricing import connection as connection  # the fixture
from tests.integration.sessions.test_store import PARTITIONS, Service
from tests.unit.services.sessions.world import HOUR, MINUTE, T0, Operator, Station2x, Station16

HALF = 30 * MINUTE
GRACE = 5 * MINUTE


async def begin(connection: Any) -> None:
    await connection.execute("TRUNCATE sessions.reservations, sessions.reservation_updates")
    await configure(connection, "A", "0.50", "token_group", "fleet")


async def due(service: Service, ms: int) -> None:
    """Let the clock come to a time."""
    events: Any = await service.processor.due(service.connection, range(PARTITIONS), T0 + ms)
    if events:
        await service.batch(*events)


@pytest.mark.parametrize("remembers", [False, True])
async def test_it_stands_in_the_table_with_its_tariff_until_it_is_used(connection: Any, remembers: bool) -> None:
    await begin(connection)
    service, station = Service(connection, remembers=remembers), Station16()
    command, answer = Operator(Version.V16, raw=True).reserve(0, HOUR)
    await service.batch(command)
    await service.batch(answer)
    row = await connection.fetchrow("SELECT * FROM sessions.reservations")
    assert (row["station_id"], row["reservation_id"], row["status"], row["evse_id"]) == ("CS1", 7, "reserved", 1)
    assert (row["made_at"].timestamp(), row["expires_at"].timestamp()) == (T0 / 1000, (T0 + HOUR) / 1000)
    # The group is that of the token in the configuration, and the zone that of the site.
    assert (row["tariff_id"], row["tariff_version"], row["time_zone"]) == ("A", 1, "Europe/Berlin")
    await service.batch(station.start(1000, HALF, reservationId=7))
    row = await connection.fetchrow("SELECT * FROM sessions.reservations")
    session_id = await connection.fetchval("SELECT session_id FROM sessions.transactions")
    assert (row["status"], row["session_id"], row["ended_at"].timestamp()) == ("used", session_id, (T0 + HALF) / 1000)
    assert [event["trigger"] for event in service.events] == ["Accepted", "Used", "StartTransaction"]
    assert service.events[-1]["reserved_at"] == T0
    await due(service, 9 * HOUR)
    assert len(service.events) == 3


@pytest.mark.parametrize("remembers", [False, True])
async def test_the_clock_finds_one_that_has_expired(connection: Any, remembers: bool) -> None:
    await begin(connection)
    service = Service(connection, remembers=remembers)
    await service.batch(*Operator(Version.V201, raw=True).reserve(0, HOUR))
    await due(service, HOUR + GRACE - 1)
    assert len(service.events) == 1
    await due(service, HOUR + GRACE)
    assert (service.events[-1]["state"], service.events[-1]["ended_at"]) == ("expired", T0 + HOUR)
    assert await connection.fetchval("SELECT status FROM sessions.reservations") == "expired"
    await due(service, HOUR + GRACE)
    assert len(service.events) == 2


@pytest.mark.parametrize("remembers", [False, True])
async def test_an_answer_that_is_read_late_finds_the_session_that_is_over(connection: Any, remembers: bool) -> None:
    await begin(connection)
    service, station = Service(connection, remembers=remembers), Station2x()
    await service.batch(station.started(0, HALF, state="Charging", reservationId=7), station.ended(1, 5000, HOUR))
    command, answer = Operator(Version.V201, raw=True).reserve(0, HOUR)
    await service.batch(answer)
    await Service(connection).batch(command)  # of another process
    row = await connection.fetchrow("SELECT * FROM sessions.reservations")
    assert (row["status"], row["session_id"]) == (
        "used",
        await connection.fetchval("SELECT session_id FROM sessions.transactions"),
    )


async def test_what_fails_to_commit_is_done_again(connection: Any) -> None:
    await begin(connection)
    service = Service(connection, remembers=True)
    command, answer = Operator(Version.V16, raw=True).reserve(0, HOUR)
    await service.batch(command)
    await service.batch(answer, commit=False)
    service.processor.lost()
    await service.batch(answer)
    assert [event["event_id"].rpartition("/")[2] for event in service.events] == ["1"]


async def test_a_worker_of_the_version_before_can_still_store(connection: Any) -> None:
    """The new parameter has a default: workers are exchanged one by one."""
    service = Service(connection)
    start = service.processor.decode(service.record(Station16().start()))
    assert start is not None
    events = [start]
    state = await service.processor.load(connection, events)
    for event in events:
        list(service.processor.fold(state, event))
    call = service.processor.store_call(state)
    arguments = call.arguments[:-1]
    places = ", ".join(f"${index + 1}" for index in range(len(arguments)))
    await connection.execute(f"SELECT {call.function}({places})", *arguments)
    assert await connection.fetchval("SELECT count(*) FROM sessions.transactions") == 1


def test_sessions_reads_commands_and_their_outcomes() -> None:
    assert {"csms.commands", "csms.command-events"} <= set(SessionsProcessor.topics)
