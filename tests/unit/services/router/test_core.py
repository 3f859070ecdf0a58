from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest

from services.router.core import State
from services.router.events import CommandDue, Dispatch, Stage
from tests.unit.services.router.given import (
    RESET,
    T0,
    connected,
    disconnected,
    dispatches,
    fold,
    heard,
    pass_time,
    read_back,
    reported,
    requested,
    stages,
    terminal,
)

A = connected("a")
B = connected("b", edge="edge-1", edge_partition=1, at=T0 + 1_000)


@pytest.fixture
def state() -> State:
    return State(T0)


@pytest.fixture
def online(state: State) -> State:
    fold(state, heard("edge-0"), heard("edge-1", edge_partition=1), A)
    return state


def test_a_command_goes_to_the_partition_and_connection_that_hold_the_socket(state: State) -> None:
    fold(state, heard("edge-1", edge_partition=7), connected("a", edge="edge-1", edge_partition=7))
    outcomes = fold(state, requested(priority=3))
    assert outcomes[0] == Dispatch("CS-1", 7, "a", "c1", "Reset", RESET, T0 + 30_000, 3, T0)
    assert stages(outcomes) == ["dispatched"]


def test_the_same_command_twice_is_sent_once(online: State) -> None:
    fold(online, requested())
    assert fold(online, requested()) == []


def test_an_answer_is_the_outcome(online: State) -> None:
    fold(online, requested(), reported("sent", at=T0 + 10))
    outcomes = fold(online, reported("answered", at=T0 + 50, payload='{"status":"Accepted"}'))
    command = online.commands["c1"]
    assert outcomes == []
    assert (command.outcome, command.answer, command.sent_at_ms) == (
        "answered",
        '{"status":"Accepted"}',
        T0 + 10,
    )
    assert command.review_at_ms is None


def test_an_offline_station_is_reported_at_once(state: State) -> None:
    assert terminal(fold(state, requested())) == [("c1", "offline")]


def test_a_station_that_has_left_is_offline(online: State) -> None:
    fold(online, disconnected(A, at=T0 + 10))
    assert terminal(fold(online, requested())) == [("c1", "offline")]


def test_a_parked_command_goes_out_when_its_station_returns(state: State) -> None:
    assert stages(fold(state, requested(park=True))) == ["parked"]
    assert dispatches(fold(state, A)) == [("c1", "a")]


def test_parked_commands_go_out_by_priority_and_then_by_age(state: State) -> None:
    fold(
        state,
        requested("old", park=True, at=T0 - 5),
        requested("urgent", park=True, priority=9),
        requested("new", park=True),
    )
    assert [command for command, _ in dispatches(fold(state, A))] == ["urgent", "old", "new"]


def test_a_parked_command_is_offline_at_its_deadline(state: State) -> None:
    fold(state, requested(park=True, within=5_000))
    assert terminal(pass_time(state, 4_000)) == []
    assert terminal(pass_time(state, 4_000)) == [("c1", "offline")]
    assert dispatches(fold(state, A)) == []


def test_an_undelivered_command_goes_to_a_newer_connection(online: State) -> None:
    fold(online, requested())
    fold(online, B)
    assert dispatches(fold(online, reported("undelivered"))) == [("c1", "b")]
    assert online.commands["c1"].attempts == 2


def test_an_undelivered_command_waits_shortly_for_a_newer_connection(online: State) -> None:
    fold(online, requested(), disconnected(A, at=T0 + 5), reported("undelivered"))
    assert terminal(pass_time(online, 3_000)) == []
    online_again = connected("b", at=T0 + 3_000)
    assert dispatches(fold(online, online_again)) == [("c1", "b")]


def test_an_undelivered_command_is_offline_when_no_connection_comes(online: State) -> None:
    fold(online, requested(), disconnected(A, at=T0 + 5), reported("undelivered"))
    assert terminal(pass_time(online, 8_000)) == [("c1", "offline")]


def test_an_undelivered_command_is_parked_if_the_caller_asked_for_it(online: State) -> None:
    fold(online, requested(park=True, within=60_000), disconnected(A, at=T0 + 5), reported("undelivered"))
    assert stages(pass_time(online, 8_000)) == ["parked"]
    assert dispatches(fold(online, connected("b", at=online.now_ms))) == [("c1", "b")]


def test_a_command_that_is_not_heard_of_does_not_go_to_the_same_connection_again(online: State) -> None:
    fold(online, requested(park=True, within=600_000))
    outcomes = []
    for _ in range(60):
        fold(online, heard("edge-0", at=online.now_ms))
        outcomes += pass_time(online, 1_000)
    assert dispatches(outcomes) == []


