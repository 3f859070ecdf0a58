"""Fetch sessions: what is asked for, byte for byte as aiokafka would, and what the broker is taken to remember."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition, errors
from aiokafka.protocol.fetch import FetchRequest_v11, FetchResponse_v11
from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.stream.kafka_fetcher import AnsweredPartition, FetchAnswer, Fetcher, FetchRequest, Session

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("bé", 0)


def request(**changes: object) -> FetchRequest:
    options: dict[str, object] = {
        "max_wait_ms": 500,
        "min_bytes": 1,
        "max_bytes": 4096,
        "isolation_level": 1,
        "session": (17, 3),
        "positions": [(A0, 5), (B0, 2**40), (A1, 0)],
        "max_partition_bytes": 1024,
        "forgotten": [B0, A1],
        "rack_id": "zone-1",
        **changes,
    }
    return FetchRequest(**options)  # type: ignore[arg-type]


def test_a_request_has_the_bytes_that_aiokafka_would_write() -> None:
    expected = FetchRequest_v11(
        -1,
        500,
        1,
        4096,
        1,
        17,
        3,
        [("a", [(0, -1, 5, -1, 1024), (1, -1, 0, -1, 1024)]), ("bé", [(0, -1, 2**40, -1, 1024)])],
        [("bé", [0]), ("a", [1])],
        "zone-1",
    )
    ours = request()
    assert ours.encode() == expected.encode()
    assert ours.build_request_header(7, "me").encode() == expected.build_request_header(7, "me").encode()
    assert ours.parse_response_header(BytesIO(b"\x00\x00\x00\x07rest")).correlation_id == 7


def test_an_answer_is_read_as_aiokafka_would_read_it() -> None:
    written = FetchResponse_v11(
        0,
        0,
        99,
        [
            ("bé", [(0, 0, 12, 11, 3, [(8, 9), (10, 2**40)], 2, b"records"), (1, 6, -1, -1, -1, None, -1, b"")]),
            ("a", [(1, 0, 1, 1, 0, [], -1, None)]),
        ],
    ).encode()
    buffer = BytesIO(b"head" + written)
    buffer.read(4)
    answer = FetchAnswer.decode(buffer)
    assert (answer.error_code, answer.session_id) == (0, 99)
    assert answer.partitions == [
        AnsweredPartition(B0, 0, 12, 11, [(8, 9), (10, 2**40)], 2, b"records"),
        AnsweredPartition(TopicPartition("bé", 1), 6, -1, -1, [], -1, b""),
        AnsweredPartition(A1, 0, 1, 1, [], -1, b""),
    ]


def test_a_broker_that_speaks_older_versions_only_is_refused() -> None:
    ours = request()
    assert ours.prepare({1: (4, 17)}) is ours
    with pytest.raises(errors.IncompatibleBrokerVersion):
        ours.prepare({1: (0, 10)})


def test_a_session_names_what_has_changed_and_forgets_what_is_not_wanted() -> None:
    session = Session()
    identity, positions, forgotten = session.next_request({A0: 1, A1: 2, B0: 3})
    assert (identity, sorted(positions), forgotten) == ((0, 0), [(A0, 1), (A1, 2), (B0, 3)], [])
    session.answered(42)
    assert session.next_request({A0: 1, A1: 7, B0: 3}) == ((42, 1), [(A1, 7)], [])
    session.answered(42)
    assert session.next_request({A0: 1, A1: 7}) == ((42, 2), [], [B0])
    session.answered(42)
    # It was paused, say: it comes back where it was.
    assert session.next_request({A0: 1, A1: 7, B0: 3}) == ((42, 3), [(B0, 3)], [])


def test_a_session_begins_anew_with_everything_when_it_is_not_certain_what_the_broker_remembers() -> None:
    session = Session()
    session.next_request({A0: 1})
    session.answered(42)
    session.next_request({A0: 2, A1: 5})
    session.restart()
    identity, positions, forgotten = session.next_request({A0: 2, A1: 5})
    # The old id with epoch 0 ends that session at the broker.
    assert (identity, sorted(positions), forgotten) == ((42, 0), [(A0, 2), (A1, 5)], [])


def test_a_broker_without_room_for_a_session_is_asked_for_everything_each_time() -> None:
    session = Session()
    for _ in range(2):
        assert session.next_request({A0: 1}) == ((0, 0), [(A0, 1)], [])
        session.answered(0)


def test_the_epoch_goes_round_to_one() -> None:
    session = Session()
    session.next_request({A0: 1})
    session.answered(42)
    session.epoch = 2**31 - 1
    session.answered(42)
    assert session.epoch == 1


class Cluster:
    """What a fetcher asks of the metadata."""

    def __init__(self, leaders: dict[TopicPartition, int | None]) -> None:
        self.leaders = leaders
        self._last_successful_refresh_ms = 1

    def leader_for_partition(self, name: TopicPartition) -> int | None:
        return self.leaders[name]


class Asking(Fetcher):
    """A fetcher without a connection, which says what it would ask."""

    def __init__(self, cluster: Cluster) -> None:
        self._client = SimpleNamespace(cluster=cluster)
        self._records: dict[TopicPartition, Any] = {}
        self._in_flight: set[int] = set()
        self._fetcher_timeout = 0.5
        self._client_rack = None
        self._preferred_read_replica: dict[TopicPartition, Any] = {}
        self._sessions = {}
        self._sessions_of = None
        self._places, self._leaders, self._placed_ms = {}, {}, -1
        self._fetch_max_wait_ms = 500
        self._fetch_min_bytes = self._fetch_max_bytes = self._max_partition_fetch_bytes = 1
        self._isolation_level = 1

        self.waits: dict[int, int] = {}

    def _request(self, node_id: int, wanted: Mapping[TopicPartition, int], wait_ms: int) -> Any:
        self.waits[node_id] = wait_ms
        return dict(wanted)


NAMES = [TopicPartition(topic, number) for topic in "ab" for number in range(3)]
partitions = st.fixed_dictionaries(
    {
        "leader": st.sampled_from([1, 1, 2, 3, None, -1]),
        "position": st.one_of(st.none(), st.integers(0, 9), st.integers(0, 9)),
        "paused": st.booleans(),
        "backoff": st.sampled_from([None, None, 0, 0.1, 0.2]),
    }
)


@settings(max_examples=300, deadline=None)
@given(
    states=st.lists(partitions, min_size=len(NAMES), max_size=len(NAMES)),
    is_calm=st.booleans(),
    in_flight=st.sets(st.integers(1, 3)),
    moved=st.lists(st.sampled_from([1, 2, 3]), min_size=len(NAMES), max_size=len(NAMES)),
)
def test_what_is_asked_of_whom_is_what_aiokafka_decides(
    states: list[dict[str, Any]], is_calm: bool, in_flight: set[int], moved: list[int]
) -> None:
    if is_calm:  # all leaders and positions are known, as nearly always
        states = [{**each, "leader": each["leader"] or 1, "position": each["position"] or 0} for each in states]
    cluster = Cluster({name: state["leader"] for name, state in zip(NAMES, states, strict=True)})
    fetcher = Asking(cluster)
    fetcher._in_flight = in_flight
    values = {
        name: SimpleNamespace(
            _position=state["position"],
            position=state["position"],
            has_valid_position=state["position"] is not None,
            _paused=state["paused"],
            paused=state["paused"],
            _resume_fut=name,
            resume_fut=name,
        )
        for name, state in zip(NAMES, states, strict=True)
    }
    assignment = SimpleNamespace(tps=NAMES, state_value=values.get)
    for name, state in zip(NAMES, states, strict=True):
        if state["backoff"] is not None:
            fetcher._records[name] = SimpleNamespace(calculate_backoff=partial(float, state["backoff"]))
    for _ in range(2):
        requests, resets, timeout, invalid, resumes = fetcher._get_actions_per_node(assignment)
        theirs = fetcher._as_aiokafka(assignment)
        assert sorted(requests, key=str) == sorted(theirs[0], key=str)
        assert (resets, timeout, invalid, sorted(resumes)) == (theirs[1], theirs[2], theirs[3], sorted(theirs[4]))
        cluster.leaders = dict(zip(NAMES, moved, strict=True))  # found out by the next look at the metadata
        cluster._last_successful_refresh_ms += 1


def test_a_node_is_not_left_in_a_long_poll_while_partitions_of_it_are_paused() -> None:
    cluster = Cluster({name: 1 if name.topic == "a" else 2 for name in NAMES})
    fetcher = Asking(cluster)
    values = {
        name: SimpleNamespace(_position=5, _paused=name == NAMES[0], _resume_fut=name, paused=False, position=5)
        for name in NAMES
    }
    fetcher._get_actions_per_node(SimpleNamespace(tps=NAMES, state_value=values.get))
    assert fetcher.waits == {1: 20, 2: 500}
