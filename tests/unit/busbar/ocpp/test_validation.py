"""Payloads against the schemas: the right code, the place, and never the value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busbar.ocpp.errors import OcppError
from busbar.ocpp.validation import request_check, validate_request, validate_response
from busbar.ocpp.versions import Version

SAMPLE = {"timestamp": "2026-01-01T00:00:00Z", "sampledValue": [{"value": "1"}]}


def _error(version: Version, action: str, payload: Any, **options: Any) -> OcppError:
    with pytest.raises(OcppError) as caught:
        validate_request(version, action, payload, **options)
    return caught.value


@pytest.mark.parametrize(
    ("action", "payload", "v16", "place"),
    [
        ("Authorize", {}, "OccurenceConstraintViolation", "$ lacks the required field 'idTag'"),
        ("Authorize", {"idTag": 5}, "TypeConstraintViolation", "$.idTag is not of type string"),
        ("Authorize", {"idTag": "x" * 21}, "PropertyConstraintViolation", "$.idTag is longer than 20"),
        ("StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Nope"},
         "PropertyConstraintViolation", "$.status is none of"),
        ("MeterValues", {"connectorId": 1, "meterValue": [SAMPLE, {**SAMPLE, "timestamp": "x"}]},
         "PropertyConstraintViolation", "$.meterValue[1].timestamp is not a valid date-time"),
        ("MeterValues", {"connectorId": 2**63, "meterValue": [SAMPLE]},
         "PropertyConstraintViolation", "$.connectorId is above"),
        ("MeterValues", {"connectorId": 1.0, "meterValue": [SAMPLE]},
         "TypeConstraintViolation", "$.connectorId is not of type integer"),
        ("MeterValues", {"connectorId": True, "meterValue": [SAMPLE]},
         "TypeConstraintViolation", "$.connectorId is not of type integer"),
    ],
)  # fmt: skip
def test_a_wrong_request_of_16_is_refused_and_the_place_named(action: Any, payload: Any, v16: Any, place: Any) -> None:
    error = _error(Version.V16, action, payload)
    assert error.code == v16
    assert place in error.description


def test_a_wrong_request_of_2x_is_refused_with_its_spelling() -> None:
    assert _error(Version.V201, "Authorize", {}).code == "OccurrenceConstraintViolation"
    empty = {"evseId": 1, "meterValue": []}
    assert _error(Version.V21, "MeterValues", empty).code == "OccurrenceConstraintViolation"


def test_the_value_of_an_id_token_is_never_in_the_description() -> None:
    error = _error(Version.V16, "Authorize", {"idTag": "SECRET" * 10})
    assert "SECRET" not in error.description
    error = _error(Version.V201, "Authorize", {"idToken": {"idToken": "SECRET", "type": "SECRET2"}})
    assert "SECRET" not in error.description


def test_unknown_fields_pass_inbound_and_are_refused_outbound() -> None:
    payload = {"idTag": "A", "vendorExtra": {"x": None}}
    validate_request(Version.V16, "Authorize", payload)
    error = _error(Version.V16, "Authorize", payload, strict=True)
    assert error.code == "FormationViolation"
    assert "vendorExtra" in error.description


def test_any_limit_with_one_decimal_is_legal() -> None:
    # The schema says multipleOf 0.1, which binary floats are not.
    for limit in (0.1, 0.3, 6.7, 16.1, 32, 1234.5):
        schedule: dict[str, Any] = {
            "chargingRateUnit": "A",
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": limit}],
        }
        payload = {"status": "Accepted", "chargingSchedule": schedule}
        validate_response(Version.V16, "GetCompositeSchedule", payload)
        validate_response(Version.V16, "GetCompositeSchedule", payload, strict=True)
    schedule["chargingSchedulePeriod"][0]["limit"] = 0.1 + 0.2
    validate_response(Version.V16, "GetCompositeSchedule", payload)


@pytest.mark.parametrize("action", ["Nonsense", "../../../../etc/passwd", "", "a\0b", "TransactionEvent"])
def test_an_action_that_the_version_lacks_is_not_implemented(action: Any) -> None:
    assert _error(Version.V16, action, {}).code == "NotImplemented"
    with pytest.raises(KeyError):
        request_check(Version.V16, action)


def test_a_send_has_a_request_and_no_response() -> None:
    check = request_check(Version.V21, "NotifyPeriodicEventStream")
    assert check({"id": 1, "pending": 0, "basetime": "2026-01-01T00:00:00Z", "data": [{"t": 0, "v": "1"}]})
    with pytest.raises(OcppError):
        validate_response(Version.V21, "NotifyPeriodicEventStream", {})


payloads = st.dictionaries(
    st.sampled_from(["connectorId", "idTag", "meterStart", "timestamp", "x"]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2),
)


@given(payloads)
def test_any_payload_is_valid_or_refused_with_an_ocpp_error(payload: Any) -> None:
    try:
        validate_request(Version.V16, "StartTransaction", payload)
    except OcppError as refusal:
        error = refusal
    else:
        return
    assert error.code.endswith("Violation")
    assert error.description.startswith("$")