def test_a_command_that_a_living_connection_handed_back_goes_there_again_after_a_while(online: State) -> None:
    fold(online, requested())
    outcomes = fold(online, reported("undelivered"), reported("undelivered"))
    assert dispatches(outcomes) == []
    assert dispatches(pass_time(online, 1_000)) == []
    assert dispatches(pass_time(online, 2_000)) == [("c1", "a")]


def test_an_undelivered_report_of_an_earlier_connection_is_stale(online: State) -> None:
    fold(online, requested(), B, reported("undelivered", "a"))
    assert fold(online, reported("undelivered", "a", at=T0 + 1), reported("sent", "a", at=T0 + 2)) == []
    assert online.commands["c1"].stage == "dispatched"


def test_a_report_that_comes_again_after_the_next_dispatch_is_no_news(online: State) -> None:
    report = reported("undelivered", at=T0 + 5)
    fold(online, requested(), report)
    assert dispatches(pass_time(online, 3_000)) == [("c1", "a")]
    assert fold(online, report) == []
    assert online.commands["c1"].stage == "dispatched"
    fold(online, reported("undelivered", at=T0 + 2_500))
    assert online.commands["c1"].stage == "undelivered"


def test_a_command_that_is_not_heard_of_gets_a_timeout(online: State) -> None:
    fold(online, requested(within=10_000), reported("sent"))
    for _ in range(10):
        fold(online, heard("edge-0", at=online.now_ms))
        assert terminal(pass_time(online, 1_000)) == []
    assert terminal(pass_time(online, 3_000)) == [("c1", "timeout")]


def test_a_command_goes_out_again_if_its_edge_died_before_it_was_sent(online: State) -> None:
    fold(online, requested())
    online.now_ms = T0 + 2_000
    fold(online, heard("edge-0", "i2", at=T0 + 2_000, event="started"), connected("b", edge="edge-1", at=T0 + 2_500))
    assert dispatches(pass_time(online, 6_000)) == [("c1", "b")]


def test_a_sent_command_whose_edge_died_is_disconnected_and_not_sent_again(online: State) -> None:
    fold(online, requested(), reported("sent"))
    online.now_ms = T0 + 2_000
    fold(online, heard("edge-0", "i2", at=T0 + 2_000, event="started"), connected("b", edge="edge-1", at=T0 + 2_500))
    outcomes = pass_time(online, 10_000)
    assert terminal(outcomes) == [("c1", "disconnected")]
    assert dispatches(outcomes) == []


def test_commands_of_a_connection_that_closed_are_soon_decided_if_the_edge_says_nothing(online: State) -> None:
    fold(online, requested(within=600_000), reported("sent"))
    for _ in range(60):
        fold(online, heard("edge-0", at=online.now_ms))
        pass_time(online, 1_000)
    fold(online, disconnected(A, at=online.now_ms))
    assert terminal(pass_time(online, 2_000)) == []
    assert terminal(pass_time(online, 2_000)) == [("c1", "disconnected")]


def test_a_command_to_a_dead_edge_and_a_station_that_stays_away_is_offline(online: State) -> None:
    fold(online, requested())
    online.now_ms = T0 + 2_000
    fold(online, heard("edge-0", "i2", at=T0 + 2_000, event="started"))
    outcomes = pass_time(online, 20_000)
    assert terminal(outcomes) == [("c1", "offline")]
    assert "undelivered" in stages(outcomes)


def test_a_command_that_is_read_after_its_deadline_is_not_sent(online: State) -> None:
    online.now_ms = T0 + 3_600_000
    fold(online, heard("edge-0", at=online.now_ms))
    assert fold(online, requested()) == []
    outcomes = pass_time(online, 5_000)
    assert terminal(outcomes) == [("c1", "timeout")]
    assert dispatches(outcomes) == []


def test_a_later_terminal_stage_is_recorded_as_late(online: State) -> None:
    fold(online, requested(), reported("sent"), reported("timeout", at=T0 + 30_000))
    outcomes = fold(online, reported("answered", at=T0 + 31_000, payload="{}"))
    assert stages(outcomes) == ["late"]
    assert online.commands["c1"].outcome == "timeout"
    [late] = [item for item in outcomes if isinstance(item, Stage)]
    assert late.error_description == "answered, after the outcome was timeout"


def test_the_same_outcome_twice_is_not_late(online: State) -> None:
    answered = reported("answered", at=T0 + 50, payload="{}")
    fold(online, requested(), reported("sent"), answered)
    assert fold(online, answered) == []


