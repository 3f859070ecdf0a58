from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busbar.ocpp.actions import csms_actions
from busbar.ocpp.versions import Version
from services.api.core import (
    CommandOptions,
    KnownStation,
    Outcome,
    check_command,
    command_id_for,
    command_version,
    instant,
    outcome_members,
    patience_seconds,
    read_options,
    read_payload,
)
from services.api.problems import MAX_ERRORS, Problem


def refused(function: Callable[[Any], Any], value: Any) -> Any:
    """What the function makes of the value, or the status of the problem that it sees in it."""
    try:
        return function(value)
    except Problem as problem:
        return problem.status


def test_options_have_sensible_defaults() -> None:
    assert read_options({}) == CommandOptions(30.0, 30.0, park=False, priority=0)
    assert read_options({"wait": "60"}).timeout_seconds == 60
    assert read_options({"wait": "5"}).timeout_seconds == 30
    assert read_options({"park": "1"}).timeout_seconds == 86_400
    assert read_options({"park": "true", "timeout": "90"}).timeout_seconds == 90


def test_who_waits_out_the_timeout_gets_to_know_the_outcome() -> None:
    assert patience_seconds(read_options({})) > 30
    assert patience_seconds(read_options({"wait": "5"})) == 5
    assert patience_seconds(read_options({"wait": "5", "timeout": "5"})) > 5


@given(st.dictionaries(st.sampled_from(["wait", "timeout", "park", "priority"]), st.text()))
def test_any_query_gives_options_or_a_problem(query: dict[str, str]) -> None:
    options = refused(read_options, query)
    if not isinstance(options, int):
        assert 0 <= options.wait_seconds <= 300
        assert options.timeout_seconds >= 1
    else:
        assert options == 422


@given(st.binary() | st.text().map(str.encode))
def test_any_body_gives_an_object_or_a_problem(body: bytes) -> None:
    payload = refused(read_payload, body)
    assert isinstance(payload, dict) or payload in (400, 422)


@pytest.mark.parametrize(
    ("pinned", "last", "online", "version"),
    [
        (None, "2.0.1", True, Version.V201),
        ("1.6", "2.0.1", True, Version.V201),
        ("1.6", "2.0.1", False, Version.V16),
        (None, "2.0.1", False, Version.V201),
        ("2.1", None, False, Version.V21),
    ],
)
def test_the_version_is_that_of_the_connection_else_the_pin_else_the_last(
    pinned: str | None, last: str | None, online: bool, version: Version
) -> None:
    assert command_version(KnownStation("CS-1", pinned, last, online)) is version


@pytest.mark.parametrize("last", [None, "", "9.9"])
def test_without_a_version_there_is_no_command(last: str | None) -> None:
    with pytest.raises(Problem) as raised:
        command_version(KnownStation("CS-1", None, last, online=False))
    assert raised.value.status == 409


@pytest.mark.parametrize("version", list(Version))
def test_every_action_of_every_version_is_checked_by_its_own_schema(version: Version) -> None:
    for action in csms_actions(version):
        with pytest.raises(Problem) as raised:
            check_command(version, action, {"": 1})
        assert raised.value.kind == "invalid-payload", action


@pytest.mark.parametrize("action", ["BootNotification", "reset", "", "../Reset", "TransactionEvent"])
def test_what_is_no_call_to_a_station_is_unknown(action: str) -> None:
    with pytest.raises(Problem) as raised:
        check_command(Version.V16, action, {})
    assert raised.value.status == 404


@pytest.mark.parametrize("data", ["a\0b", "\0"])
def test_a_nul_character_is_no_payload_though_the_schema_takes_it(data: str) -> None:
    check_command(Version.V201, "DataTransfer", {"vendorId": "v", "data": {"list": ["fine"]}})
    for payload in (
        {"vendorId": data},
        {"vendorId": "v", "data": {"list": [data]}},
        {"vendorId": "v", "data": {data: 1}},
    ):
        with pytest.raises(Problem):
            check_command(Version.V201, "DataTransfer", payload)


def test_no_more_errors_are_listed_than_a_person_reads() -> None:
    payload: dict[str, Any] = {"getVariableData": [{} for _ in range(100)]}
    with pytest.raises(Problem) as raised:
        check_command(Version.V201, "GetVariables", payload)
    assert len(raised.value.errors) == MAX_ERRORS


def test_an_idempotency_key_stands_for_one_command_of_one_key_station_and_action() -> None:
    one = command_id_for("k", "key", "CS-1", "Reset")
    assert one == command_id_for("k", "key", "CS-1", "Reset")
    others = {
        command_id_for("l", "key", "CS-1", "Reset"),
        command_id_for("k", "other", "CS-1", "Reset"),
        command_id_for("k", "key", "CS-2", "Reset"),
        command_id_for("k", "key", "CS-1", "ClearCache"),
        command_id_for("k", "keyCS-1", "", "Reset"),
    }
    assert one not in others
    assert len(others) == 5


def test_an_answer_and_an_error_read_differently() -> None:
    answered = outcome_members(Outcome("c", "answered", 0, answer='{"status":"Accepted"}'))
    assert answered == {
        "outcome": "answered",
        "finished_at": "1970-01-01T00:00:00.000Z",
        "answer": {"status": "Accepted"},
    }
    error = outcome_members(Outcome("c", "error", 0, error_code="GenericError", error_details="not json"))
    assert error["error"] == {"code": "GenericError", "description": "", "details": "not json"}


def test_instants_have_milliseconds_and_a_z() -> None:
    assert instant(1_790_000_000_123) == "2026-09-21T14:13:20.123Z"
