"""BootNotification: registration, intervals, and what a station says of itself."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from busbar.ocpp.versions import Version
from services.stations.policy import Policy, jittered_seconds
from services.stations.state import State, StationSettings
from tests.unit.services.stations.cases import (
    NOW_MS,
    POLICY,
    answer,
    command,
    event,
    fold,
    new_state,
    outbound,
    rows,
)

BOOT_16 = {
    "chargePointVendor": "Voltera",
    "chargePointModel": "Wall 11",
    "chargePointSerialNumber": "SN-1",
    "chargeBoxSerialNumber": "BOX-1",
    "firmwareVersion": "1.9",
    "iccid": "8949",
    "imsi": "2620",
    "meterType": "ELNA",
    "meterSerialNumber": "M-1",
    "vendorThing": {"kept": True},
}
BOOT_2 = {
    "reason": "PowerUp",
    "chargingStation": {
        "vendorName": "Voltera",
        "model": "Hyper 150",
        "serialNumber": "SN-2",
        "firmwareVersion": "7.0",
        "modem": {"iccid": "8949", "imsi": "2620"},
    },
}


def test_a_1_6_boot_fills_the_registry() -> None:
    state = new_state()
    fold(state, event(Version.V16, "BootNotification", BOOT_16))
    station = state.stations["CS-1"]
    assert (station.vendor, station.model, station.serial_number) == ("Voltera", "Wall 11", "SN-1")
    assert (station.charge_box_serial_number, station.meter_type, station.meter_serial_number) == (
        "BOX-1",
        "ELNA",
        "M-1",
    )
    assert (station.modem_iccid, station.modem_imsi, station.firmware_version) == ("8949", "2620", "1.9")
    assert (station.ocpp_version, station.partition, station.boot_count) == ("1.6", 2, 1)
    assert orjson.loads(station.boot or "")["vendorThing"] == {"kept": True}


@pytest.mark.parametrize("version", [Version.V201, Version.V21])
def test_a_2_x_boot_fills_the_registry(version: Version) -> None:
    state = new_state()
    fold(state, event(version, "BootNotification", BOOT_2))
    station = state.stations["CS-1"]
    assert (station.vendor, station.model, station.serial_number) == ("Voltera", "Hyper 150", "SN-2")
    assert (station.modem_iccid, station.modem_imsi, station.boot_reason) == ("8949", "2620", "PowerUp")
    assert station.registration_status == "Accepted"


@pytest.mark.parametrize(
    ("status", "interval"), [("Accepted", 120), ("Pending", POLICY.pending_interval_seconds), ("Rejected", 600)]
)
def test_the_answer_has_the_status_and_interval_that_operators_set(status: str, interval: int) -> None:
    state = new_state(boot_status=status, heartbeat_interval_seconds=120)
    told = answer(fold(state, event(Version.V201, "BootNotification", BOOT_2)))
    assert told == {"status": status, "interval": interval, "currentTime": "2026-03-01T12:00:00.000Z"}
    assert state.stations["CS-1"].registration_status == status
    assert state.stations["CS-1"].interval_seconds == interval


def test_a_station_that_nobody_configured_is_accepted_with_the_default_interval() -> None:
    told = answer(fold(new_state(), event(Version.V16, "BootNotification", BOOT_16)))
    assert (told["status"], told["interval"]) == ("Accepted", 300)


def test_the_current_time_is_that_of_the_answer_even_when_the_boot_has_waited_for_minutes() -> None:
    told = answer(fold(new_state(), event(Version.V16, "BootNotification", BOOT_16, at_ms=NOW_MS - 600_000)))
    assert told["currentTime"] == "2026-03-01T12:00:00.000Z"


def test_the_current_time_is_not_before_the_edge_received_the_boot() -> None:
    told = answer(fold(new_state(), event(Version.V16, "BootNotification", BOOT_16, at_ms=NOW_MS + 1_500)))
    assert told["currentTime"] == "2026-03-01T12:00:01.500Z"


def test_the_time_of_folding_is_in_no_row() -> None:
    one = event(Version.V16, "BootNotification", BOOT_16)
    early, late = State(NOW_MS, POLICY), State(NOW_MS + 3_600_000, POLICY)
    fold(early, one)
    fold(late, one)
    assert rows(early) == rows(late)


def test_a_boot_is_counted_once_however_often_its_record_is_read() -> None:
    state = new_state()
    first = event(Version.V16, "BootNotification", BOOT_16)
    second = event(Version.V16, "BootNotification", BOOT_16, at_ms=NOW_MS + 60_000, connection_id="connection-2")
    fold(state, first, first, second, second)
    assert state.stations["CS-1"].boot_count == 2


def test_an_older_boot_is_answered_and_changes_nothing() -> None:
    state = new_state()
    fold(state, event(Version.V16, "BootNotification", BOOT_16, connection_id="connection-9"))
    old = event(Version.V16, "BootNotification", {**BOOT_16, "firmwareVersion": "1.0"}, at_ms=NOW_MS - 3_600_000)
    assert answer(fold(state, old))["status"] == "Accepted"
    assert state.stations["CS-1"].firmware_version == "1.9"
    assert state.stations["CS-1"].boot_count == 1


@pytest.mark.parametrize("version", [Version.V201, Version.V21])
def test_a_rejected_2_x_station_may_do_nothing_but_boot(version: Version) -> None:
    state = new_state(boot_status="Rejected")
    status = {"timestamp": "2026-03-01T12:00:00Z", "connectorStatus": "Available", "evseId": 1, "connectorId": 1}
    fold(state, event(version, "BootNotification", BOOT_2))
    (refusal,) = outbound(fold(state, event(version, "StatusNotification", status)))
    assert (refusal["kind"], refusal["error_code"]) == ("error", "SecurityError")
    assert state.connectors == {}
    assert answer(fold(state, event(version, "BootNotification", BOOT_2)))["status"] == "Rejected"


def test_a_pending_2_x_station_may_say_what_a_command_triggered_since_its_boot() -> None:
    state = new_state(boot_status="Pending")
    report = {"requestId": 1, "generatedAt": "2026-03-01T12:00:00Z", "seqNo": 0}
    fold(state, event(Version.V201, "BootNotification", BOOT_2, at_ms=NOW_MS - 120_000))
    fold(state, command("GetBaseReport", "sent", at_ms=NOW_MS - 60_000))
    fold(state, event(Version.V201, "BootNotification", BOOT_2))
    (refusal,) = outbound(fold(state, event(Version.V201, "NotifyReport", report)))
    assert refusal["error_code"] == "SecurityError"
    fold(state, command("GetBaseReport", "sent", at_ms=NOW_MS + 1_000))
    assert answer(fold(state, event(Version.V201, "NotifyReport", report, at_ms=NOW_MS + 2_000))) == {}


def test_1_6_knows_no_such_refusal() -> None:
    state = new_state(boot_status="Rejected")
    status = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
    fold(state, event(Version.V16, "BootNotification", BOOT_16))
    assert answer(fold(state, event(Version.V16, "StatusNotification", status))) == {}


@given(st.integers(1, 86_400), st.text(min_size=1, max_size=48), st.floats(0, 0.99))
def test_an_interval_is_shortened_by_its_share_at_most_and_always_alike(
    seconds: int, station_id: str, share: float
) -> None:
    one = jittered_seconds(seconds, station_id, share)
    assert max(1, seconds * (1 - share) - 1) <= one <= seconds
    assert one == jittered_seconds(seconds, station_id, share)


def test_a_fleet_with_one_interval_does_not_beat_as_one() -> None:
    assert len({jittered_seconds(300, f"CS-{number}", 0.1) for number in range(200)}) > 20


def test_an_interval_of_an_operator_differs_by_station_too() -> None:
    policy = Policy(interval_jitter=0.1)
    state = State(NOW_MS, policy, {f"CS-{n}": StationSettings("Accepted", 1_000) for n in range(20)})
    intervals = {
        answer(fold(state, event(Version.V16, "BootNotification", BOOT_16, station_id=f"CS-{n}")))["interval"]
        for n in range(20)
    }
    assert len(intervals) > 5
    assert 900 <= min(intervals) <= max(intervals) <= 1_000
