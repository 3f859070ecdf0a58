"""Every action that the stations service owns: answered, and by the book."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from busbar.ocpp.actions import fallback, station_actions
from busbar.ocpp.validation import validate_response
from busbar.ocpp.versions import Version
from services.stations.actions import ACTIONS
from tests.support.payloads import any_payload, fullest, smallest
from tests.unit.services.stations.cases import answer, event, fold, new_state, outbound, rows

OWNED = [
    (version, action)
    for version in Version
    for action, row in station_actions(version).items()
    if row.owner == "stations"
]


def test_the_table_has_exactly_the_actions_that_this_service_owns() -> None:
    assert {(version, action) for version, table in ACTIONS.items() for action in table} == set(OWNED)


@pytest.mark.parametrize(("version", "action"), OWNED)
def test_only_what_travels_as_send_is_left_unanswered(version: Version, action: str) -> None:
    unanswered = ACTIONS[version][action].answer is None
    assert unanswered == station_actions(version)[action].send


@pytest.mark.parametrize("make", [smallest, fullest])
@pytest.mark.parametrize(("version", "action"), OWNED)
def test_the_answer_is_valid_by_the_response_schema(version: Version, action: str, make: Any) -> None:
    results = fold(new_state(), event(version, action, make(version, action)))
    if station_actions(version)[action].send:
        assert outbound(results) == []
    else:
        validate_response(version, action, answer(results), strict=True)


@given(st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
def test_any_valid_payload_gets_a_valid_answer_and_twice_the_same_event_changes_nothing(data: st.DataObject) -> None:
    version, action = data.draw(st.sampled_from(OWNED))
    payload = data.draw(any_payload(version, action))
    state, one = new_state(), event(version, action, payload)
    first = fold(state, one)
    after = rows(state)
    assert fold(state, one) == first
    assert rows(state) == after
    if not station_actions(version)[action].send:
        validate_response(version, action, answer(first), strict=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(OWNED), st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_fields_of_the_wrong_type_crash_nothing(owned: tuple[Version, str], data: st.DataObject) -> None:
    """The edge lets no such payload pass; a record may still come from an older edge, or a repaired dead letter."""
    version, action = owned
    payload = fullest(version, action)
    name = data.draw(st.sampled_from(sorted(payload) or ["none"]))
    fold(new_state(), event(version, action, {**payload, name: data.draw(JSON), "unknown": data.draw(JSON)}))


@pytest.mark.parametrize(("version", "action"), OWNED)
def test_a_late_answer_of_the_edge_says_what_this_service_would_say(version: Version, action: str) -> None:
    late = fallback(version, action, "2026-03-01T12:00:00Z")
    if late is None:
        return
    told = answer(fold(new_state(), event(version, action, smallest(version, action))))
    assert {name: told.get(name) for name in late} == late


def test_certificates_are_refused_in_the_words_of_each_action() -> None:
    def say(action: str) -> dict[str, Any]:
        return answer(fold(new_state(), event(Version.V21, action, fullest(Version.V21, action))))

    assert say("SignCertificate") == {"status": "Rejected"}
    assert say("Get15118EVCertificate") == {"status": "Failed", "exiResponse": ""}
    assert say("GetCertificateStatus") == {"status": "Failed"}
    (chain,) = say("GetCertificateChainStatus")["certificateStatus"]
    assert (chain["status"], chain["source"]) == ("Failed", "CRL")
    assert chain["certificateHashData"]["serialNumber"] == "text"


def test_what_the_schema_does_not_know_never_comes_back_to_the_station() -> None:
    payload = fullest(Version.V21, "GetCertificateChainStatus")
    payload["certificateStatusRequests"][0]["certificateHashData"]["vendorField"] = "kept, and not told"
    told = answer(fold(new_state(), event(Version.V21, "GetCertificateChainStatus", payload)))
    validate_response(Version.V21, "GetCertificateChainStatus", told, strict=True)
