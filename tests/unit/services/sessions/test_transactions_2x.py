"""TransactionEvent and MeterValues of 2.x."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest

from busbar.ocpp.versions import Version
from services.sessions.transactions_2x import add_seq_no, has_seq_no
from tests.unit.services.sessions.world import HOUR, MINUTE, T0, Station2x, World


def world_with_token() -> World:
    world = World()
    world.token("TAG")
    return world


def missing(event: dict[str, Any]) -> list[tuple[int, int]]:
    return [(each["first"], each["last"]) for each in event["missing_seq_nos"]]


@pytest.mark.parametrize("version", [Version.V201, Version.V21])
def test_a_session_goes_from_started_over_updated_to_ended(version: Version) -> None:
    world, station = world_with_token(), Station2x(version)
    started = world.batch(station.started(1234567.5, state="EVConnected"))
    updated = world.batch(station.updated(1, 1235000.25, MINUTE, state="Charging"))
    ended = world.batch(station.ended(2, 1240000.125, HOUR, info={"stoppedReason": "EVDisconnected"}))
    assert started.reply["idTokenInfo"]["status"] == "Accepted"
    assert (updated.reply, ended.reply) == ({}, {})
    assert [out.event["kind"] for out in (started, updated, ended)] == ["started", "updated", "ended"]
    assert [out.event["charging_state"] for out in (started, updated, ended)] == ["EVConnected", "Charging", ""]
    event = ended.event
    assert (event["energy_wh"], event["energy_rung"]) == (Decimal("5432.625"), "samples")
    assert (event["started_at"], event["ended_at"], event["stop_reason"]) == (T0, T0 + HOUR, "EVDisconnected")
    assert (event["final"], event["complete"], event["flags"], missing(event)) == (True, True, [], [])
    assert (event["seq_no"], event["trigger"], event["ocpp_version"]) == (2, "EVDeparted", version.value)


def test_the_evse_is_remembered_from_the_only_event_that_names_it() -> None:
    """§3.1 evse only once per transaction: E01.FR.16."""
    world, station = world_with_token(), Station2x()
    world.batch(station.started(1000.0, evse=3))
    out = world.batch(station.updated(1, 1100.0, MINUTE))
    assert (out.event["evse_id"], out.event["connector_id"]) == (3, 1)
    assert out.samples[0]["evse_id"] == 3


def test_the_token_is_remembered_and_spoken_of_only_where_it_was_sent() -> None:
    """§3.1 idToken only when new."""
    world, station = world_with_token(), Station2x()
    world.batch(station.started())
    out = world.batch(station.updated(1, 5.0, MINUTE))
    assert out.reply == {}
    assert (out.event["id_token"], out.event["id_token_type"]) == ("TAG", "ISO14443")


def test_a_token_that_comes_after_the_cable_starts_the_session_as_well() -> None:
    world, station = world_with_token(), Station2x()
    world.batch(station.event("Started", 0, 0, trigger="CablePluggedIn", evse={"id": 1}))
    token = {"idToken": "TAG", "type": "ISO14443"}
    out = world.batch(station.event("Updated", 1, MINUTE, trigger="Authorized", idToken=token))
    assert out.reply["idTokenInfo"]["status"] == "Accepted"
    assert (out.event["id_token"], out.event["authorization_status"]) == ("TAG", "Accepted")


def test_another_token_may_stop_the_session_and_does_not_become_its_own() -> None:
    world, station = world_with_token(), Station2x()
    world.token("OTHER", group_id="family")
    world.batch(station.started())
    token = {"idToken": "OTHER", "type": "ISO14443"}
    out = world.batch(station.ended(1, None, HOUR, trigger="StopAuthorized", idToken=token))
    assert out.reply["idTokenInfo"]["status"] == "Accepted"
    assert out.reply["idTokenInfo"]["groupIdToken"] == {"idToken": "family", "type": "Central"}
    assert (out.event["id_token"], out.event["stop_id_token"]) == ("TAG", "OTHER")


def test_a_rejected_token_gets_its_status_and_the_energy_is_recorded_all_the_same() -> None:
    world, station = World(), Station2x()
    assert world.batch(station.started(100.0)).reply["idTokenInfo"] == {"status": "Unknown"}
    event = world.batch(station.ended(1, 350.0, HOUR)).event
    assert (event["energy_wh"], event["authorization_status"]) == (250, "Unknown")
    assert "unauthorized" in event["flags"]


def test_a_resent_event_gets_the_same_answer_and_is_stored_once() -> None:
    """§3.2 duplicate TransactionEvent: same content → same answer."""
    world, station = world_with_token(), Station2x()
    calls = [station.started(100.0), station.updated(1, 150.0, MINUTE), station.ended(2, 200.0, HOUR)]
    first = [world.batch(call) for call in calls]
    before = dict(world.sessions)
    for call, out in zip(calls, first, strict=True):
        again = world.batch(call)
        assert again.reply == out.reply
        assert (again.events, again.samples) == ([], [])
    assert world.sessions == before
    assert len(world.rows) == 3


def test_an_event_that_comes_twice_in_one_batch_is_stored_once() -> None:
    world, station = world_with_token(), Station2x()
    call = station.updated(1, 150.0, MINUTE)
    out = world.batch(station.started(100.0), call, call)
    assert out.kinds == ["started", "updated"]
    assert len(world.rows) == 2


def test_two_events_with_one_seq_no_and_other_content_are_both_kept_and_flagged() -> None:
    """§3.2 other content → keep both, flag."""
    world, station = world_with_token(), Station2x()
    world.batch(station.started(100.0), station.updated(1, 150.0, MINUTE))
    out = world.batch(station.updated(1, 180.0, 2 * MINUTE))
    assert (out.event["kind"], out.event["energy_wh"]) == ("updated", 80)
    assert "seq_no_conflict" in out.event["flags"]
    rows = [row for row in world.rows if row.event_key == 1]
    assert len(rows) == 2
    assert orjson.loads(rows[1].payload)["seqNo"] == 1
    for call in (station.updated(1, 180.0, 2 * MINUTE), station.updated(1, 150.0, MINUTE)):
        assert world.batch(call).events == []


def test_an_ended_under_a_seq_no_that_was_used_before_still_ends_the_session() -> None:
    world, station = world_with_token(), Station2x()
    world.batch(station.started(100.0), station.updated(1, 150.0, MINUTE))
    out = world.batch(station.ended(1, 400.0, HOUR))
    assert (out.event["kind"], out.event["energy_wh"]) == ("ended", 300)


def test_events_in_any_order_give_the_session_that_they_give_in_order() -> None:
    station = Station2x()
    calls = [
        station.started(100.0),
        station.updated(1, 150.0, MINUTE, state="Charging"),
        station.updated(2, 170.0, 2 * MINUTE, state="SuspendedEV"),
        station.ended(3, 200.0, HOUR),
    ]
    for order in ((3, 2, 1, 0), (1, 0, 3, 2), (2, 3, 0, 1)):
        other = world_with_token()
        other.each(calls[index] for index in order)
        session = other.session()
        assert (session.state, session.energy.total_uwh, session.flags) == ("ended", 100_000_000, 0)
        assert (session.evse_id, session.id_token, session.charging_state) == (1, "TAG", "SuspendedEV")
        assert (session.started_ms, session.ended_ms) == (T0, T0 + HOUR)
        assert [event["kind"] for event in other.out.events].count("ended") == 1


def test_an_updated_before_its_started_makes_an_incomplete_session_that_is_filled_later() -> None:
    """§3.2 2.x Updated/Ended before Started: create transaction in state "incomplete", fill later."""
    world, station = world_with_token(), Station2x()
    out = world.batch(station.updated(1, 150.0, MINUTE))
    assert (out.event["state"], out.event["started_at"], out.event["final"]) == ("incomplete", None, False)
    out = world.batch(station.started(100.0))
    assert (out.event["kind"], out.event["state"], out.event["energy_wh"]) == ("started", "open", 50)
    assert out.event["charging_state"] == ""


def test_an_ended_without_its_started_waits_for_it() -> None:
    world, station = world_with_token(), Station2x()
    out = world.batch(station.ended(2, 300.0, HOUR))
    assert (out.event["kind"], out.event["state"], out.event["final"]) == ("updated", "ending", False)
    assert world.batch(station.started(100.0, late=HOUR + 5 * MINUTE)).events[-1]["state"] == "ending"
    out = world.batch(station.updated(1, 200.0, MINUTE, late=HOUR + 5 * MINUTE))
    assert (out.event["kind"], out.event["energy_wh"], out.event["complete"]) == ("ended", 200, True)


def test_gaps_between_seq_nos_are_told_until_they_are_filled() -> None:
    """§3.1 complete = Started … Ended with no gap in seqNo: E 1.3.2."""
    world, station = world_with_token(), Station2x()
    world.batch(station.started(100.0))
    assert missing(world.batch(station.updated(4, 180.0, 4 * MINUTE)).event) == [(1, 3)]
    assert missing(world.batch(station.updated(2, 140.0, 2 * MINUTE)).event) == [(1, 1), (3, 3)]
    out = world.batch(station.ended(6, 300.0, HOUR))
    assert missing(out.event) == [(1, 1), (3, 3), (5, 5)]
    assert (out.event["state"], out.event["final"], out.event["kind"]) == ("ending", False, "updated")
    world.batch(station.updated(1, 120.0, MINUTE), station.updated(5, 200.0, 5 * MINUTE))
    out = world.batch(station.updated(3, 160.0, 3 * MINUTE))
    assert (out.event["kind"], out.event["final"], missing(out.event)) == ("ended", True, [])
    assert out.event["energy_wh"] == 200


def test_a_counter_that_goes_on_over_transactions_leaves_no_gap() -> None:
    """§3.1 seqNo continuous counter over transactions allowed: E 1.3.2."""
    world, station = world_with_token(), Station2x()
    world.batch(station.started(100.0, seq_no=500), station.updated(501, 150.0, MINUTE))
    out = world.batch(station.ended(502, 200.0, HOUR))
    assert (out.event["kind"], out.event["complete"]) == ("ended", True)


def test_a_gap_that_is_filled_after_the_session_was_given_up_is_a_correction() -> None:
    world, station = world_with_token(), Station2x()
    world.batch(station.started(100.0), station.ended(2, 300.0, HOUR))
    world.due(2 * HOUR)
    final = world.due(3 * HOUR)
    session = world.session()
    assert (session.state, session.is_complete) == ("ended", False)
    assert "gap" in (final.events or world.out.events)[-1]["flags"]
    out = world.batch(station.updated(1, 200.0, MINUTE, late=5 * HOUR))
    assert (out.event["kind"], out.event["complete"], out.event["final"]) == ("corrected", True, True)


def test_buffered_events_are_told_as_such() -> None:
    """§3.1 offline=true on buffered events: E12.FR.02."""
    world, station = world_with_token(), Station2x()
    out = world.batch(station.started(100.0, offline=True, late=5 * HOUR))
    assert (out.event["offline"], out.event["at"], out.event["received_at"]) == (True, T0, T0 + 5 * HOUR)
    assert "offline" in out.event["flags"]
    assert world.batch(station.updated(1, 110.0, 5 * HOUR)).event["offline"] is False


def test_a_started_on_an_occupied_evse_closes_the_older_transaction() -> None:
    """§3.2 two transactions on one connector (lost stop)."""
    world, station = world_with_token(), Station2x()
    world.batch(station.started(100.0), station.updated(1, 600.0, 10 * MINUTE))
    out = world.batch(station.started(700.0, HOUR, transaction_id="tx-2"))
    assert out.kinds == ["ended", "started", "unattributed"]
    closed = out.events[0]
    assert (closed["transaction_id"], closed["state"], closed["energy_wh"]) == ("tx-1", "closed", 500)
    late = world.batch(station.ended(2, 650.0, 40 * MINUTE, late=3 * HOUR))
    assert late.kinds == ["corrected", "unattributed"]
    assert (late.events[0]["energy_wh"], late.events[0]["complete"]) == (550, True)
    assert world.unattributed_wh() == 50


def test_an_event_of_a_transaction_that_was_closed_by_the_next_corrects_it_and_does_not_reopen_it() -> None:
    world, station = world_with_token(), Station2x()
    world.batch(station.started(100.0), station.started(700.0, HOUR, transaction_id="tx-2"))
    out = world.batch(station.updated(1, 500.0, 30 * MINUTE, late=2 * HOUR))
    assert (out.events[0]["kind"], out.events[0]["state"], out.events[0]["energy_wh"]) == ("corrected", "closed", 400)
    assert out.events[0]["ended_at"] == T0 + 30 * MINUTE


def test_a_buffered_older_transaction_does_not_close_the_one_that_is_live() -> None:
    world, station = world_with_token(), Station2x()
    world.batch(station.started(900.0, 2 * HOUR, transaction_id="live"))
    out = world.batch(
        station.started(100.0, 0, transaction_id="old", offline=True, late=3 * HOUR),
        station.ended(1, 800.0, HOUR, transaction_id="old", offline=True, late=2 * HOUR),
    )
    assert out.kinds == ["started", "ended"]
    states = {session.transaction_id: session.state for session in world.all_sessions()}
    assert states == {"live": "open", "old": "ended"}


def test_a_transaction_id_that_is_used_again_after_its_end_is_another_session() -> None:
    world, station = world_with_token(), Station2x()
    world.batch(station.started(100.0), station.ended(1, 200.0, HOUR))
    world.batch(station.started(200.0, 2 * HOUR), station.ended(1, 500.0, 3 * HOUR))
    first, second = world.all_sessions()
    assert (first.energy.total_uwh, second.energy.total_uwh) == (100_000_000, 300_000_000)
    assert first.session_id != second.session_id
    assert world.out.events[-1]["flags"] == ["transaction_id_reused"]
    assert world.batch(station.ended(1, 200.0, HOUR, late=9 * HOUR)).events == []
    assert world.batch(station.ended(1, 500.0, 3 * HOUR, late=9 * HOUR)).events == []


def test_the_state_of_a_late_event_is_its_own() -> None:
    world, station = world_with_token(), Station2x()
    world.batch(station.started(100.0), station.updated(3, 180.0, 3 * MINUTE, state="SuspendedEV"))
    out = world.batch(station.updated(2, 160.0, 2 * MINUTE, state="Charging"))
    assert out.event["charging_state"] == "Charging"
    out = world.batch(station.updated(1, 160.0, MINUTE))
    assert out.event["charging_state"] == ""
    assert world.session().charging_state == "SuspendedEV"


def test_power_current_and_charge_of_an_event_are_told() -> None:
    world, station = world_with_token(), Station2x()
    samples = [
        {"value": 500.0},
        {"value": 11.0, "measurand": "Power.Active.Import", "unitOfMeasure": {"unit": "kW"}},
        *({"value": 16.0, "measurand": "Current.Import", "phase": phase} for phase in ("L1", "L2", "L3")),
        {"value": 55.5, "measurand": "SoC"},
    ]
    event = world.batch(station.started(samples=samples)).event
    assert (event["power_w"], event["current_a"], event["soc_percent"]) == (11_000.0, 48.0, 55.5)
    assert event["points"] == [{"at": T0, "register_wh": 500, "power_w": 11_000.0, "current_a": 48.0}]


def test_a_reservation_a_remote_start_and_a_tariff_are_told() -> None:
    world, station = world_with_token(), Station2x(Version.V21)
    out = world.batch(station.started(reservationId=9, info={"remoteStartId": 77, "tariffId": "T-1"}))
    assert (out.event["reservation_id"], out.event["remote_start_id"], out.event["station_tariff_id"]) == (9, 77, "T-1")
    details = {
        "totalCost": {"currency": "EUR", "typeOfCost": "NormalCost", "total": {"exclTax": 1.5}},
        "totalUsage": {"energy": 100.0, "chargingTime": 60, "idleTime": 0},
    }
    out = world.batch(station.ended(1, None, HOUR, costDetails=details))
    assert orjson.loads(out.event["cost_details"]) == details


def test_cost_details_of_any_content_are_told_as_they_came() -> None:
    world, station = world_with_token(), Station2x(Version.V21)
    out = world.batch(station.started(costDetails={"totalCost": 2**80, "x": [None]}))
    assert orjson.loads(out.event["cost_details"].replace(str(2**80), "1")) == {"totalCost": 1, "x": [None]}


def test_meter_values_of_2x_belong_to_the_only_open_transaction_of_their_evse() -> None:
    world, station = world_with_token(), Station2x()
    world.batch(station.started(100.0))
    assert world.batch(station.meter(180.0, MINUTE)).event["energy_wh"] == 80
    assert world.batch(station.meter(5.0, MINUTE, evse=0)).events == []
    assert world.batch(station.meter(5.0, MINUTE, evse=2)).samples[0]["session_id"] == ""


def test_an_event_that_does_not_say_its_transaction_is_answered_and_kept() -> None:
    world, station = world_with_token(), Station2x()
    call = station.event("Updated", 1, 0, 5.0)
    call.payload["transactionInfo"] = {}
    out = world.batch(call)
    assert (out.reply, out.events) == ({}, [])
    assert orjson.loads(world.rows[0].payload) == call.payload
    assert not world.rows[0].in_session


def test_a_reservation_update_is_told_and_answered() -> None:
    world, station = World(), Station2x()
    payload = {"reservationId": 12, "reservationUpdateStatus": "Expired"}
    out = world.batch(station.call("ReservationStatusUpdate", payload, 0))
    assert out.reply == {}
    assert (out.event["kind"], out.event["reservation_id"], out.event["trigger"]) == ("reservation", 12, "Expired")
    assert out.event["session_id"] == ""
    assert [(row.reservation_id, row.status) for row in world.reservations] == [(12, "Expired")]


def test_seq_nos_are_kept_as_ranges() -> None:
    ranges: list[list[int]] = []
    for seq_no in (5, 3, 4, 9, 0, 9, 5, 8):
        add_seq_no(ranges, seq_no)
    assert ranges == [[0, 0], [3, 5], [8, 9]]
    assert [seq_no for seq_no in range(12) if has_seq_no(ranges, seq_no)] == [0, 3, 4, 5, 8, 9]
    for seq_no in range(0, 5000, 2):
        add_seq_no(ranges, seq_no)
    assert len(ranges) <= 500


def test_a_late_event_does_not_reopen_a_transaction_whose_successor_is_over_as_well() -> None:
    world, station = world_with_token(), Station2x()
    world.batch(station.started(100.0), station.started(700.0, HOUR, transaction_id="tx-2"))
    world.batch(station.ended(1, 900.0, 2 * HOUR, transaction_id="tx-2"))
    out = world.batch(station.updated(1, 500.0, 30 * MINUTE, late=3 * HOUR))
    assert (out.events[0]["kind"], out.events[0]["state"]) == ("corrected", "closed")


def test_a_late_higher_register_from_before_a_fall_is_no_later_one() -> None:
    world, station = world_with_token(), Station2x()
    world.batch(station.updated(2, 5.0, 2 * MINUTE), station.updated(0, 100.0, 0), station.updated(1, 150.0, MINUTE))
    out = world.batch(station.updated(3, 30.0, 3 * MINUTE))
    assert out.event["energy_wh"] == 75
    assert "register_fell" in out.event["flags"]


def test_an_event_behind_the_ended_leaves_no_gap_in_the_session() -> None:
    world, station = world_with_token(), Station2x()
    world.batch(station.started(100.0), station.ended(1, 200.0, HOUR))
    out = world.batch(station.updated(5, 200.0, HOUR + MINUTE))
    assert (out.event["complete"], missing(out.event)) == (True, [])
