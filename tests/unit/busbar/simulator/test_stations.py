"""Whole stations in virtual time: every frame is judged by the official schemas."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from busbar.ocpp.actions import csms_actions
from busbar.ocpp.frames import CallError, CallResult
from busbar.ocpp.validation import validate_response
from busbar.ocpp.versions import Version
from busbar.simulator.fleet import Member, make_stations
from busbar.simulator.outlet import Outlet, Phase
from busbar.simulator.plan import Behaviour
from busbar.simulator.station import Station, StationSettings
from busbar.simulator.tally import Tally
from tests.support.payloads import fullest, smallest
from tests.unit.busbar.simulator.csms import EPOCH, Payload, VirtualCsms

SETTINGS = StationSettings(
    seed=7,
    tokens=("TOKEN-A", "TOKEN-B"),
    behaviour=Behaviour(fault_share=0.0, unknown_card_share=0.0),
)
BUSY = dataclasses.replace(SETTINGS, behaviour=Behaviour(mean_gap_seconds=60, fault_share=0.2))
QUIET = dataclasses.replace(
    SETTINGS, behaviour=Behaviour(first_arrival_seconds=1e9, mean_gap_seconds=1e9, fault_share=0.0)
)
VERSIONS = list(Version)


def station(version: Version, settings: StationSettings = SETTINGS, station_id: str = "CS-1") -> Station:
    return make_stations([Member(station_id, None, version)], settings, Tally(), started_at=EPOCH)[0]


def online(version: Version, settings: StationSettings = QUIET, **kwargs: Any) -> VirtualCsms:
    csms = VirtualCsms(station(version, settings), **kwargs)
    csms.run(30)
    return csms


def charging(version: Version) -> tuple[VirtualCsms, Outlet]:
    """A station with a transaction that the CSMS has started."""
    csms = online(version)
    outlet = csms.station.outlets[0]
    reply = start(csms)
    assert isinstance(reply, CallResult)
    assert reply.payload["status"] == "Accepted"
    csms.run(120)
    assert outlet.phase is Phase.CHARGING
    return csms, outlet


def phase(outlet: Outlet) -> Phase:
    return outlet.phase


def start(csms: VirtualCsms) -> Any:
    if csms.station.version is Version.V16:
        return csms.command("RemoteStartTransaction", {"idTag": "APP-1", "connectorId": 1})
    token = {"idToken": "APP-1", "type": "Central"}
    return csms.command("RequestStartTransaction", {"idToken": token, "remoteStartId": 9, "evseId": 1})


def stop(csms: VirtualCsms, transaction_id: str) -> Any:
    if csms.station.version is Version.V16:
        return csms.command("RemoteStopTransaction", {"transactionId": int(transaction_id)})
    return csms.command("RequestStopTransaction", {"transactionId": transaction_id})


@pytest.mark.parametrize("version", VERSIONS)
def test_a_day_of_a_busy_station_breaks_no_schema_and_ends_what_it_starts(version: Version) -> None:
    csms = VirtualCsms(station(version, BUSY))
    csms.run(86_400)
    tally = csms.station.tally
    assert tally.wrong == 0, tally.faults
    assert tally.sessions_ended >= 5
    assert 0 <= tally.sessions_started - tally.sessions_ended <= len(csms.station.outlets)
    assert tally.answered == tally.calls
    assert tally.energy_wh > 10_000


@pytest.mark.parametrize("version", VERSIONS)
def test_the_same_seed_gives_the_same_frames_and_another_seed_others(version: Version) -> None:
    def frames(seed: int) -> list[str]:
        csms = VirtualCsms(station(version, dataclasses.replace(BUSY, seed=seed)))
        csms.run(20_000)
        return csms.frames

    assert frames(7) == frames(7)
    assert frames(7) != frames(8)


@pytest.mark.parametrize("version", VERSIONS)
def test_boot_comes_first_and_nothing_else_before_it_is_accepted(version: Version) -> None:
    answers = iter(["Rejected", "Pending", "Accepted"])
    boot = {"currentTime": "2026-03-01T12:00:00Z", "interval": 60}
    csms = VirtualCsms(
        station(version, QUIET), answers={"BootNotification": lambda _: {**boot, "status": next(answers)}}
    )
    csms.run(115)
    assert [call.action for call in csms.calls] == ["BootNotification"] * 2
    csms.run(30)
    actions = [call.action for call in csms.calls]
    assert actions[:3] == ["BootNotification"] * 3
    assert "StatusNotification" in actions[3:]


@pytest.mark.parametrize("version", VERSIONS)
def test_heartbeats_keep_the_interval_that_the_boot_was_answered_with(version: Version) -> None:
    csms = VirtualCsms(station(version, QUIET))
    csms.run(3_000)
    assert len(csms.sent("Heartbeat")) == 9 or len(csms.sent("Heartbeat")) == 10


@pytest.mark.parametrize("version", VERSIONS)
def test_what_happens_offline_is_told_in_order_after_the_reconnect_and_nothing_is_booted_again(
    version: Version,
) -> None:
    csms, outlet = charging(version)
    transaction = outlet.transaction
    assert transaction is not None
    csms.drop()
    csms.run(600)
    before = len(csms.calls)
    csms.reachable = True
    csms.run(200)
    replayed = [call for call in csms.calls[before:] if call.action in ("MeterValues", "TransactionEvent")]
    assert len(replayed) >= 10
    stamps = [call.payload.get("timestamp") or call.payload["meterValue"][0]["timestamp"] for call in replayed]
    assert stamps == sorted(stamps)
    assert not any(call.action == "BootNotification" for call in csms.calls[before:])
    if version.is_v2:
        events = csms.sent("TransactionEvent")
        assert [event["seqNo"] for event in events] == list(range(len(events)))
        assert any(event.get("offline") for event in events)
        assert not events[-1].get("offline")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_transaction_that_starts_and_ends_offline_arrives_whole(version: Version) -> None:
    csms = online(version, BUSY)
    csms.drop()
    csms.run(30_000)
    assert csms.station.tally.sessions_ended >= 1
    csms.reachable = True
    csms.run(1_000)
    assert csms.station.link.queued == 0
    assert csms.station.tally.wrong == 0
    if version is Version.V16:
        stops = csms.sent("StopTransaction")
        assert stops
        assert all(each["transactionId"] > 0 for each in stops)
        assert len(stops) <= len(csms.sent("StartTransaction"))


@pytest.mark.parametrize("version", VERSIONS)
def test_an_unanswered_transaction_message_is_sent_again_and_given_up_after_its_attempts(version: Version) -> None:
    action = "StartTransaction" if version is Version.V16 else "TransactionEvent"
    csms = online(version, answers={action: lambda _: None})
    start(csms)
    csms.run(2_000)
    sent = csms.sent(action)
    assert sent[:5] == [sent[0]] * 5
    assert csms.station.tally.discarded >= 1


@pytest.mark.parametrize("version", VERSIONS)
def test_a_refused_card_starts_nothing(version: Version) -> None:
    refused = {"idTagInfo": {"status": "Blocked"}} if version is Version.V16 else {"idTokenInfo": {"status": "Blocked"}}
    csms = VirtualCsms(station(version), answers={"Authorize": lambda _: refused})
    csms.run(3_600)
    assert csms.sent("Authorize")
    assert not csms.sent("StartTransaction")
    assert not csms.sent("TransactionEvent")
    assert csms.station.tally.authorizations_refused >= 1


@pytest.mark.parametrize("version", VERSIONS)
def test_remote_start_and_stop_start_and_stop(version: Version) -> None:
    csms, outlet = charging(version)
    assert outlet.transaction is not None
    transaction_id = outlet.transaction.transaction_id
    assert stop(csms, "999999" if version is Version.V16 else "no such").payload["status"] == "Rejected"
    assert stop(csms, transaction_id).payload["status"] == "Accepted"
    csms.run(60)
    assert outlet.transaction is None
    assert csms.station.tally.sessions_ended == 1
    if version is Version.V16:
        (ended,) = csms.sent("StopTransaction")
        assert (ended["reason"], str(ended["transactionId"])) == ("Remote", transaction_id)
        assert ended["meterStop"] > csms.sent("StartTransaction")[0]["meterStart"]
    else:
        events = csms.sent("TransactionEvent")
        assert events[0]["triggerReason"] == "RemoteStart"
        assert events[0]["transactionInfo"]["remoteStartId"] == 9
        assert events[-1]["transactionInfo"]["stoppedReason"] == "Remote"
        assert [("evse" in event) for event in events] == [True] + [False] * (len(events) - 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_reset_ends_the_transaction_and_boots_again_on_a_new_connection(version: Version) -> None:
    csms, outlet = charging(version)
    kind = "Hard" if version is Version.V16 else "Immediate"
    reply = csms.command("Reset", {"type": kind})
    assert isinstance(reply, CallResult)
    assert reply.payload["status"] == "Accepted"
    csms.run(120)
    boots = csms.sent("BootNotification")
    assert len(boots) == 2
    assert outlet.transaction is None
    assert csms.station.tally.connects == 2
    if version.is_v2:
        assert boots[1]["reason"] == "RemoteReset"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_profile_lowers_the_power_and_zero_suspends(version: Version) -> None:
    csms, outlet = charging(version)
    for limit in (1_400.0, 0.0):
        reply = csms.command("SetChargingProfile", _profile(version, limit))
        assert isinstance(reply, CallResult)
        assert reply.payload["status"] == "Accepted"
        assert outlet.reading(csms.now).power_w == pytest.approx(limit)
    assert phase(outlet) is Phase.SUSPENDED_EVSE
    cleared = csms.command("ClearChargingProfile", {})
    assert isinstance(cleared, CallResult)
    assert cleared.payload["status"] == "Accepted"
    assert phase(outlet) is Phase.CHARGING


def _profile(version: Version, limit: float) -> Payload:
    schedule = {"chargingRateUnit": "W", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": limit}]}
    profile = {"stackLevel": 0, "chargingProfilePurpose": "TxDefaultProfile", "chargingProfileKind": "Relative"}
    if version is Version.V16:
        full = {**profile, "chargingProfileId": 1, "chargingSchedule": schedule}
        return {"connectorId": 1, "csChargingProfiles": full}
    return {"evseId": 1, "chargingProfile": {**profile, "id": 1, "chargingSchedule": [{"id": 1, **schedule}]}}


@pytest.mark.parametrize("version", VERSIONS)
def test_inoperative_while_charging_is_scheduled_and_then_happens(version: Version) -> None:
    csms, outlet = charging(version)
    assert outlet.transaction is not None
    reply = csms.command("ChangeAvailability", _availability(version, "Inoperative"))
    assert isinstance(reply, CallResult)
    assert reply.payload["status"] == "Scheduled"
    stop(csms, outlet.transaction.transaction_id)
    csms.run(120)
    assert phase(outlet) is Phase.INOPERATIVE
    rejected = start(csms)
    assert rejected.payload["status"] == "Rejected"
    csms.command("ChangeAvailability", _availability(version, "Operative"))
    assert phase(outlet) is Phase.FREE


def _availability(version: Version, kind: str) -> Payload:
    if version is Version.V16:
        return {"connectorId": 1, "type": kind}
    return {"evse": {"id": 1}, "operationalStatus": kind}


@pytest.mark.parametrize(
    ("version", "action"), [(version, action) for version in VERSIONS for action in csms_actions(version)]
)
@pytest.mark.parametrize("make", [smallest, fullest])
def test_every_command_gets_one_valid_answer(version: Version, action: str, make: Any) -> None:
    csms = online(version)
    reply = csms.command(action, make(version, action))
    csms.run(60)
    assert csms.station.tally.wrong == 0, csms.station.tally.faults
    if isinstance(reply, CallError):
        assert reply.code == "NotSupported"
        assert action in ("PublishFirmware", "UnpublishFirmware", "AFRRSignal", "RequestBatterySwap")
    else:
        assert isinstance(reply, CallResult)
        validate_response(version, action, reply.payload, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_command_of_another_version_is_not_supported_and_an_invented_one_not_implemented(version: Version) -> None:
    csms = online(version)
    other = "GetVariables" if version is Version.V16 else "GetConfiguration"
    for action, code in ((other, "NotSupported"), ("MakeCoffee", "NotImplemented")):
        reply = csms.command(action, {})
        assert isinstance(reply, CallError)
        assert reply.code == code
    assert csms.station.tally.wrong == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_a_command_with_a_wrong_payload_gets_the_error_of_its_version(version: Version) -> None:
    csms = online(version)
    reply = csms.command("Reset", {"type": 5})
    assert isinstance(reply, CallError)
    assert reply.code == "TypeConstraintViolation"
    assert csms.station.tally.wrong == 1


@pytest.mark.parametrize("version", [Version.V201, Version.V21])
def test_a_base_report_tells_the_whole_device_model_in_parts(version: Version) -> None:
    csms = online(version)
    reply = csms.command("GetBaseReport", {"requestId": 5, "reportBase": "FullInventory"})
    assert isinstance(reply, CallResult)
    csms.run(10)
    parts = csms.sent("NotifyReport")
    assert [part["seqNo"] for part in parts] == list(range(len(parts)))
    assert [part["tbc"] for part in parts] == [True] * (len(parts) - 1) + [False]
    assert {part["requestId"] for part in parts} == {5}
    names = {(entry["component"]["name"], entry["variable"]["name"]) for part in parts for entry in part["reportData"]}
    assert ("ChargingStation", "Model") in names
    assert ("Connector", "AvailabilityState") in names


@pytest.mark.parametrize("version", [Version.V201, Version.V21])
def test_a_variable_that_was_set_is_read_back_and_a_secret_is_not(version: Version) -> None:
    csms = online(version)

    def variable(component: str, name: str, **more: str) -> Payload:
        return {"component": {"name": component}, "variable": {"name": name}, **more}

    written = csms.command(
        "SetVariables",
        {
            "setVariableData": [
                variable("OCPPCommCtrlr", "HeartbeatInterval", attributeValue="120"),
                variable("SecurityCtrlr", "BasicAuthPassword", attributeValue="0123456789abcdef"),
                variable("ChargingStation", "Model", attributeValue="another"),
                variable("NoSuch", "Thing", attributeValue="1"),
            ]
        },
    )
    read = csms.command(
        "GetVariables",
        {
            "getVariableData": [
                variable("OCPPCommCtrlr", "HeartbeatInterval"),
                variable("SecurityCtrlr", "BasicAuthPassword"),
            ]
        },
    )
    assert isinstance(written, CallResult)
    assert isinstance(read, CallResult)
    assert _statuses(written.payload["setVariableResult"]) == ["Accepted", "Accepted", "Rejected", "UnknownComponent"]
    assert _statuses(read.payload["getVariableResult"]) == ["Accepted", "Rejected"]
    assert read.payload["getVariableResult"][0]["attributeValue"] == "120"
    before = len(csms.sent("Heartbeat"))
    csms.run(1_210)
    assert len(csms.sent("Heartbeat")) - before == 10


def _statuses(results: list[Mapping[str, Any]]) -> list[str]:
    return [result["attributeStatus"] for result in results]


def test_a_1_6_station_shows_its_configuration_and_names_unknown_keys() -> None:
    csms = online(Version.V16)
    reply = csms.command("GetConfiguration", {"key": ["HeartbeatInterval", "Nonsense"]})
    assert isinstance(reply, CallResult)
    assert [entry["key"] for entry in reply.payload["configurationKey"]] == ["HeartbeatInterval"]
    assert reply.payload["unknownKey"] == ["Nonsense"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_reservation_keeps_the_outlet_for_its_driver_and_expires(version: Version) -> None:
    csms = online(version)
    outlet = csms.station.outlets[0]
    until = "2026-03-01T12:10:00Z"
    if version is Version.V16:
        payload: Payload = {"connectorId": 1, "expiryDate": until, "idTag": "APP-2", "reservationId": 3}
    else:
        token = {"idToken": "APP-2", "type": "Central"}
        payload = {"id": 3, "expiryDateTime": until, "idToken": token, "evseId": 1}
    reply = csms.command("ReserveNow", payload)
    assert isinstance(reply, CallResult)
    assert reply.payload["status"] == "Accepted"
    assert phase(outlet) is Phase.RESERVED
    assert start(csms).payload["status"] == "Rejected"
    csms.run(900)
    assert phase(outlet) is Phase.FREE
    assert len(csms.sent("ReservationStatusUpdate")) == (1 if version.is_v2 else 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_answer_that_breaks_the_schema_is_counted_as_wrong(version: Version) -> None:
    one = station(version, QUIET)
    one.opened(EPOCH)
    (frame,) = one.frames_to_send()
    message_id = frame.split('"')[1]
    one.receive(f'[3,"{message_id}",{{"status":"Perhaps"}}]', EPOCH)
    one.receive('[3,"nobody-asked",{}]', EPOCH)
    one.receive("not json", EPOCH)
    assert one.tally.wrong == 3


@pytest.mark.parametrize("version", VERSIONS)
def test_meters_go_on_from_where_they_were(version: Version) -> None:
    csms, outlet = charging(version)
    memory = csms.station.memory(csms.now)
    assert memory.registers_wh[1] > 0
    (again,) = make_stations(
        [Member("CS-1", None, version)], SETTINGS, Tally(), started_at=EPOCH + 9e4, memories={"CS-1": memory}
    )
    assert again.outlets[0].register_wh == outlet.reading(csms.now).register_wh


def test_waits_between_attempts_double_up_to_the_last_repeat() -> None:
    csms = VirtualCsms(station(Version.V201, QUIET), reachable=False)
    waits = []
    for _ in range(8):
        csms.station.connect_failed(csms.now)
        waits.append(csms.station.connect_at - csms.now)
    assert all(3 * 2**index <= wait < 3 * 2**index + 3 for index, wait in enumerate(waits[:6]))
    assert waits[-1] < 3 * 2**5 + 3
