"""The table of actions against the schemas of the specification."""

from __future__ import annotations

from typing import Any

import pytest

from busbar.ocpp.actions import csms_actions, fallback, is_known, owner, station_actions
from busbar.ocpp.validation import schema_names, strict_validator, validate_response
from busbar.ocpp.versions import Version


@pytest.mark.parametrize(
    ("version", "stations", "csms"), [(Version.V16, 14, 26), (Version.V201, 25, 40), (Version.V21, 37, 55)]
)
def test_the_table_has_every_action_of_the_specification(version: Any, stations: Any, csms: Any) -> None:
    assert len(station_actions(version)) == stations
    assert len(csms_actions(version)) == csms
    with_schema = {name.removesuffix("Request").removesuffix("Response") for name in schema_names(version)}
    assert set(station_actions(version)) | set(csms_actions(version)) == with_schema


@pytest.mark.parametrize("version", list(Version))
def test_every_schema_compiles(version: Any) -> None:
    for action, row in station_actions(version).items():
        strict_validator(version, action)
        assert row.send or strict_validator(version, action, True)
    for action in csms_actions(version):
        strict_validator(version, action)
        strict_validator(version, action, True)


@pytest.mark.parametrize("version", list(Version))
def test_every_fallback_is_a_valid_answer(version: Any) -> None:
    for action in station_actions(version):
        payload = fallback(version, action, "2026-01-01T00:00:00.000Z")
        if payload is not None:
            validate_response(version, action, payload, strict=True)


def test_only_21_has_messages_that_are_never_answered() -> None:
    sends = {(v, a) for v in Version for a, row in station_actions(v).items() if row.send}
    assert sends == {(Version.V21, "NotifyPeriodicEventStream")}


def test_heartbeat_is_answered_by_the_edge_and_its_fallback_has_the_time() -> None:
    for version in Version:
        assert owner(version, "Heartbeat") == "edge"
        assert fallback(version, "Heartbeat", "T") == {"currentTime": "T"}
    assert owner(Version.V16, "StartTransaction") == "sessions"
    assert fallback(Version.V16, "StartTransaction", "T") is None
    with pytest.raises(KeyError):
        owner(Version.V16, "TransactionEvent")


def test_an_action_is_known_if_any_version_has_it_in_either_direction() -> None:
    assert is_known("TransactionEvent")
    assert is_known("ChangeConfiguration")
    assert not is_known("Renegotiate")
