"""Known quirks are repaired or tolerated; everything else is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busbar.ocpp.errors import OcppError
from busbar.ocpp.frames import Call, CallResult
from busbar.ocpp.repair import remove_nul, repair_frame, repair_request, repair_response
from busbar.ocpp.validation import validate_request
from busbar.ocpp.versions import Version

NOW = "2026-01-01T00:00:00Z"
START = {"connectorId": 1, "idTag": "A", "meterStart": 100, "timestamp": NOW}
STOP = {"transactionId": 7, "meterStop": 200, "timestamp": NOW}


def _meter(**sample: Any) -> dict[str, Any]:
    return {"connectorId": 1, "meterValue": [{"timestamp": NOW, "sampledValue": [{"value": "1", **sample}]}]}


@pytest.mark.parametrize(
    ("action", "sent", "repaired", "names"),
    [
        ("StartTransaction", {**START, "connectorId": "1"}, START, ["integer-from-string"]),
        ("StartTransaction", {**START, "meterStart": 100.0}, START, ["integer-from-float"]),
        ("StartTransaction", {**START, "meterStart": 100.4}, START, ["fraction-rounded"]),
        ("StartTransaction", {**START, "reservationId": None}, START, ["null-removed"]),
        ("StartTransaction", {**START, "idTag": 12345}, {**START, "idTag": "12345"}, ["string-from-number"]),
        ("StartTransaction", {**START, "timestamp": "2026-01-01 00:00:00"},
         {**START, "timestamp": "2026-01-01T00:00:00.000Z"}, ["timestamp"]),
        ("StartTransaction", {**START, "idTag": "x" * 40}, {**START, "idTag": "x" * 40}, ["string-too-long"]),
        ("MeterValues", _meter(value=12.5), _meter(value="12.5"), ["string-from-number"]),
        ("MeterValues", _meter(measurand="energy.active.import.register"),
         _meter(measurand="Energy.Active.Import.Register"), ["option-case"]),
        ("MeterValues", _meter(measurand="Vendor.Power"), _meter(measurand="Vendor.Power"), ["unknown-option"]),
        ("MeterValues", _meter(phase=None, unit=None), _meter(), ["null-removed"]),
        ("MeterValues", {"connectorId": 1, "meterValue": _meter()["meterValue"][0]}, _meter(), ["object-wrapped"]),
        ("StopTransaction", {**STOP, "transactionId": None}, {**STOP, "transactionId": -1},
         ["transaction-id-unusable"]),
        ("StopTransaction", {"meterStop": 200, "timestamp": NOW}, {**STOP, "transactionId": -1},
         ["transaction-id-unusable"]),
        ("StopTransaction", {**STOP, "transactionId": "abc"},
         {**STOP, "transactionId": -1, "transactionIdAsSent": "abc"}, ["transaction-id-unusable"]),
        ("StopTransaction", {**STOP, "transactionId": 2**63},
         {**STOP, "transactionId": -1, "transactionIdAsSent": 2**63}, ["transaction-id-unusable"]),
        ("StopTransaction", {**STOP, "transactionId": "7"}, STOP, ["integer-from-string"]),
        ("StopTransaction", {**STOP, "reason": "Vendor"}, {**STOP, "reason": "Vendor"}, ["unknown-option"]),
        ("StopTransaction", {**STOP, "reason": "reboot"}, {**STOP, "reason": "Reboot"}, ["option-case"]),
    ],
)  # fmt: skip
def test_a_quirk_of_16_is_repaired(action: Any, sent: Any, repaired: Any, names: Any) -> None:
    with pytest.raises(OcppError):
        validate_request(Version.V16, action, sent)
    payload = copy.deepcopy(sent)
    assert repair_request(Version.V16, action, payload) == names
    assert payload == repaired


def _event(*values: Any) -> dict[str, Any]:
    samples = [{"value": value} for value in values]
    return {
        "eventType": "Updated", "timestamp": NOW, "triggerReason": "MeterValuePeriodic", "seqNo": 1,
        "transactionInfo": {"transactionId": "T"}, "meterValue": [{"timestamp": NOW, "sampledValue": samples}],
    }  # fmt: skip


def test_a_number_as_text_is_read_in_2x() -> None:
    event = _event(" 12.30 ", "1e3")
    assert repair_request(Version.V201, "TransactionEvent", event) == ["number-from-string"]
    assert event == _event(12.3, 1000.0)


@pytest.mark.parametrize("value", ["NaN", "", "1,5", "inf", "0x10", "1 2"])
def test_a_value_that_is_no_number_is_taken_out_and_the_others_stay(value: Any) -> None:
    event = _event(1.0, value, 2.0, value)
    assert repair_request(Version.V201, "TransactionEvent", event) == ["unreadable-value-removed"]
    assert event == _event(1.0, 2.0)


def test_an_event_whose_only_value_is_unreadable_is_kept_without_meter_values() -> None:
    event = _event("NaN")
    names = repair_request(Version.V201, "TransactionEvent", event)
    assert names == ["unreadable-value-removed", "empty-list-removed"]
    assert "meterValue" not in event


def test_empty_lists_and_nulls_for_optional_fields_are_taken_out() -> None:
    event = {**_event(1.0), "offline": None, "evse": {"id": 1, "connectorId": None}, "idToken": None}
    event["idToken"] = {"idToken": "A", "type": "Central", "additionalInfo": []}
    assert set(repair_request(Version.V201, "TransactionEvent", event)) == {"null-removed", "empty-list-removed"}
    assert event["evse"] == {"id": 1}
    assert event["idToken"] == {"idToken": "A", "type": "Central"}


@pytest.mark.parametrize(
    ("action", "payload", "code"),
    [
        ("StartTransaction", {**START, "idTag": None}, "OccurenceConstraintViolation"),
        ("StartTransaction", {**START, "connectorId": "one"}, "TypeConstraintViolation"),
        ("StartTransaction", {**START, "connectorId": 1.5}, "TypeConstraintViolation"),
        ("StartTransaction", {**START, "connectorId": "9" * 30}, "TypeConstraintViolation"),
        ("StartTransaction", {**START, "connectorId": 1e30}, "TypeConstraintViolation"),
        ("StartTransaction", {**START, "timestamp": "yesterday"}, "PropertyConstraintViolation"),
        ("StartTransaction", {"idTag": "A"}, "OccurenceConstraintViolation"),
        ("StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Idle"},
         "PropertyConstraintViolation"),
        ("MeterValues", {"connectorId": 1, "meterValue": []}, "OccurenceConstraintViolation"),
        ("MeterValues", {"connectorId": 1, "meterValue": [None]}, "OccurenceConstraintViolation"),
        ("SignCertificate", {"csr": "x" * 5501}, "PropertyConstraintViolation"),
    ],
)  # fmt: skip
def test_what_is_no_known_quirk_is_refused(action: Any, payload: Any, code: Any) -> None:
    with pytest.raises(OcppError) as caught:
        repair_request(Version.V16, action, payload)
    assert caught.value.code == code


def test_a_stations_answer_is_repaired_too() -> None:
    payload = {"status": "accepted"}
    assert repair_response(Version.V201, "Reset", payload) == ["option-case"]
    assert payload == {"status": "Accepted"}


def test_nul_characters_are_taken_out_of_strings_and_names() -> None:
    assert remove_nul({"a\0": ["x\0y", 1, None, {"b": "\0"}]}) == {"a": ["xy", 1, None, {"b": ""}]}


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        (b'\xef\xbb\xbf[2,"1","Heartbeat",{}]', Call("1", "Heartbeat", {})),
        (b'[2,"1","Heartbeat",{}]\0\0\r\n', Call("1", "Heartbeat", {})),
        (b'[2,"1","Heartbeat",null]', Call("1", "Heartbeat", {})),
        (b'[2,"1","Heartbeat",[]]', Call("1", "Heartbeat", {})),
        (b'[3,"1",null]', CallResult("1", {})),
    ],
)
def test_a_frame_with_a_known_blemish_is_read(text: Any, frame: Any) -> None:
    repaired = repair_frame(text)
    assert repaired is not None
    assert repaired[0] == frame


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"[null]", b"\0", b'[2,"1",null]', b'[2,"1","X",{}', b"[[],[]]"])
def test_a_frame_without_a_known_blemish_is_left_alone(text: Any) -> None:
    assert repair_frame(text) is None


values: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just([]) | st.just({})
)
names = st.sampled_from(["timestamp", "sampledValue", "value", "measurand", "x"])
nested: st.SearchStrategy[Any] = st.recursive(
    values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
fields = ["transactionId", "meterStop", "timestamp", "idTag", "reason", "transactionData", "extra"]


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(fields, nested)))
def test_any_stop_is_valid_after_its_repair_or_refused(payload: Any) -> None:
    try:
        repairs = repair_request(Version.V16, "StopTransaction", payload)
    except OcppError:
        return
    if not {"string-too-long", "unknown-option"} & set(repairs):
        validate_request(Version.V16, "StopTransaction", payload)