def test_the_end_of_an_earlier_connection_is_not_the_outcome(online: State) -> None:
    fold(online, requested(), B, reported("undelivered", "a"))
    fold(online, reported("disconnected", "a"), reported("timeout", "a"))
    assert online.commands["c1"].outcome is None


def test_an_answer_on_an_earlier_connection_is_the_outcome(online: State) -> None:
    fold(online, requested(), B, reported("undelivered", "a"), reported("answered", "a", payload="{}"))
    assert online.commands["c1"].outcome == "answered"


def test_a_sent_report_that_comes_after_the_router_gave_up_is_believed(online: State) -> None:
    fold(online, requested(), reported("undelivered"), reported("sent"))
    assert online.commands["c1"].stage == "sent"
    assert online.commands["c1"].review_at_ms is not None


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("NaN", "not JSON"),
        ('{"vendorId":"a\\u0000b"}', "NUL"),
    ],
)
def test_a_payload_that_cannot_be_read_is_rejected(online: State, payload: str, why: str) -> None:
    outcomes = fold(online, requested(payload=payload))
    assert terminal(outcomes) == [("c1", "rejected")]
    assert why in online.commands["c1"].error_description


@pytest.mark.parametrize(
    ("action", "payload"),
    [
        ("GetVariables", "{}"),
        ("Reset", "{}"),
        ("Reset", '{"type":"Soft","more":1}'),
        ("'; DROP TABLE router.commands; --", "{}"),
    ],
)
def test_a_call_that_the_version_does_not_have_is_rejected(online: State, action: str, payload: str) -> None:
    assert terminal(fold(online, requested(action=action, payload=payload))) == [("c1", "rejected")]


def test_a_command_is_held_against_the_version_of_the_connection_that_it_finds(state: State) -> None:
    fold(state, requested(park=True))
    assert terminal(fold(state, connected("a", version="2.0.1"))) == [("c1", "rejected")]


def test_a_parked_command_waits_out_an_edge_that_is_silent_for_a_while(state: State) -> None:
    fold(state, heard("edge-0"), A)
    pass_time(state, 20_000)
    assert stages(fold(state, requested(at=state.now_ms, park=True, within=600_000))) == ["parked"]
    fold(state, heard("edge-0", at=state.now_ms))
    assert dispatches(pass_time(state, 2_000)) == [("c1", "a")]


def test_a_parked_command_is_looked_at_though_nobody_says_that_its_edge_is_back(state: State) -> None:
    fold(state, heard("edge-0"), A)
    pass_time(state, 20_000)
    fold(state, requested(at=state.now_ms, park=True, within=600_000))
    state.now_ms += 20_000
    fold(state, heard("edge-0", at=state.now_ms))
    assert dispatches(fold(state, CommandDue("c1", "CS-1", 0))) == [("c1", "a")]


def test_reading_back_a_stage_does_not_undo_what_followed(online: State) -> None:
    own = [read_back(item) for item in fold(online, requested()) if isinstance(item, Stage)]
    fold(online, reported("sent"))
    fold(online, *own)
    assert (online.commands["c1"].stage, online.commands["c1"].attempts) == ("sent", 1)


def test_reading_back_what_the_router_wrote_changes_nothing(online: State) -> None:
    outcomes = fold(online, requested(), disconnected(A, at=T0 + 5), reported("undelivered"))
    outcomes += pass_time(online, 8_000)
    before = deepcopy(online.commands)
    own = [read_back(item) for item in outcomes if isinstance(item, Stage)]
    assert [event.stage for event in own] == ["dispatched", "offline"]
    assert fold(online, *own) == []
    assert online.commands == before


def test_a_rebuild_from_the_log_ends_with_the_same_command_and_sends_nothing(online: State) -> None:
    handed_back = reported("undelivered", "a", at=T0 + 30)
    written = fold(online, requested(), B, handed_back)
    fold(online, reported("sent", "b", at=T0 + 40), reported("answered", "b", at=T0 + 50, payload="{}"))
    first, second = [read_back(item) for item in written if isinstance(item, Stage)]
    answered = reported("sent", "b", at=T0 + 40), reported("answered", "b", at=T0 + 50, payload="{}")
    log = (requested(), first, handed_back, second, *answered)
    rebuilt = State(T0 + 3_600_000)
    assert fold(rebuilt, *log) == []
    assert replace(rebuilt.commands["c1"], review_at_ms=None) == online.commands["c1"]
    assert pass_time(rebuilt, 10_000) == []


def test_stages_of_a_command_that_is_not_known_are_kept_and_harm_nothing(state: State) -> None:
    assert fold(state, reported("answered")) == []
    assert len(state.history) == 1
