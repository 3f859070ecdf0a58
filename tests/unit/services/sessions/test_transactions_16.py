"""StartTransaction, StopTransaction and MeterValues of 1.6."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest

from services.sessions.decoding import event_of
from services.sessions.model import make_uuid
from tests.unit.services.sessions.world import HOUR, MINUTE, T0, Station16, World, iso


def world_with_token() -> World:
    world = World()
    world.token("TAG")
    return world


def test_a_session_goes_from_start_over_meter_values_to_stop() -> None:
    world, station = world_with_token(), Station16()
    started = world.batch(station.start(1000))
    number = started.reply["transactionId"]
    assert started.reply["idTagInfo"]["status"] == "Accepted"
    updated = world.batch(station.meter("1250.5", MINUTE, transaction_id=number))
    ended = world.batch(station.stop(number, 2500, HOUR, reason="EVDisconnected"))
    assert (updated.reply, ended.reply) == ({}, {})
    assert [out.event["kind"] for out in (started, updated, ended)] == ["started", "updated", "ended"]
    assert [out.event["state"] for out in (started, updated, ended)] == ["open", "open", "ended"]
    event = ended.event
    assert (event["energy_wh"], event["energy_rung"]) == (Decimal("1500"), "meter_start_stop")
    assert (event["register_begin_wh"], event["register_end_wh"]) == (1000, 2500)
    assert (event["started_at"], event["ended_at"]) == (T0, T0 + HOUR)
    assert (event["final"], event["complete"], event["stop_reason"], event["flags"]) == (
        True,
        True,
        "EVDisconnected",
        [],
    )
    assert updated.event["energy_wh"] == Decimal("250.5")


def test_the_transaction_id_is_a_positive_31_bit_number_that_a_replay_gives_again() -> None:
    numbers = set()
    for meter in range(200):
        number = world_with_token().batch(Station16().start(meter)).reply["transactionId"]
        assert number == world_with_token().batch(Station16().start(meter)).reply["transactionId"]
        assert 0 < number < 2**31
        numbers.add(number)
    assert len(numbers) == 200


def test_a_transaction_id_that_another_transaction_of_the_station_has_is_not_given_again() -> None:
    world, station = world_with_token(), Station16()
    event = event_of(station.start(1000))
    taken = event.candidates[0]  # type: ignore[union-attr]
    world.batch(station.start(5, connector=2))
    other = world.all_sessions()[0]
    other.transaction_id, other.session_id = taken, make_uuid("CS1", taken, 1)
    state = world.load([])
    state.station("CS1").add(other)
    other.change = 2
    world.sessions.clear()
    world.save(state)
    reply = world.batch(station.start(1000)).reply
    assert str(reply["transactionId"]) == event.candidates[1]  # type: ignore[union-attr]
    assert len(world.all_sessions()) == 2


def test_a_resent_start_gets_the_same_id_and_stores_nothing_twice() -> None:
    """§3.2 duplicate StartTransaction, new messageId."""
    world, station = world_with_token(), Station16()
    first = world.batch(station.start(1000))
    again = world.batch(station.start(1000, late=300_000))
    other_case = world.batch(station.start(1000, tag="tag"))
    assert first.reply["transactionId"] == again.reply["transactionId"] == other_case.reply["transactionId"]
    assert first.reply["idTagInfo"]["status"] == again.reply["idTagInfo"]["status"]
    assert (again.events, again.samples, other_case.events) == ([], [], [])
    assert len(world.rows) == 1
    assert len(world.all_sessions()) == 1


def test_a_resent_start_after_the_stop_is_still_the_same_session() -> None:
    """20-day replay loops of a station that never gets an answer."""
    world, station = world_with_token(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    world.batch(station.stop(number, 1500))
    for _ in range(3):
        out = world.batch(station.start(1000, late=20 * 24 * HOUR))
        assert out.reply["transactionId"] == number
        out_stop = world.batch(station.stop(number, 1500, late=20 * 24 * HOUR))
        assert out.events == out_stop.events == []
    assert len(world.rows) == 2


@pytest.mark.parametrize("change", [{"connector": 2}, {"tag": "OTHER"}, {"meter": 1001}, {"ms": 1}])
def test_a_start_that_differs_in_its_business_key_is_another_transaction(change: dict[str, Any]) -> None:
    world, station = world_with_token(), Station16()
    first = world.batch(station.start()).reply
    second = world.batch(station.start(**change)).reply
    assert first["transactionId"] != second["transactionId"]
    assert len(world.all_sessions()) == 2


def test_a_rejected_start_gets_an_id_of_its_own_and_its_energy_is_recorded() -> None:
    """W-M4: rejected starts share no id and append to no common record."""
    world, station = World(), Station16()
    replies = [world.batch(station.start(1000 * n, n * HOUR, tag=f"X{n}", connector=n)).reply for n in (1, 2, 3)]
    numbers = [reply["transactionId"] for reply in replies]
    assert [reply["idTagInfo"] for reply in replies] == [{"status": "Invalid"}] * 3
    assert len(set(numbers)) == 3
    assert all(number > 0 for number in numbers)
    for n, number in enumerate(numbers, 1):
        out = world.batch(station.stop(number, 1000 * n + n, 4 * HOUR))
        assert out.event["energy_wh"] == n
        assert out.event["authorization_status"] == "Unknown"
        assert "unauthorized" in out.event["flags"]


def test_a_resent_stop_is_answered_the_same_and_told_once() -> None:
    world, station = world_with_token(), Station16()
    number = world.batch(station.start()).reply["transactionId"]
    first = world.batch(station.stop(number, idTag="TAG"))
    again = world.batch(station.stop(number, idTag="TAG", late=5000))
    assert first.reply["idTagInfo"]["status"] == again.reply["idTagInfo"]["status"] == "Accepted"
    assert (again.events, again.samples) == ([], [])


def test_a_second_stop_with_other_content_is_kept_and_changes_no_energy() -> None:
    world, station = world_with_token(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    world.batch(station.stop(number, 2000))
    out = world.batch(station.stop(number, 9000, 2 * HOUR))
    assert (out.event["kind"], out.event["energy_wh"]) == ("corrected", 1000)
    assert "stop_conflict" in out.event["flags"]
    assert orjson.loads(world.rows[-1].payload)["meterStop"] == 9000
    assert world.batch(station.stop(number, 2000)).events == []


def test_a_stop_without_id_tag_is_answered_without_id_tag_info() -> None:
    world, station = world_with_token(), Station16()
    number = world.batch(station.start()).reply["transactionId"]
    assert world.batch(station.stop(number)).reply == {}


def test_a_stop_without_reason_was_local() -> None:
    """§3.2 stop reason absent (1.6 = Local), reason not in enum."""
    world, station = world_with_token(), Station16()
    number = world.batch(station.start()).reply["transactionId"]
    assert world.batch(station.stop(number)).event["stop_reason"] == "Local"
    number = world.batch(station.start(5000, 2 * HOUR)).reply["transactionId"]
    assert world.batch(station.stop(number, 6000, 3 * HOUR, reason="VendorSays")).event["stop_reason"] == "VendorSays"


@pytest.mark.parametrize("number", [4711, -1, 0, 2**63 - 1, -(2**63) + 1, None])
def test_a_stop_of_an_unknown_transaction_is_answered_and_kept_as_an_orphan(number: Any) -> None:
    """§3.2 StopTransaction unknown id, id -1, 0, 2^63-1, null: never CALLERROR."""
    world, station = world_with_token(), Station16()
    out = world.batch(station.stop(number, 77_000, HOUR, idTag="TAG", reason="Reboot"))
    assert out.reply["idTagInfo"]["status"] == "Accepted"
    assert (out.event["kind"], out.event["state"], out.event["final"]) == ("orphaned", "orphan", False)
    assert "start_missing" in out.event["flags"]
    assert out.event["register_end_wh"] == 77_000
    assert out.event["stop_reason"] == "Reboot"
    assert orjson.loads(world.rows[-1].payload)["meterStop"] == 77_000
    again = world.batch(station.stop(number, 77_000, HOUR, idTag="TAG", reason="Reboot", late=MINUTE))
    assert (again.reply["idTagInfo"]["status"], again.events) == ("Accepted", [])
    assert len(world.all_sessions()) == 1


def test_orphans_with_the_same_unusable_id_are_kept_apart() -> None:
    world, station = World(), Station16()
    for meter in (100, 200, 300):
        assert world.batch(station.stop(-1, meter)).event["kind"] == "orphaned"
    assert len({session.session_id for session in world.all_sessions()}) == 3


@pytest.mark.parametrize("number", [-1, 0, 2**63 - 1])
def test_a_stop_without_id_ends_the_open_start_of_its_station(number: int) -> None:
    """§3.2 1.6 offline start: transactionId unknown to station, stop/meter sent with -1 or 0 until conf arrives."""
    world, station = world_with_token(), Station16()
    world.batch(station.start(1000))
    world.batch(station.meter("1400", MINUTE, transaction_id=number))
    out = world.batch(station.stop(number, 1900, HOUR, idTag="TAG"))
    assert (out.event["kind"], out.event["energy_wh"]) == ("ended", 900)
    assert "matched_without_id" in out.event["flags"]
    assert world.batch(station.stop(number, 1900, HOUR, idTag="TAG", late=MINUTE)).events == []
    assert world.session().state == "ended"


def test_of_two_open_transactions_a_stop_without_id_ends_the_one_that_its_meter_fits() -> None:
    world, station = world_with_token(), Station16()
    world.token("TAG", allow_concurrent=True)
    world.batch(station.start(1000, connector=1))
    world.batch(station.start(900_000, connector=2))
    out = world.batch(station.stop(-1, 901_500, HOUR))
    assert (out.event["evse_id"], out.event["energy_wh"]) == (2, 1500)
    out = world.batch(station.stop(-1, 1_800, HOUR))
    assert (out.event["evse_id"], out.event["energy_wh"]) == (1, 800)


def test_a_stop_without_id_ends_the_transaction_of_its_token_before_others() -> None:
    world, station = World(), Station16()
    world.token("A")
    world.token("B")
    world.batch(station.start(1000, connector=1, tag="A"))
    world.batch(station.start(1000, connector=2, tag="B"))
    assert world.batch(station.stop(-1, 1500, idTag="b")).event["evse_id"] == 2
    assert world.batch(station.stop(-1, 1500)).event["evse_id"] == 1


def test_a_stop_without_id_that_fits_nothing_open_is_an_orphan() -> None:
    world, station = world_with_token(), Station16()
    world.batch(station.start(50_000, ms=HOUR))
    assert world.batch(station.stop(-1, 100, 2 * HOUR)).event["kind"] == "orphaned"  # below the register
    assert world.batch(station.stop(-1, 60_000, 0)).event["kind"] == "orphaned"  # before the start
    assert world.batch(station.stop(-1, 60_000, 2 * HOUR, idTag="SOMEONE")).event["kind"] == "orphaned"


def test_a_foreign_id_does_not_end_a_transaction_whose_id_the_station_knows() -> None:
    world, station = world_with_token(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    world.batch(station.meter("1400", MINUTE, transaction_id=number))
    assert world.batch(station.stop(4711, 1900, HOUR, idTag="TAG")).event["kind"] == "orphaned"
    assert world.batch(station.stop(number, 1900, HOUR, idTag="TAG")).event["kind"] == "ended"


def test_a_stop_before_its_start_is_joined_when_the_start_arrives() -> None:
    """§3.2 StopTransaction before StartTransaction (queues): hold orphan, join when start arrives."""
    world, station = world_with_token(), Station16()
    world.batch(station.stop(-1, 3000, HOUR, idTag="TAG", late=0))
    out = world.batch(station.start(1000, 0, late=2 * HOUR))
    assert out.reply["transactionId"] > 0
    session = next(each for each in world.all_sessions() if each.started)
    assert (session.state, session.energy.total_uwh) == ("ended", 2_000_000_000)
    assert (session.started_ms, session.ended_ms) == (T0, T0 + HOUR)
    orphan = next(each for each in world.all_sessions() if not each.started)
    assert (orphan.state, orphan.joined_to, orphan.energy.total_uwh) == ("joined", session.session_id, 0)
    assert [(e["kind"], e["state"], e["final"]) for e in out.events] == [
        ("started", "open", False),
        ("ended", "ended", True),
        ("corrected", "joined", True),
    ]
    assert world.batch(station.stop(-1, 3000, HOUR, idTag="TAG", late=9000)).events == []


def test_a_stop_with_the_id_of_a_start_that_is_folded_later_is_joined_by_the_id() -> None:
    world, station = world_with_token(), Station16()
    number = int(event_of(station.start(1000)).candidates[0])  # type: ignore[union-attr]
    world.batch(station.meter("1500", MINUTE, transaction_id=number))
    world.batch(station.stop(number, 3000, HOUR))
    out = world.batch(station.start(1000))
    assert out.reply["transactionId"] == number
    assert (out.event["kind"], out.event["energy_wh"], out.event["state"]) == ("ended", 2000, "ended")
    assert out.event["flags"] == []
    assert len(world.all_sessions()) == 1


def test_an_orphan_is_not_joined_to_a_start_that_came_after_it() -> None:
    world, station = world_with_token(), Station16()
    world.batch(station.stop(-1, 3000, 0))
    world.batch(station.start(1000, HOUR))
    assert sorted(session.state for session in world.all_sessions()) == ["open", "orphan"]


def test_a_start_on_an_occupied_connector_closes_the_older_transaction_with_its_last_sample() -> None:
    """§3.2 two transactions on one connector (lost stop)."""
    world, station = world_with_token(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    world.batch(station.meter("1700", 10 * MINUTE, transaction_id=number))
    out = world.batch(station.start(2000, HOUR, tag="NEXT"))
    assert out.kinds[:2] == ["ended", "started"]
    closed = out.events[0]
    assert (closed["state"], closed["final"], closed["complete"]) == ("closed", True, False)
    assert (closed["energy_wh"], closed["ended_at"]) == (700, T0 + 10 * MINUTE)
    assert {"stop_missing", "closed_by_next_start"} <= set(closed["flags"])
    assert out.reply["idTagInfo"]["status"] == "Invalid"


def test_a_late_stop_wins_over_the_close_by_the_next_start() -> None:
    """§3.2 if a late stop comes, it wins."""
    world, station = world_with_token(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    world.batch(station.meter("1700", 10 * MINUTE, transaction_id=number))
    world.batch(station.start(2000, HOUR))
    late = world.batch(station.stop(number, 1950, 50 * MINUTE, late=20 * HOUR))
    event = late.events[0]
    assert (event["kind"], event["state"], event["energy_wh"]) == ("corrected", "ended", 950)
    assert (event["ended_at"], event["complete"], event["final"]) == (T0 + 50 * MINUTE, True, True)
    assert "late_stop" in event["flags"]
    assert "stop_missing" not in event["flags"]
    assert world.batch(station.stop(number, 1950, 50 * MINUTE, late=21 * HOUR)).events == []


def test_a_late_stop_without_id_finds_the_transaction_that_was_closed_without_one() -> None:
    world, station = world_with_token(), Station16()
    world.batch(station.start(1000))
    world.batch(station.start(5000, 2 * HOUR))
    out = world.batch(station.stop(-1, 4000, HOUR, late=3 * HOUR))
    assert (out.events[0]["kind"], out.events[0]["energy_wh"]) == ("corrected", 3000)
    assert {"late_stop", "matched_without_id"} <= set(out.events[0]["flags"])


def test_an_older_start_that_was_buffered_does_not_close_the_newer_one() -> None:
    world, station = world_with_token(), Station16()
    newer = world.batch(station.start(5000, 2 * HOUR)).reply["transactionId"]
    older = world.batch(station.start(1000, 0, late=3 * HOUR)).reply["transactionId"]
    world.batch(station.stop(older, 4000, HOUR, late=3 * HOUR))
    world.batch(station.stop(newer, 9000, 4 * HOUR))
    by_id = {session.transaction_id: session for session in world.all_sessions()}
    assert by_id[str(newer)].energy.total_uwh == 4_000_000_000
    assert by_id[str(older)].energy.total_uwh == 3_000_000_000
    assert {session.state for session in by_id.values()} == {"ended"}


def test_other_connectors_are_not_closed_by_a_start() -> None:
    world, station = world_with_token(), Station16()
    world.batch(station.start(1000, connector=1))
    out = world.batch(station.start(1000, HOUR, connector=2))
    assert out.kinds == ["started"]


def test_meter_values_without_transaction_id_belong_to_the_only_open_transaction_of_their_connector() -> None:
    """§3.2 MeterValues without transactionId during a transaction."""
    world, station = world_with_token(), Station16()
    world.batch(station.start(1000, connector=1))
    assert world.batch(station.meter("1200", MINUTE, connector=1)).event["energy_wh"] == 200
    other = world.batch(station.meter("99", MINUTE, connector=2))
    assert (other.events, other.reply, other.samples[0]["session_id"]) == ([], {}, "")
    assert [row.in_session for row in world.rows] == [True, True, False]


def test_meter_values_of_connector_0_belong_to_no_transaction() -> None:
    """§3.2 connectorId 0 MeterValues (main meter)."""
    world, station = world_with_token(), Station16()
    world.batch(station.start(1000))
    out = world.batch(station.meter("777777", MINUTE, connector=0))
    assert (out.events, out.reply, out.samples[0]["evse_id"]) == ([], {}, 0)
    assert world.session().energy.readings == 1


def test_meter_values_are_folded_once_however_often_and_late_they_are_sent() -> None:
    world, station = world_with_token(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    for n in range(1, 100):
        world.batch(station.meter(str(1000 + n), n * MINUTE, transaction_id=number))
    for n in (1, 50, 99):
        out = world.batch(station.meter(str(1000 + n), n * MINUTE, transaction_id=number, late=HOUR))
        assert (out.reply, out.events, out.samples) == ({}, [], [])
    out = world.batch(station.meter("5", 0, connector=0), station.meter("5", 0, connector=0))
    assert len(out.samples) == 1
    assert world.batch(station.meter("5", 0, connector=0)).samples == []


def test_meter_values_behind_the_stop_correct_nothing_unless_they_change_the_energy() -> None:
    world, station = world_with_token(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    world.batch(station.stop(number, 2000))
    out = world.batch(station.meter("2000", HOUR + MINUTE, transaction_id=number))
    assert (out.events, len(out.samples)) == ([], 1)
    inside = world.batch(station.meter("1500", 30 * MINUTE, transaction_id=number))
    assert (inside.event["kind"], inside.event["energy_wh"]) == ("corrected", 1000)


def test_meter_values_of_an_unknown_transaction_begin_an_incomplete_session() -> None:
    world, station = World(), Station16()
    world.batch(station.meter("100", 0, transaction_id=4711))
    out = world.batch(station.meter("150", MINUTE, transaction_id=4711))
    assert (out.event["state"], out.event["energy_wh"], out.event["started_at"]) == ("incomplete", 50, None)


@pytest.mark.parametrize("stop", [0, 900])
def test_a_meter_stop_of_zero_or_below_meter_start_gives_way_to_the_last_good_register(stop: int) -> None:
    """§3.2 meterStop < meterStart, meterStop 0 after reboot."""
    world, station = world_with_token(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    world.batch(station.meter("1600.5", MINUTE, transaction_id=number))
    event = world.batch(station.stop(number, stop)).event
    assert (event["energy_wh"], event["energy_rung"]) == (Decimal("600.5"), "samples")
    assert "meter_stop_invalid" in event["flags"]
    assert event["register_end_wh"] == Decimal("1600.5")


def test_a_register_that_restarts_with_each_session_counts_for_each() -> None:
    """§3.2 register restarts at 0 per session (meterStart 0 each time): legal in effect."""
    world, station = world_with_token(), Station16()
    for n in range(3):
        number = world.batch(station.start(0, n * 2 * HOUR)).reply["transactionId"]
        event = world.batch(station.stop(number, 5000, n * 2 * HOUR + HOUR)).events[0]
        assert event["energy_wh"] == 5000
    assert world.unattributed_wh() == 0


def test_transaction_data_fills_the_session() -> None:
    world, station = world_with_token(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    data = [
        {"timestamp": iso(0), "sampledValue": [{"value": "1000.2", "context": "Transaction.Begin"}]},
        {"timestamp": iso(30 * MINUTE), "sampledValue": [{"value": "1500", "context": "Sample.Clock"}]},
        {"timestamp": iso(HOUR), "sampledValue": [{"value": "1999.9", "context": "Transaction.End"}]},
    ]
    out = world.batch(station.stop(number, 1999, transactionData=data))
    assert (out.event["energy_wh"], out.event["energy_rung"]) == (Decimal("999.7"), "transaction_registers")
    assert [point["at"] - T0 for point in out.event["points"]] == [0, 30 * MINUTE, HOUR, HOUR]
    assert len(out.samples[0]["samples"]) == 4


def test_the_token_is_stored_as_it_was_sent_and_compared_without_case() -> None:
    """§3.2 idTag empty / >20 chars / case differs."""
    world, station = World(), Station16()
    world.token("abcDEF")
    out = world.batch(station.start(tag="ABCdef"))
    assert out.reply["idTagInfo"]["status"] == "Accepted"
    assert out.event["id_token"] == "ABCdef"
    long = "x" * 300
    assert world.batch(station.start(tag=long, connector=2)).event["id_token"] == long
    assert world.batch(station.start(tag="", connector=3)).reply["idTagInfo"]["status"] == "Invalid"


def test_the_reservation_is_told() -> None:
    world, station = world_with_token(), Station16()
    assert world.batch(station.start(reservationId=7)).event["reservation_id"] == 7


def test_negative_registers_and_stations_without_meter_do_no_harm() -> None:
    world, station = world_with_token(), Station16()
    number = world.batch(station.start(-5)).reply["transactionId"]
    assert world.batch(station.stop(number, 10)).event["energy_wh"] == 15
    number = world.batch(station.start(2**62, 2 * HOUR)).reply["transactionId"]
    event = world.batch(station.stop(number, 2**62 + 5, 3 * HOUR)).event
    assert (event["energy_rung"], event["energy_wh"]) == ("none", 0)
    assert "unreadable" in event["flags"]


def test_meter_values_with_a_foreign_id_do_not_belong_to_a_transaction_whose_id_the_station_knows() -> None:
    world, station = world_with_token(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    world.batch(station.meter("1100", MINUTE, transaction_id=number))
    out = world.batch(station.meter("99999", 2 * MINUTE, transaction_id=4711))
    assert out.event["transaction_id"] == "4711"
    assert {s.transaction_id: s.energy.total_uwh for s in world.all_sessions()}[str(number)] == 100_000_000


def test_a_joined_stop_that_comes_again_under_another_unusable_id_is_known() -> None:
    world, station = world_with_token(), Station16()
    world.batch(station.stop(-1, 3000, HOUR, idTag="TAG", late=0))
    world.batch(station.start(1000, 0, late=2 * HOUR))
    out = world.batch(station.stop(0, 3000, HOUR, idTag="TAG", late=2 * HOUR))
    assert out.events == []
    assert len(world.all_sessions()) == 2
