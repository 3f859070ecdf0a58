"""Station clocks (§3.2): both times are kept, and a time is shifted on live frames only."""

from __future__ import annotations

from typing import Any

import pytest

from services.sessions.clock import station_ms
from tests.unit.services.sessions.world import HOUR, MINUTE, T0, Station2x, Station16, World, iso

YEAR = 365 * 24 * HOUR


def accepting() -> World:
    world = World()
    world.token("TAG", allow_concurrent=True)
    return world


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-11-21T08:00:00Z", 0),
        ("2025-11-21T08:00:00.123Z", 123),
        ("2025-11-21T08:00:00.123456789Z", 123),
        ("2025-11-21T09:00:00+01:00", 0),
        ("2025-11-21T08:00:00", 0),
        ("2025-11-21 08:00:00", 0),
        ("2025-11-20T24:00:00Z", -8 * HOUR),
    ],
)
def test_timestamps_are_read_leniently(text: str, expected: int) -> None:
    """§3.2 no zone, space instead of T, >3 decimals, "24:00"."""
    assert station_ms(text) == T0 + expected


@pytest.mark.parametrize("text", ["", "yesterday", None, 5, [], {}, "2025-13-01T00:00:00Z", "2025-11-21"])
def test_what_is_no_timestamp_is_none(text: Any) -> None:
    assert station_ms(text) is None


def test_an_unreadable_timestamp_gives_way_to_the_receive_time() -> None:
    world, station = accepting(), Station16()
    call = station.start()
    call.payload["timestamp"] = "soon"
    event = world.batch(call).event
    assert (event["at"], event["station_at"], event["received_at"]) == (T0 + 100, None, T0 + 100)
    assert event["flags"] == ["timestamp_unreadable"]


@pytest.mark.parametrize("offset", [-55 * YEAR, -20 * YEAR, 3 * YEAR])
def test_a_live_2x_frame_of_an_unset_clock_is_shifted_to_when_it_was_received(offset: int) -> None:
    """§3.2 1970 / 2000 / future year clocks."""
    world, station = accepting(), Station2x()
    call = station.started(100.0, offset, late=-offset + 100)
    event = world.batch(call).event
    assert (event["at"], event["station_at"], event["received_at"]) == (T0 + 100, T0 + offset, T0 + 100)
    assert event["started_at"] == T0 + 100
    assert event["points"][0]["at"] == T0 + 100
    assert "clock_shifted" in event["flags"]
    assert world.rows[0].station_ms == T0 + offset


def test_a_buffered_frame_of_an_unset_clock_is_not_shifted() -> None:
    world, station = accepting(), Station2x()
    offset = -55 * YEAR
    event = world.batch(station.started(100.0, offset, late=-offset, offline=True)).event
    assert (event["at"], event["started_at"]) == (T0 + offset, T0 + offset)
    assert {"clock_implausible", "offline"} <= set(event["flags"])


def test_the_length_of_a_buffered_session_of_an_unset_clock_is_right() -> None:
    world, station = accepting(), Station16()
    offset = -55 * YEAR
    number = world.batch(station.start(100, offset, late=-offset)).reply["transactionId"]
    event = world.batch(station.stop(number, 200, offset + HOUR, late=-offset - HOUR + 1000)).event
    assert event["ended_at"] - event["started_at"] == HOUR


def test_a_session_whose_clock_was_set_while_it_went_on_does_not_last_for_decades() -> None:
    world, station = accepting(), Station2x()
    world.batch(station.started(100.0, -55 * YEAR, late=55 * YEAR, offline=True))
    event = world.batch(station.ended(1, 300.0, HOUR)).event
    assert (event["started_at"], event["ended_at"]) == (T0, T0 + HOUR)
    assert "clock_implausible" in event["flags"]


def test_a_1_6_clock_is_proven_wrong_by_frames_that_keep_our_pace() -> None:
    world, station = accepting(), Station16()
    offset = -55 * YEAR
    number = world.batch(station.start(100, offset, late=-offset)).reply["transactionId"]
    for n in (1, 2, 3):
        at = offset + n * MINUTE
        event = world.batch(station.meter(str(100 + n), at, transaction_id=number, late=-offset)).event
    assert (event["at"], event["station_at"]) == (T0 + 3 * MINUTE, T0 + offset + 3 * MINUTE)
    assert event["started_at"] == T0  # the start was live with the same deviation
    assert "clock_shifted" in event["flags"]


def test_a_1_6_queue_that_is_sent_at_once_proves_nothing() -> None:
    world, station = accepting(), Station16()
    offset = -55 * YEAR
    number = world.batch(station.start(100, offset, late=-offset)).reply["transactionId"]
    for n in (1, 2, 3):
        at = offset + n * MINUTE
        event = world.batch(station.meter(str(100 + n), at, transaction_id=number, late=-at + n)).event
        assert event["at"] == T0 + at


@pytest.mark.parametrize("zone", [-5 * HOUR, HOUR, 2 * HOUR, 5 * HOUR + 45 * MINUTE])
def test_local_time_labelled_as_utc_is_corrected_by_the_zone(zone: int) -> None:
    """§3.2 local time labelled Z: constant offset on live frames in steps of 15 minutes."""
    world, station = accepting(), Station16()
    number = world.batch(station.start(100, zone, late=-zone + 400)).reply["transactionId"]
    for n in range(1, 5):
        call = station.meter(str(100 + n), zone + n * MINUTE, transaction_id=number, late=-zone + 300 + n)
        event = world.batch(call).event
    assert event["at"] == T0 + 4 * MINUTE
    assert event["started_at"] == T0
    assert "clock_zone" in event["flags"]
    ended = world.batch(station.stop(number, 500, zone + HOUR, late=-zone + 100)).event
    assert (ended["ended_at"], ended["energy_wh"]) == (T0 + HOUR, 400)


def test_a_clock_that_is_right_again_is_believed_again() -> None:
    world, station = accepting(), Station2x()
    world.batch(station.started(100.0, HOUR, late=-HOUR))
    assert "clock_zone" in world.flags()
    event = world.batch(station.updated(1, 110.0, 2 * MINUTE)).event
    assert event["at"] == T0 + 2 * MINUTE
    assert world.load([]).station("CS1").clock.shift_ms == 0


def test_a_frame_that_was_delayed_for_minutes_is_not_shifted() -> None:
    world, station = accepting(), Station2x()
    event = world.batch(station.started(100.0, 0, late=20 * MINUTE)).event
    assert (event["at"], event["flags"]) == (T0, [])


def test_an_end_before_the_begin_does_not_give_a_negative_session() -> None:
    world, station = accepting(), Station16()
    number = world.batch(station.start(100, HOUR)).reply["transactionId"]
    event = world.batch(station.stop(number, 200, 10 * MINUTE, late=90 * MINUTE)).event
    assert event["ended_at"] >= event["started_at"]
    assert "clock_implausible" in event["flags"]


def test_the_time_of_a_row_is_readable_to_the_last_year() -> None:
    world, station = accepting(), Station16()
    for text in ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"):
        call = station.start(connector=int(text[0]) + 1)
        call.payload["timestamp"] = text
        assert world.batch(call).event["station_at"] is not None
        call = station.meter("5", connector=0)
        call.payload["meterValue"][0]["timestamp"] = text
        world.batch(call)
    assert iso(0) == "2025-11-21T08:00:00.000Z"
