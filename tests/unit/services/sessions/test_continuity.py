"""Registers from one session to the next (§3.4): no Wh is lost, and none is counted twice."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from services.sessions.model import load_station
from tests.unit.services.sessions.world import HOUR, MINUTE, Station2x, Station16, World


def accepting(**policy: Any) -> World:
    world = World(**policy)
    world.token("TAG", allow_concurrent=True)
    return world


def charge(world: World, station: Station16, begin: int, end: int, ms: int, *, connector: int = 1) -> None:
    number = world.batch(station.start(begin, ms, connector=connector)).reply["transactionId"]
    world.batch(station.stop(number, end, ms + HOUR))


def sum_of_sessions(world: World) -> Decimal:
    return Decimal(sum(session.energy.total_uwh for session in world.all_sessions())) / 1_000_000


def test_sessions_that_follow_on_leave_nothing_unattributed() -> None:
    world, station = accepting(), Station16()
    for n in range(5):
        charge(world, station, 1000 * n, 1000 * (n + 1), 2 * n * HOUR)
    assert world.unattributed_wh() == 0


def test_energy_between_two_sessions_is_told_as_unattributed() -> None:
    world, station = accepting(), Station16()
    charge(world, station, 1000, 2000, 0)
    charge(world, station, 2300, 3000, 2 * HOUR)
    event = next(event for event in world.out.events if event["kind"] == "unattributed")
    assert (event["energy_wh"], event["register_begin_wh"], event["register_end_wh"]) == (300, 2000, 2300)
    assert event["evse_id"] == 1
    assert sum_of_sessions(world) + world.unattributed_wh() == 2000
    assert load_station("CS1", world.stations["CS1"]).unattributed_uwh == 300_000_000


def test_each_connector_has_a_register_of_its_own() -> None:
    world, station = accepting(), Station16()
    charge(world, station, 1000, 2000, 0, connector=1)
    charge(world, station, 900_000, 901_000, 0, connector=2)
    charge(world, station, 2000, 2500, 3 * HOUR, connector=1)
    charge(world, station, 901_000, 901_500, 3 * HOUR, connector=2)
    assert world.unattributed_wh() == 0


def test_a_gap_up_to_the_tolerance_is_counted_and_not_told() -> None:
    world, station = accepting(unattributed_tolerance_uwh=5_000_000), Station16()
    charge(world, station, 1000, 2000, 0)
    charge(world, station, 2005, 3000, 2 * HOUR)
    charge(world, station, 3006, 4000, 4 * HOUR)
    assert [event["energy_wh"] for event in world.out.events if event["kind"] == "unattributed"] == [6]


def test_a_session_that_comes_late_takes_its_energy_back_from_the_gap() -> None:
    world, station = accepting(), Station16()
    charge(world, station, 1000, 2000, 0)
    charge(world, station, 3500, 4000, 6 * HOUR)
    assert world.unattributed_wh() == 1500
    number = world.batch(station.start(2200, 2 * HOUR, late=8 * HOUR)).reply["transactionId"]
    world.batch(station.stop(number, 3200, 3 * HOUR, late=8 * HOUR))
    assert world.unattributed_wh() == 500
    assert sum_of_sessions(world) + world.unattributed_wh() == 3000


def test_a_late_stop_takes_back_what_lay_behind_the_provisional_end() -> None:
    world, station = accepting(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    world.batch(station.meter("1600", 10 * MINUTE, transaction_id=number))
    charge(world, station, 2000, 3000, 2 * HOUR)
    assert world.unattributed_wh() == 400
    world.batch(station.stop(number, 1950, HOUR, late=5 * HOUR))
    assert world.unattributed_wh() == 50
    assert sum_of_sessions(world) + world.unattributed_wh() == 2000


def test_a_register_that_restarts_at_each_session_is_flagged_and_leaves_no_gap() -> None:
    world, station = accepting(), Station16()
    charge(world, station, 0, 5000, 0)
    charge(world, station, 0, 7000, 2 * HOUR)
    assert world.unattributed_wh() == 0
    assert "register_restarted" in world.out.events[-1]["flags"]


def test_a_session_from_before_the_first_known_one_restarts_nothing() -> None:
    world, station = accepting(), Station16()
    charge(world, station, 5000, 6000, 5 * HOUR)
    number = world.batch(station.start(4000, 0, late=7 * HOUR)).reply["transactionId"]
    world.batch(station.stop(number, 5000, HOUR, late=7 * HOUR))
    charge(world, station, 6000, 7000, 9 * HOUR)
    assert world.unattributed_wh() == 0
    assert "register_restarted" not in world.out.events[-1]["flags"]


def test_sessions_unattributed_and_open_energy_add_up_to_the_registers() -> None:
    """The invariant of §3.4, with a gap, a lost stop, a late one and a session that is still open."""
    world, station = accepting(), Station2x()
    first = [station.started(100.25), station.updated(1, 250.5, MINUTE)]  # its Ended is lost
    second = [
        station.started(300.125, 2 * HOUR, transaction_id="b"),
        station.ended(1, 500.5, 3 * HOUR, transaction_id="b"),
    ]
    third = [
        station.started(510.75, 4 * HOUR, transaction_id="c"),
        station.updated(1, 777.777777, 5 * HOUR, transaction_id="c"),
    ]
    world.each([*first, *second, *third])
    assert sum_of_sessions(world) + world.unattributed_wh() == Decimal("777.777777") - Decimal("100.25")
    world.batch(station.ended(2, 299.0, HOUR, late=6 * HOUR))
    assert sum_of_sessions(world) + world.unattributed_wh() == Decimal("777.777777") - Decimal("100.25")
    assert world.unattributed_wh() == Decimal("1.125") + Decimal("10.25")
