"""Stations that are remembered between batches."""

from __future__ import annotations

from services.sessions.cache import StationCache
from services.sessions.core import apply
from services.sessions.decoding import event_of
from tests.unit.services.sessions.world import HOUR, MINUTE, Station2x, Station16, World


def remembering() -> World:
    world = World(cached=True)
    world.token("TAG")
    return world


def test_events_of_a_known_session_ask_the_database_nothing() -> None:
    world, station = remembering(), Station2x()
    world.batch(station.started(100.0))
    before = world.queries
    for n in range(1, 5):
        world.batch(station.updated(n, 100.0 + n, n * MINUTE))
    assert world.queries == before


def test_a_batch_that_was_not_committed_is_forgotten() -> None:
    world, station = remembering(), Station2x()
    world.batch(station.started(100.0))
    call = station.updated(1, 150.0, MINUTE)
    lost = world.load([event_of(call)])
    apply(lost, event_of(call))  # folded, and then the commit fails
    assert world.batch(call).event["energy_wh"] == 50
    assert len(world.rows) == 2


def test_a_session_that_is_over_is_looked_up_again_when_it_is_named() -> None:
    world, station = remembering(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    world.batch(station.stop(number, 2000))
    before = world.queries
    assert world.batch(station.stop(number, 2000)).events == []
    assert world.queries > before
    assert world.batch(station.start(1000)).reply["transactionId"] == number


def test_what_is_forgotten_is_loaded_again() -> None:
    world, station = remembering(), Station2x()
    world.batch(station.started(100.0))
    assert world.cache is not None
    world.cache.forget()
    assert len(world.cache) == 0
    assert world.batch(station.updated(1, 150.0, MINUTE)).event["energy_wh"] == 50


def test_no_more_stations_are_kept_than_the_limit() -> None:
    world = remembering()
    world.cache = StationCache(limit=10)
    for n in range(50):
        world.batch(Station16(f"CS{n}").start(1000))
        assert len(world.cache) <= 10
    world.batch(*(Station16(f"CT{n}").start(1000) for n in range(25)))
    world.batch(Station16("CS1").stop(-1, 1500))
    assert [s.state for s in world.all_sessions() if s.station_id == "CS1"] == ["ended"]


def test_a_changed_configuration_reaches_a_remembered_station() -> None:
    world, station = remembering(), Station16()
    world.token("TAG", allowed_sites=["north"])
    assert world.batch(station.authorize("TAG")).reply["idTagInfo"]["status"] == "Invalid"
    assert world.cache is not None
    world.cache.configure("CS1", ("north", {"max_power_w": 11_000}))
    world.cache.configure("CS9", ("north", {}))
    assert world.batch(station.authorize("TAG", HOUR)).reply["idTagInfo"]["status"] == "Accepted"


def test_what_is_remembered_is_not_stored_again_unless_it_changes() -> None:
    world, station = remembering(), Station2x()
    world.batch(station.started(100.0))
    call = station.authorize("TAG", ms=MINUTE)
    state = world.load([event_of(call)])
    apply(state, event_of(call))
    assert list(state.changed_sessions()) == []
    assert [each.station_id for each in state.stations.values() if each.changed] == []


def test_transaction_ids_that_were_asked_for_in_vain_are_not_kept() -> None:
    world, station = remembering(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    assert world.cache is not None
    assert world.cache.take(["CS1"])[0].looked_up == {str(number)}
