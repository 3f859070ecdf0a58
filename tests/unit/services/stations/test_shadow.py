"""The device shadow: connectors, notifications, the device model, documents and the last command."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from busbar.ocpp.versions import Version
from services.stations.state import Document, State
from tests.unit.services.stations.cases import NOW_MS, answer, command, event, fold, new_state, rows, statuses

MOMENT = "2026-03-01T11:59:58Z"


def status_16(status: str, connector: int = 1, **more: Any) -> dict[str, Any]:
    return {"connectorId": connector, "errorCode": "NoError", "status": status, "timestamp": MOMENT, **more}


def status_2(status: str, evse: int = 1, connector: int = 1) -> dict[str, Any]:
    return {"timestamp": MOMENT, "connectorStatus": status, "evseId": evse, "connectorId": connector}


def documents(state: State, kind: str) -> dict[str, Document]:
    return {key: each for (_, of, key), each in state.documents.items() if of == kind}


def test_a_1_6_status_is_kept_with_everything_a_vendor_says() -> None:
    state = new_state()
    payload = status_16("Faulted", vendorId="V", vendorErrorCode="E-17", info="residual current", extra=[1])
    results = fold(state, event(Version.V16, "StatusNotification", {**payload, "errorCode": "GroundFailure"}))
    connector = state.connectors["CS-1", 0, 1]
    assert (connector.status, connector.error_code, connector.info) == ("Faulted", "GroundFailure", "residual current")
    assert (connector.vendor_id, connector.vendor_error_code) == ("V", "E-17")
    assert orjson.loads(connector.payload)["extra"] == [1]
    assert answer(results) == {}
    (told,) = statuses(results)
    assert (told["station_id"], told["evse_id"], told["connector_id"], told["status"]) == ("CS-1", 0, 1, "Faulted")
    assert (told["error_code"], told["vendor_error_code"], told["ocpp_version"]) == ("GroundFailure", "E-17", "1.6")


def test_connector_zero_of_1_6_is_the_station_itself() -> None:
    state = new_state()
    results = fold(state, event(Version.V16, "StatusNotification", status_16("Unavailable", 0)))
    assert state.connectors["CS-1", 0, 0].status == "Unavailable"
    assert statuses(results)[0]["connector_id"] == 0


@pytest.mark.parametrize("version", [Version.V201, Version.V21])
def test_a_2_x_status_is_kept_by_evse_and_connector(version: Version) -> None:
    state = new_state()
    fold(state, event(version, "StatusNotification", status_2("Occupied", 2, 1)))
    results = fold(state, event(version, "StatusNotification", status_2("Available", 2, 2)))
    assert {key: each.status for key, each in state.connectors.items()} == {
        ("CS-1", 2, 1): "Occupied",
        ("CS-1", 2, 2): "Available",
    }
    (result,) = [each for each in results if each.topic == "csms.station-status"]
    assert result.key == b"CS-1/2/2"
    assert result.timestamp_ms == NOW_MS


def test_the_status_before_and_since_when_it_holds_are_told() -> None:
    state = new_state()
    fold(state, event(Version.V16, "StatusNotification", status_16("Available"), at_ms=NOW_MS))
    fold(state, event(Version.V16, "StatusNotification", status_16("Charging"), at_ms=NOW_MS + 1_000))
    again = event(Version.V16, "StatusNotification", status_16("Charging"), at_ms=NOW_MS + 2_000)
    (told,) = statuses(fold(state, again))
    assert (told["previous_status"], told["status_since"], told["received_at"]) == (
        "Available",
        NOW_MS + 1_000,
        NOW_MS + 2_000,
    )


def test_a_status_that_comes_late_is_answered_and_changes_nothing() -> None:
    state = new_state()
    fold(state, event(Version.V16, "StatusNotification", status_16("Charging"), sequence=9))
    earlier_in_the_connection = event(Version.V16, "StatusNotification", status_16("Preparing"), sequence=8)
    a_day_old = event(
        Version.V16, "StatusNotification", status_16("Faulted"), at_ms=NOW_MS - 86_400_000, connection_id="older"
    )
    for late in (earlier_in_the_connection, a_day_old):
        results = fold(state, late)
        assert answer(results) == {}
        assert statuses(results) == []
    assert state.connectors["CS-1", 0, 1].status == "Charging"


def test_a_station_that_moved_to_an_edge_with_a_slower_clock_is_believed() -> None:
    state = new_state()
    fold(state, event(Version.V16, "StatusNotification", status_16("Charging")))
    moved = event(
        Version.V16, "StatusNotification", status_16("Finishing"), at_ms=NOW_MS - 1_000, connection_id="connection-2"
    )
    fold(state, moved)
    assert state.connectors["CS-1", 0, 1].status == "Finishing"


def test_the_clock_offset_comes_from_the_last_status_with_a_readable_time() -> None:
    state = new_state()
    fold(state, event(Version.V16, "StatusNotification", status_16("Available")))
    assert state.stations["CS-1"].clock_offset_ms == -2_000
    fold(state, event(Version.V16, "StatusNotification", status_16("Available", timestamp="yesterday")))
    assert state.stations["CS-1"].clock_offset_ms == -2_000
    assert state.connectors["CS-1", 0, 1].reported_at_ms is None


def availability_event(status: str, evse: dict[str, int]) -> dict[str, Any]:
    return {
        "generatedAt": MOMENT,
        "seqNo": 0,
        "eventData": [
            {
                "eventId": 1,
                "timestamp": MOMENT,
                "trigger": "Delta",
                "actualValue": status,
                "eventNotificationType": "HardWiredNotification",
                "component": {"name": "Connector", "evse": evse},
                "variable": {"name": "AvailabilityState"},
            }
        ],
    }


@pytest.mark.parametrize("version", [Version.V201, Version.V21])
def test_an_availability_event_is_a_status_and_a_variable(version: Version) -> None:
    state = new_state()
    results = fold(state, event(version, "NotifyEvent", availability_event("Faulted", {"id": 1, "connectorId": 2})))
    assert state.connectors["CS-1", 1, 2].status == "Faulted"
    assert statuses(results)[0]["status"] == "Faulted"
    (variable,) = state.variables.values()
    assert (variable.component, variable.variable, variable.value) == ("Connector", "AvailabilityState", "Faulted")
    assert (variable.evse_id, variable.connector_id) == (1, 2)


def test_an_availability_event_without_a_connector_is_only_a_variable() -> None:
    state = new_state()
    fold(state, event(Version.V201, "NotifyEvent", availability_event("Faulted", {"id": 1})))
    assert state.connectors == {}
    assert len(state.variables) == 1


def test_a_report_fills_the_device_model_and_a_later_event_changes_the_value_only() -> None:
    state = new_state()
    report = {
        "requestId": 4,
        "generatedAt": MOMENT,
        "seqNo": 0,
        "reportData": [
            {
                "component": {"name": "Connector", "evse": {"id": 1, "connectorId": 2}},
                "variable": {"name": "AvailabilityState"},
                "variableAttribute": [
                    {"type": "Actual", "value": "Available", "mutability": "ReadOnly", "persistent": True},
                    {"type": "MaxSet", "value": "9"},
                ],
                "variableCharacteristics": {"dataType": "OptionList", "supportsMonitoring": True},
            }
        ],
    }
    fold(state, event(Version.V201, "NotifyReport", report))
    fold(state, event(Version.V201, "NotifyEvent", availability_event("Occupied", {"id": 1, "connectorId": 2})))
    actual, largest = state.variables.values()
    assert (actual.value, actual.mutability, actual.persistent, actual.source) == (
        "Occupied",
        "ReadOnly",
        True,
        "NotifyEvent",
    )
    assert orjson.loads(actual.characteristics or "")["dataType"] == "OptionList"
    assert (largest.attribute, largest.value) == ("MaxSet", "9")


def test_a_security_event_that_is_sent_again_after_a_reconnect_is_kept_once() -> None:
    state = new_state()
    payload = {"type": "TamperDetectionActivated", "timestamp": MOMENT}
    first = event(Version.V201, "SecurityEventNotification", payload)
    again = event(Version.V201, "SecurityEventNotification", payload, connection_id="connection-2", sequence=1)
    fold(state, first, again)
    (kept,) = state.notifications.values()
    assert (kept.action, kept.status) == ("SecurityEventNotification", "TamperDetectionActivated")


def test_a_firmware_status_has_no_date_so_each_is_kept_and_the_last_one_shown() -> None:
    state = new_state()
    for number, status in enumerate(("Downloading", "Downloaded", "Downloading")):
        payload = {"status": status, "requestId": 8}
        fold(state, event(Version.V201, "FirmwareStatusNotification", payload, at_ms=NOW_MS + number))
    assert [each.status for each in state.notifications.values()] == ["Downloading", "Downloaded", "Downloading"]
    assert {each.request_id for each in state.notifications.values()} == {8}
    assert state.stations["CS-1"].firmware_status == "Downloading"


def test_diagnostics_and_logs_share_one_place_in_the_shadow() -> None:
    state = new_state()
    fold(state, event(Version.V16, "DiagnosticsStatusNotification", {"status": "Uploading"}))
    assert state.stations["CS-1"].log_status == "Uploading"
    fold(state, event(Version.V16, "LogStatusNotification", {"status": "Uploaded"}, at_ms=NOW_MS + 1))
    assert state.stations["CS-1"].log_status == "Uploaded"


def test_a_charging_limit_is_kept_until_its_source_clears_it() -> None:
    state = new_state()
    limit = {"chargingLimit": {"chargingLimitSource": "EMS"}, "evseId": 1}
    fold(state, event(Version.V201, "NotifyChargingLimit", limit))
    assert orjson.loads(documents(state, "charging-limit")["1/EMS"].payload or "") == limit
    cleared = event(Version.V201, "ClearedChargingLimit", {"chargingLimitSource": "EMS", "evseId": 1})
    fold(state, cleared)
    assert documents(state, "charging-limit")["1/EMS"].payload is None
    old = event(Version.V201, "NotifyChargingLimit", limit, at_ms=NOW_MS - 86_400_000, connection_id="older")
    fold(state, old)
    assert documents(state, "charging-limit")["1/EMS"].payload is None


def test_reports_of_many_things_become_one_document_each() -> None:
    state = new_state()
    message = {"priority": "InFront", "message": {"format": "UTF8", "content": "hello"}}
    shown = {"requestId": 1, "messageInfo": [{"id": 1, **message}, {"id": 2, **message}]}
    profile = {"stackLevel": 0, "chargingProfilePurpose": "TxProfile", "chargingProfileKind": "Absolute"}
    profiles = {"requestId": 2, "chargingLimitSource": "CSO", "evseId": 1, "chargingProfile": [{"id": 5, **profile}]}
    monitor = {"id": 3, "transaction": False, "value": 1, "type": "Delta", "severity": 5}
    monitored = {"component": {"name": "EVSE"}, "variable": {"name": "Power"}, "variableMonitoring": [monitor]}
    monitors = {"requestId": 3, "seqNo": 0, "generatedAt": MOMENT, "monitor": [monitored]}
    fold(
        state,
        event(Version.V201, "NotifyDisplayMessages", shown),
        event(Version.V201, "ReportChargingProfiles", profiles),
        event(Version.V201, "NotifyMonitoringReport", monitors),
    )
    assert set(documents(state, "display-message")) == {"1", "2"}
    kept = orjson.loads(documents(state, "charging-profile")["5"].payload or "")
    assert (kept["evseId"], kept["chargingLimitSource"], kept["stackLevel"]) == (1, "CSO", 0)
    kept = orjson.loads(documents(state, "variable-monitor")["3"].payload or "")
    assert (kept["component"], kept["severity"]) == ({"name": "EVSE"}, 5)


def test_der_controls_are_kept_by_type_and_id() -> None:
    state = new_state()
    report = {
        "requestId": 1,
        "freqDroop": [{"id": "a", "isDefault": True, "isSuperseded": False, "freqDroop": {"priority": 1}}],
        "curve": [{"id": "b", "curveType": "VoltVar"}, {"id": "c", "curveType": "VoltWatt"}],
    }
    fold(state, event(Version.V21, "ReportDERControl", report))
    assert set(documents(state, "der-control")) == {"freqDroop/a", "curve/b", "curve/c"}


def test_an_event_stream_is_opened_fed_and_closed() -> None:
    state = new_state()
    stream = {"constantStreamData": {"id": 7, "params": {"interval": 5}, "variableMonitoringId": 1}}
    data = {"id": 7, "pending": 0, "basetime": MOMENT, "data": [{"t": 0, "v": "21.5"}]}
    assert answer(fold(state, event(Version.V21, "OpenPeriodicEventStream", stream))) == {"status": "Accepted"}
    assert fold(state, event(Version.V21, "NotifyPeriodicEventStream", data)) == []
    assert orjson.loads(documents(state, "event-stream-data")["7"].payload or "") == data
    fold(state, event(Version.V21, "ClosePeriodicEventStream", {"id": 7}))
    assert documents(state, "event-stream")["7"].payload is None


def booted() -> State:
    state = new_state()
    boot = {"reason": "PowerUp", "chargingStation": {"vendorName": "V", "model": "M"}}
    fold(state, event(Version.V201, "BootNotification", boot))
    return state


def test_the_last_command_is_shown_with_its_outcome() -> None:
    state = booted()
    fold(state, command("Reset", "answered", payload={"status": "Scheduled"}, at_ms=NOW_MS + 1))
    station = state.stations["CS-1"]
    assert (station.last_command_action, station.last_command_stage) == ("Reset", "answered")
    assert (station.last_command_status, station.last_command_result) == ("Scheduled", '{"status":"Scheduled"}')
    fold(state, command("ClearCache", "error", error={"code": "NotSupported"}, command_id="c-2", at_ms=NOW_MS + 2))
    assert (station.last_command_id, station.last_command_status) == ("c-2", "NotSupported")
    fold(state, command("GetLog", "timeout", command_id="c-0", at_ms=NOW_MS - 1))
    assert station.last_command_id == "c-2"


def test_a_command_to_a_station_that_was_never_heard_makes_no_station() -> None:
    state = new_state()
    assert fold(state, command("Reset", "offline")) == []
    assert state.stations == {}


def test_variables_that_a_command_read_are_kept_and_only_those_that_were_told() -> None:
    state = booted()
    results = [
        {
            "attributeStatus": status,
            "attributeValue": "120",
            "component": {"name": "OCPPCommCtrlr"},
            "variable": {"name": name},
        }
        for status, name in (("Accepted", "HeartbeatInterval"), ("Rejected", "Secret"))
    ]
    fold(state, command("GetVariables", "answered", payload={"getVariableResult": results}))
    (variable,) = state.variables.values()
    assert (variable.variable, variable.value, variable.source) == ("HeartbeatInterval", "120", "GetVariables")


def test_configuration_keys_of_1_6_are_variables_without_a_component() -> None:
    state = booted()
    keys = [
        {"key": "HeartbeatInterval", "readonly": False, "value": "60"},
        {"key": "NumberOfConnectors", "readonly": True},
    ]
    fold(state, command("GetConfiguration", "answered", payload={"configurationKey": keys, "unknownKey": ["x"]}))
    kept = [(each.component, each.variable, each.value, each.mutability) for each in state.variables.values()]
    assert kept == [("", "HeartbeatInterval", "60", "ReadWrite"), ("", "NumberOfConnectors", None, "ReadOnly")]


@pytest.mark.parametrize("payload", [None, "text", [], {"getVariableResult": "no list"}, {"configurationKey": [1]}])
@pytest.mark.parametrize("action", ["GetVariables", "GetConfiguration", "Reset"])
def test_an_answer_of_any_shape_crashes_nothing(action: str, payload: Any) -> None:
    state = booted()
    fold(state, command(action, "answered", payload=payload))
    assert state.variables == {}


def test_text_that_postgres_does_not_take_is_made_fit_and_the_rest_is_kept() -> None:
    state = new_state()
    payload = {"vendorId": "a\x00b", "data": {"deep\x00er": ["\x00", 2**70]}}
    fold(state, event(Version.V201, "DataTransfer", payload))
    (kept,) = state.notifications.values()
    assert "\\u0000" not in kept.payload
    assert orjson.loads(kept.payload)["vendorId"] == "a\ufffdb"


def test_every_station_of_a_batch_has_its_own_rows() -> None:
    state = new_state()
    for name in ("CS-1", "CS-2"):
        fold(state, event(Version.V16, "StatusNotification", status_16("Available"), station_id=name))
    assert set(rows(state)["stations"]) == {"CS-1", "CS-2"}
    assert len(state.connectors) == 2
