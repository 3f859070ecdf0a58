"""Sessions of which nothing is heard, and those that miss events."""

from __future__ import annotations

from typing import Any

import orjson

from services.sessions.decoding import SessionDue
from tests.unit.services.sessions.world import HOUR, MINUTE, T0, Station2x, Station16, World

DAY = 24 * HOUR


def accepting(**policy: Any) -> World:
    world = World(**policy)
    world.token("TAG", allow_concurrent=True)
    return world


def test_a_transaction_of_which_nothing_is_heard_is_closed_with_its_last_register() -> None:
    """§3.4 open transaction watchdog."""
    world, station = accepting(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    world.batch(station.meter("1700", 10 * MINUTE, transaction_id=number))
    assert world.due(DAY + 5 * MINUTE).events == []
    out = world.due(DAY + 11 * MINUTE)
    event = out.event
    assert (event["kind"], event["state"], event["energy_wh"]) == ("ended", "closed", 700)
    assert (event["ended_at"], event["final"], event["complete"]) == (T0 + 10 * MINUTE, True, False)
    assert event["at"] == T0 + DAY + 10 * MINUTE + 100  # the deadline, not when somebody looked
    assert {"closed_by_watchdog", "stop_missing"} <= set(event["flags"])
    assert world.due(3 * DAY).events == []


def test_a_closed_transaction_is_reopened_by_a_late_event() -> None:
    world, station = accepting(), Station2x()
    world.batch(station.started(100.0), station.updated(1, 200.0, MINUTE))
    world.due(2 * DAY)
    out = world.batch(station.updated(2, 900.0, 2 * DAY + HOUR))
    assert (out.event["kind"], out.event["state"], out.event["final"]) == ("corrected", "open", False)
    assert "reopened" in out.event["flags"]
    assert out.event["ended_at"] is None
    out = world.batch(station.ended(3, 1000.0, 2 * DAY + 2 * HOUR))
    assert (out.event["kind"], out.event["final"], out.event["energy_wh"]) == ("corrected", True, 900)
    assert (out.event["complete"], out.event["state"]) == (True, "ended")


def test_a_late_stop_wins_over_the_watchdog() -> None:
    world, station = accepting(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    world.due(2 * DAY)
    out = world.batch(station.stop(number, 4000, HOUR, late=3 * DAY))
    assert (out.event["kind"], out.event["energy_wh"], out.event["complete"]) == ("corrected", 3000, True)
    assert "late_stop" in out.event["flags"]


def test_a_transaction_that_its_station_does_not_speak_of_after_coming_back_is_closed_sooner() -> None:
    world, station = accepting(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    for n in (1, 2, 3):
        world.batch(station.meter(str(1000 + n), n * MINUTE, transaction_id=number))
    station.connection_id = "c2"
    world.batch(station.authorize("TAG", 10 * MINUTE))
    assert world.due(24 * MINUTE).events == []
    out = world.due(26 * MINUTE)
    assert (out.event["state"], out.event["at"]) == ("closed", T0 + 25 * MINUTE)


def test_a_transaction_with_rare_samples_is_given_several_of_its_intervals() -> None:
    world, station = accepting(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    world.batch(station.meter("1001", 15 * MINUTE, transaction_id=number))
    world.batch(station.meter("1002", 30 * MINUTE, transaction_id=number))
    station.connection_id = "c2"
    world.batch(station.authorize("TAG", 40 * MINUTE))
    assert world.due(100 * MINUTE).events == []
    assert world.due(40 * MINUTE + 76 * MINUTE).event["state"] == "closed"


def test_a_transaction_that_goes_on_over_a_new_connection_stays_open() -> None:
    world, station = accepting(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    world.batch(
        station.meter("1001", MINUTE, transaction_id=number), station.meter("1002", 2 * MINUTE, transaction_id=number)
    )
    station.connection_id = "c2"
    world.batch(station.authorize("TAG", 10 * MINUTE), station.meter("1003", 11 * MINUTE, transaction_id=number))
    assert world.due(5 * HOUR).events == []
    assert world.session().state == "open"


def test_the_station_is_asked_before_a_session_with_missing_events_is_final() -> None:
    """§3.1 GetTransactionStatus: E14, ask before closing a bill."""
    world, station = accepting(), Station2x()
    world.batch(station.started(100.0), station.ended(3, 300.0, HOUR))
    asked = world.due(HOUR + 2 * MINUTE)
    command = asked.commands[0]
    assert (command["action"], command["station_id"], command["park"]) == ("GetTransactionStatus", "CS1", True)
    assert orjson.loads(command["payload"]) == {"transactionId": "tx-1"}
    assert command["requested_at"] == T0 + HOUR + MINUTE + 100
    assert asked.events == []
    assert world.session().is_final is False
    out = world.due(HOUR + 16 * MINUTE)
    assert (out.event["kind"], out.event["final"], out.event["complete"]) == ("ended", True, False)
    assert "gap" in out.event["flags"]
    assert [(m["first"], m["last"]) for m in out.event["missing_seq_nos"]] == [(1, 2)]
    assert out.commands == []


def test_missing_events_that_arrive_after_the_question_make_the_session_final_at_once() -> None:
    world, station = accepting(), Station2x()
    world.batch(station.started(100.0), station.ended(2, 300.0, HOUR))
    assert len(world.due(HOUR + 2 * MINUTE).commands) == 1
    out = world.batch(station.updated(1, 200.0, MINUTE, late=HOUR + 2 * MINUTE))
    assert (out.event["kind"], out.event["complete"]) == ("ended", True)
    assert world.due(5 * DAY).events == []


def test_an_ended_whose_started_never_comes_is_final_in_the_end() -> None:
    world, station = accepting(), Station2x()
    world.batch(station.updated(4, 250.0, 50 * MINUTE), station.ended(5, 300.0, HOUR))
    world.due(HOUR + 2 * MINUTE)
    out = world.due(2 * HOUR)
    assert (out.event["final"], out.event["energy_wh"]) == (True, 50)
    assert {"gap", "start_missing"} <= set(out.event["flags"])


def test_what_is_due_is_done_at_the_next_event_as_the_clock_would_have_done_it() -> None:
    """A replay has no clock of the first run: the next event of the station stands in for it."""
    worlds = []
    for clocked in (True, False):
        world, station = accepting(), Station2x()
        world.batch(station.started(100.0), station.ended(2, 300.0, HOUR))
        if clocked:
            world.due(HOUR + 2 * MINUTE)
            world.due(HOUR + 20 * MINUTE)
        world.batch(station.started(300.0, 2 * HOUR, transaction_id="b"))
        worlds.append(world)
    live, replayed = worlds
    assert live.out.commands == replayed.out.commands
    assert live.out.events == replayed.out.events
    assert live.sessions == replayed.sessions


def test_a_look_that_comes_twice_does_nothing_the_second_time() -> None:
    world, station = accepting(), Station16()
    world.batch(station.start(1000))
    session_id = world.session().session_id
    due = SessionDue(0, "CS1", session_id, T0 + 2 * DAY)
    assert len(world.batch(due).events) == 1
    before = dict(world.sessions)
    assert world.batch(due).events == []
    assert world.sessions == before
    assert world.batch(SessionDue(0, "CS1", "00000000-0000-0000-0000-000000000000", T0)).events == []


def test_a_look_before_the_deadline_sets_the_next_one() -> None:
    world, station = accepting(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    world.batch(station.meter("1100", 5 * HOUR, transaction_id=number))
    assert world.session().due_ms == T0 + DAY + 100
    assert world.due(DAY + HOUR).events == []
    assert world.session().due_ms == T0 + DAY + 5 * HOUR + 100


def test_an_event_that_comes_after_the_deadline_finds_the_session_closed_and_reopens_it() -> None:
    world, station = accepting(), Station2x()
    world.batch(station.started(100.0))
    out = world.batch(station.updated(1, 200.0, 3 * DAY))
    assert [(event["kind"], event["state"]) for event in out.events] == [("ended", "closed"), ("corrected", "open")]
