from __future__ import annotations

import itertools

from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from services.router.core import State
from services.router.events import Close, EdgeSilent
from tests.unit.services.router.given import (
    T0,
    connected,
    disconnected,
    dispatches,
    fold,
    heard,
    pass_time,
    requested,
    stages,
)

A = connected("a", at=T0)
B = connected("b", edge="edge-1", edge_partition=1, at=T0 + 5_000)


def current(state: State, station: str = "CS-1") -> tuple[str, bool]:
    connection = state.stations[station].connections[0]
    return connection.connection_id, connection.open and not connection.unreachable


def state_with_edges(now_ms: int = T0) -> State:
    state = State(now_ms)
    fold(state, heard("edge-0"), heard("edge-1", edge_partition=1))
    return state


def test_a_disconnect_clears_only_its_own_connection() -> None:
    state = state_with_edges(T0 + 5_000)
    fold(state, A, B, disconnected(A, at=T0 + 6_000))
    assert current(state) == ("b", True)


def test_the_newest_connection_is_current_whatever_the_order_in_the_log() -> None:
    events = [A, B, disconnected(A, at=T0 + 6_000)]
    for order in itertools.permutations(events):
        state = state_with_edges(T0 + 6_000)
        fold(state, *order)
        assert current(state) == ("b", True), order


def test_a_connection_that_was_seen_to_close_does_not_open_again() -> None:
    state = state_with_edges()
    fold(state, disconnected(A, at=T0 + 1_000), A)
    assert current(state) == ("a", False)


def test_a_command_goes_to_the_newest_of_two_open_connections() -> None:
    state = state_with_edges(T0 + 5_000)
    assert dispatches(fold(state, B, A, requested(at=T0 + 5_000))) == [("c1", "b")]


def test_what_was_first_said_of_a_close_stays() -> None:
    state = state_with_edges()
    fold(state, A, disconnected(A, at=T0 + 1_000), disconnected(A, at=T0 + 9_000))
    assert state.stations["CS-1"].connections[0].disconnected_at_ms == T0 + 1_000


def test_when_the_newest_closes_an_older_open_one_is_current_again() -> None:
    state = state_with_edges(T0 + 6_000)
    fold(state, A, B, disconnected(B, at=T0 + 6_000))
    assert current(state) == ("a", True)
    assert state.stations["CS-1"].close_due_at_ms is None


def test_the_older_connection_is_told_to_close_after_the_grace_and_not_before() -> None:
    state = state_with_edges(T0 + 5_000)
    fold(state, A, B)
    assert pass_time(state, 9_000) == []
    [close] = pass_time(state, 2_000)
    assert isinstance(close, Close)
    assert (close.connection_id, close.edge_partition) == ("a", 0)


def test_an_order_to_close_is_repeated_a_few_times_and_then_given_up() -> None:
    state = State(T0 + 5_000)
    closes = []
    fold(state, A, B)
    for _ in range(200):
        fold(state, heard("edge-0", at=state.now_ms), heard("edge-1", at=state.now_ms))
        closes += pass_time(state, 1_000)
    assert [close.connection_id for close in closes if isinstance(close, Close)] == ["a", "a", "a"]
    assert not state.stations["CS-1"].connections[1].open


def test_a_new_instance_of_an_edge_voids_the_connections_of_the_old_one() -> None:
    state = state_with_edges()
    fold(state, A, heard("edge-0", "i2", at=T0 + 2_000, event="started"))
    state.now_ms = T0 + 3_000
    pass_time(state, 1_000)
    assert current(state) == ("a", False)
    assert state.stations["CS-1"].connections[0].close_code == 1006


def test_a_connection_of_an_instance_that_is_not_known_yet_counts() -> None:
    state = state_with_edges()
    newer = connected("n", instance="i2", at=T0 + 2_000)
    state.now_ms = T0 + 2_000
    outcomes = fold(state, newer, requested(at=T0 + 2_000))
    assert stages(outcomes) == ["dispatched"]


def test_a_zombie_instance_does_not_displace_its_successor() -> None:
    state = State(T0 + 9_000)
    fold(state, heard("edge-0", "i1"), heard("edge-0", "i2", at=T0 + 5_000, event="started"))
    fold(state, heard("edge-0", "i1", at=T0 + 9_000))
    assert state.edges["edge-0"].edge_instance == "i2"


def test_an_instance_that_is_older_than_the_present_one_is_a_past_one_from_the_start() -> None:
    state = State(T0 + 9_000)
    fold(state, heard("edge-0", "i2", at=T0 + 5_000), heard("edge-0", "i1", at=T0 + 4_000))
    assert state.edges["edge-0"].edge_instance == "i2"
    assert state.edges["edge-0"].past_instances == ("i1",)


def test_an_edge_that_is_silent_counts_as_gone_and_comes_back_with_its_connections() -> None:
    state = State(T0)
    fold(state, heard("edge-0"), A)
    pass_time(state, 17_000)
    assert current(state) == ("a", False)
    fold(state, heard("edge-0", at=state.now_ms))
    pass_time(state, 1_000)
    assert current(state) == ("a", True)


def test_a_sign_of_life_that_crosses_the_verdict_of_silence_wins() -> None:
    state = State(T0 + 20_000)
    fold(state, heard("edge-0"), heard("edge-0", at=T0 + 19_000), EdgeSilent("edge-0", "i1", T0, 0))
    assert not state.edges["edge-0"].silent


def test_repeated_signs_of_life_change_nothing() -> None:
    state = State(T0)
    fold(state, heard("edge-0", at=T0 + 1_000))
    before = state.edges["edge-0"]
    fold(state, heard("edge-0", at=T0), heard("edge-0", at=T0 + 1_000))
    assert state.edges["edge-0"] == before


connections = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20), st.booleans()), min_size=1, max_size=4)


@hypothesis_given(connections, st.randoms(use_true_random=False))
def test_any_order_and_any_repetition_of_the_same_records_gives_the_same_presence(
    spans: list[tuple[int, int, bool]], random: object
) -> None:
    events = []
    for index, (start, length, closes) in enumerate(spans):
        opened = connected(f"c{index}", edge=f"edge-{index % 2}", at=T0 + start * 1_000)
        events.append(opened)
        if closes:
            events.append(disconnected(opened, at=T0 + (start + length) * 1_000))
    straight, shuffled = state_with_edges(T0 + 60_000), state_with_edges(T0 + 60_000)
    fold(straight, *events)
    mixed = events + events[: len(events) // 2]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    fold(shuffled, *mixed)
    one, two = straight.stations["CS-1"], shuffled.stations["CS-1"]
    assert one.connections[0].connection_id == two.connections[0].connection_id
    assert {c.connection_id for c in one.connections if c.open} == {c.connection_id for c in two.connections if c.open}
